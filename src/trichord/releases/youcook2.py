"""Import of YouCook2 clips from the pickles of HowTo100M's and AVLnet's releases.

`youcook_{train,val}_audio.pkl` (with spectrograms) or `youcook_{train,val}.pkl`: a list of dicts with `id`, `2d`,
`3d`, `caption`, optionally `audio` (a (40, frames) tensor), `start` and `end`, and `2d_full` and `3d_full`, which 11 of the
3,350 validation clips lack.
"""

from __future__ import annotations

from pathlib import Path

from trichord.captions import WordSplitting
from trichord.errors import TrichordError
from trichord.files.paths import accepts_text_paths
from trichord.logs import deprecated_callback
from trichord.releases.clips import Clip, first_file, import_clips, pickled_clips
from trichord.releases.common import ImportSummary, Request
from trichord.releases.exported import import_exported_youcook2
from trichord.releases.records import export_mark

COLLECTION = "youcook2"
SPLITS = ("train", "val")


@deprecated_callback("progress")
@accepts_text_paths
def import_youcook2(
    root: Path,
    store: Path,
    words: Path | None = None,
    *,
    word_splitting: WordSplitting | None = None,
    full_resolution: bool = False,
) -> ImportSummary:
    """Import YouCook2 clips, training and validation, into a store. An export in this layout is restored exactly.

    Args:
        root: Folder of the release.
        store: Folder of the store. It is created if it does not exist, and extended if it does.
        words: File of word vectors (word2vec or GloVe). The default is GloVe 6B (50-d).
        word_splitting: How captions are split into words: unicode (letters keep their marks, as in Hindi and Thai) or
            published (as in the published loaders). The default is that of the store, or published for a new store.
        full_resolution: Store features per time step if available, instead of those pooled over time.

    Raises:
        TrichordError: There is no pickle, one is refused or empty, or nothing could be imported.
    """
    request = Request(root, store, words, word_splitting)
    if mark := export_mark(root, "youcook2"):
        return import_exported_youcook2(request, mark)
    clips: list[Clip] = []
    for split in SPLITS:
        path = first_file(root, (f"youcook_{split}_audio.pkl", f"youcook_{split}.pkl"))
        if path is not None:
            clips += pickled_clips(path, split)
    if not clips:
        problem = "contains no YouCook2 pickle (youcook_train_audio.pkl, youcook_val_audio.pkl, youcook_train.pkl, youcook_val.pkl)"
        raise TrichordError(f"{root}: {problem}; pass the folder of the pickles with --root")
    return import_clips(clips, request, COLLECTION, full_resolution)
