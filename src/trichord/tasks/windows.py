"""Long clips by windows: cut, embed each window, pool (MIL-NCE: ten windows of the training length, their mean)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trichord.data.batch import Clips
from trichord.errors import TrichordError

POOLS = ("mean", "max")


@dataclass(frozen=True)
class Windows:
    """A clip longer than `length_s` is cut into `count` windows of that length, evenly spaced from its start to its end.

    pool: `mean` of the windows' embeddings (published), or `max`, the largest value of each dimension.
    """

    count: int
    length_s: float
    pool: str = "mean"

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.length_s < float("inf"):
            raise TrichordError(
                f"{self.count} windows of {self.length_s} s cannot be cut; give 1 or more, longer than 0 s"
            )
        if self.pool not in POOLS:
            raise TrichordError(f"windows cannot be pooled by '{self.pool}'; choose {' or '.join(POOLS)}")

    @property
    def told(self) -> str:
        """Return the windows as names of figures have them: `10 windows of 3 s, mean`."""
        return f"{self.count} window{'s' if self.count > 1 else ''} of {self.length_s:g} s, {self.pool}"

    @property
    def note(self) -> str:
        """Return the windows as notes have them."""
        count = f"{self.count} windows" if self.count > 1 else "one window"
        return f"clips longer than {self.length_s:g} s by {count} of that length ({self.pool})"


def window_clips(clips: Clips, windows: Windows) -> tuple[Clips, np.ndarray]:
    """Return the windows of all clips, and the clip (W,) of each. A clip that is no longer than a window is one window."""
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
    """Return the embeddings (N, D) of clips from those of their windows (W, D) that have the modality, and which clips have such a
    window."""
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
