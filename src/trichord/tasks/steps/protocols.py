"""Protocols that localize the steps of a task in a video: CrossTask, Mining YouTube, and the steps of the built-in world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.contributions import aligned, ratio_contributions
from trichord.files.arrays import text_array
from trichord.parallel import on_main
from trichord.tasks.protocol import Options, Outcome, Protocol, Row
from trichord.tasks.steps.measure import (
    TaskRecalls,
    aligned_chance,
    aligned_hits,
    best_second_chance,
    best_second_hits,
    best_step_shares,
    recall_mean_over_videos,
    recall_pooled_per_task,
    task_average_precision,
    task_precision_chance,
)
from trichord.tasks.steps.scores import (
    StepVideo,
    collection_and_split,
    given_notes,
    step_directions,
    step_videos,
    store_notes,
)
from trichord.tasks.steps.segments import BACKGROUND, Overlaps, align_transcript, overlaps, transcript_of
from trichord.tasks.subject import Subject

POOLED, PER_VIDEO = "recall, pooled per task", "recall, mean over videos"
BEST = "best second of each step"
BEST_STEP = "annotated seconds whose best step is right"
MAP = "mean average precision, mean over tasks"
CHANCE_DRAWS = 4000  # total number of alignments of random scores; each video has at least MIN_DRAWS
MIN_DRAWS = 4
SEGMENTS, VIDEOS, FRAMES = "mean over segments", "mean over videos", "all frames"
Hits = Callable[[np.ndarray, np.ndarray], np.ndarray]
Recall = Callable[[np.ndarray, np.ndarray, list[str]], TaskRecalls]
RECALLS: dict[str, Recall] = {POOLED: recall_pooled_per_task, PER_VIDEO: recall_mean_over_videos}


@dataclass(frozen=True)
class _Steps:
    """The videos (COLLECTION/SPLIT, or '' if the user chooses them) and the measures of a protocol."""

    clips: str = ""
    recalls: tuple[str, ...] = (PER_VIDEO, POOLED)
    by_best: bool = True
    precision: bool = False
    segments: bool = False
    seconds: bool = False
    missing: Literal["drop", "miss"] = "drop"


def _run(how: _Steps, protocol: Protocol, subject: Subject, options: Options) -> Outcome:
    protocol.refuse_clips(options.on)
    if options.windows is not None:
        raise TrichordError(f"benchmark {protocol.name} scores seconds, not windows; leave --windows out")
    name = protocol.row_name(options)
    collection, split = collection_and_split(protocol, subject, options)
    subject.require_collection(collection, split)
    directions = step_directions(subject, collection, options.directions, name)
    fusion, missing = options.fusion_of(subject), options.missing_or(how.missing)
    window_s, encoder = options.audio_window_s, options.text_encoder
    videos = list(step_videos(subject, collection, split, directions, fusion, window_s, encoder))
    codes = [direction.code for direction in directions]
    outcome = on_main(lambda: localization_outcome(name, videos, codes, fusion, missing, how))
    with_steps = [video for video in videos if video.truth.any()]
    sizes = {"videos": len(with_steps), "tasks": len({video.task for video in with_steps})}
    noted = store_notes(subject, collection, split) if subject.given is None else given_notes(subject.given)
    rows_noted = [f"{name}: {note}" for note in noted]
    outcome.notes = [*protocol.size_notes(sizes), *rows_noted, *outcome.notes]
    return outcome


def localization_outcome(
    name: str, videos: list[StepVideo], codes: list[str], fusion: str, missing: str, how: _Steps
) -> Outcome:
    """Return the rows of scored videos, and arrays with a value per video.

    The arrays are `NAME/video`, `NAME/task` and `NAME/present` (annotated steps), `NAME/DIRECTION/aligned` and
    `NAME/DIRECTION/best` (steps that are hit, NaN for videos that are left out), and, with segments, `/iou`, `/iod` and `/mof`.

    Args:
        name: Name of the rows.
        videos: Scored videos.
        codes: Codes of the directions.
        fusion: Rule by which several modalities are combined.
        missing: Policy for videos in which no second has the modalities of a direction: `drop` leaves them out, `miss` counts
            their steps as errors.
        how: Measures.

    Raises:
        TrichordError: No video can be scored in a direction, or none shows a step.
    """
    present = np.array([video.truth.any(axis=0).sum() for video in videos], np.int64)
    outcome = Outcome(
        arrays={
            f"{name}/video": text_array([video.video for video in videos], "the video ids"),
            f"{name}/task": text_array([video.task for video in videos], "the tasks"),
            f"{name}/present": present,
        }
    )
    if few := [v.video for v in videos if v.truth.shape[0] < v.truth.shape[1]]:
        outcome.notes.append(
            f"{name}: {len(few):,} videos with fewer seconds than steps are left out, first '{few[0]}'"
        )
        videos = [v for v in videos if v.truth.shape[0] >= v.truth.shape[1]]
    if not any(video.truth.any() for video in videos):
        raise TrichordError(f"benchmark {name}: no video shows a step of its task; check the annotations")
    place = {key: i for i, key in enumerate(zip(*(outcome.arrays[f"{name}/{n}"].tolist() for n in ("task", "video")),
                                                strict=True))}  # fmt: skip
    rows_of = np.array([place[video.task, video.video] for video in videos], np.int64)
    for code in codes:
        scored = [video for video in videos if code in video.scores]
        if lost := len(videos) - len(scored):
            treatment = "counted as errors" if missing == "miss" else "left out"
            outcome.notes.append(f"{name}: {lost:,} videos lack a modality of {code} and are {treatment} ({missing})")
        if not scored:
            raise TrichordError(f"benchmark {name}: no video has the modalities of {code}, so it cannot be scored")
        taken = videos if missing == "miss" else scored
        mine = np.array([missing == "miss" or code in video.scores for video in videos])
        scope = f"{code}, {fusion}"
        outcome.rows += _recall_rows(name, code, scope, taken, how, outcome, rows_of[mine])
        if how.precision:
            outcome.rows.append(_precision_row(name, code, scope, scored, outcome))
        places = rows_of[[code in video.scores for video in videos]]
        if how.seconds:
            num = len(outcome.arrays[f"{name}/video"])
            outcome.rows.append(_seconds_row(name, code, scope, scored, places, num))
        if how.segments:
            outcome.rows += _segment_rows(name, code, scope, scored, outcome, places)
    return outcome


def _recall_rows(
    name: str, code: str, scope: str, videos: list[StepVideo], how: _Steps, outcome: Outcome, places: np.ndarray
) -> list[Row]:
    tasks = [video.task for video in videos]
    present = np.array([video.truth.any(axis=0).sum() for video in videos], np.float64)
    rng, draws = np.random.default_rng(0), max(MIN_DRAWS, CHANCE_DRAWS // len(videos))
    ways: dict[str, tuple[Hits, Callable[[np.ndarray], np.ndarray]]] = {
        "aligned": (aligned_hits, lambda truth: aligned_chance(truth, draws, rng)),
        "best": (best_second_hits, best_second_chance),
    }
    rows = []
    for way, (hits_of, chance_of) in ways.items():
        hits = np.array([hits_of(v.scores[code], v.truth).sum() if code in v.scores else 0.0 for v in videos])
        chance = np.array([chance_of(v.truth).sum() if code in v.scores else 0.0 for v in videos])
        kept = np.full(len(outcome.arrays[f"{name}/video"]), np.nan)
        kept[places] = hits
        outcome.arrays[f"{name}/{code}/{way}"] = kept
        if way == "best" and not how.by_best:
            continue
        for measure in how.recalls:
            recall = RECALLS[measure](hits, present, tasks)
            by_chance = RECALLS[measure](chance, present, tasks).mean
            title = measure if way == "aligned" else f"{measure}, {BEST}"
            row = Row(name, scope, title, recall.mean, recall.num_videos, by_chance)
            rows.append(
                row.over(aligned(_each(measure, hits, present, tasks), places, len(kept)), f"{name}/video", shares=True)
            )
            per_task = dict(zip(recall.tasks, recall.recalls.tolist(), strict=True))
            if len(per_task) < recall.num_videos:
                outcome.details.setdefault("tasks", {}).setdefault(scope, {})[title] = per_task
    return rows


def _each(measure: str, hits: np.ndarray, present: np.ndarray, tasks: list[str]) -> np.ndarray:
    """Return the contribution of each video (V,) to a recall. NaN for videos without an annotated step."""
    if measure == POOLED:
        return ratio_contributions(hits, present, tasks)
    shown = present > 0
    return ratio_contributions(np.where(shown, hits / np.maximum(present, 1), 0.0), shown, tasks)


def _precision_row(name: str, code: str, scope: str, videos: list[StepVideo], outcome: Outcome) -> Row:
    by_task: dict[str, list[StepVideo]] = {}
    for video in videos:
        by_task.setdefault(video.task, []).append(video)
    shown = {task: mine for task, mine in by_task.items() if any(video.truth.any() for video in mine)}
    values = [
        task_average_precision([video.scores[code] for video in mine], [video.truth for video in mine])
        for mine in shown.values()
    ]
    names = np.unique(outcome.arrays[f"{name}/task"])
    outcome.arrays[f"{name}/tasks"] = names
    chance = float(np.mean([task_precision_chance([video.truth for video in mine]) for mine in shown.values()]))
    row = Row(name, scope, MAP, float(np.mean(values)), sum(map(len, shown.values())), chance)
    each = aligned(np.array(values) / 100, np.searchsorted(names, list(shown)), len(names))
    return row.over(each, f"{name}/tasks", shares=True)


def _seconds_row(name: str, code: str, scope: str, videos: list[StepVideo], places: np.ndarray, num: int) -> Row:
    every = [best_step_shares(video.scores[code], video.truth) for video in videos]
    shares = np.concatenate(every)
    chance = np.concatenate([best_step_shares(np.zeros(video.truth.shape), video.truth) for video in videos])
    row = Row(name, scope, BEST_STEP, 100 * float(shares.mean()), len(shares), 100 * float(chance.mean()))
    each = ratio_contributions([shares.sum() for shares in every], [len(shares) for shares in every])
    return row.over(aligned(each, places, num), f"{name}/video", shares=True)


def _segment_rows(
    name: str, code: str, scope: str, videos: list[StepVideo], outcome: Outcome, places: np.ndarray
) -> list[Row]:
    kept, shown = [(p, v) for p, v in zip(places.tolist(), videos, strict=True) if v.truth.any()], []
    for _, video in kept:
        scores = video.scores[code]
        shown.append((segment_overlaps(scores, video.truth), segment_overlaps(np.zeros_like(scores), video.truth)))
    at, num = np.array([place for place, _ in kept]), len(outcome.arrays[f"{name}/video"])
    overlaps_of_videos = [pair[0] for pair in shown]
    per_video = {
        "iou": [one.iou.mean() for one in overlaps_of_videos],
        "iod": [one.iod.mean() for one in overlaps_of_videos],
        "mof": [one.num_right / one.num_frames for one in overlaps_of_videos],
    }
    outcome.arrays |= {f"{name}/{code}/{m}": aligned(values, at, num) for m, values in per_video.items()}
    chance = _segment_figures([pair[1] for pair in shown])
    return [
        Row(name, scope, measure, value, count, chance[measure][0]).over(
            aligned(each, at, num), f"{name}/video", shares=True
        )
        for measure, (value, count, each) in _segment_figures(overlaps_of_videos).items()
    ]


def _segment_figures(overlaps_of_videos: list[Overlaps]) -> dict[str, tuple[float, int, np.ndarray]]:
    """Return, for each measure, its value in percent, the number of averaged values, and the contributions of the videos."""
    figures: dict[str, tuple[float, int, np.ndarray]] = {}
    for measure, values in (("IoU", [f.iou for f in overlaps_of_videos]), ("IoD", [f.iod for f in overlaps_of_videos])):
        every, means = np.concatenate(values), np.array([v.mean() for v in values])
        by_segment = ratio_contributions([v.sum() for v in values], [len(v) for v in values])
        figures[f"{measure}, {SEGMENTS}"] = 100 * float(every.mean()), len(every), by_segment
        figures[f"{measure}, {VIDEOS}"] = 100 * float(means.mean()), len(values), means
    rights, lengths = [f.num_right for f in overlaps_of_videos], [f.num_frames for f in overlaps_of_videos]
    by_frame, shares = ratio_contributions(rights, lengths), np.array(rights) / np.array(lengths)
    figures[f"MoF, {FRAMES}"] = 100 * sum(rights) / sum(lengths), sum(lengths), by_frame
    figures[f"MoF, {VIDEOS}"] = 100 * float(shares.mean()), len(overlaps_of_videos), shares
    return figures


def segment_overlaps(scores: np.ndarray, truth: np.ndarray) -> Overlaps:
    """Divide a video according to its annotated transcript, and compare the segments with the annotated ones.

    The scores of the video are standardized, and background has the score 0. `align_transcript` gets the log-softmax over steps
    and background, with the same expected length for every entry.

    Args:
        scores: Scores (T, K).
        truth: Annotations (T, K), bool. If a second has several steps, the first one counts.

    Returns:
        The overlap of the segments.
    """
    labels = np.where(truth.any(axis=1), truth.argmax(axis=1), BACKGROUND)
    transcript, borders = transcript_of(labels)
    values = scores.astype(np.float64)
    values = (values - values.mean()) / (values.std() or 1.0)
    logits = np.concatenate([values, np.zeros((len(values), 1))], axis=1)  # the last column is the background
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    means = np.full(len(transcript), len(labels) / len(transcript))
    return overlaps(transcript, borders, align_transcript(log_probs[:, transcript], means))


def _protocol(how: _Steps, name: str, title: str, paragraph: str, needs: str, gives: str, **sizes: int) -> Protocol:
    return Protocol(name, title, "localization", paragraph, needs, gives, partial(_run, how), sizes, how.clips)


_SECONDS = (
    "Each second of a video is scored against each step text of its task. The sound of a second is a window of 8 s around it, cut "
    "at the ends of the video (--audio_window_s). "
)
_ALIGNED = (
    "Each step of the task is placed at a different second, in the order of the steps, with the highest sum of scores. It is hit "
    "if this second is annotated with it. Chance is the alignment of random scores. "
)
_OR_FILE = ", or embeddings of seconds with labels/task and labels/step, and of step texts."
_CROSSTASK = "The videos of `trichord import crosstask` in one of its layouts"
_SEGMENTS = (
    "For IoU, IoD and MoF, the annotated sequence of segments, including background, is aligned with the video by the Viterbi "
    "algorithm with Poisson-distributed lengths of equal mean. The n-th segment of the alignment is compared with the n-th "
    "annotated segment. Chance is the alignment of equal scores. "
)
_SEGMENT_ROWS = "IoU and IoD as means over segments and over videos, MoF over all frames and over videos"

PROTOCOLS: tuple[Protocol, ...] = (
    _protocol(
        _Steps("crosstask/test", precision=True), "crosstask", "CrossTask, recall of steps averaged per video",
        _SECONDS + _ALIGNED + "MCN divides hits by annotated steps in each video, and averages over the videos of a task and over "
        "tasks (recall, mean over videos). The code of CrossTask sums hits and steps over the videos of a task before the "
        "division (recall, pooled per task), which gives another figure. `best second of each step` ignores the order of steps "
        "(recall_frame of MCN), and ties have their expected value. For mean average precision, all seconds of the videos of a "
        "task are ranked for each annotated step; the figure is the mean over the steps of a task, then over tasks. Its chance "
        "is the exact expected value for a random order. Equal scores give the share of annotated seconds, which is smaller.",
        _CROSSTASK + _OR_FILE,
        "both recalls by alignment and by best second, mean average precision, per direction", tasks=18,
    ),
    _protocol(
        _Steps("crosstask/test", recalls=(POOLED,), by_best=False), "crosstask-original",
        "CrossTask, recall of steps pooled per task",
        _SECONDS + _ALIGNED + "Hits and annotated steps are summed over the videos of a task, then divided. The figure is the mean "
        "over tasks, as in the code of CrossTask.",
        _CROSSTASK + _OR_FILE, "recall, pooled per task, per direction", tasks=18,
    ),
    _protocol(
        _Steps("mining-youtube/test", recalls=(PER_VIDEO,), segments=True), "mining-youtube",
        "Mining YouTube, steps of egg dishes",
        _SECONDS + "Every video has its own steps, in the order in which it shows them. " + _ALIGNED + _SEGMENTS +
        "The authors publish formulas for IoU and IoD but no code, so the pairing and the means are choices of this benchmark.",
        "The videos of `trichord import mining-youtube`" + _OR_FILE,
        f"recall by alignment and by best second; {_SEGMENT_ROWS}", videos=250,
    ),
    _protocol(
        _Steps(recalls=(PER_VIDEO,), seconds=True), "world-steps", "Steps of the built-in world",
        _SECONDS + "These are the held-out videos of a rendered world, whose true steps and times are known. Each video is a task "
        "of its own. Its steps are equally long and fill it, so the order alone is informative, as chance shows. " + _ALIGNED +
        "In addition, each second is labelled with its best step, independent of other seconds.",
        "A store of a rendered world with its truth: `trichord import world-steps --root WORLD --store STORE`" + _OR_FILE,
        "recall by alignment and by best second; share of seconds whose best step is correct",
    ),
)  # fmt: skip
