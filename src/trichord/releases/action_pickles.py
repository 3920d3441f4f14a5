"""Import of action recognition clips (UCF101, HMDB51) from pickles in the format of MCN's `gen_loader.py`.

A pickle is a list of dicts: `video`, `class`, `training`, `2d` and `3d` (rows over time), `2d_pooled` and `3d_pooled` (their
mean over time, not their maximum as in other releases), `audio` (40, frames) and `has_audio`. A clip without sound has 40 zeros.
The file name contains that of the data set: `ucf101.pkl`, `hmdb_test.pkl`.

In the store a clip has the id `CLASS/VIDEO`, from which evaluation derives its class, and its caption is the class in words. The
splits are `train` and `test`, according to `training` (or the file name, if it is missing). If there are several folds, the first
one that is read counts; pass the official lists of all three to `trichord evaluate --labels`.
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

COLLECTIONS = {"ucf": "ucf101", "hmdb": "hmdb51"}  # by a part of the file name
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
        store: Folder of the store. It is created if it does not exist, and extended if it does.
        words: File of word vectors (word2vec or GloVe). The default is GloVe 6B (50-d).
        word_splitting: How captions are split into words: unicode (letters keep their marks, as in Hindi and Thai) or
            published (as in the published loaders). The default is that of the store, or published for a new store.
        full_resolution: Store features per time step if available, instead of their mean over time.

    Raises:
        TrichordError: There are no pickles, or those of two data sets, a pickle is refused or empty, or nothing could be
            imported.
    """
    request = Request(root, store, words, word_splitting)
    pickles: dict[str, list[Path]] = {}
    for path in sorted(p for p in own_files_below(root) if p.suffix in SUFFIXES and p.is_file()):
        if name := next((c for part, c in COLLECTIONS.items() if part in path.name.lower()), ""):
            pickles.setdefault(name, []).append(path)
    if not pickles:
        raise TrichordError(
            f"{root}: contains no pickle of actions (*ucf*.pkl, *hmdb*.pkl); pass the folder of the pickles with --root"
        )
    if len(pickles) > 1:
        raise TrichordError(
            f"{root}: contains pickles of {' and '.join(pickles)}; put each data set into its own folder "
            "and import them separately"
        )
    ((collection, paths),) = pickles.items()
    clips: list[Clip] = []
    seen: dict[str, str] = {}
    num_conflicts = 0
    for path in paths:
        for row, entry in enumerate(_entries(path)):
            clip = _clip(entry, path, row)
            if clip.video_id in seen:
                num_conflicts += seen[clip.video_id] != clip.split
            else:
                seen[clip.video_id] = clip.split
                clips.append(clip)
    summary = import_clips(clips, request, collection, full_resolution)
    if num_conflicts:
        summary.notes.append(
            f"{num_conflicts:,} clips are in train in one fold and in test in another; the store has the first; pass the "
            "official lists of all folds to `trichord evaluate --labels FOLDER`"
        )
    if not full_resolution:
        summary.notes.append("features are means over time, as in these pickles; other releases contain the maximum")
    return summary


def _entries(path: Path) -> list[dict[str, Any]]:
    entries = load_pickle(path)
    if not isinstance(entries, list | tuple) or not all(isinstance(e, dict) and "video" in e for e in entries):
        raise TrichordError(f"{path}: is not a list of clips with a video each; check that it is the right file")
    if not entries:
        raise TrichordError(f"{path}: contains no clips; create it again")
    return list(entries)


def _clip(entry: dict[str, Any], path: Path, row: int) -> Clip:
    """Return a clip. A clip without class or video has no caption, and is refused when its item is made."""
    kind = plain_text(entry.get("class")).strip().replace("/", "_")
    video, training = _stem(plain_text(entry["video"])), entry.get("training")
    is_train = (
        bool(training) if isinstance(training, bool | int | np.bool_ | np.integer) else "train" in path.name.lower()
    )
    sound = entry.get("audio")
    if isinstance(sound, np.ndarray) and sound.shape[1:] == (1,) and not np.any(sound):
        entry = entry | {"audio": None}
    name = f"{kind}/{video}"
    captions = [class_text(kind)] if class_text(kind) and video else []
    return Clip(name, "train" if is_train else "test", f"{path}: entry {row} ({name})", captions, entry)


def _stem(video: str) -> str:
    """Return the name of a file without folders and suffix."""
    return without_media_suffix(video.replace("\\", "/").rstrip("/").rpartition("/")[2].strip())
