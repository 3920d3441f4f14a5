"""Import of MSR-VTT clips from the pickles of AVLnet's release or the .pth files of HowTo100M's.

AVLnet: `msrvtt_jsfusion_test.pkl`, a list of 968 dicts (`id`, `2d_pooled`, `3d_pooled`, `2d`, `3d`, `audio`,
`eval_caption`), and a training pickle whose `caption` is a list. HowTo100M: `MSRVTT_JSFUSION_test.pth` and
`MSRVTT_train.pth` ({`2d`: {id: tensor}, `3d`: {id: tensor}}), test captions in `MSRVTT_JSFUSION_test.csv`, training
captions in `MSRVTT_data.json`.

With a JSON file of the full test set (`full`), only those clips are imported, as collection `msrvtt-full`.

The test set has 1,000 clips. If a CSV file lists them, those without features are stored as items without streams, so that
evaluation can count them as missed. Ids of lists, captions and features are matched as in `trichord.ids`.
"""

from __future__ import annotations

from pathlib import Path

from trichord.captions import WordSplitting
from trichord.errors import TrichordError, one_line
from trichord.files.paths import accepts_text_paths
from trichord.ids import IdIndex, match_ids
from trichord.logs import deprecated_callback
from trichord.releases.clips import Clip, first_file, import_clips, pickled_clips, tensor_entries, without_repeats
from trichord.releases.common import ALLOW_MISSING, ImportSummary, Request
from trichord.releases.msrvtt_full import COLLECTION as FULL
from trichord.releases.msrvtt_full import captions_by_clip, full_test_clips
from trichord.releases.pieces import csv_rows, named_path

COLLECTION = "msrvtt"
TEST_PICKLES = ("msrvtt_jsfusion_test.pkl", "msrvtt_test.pkl")
TRAIN_PICKLES = ("msrvtt_train.pkl", "msrvtt_1k-A_train.pkl")
TEST_LISTS = ("MSRVTT_JSFUSION_test.csv", "msrvtt_jsfusion_test.csv", "msrvtt_test.csv")


@deprecated_callback("progress")
@accepts_text_paths
def import_msrvtt(
    root: Path,
    store: Path,
    words: Path | None = None,
    *,
    word_splitting: WordSplitting | None = None,
    train: Path | None = None,
    full: Path | None = None,
    full_resolution: bool = False,
    allow_missing: bool = False,
) -> ImportSummary:
    """Import MSR-VTT clips, test and training, into a store.

    Args:
        root: Folder of the release.
        store: Folder of the store. It is created if it does not exist, and extended if it does.
        words: File of word vectors (word2vec or GloVe). The default is GloVe 6B (50-d).
        word_splitting: How captions are split into words: unicode (letters keep their marks, as in Hindi and Thai) or
            published (as in the published loaders). The default is that of the store, or published for a new store.
        train: Training pickle, required if root contains those of both the 7k and the 9k split.
        full: File test_videodatainfo.json. If it is given, only the full test set (2,990 clips with all their captions) is
            imported, as collection msrvtt-full.
        full_resolution: Store features per time step if available, instead of those pooled over time.
        allow_missing: Import even if more than half of the listed clips have no features, or more than half of the features no
            captions.

    Raises:
        TrichordError: There is no file of the release, one is refused or empty, or nothing could be imported.
    """
    request = Request(root, store, words, word_splitting)
    if full is not None:
        if train is not None:
            raise TrichordError(
                f"{train}: --train has no effect with --full, which imports only the test set; leave it out"
            )
        return _import_full(request, full, full_resolution, allow_missing)
    test_list = first_file(root, TEST_LISTS)
    official = read_test_list(test_list) if test_list else {}
    test_path = first_file(root, TEST_PICKLES)
    test = _pickled(test_path, "test") or _tensors(root, "MSRVTT_JSFUSION_test.pth", "test", official, allow_missing)
    lacking: list[Clip] = []
    if test and official:
        index = IdIndex((clip.video_id for clip in test), str(test_path or root / "MSRVTT_JSFUSION_test.pth"))
        matched = match_ids(official, index, source=str(test_list), allow_missing=allow_missing, option=ALLOW_MISSING)
        lacking = [
            Clip(video_id, "test", f"{test_list}: {video_id}", [caption])
            for video_id, caption in official.items()
            if video_id not in matched
        ]
    trained = _pickled(_train_pickle(root, train), "train")
    trained = trained or _tensors(root, "MSRVTT_train.pth", "train", {}, allow_missing)
    if not test and not trained:
        names = (*TEST_PICKLES, *TRAIN_PICKLES, "MSRVTT_JSFUSION_test.pth", "MSRVTT_train.pth")
        problem = f"contains no MSR-VTT file ({', '.join(names)})"
        raise TrichordError(f"{root}: {problem}; pass the folder of the files with --root")
    summary = import_clips(test + lacking + trained, request, COLLECTION, full_resolution)
    if lacking:
        summary.notes.append(
            f"{len(lacking):,} of the {len(official):,} test clips of {test_list} have no features in the release; they are "
            "stored with only their captions, so that evaluation can count them as missed"
        )
    return summary


def _import_full(request: Request, full: Path, full_resolution: bool, allow_missing: bool) -> ImportSummary:
    clips = full_test_clips(request.root, full, TEST_PICKLES + TRAIN_PICKLES, allow_missing)
    summary = import_clips(clips, request, FULL, full_resolution)
    if lacking := sum(len(clip.entry) == 1 for clip in clips):
        summary.notes.append(
            f"{lacking:,} of the {len(clips):,} clips have no features in the release; they are stored with only their captions"
        )
    return summary


def read_test_list(path: Path) -> dict[str, str]:
    """Read the sentence of each video id in the official test list, a CSV file with the columns video_id and sentence.

    Raises:
        TrichordError: The file is broken, lists no clip, or has two sentences for one clip.
    """
    rows = csv_rows(path, ("video_id", "sentence"))
    if not rows:
        raise TrichordError(f"{path}: lists no clip; download it again")
    sentences: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        video_id, sentence = (row["video_id"] or "").strip(), row["sentence"] or ""
        if video_id and sentences.setdefault(video_id, sentence) != sentence:
            raise TrichordError(
                f"{path}: row {number} has another sentence for clip '{one_line(video_id)}' than an earlier row; keep one of "
                "them"
            )
    return sentences


def _train_pickle(root: Path, train: Path | None) -> Path | None:
    if train:
        return named_path(root, train, "train")
    pickles = [path for name in TRAIN_PICKLES if (path := first_file(root, (name,)))]
    if len(pickles) > 1:
        raise TrichordError(
            f"{root}: contains {' and '.join(p.name for p in pickles)}; choose one of them with --train"
        )
    return pickles[0] if pickles else None


def _pickled(path: Path | None, split: str) -> list[Clip]:
    if path is None:
        return []
    if split == "test":
        return without_repeats(pickled_clips(path, split, ("eval_caption", "caption")))
    return pickled_clips(path, split, ("caption", "eval_caption"), all_captions=True)


def _tensors(root: Path, name: str, split: str, captions: dict[str, str], allow_missing: bool) -> list[Clip]:
    """Return the clips in a .pth file of the original release, with captions from the test list or MSRVTT_data.json."""
    path = first_file(root, (name,))
    if path is None:
        return []
    entries = tensor_entries(path)
    texts = {key: [text] for key, text in captions.items()} if split == "test" else _training_captions(root, path)
    if not texts:
        raise TrichordError(f"{path}: needs {TEST_LISTS[0]} with the captions next to it; add it to {root}")
    index = IdIndex(texts, "the captions")
    matched = match_ids(entries, index, source=str(path), allow_missing=allow_missing, option=ALLOW_MISSING)
    return [
        Clip(video_id, split, f"{path}: {video_id}", texts.get(matched.get(video_id, ""), []), entry)
        for video_id, entry in entries.items()
    ]


def _training_captions(root: Path, features: Path) -> dict[str, list[str]]:
    path = first_file(root, ("MSRVTT_data.json",))
    if path is None:
        raise TrichordError(f"{features}: needs MSRVTT_data.json with the captions next to it; add it to {root}")
    return captions_by_clip(path)
