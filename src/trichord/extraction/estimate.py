"""The report of a dry run: the jobs of the plan, counted, and the time they would take, estimated from a few samples."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trichord.errors import TrichordError
from trichord.extraction.choice import EncoderChoice
from trichord.extraction.plan import Job
from trichord.extraction.pool import Workers, outcome_of
from trichord.extraction.progress import clock
from trichord.extraction.task import Task
from trichord.media import choose_decoder, probe

SAMPLES = 3
SAMPLE_S = 10.0
PROBES = 100
_START_S = 4.0  # time for a worker process to load its encoders


def report(plan: Sequence[Job], choice: EncoderChoice, device: str, workers: int, encoders: str, store: Path) -> str:
    """Return lines for the user: how many items are to be extracted, exist already or failed, the hours of video, and the time.

    The time is estimated from the length of up to 100 files and from extracting the first 10 seconds of up to 3. Nothing is stored.
    """
    todo = [job for job in plan if job.status == "todo"]
    counts = Counter(job.status for job in plan)
    lines = [f"{len(todo)} of {len(plan)} items to extract into {store} (encoders: {encoders})"]
    renewed = "are in the store and will be checked again because of new captions or newer rules"
    for status, text in (
        ("present", "are in the store"),
        ("renew", renewed),
        ("failed", "failed before; use --retry CLASS to try them again"),
    ):
        if counts[status]:
            lines.append(f"{counts[status]} {text}")
    problems = [job for job in plan if job.status not in ("todo", "renew", "present", "failed")]
    lines += [f"{job.source.name}: {job.reason}" for job in problems[:10]]
    if len(problems) > 10:
        lines.append(f"... and {len(problems) - 10} more that cannot be used")
    if todo:
        lines.append(_times(todo, choice, device, workers))
    return "\n".join(lines)


def _times(todo: Sequence[Job], choice: EncoderChoice, device: str, workers: int) -> str:
    lengths_s = [_length_s(job) for job in _spread(todo, PROBES)]
    known = [length_s for length_s in lengths_s if length_s > 0]
    total_s = sum(known) / max(len(known), 1) * len(todo)
    spent_s = sampled_s = num_sampled = 0.0
    decoder = choose_decoder(choice.decoder, device)
    workers_ = Workers(choice, device, 1 if workers else 0, 1)
    try:
        with tempfile.TemporaryDirectory(prefix="trichord-") as folder:
            for number, job in enumerate(_spread(todo, SAMPLES)):
                key = f"{number:040d}:0"
                task = Task(
                    job.source, "train", key, "sample", Path(folder), captions=choice.captions, decoder=decoder,
                    sample_s=SAMPLE_S,
                )  # fmt: skip
                if number == 0:
                    outcome_of(workers_.submit(task), task.stall_s)  # the first task includes the start of the process
                    task = replace(task, key=f"{number:040d}:1")
                began = time.monotonic()
                outcome = outcome_of(workers_.submit(task), task.stall_s)
                if not outcome.kind:
                    spent_s += time.monotonic() - began
                    sampled_s += outcome.duration_s
                    num_sampled += 1
    finally:
        workers_.close(now=True)
    if not num_sampled:
        return "time: unknown, because none of the sampled files could be extracted"
    scale = total_s / sampled_s if total_s and sampled_s else len(todo) / num_sampled
    seconds = spent_s * scale / max(workers, 1) + _START_S
    return (
        f"{total_s / 3600:.2f} hours of video, about {clock(seconds)} with {max(workers, 1)} "
        f"worker{'s' if workers > 1 else ''} on {device} (measured on {num_sampled:.0f} samples)"
    )


def _length_s(job: Job) -> float:
    source = job.source
    path = source.video or source.audio
    if path is None:
        return 0.0
    try:
        duration_s = probe(path).duration_s
    except TrichordError:
        return 0.0
    end_s = duration_s if source.end_s is None else min(source.end_s, duration_s)
    return max(end_s - source.start_s, 0.0)


def _spread(jobs: Sequence[Job], count: int) -> list[Job]:
    """Return up to `count` jobs, evenly spread over the list."""
    if len(jobs) <= count:
        return list(jobs)
    return [jobs[i * len(jobs) // count] for i in range(count)]
