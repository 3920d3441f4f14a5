"""Import of LSMDC clips from the pickles of AVLnet's release.

A pickle is a list of dicts: `id`, `caption`, `2d_pooled` and `3d_pooled` (or `2d`, `3d`), `audio` (40, frames). Its name
contains `lsmdc`. If it also contains `train` or `val`, it belongs to that split, otherwise to the test set.
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
        store: Folder of the store. It is created if it does not exist, and extended if it does.
        words: File of word vectors (word2vec or GloVe). The default is GloVe 6B (50-d).
        word_splitting: How captions are split into words: unicode (letters keep their marks, as in Hindi and Thai) or
            published (as in the published loaders). The default is that of the store, or published for a new store.
        full_resolution: Store features per time step if available, instead of those pooled over time.

    Raises:
        TrichordError: There is no pickle, two belong to one split, one is refused or empty, or nothing could be imported.
    """
    request = Request(root, store, words, word_splitting)
    paths = sorted(
        p for p in own_files_below(root) if "lsmdc" in p.name.lower() and p.suffix in SUFFIXES and p.is_file()
    )
    if not paths:
        raise TrichordError(
            f"{root}: contains no LSMDC pickle (*lsmdc*.pkl); pass the folder of the pickles with --root"
        )
    clips: list[Clip] = []
    seen: dict[str, Path] = {}
    for path in paths:
        split = next((name for name in ("train", "val") if name in path.name.lower()), "test")
        if split in seen:
            raise TrichordError(
                f"{root}: contains {seen[split].name} and {path.name}, both of split {split}; keep one of them"
            )
        seen[split] = path
        clips += pickled_clips(path, split)
    return import_clips(clips, request, COLLECTION, full_resolution)
