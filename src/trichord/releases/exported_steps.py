"""Annotated steps in an export: one JSON line per span in `trichord.annotations.jsonl`, next to the files of any layout.

A line has collection, video_id, task, step (from 0, or -1 for a video that shows none), text, start_s and end_s, as in
`store.annotations`. The texts of all steps of a task are items of the export, as they are items of the store.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.files.reading import open_regular, unreadable
from trichord.files.writing import replacing_file
from trichord.releases.records import MOST_JSON_BYTES, parsed, shown
from trichord.store import Store
from trichord.store.annotations import NO_STEP, StepSpan, read_annotations, step_items, steps_id, write_annotations

STEPS = "trichord.annotations.jsonl"
_KINDS: dict[str, tuple[type, ...]] = {name: (str,) for name in ("collection", "video_id", "task", "text")} | {
    "step": (int,)
}
_KINDS |= {name: (float, int) for name in ("start_s", "end_s")}
Spans = dict[str, list[StepSpan]]  # by collection


def write_steps(folder: Path, store: Store, items: np.ndarray) -> tuple[int, list[str]]:
    """Write the annotations of the given items, in the order of the store.

    Returns:
        The number of spans, and notes for the user.

    Raises:
        TrichordError: The annotations of the store are damaged.
    """
    exported = {(store.collection(i), store.video_id(i)) for i in items.tolist()}
    lines, num_without_texts = [], 0
    for collection in dict.fromkeys(store.collection(i) for i in items.tolist()):
        annotations = read_annotations(store, collection)
        exported_spans = [
            span for spans in annotations.values() for span in spans if (collection, span.video_id) in exported
        ]
        tasks = dict.fromkeys(span.task for span in exported_spans)
        num_without_texts += sum((collection, steps_id(task)) not in exported for task in tasks)
        lines += [json.dumps({"collection": collection, **vars(span)}) for span in exported_spans]
    if not lines:
        (folder / STEPS).unlink(missing_ok=True)  # left by an earlier export
        return 0, []
    with replacing_file(folder / STEPS) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    notes = [f"{len(lines):,} annotated spans of steps are in {STEPS}, which published readers do not support"]
    if num_without_texts:
        notes.append(
            f"the step texts of {num_without_texts:,} of its tasks are not among these items (split steps), so steps cannot be "
            "searched in this export; export without --split to include them"
        )
    return len(lines), notes


def read_steps(folder: Path, mark: dict[str, Any]) -> Spans:
    """Read the annotations of an export; empty if its mark has none.

    Raises:
        TrichordError: The file is missing, damaged or not the one that was exported.
    """
    if not mark.get("annotations"):
        return {}
    path, spans, count = folder / STEPS, Spans(), 0
    try:
        with open_regular(path) as file:
            while line := file.readline(MOST_JSON_BYTES):
                count += 1
                collection, span = _span(parsed(line, f"{path}, line {count}"), f"{path}, line {count}")
                spans.setdefault(collection, []).append(span)
    except OSError as error:
        raise unreadable(path, error, mend="copy or export it again") from None
    if count != mark["annotations"]:
        raise TrichordError(f"{path}: has {count:,} of {shown(mark['annotations'])} lines; copy or export it again")
    return spans


def store_steps(store: Path, steps: Spans) -> list[str]:
    """Add the annotations to a store that contains the items, and return lines for the user.

    Raises:
        TrichordError: The store has other steps for one of the tasks.
    """
    opened = Store(store) if steps else None
    for collection, spans in steps.items():
        assert opened is not None
        items = step_items(opened, collection)
        for span in spans:
            i = items.get(span.task)
            if i is None or span.step == NO_STEP:
                continue
            if span.step >= opened.num_captions(i) or opened.caption_text(i, span.step) != span.text:
                raise TrichordError(f"{store}: has other steps for task '{shown(span.task)}'; use another store")
    for collection, spans in steps.items():
        write_annotations(store, collection, spans)
    count = sum(map(len, steps.values()))
    return [f"with {count:,} annotated spans of steps"] if count else []


def _span(record: dict[str, Any], where: str) -> tuple[str, StepSpan]:
    for name, kinds in _KINDS.items():
        if not isinstance(record.get(name), kinds) or isinstance(record[name], bool):
            raise TrichordError(f"{where}: has no {name}; copy or export it again")
    try:
        start_s, end_s = float(record["start_s"]), float(record["end_s"])
    except OverflowError:
        start_s = end_s = math.inf
    if not (NO_STEP <= record["step"] < 1 << 31 and 0 <= start_s < math.inf and math.isfinite(end_s)):
        raise TrichordError(f"{where}: is not a valid span; copy or export it again")
    span = StepSpan(record["video_id"], record["task"], record["step"], record["text"], start_s, end_s)
    return record["collection"], span
