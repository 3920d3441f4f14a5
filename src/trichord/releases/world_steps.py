"""Import of the true steps of a rendered world (`trichord world`) into the store of its videos, for the benchmark world-steps.

Every video is a task of its own: its steps in plain words (`cut the tomato with the knife`), with their true times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trichord.captions import WordSplitting
from trichord.errors import TrichordError
from trichord.files.paths import accepts_text_paths
from trichord.ids import IdIndex, match_ids
from trichord.logs import deprecated_callback
from trichord.releases.common import ALLOW_MISSING, ImportSummary, Request, import_entries
from trichord.releases.records import parsed, read_small
from trichord.releases.steps import Task, check_steps, task_item
from trichord.store import Store
from trichord.store.annotations import StepSpan, steps_id, write_annotations
from trichord.world.vocabulary import ACTIONS

TRUTH = "world.json"


@deprecated_callback("progress")
@accepts_text_paths
def import_world_steps(
    root: Path,
    store: Path,
    words: Path | None = None,
    *,
    word_splitting: WordSplitting | None = None,
    collection: str = "world",
    allow_missing: bool = False,
) -> ImportSummary:
    """Add the true steps of a world to a store that contains its videos.

    Args:
        root: Folder of the world, with world.json.
        store: Folder of the store that `trichord extract` created from it.
        words: Word vectors that the store was created with. The default is GloVe 6B 50-d.
        word_splitting: How captions are split into words: unicode (letters keep their marks, as in Hindi and Thai) or published
            (as in the published loaders). The default is that of the store, or published for a new store.
        collection: Collection of the world's videos in the store.
        allow_missing: Import even if the store lacks more than half of the world's videos.

    Raises:
        TrichordError: The folder contains no world, or the store has none of its videos.
    """
    request = Request(root, store, words, word_splitting)
    opened = Store(store)
    truth = read_truth(root / TRUTH)
    stored_ids = [opened.video_id(int(i)) for i in opened.select(collection)]
    if not stored_ids:
        known = ", ".join(dict.fromkeys(c for c, _ in opened.collections()))
        raise TrichordError(
            f"{store}: contains no video of {root} in collection {collection} (its collections are {known}); run "
            f"`trichord extract {root} --store {store}` first, or pass --collection"
        )
    index = IdIndex(stored_ids, f"{store} {collection}")
    matched = match_ids(truth, index, source=str(root), allow_missing=allow_missing, option=ALLOW_MISSING)
    tasks, spans = [], []
    for listed, name in matched.items():
        tasks.append(Task(name, tuple(text for _, _, text in truth[listed])))
        spans += [StepSpan(name, name, k, text, start, end) for k, (start, end, text) in enumerate(truth[listed])]
    summary = import_entries(
        tasks,
        request,
        collection=collection,
        video_id=lambda task: steps_id(task.name),
        make=lambda task: task_item(task, collection),
        texts=(text for task in tasks for text in task.steps),
    )
    check_steps(Store(store), collection, tasks)
    write_annotations(store, collection, spans)
    summary.notes.append(
        f"added the true steps of {len(tasks):,} videos; evaluate with `trichord evaluate ... --benchmark world-steps`"
    )
    return summary


def read_truth(path: Path) -> dict[str, list[tuple[float, float, str]]]:
    """Read the steps (start_s, end_s, text) of each video in a world.json, by the video's id in a store.

    Raises:
        TrichordError: The file is not a world.json.
    """
    try:
        videos = parsed(read_small(path), str(path))["videos"]
        return {
            f"{video['split']}/{video['video_id']}": [
                (float(step["start_s"]), float(step["end_s"]), step_text(step)) for step in video["steps"]
            ]
            for video in videos
        }
    except (LookupError, TypeError, ValueError) as error:
        if isinstance(error, TrichordError):
            raise
        raise TrichordError(f"{path}: does not describe a world; pass a folder created by `trichord world`") from None


def step_text(step: dict[str, Any]) -> str:
    """Return a true step in plain words."""
    return f"{ACTIONS[step['action']][0][0]} the {step['object']} with the {step['tool']}"
