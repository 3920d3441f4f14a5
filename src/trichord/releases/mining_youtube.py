"""Mining YouTube's test videos into a store, from either layout. Every video is a task of its own: its steps in its order.

MCN and Everything at Once: a CSV file with `video_id`, `step.json` ({video: step texts}), `VIDEO.npy` (seconds, steps) of 0
and 1, features `VIDEO_2d.npy`, `VIDEO_3d.npy` (or .npz with `features`), spectrograms `VIDEO.npz` (`arr_0`).

The original release: `VIDEO.srt` (spans with their class), else `VIDEO.gt` (one class a frame, or several apart by blanks) with
`fps`; `VIDEO.grammar` (classes in order, background among them), `weakYouTube_dict.txt` (the classes, `verb_object`),
`videos_test.txt`; features as above, one row a second, which give a video its length.
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
BACKGROUND = ("background", "bg", "sil")  # names of what is no step
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
    """Import Mining YouTube's videos with their annotated steps into a store, for the benchmark mining-youtube.

    Videos that lack a file or have a broken one are skipped and listed with the reason. Run again, the import goes on where it
    stopped.

    Args:
        root: Folder of the release; files are found in all its folders.
        store: Folder of the store; created if it does not exist, else added to.
        words: word2vec or GloVe file. By default, GloVe 6B (50-d).
        word_splitting: How captions become words: unicode (letters keep their marks, as in Hindi and Thai) or published (as the
            published loaders do). If not given, as in the store; published for a new one.
        layout: `mcn` (step.json, matrices), `original` (.srt or .gt), or auto: by what is in root.
        videos: Of layout mcn, the CSV file of videos; else the only one in root with a column video_id.
        features: Folder of the features where they are not in root.
        audio: Folder of the spectrograms where they are not in root.
        fps: Of the original layout, frames per second of .gt files, for videos without .srt.
        allow_missing: Of layout mcn, import also where step.json lacks more than half of the listed videos.
        num_threads: Videos that are read at the same time.

    Raises TrichordError when the layout is not known, a list is missing or broken, or nothing could be imported.
    """
    request = Request(root, store, words, word_splitting, num_threads)
    files = find_files(root, features=features, audio=audio)
    notes: list[str] = []
    spans = files.with_suffix(".srt") or files.with_suffix(".gt")
    if layout_of(layout, root, files, spans, ".srt or .gt files") == "mcn":
        if fps is not None:
            raise TrichordError("--fps has no effect on layout mcn, whose rows are seconds; leave it out")
        tasks, found = published_videos(files, root, videos, allow_missing, columns=("video_id",), matrix="{video}.npy")
    else:
        if videos is not None:
            raise TrichordError(f"--videos has no effect on the original layout, which has {LIST}; leave it out")
        tasks, found, notes = _original(files, root, fps)
    summary = import_steps(tasks, found, partial(load_features, files), request, COLLECTION)
    summary.notes += notes
    return summary


# ---- the original layout


def read_classes(path: Path) -> set[str]:
    """Names of all classes: the last word of each line. Raises TrichordError when there is none."""
    classes = {line.split()[-1] for line in lines_of(path) if line}
    if not classes:
        raise TrichordError(f"{path}: names no class; download it again")
    return classes


def read_grammar(path: Path) -> list[list[str]]:
    """The orders of classes that a video may have, one a line, background left out."""
    orders = [[name for name in line.split() if name.lower() not in BACKGROUND] for line in lines_of(path) if line]
    return orders or [[]]


def gt_spans(path: Path, fps: float) -> list[Span]:
    """Spans of equal neighbouring labels of a .gt file, background left out."""
    labels = [name for line in lines_of(path) for name in line.split()]
    if not labels:
        raise TrichordError(f"{path}: labels no frame; download it again")
    borders = [0, *(i for i in range(1, len(labels)) if labels[i] != labels[i - 1]), len(labels)]
    spans = [(b / fps, e / fps, labels[b]) for b, e in zip(borders[:-1], borders[1:], strict=True)]
    return [span for span in spans if span[2].lower() not in BACKGROUND]


def srt_spans(path: Path) -> list[Span]:
    """Spans of an .srt file in the order of time, background left out. Raises TrichordError for one that ends before it
    starts."""
    problems: list[str] = []
    said = read_captions(path, notes=problems, merge_repeats=False)
    if problems:
        raise TrichordError(f"{problems[0]}; mend it")
    spans = sorted(zip(said.start_s.tolist(), said.end_s.tolist(), said.text, strict=True))
    for start_s, end_s, text in spans:
        if not 0 <= start_s < end_s:
            raise TrichordError(f"{path}: '{text}' ends at {end_s} s and starts at {start_s} s; mend it")
    return [span for span in spans if span[2].lower() not in BACKGROUND]


def _original(files: Files, root: Path, fps: float | None) -> tuple[list[Task], list[Annotated], list[str]]:
    if fps is not None and not 0 < fps < math.inf:
        raise TrichordError(f"--fps {fps} is none; give frames per second above 0")
    srt, gt, grammar = (files.with_suffix(suffix) for suffix in (".srt", ".gt", ".grammar"))
    dictionary, listed = files.find(CLASSES), files.find(LIST)
    classes = read_classes(dictionary) if dictionary else None
    index = IdIndex((*srt, *gt), f"the annotations in {root}")
    test = {_listed_video(line.split()[0], index) for line in lines_of(listed) if line} if listed else None
    grammars = IdIndex(grammar, f"the grammars in {root}")
    tasks: list[Task] = []
    videos: list[Annotated] = []
    other_order = 0
    for video_id in sorted({*srt, *gt, *(test or ())}):
        video = Annotated(video_id, "test" if test is None or video_id in test else "val")
        videos.append(video)
        try:
            spans = _spans(video_id, srt, gt, fps)
            names = [name for _, _, name in spans]
            if unknown := sorted(set(names) - (classes or set(names))):
                raise TrichordError(f"{video_id}: '{unknown[0]}' is no class of {dictionary}; mend its annotation")
            if (own := grammars.find(video_id)) is not None:
                other_order += names not in read_grammar(grammar[own])
        except TrichordError as error:
            video.problem = str(error)
            continue
        texts = tuple(name.replace("_", " ") for name in names)
        if not texts:
            video.problem = f"{video_id}: shows no step; it has nothing to be looked for"
            continue
        tasks.append(Task(video_id, texts))
        video.spans = [
            StepSpan(video_id, video_id, k, texts[k], start_s, end_s) for k, (start_s, end_s, _) in enumerate(spans)
        ]
    notes = [f"{other_order:,} videos whose .grammar tells another order than their annotation, which counts"]
    return tasks, videos, notes if other_order else []


def _listed_video(name: str, index: IdIndex) -> str:
    """The video that a line of the list means: its id, or the name of a file of it, in whatever folder."""
    name = Path(name).name
    return index.find(name) or index.find(Path(name).stem) or Path(name).stem


def _spans(video_id: str, srt: dict[str, Path], gt: dict[str, Path], fps: float | None) -> list[Span]:
    if video_id in srt:
        return srt_spans(srt[video_id])
    if video_id not in gt:
        raise TrichordError(f"{video_id}.srt: is missing, and so is its .gt; download them")
    if fps is None:
        raise TrichordError(f"{gt[video_id]}: counts frames; say how many a second has with --fps, or give its .srt")
    return gt_spans(gt[video_id], fps)
