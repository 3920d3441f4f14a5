"""Import of the test videos of Mining YouTube from either of its layouts.

Every video is a task of its own, with its steps in order.

MCN and Everything at Once: a CSV file with `video_id`, `step.json` ({video: step texts}), `VIDEO.npy` (seconds, steps) of 0
and 1, features `VIDEO_2d.npy` and `VIDEO_3d.npy` (or .npz with `features`), spectrograms `VIDEO.npz` (`arr_0`).

The original release: `VIDEO.srt` (spans with their class), else `VIDEO.gt` (one class per frame, or several separated by spaces)
with `fps`; `VIDEO.grammar` (classes in order, including background), `weakYouTube_dict.txt` (the classes, `verb_object`),
`videos_test.txt`; features as above, with one row per second, which determine the duration of a video.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Literal

from trichord.captions import WordSplitting, read_captions
from trichord.errors import TrichordError
from trichord.files.paths import accepts_text_paths
from trichord.ids import IdIndex
from trichord.logs import deprecated_callback
from trichord.releases.common import ImportSummary, Request
from trichord.releases.steps import (
    Annotated,
    Files,
    Task,
    find_files,
    import_steps,
    layout_of,
    lines_of,
    load_features,
    published_videos,
)
from trichord.store.annotations import StepSpan

COLLECTION = "mining-youtube"
BACKGROUND = ("background", "bg", "sil")  # class names that are not steps
CLASSES, LIST = "weakYouTube_dict.txt", "videos_test.txt"
Span = tuple[float, float, str]  # start_s, end_s, class


@deprecated_callback("progress")
@accepts_text_paths
def import_mining_youtube(
    root: Path,
    store: Path,
    words: Path | None = None,
    *,
    word_splitting: WordSplitting | None = None,
    layout: Literal["auto", "mcn", "original"] = "auto",
    videos: Path | None = None,
    features: Path | None = None,
    audio: Path | None = None,
    fps: float | None = None,
    allow_missing: bool = False,
    num_threads: int = 4,
) -> ImportSummary:
    """Import the videos of Mining YouTube with their annotated steps into a store, for the benchmark mining-youtube.

    Videos with missing or broken files are skipped and listed with the reason. If the import is run again, it continues where it
    stopped.

    Args:
        root: Folder of the release; files are searched in all its folders.
        store: Folder of the store. It is created if it does not exist, and extended if it does.
        words: File of word vectors (word2vec or GloVe). The default is GloVe 6B (50-d).
        word_splitting: How captions are split into words: unicode (letters keep their marks, as in Hindi and Thai) or
            published (as in the published loaders). The default is that of the store, or published for a new store.
        layout: Layout of the release: mcn (step.json, matrices), original (.srt or .gt), or auto, which depends on the files in
            root.
        videos: CSV file of videos (layout mcn). The default is the only one in root with a column video_id.
        features: Folder of the features if they are not in root.
        audio: Folder of the spectrograms if they are not in root.
        fps: Number of frames per second of .gt files. Required if a video has no .srt file (layout original).
        allow_missing: Import even if step.json lacks more than half of the listed videos (layout mcn).
        num_threads: Number of videos that are read at the same time.

    Raises:
        TrichordError: The layout is unknown, a list is missing or broken, or nothing could be imported.
    """
    request = Request(root, store, words, word_splitting, num_threads)
    files = find_files(root, features=features, audio=audio)
    notes: list[str] = []
    spans = files.with_suffix(".srt") or files.with_suffix(".gt")
    if layout_of(layout, root, files, spans, ".srt or .gt files") == "mcn":
        if fps is not None:
            raise TrichordError("--fps has no effect with layout mcn, whose rows are seconds; leave it out")
        tasks, annotated = published_videos(
            files, root, videos, allow_missing, columns=("video_id",), matrix="{video}.npy"
        )
    else:
        if videos is not None:
            raise TrichordError(f"--videos has no effect with the original layout, which uses {LIST}; leave it out")
        tasks, annotated, notes = _original(files, root, fps)
    summary = import_steps(tasks, annotated, partial(load_features, files), request, COLLECTION)
    summary.notes += notes
    return summary


# ---- the original layout


def read_classes(path: Path) -> set[str]:
    """Read the names of all classes, which are the last words of the lines.

    Raises:
        TrichordError: The file contains no class.
    """
    classes = {line.split()[-1] for line in lines_of(path) if line}
    if not classes:
        raise TrichordError(f"{path}: contains no class; download it again")
    return classes


def read_grammar(path: Path) -> list[list[str]]:
    """Read the orders of classes that a video may have, one per line, without background."""
    orders = [[name for name in line.split() if name.lower() not in BACKGROUND] for line in lines_of(path) if line]
    return orders or [[]]


def gt_spans(path: Path, fps: float) -> list[Span]:
    """Return spans of equal consecutive labels in a .gt file, without background.

    Raises:
        TrichordError: The file contains no label.
    """
    labels = [name for line in lines_of(path) for name in line.split()]
    if not labels:
        raise TrichordError(f"{path}: contains no label; download it again")
    borders = [0, *(i for i in range(1, len(labels)) if labels[i] != labels[i - 1]), len(labels)]
    spans = [(b / fps, e / fps, labels[b]) for b, e in zip(borders[:-1], borders[1:], strict=True)]
    return [span for span in spans if span[2].lower() not in BACKGROUND]


def srt_spans(path: Path) -> list[Span]:
    """Return the spans in an .srt file in order of time, without background.

    Raises:
        TrichordError: The file is broken, or a span ends before it starts.
    """
    problems: list[str] = []
    captions = read_captions(path, notes=problems, merge_repeats=False)
    if problems:
        raise TrichordError(f"{problems[0]}; correct it")
    spans = sorted(zip(captions.start_s.tolist(), captions.end_s.tolist(), captions.text, strict=True))
    for start_s, end_s, text in spans:
        if not 0 <= start_s < end_s:
            raise TrichordError(f"{path}: '{text}' ends at {end_s} s but starts at {start_s} s; correct it")
    return [span for span in spans if span[2].lower() not in BACKGROUND]


def _original(files: Files, root: Path, fps: float | None) -> tuple[list[Task], list[Annotated], list[str]]:
    if fps is not None and not 0 < fps < math.inf:
        raise TrichordError(f"--fps is {fps}; it must be a number of frames per second above 0")
    srt, gt, grammar = (files.with_suffix(suffix) for suffix in (".srt", ".gt", ".grammar"))
    dictionary, listed = files.find(CLASSES), files.find(LIST)
    classes = read_classes(dictionary) if dictionary else None
    index = IdIndex((*srt, *gt), f"the annotations in {root}")
    test = {_listed_video(line.split()[0], index) for line in lines_of(listed) if line} if listed else None
    grammars = IdIndex(grammar, f"the grammars in {root}")
    tasks: list[Task] = []
    videos: list[Annotated] = []
    num_other_orders = 0
    for video_id in sorted({*srt, *gt, *(test or ())}):
        video = Annotated(video_id, "test" if test is None or video_id in test else "val")
        videos.append(video)
        try:
            spans = _spans(video_id, srt, gt, fps)
            names = [name for _, _, name in spans]
            if unknown := sorted(set(names) - (classes or set(names))):
                raise TrichordError(
                    f"{video_id}: '{unknown[0]}' is not a class in {dictionary}; correct its annotation"
                )
            if (match := grammars.find(video_id)) is not None:
                num_other_orders += names not in read_grammar(grammar[match])
        except TrichordError as error:
            video.problem = str(error)
            continue
        texts = tuple(name.replace("_", " ") for name in names)
        if not texts:
            video.problem = f"{video_id}: shows no step, so nothing can be searched in it"
            continue
        tasks.append(Task(video_id, texts))
        video.spans = [
            StepSpan(video_id, video_id, k, texts[k], start_s, end_s) for k, (start_s, end_s, _) in enumerate(spans)
        ]
    notes = [
        f"{num_other_orders:,} videos whose .grammar has another order than their annotation; the annotation counts"
    ]
    return tasks, videos, notes if num_other_orders else []


def _listed_video(name: str, index: IdIndex) -> str:
    """Return the video that a line of the list refers to: its id, or the name of its file in any folder."""
    name = Path(name).name
    return index.find(name) or index.find(Path(name).stem) or Path(name).stem


def _spans(video_id: str, srt: dict[str, Path], gt: dict[str, Path], fps: float | None) -> list[Span]:
    if video_id in srt:
        return srt_spans(srt[video_id])
    if video_id not in gt:
        raise TrichordError(f"{video_id}.srt: is missing, and so is the .gt file; download one of them")
    if fps is None:
        raise TrichordError(
            f"{gt[video_id]}: counts frames; pass the frames per second with --fps, or add its .srt file"
        )
    return gt_spans(gt[video_id], fps)
