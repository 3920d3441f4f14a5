"""Commands that train models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from trichord.cli.command import NOTHING, command
from trichord.cli.launch import is_main
from trichord.cli.parsing import call, parts_of, seeds_of, show
from trichord.errors import TrichordError
from trichord.recipes import Recipe

ORDERS = ["av>t", "at>v", "vt>a", "avt"]
SEEDS = [0]


@command(
    "trichord train --store my_store --out my_run --order 'av>t' --recipe debug --training.epochs 3", recipe="debug"
)
def train(settings: Recipe, *, store: str, out: Path, order: str = "av>t", seed: int = 0, resume: bool = False) -> int:
    """Train one order, stage by stage.

    Args:
        settings: Settings of the recipe.
        store: Store to train on: a folder, or a URL (s3://...).
        out: Run folder.
        order: Order in which modalities are trained, such as av>t, at>v, vt>a or avt.
        seed: Random seed of the initial weights, batches and clustering.
        resume: Continue the run in --out from its last checkpoint.
    """
    from trichord.study.run import train_order

    summary = train_order(store, out, order, seed, settings, resume=resume)
    if not is_main():
        return 0
    print(f"{summary.order.code}: {summary.num_steps} steps; the model is in {summary.model_folder}")
    print(f"next: trichord evaluate {summary.model_folder} --store {store}")
    return 0


@command("trichord study --store my_store --out my_study --recipe debug --seeds 0,1,2", recipe="debug")
def study(
    settings: Recipe,
    *,
    store: str,
    out: Path,
    orders: list[str] | str = ORDERS,
    seeds: list[int] | int | str = SEEDS,
    benchmarks: list[str] | str = NOTHING,
    first_stage_seed: int | None = None,
    resume: bool = False,
) -> int:
    """Train and compare orders. A second call continues the study.

    Args:
        settings: Settings of the recipe.
        store: Store to train and evaluate on: a folder, or a URL (s3://...).
        out: Study folder.
        orders: Orders to compare, such as av>t,vt>a; avt is joint training.
        seeds: Random seeds, such as 0 or 0,1,2; each order is trained once per seed.
        benchmarks: Names of benchmarks. Empty: all benchmarks that the store has clips for.
        first_stage_seed: Seed of the first stages, which are then shared by all seeds. By default, each seed trains its own.
        resume: No effect, because a study always continues.
    """
    from trichord.study.run import run_study

    table = run_study(
        store, out, parts_of(orders), seeds_of(seeds), settings, benchmarks=parts_of(benchmarks) or None,
        first_stage_seed=first_stage_seed,
    )  # fmt: skip
    if not is_main():
        return 0
    print_study(table, out)
    print(f"next: trichord report {out}")
    return 0


def print_study(table: Any, out: Path) -> None:
    """Print the order table of a study, and the names of its files."""
    from rich.console import Console

    from trichord.study.table import to_rich

    Console(width=None if sys.stdout.isatty() else 120).print(to_rich(table))
    show(table.caption)
    print(f"table: {out / 'table.md'} (also table.csv, table.tex, study.json, orders.png)")


@command("trichord freeze my_study --store my_store --order 'av>t'", positional=("run",))
def freeze(
    run: Path,
    *,
    store: str,
    order: str | None = None,
    device: Literal["auto", "cpu"] = "auto",
    ray: str | None = None,
    workers: int | None = None,
) -> int:
    """Compute the embeddings that later stages will read in advance. Several processes and machines can share the work.

    Args:
        run: Run, study or stage folder.
        store: Store that the run is trained on: a folder, or a URL.
        order: Order whose later stages are prepared. By default, all later stages that may follow.
        device: Device for all computations.
        ray: Ray cluster to use: auto (the cluster that runs here), local, HOST:PORT or ray://HOST:PORT. By default, Ray is not
            used.
        workers: Number of workers on Ray. By default, as many as fit.
    """
    if workers is not None and ray is None:
        raise TrichordError(f"--workers {workers} has no effect without --ray; add --ray, or omit --workers")
    from trichord.cluster import RayOptions
    from trichord.study.freeze import freeze

    cluster = RayOptions(ray) if ray is not None else None
    ready = freeze(run, store, order=order, device=device, cluster=cluster, workers=workers)
    if is_main() and ready:
        print(f"ready for later stages: {', '.join(path.name for path in ready)} in {ready[0].parent}")
    return 0


@command("trichord reproduce my_study/stages/STAGE/divergence", positional=("dump",))
def reproduce(dump: Path) -> int:
    """Repeat a diverged training step from its saved files, and report where the numbers become infinite or NaN.

    Args:
        dump: Folder `divergence` of a stage, or the stage folder.
    """
    from trichord.study.reproduce import reproduce

    show(reproduce(dump))
    return 0


def demo(words: list[str]) -> int:
    """Run `trichord demo`."""
    from trichord.cli.demo import run_demo

    table, out = call(run_demo, "demo", words, positional=(), example="trichord demo --out demo")
    print_study(table, out)
    return 0
