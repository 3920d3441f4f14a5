"""Simulate the time of each stage with W workers from the times of one worker.

Extraction and the frozen pass are simulated event by event, training step by step, and evaluation in closed form. Inputs and
outputs are plain numbers; `scaling_times.py` measures them.

The rules are those of the code: one driver that hashes ahead, leases, and commits in the order of the plan
(`extraction.driver`, `extraction.engines`, `extraction.ray_engine`); parts that processes compute in turn, their own first
(`data.frozen_parts`); a loss on the gathered batch, of which every process computes a share (`losses.combined`); ranks on
the main process.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, log

import numpy as np

READ_AHEAD, HASH_THREADS = 8, 2  # `extraction.plan`
FIRST_WAVE, MOST_WAVE = 64, 4096  # `extraction.ray_engine`
MOST_AT_ONCE, SHARD_BYTES = 4096, 256 << 20  # `extraction.driver`
BLOCK, MOST_PARTS = 256, 4096  # `data.frozen_parts`


@dataclass(frozen=True)
class Network:
    """Assumed speeds.

    Attributes:
        files_gb_s: Gigabytes per second of the shared file system, for all nodes together.
        node_gb_s: Gigabytes per second that a node sends.
        latency_s: Seconds per message.
    """

    files_gb_s: float = 10 / 8
    node_gb_s: float = 25 / 8
    latency_s: float = 50e-6

    def all_reduce_s(self, num_bytes: float, workers: int) -> float:
        """Return the seconds of a ring all-reduce: each worker sends 2 (W - 1) messages of 1 / W of the bytes."""
        return self._ring_s(num_bytes, workers, 2)

    def all_gather_s(self, num_bytes: float, workers: int) -> float:
        """Return the seconds of a ring all-gather of W - 1 messages; `num_bytes` counts all processes together."""
        return self._ring_s(num_bytes, workers, 1)

    def _ring_s(self, num_bytes: float, workers: int, rounds: int) -> float:
        return rounds * (workers - 1) * (self.latency_s + num_bytes / workers / (self.node_gb_s * 1e9))


@dataclass(frozen=True)
class Run:
    """A simulated run.

    Attributes:
        workers: Number of workers.
        seconds: Time of the run.
        parts: Seconds by name: for extraction and the frozen pass, how long each shared resource was busy; for training and
            evaluation, the parts of a step or a run.
        order: Items in the order in which they were completed.
    """

    workers: int
    seconds: float
    parts: dict[str, float] = field(default_factory=dict)
    order: Sequence[int] = ()

    def efficiency(self, one: Run) -> float:
        """Return the efficiency relative to one worker: 1 if W workers take 1 / W of the time."""
        return one.seconds / (self.workers * self.seconds)

    @property
    def worker_hours(self) -> float:
        return self.workers * self.seconds / 3600


def crossing(runs: Sequence[Run], level: float) -> float | None:
    """Return the number of workers at which the efficiency falls below `level`, or None if it does not.

    The value is interpolated between two runs in the logarithm.
    """
    shares = [run.efficiency(runs[0]) for run in runs]
    for (before, a), (after, b) in zip(
        zip(runs, shares, strict=True), list(zip(runs, shares, strict=True))[1:], strict=False
    ):
        if a >= level > b:
            at = (a - level) / (a - b)
            return float(np.exp((1 - at) * log(before.workers) + at * log(after.workers)))
    return None


# ---- extraction


@dataclass(frozen=True)
class Extraction:
    """Times of extraction in seconds.

    Attributes:
        command_s: From the start of the command to the first lease.
        start_s: Until a worker has loaded its encoders.
        hash_s: Hashing the content of one video, in one of the two hashing threads.
        lease_s, lease_part_s: A lease by the driver; additional time for each part in the store.
        outcome_s: Processing of a worker's result by the driver.
        commit_s, commit_item_s: A commit; additional time for each item in it.
        reopen_item_s, reopen_part_s: Reading the store again for a commit, for each item and each part in it.
        task_s: Scheduling of a task on the cluster (Ray).
        file_bytes, item_bytes: Size of a video, and of its item in the store.
        reads: Number of times that the bytes of a video cross the network: for hashing, pictures and sound.
    """

    command_s: float = 0.0
    start_s: float = 0.0
    hash_s: float = 0.0
    lease_s: float = 0.0
    lease_part_s: float = 0.0
    outcome_s: float = 0.0
    commit_s: float = 0.0
    commit_item_s: float = 0.0
    reopen_item_s: float = 0.0
    reopen_part_s: float = 0.0
    task_s: float = 0.0
    file_bytes: float = 0.0
    item_bytes: float = 1.0
    reads: int = 3


class _Driver:
    """The process that leases and commits, and what it waits for. `now` is its clock."""

    def __init__(self, times: Extraction, videos: Sequence[float], workers: int, network: Network) -> None:
        self.times, self.videos, self.network = times, videos, network
        self.now = times.command_s
        self.free = [self.now + times.start_s] * workers
        self.under_way: list[tuple[float, int]] = []  # (end, video)
        self.threads = [0.0] * HASH_THREADS
        self.asked: list[float] = []  # when each video was requested
        self.files_s = 0.0  # time until which the file system is busy
        self.finished = bytearray(len(videos))
        self.head = self.ready = self.num_parts = 0
        self.order: list[int] = []
        self.parts = dict.fromkeys(("hashing", "leases", "outcomes", "commits", "file system"), 0.0)

    @property
    def left(self) -> int:
        return len(self.videos) - len(self.asked)

    def draw(self) -> int:
        """Hash and lease the next video."""
        number = len(self.asked)
        self.asked.append(self.now)
        begin = max(heapq.heappop(self.threads), self.asked[max(number - READ_AHEAD, 0)])
        heapq.heappush(self.threads, begin + self.times.hash_s)
        self.parts["hashing"] += self.times.hash_s / HASH_THREADS
        lease_s = self.times.lease_s + self.times.lease_part_s * self.num_parts
        self.parts["leases"] += lease_s
        self.now = max(self.now, begin + self.times.hash_s) + lease_s
        return number

    def give(self, number: int, at: float) -> None:
        """Give a video to the worker that is free first; its start also waits for the bytes."""
        start = max(heapq.heappop(self.free), at)
        carried_s = (self.times.reads * self.times.file_bytes + self.times.item_bytes) / (self.network.files_gb_s * 1e9)
        self._carry(start, carried_s)
        end = max(start + self.videos[number], self.files_s)
        heapq.heappush(self.free, end)
        heapq.heappush(self.under_way, (end, number))

    def take(self) -> None:
        """Process the next result; commit when a part is full."""
        end, number = heapq.heappop(self.under_way)
        self.now = max(self.now, end) + self.times.outcome_s
        self.parts["outcomes"] += self.times.outcome_s
        self.finished[number] = 1
        while self.head < len(self.asked) and self.finished[self.head]:
            self.head += 1
            self.ready += 1
            if self.ready * self.times.item_bytes >= SHARD_BYTES or self.ready >= MOST_AT_ONCE:
                self.commit()

    def commit(self) -> None:
        if not self.ready:
            return
        times, begin = self.times, self.now
        own_s = times.commit_s + times.commit_item_s * self.ready
        own_s += times.reopen_item_s * len(self.order) + times.reopen_part_s * self.num_parts
        self._carry(begin, 2 * self.ready * times.item_bytes / (self.network.files_gb_s * 1e9))
        self.now = max(begin + own_s, self.files_s)
        self.parts["commits"] += self.now - begin
        self.order += range(self.head - self.ready, self.head)
        self.num_parts += 1
        self.ready = 0

    def _carry(self, at: float, seconds: float) -> None:
        self.files_s = max(self.files_s, at) + seconds
        self.parts["file system"] += seconds

    def run(self, workers: int) -> Run:
        self.commit()
        return Run(workers, self.now, self.parts, self.order)


NO_WAIT = Network(files_gb_s=float("inf"), node_gb_s=float("inf"), latency_s=0.0)


def extract(times: Extraction, videos: Sequence[float], workers: int, network: Network = NO_WAIT) -> Run:
    """Simulate the local engine: persistent workers with two waiting tasks each.

    Args:
        videos: Worker seconds of each video.
    """
    driver = _Driver(times, videos, workers, network)
    while driver.left or driver.under_way:
        while driver.left and len(driver.under_way) < 2 * workers:
            driver.give(driver.draw(), driver.now)
        driver.take()
    return driver.run(workers)


def extract_on_ray(
    times: Extraction, videos: Sequence[float], workers: int, network: Network = NO_WAIT, most_wave: int = MOST_WAVE
) -> Run:
    """Simulate waves of tasks with new actors each; the next wave is prepared while one is processed."""
    driver = _Driver(times, videos, workers, network)
    wave = [driver.draw() for _ in range(min(driver.left, max(FIRST_WAVE, 4 * workers)))]
    driver.parts["actors' start"] = 0.0
    while wave:
        driver.parts["actors' start"] += times.start_s
        driver.free = [driver.now + times.start_s] * workers
        begin = driver.now
        for place, number in enumerate(wave):
            driver.give(number, begin + times.task_s * (place + 1))
        ahead: list[int] = []
        for _ in wave:
            driver.take()
            ahead += [driver.draw() for _ in range(min(2, most_wave - len(ahead), driver.left))]
        wave = ahead or [driver.draw() for _ in range(min(driver.left, most_wave))]
    return driver.run(workers)


# ---- the frozen pass


@dataclass(frozen=True)
class Frozen:
    """Times of the frozen pass.

    Attributes:
        start_s: Until a process has read the model.
        list_video_s: Listing one video, on every process.
        sync_s: Writing a part to disk.
        lease_s: One attempt to lease a part.
        poll_s: Last wait of the other processes.
        block_bytes: Bytes read and written for a block.
    """

    start_s: float = 0.0
    list_video_s: float = 0.0
    sync_s: float = 0.0
    lease_s: float = 0.0
    finish_s: float = 0.0
    poll_s: float = 0.0
    block_bytes: float = 0.0


def frozen_pass(
    times: Frozen, blocks: Sequence[float], workers: int, num_videos: int = 0, network: Network = NO_WAIT
) -> Run:
    """Simulate the frozen pass. Each process computes its share of the parts, and then remaining parts of others.

    Args:
        blocks: Processor seconds of each block of 256 clips.
    """
    per_part = ceil(len(blocks) / MOST_PARTS)
    part_s = [sum(blocks[at : at + per_part]) for at in range(0, len(blocks), per_part)]
    num_parts = len(part_s)
    ready_s = times.start_s + times.list_video_s * num_videos
    first = [num_parts * k // workers for k in range(workers)]
    plans = [iter([*range(f, num_parts), *range(f)]) for f in first]
    taken, order = bytearray(num_parts), []
    processes = [(ready_s, k) for k in range(workers)]
    files_s = end_s = ready_s
    carried_s = per_part * times.block_bytes / (network.files_gb_s * 1e9)
    while processes:
        now, k = heapq.heappop(processes)
        for part in plans[k]:
            now += times.lease_s
            if not taken[part]:
                taken[part] = 1
                order.append(part)
                files_s = max(files_s, now) + carried_s
                now = max(now + part_s[part], files_s) + times.sync_s
                heapq.heappush(processes, (now, k))
                break
        end_s = max(end_s, now)
    seconds = end_s + times.finish_s + (times.poll_s if workers > 1 else 0.0)
    parts = {"listing on every process": ready_s, "file system": num_parts * carried_s}
    parts["last parts"] = end_s - ready_s - (sum(part_s) + num_parts * times.sync_s) / workers
    parts["finish"] = seconds - end_s
    return Run(workers, seconds, parts, order)


# ---- training


@dataclass(frozen=True)
class Training:
    """Processor seconds of one process; B is the batch of all processes together.

    Attributes:
        clip_s: Forward and backward pass of a clip. Divided.
        shared_clip_s: Additional time per clip with several processes, for shared batch norm.
        loss_s: (c0, c1, c2): c0 + c1 B + c2 B^2 for the loss of the whole batch by one process, forward and backward.
        loss_whole: The share of it that every process computes; the rest is divided.
        step_s: Optimizer, gradient norm, and drawing of the batch. On every process.
        fit_s, digest_s, refit_every: A k-means fit, the check of agreement after it, and steps between fits. On every process.
        read_clip_s: Reading a clip. Divided, and concurrent if a second core is free.
        jitter: Step times of one process relative to their mean.
        forward_bytes, backward_bytes: Bytes per clip that are gathered (forward) and summed (backward).
        gradient_bytes: Bytes of the gradients of all trained weights.
        buckets, sums, gathers: Collectives per step: gradients, small sums, small gathers.
        checkpoint_s, steps_per_checkpoint: Checkpoints by the main process, while the others wait.
    """

    clip_s: float
    loss_s: tuple[float, float, float] = (0.0, 0.0, 0.0)
    loss_whole: float = 1.0
    step_s: float = 0.0
    fit_s: float = 0.0
    digest_s: float = 0.0
    refit_every: int = 20
    read_clip_s: float = 0.0
    shared_clip_s: float = 0.0
    jitter: Sequence[float] = (1.0,)
    forward_bytes: float = 0.0
    backward_bytes: float = 0.0
    gradient_bytes: float = 0.0
    buckets: int = 0
    sums: int = 0
    gathers: int = 0
    checkpoint_s: float = 0.0
    steps_per_checkpoint: int = 1


def train_step(times: Training, workers: int, batch: int, network: Network = NO_WAIT, *, draws: int = 400) -> Run:
    """Simulate a step of W processes, which ends when the slowest ends; return the mean of `draws` steps."""
    rng = np.random.default_rng(workers)
    clips = ceil(batch / workers)
    drawn = rng.choice(np.asarray(times.jitter), (draws, workers)).max(1).mean() if len(times.jitter) > 1 else 1.0
    clip_s = times.clip_s + times.read_clip_s
    shared_s = times.shared_clip_s if workers > 1 else 0.0
    mine = clips * (clip_s + shared_s)
    c0, c1, c2 = times.loss_s
    parts = {
        "clips": batch / workers * clip_s,
        "uneven parts": (clips - batch / workers) * (clip_s + shared_s),
        "slowest process": mine * (drawn - 1),
        "loss": (c0 + c1 * batch + c2 * batch**2) * (times.loss_whole + (1 - times.loss_whole) / workers),
        "k-means": times.fit_s / times.refit_every,
        "agreement": times.digest_s / times.refit_every if workers > 1 else 0.0,
        "optimizer": times.step_s,
        "checkpoint": times.checkpoint_s / times.steps_per_checkpoint,
        "gathers": 0.0,
        "gradients": 0.0,
        "batch norm": batch / workers * shared_s,
    }
    if workers > 1:
        parts["gathers"] = network.all_gather_s(times.forward_bytes * batch, workers)
        parts["gathers"] += network.all_reduce_s(times.backward_bytes * batch, workers)
        parts["gathers"] += times.gathers * network.all_gather_s(8 * workers, workers)
        parts["gradients"] = network.all_reduce_s(times.gradient_bytes, workers)
        parts["gradients"] += max(times.buckets - 1, 0) * network.all_reduce_s(0, workers)
        parts["batch norm"] += times.sums * network.all_reduce_s(8192, workers)
    return Run(workers, sum(parts.values()), parts)


# ---- evaluation


@dataclass(frozen=True)
class Evaluation:
    """Times of an evaluation.

    Attributes:
        start_s: Start of a process.
        clip_s: Embedding a clip.
        pair_s: Comparing one query with one gallery item, in all directions.
        clip_bytes: Bytes of the embeddings of a clip.
    """

    clip_s: float
    pair_s: float = 0.0
    clip_bytes: float = 0.0
    start_s: float = 0.0


def evaluate(times: Evaluation, num_clips: int, workers: int, network: Network = NO_WAIT) -> Run:
    """Simulate an evaluation: embedding is divided in batches of 64 clips, and the main process computes the ranks."""
    batches = ceil(num_clips / 64)
    parts = {
        "start": times.start_s,
        "clips": num_clips / workers * times.clip_s,
        "uneven parts": (min(64 * ceil(batches / workers), num_clips) - num_clips / workers) * times.clip_s,
        "gather": network.all_gather_s(times.clip_bytes * num_clips, workers) if workers > 1 else 0.0,
        "ranks on the main process": times.pair_s * num_clips**2,
    }
    return Run(workers, sum(parts.values()), parts)
