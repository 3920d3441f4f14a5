"""The full test set of MSR-VTT: 2,990 clips with all their captions, from the official JSON file and all available features.

The JSON file (`test_videodatainfo.json`, or one of all splits) has `sentences` (`video_id`, `caption`) and `videos` (`video_id`,
`split`). Features are looked up by id in every pickle and .pth file of the release: the test clips of JSFusion are in one, and the
other 1,990 are training clips of the 1k-A split.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.files.reading import read_text
from trichord.ids import IdIndex, match_ids
from trichord.releases.clips import Clip, first_file, read_entries, tensor_entries
from trichord.releases.common import ALLOW_MISSING
from trichord.releases.pieces import named_path

COLLECTION = "msrvtt-full"
TENSORS = ("MSRVTT_JSFUSION_test.pth", "MSRVTT_test.pth", "MSRVTT_train.pth")


def full_test_clips(root: Path, full: Path, pickles: Sequence[str], allow_missing: bool = False) -> list[Clip]:
    """Return the clips of the test split in the JSON file with their captions, and with their features if there are any.

    Args:
        root: The folder of the release.
        full: The JSON file, as a path or inside `root`.
        pickles: The names of the release's pickles.
        allow_missing: Whether more than half of the clips may lack features.

    Raises:
        TrichordError: The JSON file has no test clips, there are no features, or more than half of the clips lack features although
            `allow_missing` is false.
    """
    path = named_path(root, full, "full")
    captions = captions_by_clip(path, "test")
    if not captions:
        raise TrichordError(f"{path}: has no sentences of split test; pass test_videodatainfo.json with --full")
    entries = _features(root, pickles)
    if not entries:
        raise TrichordError(f"{root}: contains no features; expected them in {', '.join((*pickles, *TENSORS))}")
    index = IdIndex(entries, f"the features in {root}")
    matched = match_ids(captions, index, source=str(path), allow_missing=allow_missing, option=ALLOW_MISSING)
    return [
        Clip(video, "test", f"{path}: {video}", texts, {"id": video, **entries.get(matched.get(video, ""), {})})
        for video, texts in captions.items()
    ]


def captions_by_clip(path: Path, split: str = "") -> dict[str, list[str]]:
    """Return the captions of every clip of a split, in the order of the file.

    The captions of all clips are returned if `split` is empty or the file has no splits.

    Raises:
        TrichordError: The file does not have this format.
    """
    texts: dict[str, list[str]] = {}
    try:
        content = json.loads(read_text(path))
        splits = _splits(content.get("videos", ()), path) if split else {}
        for row in content["sentences"]:
            if splits.get(str(row["video_id"]), "" if splits else split) == split:
                texts.setdefault(str(row["video_id"]), []).append(str(row["caption"]))
    except TrichordError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise TrichordError(f"{path}: has no sentences with video_id and caption; download it again") from None
    return texts


def _splits(videos: Iterable[dict[str, Any]], path: Path) -> dict[str, str]:
    splits: dict[str, str] = {}
    for video in videos:
        name, split = str(video["video_id"]), str(video["split"])
        if splits.setdefault(name, split) != split:
            raise TrichordError(f"{path}: clip '{one_line(name)}' is in two splits ({splits[name]}, {split}); keep one")
    return splits


def _features(root: Path, pickles: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return entries by id, each from the first file that contains it."""
    entries: dict[str, dict[str, Any]] = {}
    for name in pickles:
        if path := first_file(root, (name,)):
            for entry in read_entries(path):
                entries.setdefault(str(entry["id"]), entry)
    for name in TENSORS:
        if path := first_file(root, (name,)):
            for video, entry in tensor_entries(path).items():
                entries.setdefault(video, entry)
    return entries
