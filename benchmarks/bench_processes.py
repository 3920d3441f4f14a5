"""Compare several processes with one (loss and gradient), and measure what sharding the weights saves. About two minutes on two
cores.

python benchmarks/bench_processes.py [--width 3072]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from results import record

from split_training import Case, difference_of, difference_of_terms, run_processes, train, train_all

CASES = [Case(), Case(fast=False), Case("vt>a", contrast="mil_nce"), Case("av>t"), Case("av>t", chunk=2)]


def differences(num: int, dtype: torch.dtype) -> tuple[float, float]:
    """Return the largest difference of any term, and of the gradient of any case as one vector, over all cases and
    processes.
    """
    cases = [replace(case, dtype=dtype) for case in CASES]
    with tempfile.TemporaryDirectory() as folder:
        ranks = run_processes(num, train_all, Path(folder), num, cases)
    pairs = [(rank[i], train(replace(case, chunk=0))) for i, case in enumerate(cases) for rank in ranks]
    return max(difference_of_terms(a, b) for a, b in pairs), max(difference_of(a, b, "gradient") for a, b in pairs)


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def memory(rank: int, width: int, shard: bool) -> tuple[float, float, float]:
    """Measure the memory of this process.

    Returns:
        Megabytes of weights, gradients and moments after two steps, the increase of resident megabytes since before the model
        was built, and the seconds of the second step.
    """
    from accelerate import Accelerator

    from trichord.modality import Order
    from trichord.nn import MCN
    from trichord.training.sharding import own_part, shard_trained
    from trichord.training.stage import prepare_model, stages_of

    accelerator, stage = Accelerator(cpu=True), stages_of(Order.parse("vt"))[-1]
    before = resident_mb()
    model = MCN(width, width, 300, None, audio_channels=(4, 4, 4, 4))
    prepare_model(model, stage, heads=False)
    if shard:
        shard_trained(model, stage, heads=False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters)
    network = model if shard else accelerator.prepare(model)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        out = network(video=torch.randn(4, width), text=torch.randn(4, 3, 300))
        optimizer.zero_grad()
        (out["video"].embedding * out["text"].embedding).sum().backward()
        optimizer.step()
        seconds = time.perf_counter() - started
    del out
    tensors = [t for p in parameters for t in (p, p.grad, *optimizer.state[p].values()) if t is not None]
    held = sum(own_part(t).numel() * t.element_size() for t in tensors) / 2**20
    return held, resident_mb() - before, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=3072)
    width = parser.parse_args().width
    torch.set_num_threads(1)
    rows = []
    for num in (2, 4):
        for dtype, asked in ((torch.float64, "rounding errors of float64"), (torch.float32, "1e-5")):
            loss, gradient = differences(num, dtype)
            name = str(dtype).removeprefix("torch.")
            rows.append((f"{num} processes and 1, {name}: terms, gradient", f"{loss:.1e}, {gradient:.1e}", asked))
    for shard in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            found = run_processes(2, memory, Path(folder), width, shard)
        held, more, seconds = (max(column) for column in zip(*found, strict=True))
        name = "sharded (`training.shard full`)" if shard else "replicated"
        rows.append(
            (
                f"2 processes, V and T of width {width}, weights {name}: weights, gradients and moments per process",
                f"{held:,.0f} MB ({more:,.0f} MB more resident, {seconds:.1f} s per step)",
                "half" if shard else "",
            )
        )
    record(
        "bench_processes.py",
        "Several processes",
        rows,
        "gloo on one machine. Differences are relative: a term is compared with its value, or with 1 if its value is smaller, "
        "and the gradients of all weights, as one vector, with their norm. Each is the largest over the orders `avt`, `av>t` and "
        "`vt>a`, masked clips, MIL-NCE, a gradient cache, fast and plain implementations, two steps, and unequal parts (7 clips).",
    )


if __name__ == "__main__":
    main()
