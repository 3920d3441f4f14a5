"""Clips with the class of their action (UCF101, HMDB51), from pickles as MCN's `gen_loader.py` writes them, into a store.

A pickle is a list of dicts: `video`, `class`, `training`, `2d` and `3d` (rows over time), `2d_pooled` and `3d_pooled` (their
mean over time, not the largest as elsewhere), `audio` (40, frames) and `has_audio`; a clip without sound has 40 zeros. Its
name holds the data set's: `ucf101.pkl`, `hmdb_test.pkl`.

In the store a clip is called `CLASS/VIDEO`, by which evaluation knows its class, and its caption is the class in words. The
splits are `train` and `test`, from `training` (without it, from the file's name). Of several folds that is the first one
read; the official lists of all three are given to `trichord evaluate --labels`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trichord.captions import WordSplitting, class_text
from trichord.errors import TrichordError
from trichord.files.paths import accepts_text_paths
from trichord.files.pickles import load_pickle
from trichord.files.walking import own_files_below
from trichord.ids import without_media_suffix
from trichord.logs import deprecated_callback
from trichord.releases.clips import Clip, import_clips
from trichord.releases.common import ImportSummary, Request
from trichord.releases.pieces import plain_text

COLLECTIONS = {"ucf": "ucf101", "hmdb": "hmdb51"}  # by what the file's name holds
SUFFIXES = (".pkl", ".pickle")


@deprecated_callback("progress")
@accepts_text_paths
def import_actions(
    root: Path,
    store: Path,
    words: Path | None = None,
    *,
    word_splitting: WordSplitting | None = None,
    full_resolution: bool = False,
) -> ImportSummary:
    """Import UCF101 or HMDB51 clips into a store, as collection `ucf101` or `hmdb51`.

    Args:
        root: Folder with the pickles of one data set.
        store: Folder of the store; created if it does not exist, else added to.
        words: word2vec or GloVe file. By default, GloVe 6B (50-d).
        word_splitting: How captions become words: unicode (letters keep their marks, as in Hindi and Thai) or published (as the
            published loaders do). If not given, as in the store; published for a new one.
        full_resolution: Store features per time step where there are any, instead of their mean over time.

    Raises TrichordError when there is no pickle, or those of two data sets, one is refused or empty, or nothing could be
    imported.
    """
    request = Request(root, store, words, word_splitting)
    found: dict[str, list[Path]] = {}
    for path in sorted(p for p in own_files_below(root) if p.suffix in SUFFIXES and p.is_file()):
        if name := next((c for part, c in COLLECTIONS.items() if part in path.name.lower()), ""):
            found.setdefault(name, []).append(path)
    if not found:
        raise TrichordError(f"{root}: no pickle of actions (*ucf*.pkl, *hmdb*.pkl); name the folder that holds one")
    if len(found) > 1:
        raise TrichordError(
            f"{root}: holds pickles of {' and '.join(found)}; give each a folder, and import one by one"
        )
    ((collection, paths),) = found.items()
    clips: list[Clip] = []
    seen: dict[str, str] = {}
    other = 0
    for path in paths:
        for row, entry in enumerate(_entries(path)):
            clip = _clip(entry, path, row)
            if clip.video_id in seen:
                other += seen[clip.video_id] != clip.split
            else:
                seen[clip.video_id] = clip.split
                clips.append(clip)
    summary = import_clips(clips, request, collection, full_resolution)
    if other:
        summary.notes.append(
            f"{other:,} clips are in train here and in test there: the store has the first; give the official lists of all "
            "folds to `trichord evaluate --labels FOLDER`"
        )
    if not full_resolution:
        summary.notes.append(
            "features are means over time, as these pickles hold them; other releases hold the largest"
        )
    return summary


def _entries(path: Path) -> list[dict[str, Any]]:
    entries = load_pickle(path)
    if not isinstance(entries, list | tuple) or not all(isinstance(e, dict) and "video" in e for e in entries):
        raise TrichordError(f"{path}: is no list of clips with a video each; check that it is the right file")
    if not entries:
        raise TrichordError(f"{path}: holds no clips; make it again")
    return list(entries)


def _clip(entry: dict[str, Any], path: Path, row: int) -> Clip:
    """A clip without class or video has no caption, and is refused when it is made."""
    kind = plain_text(entry.get("class")).strip().replace("/", "_")
    video, told = _stem(plain_text(entry["video"])), entry.get("training")
    is_train = bool(told) if isinstance(told, bool | int | np.bool_ | np.integer) else "train" in path.name.lower()
    sound = entry.get("audio")
    if isinstance(sound, np.ndarray) and sound.shape[1:] == (1,) and not np.any(sound):
        entry = entry | {"audio": None}
    name = f"{kind}/{video}"
    captions = [class_text(kind)] if class_text(kind) and video else []
    return Clip(name, "train" if is_train else "test", f"{path}: entry {row} ({name})", captions, entry)


def _stem(video: str) -> str:
    """The file's name without folders and suffix."""
    return without_media_suffix(video.replace("\\", "/").rstrip("/").rpartition("/")[2].strip())
