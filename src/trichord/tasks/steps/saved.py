"""Videos with annotated steps in the form of a file of embeddings: a clip for each second, and the texts of the steps.

Notation: T seconds, K steps.
"""

from __future__ import annotations

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.tasks.protocol import Options, Protocol
from trichord.tasks.steps.scores import (
    STEP,
    TASK,
    annotated_videos,
    blocks,
    collection_and_split,
    embed_seconds,
    step_directions,
    step_texts,
)
from trichord.tasks.subject import Subject


def video_seconds(subject: Subject, protocol: Protocol, options: Options) -> Embedded:
    """Return the seconds that a protocol of steps scores.

    Args:
        subject: Model or embeddings.
        protocol: Protocol.
        options: Options of the user.

    Raises:
        TrichordError: There are none.
    """
    if subject.given is not None:
        return subject.given
    collection, split = collection_and_split(protocol, subject, options)
    directions = step_directions(subject, collection, options.directions, protocol.name)
    modalities = tuple(dict.fromkeys(m for d in directions for m in d.modalities))
    annotated = annotated_videos(subject, collection, split, modalities)
    total = sum(num_seconds for _, _, _, num_seconds, _ in annotated.videos)
    parts: dict[str, np.ndarray] = {}  # allocated once, since they are large
    there: dict[str, np.ndarray] = {}
    ids: list[str] = []
    videos: list[str] = []
    tasks: list[str] = []
    steps: list[str] = []
    start_s: list[int] = []
    for task, video, item, num_seconds, truth in annotated.videos:
        for seconds in blocks(num_seconds):
            for m in (m for m in modalities if m != "text"):
                rows, valid = embed_seconds(subject, item, seconds, num_seconds, m, options.audio_window_s)
                if m not in parts:
                    parts[m], there[m] = np.zeros((total, rows.shape[1]), np.float32), np.zeros(total, bool)
                parts[m][len(ids) + seconds], there[m][len(ids) + seconds] = rows, valid
        ids += [f"{task}/{video}@{t}" for t in range(num_seconds)]
        videos += [video] * num_seconds
        tasks += [task] * num_seconds
        start_s += list(range(num_seconds))
        steps += [" ".join(str(k + 1) for k in np.flatnonzero(row)) for row in truth]
    if not ids:
        raise TrichordError(
            f"benchmark {protocol.name}: all videos are shorter than a second, so there are no embeddings to save; "
            "leave --save_embeddings out"
        )
    texts = {
        task: rows for task, rows in step_texts(subject, annotated.tasks, options.text_encoder).items() if task in tasks
    }
    store = subject.store
    assert store is not None
    text = np.concatenate(list(texts.values()))
    return Embedded.of(
        parts | {"text": text},
        valid=there | {"text": text.any(axis=1)},
        text_clip=[tasks.index(task) for task, rows in texts.items() for _ in rows],
        ids=ids,
        videos=videos,
        start_s=np.array(start_s, np.float64),
        end_s=np.array(start_s, np.float64) + 1,
        captions=[
            store.caption_text(annotated.tasks[task], k) for task, rows in texts.items() for k in range(len(rows))
        ],
        labels={TASK: tasks, STEP: steps},
        source=f"{store.path} {collection}/{split}",
    )
