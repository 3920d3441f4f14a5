"""LSMDC clips from the pickles of AVLnet's release, into a store.

A pickle is a list of dicts: `id`, `caption`, `2d_pooled` and `3d_pooled` (or `2d`, `3d`), `audio` (40, frames). Its name
holds `lsmdc`; one with `train` or `val` in it is of that split, every other is the test set.
"""

from __future__ import annotations

from pathlib import Path

from trichord.captions import WordSplitting
from trichord.errors import TrichordError
from trichord.files.paths import accepts_text_paths
from trichord.files.walking import own_files_below
from trichord.logs import deprecated_callback
from trichord.releases.clips import Clip, import_clips, pickled_clips
from trichord.releases.common import ImportSummary, Request

COLLECTION = "lsmdc"
SUFFIXES = (".pkl", ".pickle")


@deprecated_callback("progress")
@accepts_text_paths
def import_lsmdc(
    root: Path,
    store: Path,
    words: Path | None = None,
    *,
    word_splitting: WordSplitting | None = None,
    full_resolution: bool = False,
) -> ImportSummary:
    """Import LSMDC clips into a store.

    Args:
        root: Folder of the release.
        store: Folder of the store; created if it does not exist, else added to.
        words: word2vec or GloVe file. By default, GloVe 6B (50-d).
        word_splitting: How captions become words: unicode (letters keep their marks, as in Hindi and Thai) or published (as the
            published loaders do). If not given, as in the store; published for a new one.
        full_resolution: Store features per time step where there are any, instead of those pooled over time.

    Raises TrichordError when there is no pickle, two are of one split, one is refused or empty, or nothing could be imported.
    """
    request = Request(root, store, words, word_splitting)
    paths = sorted(
        p for p in own_files_below(root) if "lsmdc" in p.name.lower() and p.suffix in SUFFIXES and p.is_file()
    )
    if not paths:
        raise TrichordError(f"{root}: no LSMDC pickle (*lsmdc*.pkl); name the folder that holds one with --root")
    clips: list[Clip] = []
    seen: dict[str, Path] = {}
    for path in paths:
        split = next((name for name in ("train", "val") if name in path.name.lower()), "test")
        if split in seen:
            raise TrichordError(
                f"{root}: holds {seen[split].name} and {path.name}, both of split {split}; leave one there"
            )
        seen[split] = path
        clips += pickled_clips(path, split)
    return import_clips(clips, request, COLLECTION, full_resolution)
