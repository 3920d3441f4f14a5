"""Releases of short clips with precomputed features (YouCook2, MSR-VTT): pickled lists of dicts.

An entry has `2d` and `3d` features, either pooled over time or one row per time step, optionally `audio` (40, frames), and captions
that describe the whole clip. Pooled features become a stream of one row with rate 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trichord.captions import Captions
from trichord.errors import TrichordError, one_line
from trichord.files.pickles import load_pickle
from trichord.logs import get_logger
from trichord.releases.common import RATES_HZ, ImportSummary, Made, Request, import_entries
from trichord.releases.pieces import as_array, first_with_words, plain_texts, time_major
from trichord.store import Item

logger = get_logger(__name__)

_KEYS = {"visual_2d": "2d", "visual_3d": "3d"}


@dataclass
class Clip:
    """One clip of a release: its entry as read, and its captions."""

    video_id: str
    split: str
    source: str  # file and position, for error messages
    captions: list[str]
    entry: dict[str, Any] = field(default_factory=dict)


def first_file(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first of the named files that exists in `root` or else in one of its folders; None if there is none."""
    for folder in (root, *sorted(p for p in root.iterdir() if p.is_dir())):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Read a pickled list of dicts, each with an `id`.

    Raises:
        TrichordError: The file contains anything else.
    """
    entries = load_pickle(path)
    if not isinstance(entries, list | tuple) or not all(isinstance(e, dict) and _is_id(e.get("id")) for e in entries):
        raise TrichordError(f"{path}: is not a list of clips with an id each; check that it is the right file")
    return list(entries)


def pickled_clips(
    path: Path, split: str, keys: Sequence[str] = ("caption",), *, all_captions: bool = False
) -> list[Clip]:
    """Return the clips of a pickle.

    Args:
        path: The pickle.
        split: The split of its clips.
        keys: The keys of an entry that may contain its captions; the first key with captions counts.
        all_captions: Whether to keep all captions of a clip, not only the first one with a word.

    Raises:
        TrichordError: The pickle contains no clips.
    """
    entries = read_entries(path)
    if not entries:
        raise TrichordError(f"{path}: contains no clips; download it again")
    clips = []
    for row, (entry, video_id) in enumerate(zip(entries, numbered(e["id"] for e in entries), strict=True)):
        captions = next((texts for key in keys if (texts := plain_texts(entry.get(key)))), [])
        chosen = captions if all_captions else first_with_words(captions)
        clips.append(Clip(video_id, split, f"{path}: entry {row} ({video_id})", chosen, entry))
    return clips


def tensor_entries(path: Path) -> dict[str, dict[str, Any]]:
    """Return the features by video id in a .pth file with the tables `2d` and `3d`.

    Raises:
        TrichordError: The file contains anything else.
    """
    tables = load_pickle(path)
    if not isinstance(tables, dict) or not all(isinstance(tables.get(key), dict) for key in ("2d", "3d")):
        raise TrichordError(f"{path}: has no tables 2d and 3d of features by video id; check that it is the right file")
    entries: dict[str, dict[str, Any]] = {}
    for video, features in tables["2d"].items():
        entries.setdefault(str(video), {"2d": features, "3d": tables["3d"].get(video)})
    return entries


def _is_id(value: object) -> bool:
    return isinstance(value, str | np.integer) or (isinstance(value, int) and abs(value) < 1 << 63)


def numbered(ids: Iterable[object]) -> list[str]:
    """Return ids as text. Repeated ids get `#2`, `#3`, ... appended, so that each is a separate item."""
    seen: dict[str, int] = {}
    result = []
    for name in map(str, ids):
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return result


def without_repeats(clips: list[Clip]) -> list[Clip]:
    """Return the clips without those that repeat an earlier one, whose ids `numbered` made unique.

    Raises:
        TrichordError: A clip is repeated with different captions.
    """
    first: dict[str, Clip] = {}
    for clip in clips:
        name = str(clip.entry["id"])
        if (known := first.setdefault(name, clip)).captions != clip.captions:
            raise TrichordError(
                f"{clip.source}: has another caption for clip '{one_line(name)}' than {known.source}; keep one of them"
            )
    return list(first.values())


def import_clips(clips: list[Clip], request: Request, collection: str, full_resolution: bool) -> ImportSummary:
    """Store clips.

    Raises:
        TrichordError: There are no clips, or none can be stored.
    """
    logger.info(f"{collection}: {len(clips):,} clips in {request.root}")
    return import_entries(
        clips,
        request,
        collection=collection,
        video_id=lambda clip: clip.video_id,
        make=lambda clip: make_clip(clip, collection, full_resolution),
        texts=(caption for clip in clips for caption in clip.captions),
        widths_of=lambda clip: _widths(clip, full_resolution),
    )


def make_clip(clip: Clip, collection: str, full_resolution: bool) -> Made:
    """Return the item of a clip. A clip without any stream is an item too, which evaluation counts as missed.

    Raises:
        TrichordError: The clip has no caption, or an array of the wrong shape.
    """
    if not clip.captions:
        raise TrichordError(f"{clip.source}: has no caption")
    streams: dict[str, np.ndarray] = {}
    rates: dict[str, float] = {}
    for name, key in _KEYS.items():
        array = _visual(clip, key, full_resolution)
        if array is not None:
            streams[name] = array[None] if array.ndim == 1 else array
            rates[name] = 0.0 if array.ndim == 1 else RATES_HZ[name]
    audio, has_audio = clip.entry.get("audio"), clip.entry.get("has_audio", True)
    if audio is not None and not (isinstance(has_audio, int | np.generic) and not has_audio):
        spectrogram = time_major(as_array(audio, clip.source), clip.source)
        if len(spectrogram):
            streams["spectrogram"], rates["spectrogram"] = spectrogram, RATES_HZ["spectrogram"]
    duration_s = _duration_s(clip.entry, streams, rates)
    times = np.zeros(len(clip.captions)), np.full(len(clip.captions), duration_s)
    item = Item(
        clip.video_id, collection, clip.split, duration_s, streams, rates, Captions(*times, tuple(clip.captions))
    )
    return Made(item, source=clip.source)


def _widths(clip: Clip, full_resolution: bool) -> dict[str, int] | None:
    """Return the widths of the visual features of a clip; None if they cannot be read."""
    try:
        arrays = {name: _visual(clip, key, full_resolution) for name, key in _KEYS.items()}
    except TrichordError:
        return None
    return {name: array.shape[-1] for name, array in arrays.items() if array is not None}


def _visual(clip: Clip, key: str, full_resolution: bool) -> np.ndarray | None:
    """Return features (width,) if pooled or (rows, width); the other kind if the entry lacks the requested one."""
    names = [f"{key}_full", key, f"{key}_pooled"] if full_resolution else [f"{key}_pooled", key, f"{key}_full"]
    for name in names:
        if clip.entry.get(name) is not None:
            array = as_array(clip.entry[name], clip.source)
            if array.ndim == 2 and len(array) == 1 and name != f"{key}_full":
                array = array[0]
            if array.ndim not in (1, 2) or not array.size:
                raise TrichordError(
                    f"{clip.source}: its {name} has shape {array.shape}, expected (width,) or (rows, width)"
                )
            return array
    return None


def _duration_s(entry: dict[str, Any], streams: dict[str, np.ndarray], rates: dict[str, float]) -> float:
    """Return the duration from start and end, else from the audio frames, else from the feature rows (a pooled row is 1 s)."""
    start, end = entry.get("start"), entry.get("end")
    try:
        span = float(end) - float(start)  # type: ignore[arg-type]
    except (OverflowError, TypeError, ValueError, RuntimeError):
        span = 0.0
    if np.isfinite(span) and span > 0:
        return span
    for name in ("spectrogram", "visual_2d", "visual_3d"):
        if name in streams:
            return len(streams[name]) / (rates[name] or 1.0)
    return 0.0
