"""The annotations of a store: which steps each video shows and when, in `annotations.parquet` next to the parts.

The file has one row per annotated span: collection, video_id, task, step (from 0), text, start_s, end_s. A video of a task that
shows none of the steps has one row with step -1. The texts of all steps of a task, including steps that no video shows, are
the captions of the item `steps/TASK` in split `steps` of the collection, in order. They therefore have word ids and
embeddings like all other texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trichord.errors import TrichordError
from trichord.files.arrays import most_unpacked
from trichord.files.reading import check_regular, unreadable
from trichord.files.writing import replacing_file, writing_to
from trichord.store.leases import Leases
from trichord.store.manifest import written_out
from trichord.store.names import ANNOTATIONS

if TYPE_CHECKING:
    from trichord.store.store import Store

SPLIT = "steps"
NO_STEP = -1
_PREFIX = "steps/"
_ADVICE = "import the annotations again"
_ROW_BYTES = 40  # the smallest size of a row in memory
_TEXTS = ["collection", "video_id", "task", "text"]
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("collection", "video_id", "task")]
    + [("step", pa.int32()), ("text", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())]
)


def steps_id(task: str) -> str:
    """Return the id of the item whose captions are the steps of a task."""
    return f"{_PREFIX}{task}"


@dataclass(frozen=True)
class StepSpan:
    """A step of a task at [start_s, end_s) of a video. Step NO_STEP: the video belongs to the task but shows no step."""

    video_id: str
    task: str
    step: int
    text: str
    start_s: float
    end_s: float


def write_annotations(store: Path, collection: str, spans: Iterable[StepSpan]) -> None:
    """Add spans to the annotations of a store. They replace earlier spans of the same task and video.

    The file is written completely or not at all. If several processes write, each waits for the others and keeps their spans.

    Args:
        store: The folder of the store.
        collection: The collection of the videos.
        spans: The annotated spans.

    Raises:
        TrichordError: The store cannot be written.
    """
    new_rows = [{"collection": collection, **vars(span)} for span in spans]
    names = ("collection", "task", "video_id")
    replaced = {tuple(row[name] for name in names) for row in new_rows}
    with writing_to(store / ANNOTATIONS, "check the disk, then run the command again"), Leases(store) as leases:
        leases.wait(ANNOTATIONS)
        rows = [
            row for row in _rows(store / ANNOTATIONS) if tuple(row[name] for name in names) not in replaced
        ] + new_rows
        with replacing_file(store / ANNOTATIONS) as file:
            pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), file)


def read_annotations(store: Store, collection: str) -> dict[tuple[str, str], list[StepSpan]]:
    """Return the spans of each (task, video id) of a collection, in the order of the file; empty if there are no annotations.

    Raises:
        TrichordError: The file is damaged.
    """
    spans: dict[tuple[str, str], list[StepSpan]] = {}
    for row in _rows(store.folder / ANNOTATIONS):
        if row.pop("collection") == collection:
            span = StepSpan(**row)
            spans.setdefault((span.task, span.video_id), []).append(span)
    return spans


def step_items(store: Store, collection: str) -> dict[str, int]:
    """Return, for each task of a collection, the number of the item that holds its steps."""
    items = {store.video_id(int(i)): int(i) for i in store.select(collection, SPLIT)}
    return {name.removeprefix(_PREFIX): i for name, i in items.items() if name.startswith(_PREFIX)}


def truth_matrix(spans: Iterable[StepSpan], num_seconds: int, num_steps: int) -> np.ndarray:
    """Return which second of a video shows which step, as defined by CrossTask.

    A span covers the seconds from the floor of its start to the ceiling of its end.

    Args:
        spans: The spans of one task in one video.
        num_seconds: The length T of the video in seconds.
        num_steps: The number of steps K of the task.

    Returns:
        Array (T, K) of bool.
    """
    truth = np.zeros((num_seconds, num_steps), bool)
    for span in spans:
        if span.step != NO_STEP:
            truth[int(np.floor(span.start_s)) : int(np.ceil(span.end_s)), span.step] = True
    return truth


def steps_beyond(spans: Iterable[StepSpan], num_seconds: float) -> int:
    """Return how many annotated steps begin after the end of a video of `num_seconds`. `truth_matrix` ignores them."""
    return sum(span.step != NO_STEP and math.floor(span.start_s) >= num_seconds for span in spans)


def beyond_note(num_videos: int, num_steps: int) -> list[str]:
    """Return a note about videos that are shorter than their annotation, or no note if there are none."""
    if not num_videos:
        return []
    are, their = ("video is", "its") if num_videos == 1 else ("videos are", "their")
    steps = f"{num_steps:,} annotated step{' lies' if num_steps == 1 else 's lie'} beyond the features"
    return [f"{num_videos:,} {are} shorter than {their} annotation: {steps} and cannot be found (download them again)"]


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        most = most_unpacked(check_regular(path).st_size)
        with pq.ParquetFile(path, pre_buffer=False) as file:
            if file.schema_arrow.names != _SCHEMA.names:
                raise _odd_columns(path)
            if file.metadata.num_rows > most // _ROW_BYTES:
                raise ValueError(f"it claims {file.metadata.num_rows:,} rows")
        with pq.ParquetFile(
            path, pre_buffer=False, read_dictionary=_TEXTS
        ) as file:  # texts stay encoded until their size is known
            table = written_out(file.read(use_threads=False), path, most)
        table.validate(full=True)
    except TrichordError:
        raise
    except (OSError, ValueError, LookupError, TypeError, MemoryError, pa.ArrowException) as error:
        raise unreadable(path, error, mend=f"delete it and {_ADVICE}") from None
    if not table.schema.equals(_SCHEMA) or any(column.null_count for column in table.columns):
        raise _odd_columns(path)
    rows = table.to_pylist()
    for row in rows:
        is_valid = row["step"] >= NO_STEP and np.isfinite([row["start_s"], row["end_s"]]).all() and row["start_s"] >= 0
        if not is_valid:
            raise TrichordError(
                f"{path}: has an invalid span for the video {row['video_id']}; delete the file and {_ADVICE}"
            )
    return rows


def _odd_columns(path: Path) -> TrichordError:
    return TrichordError(f"{path}: its columns are not those of an annotations file; delete it and {_ADVICE}")
