"""Import of CrossTask from either of its layouts.

MCN and Everything at Once: a CSV file with `task` and `video_id` (`cvpr19_test.csv`), `step.json` ({task: step texts}),
`TASK_VIDEO.npy` (seconds, steps) of 0 and 1, features `VIDEO_2d.npy` and `VIDEO_3d.npy` (or .npz with `features`), spectrograms
`VIDEO.npz` (`arr_0`), and optionally `cook.txt` (ids of the cooking tasks).

The original release: `tasks_primary.txt` (six lines per task: id, title, URL, number of steps, steps separated by commas, empty),
`videos.csv` and `videos_val.csv` (task, video, URL; no header), `TASK_VIDEO.csv` (step from 1, start, end) and
`VIDEO.npy` (seconds, 3200): I3D 1024, ResNet-152 2048, VGGish 128, from crosstask_features.zip.
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from trichord.captions import WordSplitting
from trichord.errors import TrichordError
from trichord.files.arrays import load_npy
from trichord.files.paths import accepts_text_paths
from trichord.ids import IdIndex
from trichord.logs import deprecated_callback
from trichord.releases.common import ImportSummary, Request
from trichord.releases.pieces import as_array
from trichord.releases.steps import (
    Annotated,
    Files,
    Streams,
    Task,
    find_files,
    import_steps,
    layout_of,
    lines_of,
    list_of_json,
    load_features,
    published_videos,
)
from trichord.store.annotations import NO_STEP, StepSpan

COLLECTION = "crosstask"
WIDTHS = {"visual_3d": 1024, "visual_2d": 2048, "audio": 128}  # concatenated in this order
RECORD = 6  # lines per task
TASKS, LIST, EVALUATED = "tasks_primary.txt", "videos.csv", "videos_val.csv"


@deprecated_callback("progress")
@accepts_text_paths
def import_crosstask(
    root: Path,
    store: Path,
    words: Path | None = None,
    *,
    word_splitting: WordSplitting | None = None,
    layout: Literal["auto", "mcn", "original"] = "auto",
    videos: Path | None = None,
    features: Path | None = None,
    audio: Path | None = None,
    cooking: bool = False,
    allow_missing: bool = False,
    num_threads: int = 4,
) -> ImportSummary:
    """Import the videos of CrossTask with their annotated steps into a store, for the benchmarks crosstask and crosstask-original.

    Videos with missing or broken files are skipped and listed with the reason. If the import is run again, it continues where it
    stopped.

    Args:
        root: Folder of the release; files are searched in all its folders.
        store: Folder of the store. It is created if it does not exist, and extended if it does.
        words: File of word vectors (word2vec or GloVe). The default is GloVe 6B (50-d).
        word_splitting: How captions are split into words: unicode (letters keep their marks, as in Hindi and Thai) or
            published (as in the published loaders). The default is that of the store, or published for a new store.
        layout: Layout of the release: mcn (step.json, matrices), original (tasks_primary.txt), or auto, which depends on the
            files in root.
        videos: CSV file of videos (layout mcn). The default is the only one in root with the columns task and video_id.
        features: Folder of the features if they are not in root.
        audio: Folder of the spectrograms if they are not in root (layout mcn).
        cooking: Import only the tasks in cook.txt (layout mcn).
        allow_missing: Import even if step.json lacks more than half of the listed tasks (layout mcn).
        num_threads: Number of videos that are read at the same time.

    Raises:
        TrichordError: The layout is unknown, a list is missing or broken, or nothing could be imported.
    """
    request = Request(root, store, words, word_splitting, num_threads)
    files = find_files(root, features=features, audio=audio)
    if layout_of(layout, root, files, files.find(TASKS), TASKS) == "original":
        unused = {"videos": videos is not None, "audio": audio is not None, "cooking": cooking}
        if passed := [name for name, is_given in unused.items() if is_given]:
            raise TrichordError(f"--{passed[0]} has no effect with the original layout of CrossTask; leave it out")
        tasks, annotated = _original(files, root)
        load = load_original
    else:
        tasks, annotated = published_videos(
            files,
            root,
            videos,
            allow_missing,
            columns=("task", "video_id"),
            matrix="{task}_{video}.npy",
            chosen=_cooking_tasks(files, root) if cooking else None,
        )
        load = load_features
    return import_steps(tasks, annotated, partial(load, files), request, COLLECTION)


def _cooking_tasks(files: Files, root: Path) -> set[str]:
    listed = files.find("cook.txt")
    if listed is None:
        raise TrichordError(f"{root}: contains no cook.txt; leave out --cooking")
    return set(list_of_json(listed))


# ---- the original layout


def read_tasks(path: Path) -> list[Task]:
    """Read the tasks in a file of six-line records.

    Raises:
        TrichordError: A record is not valid. The message names the line.
    """
    lines = lines_of(path)
    tasks = []
    for begin in range(0, len(lines), RECORD):
        record = lines[begin : begin + RECORD]
        if not any(record):
            continue
        steps = tuple(step.strip() for step in record[4].split(",")) if len(record) >= 5 else ()
        if not record[0] or not steps or not all(steps) or record[3] != str(len(steps)) or any(record[5:]):
            raise TrichordError(
                f"{path}, line {begin + 1}: is not a valid record of a task (id, title, URL, number of steps, steps, an empty line)"
            )
        tasks.append(Task(record[0], steps))
    if not tasks:
        raise TrichordError(f"{path}: contains no task; download it again")
    return tasks


def read_spans(path: Path, video_id: str, task: Task) -> list[StepSpan]:
    """Read the spans in an annotation file.

    Raises:
        TrichordError: A line is not valid. The message names the line.
    """
    spans = []
    for number, line in enumerate(lines_of(path), 1):
        if not line:
            continue
        try:
            step, start_s, end_s = (float(cell) for cell in line.split(","))
            is_valid = step == int(step) and 1 <= step <= len(task.steps) and 0 <= start_s < end_s < float("inf")
        except (ValueError, OverflowError):
            is_valid = False
        if not is_valid:
            raise TrichordError(
                f"{path}, line {number}: is not a step from 1 to {len(task.steps)} with start and end; correct it"
            )
        k = int(step) - 1
        spans.append(StepSpan(video_id, task.name, k, task.steps[k], start_s, end_s))
    return spans or [StepSpan(video_id, task.name, NO_STEP, "", 0.0, 0.0)]


def _listed(path: Path | None) -> list[tuple[str, str]]:
    """Return the rows (task, video id) of a list without header."""
    if path is None:
        return []
    rows = list(csv.reader(lines_of(path)))
    if any(row and len(row) < 2 for row in rows):
        raise TrichordError(f"{path}: needs a task and a video in every line; download it again")
    return [(row[0].strip(), row[1].strip()) for row in rows if row]


def _original(files: Files, root: Path) -> tuple[list[Task], list[Annotated]]:
    path = files.find(TASKS)
    assert path is not None
    tasks: dict[str, Task] = {}
    for task in read_tasks(path):
        if tasks.setdefault(task.name, task) != task:
            raise TrichordError(f"{path}: has two lists of steps for task '{task.name}'; keep one of them")
    listed, evaluated = _listed(files.find(LIST)), _listed(files.find(EVALUATED))
    index = IdIndex((video for _, video in listed), LIST)
    evaluated = [(name, index.find(video) or video) for name, video in evaluated]
    pairs = list(dict.fromkeys([*listed, *evaluated]))
    if not pairs:
        raise TrichordError(f"{root}: contains neither a {LIST} nor a {EVALUATED} that lists videos; download them")
    held_out = {video for _, video in evaluated}
    videos: dict[str, Annotated] = {}
    for name, video_id in pairs:
        if name not in tasks:  # a related task without annotations
            continue
        split = "test" if not held_out or video_id in held_out else "train"
        video = videos.setdefault(video_id, Annotated(video_id, split))
        annotation = files.find(f"{name}_{video_id}.csv")
        try:
            if annotation is None:
                raise TrichordError(f"{name}_{video_id}.csv: the annotation of {video_id} is missing; download it")
            video.spans += read_spans(annotation, video_id, tasks[name])
        except TrichordError as error:
            video.problem = video.problem or str(error)
    return list(tasks.values()), list(videos.values())


def load_original(files: Files, video: Annotated) -> Streams:
    """Load the three streams of `VIDEO.npy`, with one row per second each.

    Raises:
        TrichordError: The file is missing or broken.
    """
    path = files.find(f"{video.video_id}.npy")
    if path is None:
        raise TrichordError(
            f"{video.video_id}.npy: is missing; unpack crosstask_features.zip, or pass its folder with --features"
        )
    array = as_array(load_npy(path), str(path))
    if array.ndim != 2 or array.shape[1] != sum(WIDTHS.values()) or not len(array):
        raise TrichordError(f"{path}: has shape {array.shape}, expected (seconds, {sum(WIDTHS.values())})")
    borders = np.cumsum([0, *WIDTHS.values()]).tolist()
    streams = {name: array[:, b:e] for name, b, e in zip(WIDTHS, borders[:-1], borders[1:], strict=True)}
    return streams, dict.fromkeys(WIDTHS, 1.0), dict.fromkeys(WIDTHS, path)
