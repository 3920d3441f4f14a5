"""Which steps a video shows and when: `annotations.parquet` beside the parts of a store.

One row per annotated span: collection, video_id, task, step (from 0), text, start_s, end_s. A video of a task that shows none
of its steps has one row with step -1. The texts of all steps of a task, also those that no video shows, are the captions of
the item `steps/TASK` of split `steps` of the collection, in order: so they have word ids and embeddings as all texts have.
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
_MEND = "import the annotations again"
_ROW_BYTES = 40  # of a row at least, when it is read
_TEXTS = ["collection", "video_id", "task", "text"]
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("collection", "video_id", "task")]
    + [("step", pa.int32()), ("text", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())]
)


def steps_id(task: str) -> str:
    """Id of the item whose captions are the steps of a task."""
    return f"{_PREFIX}{task}"


@dataclass(frozen=True)
class StepSpan:
    """A step of a task at [start_s, end_s) of a video; step NO_STEP says that the video is of the task and shows none."""

    video_id: str
    task: str
    step: int
    text: str
    start_s: float
    end_s: float


def write_annotations(store: Path, collection: str, spans: Iterable[StepSpan]) -> None:
    """Add spans to what the store knows, in place of earlier ones of the same task and video. The file is there whole or not
    at all; of several processes that write, each waits for the others and keeps what they wrote.

    Raises TrichordError when the store cannot be written.
    """
    given = [{"collection": collection, **vars(span)} for span in spans]
    names = ("collection", "task", "video_id")
    again = {tuple(row[name] for name in names) for row in given}
    with writing_to(store / ANNOTATIONS, "check the disk, then run again"), Leases(store) as leases:
        leases.wait(ANNOTATIONS)
        rows = [row for row in _rows(store / ANNOTATIONS) if tuple(row[name] for name in names) not in again] + given
        with replacing_file(store / ANNOTATIONS) as file:
            pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), file)


def read_annotations(store: Store, collection: str) -> dict[tuple[str, str], list[StepSpan]]:
    """Spans of each (task, video id) of a collection, in the order of the file; none when nothing is annotated.

    Raises TrichordError when the file is damaged.
    """
    found: dict[tuple[str, str], list[StepSpan]] = {}
    for row in _rows(store.folder / ANNOTATIONS):
        if row.pop("collection") == collection:
            span = StepSpan(**row)
            found.setdefault((span.task, span.video_id), []).append(span)
    return found


def step_items(store: Store, collection: str) -> dict[str, int]:
    """Number of the item that holds the steps of each task."""
    items = {store.video_id(int(i)): int(i) for i in store.select(collection, SPLIT)}
    return {name.removeprefix(_PREFIX): i for name, i in items.items() if name.startswith(_PREFIX)}


def truth_matrix(spans: Iterable[StepSpan], num_seconds: int, num_steps: int) -> np.ndarray:
    """(T, K) bool: second t is annotated with step k, from the floor of a start to the ceiling of an end (CrossTask)."""
    truth = np.zeros((num_seconds, num_steps), bool)
    for span in spans:
        if span.step != NO_STEP:
            truth[int(np.floor(span.start_s)) : int(np.ceil(span.end_s)), span.step] = True
    return truth


def steps_beyond(spans: Iterable[StepSpan], num_seconds: float) -> int:
    """How many annotated steps begin where a video of so many seconds has ended; `truth_matrix` leaves them out."""
    return sum(span.step != NO_STEP and math.floor(span.start_s) >= num_seconds for span in spans)


def beyond_note(num_videos: int, num_steps: int) -> list[str]:
    """A note on the videos that are shorter than their annotation, or none."""
    if not num_videos:
        return []
    are, lie = ("video is", "its") if num_videos == 1 else ("videos are", "their")
    steps = f"{num_steps:,} annotated step{' lies' if num_steps == 1 else 's lie'} beyond the features"
    return [f"{num_videos:,} {are} shorter than {lie} annotation: {steps} and cannot be found (download them again)"]


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
        with pq.ParquetFile(path, pre_buffer=False, read_dictionary=_TEXTS) as file:  # texts as numbers, then measured
            table = written_out(file.read(use_threads=False), path, most)
        table.validate(full=True)
    except TrichordError:
        raise
    except (OSError, ValueError, LookupError, TypeError, MemoryError, pa.ArrowException) as error:
        raise unreadable(path, error, mend=f"delete it and {_MEND}") from None
    if not table.schema.equals(_SCHEMA) or any(column.null_count for column in table.columns):
        raise _odd_columns(path)
    rows = table.to_pylist()
    for row in rows:
        sound = row["step"] >= NO_STEP and np.isfinite([row["start_s"], row["end_s"]]).all() and row["start_s"] >= 0
        if not sound:
            raise TrichordError(f"{path}: has a span of {row['video_id']} that is none; delete it and {_MEND}")
    return rows


def _odd_columns(path: Path) -> TrichordError:
    return TrichordError(f"{path}: its columns are not those of annotations; delete it and {_MEND}")
