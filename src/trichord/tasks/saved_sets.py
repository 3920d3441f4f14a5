"""The clips that a benchmark scored, as a file of embeddings holds them: scored from the file, they give the same figures.

Clips with labels come with these and their folds, for zero-shot classification with the prompts of the classes as texts.
Videos with annotated steps come as seconds, with the texts of the steps. T seconds, K steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.tasks.classification import prompts_of
from trichord.tasks.labels.clips import Labelled, labelled, usable
from trichord.tasks.protocol import Options, Protocol
from trichord.tasks.steps.scores import (
    STEP,
    TASK,
    annotated_videos,
    blocks,
    embed_seconds,
    step_directions,
    step_texts,
)
from trichord.tasks.subject import Subject
from trichord.tasks.text_rows import prompt_rows, prompts_from_clips


def scored_sets(subject: Subject, benchmarks: Sequence[tuple[Protocol, Options]]) -> list[Embedded]:
    """The different sets of clips that these benchmarks score. All processes of a launch call it together.

    What is in memory already is not embedded again; seconds are, as a benchmark keeps but their scores.
    """
    sets: dict[tuple[str, ...], Embedded] = {}
    seen: set[object] = set()
    kinds = {protocol.kind for protocol, _ in benchmarks}
    if "retrieval" in kinds:
        sets |= {tuple(found.ids.tolist()): found for found in subject.made}
    for protocol, options in sorted(benchmarks, key=lambda one: one[0].kind != "classification"):  # it knows most
        key = (protocol.kind, options)
        if protocol.kind == "retrieval" or key in seen:
            continue
        seen.add(key)
        found = (
            _seconds(subject, protocol, options)
            if protocol.kind == "localization"
            else _clips(subject, protocol, options)
        )
        sets.setdefault(tuple(found.ids.tolist()), found)
    return list(sets.values())


def _clips(subject: Subject, protocol: Protocol, options: Options) -> Embedded:
    have = usable(subject)
    of_classes = protocol.kind == "classification"
    from_clips = prompts_from_clips(subject, options)
    needed = (*have, "text") if of_classes and from_clips else have
    data = labelled(subject, options, needed, train=protocol.kind == "probe")
    if of_classes and not from_clips:
        return _with_prompts(subject, data, options)
    return data.found.but(labels=data.found.labels | data.columns, classes=data.known_classes())


def _with_prompts(subject: Subject, data: Labelled, options: Options) -> Embedded:
    """The clips, with the prompts of the classes as texts; each is said to describe the first clip of its class."""
    rows: list[np.ndarray] = []
    said: list[str] = []
    clip: list[int] = []
    for label, names in data.classes.items():
        texts = [prompts_of(name, options.templates) for name in names]
        prompts = [text for of in texts for text in of]
        rows.append(prompt_rows(subject, data.found, prompts, options)[0])  # at once, as the benchmark: the same bits
        said += prompts
        for name, of in zip(names, texts, strict=True):
            mine = np.flatnonzero(data.labels[label] == name)
            clip += [int(mine[0]) if len(mine) else 0] * len(of)
    text = np.concatenate(rows)
    return data.found.but(
        embeddings={m: v for m, v in data.found.embeddings.items() if m != "text"} | {"text": text},
        valid={m: v for m, v in data.found.valid.items() if m != "text"} | {"text": np.isfinite(text).all(axis=1)},
        text_clip=np.array(clip),
        captions=said,
        labels=data.found.labels | data.columns,
        classes=data.known_classes(),
    )


def _seconds(subject: Subject, protocol: Protocol, options: Options) -> Embedded:
    if subject.given is not None:
        return subject.given
    if protocol.clips:
        collection, _, split = protocol.clips.partition("/")
    else:
        chosen = subject.clip_set(options.on)
        collection, split = chosen.collection, chosen.split
    directions = step_directions(subject, collection, options.directions, protocol.name)
    modalities = tuple(dict.fromkeys(m for d in directions for m in d.modalities))
    found = annotated_videos(subject, collection, split, modalities)
    total = sum(num_seconds for _, _, _, num_seconds, _ in found.videos)
    parts: dict[str, np.ndarray] = {}  # made once, as they are large
    there: dict[str, np.ndarray] = {}
    ids: list[str] = []
    videos: list[str] = []
    tasks: list[str] = []
    steps: list[str] = []
    start_s: list[int] = []
    for task, video, item, num_seconds, truth in found.videos:
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
        raise TrichordError(f"benchmark {protocol.name}: its videos have no seconds; there is nothing to save")
    texts = {
        task: rows for task, rows in step_texts(subject, found.tasks, options.text_encoder).items() if task in tasks
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
        captions=[store.caption_text(found.tasks[task], k) for task, rows in texts.items() for k in range(len(rows))],
        labels={TASK: tasks, STEP: steps},
        source=f"{store.path} {collection}/{split}",
    )
