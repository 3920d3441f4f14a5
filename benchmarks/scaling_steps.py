"""Measure a training step, the frozen pass and an evaluation in one process, and run them in 1 and 2 real processes.

`Widths` describes a network and a batch: those of the paper, and small ones that two processes train here. A real step is that
of the training loop: encoding, loss on the gathered batch, backward pass, gradient norm, Adam and, from time to time, k-means
and the check that all processes agree.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
from scaling_model import Evaluation, Frozen, Training
from scaling_times import median_of, seconds_of
from torch import Tensor

from trichord.data.frozen_parts import BLOCK
from trichord.evaluation.ranks import retrieval_ranks
from trichord.layers.batch_norm import BatchNorm2d, set_over_processes
from trichord.losses import combined
from trichord.losses.clustering import ClusterMemory
from trichord.losses.combined import CombinedLoss
from trichord.losses.pairwise.mms import MaskedMarginSoftmax
from trichord.nn import MCN, Encoded
from trichord.parallel import digest
from trichord.training.memory import keep_freed_memory

MODALITIES = ("video", "audio", "text")
PAIRS = (("text", "video"), ("audio", "text"), ("audio", "video"))
DDP_BUCKET = 25 << 20
ITERATIONS = 20  # iterations of k-means in a refit: assumed


@dataclass(frozen=True)
class Widths:
    """A network and a batch.

    Attributes:
        clips: Clips per batch.
        train: Modalities that are trained; the others are given as embeddings.
    """

    video: int = 2048
    embed: int = 6144
    hidden: int = 1024
    channels: tuple[int, ...] = (128, 256, 512, 1024)
    frames: int = 1000
    clusters: int = 256
    queue: int = 40960
    clips: int = 4096
    train: tuple[str, ...] = MODALITIES

    def model(self) -> MCN:
        torch.manual_seed(0)
        made = MCN(self.video, self.embed, 300, self.hidden, audio_channels=self.channels, modalities=self.train)
        return made.train()

    def inputs(self, clips: int) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(clips)
        made = {
            "video": torch.rand(clips, self.video, generator=rng) / 45,
            "audio": 10 * torch.randn(clips, 40, self.frames, generator=rng) - 40,
            "text": 0.2 * torch.randn(clips, 20, 300, generator=rng),
        }
        return {m: made[m] for m in self.train} | (
            {"audio_frames": torch.full((clips,), self.frames)} if "audio" in self.train else {}
        )

    def frozen(self, clips: int) -> dict[str, Encoded]:
        rng = torch.Generator().manual_seed(1)
        rows = {m: torch.randn(clips, self.embed, generator=rng) / 80 for m in MODALITIES if m not in self.train}
        return {m: Encoded(e, e, None) for m, e in rows.items()}

    def loss(self, memory: ClusterMemory | None) -> CombinedLoss:
        return CombinedLoss(
            pairs=[pair for pair in PAIRS if set(pair) & set(self.train)],
            contrast=MaskedMarginSoftmax(0.001),
            cluster=self.train if memory else (), cluster_temperature=0.1, memory=memory, reconstruct=self.train,
        )  # fmt: skip

    def memory(self) -> ClusterMemory:
        return ClusterMemory(self.clusters, self.queue)


SMALL = Widths(256, 512, 128, (32, 64, 64, 128), 400, 32, 1920, 96)


class Step:
    """One step of a stage with this process's part of the batch; `clips` are those of this process."""

    def __init__(self, widths: Widths, clips: int, network: Any = None) -> None:
        self.widths, self.model = widths, widths.model()
        self.network = network(self.model) if network else self.model
        self.inputs, self.known = widths.inputs(clips), widths.frozen(clips)
        self.valid = {m: torch.ones(clips, dtype=torch.bool) for m in MODALITIES}
        self.memory = widths.memory()
        self.loss = widths.loss(self.memory)
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-4)

    def __call__(self) -> None:
        fits = self.memory.num_fits
        terms = self.loss(self.network(**self.inputs) | self.known, self.valid)
        self.optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        self.finish()
        if self.memory.num_fits != fits and dist.is_initialized():
            tensors = [*self.parameters, self.memory.queue, self.memory.centroids]
            digest(t for t in tensors if t is not None)

    def finish(self) -> None:
        float(torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None]))
        self.optimizer.step()


def there_and_back(step: Step) -> None:
    """Run forward and backward passes of the encoders alone, with gradients of ordinary size."""
    outputs = step.model(**step.inputs)
    step.optimizer.zero_grad(set_to_none=True)
    tensors = [t for out in outputs.values() for t in (out.embedding, out.reconstruction) if t is not None]
    torch.stack([t.square().mean() for t in tensors]).sum().backward()


def shared_norms(rank: int, widths: Widths, clips: int, repeats: int) -> float:
    """Return the additional processor seconds per clip of batch norm over two processes, compared with one process each."""
    keep_freed_memory()
    step, found = Step(widths, clips), {}
    for turn in range(repeats + 1):
        for over in (False, True):
            set_over_processes(step.model, over)
            dist.barrier()
            begin = time.process_time()
            there_and_back(step)
            if turn:
                found.setdefault(over, []).append((time.process_time() - begin) / clips)
    return median(found[True]) - median(found[False])


def loss_s(widths: Widths, size: int, repeats: int, part: int = 0) -> float:
    """Return the seconds of the loss on a batch of leaf tensors, forward and backward, without a k-means fit.

    The process computes `part` of the rows, or all of them.
    """
    memory = widths.memory()
    memory.centroids = torch.nn.functional.normalize(torch.randn(widths.clusters, widths.embed), dim=1)
    memory.refit_every = 10**9
    loss, here = widths.loss(memory), part or size
    known = widths.frozen(here)
    ours = {m: torch.randn(here, widths.embed, requires_grad=True) for m in widths.train}
    width = {"video": widths.video, "audio": widths.channels[-1], "text": widths.embed}
    heads = {m: torch.rand(here, width[m], requires_grad=True) for m in widths.train}
    outputs = {m: Encoded(ours[m], torch.rand(here, width[m]), heads[m]) for m in widths.train} | known
    valid = {m: torch.ones(here, dtype=torch.bool) for m in MODALITIES}
    others: dict[tuple[int, ...], Tensor] = {}

    def gathered(rows: Tensor, sizes: list[int]) -> Tensor:
        """Return a leaf tensor of all rows, as `gather_rows` does; the exchange is not part of this time."""
        if rows.shape not in others:
            others[rows.shape] = torch.cat([rows.detach()] * len(sizes))
        whole = others[rows.shape].to(rows.dtype)
        return whole.clone().requires_grad_() if rows.requires_grad else whole

    def one() -> None:
        loss(outputs, valid)["loss"].backward()

    if not part:
        return median_of(one, repeats)
    sizes = [part] * (size // part)
    changes = {"gather_rows": gathered, "rows_of_each": lambda *_: sizes, "process_index": lambda: 0,
               "sum_over_processes": lambda values: values}  # fmt: skip
    with ExitStack() as stack:
        for name, change in changes.items():
            stack.enter_context(patch.object(combined, name, change))
        return median_of(one, repeats)


def loss_times(widths: Widths, sizes: Sequence[int], repeats: int) -> tuple[tuple[float, float, float], float]:
    """Return (c0, c1, c2) of the loss of one process on the whole batch, and the share of it that each of eight computes."""
    seconds = [loss_s(widths, size, repeats) for size in sizes]
    eighth = loss_s(widths, sizes[-1], repeats, sizes[-1] // 8)
    whole = min(max((8 * eighth / seconds[-1] - 1) / 7, 0.0), 1.0)
    print(f"loss, {widths.train}: {list(zip(sizes, seconds, strict=True))}, share of one of eight {eighth:.4f}")
    if len(sizes) == 1:
        return (0.0, seconds[0] / sizes[0], 0.0), whole
    c2, c1 = np.linalg.lstsq(np.array([[n * n, n] for n in sizes]), np.array(seconds), rcond=None)[0]
    return (0.0, max(float(c1), 0.0), float(c2)), whole


def fit_s(widths: Widths, iterations: int) -> float:
    """Return the seconds of a k-means refit of the full queue: one pass is measured and multiplied by the number of passes."""
    memory = widths.memory()
    memory.max_iterations, memory.tolerance = 2, 0.0
    basis = torch.randn(64, widths.embed)
    memory._push(torch.randn(widths.queue, 64) @ basis)
    assert memory.queue is not None
    rows, start = memory.queue, memory.queue[: widths.clusters].clone()
    seconds = []
    for _ in range(2):
        memory.centroids = start
        seconds.append(seconds_of(lambda: memory._fit(rows)) / 3)
    return min(seconds) * (iterations + 1)


def training_times(widths: Widths, clips: Sequence[int], sizes: Sequence[int], repeats: int = 3) -> Training:
    """Measure one process with one core.

    Args:
        clips: Sizes of parts of a batch; the slope over them is the time of a clip.
    """
    from trichord.training.checkpoint import write_tensors

    keep_freed_memory()
    means, jitter = [], []
    for number in clips:
        step = Step(widths, number)
        seconds = [seconds_of(partial(there_and_back, step)) for _ in range(repeats + 1)][1:]
        means.append(median(seconds))
        jitter += [s / median(seconds) for s in seconds]
    clip_s, fixed_s = np.polyfit(clips, means, 1) if len(clips) > 1 else (means[0] / clips[0], 0.0)
    print(f"forward and backward, {widths.train}: {list(zip(clips, means, strict=True))}")
    step_s = max(float(fixed_s), 0.0) + median_of(step.finish, repeats)
    num_bytes = 4 * sum(p.numel() for p in step.parameters)
    queue_bytes = 4 * widths.queue * widths.embed
    some = torch.randn(25_000_000)
    digest_s = median_of(lambda: digest([some]), 3) * (num_bytes + queue_bytes) / 1e8
    path = Path("scaling-checkpoint.tmp")
    try:
        checkpoint_s = median_of(lambda: write_tensors(path, {"some": some}), 3) * (3 * num_bytes + queue_bytes) / 1e8
    finally:
        path.unlink(missing_ok=True)
    trained = len(widths.train) * widths.embed
    losses, whole = loss_times(widths, sizes, repeats)
    norms = sum(isinstance(m, BatchNorm2d) for m in step.model.modules())
    del step
    return Training(
        clip_s=float(clip_s), loss_s=losses, loss_whole=whole, step_s=step_s, fit_s=fit_s(widths, ITERATIONS),
        digest_s=digest_s, jitter=jitter, forward_bytes=4.0 * len(MODALITIES) * widths.embed + 3,
        backward_bytes=4.0 * trained, gradient_bytes=float(num_bytes), buckets=-(-num_bytes // DDP_BUCKET),
        sums=norms, gathers=norms + 8, checkpoint_s=checkpoint_s, steps_per_checkpoint=900_000 // 128,
    )  # fmt: skip


def frozen_times(widths: Widths, repeats: int = 3, clips: int = 32) -> tuple[Frozen, list[float]]:
    """Measure the frozen pass of the audio encoder; blocks of 256 clips are measured as `clips` and scaled."""
    import tempfile

    from bench_frozen import write_store

    from trichord.data.batches import TrainingClips
    from trichord.data.listing import clips_at, list_clips
    from trichord.data.reader import ClipReader
    from trichord.modalities.base import ReadingSettings

    model, audio = widths.model().eval(), ("audio",)
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "store")
        source = TrainingClips(store, store.select(), seed=0, videos_per_batch=24, clips_per_video=32, min_clip_s=1.0)
        reader = ClipReader(store, audio, ReadingSettings(audio_frames=widths.frames))
        list_s = median_of(lambda: list_clips(source)) / len(store)
        listing, blocks = list_clips(source), []
        words = torch.from_numpy(store.word_vectors)
        for at in range(repeats + 1):

            def block(at: int = at) -> None:
                batch = reader.read(clips_at(source, listing, clips * at, clips * (at + 1)))
                with torch.no_grad():
                    model.embed(**batch.model_inputs(words))

            blocks.append(BLOCK / clips * seconds_of(block))
        path, rows = Path(folder) / "rows", np.zeros((BLOCK, widths.embed), np.float32)

        def sync() -> None:
            with path.open("wb") as file:
                file.write(rows.data)
                file.flush()
                os.fsync(file.fileno())

        sync_s = median_of(sync, 9)
    spectrogram = 2 * 40 * widths.frames
    return Frozen(0.0, list_s, sync_s, 30e-6, 0.05, 0.2, BLOCK * (spectrogram + 4.0 * widths.embed)), blocks[1:]


def evaluation_times(
    widths: Widths, frames: int, directions: int = 7, repeats: int = 3, queries: int = 1024
) -> Evaluation:
    model, clips = widths.model().eval(), 4
    inputs = Widths(widths.video, frames=frames, train=widths.train).inputs(clips)
    with torch.no_grad():
        clip_s = [seconds_of(lambda: model.embed(**inputs)) for _ in range(repeats + 1)][1:]
    rows = np.random.default_rng(0).standard_normal((queries, widths.embed), np.float32)
    pair_s = median_of(lambda: retrieval_ranks(rows, rows), repeats) / queries**2
    return Evaluation(median(clip_s) / clips, directions * pair_s, 4.0 * len(MODALITIES) * widths.embed)


# ---- real processes


def real_steps(rank: int, widths: Widths, num: int, steps: int) -> list[tuple[float, float, float]]:
    """Measure each step of this process after the first.

    Returns:
        Wall-clock seconds, and the seconds that all threads were on a core and waiting for one.
    """
    from torch.nn.parallel import DistributedDataParallel

    keep_freed_memory()
    step = Step(widths, widths.clips // num, DistributedDataParallel if num > 1 else None)
    set_over_processes(step.model, True)
    found = []
    for _ in range(steps + 1):
        begin, (ran, waited) = time.perf_counter(), threads_s()
        step()
        seconds, (ran_after, waited_after) = time.perf_counter() - begin, threads_s()
        found.append((seconds, ran_after - ran, waited_after - waited))
    return found[1:]


def threads_s() -> tuple[float, float]:
    """Return the seconds that all threads of this process were on a core and waiting for one."""
    ran = waited = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        try:
            words = task.read_text().split()
        except OSError:
            continue
        ran, waited = ran + int(words[0]), waited + int(words[1])
    return ran / 1e9, waited / 1e9


def loopback(rank: int, repeats: int = 20) -> tuple[float, float]:
    """Return seconds per message and gigabytes per second of gloo here, from small and large sums in two processes."""
    few, many = torch.zeros(2), torch.zeros(4_000_000)
    seconds = []
    for tensor in (few, many):
        dist.all_reduce(tensor)
        seconds.append(median_of(lambda: dist.all_reduce(tensor), repeats))  # noqa: B023
    return seconds[0] / 2, 16e6 / max(seconds[1] - seconds[0], 1e-9) / 1e9


def real_pass(rank: int, folder: str, num: int) -> tuple[float, float, float]:
    """Compute this process's share of a frozen pass with the encoder at SMALL; return seconds by the clock, on a core, and
    waiting.
    """
    from accelerate import Accelerator

    from trichord.data.batches import TrainingClips
    from trichord.data.reader import ClipReader
    from trichord.modalities.base import ReadingSettings
    from trichord.modality import Order
    from trichord.store import Store
    from trichord.training.frozen import FrozenSettings, frozen_inputs
    from trichord.training.stage import stages_of

    store = Store(folder)
    source = TrainingClips(store, store.select(), seed=0, videos_per_batch=24, clips_per_video=32, min_clip_s=1.0)
    reader = ClipReader(store, MODALITIES, ReadingSettings(audio_frames=SMALL.frames))
    torch.manual_seed(0)
    model = MCN(64, SMALL.embed, 50, None, audio_channels=SMALL.channels).eval()
    stage = stages_of(Order.parse("at>v"))[1]
    accelerator = Accelerator(cpu=True)
    if num > 1:
        dist.barrier()
    begin, (ran, waited) = time.perf_counter(), threads_s()
    frozen_inputs(model, stage, source, reader, FrozenSettings(True, 10**12, 10**9, f"no{num}"), accelerator)
    seconds, (ran_after, waited_after) = time.perf_counter() - begin, threads_s()
    return seconds, ran_after - ran, waited_after - waited
