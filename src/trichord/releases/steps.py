"""Common parts of releases with annotated steps, which store tasks and videos, and the spans of the steps in addition.

A task becomes the item `steps/TASK` of split `steps`, whose captions are the texts of its steps. A video gets its annotated spans
as captions, so that its clips can be retrieved too, and rows in the annotations of the store (`store.annotations`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trichord.captions import Captions
from trichord.errors import TrichordError
from trichord.files.arrays import load_npy, load_npz_array
from trichord.files.reading import open_regular_text, read_text
from trichord.files.walking import raise_unlisted
from trichord.ids import IdIndex, file_without_media_suffix, match_ids
from trichord.releases.common import ALLOW_MISSING, RATES_HZ, ImportSummary, Made, Request, import_entries
from trichord.releases.pieces import as_array, as_rows, csv_rows, named_path, time_major
from trichord.releases.records import parsed, read_small
from trichord.store import Item, Store
from trichord.store.annotations import (
    NO_STEP,
    SPLIT,
    StepSpan,
    beyond_note,
    step_items,
    steps_beyond,
    steps_id,
    write_annotations,
)

AUDIO_KEY, VISUAL_KEY = "arr_0", "features"
Streams = tuple[dict[str, np.ndarray], dict[str, float], dict[str, Path]]  # arrays, rates_hz, files


@dataclass
class Task:
    """A task and the texts of its steps, in order."""

    name: str
    steps: tuple[str, ...]


@dataclass
class Annotated:
    """A video and its steps.

    Attributes:
        video_id: The id of the video in the store.
        split: The split of the video in the store.
        spans: The spans of all its tasks.
        num_seconds: The length of the annotation; 0 if the features determine it.
        problem: Why the video cannot be imported, or ''.
    """

    video_id: str
    split: str
    spans: list[StepSpan] = field(default_factory=list)
    num_seconds: int = 0
    problem: str = ""


class Files:
    """All files below some folders by name. If several files have the same name, the first path in sorted order counts.

    A name without an exact match is looked up without the suffixes of media files: `a_2d.npy` finds `a.mp4_2d.npy`, and vice versa.

    Args:
        roots: The folders.
    """

    def __init__(self, roots: Iterable[Path]) -> None:
        self._paths: dict[str, Path] = {}
        self._bare: dict[str, list[str]] = {}
        for root in roots:
            for folder, folders, names in os.walk(root, onerror=raise_unlisted):
                folders.sort()
                for name in sorted(names):
                    self._paths.setdefault(name, Path(folder) / name)
        for name in self._paths:
            self._bare.setdefault(file_without_media_suffix(name), []).append(name)

    def find(self, *names: str) -> Path | None:
        """Return the first of the named files that exists; None if there is none.

        Raises:
            TrichordError: A name may refer to two files.
        """
        if exact := next((self._paths[name] for name in names if name in self._paths), None):
            return exact
        for name in names:
            if len(candidates := self._bare.get(file_without_media_suffix(name), [])) > 1:
                raise TrichordError(
                    f"{name}: may refer to {candidates[0]} or {candidates[1]}; remove or rename one of them"
                )
            if candidates:
                return self._paths[candidates[0]]
        return None

    def with_suffix(self, suffix: str) -> dict[str, Path]:
        """Return the files with a suffix, by name without the suffix."""
        return {name.removesuffix(suffix): path for name, path in self._paths.items() if name.endswith(suffix)}


def import_steps(
    tasks: Sequence[Task],
    videos: Sequence[Annotated],
    load: Callable[[Annotated], Streams],
    request: Request,
    collection: str,
) -> ImportSummary:
    """Store tasks, videos and annotations.

    Raises:
        TrichordError: Nothing can be imported, or the store has other steps for a task.
    """
    beyond: dict[str, int] = {}

    def make(entry: Task | Annotated) -> Made:
        if isinstance(entry, Task):
            return task_item(entry, collection)
        made = _video_item(entry, load, collection)
        if lost := steps_beyond(entry.spans, math.ceil(made.item.duration_s)):
            beyond[entry.video_id] = lost
        return made

    entries: list[Task | Annotated] = [*videos, *tasks]
    summary = import_entries(
        entries,
        request,
        collection=collection,
        video_id=lambda entry: steps_id(entry.name) if isinstance(entry, Task) else entry.video_id,
        make=make,
        texts=(text for task in tasks for text in task.steps),
    )
    check_steps(Store(request.store), collection, tasks)
    write_annotations(
        request.store, collection, [span for video in videos if not video.problem for span in video.spans]
    )
    summary.notes += beyond_note(len(beyond), sum(beyond.values()))
    summary.notes.append(
        f"including {len(tasks):,} tasks with {sum(len(task.steps) for task in tasks):,} steps as items of split {SPLIT}"
    )
    return summary


def check_steps(store: Store, collection: str, tasks: Sequence[Task]) -> None:
    """Check that the store has the same steps for each task.

    Raises:
        TrichordError: The store has other steps for a task.
    """
    items = step_items(store, collection)
    for task in tasks:
        if task.name in items:
            i = items[task.name]
            stored = tuple(store.caption_text(i, c) for c in range(store.num_captions(i)))
            if stored != task.steps:
                raise TrichordError(f"{store.path}: has other steps for task '{task.name}'; use another store")


def task_item(task: Task, collection: str) -> Made:
    """Return the item that holds the steps of a task.

    Raises:
        TrichordError: The task has no steps.
    """
    if not task.steps:
        raise TrichordError(f"task '{task.name}' has no steps")
    begins = np.arange(len(task.steps), dtype=np.float64)
    captions = Captions(begins, begins + 1, task.steps)
    return Made(Item(steps_id(task.name), collection, SPLIT, float(len(task.steps)), {}, {}, captions))


def _video_item(video: Annotated, load: Callable[[Annotated], Streams], collection: str) -> Made:
    if video.problem:
        raise TrichordError(video.problem)
    streams, rates, sources = load(video)
    num_seconds = video.num_seconds or len(streams["visual_2d"])
    spans = sorted((s.start_s, s.end_s, s.text) for s in video.spans if s.step != NO_STEP)
    if spans and max(end for _, end, _ in spans) <= 0:
        raise TrichordError(f"video {video.video_id}: its steps end before it begins; check its annotation")
    item = Item(video.video_id, collection, video.split, float(num_seconds), streams, rates, Captions.from_rows(spans))
    return Made(item, sources)


def find_files(root: Path, **folders: Path | None) -> Files:
    """Return the files of a release below `root` and below the folders given as options."""
    return Files([root, *(named_path(root, path, option) for option, path in folders.items() if path is not None)])


def layout_of(asked: str, root: Path, files: Files, original: object, name_of_original: str) -> str:
    """Return the layout `mcn` or `original`, as requested or according to the files.

    Args:
        asked: `mcn`, `original` or `auto`.
        root: The folder of the release.
        files: The files of the release.
        original: A true value if the files of the original layout exist.
        name_of_original: The files of the original layout, for error messages.

    Raises:
        TrichordError: The files of the requested layout are missing, or both layouts exist and none was requested.
    """
    if asked not in ("auto", "mcn", "original"):
        raise TrichordError(f"unknown layout '{asked}'; expected mcn or original")
    layouts = [name for name, is_there in (("mcn", files.find("step.json")), ("original", original)) if is_there]
    if asked == "auto" and len(layouts) == 2:
        raise TrichordError(
            f"{root}: contains both step.json and {name_of_original}; choose with --layout mcn or --layout original"
        )
    if not layouts or (asked != "auto" and asked not in layouts):
        raise TrichordError(
            f"{root}: contains no step.json (layout mcn) or no {name_of_original} (original); pass another --root"
        )
    return layouts[0] if asked == "auto" else asked


# ---- the layout of MCN and Everything at Once: a CSV file of videos, step.json, one matrix per video


def published_videos(
    files: Files,
    root: Path,
    videos: Path | None,
    allow_missing: bool,
    *,
    columns: Sequence[str],
    matrix: str,
    chosen: Collection[str] | None = None,
) -> tuple[list[Task], list[Annotated]]:
    """Return the tasks and videos of a release in the layout of MCN.

    Args:
        files: All files of the release.
        root: The folder of the release.
        videos: The CSV file of videos that the user passed, or None.
        allow_missing: Whether step.json may lack more than half of the listed tasks.
        columns: The columns of the CSV file; the first contains the task, the last the video.
        matrix: The name of the annotation of a video, such as `{task}_{video}.npy`.
        chosen: The tasks to import; None imports all.

    Raises:
        TrichordError: A list is missing or broken.
    """
    path = files.find("step.json")
    assert path is not None
    steps = read_steps(path)
    table = find_table(root, videos, columns)
    pairs = [
        (row[0], row[-1]) for row in dict.fromkeys(read_rows(table, columns)) if chosen is None or row[0] in chosen
    ]
    if not pairs:
        raise TrichordError(f"{table}: lists no video; pass another with --videos")
    names = list(dict.fromkeys(task for task, _ in pairs))
    steps = steps_of(names, steps, table=table, path=path, allow_missing=allow_missing)
    tasks = [Task(name, steps[name]) for name in names if name in steps]
    return tasks, matrix_videos(pairs, steps, files, matrix, "test")


def read_steps(path: Path) -> dict[str, tuple[str, ...]]:
    """Read the step texts of each task or video in a step.json.

    Raises:
        TrichordError: The file contains anything else.
    """
    table = parsed(read_small(path), str(path), unique_keys=True)
    for name, steps in table.items():
        if not isinstance(steps, list) or not steps or not all(isinstance(s, str) for s in steps):
            raise TrichordError(f"{path}: has no list of step texts for '{name}'; download it again")
    return {str(name): tuple(steps) for name, steps in table.items()}


def steps_of(
    names: Iterable[str], steps: Mapping[str, tuple[str, ...]], *, table: Path, path: Path, allow_missing: bool
) -> dict[str, tuple[str, ...]]:
    """Return the steps of the tasks or videos in a table, by their names there. See `match_ids` for errors."""
    matched = match_ids(
        names, IdIndex(steps, str(path)), source=str(table), allow_missing=allow_missing, option=ALLOW_MISSING
    )
    return {name: steps[match] for name, match in matched.items()}


def matrix_spans(path: Path, video_id: str, task: str, steps: Sequence[str]) -> tuple[list[StepSpan], int]:
    """Return the spans in an annotation matrix (T seconds, K steps) of 0 and 1, and T.

    Raises:
        TrichordError: The matrix has another shape.
    """
    matrix = as_array(load_npy(path), str(path))
    if matrix.ndim != 2 or matrix.shape[1] != len(steps) or not len(matrix):
        raise TrichordError(
            f"{path}: has shape {matrix.shape}, expected (seconds, {len(steps)} steps of task '{task}')"
        )
    shown = matrix > 0
    spans = []
    for k, text in enumerate(steps):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], shown[:, k], [False]]).astype(np.int8)))
        spans += [
            StepSpan(video_id, task, k, text, float(b), float(e)) for b, e in zip(edges[::2], edges[1::2], strict=True)
        ]
    return spans or [StepSpan(video_id, task, NO_STEP, "", 0.0, 0.0)], len(matrix)


def matrix_videos(
    pairs: Sequence[tuple[str, str]], steps: Mapping[str, tuple[str, ...]], files: Files, name: str, split: str
) -> list[Annotated]:
    """Return the videos of (task, video id) pairs with the matrices called `name` (`{task}_{video}.npy`).

    A video may belong to several tasks.
    """
    videos: dict[str, Annotated] = {}
    for task, video_id in pairs:
        video = videos.setdefault(video_id, Annotated(video_id, split))
        if video.problem:
            continue
        file = name.format(task=task, video=video_id)
        path = files.find(file)
        try:
            if task not in steps:
                raise TrichordError(f"step.json: has no steps for task '{task}'; download it again")
            if path is None:
                raise TrichordError(f"{file}: the annotation of {video_id} is missing; download it")
            spans, num_seconds = matrix_spans(path, video_id, task, steps[task])
            if video.num_seconds not in (0, num_seconds):
                raise TrichordError(
                    f"{path}: has {num_seconds} seconds, but the annotation of another task has {video.num_seconds}"
                )
        except TrichordError as error:
            video.problem = str(error)
            continue
        video.spans += spans
        video.num_seconds = num_seconds
    return list(videos.values())


def load_features(files: Files, video: Annotated) -> Streams:
    """Load `ID_2d`, `ID_3d` if it exists (.npy, or .npz with `features`), and the spectrogram `ID.npz` or `ID_spec.npz`.

    Feature rows are spread evenly over the T annotated seconds. Reading them second by second is equivalent to an adaptive
    max-pooling to T rows. Spectrograms have the key `arr_0` and shape (40, frames).

    Raises:
        TrichordError: There are no 2-D features, or a file is broken.
    """
    streams: dict[str, np.ndarray] = {}
    rates: dict[str, float] = {}
    sources: dict[str, Path] = {}
    for name, ending in (("visual_2d", "2d"), ("visual_3d", "3d")):
        stem = f"{video.video_id}_{ending}"
        path = files.find(f"{stem}.npy", f"{stem}.npz")
        if path is None and name == "visual_2d":
            raise TrichordError(f"{stem}.npy: is missing; download it, or pass its folder with --features")
        if path is None:
            continue
        array = as_rows(load_npy(path) if path.suffix == ".npy" else load_npz_array(path, VISUAL_KEY), str(path))
        if not len(array):
            raise TrichordError(f"{path}: has shape {array.shape}, expected (rows, width)")
        streams[name], sources[name] = array, path
        rates[name] = len(array) / (video.num_seconds or len(streams["visual_2d"]))
    path = files.find(f"{video.video_id}_spec.npz", f"{video.video_id}.npz")
    if path is not None:
        with np.errstate(over="ignore"):  # values outside the range of float16 become infinite, which the store refuses
            array = time_major(as_array(load_npz_array(path, AUDIO_KEY), str(path)), str(path)).astype(np.float16)
        if len(array):
            streams["spectrogram"], rates["spectrogram"] = array, RATES_HZ["spectrogram"]
            sources["spectrogram"] = path
    return streams, rates, sources


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the given columns of a CSV file, row by row, without incomplete rows.

    Raises:
        TrichordError: The file is broken or lacks a column.
    """
    table = csv_rows(path, columns, "pass the correct file, or download it again", skipinitialspace=True)
    rows = (tuple((row[name] or "").strip() for name in columns) for row in table)
    return [row for row in rows if all(row)]


def find_table(root: Path, named: Path | None, columns: Sequence[str]) -> Path:
    """Return the CSV file that the user passed, or the only one in `root` with the given columns.

    Raises:
        TrichordError: There is not exactly one such file.
    """
    if named is not None:
        return named_path(root, named, "videos")
    tables = []
    for path in sorted(root.glob("*.csv")):
        with open_regular_text(path, encoding="utf-8-sig", errors="replace") as file:
            header = [name.strip() for name in file.readline().split(",")]
        if set(columns) <= set(header):
            tables.append(path)
    if len(tables) != 1:
        names = ", ".join(path.name for path in tables) or "no CSV file"
        raise TrichordError(f"{root}: contains {names} with the columns {', '.join(columns)}; choose one with --videos")
    return tables[0]


def lines_of(path: Path) -> list[str]:
    """Return the stripped lines of a text file.

    Raises:
        TrichordError: The file cannot be read.
    """
    try:
        return [line.strip() for line in read_text(path, encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise TrichordError(f"{path}: cannot be read ({error}); download it again") from None


def list_of_json(path: Path) -> list[str]:
    """Read a JSON list of texts, or lines of text, such as ids of tasks."""
    text = "\n".join(lines_of(path))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text.split()
    return [str(entry) for entry in value] if isinstance(value, list) else text.split()
