"""Windows of long clips, which are embedded separately and then pooled (MIL-NCE: the mean of ten windows)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trichord.data.batch import Clips
from trichord.errors import TrichordError

POOLS = ("mean", "max")


@dataclass(frozen=True)
class Windows:
    """Windows of equal length, evenly spaced from the start to the end of a clip. Shorter clips are not cut.

    Attributes:
        count: Number of windows.
        length_s: Length of a window, in seconds.
        pool: How the embeddings of the windows are combined: by their `mean` (published), or by the `max` of each dimension.
    """

    count: int
    length_s: float
    pool: str = "mean"

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.length_s < float("inf"):
            raise TrichordError(
                f"{self.count} windows of {self.length_s} s are invalid; give a number of at least 1 and a length above 0 s"
            )
        if self.pool not in POOLS:
            raise TrichordError(f"unknown pooling of windows '{self.pool}'; expected {' or '.join(POOLS)}")

    @property
    def text(self) -> str:
        """Text of the windows in the scope of a figure, such as `10 windows of 3 s, mean`."""
        return f"{self.count} window{'s' if self.count > 1 else ''} of {self.length_s:g} s, {self.pool}"

    @property
    def note(self) -> str:
        """Text of the windows in a note."""
        count = f"{self.count} windows" if self.count > 1 else "one window"
        return f"clips longer than {self.length_s:g} s are embedded as {count} of this length ({self.pool})"


def window_clips(clips: Clips, windows: Windows) -> tuple[Clips, np.ndarray]:
    """Cut clips into windows. A clip that is not longer than a window is a single window.

    Args:
        clips: N clips.
        windows: Number and length of the windows.

    Returns:
        W windows, and the index (W,) of the clip of each window.
    """
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    for start, end in zip(clips.start_s.tolist(), clips.end_s.tolist(), strict=True):
        if end - start <= windows.length_s:
            starts.append(np.array([start]))
            ends.append(np.array([end]))
            continue
        starts.append(np.linspace(start, end - windows.length_s, windows.count))
        ends.append(starts[-1] + windows.length_s)
    clip_of = np.repeat(np.arange(len(clips)), [len(s) for s in starts])
    if not len(clips):
        return clips, clip_of
    said = [clips.captions[i] for i in clip_of.tolist()]
    return Clips(clips.item[clip_of], np.concatenate(starts), np.concatenate(ends), said), clip_of


def pooled(
    vectors: dict[str, np.ndarray], valid: dict[str, np.ndarray], clip_of: np.ndarray, num_clips: int, windows: Windows
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Combine the embeddings of windows to embeddings of clips.

    Args:
        vectors: Embeddings (W, D) of the windows by modality.
        valid: Masks (W,) of the windows that have the modality. Other windows are ignored.
        clip_of: Index (W,) of the clip of each window, in increasing order.
        num_clips: Number N of clips.
        windows: Windows, which define the pooling.

    Returns:
        Embeddings (N, D) of the clips by modality, and masks (N,) of the clips that have a window with the modality.
    """
    out, there = {}, {}
    for modality, rows in vectors.items():
        kept = np.flatnonzero(valid[modality])
        whole = np.zeros((num_clips, rows.shape[1]), np.float32)
        counts = np.bincount(clip_of[kept], minlength=num_clips)
        there[modality] = counts > 0
        if len(kept):
            firsts = np.flatnonzero(np.diff(clip_of[kept], prepend=-1))
            reduce = np.add if windows.pool == "mean" else np.maximum
            whole[there[modality]] = reduce.reduceat(rows[kept], firsts, axis=0)
            if windows.pool == "mean":
                whole[there[modality]] /= counts[there[modality], None]
        out[modality] = whole
    return out, there
