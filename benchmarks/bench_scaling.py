"""Measure the cost of each stage with 1 and 2 workers, and simulate it for up to 1,000 workers from the measured times.

python benchmarks/bench_scaling.py measure     # stage times into scaling_times.json; a few minutes, 8 GB
python benchmarks/bench_scaling.py real        # 1 and 2 real workers, compared with a simulation of the same
python benchmarks/bench_scaling.py simulate    # tables and docs/images/scaling.png, without measurements
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from results import record
from scaling_model import (
    Evaluation,
    Extraction,
    Frozen,
    Network,
    Run,
    Training,
    crossing,
    evaluate,
    extract,
    extract_on_ray,
    frozen_pass,
    train_step,
)

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))
TIMES, PLOT = HERE / "scaling_times.json", HERE.parent / "docs" / "images" / "scaling.png"
GRID = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
NUM_VIDEOS, MEAN_S, SPREAD, FILE_BYTES = 900_000, 390.0, 0.6, 15e6  # lengths are log-normal; sizes of files are assumed
FROZEN_VIDEOS, CLIPS_PER_VIDEO = 9_000, 97


# ---- measurements


def videos_of(root: Path) -> list[Path]:
    """Write twelve videos of 20 s and twelve of 60 s, 454 x 256, 30 frames per second."""
    from trichord.world import write_world

    for name, steps in (("short", 4), ("long", 12)):
        write_world(
            root / name,
            num_train=11,
            num_test=1,
            steps_per_video=steps,
            width=454,
            height=256,
            frame_rate_hz=30.0,
            workers=1,
        )
    return sorted(root.rglob("*.mp4"))


def measure(root: Path, keep: dict[str, Any]) -> dict[str, Any]:
    """Measure the stage times that are missing, and write them to scaling_times.json."""
    from dataclasses import asdict

    import scaling_steps as steps
    from scaling_times import extraction_times

    from split_training import run_processes

    paper, small, found = steps.Widths(), steps.SMALL, keep
    jobs: dict[str, Callable[[], Any]] = {
        "extraction": lambda: extraction_times(root, videos_of(root / "videos")),
        "small": lambda: asdict(steps.training_times(small, (24, 48, 96), (48, 96, 192))),
        "small_norms": lambda: max(run_processes(2, steps.shared_norms, root, small, 48, 6)),
        "small_frozen": lambda: frozen_dict(steps.frozen_times(small, 5)),
        "loopback": lambda: run_processes(2, steps.loopback, root)[0],
        "later": lambda: asdict(steps.training_times(replace(paper, train=("text",)), (16, 64), (512, 1024))),
        "evaluation": lambda: asdict(steps.evaluation_times(paper, 5120)),
        "frozen": lambda: frozen_dict(steps.frozen_times(paper)),
        "norms": lambda: max(run_processes(2, steps.shared_norms, root, paper, 8, 2)),
        "joint": lambda: asdict(steps.training_times(paper, (8, 16), (512, 1024))),
    }
    for name, job in jobs.items():
        if name not in found:
            begin = time.perf_counter()
            found[name] = job()
            TIMES.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            print(f"{name}: {time.perf_counter() - begin:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    return found


def frozen_dict(measured: tuple[Frozen, list[float]]) -> dict[str, Any]:
    from dataclasses import asdict

    return {"times": asdict(measured[0]), "blocks": measured[1]}


# ---- from measured times to simulated stages


def line_of(found: dict[str, Any]) -> tuple[float, float, np.ndarray]:
    """Fit the worker seconds per second of video and per video.

    Returns:
        Both coefficients, and the ratio of each measured time to the fitted line.
    """
    lengths, seconds = (np.array([v[name] for v in found["videos"]]) for name in ("video_s", "worker_s"))
    slope, fixed = np.polyfit(lengths, seconds, 1)
    return float(slope), max(float(fixed), 0.0), seconds / (slope * lengths + max(fixed, 0.0))


def extraction_of(found: dict[str, Any], **changes: Any) -> Extraction:
    names = (
        "start_s",
        "outcome_s",
        "commit_s",
        "commit_item_s",
        "reopen_item_s",
        "reopen_part_s",
        "lease_s",
        "lease_part_s",
        "task_s",
    )
    hashed = median(v["hash_s"] / v["file_bytes"] for v in found["videos"])
    item_bytes = median(v["item_bytes"] / v["video_s"] for v in found["videos"]) * MEAN_S
    known = {name: max(found[name], 0.0) for name in names}
    given = {
        "hash_s": hashed * FILE_BYTES,
        "file_bytes": FILE_BYTES,
        "item_bytes": item_bytes,
        "command_s": 3.0,
    } | known
    return Extraction(**{**given, **changes})


def lengths(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return MEAN_S * np.exp(SPREAD * rng.standard_normal(count) - SPREAD**2 / 2)


def worker_seconds(found: dict[str, Any], count: int) -> list[float]:
    """Return worker seconds of `count` videos: random lengths on the fitted line, times the ratios of measured videos."""
    slope, fixed, off = line_of(found)
    noise = np.random.default_rng(1).choice(off / off.mean(), count)
    return ((slope * lengths(count) + fixed) * noise + found["spool_s"]).tolist()


def training_of(found: dict[str, Any], name: str, norms: str = "") -> Training:
    values = found[name] | {"loss_s": tuple(found[name]["loss_s"])}
    return Training(**values | {"shared_clip_s": max(found[norms], 0.0) if norms else 0.0})


def frozen_of(found: dict[str, Any], name: str, num_blocks: int) -> tuple[Frozen, list[float]]:
    blocks = np.random.default_rng(2).choice(found[name]["blocks"], num_blocks).tolist()
    return Frozen(**found[name]["times"]), blocks


# ---- real workers


def real(found: dict[str, Any], root: Path) -> list[tuple[str, str, str]]:
    """Return rows for 1 and 2 workers of each stage: measured, simulated, error."""
    import scaling_steps as steps
    from bench_frozen import write_store
    from scaling_times import Load

    from split_training import run_processes

    rows, videos = [], videos_of(root / "videos")
    seconds = {v["video_s"]: v["worker_s"] for v in found["extraction"]["videos"]}
    known = extraction_of(
        found["extraction"], file_bytes=0.0, hash_s=median(v["hash_s"] for v in found["extraction"]["videos"])
    )
    for num in (1, 2):
        command = [sys.executable, "-m", "trichord", "extract", str(root / "videos"), "--store", str(root / f"s{num}")]
        with Load() as load:
            begin = time.perf_counter()
            subprocess.run(
                [*command, "--workers", str(num)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            clock_s = time.perf_counter() - begin
        run = extract(known, [v["worker_s"] for v in found["extraction"]["videos"]], num)
        rows.append(
            row(f"extraction of {len(videos)} videos, {num} worker(s)", clock_s, clock_s / load.stretch, run.seconds)
        )
    del seconds
    latency_s, gb_s = found["loopback"]
    here = Network(1e9, gb_s, latency_s)
    for num in (1, 2):
        ranks = run_processes(num, steps.real_steps, root, steps.SMALL, num, 40)
        clock_s = median(step[0] for step in ranks[0])
        core_s = max(float(np.mean([step[1] for step in rank])) for rank in ranks)
        run = train_step(training_of(found, "small", "small_norms"), num, steps.SMALL.clips, here)
        rows.append(
            row(
                f"training step of {steps.SMALL.clips} clips, {num} process(es), processor s",
                clock_s,
                core_s,
                run.seconds,
            )
        )
    write_store(root / "frozen")
    for num in (1, 2):
        ranks = run_processes(num, steps.real_pass, root, str(root / "frozen"), num)
        clock_s, core_s = max(rank[0] for rank in ranks), max(rank[1] for rank in ranks)
        times, blocks = frozen_of(found, "small_frozen", 3)
        run = frozen_pass(replace(times, poll_s=0.0, finish_s=0.0), blocks, num, 24)
        rows.append(
            row(f"frozen pass of 768 clips (3 blocks), {num} process(es), processor s", clock_s, core_s, run.seconds)
        )
    return rows


def row(what: str, clock_s: float, own_s: float, simulated_s: float) -> tuple[str, str, str]:
    error = 100 * (simulated_s / own_s - 1)
    return what, f"{clock_s:.2f}; {own_s:.2f}; {simulated_s:.2f}", f"{error:+.0f} %"


# ---- simulation


def simulated(found: dict[str, Any], network: Network, grid: Sequence[int] = GRID) -> dict[str, list[Run]]:
    """Return the simulated runs of all stages by name."""
    known, videos = extraction_of(found["extraction"]), worker_seconds(found["extraction"], NUM_VIDEOS)
    fast = replace(network, files_gb_s=10 * network.files_gb_s)
    joint, later = training_of(found, "joint", "norms"), training_of(found, "later")
    sped = replace(joint, **{k: getattr(joint, k) / 100 for k in ("clip_s", "shared_clip_s", "step_s", "fit_s", "digest_s")},
                   loss_s=tuple(c / 100 for c in joint.loss_s))  # fmt: skip
    undivided = replace(joint, loss_whole=1.0)
    frozen, blocks = frozen_of(found, "frozen", FROZEN_VIDEOS * CLIPS_PER_VIDEO // 256)
    scored = Evaluation(**found["evaluation"])
    curves: dict[str, Callable[[int], Run]] = {
        "extraction": lambda w: extract(known, videos, w, network),
        "extraction, files 100 Gb/s": lambda w: extract(known, videos, w, fast),
        "extraction on Ray": lambda w: extract_on_ray(known, videos, w, network),
        "extraction on Ray, files 100 Gb/s": lambda w: extract_on_ray(known, videos, w, fast),
        "frozen pass": lambda w: frozen_pass(frozen, blocks, w, FROZEN_VIDEOS, network),
        "joint training, 4,096 clips": lambda w: train_step(joint, w, 4096, network),
        "joint training, 4,096 clips, whole loss in every process": lambda w: train_step(undivided, w, 4096, network),
        "joint training, 16 clips per worker": lambda w: weak(joint, w, 16, network),
        "joint training, 4,096 clips, 100 x the compute": lambda w: train_step(sped, w, 4096, network),
        "later stage, 4,096 clips": lambda w: train_step(later, w, 4096, network),
        "evaluation, 3,350 clips": lambda w: evaluate(scored, 3350, w, network),
    }
    runs = {}
    for name, curve in curves.items():
        begin = time.perf_counter()
        runs[name] = [curve(w) for w in grid]
        print(f"{name}: simulated in {time.perf_counter() - begin:.0f} s", flush=True)
    return runs


def weak(times: Training, workers: int, clips: int, network: Network) -> Run:
    """Return a step of `clips` per worker as the time of the batch of one worker.

    Its efficiency is that of equal work per worker.
    """
    run = train_step(times, workers, clips * workers, network)
    return Run(workers, run.seconds / workers, {name: s / workers for name, s in run.parts.items()})


def bottleneck(run: Run) -> str:
    """Return the part, other than the computation on clips, that takes most of the time."""
    useful = ("clips",)
    name, seconds = max(((k, s) for k, s in run.parts.items() if k not in useful), key=lambda item: item[1])
    return f"{name} ({100 * seconds / run.seconds:.0f} %)"


def first_below(runs: Sequence[Run], level: float) -> Run | None:
    """Return the first run whose efficiency is below a level."""
    return next((run for run in runs if run.efficiency(runs[0]) < level), None)


def tables(runs: dict[str, list[Run]]) -> str:
    """Return the tables of docs/scaling.md."""
    grid = [run.workers for run in next(iter(runs.values()))]
    lines = [f"| efficiency, % | {' | '.join(f'{w:,}' for w in grid)} |", f"|---|{'---|' * len(grid)}"]
    lines += [f"| {name} | {' | '.join(f'{100 * r.efficiency(rs[0]):.0f}' for r in rs)} |" for name, rs in runs.items()]
    lines += [
        "",
        "| stage | workers at 80 % efficiency | bottleneck there | workers at 50 % efficiency | bottleneck there |",
        "|---|---|---|---|---|",
    ]
    for name, rs in runs.items():
        cells = []
        for level in (0.8, 0.5):
            at, run = crossing(rs, level), first_below(rs, level)
            cells += [f"{at:,.0f}", bottleneck(run)] if at and run else ["-", "-"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| extraction of {NUM_VIDEOS:,} videos | {' | '.join(f'{w:,}' for w in grid)} |",
        f"|---|{'---|' * len(grid)}",
    ]
    for name, rs in runs.items():
        if name.startswith("extraction"):
            lines.append(f"| {name}: hours | {' | '.join(f'{r.seconds / 3600:,.0f}' for r in rs)} |")
            lines.append(f"| {name}: worker-hours | {' | '.join(f'{r.worker_hours:,.0f}' for r in rs)} |")
    return "\n".join(lines)


def plot(runs: dict[str, list[Run]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    for axis, group, title in (
        (axes[0], [n for n in runs if n.startswith("extraction")], "Extraction of 900,000 videos"),
        (axes[1], [n for n in runs if not n.startswith("extraction")], "Frozen pass, training, evaluation"),
    ):
        for number, name in enumerate(group):
            marker = "osv^D*XP"[number % 8]
            axis.plot(
                [r.workers for r in runs[name]],
                [r.efficiency(runs[name][0]) for r in runs[name]],
                marker=marker,
                ms=4,
                label=name,
            )
        for level in (0.5, 0.8):
            axis.axhline(level, color="0.8", lw=0.8, zorder=0)
        axis.set(xscale="log", xlabel="workers", title=title, ylim=(0, 1.25))
        axis.legend(fontsize=7, loc="lower left")
    axes[0].set_ylabel("efficiency relative to one worker")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["measure", "real", "simulate", "all"], default="all")
    parser.add_argument("--only", help="stage times to measure again, separated by commas (with measure)")
    options = parser.parse_args()
    found = json.loads(TIMES.read_text("utf-8")) if TIMES.exists() else {}
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="trichord-scaling-") as name:
        if options.what in ("measure", "all"):
            again = options.only.split(",") if options.only else list(found)
            measure(Path(name), {k: v for k, v in found.items() if k not in again})
            found = json.loads(TIMES.read_text("utf-8"))
        if options.what in ("real", "all"):
            rows = real(found, Path(name))
            record("bench_scaling.py real", "Scaling: 1 and 2 workers, measured and simulated", rows, REMARK)
        if options.what in ("simulate", "all"):
            runs = simulated(found, Network())
            print(tables(runs))
            plot(runs, PLOT)


REMARK = (
    "Wall-clock seconds; seconds without waiting for a core (for training and the frozen pass: seconds on a core of the busiest "
    "process); seconds simulated from the stage times of one worker. The last column is the error of the simulation relative to "
    "the second figure. Load of the machine at the end, including other programs: "
    f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."
)

if __name__ == "__main__":
    main()
