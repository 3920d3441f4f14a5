"""The true steps of a rendered world (`trichord world`) beside its videos in a store, for the benchmark world-steps.

Every video is a task of its own: its steps, each said plainly (`cut the tomato with the knife`), with their true times.
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
    """Add the true steps of a world to a store that holds its videos.

    Args:
        root: Folder of the world, with world.json.
        store: Folder of the store that `trichord extract` made of it.
        words: The word vectors that the store was made with; GloVe 6B 50-d when not given.
        word_splitting: How captions become words: unicode (letters keep their marks, as in Hindi and Thai) or published (as the
            published loaders do). If not given, as in the store; published for a new one.
        collection: Of the world's videos in the store.
        allow_missing: Import also where the store lacks more than half of the world's videos.

    Raises TrichordError when there is no world, or the store has none of its videos.
    """
    request = Request(root, store, words, word_splitting)
    opened = Store(store)
    truth = read_truth(root / TRUTH)
    have = [opened.video_id(int(i)) for i in opened.select(collection)]
    if not have:
        known = ", ".join(dict.fromkeys(c for c, _ in opened.collections()))
        raise TrichordError(
            f"{store}: holds no video of {root} as collection {collection} (it has {known}); run `trichord extract {root} "
            f"--store {store}` first, or name --collection"
        )
    index = IdIndex(have, f"{store} {collection}")
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
    summary.notes.append(f"the true steps of {len(tasks):,} videos; `trichord evaluate ... --benchmark world-steps`")
    return summary


def read_truth(path: Path) -> dict[str, list[tuple[float, float, str]]]:
    """{video id in a store: its steps (start_s, end_s, text)} of a world.json. Raises TrichordError when it is none."""
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
        raise TrichordError(f"{path} is not a world's truth; give a folder made by `trichord world`") from None


def step_text(step: dict[str, Any]) -> str:
    """A true step in the usual words."""
    return f"{ACTIONS[step['action']][0][0]} the {step['object']} with the {step['tool']}"
