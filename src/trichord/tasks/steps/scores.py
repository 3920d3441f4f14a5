"""Scores of the seconds of a video for each step of its task.

Second t of a video is the window [t, t + 1). For a stream of r rows per second, it is the maximum of the rows floor(t r) to
ceil((t + 1) r), i.e. an adaptive max-pooling to one row per second. Its sound is the window [t - w/2, t + w/2], clamped to the
video (MCN: w = 8 s). Scores of several modalities are added, or averaged for normalized vectors. A second that lacks a modality is
scored by the others, and a second that lacks all of them has the lowest score of the video.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trichord.data.reader import EMBEDDING_STREAMS, Clips, require_modalities
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.modalities.registry import specification
from trichord.modality import Direction, in_order
from trichord.store.annotations import beyond_note, read_annotations, step_items, steps_beyond, truth_matrix
from trichord.tasks.benchmarks import embed_clips
from trichord.tasks.prompts import embed_texts
from trichord.tasks.protocol import Options, Protocol
from trichord.tasks.retrieval.measure import FUSIONS, unit
from trichord.tasks.subject import Subject

if TYPE_CHECKING:
    from trichord.store import Store

BLOCK_S = 1024  # number of seconds that are embedded at a time
SECOND = 1 - 1e-6  # length of [t, t + 1) for the reader, which includes the row at the end
FRAMES_HZ = 100
NEAR_S = 0.01  # tolerance of the distance between the rows of a file, which is a second
TASK, STEP = "task", "step"  # labels of embeddings from a file
NO_SPANS: list[np.ndarray] = [np.empty(0, np.int64)]
Vectors = dict[str, tuple[np.ndarray, np.ndarray]]  # embeddings (T, D) and masks (T,) by modality


@dataclass(frozen=True, eq=False)
class StepVideo:
    """A scored video of a task.

    Attributes:
        video: Id of the video.
        task: Name of the task.
        scores: Scores (T, K) by direction, float32. A direction is missing if no second has one of its modalities.
        truth: Annotations (T, K) of the steps of each second, bool.
    """

    video: str
    task: str
    scores: dict[str, np.ndarray]
    truth: np.ndarray


def step_directions(subject: Subject, collection: str, asked: tuple[Direction, ...], why: str) -> list[Direction]:
    """Return the directions in which steps are localized.

    Args:
        subject: Model or embeddings.
        collection: Collection of the store.
        asked: Directions that the user chose. If empty, all directions from text to the available modalities.
        why: Name of the benchmark, for messages.

    Raises:
        TrichordError: There is no direction, or the subject does not support one of them.
    """
    if asked:
        if wrong := [d.code for d in asked if d.query != ("text",)]:
            raise TrichordError(
                f"benchmark {why}: step texts must be the queries, as in t2v or t2va; {wrong[0]} is another direction"
            )
        for direction in asked:
            subject.needed(direction.modalities, f"{why} in direction {direction.code}")
        return list(asked)
    subject.needed(("text",), why)
    known = [m for m in in_order(subject.modalities) if m != "text"]
    seen = [m for m in known if _there(subject, collection, m)]
    if not known:
        raise TrichordError(f"{subject.name}: has neither video nor audio, which {why} needs")
    if not seen:
        raise TrichordError(
            f"{subject.name}: {why} needs a modality that the model and the store share, but {collection} has no "
            f"{' and no '.join(known)}"
        )
    joined = tuple(m for m in seen if m in ("video", "audio"))
    sides = [(m,) for m in seen] + ([joined] if len(joined) > 1 else [])
    return [Direction(("text",), side) for side in sides]


def collection_and_split(protocol: Protocol, subject: Subject, options: Options) -> tuple[str, str]:
    """Return the collection and the split of the videos, which the protocol defines or the user chooses."""
    if protocol.clips:
        collection, _, split = protocol.clips.partition("/")
        return collection, split
    chosen = subject.clip_set(options.on)
    return chosen.collection, chosen.split


def _there(subject: Subject, collection: str, modality: str) -> bool:
    if subject.store is None or subject.settings is None:
        return True
    streams = specification(modality).streams(subject.settings)[:1]
    items = subject.store.select(collection)
    return all(name in subject.store.streams and bool(subject.store.has(name)[items].any()) for name in streams)


def step_videos(
    subject: Subject,
    collection: str,
    split: str,
    directions: list[Direction],
    fusion: str,
    audio_window_s: float,
    text_encoder: str = "",
) -> Iterator[StepVideo]:
    """Score every annotated pair of a task and a video.

    The processes of a launch share the embedding, and each of them gets every video. One video of a store is in memory at a time,
    with the embeddings of `BLOCK_S` seconds.

    Args:
        subject: Model on a store with annotations (`store.annotations`), or embeddings. In the latter, clips are seconds with the
            labels `task` and `step` (numbers from 1, separated by spaces, or '' for background), and texts are the steps of the
            task of their clip, in order.
        collection: Collection of the store.
        split: Split of the collection.
        directions: Directions, as returned by `step_directions`.
        fusion: Rule by which several modalities are combined: `sum` or `mean_normalized`.
        audio_window_s: Length of the sound of a second, in seconds.
        text_encoder: Encoder of step texts for a model that reads text embeddings. '' uses the encoder that is recorded in the
            store.

    Yields:
        The scored videos.

    Raises:
        TrichordError: There are no annotations, or the model or the store lacks a modality.
    """
    if fusion not in FUSIONS:
        raise TrichordError(f"unknown fusion rule '{fusion}'; expected {' or '.join(FUSIONS)}")
    if not 0 < audio_window_s < math.inf:
        raise TrichordError(
            f"the audio window of {audio_window_s} s is invalid; give a length above 0 s (the published one is 8 s)"
        )
    if subject.given is not None:
        yield from _given_videos(subject.given, directions, fusion)
    else:
        yield from _store_videos(subject, collection, split, directions, fusion, audio_window_s, text_encoder)


def _store_videos(
    subject: Subject,
    collection: str,
    split: str,
    directions: list[Direction],
    fusion: str,
    audio_window_s: float,
    text_encoder: str,
) -> Iterator[StepVideo]:
    modalities = tuple(dict.fromkeys(m for d in directions for m in d.modalities))
    annotated = annotated_videos(subject, collection, split, modalities)
    texts = step_texts(subject, annotated.tasks, text_encoder)
    seen = tuple(m for m in modalities if m != "text")
    for task, video, item, num_seconds, truth in annotated.videos:
        parts = {d.code: np.zeros((0, len(texts[task])), np.float32) for d in directions}
        there = {d.code: np.zeros(0, bool) for d in directions}
        for seconds in blocks(num_seconds):
            vectors = {m: embed_seconds(subject, item, seconds, num_seconds, m, audio_window_s) for m in seen}
            for d in directions:
                scores, valid = _scores(texts[task], vectors, d, fusion)
                parts[d.code] = np.concatenate([parts[d.code], scores])
                there[d.code] = np.concatenate([there[d.code], valid])
        yield StepVideo(video, task, _whole(parts, there), truth)


@dataclass(frozen=True, eq=False)
class AnnotatedVideos:
    """The annotated videos of a split of a store.

    Attributes:
        videos: Task, id, number of the item, number T of seconds, and annotations (T, K), bool, of each video.
        tasks: Number of the item whose captions are the K steps of each task.
    """

    videos: list[tuple[str, str, int, int, np.ndarray]]
    tasks: dict[str, int]


def store_notes(subject: Subject, collection: str, split: str) -> list[str]:
    """Return notes on the annotated videos of a store, for example on steps after the end of the features of a video."""
    store = subject.store
    assert store is not None
    spans, tasks = read_annotations(store, collection), step_items(store, collection)
    items = {store.video_id(int(i)): int(i) for i in store.select(collection, split)}
    beyond = {
        (task, video): lost
        for (task, video), spans_of_video in spans.items()
        if video in items and task in tasks
        and (lost := steps_beyond(spans_of_video, math.ceil(store.duration_s(items[video]))))
    }  # fmt: skip
    return beyond_note(len({video for _, video in beyond}), sum(beyond.values()))


def annotated_videos(subject: Subject, collection: str, split: str, modalities: tuple[str, ...]) -> AnnotatedVideos:
    """Return the annotated videos of a split.

    Args:
        subject: Model on a store.
        collection: Collection of the store.
        split: Split of the collection.
        modalities: Required modalities.

    Raises:
        TrichordError: There are none, or the store lacks a modality.
    """
    store, settings = subject.store, subject.settings
    assert store is not None and settings is not None
    where = f"{collection}/{split}"
    spans, tasks = read_annotations(store, collection), step_items(store, collection)
    items = {store.video_id(int(i)): int(i) for i in store.select(collection, split)}
    wanted = [(task, video) for task, video in spans if video in items and task in tasks]
    if not wanted:
        raise TrichordError(
            f"{store.path}: contains no annotated steps of {where}; `trichord import` adds those of crosstask, mining-youtube "
            "and world-steps"
        )
    # `step_texts` computes missing text embeddings.
    needed = tuple(m for m in modalities if m != "text" or settings.text == "words")
    require_modalities(store, needed, where, settings)
    videos = []
    for task, video in wanted:
        num_seconds = math.ceil(store.duration_s(items[video]))
        truth = truth_matrix(spans[task, video], num_seconds, store.num_captions(tasks[task]))
        videos.append((task, video, items[video], num_seconds, truth))
    return AnnotatedVideos(videos, {task: tasks[task] for task, _ in wanted})


def blocks(num_seconds: int) -> Iterator[np.ndarray]:
    """Yield the seconds of a video in blocks that are embedded together."""
    for begin in range(0, num_seconds, BLOCK_S):
        yield np.arange(begin, min(begin + BLOCK_S, num_seconds))


def embed_seconds(
    subject: Subject, item: int, seconds: np.ndarray, num_seconds: int, modality: str, audio_window_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Embed seconds of a video.

    Args:
        subject: Model on a store.
        item: Number of the video.
        seconds: Seconds (T,) to embed.
        num_seconds: Length of the video, in seconds.
        modality: Modality.
        audio_window_s: Length of the sound of a second, in seconds.

    Returns:
        Embeddings (T, D), and a mask (T,) of the seconds that have the modality.
    """
    store, model, settings = subject.store, subject.model, subject.settings
    assert store is not None and model is not None and settings is not None
    begins, ends = seconds.astype(np.float64), seconds + SECOND
    if modality == "audio":
        begins = np.maximum(0.0, seconds - audio_window_s / 2)
        ends = np.minimum(float(num_seconds), seconds + audio_window_s / 2)
    clips = Clips(np.full(len(seconds), item, np.int64), begins, ends, NO_SPANS * len(seconds))
    frames = math.ceil(audio_window_s * FRAMES_HZ)
    embeddings, valid = embed_clips(model, store, clips, (modality,), frames, settings)
    return embeddings[modality].numpy(), valid[modality]


def step_texts(subject: Subject, tasks: dict[str, int], text_encoder: str = "") -> dict[str, np.ndarray]:
    """Embed the steps of tasks.

    A model that reads text embeddings uses those of the store. If the steps have none, the encoder computes them.

    Args:
        subject: Model on a store.
        tasks: Number of the item whose captions are the steps, by task.
        text_encoder: Encoder of step texts. '' uses the encoder that is recorded in the store.

    Returns:
        Embeddings (K, D) by task, with zeros for a step without a known word.
    """
    store, model, settings = subject.store, subject.model, subject.settings
    assert store is not None and model is not None and settings is not None
    counts = {task: store.num_captions(item) for task, item in tasks.items()}
    ends = np.cumsum(list(counts.values()))[:-1]
    item = np.repeat(np.array(list(tasks.values()), np.int64), list(counts.values()))
    if settings.text == "embeddings" and not _have_rows(store, list(tasks.values())):
        said = [store.caption_text(i, k) for task, i in tasks.items() for k in range(counts[task])]
        rows = embed_texts(subject, said, "step texts", text_encoder)
        return dict(zip(tasks, np.split(rows, ends), strict=True))
    steps = [np.array([k]) for count in counts.values() for k in range(count)]
    clips = Clips(item, np.zeros(len(item)), np.zeros(len(item)), steps)
    embeddings, valid = embed_clips(model, store, clips, ("text",), 1, settings)
    rows = np.where(valid["text"][:, None], embeddings["text"].numpy(), np.float32(0))
    return dict(zip(tasks, np.split(rows, ends), strict=True))


def _have_rows(store: Store, items: list[int]) -> bool:
    stream = EMBEDDING_STREAMS["text"]
    return stream in store.streams and bool(store.has(stream)[items].all())


def _given_videos(given: Embedded, directions: list[Direction], fusion: str) -> Iterator[StepVideo]:
    if lacking := [name for name in (TASK, STEP) if name not in given.labels]:
        raise TrichordError(
            f"{given.source}: has no labels/{lacking[0]}; clips must be seconds with the labels task and step"
        )
    task_of_text = given.labels[TASK][given.text_clip]
    clips: dict[tuple[str, str], list[int]] = {}
    for i in np.argsort(given.start_s, kind="stable").tolist():
        clips.setdefault((str(given.labels[TASK][i]), str(given.videos[i])), []).append(i)
    for (task, video), mine in sorted(clips.items(), key=lambda entry: min(entry[1])):  # in the order of the file
        steps = np.flatnonzero(task_of_text == task)
        if not len(steps):
            raise TrichordError(
                f"{given.source}: has no step texts of task '{task}'; every task needs its steps as texts"
            )
        truth = np.zeros((len(mine), len(steps)), bool)
        for row, i in enumerate(mine):
            for number in str(given.labels[STEP][i]).split():
                if not number.isdecimal() or not 1 <= int(number) <= len(steps):
                    raise TrichordError(
                        f"{given.source}: labels/step of clip '{given.ids[i]}' is '{number}', not a number from 1 to "
                        f"{len(steps)}"
                    )
                truth[row, int(number) - 1] = True
        vectors = {m: (given.embeddings[m][mine], given.valid[m][mine]) for m in given.embeddings if m != "text"}
        scores_of = {d.code: _scores(given.embeddings["text"][steps], vectors, d, fusion) for d in directions}
        scores = _whole(
            {code: s for code, (s, _) in scores_of.items()}, {code: v for code, (_, v) in scores_of.items()}
        )
        yield StepVideo(video, task, scores, truth)


def given_notes(given: Embedded) -> list[str]:
    """Return notes on a file whose rows may not be seconds: rows without times, or not one second apart."""
    if TASK not in given.labels:
        return []
    starts: dict[tuple[str, str], list[float]] = {}
    for task, video, start in zip(
        given.labels[TASK].tolist(), given.videos.tolist(), given.start_s.tolist(), strict=True
    ):
        starts.setdefault((task, video), []).append(start)
    steps = {key: np.diff(np.sort(times)) for key, times in starts.items() if len(times) > 1}
    untimed = [key for key, step in steps.items() if not step.any()]
    apart = [key for key, step in steps.items() if step.any() and (np.abs(step - 1) > NEAR_S).any()]
    notes = []
    if untimed:
        problem = f"{len(untimed):,} of {len(starts):,} videos have no start_s, first '{untimed[0][1]}'"
        notes.append(f"{problem}: rows count as consecutive seconds in the order of the file")
    if apart:
        middle = float(np.median(np.concatenate([steps[key] for key in apart])))
        problem = f"rows of {len(apart):,} of {len(starts):,} videos are not 1 s apart"
        problem += f" (median {middle:g} s, first '{apart[0][1]}')"
        notes.append(f"{problem}: each row counts as a second, so figures are not comparable to those of seconds")
    return notes


def _scores(texts: np.ndarray, vectors: Vectors, direction: Direction, fusion: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores (T, K), with zeros for seconds without any modality, and a mask (T,) of the other seconds."""
    queries = unit(texts) if fusion == "mean_normalized" else texts
    total = np.zeros((len(vectors[direction.target[0]][0]), len(texts)), np.float32)
    count = np.zeros(len(total))
    for modality in direction.target:
        rows, valid = vectors[modality]
        rows = unit(rows) if fusion == "mean_normalized" else rows
        total[valid] += rows[valid] @ queries.T
        count += valid
    if fusion == "mean_normalized":
        total /= np.maximum(count, 1)[:, None].astype(np.float32)
    return total, count > 0


def _whole(scores: dict[str, np.ndarray], there: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the scores of directions in which a second can be scored. Other seconds get the lowest score of the video."""
    return {
        code: np.where(there[code][:, None], values, values[there[code]].min())
        for code, values in scores.items()
        if there[code].any() and values.size
    }
