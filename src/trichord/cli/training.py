"""Commands that train."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from trichord.cli.launch import is_main
from trichord.cli.parsing import call, parse, parser_of, recipe_of, recipe_parser, say, show
from trichord.errors import TrichordError


def train(words: list[str]) -> int:
    example = "trichord train --store my_store --out my_run --order 'av>t' --recipe debug --training.epochs 3"
    parser = recipe_parser("train", "Train one order, stage by stage.", example, words, "debug")
    parser.add_argument(
        "--store", type=str, required=True, help="The store to train on: a folder, or a URL (s3://...)."
    )
    parser.add_argument("--out", type=Path, required=True, help="Run folder.")
    parser.add_argument(
        "--order",
        type=str,
        default="av>t",
        help="Order in which modalities are trained, such as av>t, at>v, vt>a or avt.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the initial weights, batches and clustering.")
    parser.add_argument("--resume", action="store_true", help="Continue the run in --out where it stopped.")
    values = parse(parser, words)
    from trichord.study.run import train_order

    summary = train_order(
        values.store, values.out, values.order, values.seed, recipe_of(values), resume=values.resume, say=None
    )
    if not is_main():
        return 0
    print(f"{summary.order}: {summary.num_steps} steps; the model is in {summary.model_folder}")
    print(f"next: trichord evaluate {summary.model_folder} --store {values.store}")
    return 0


def study(words: list[str]) -> int:
    example = "trichord study --store my_store --out my_study --recipe debug --seeds '[0,1,2]'"
    parser = recipe_parser(
        "study", "Train and compare orders. A second call continues where the first stopped.", example, words, "debug"
    )
    parser.add_argument(
        "--store",
        type=str,
        required=True,
        help="The store to train and evaluate on: a folder, or a URL (s3://...).",
    )
    parser.add_argument("--out", type=Path, required=True, help="Study folder.")
    parser.add_argument(
        "--orders",
        type=list[str],
        default=["av>t", "at>v", "vt>a", "avt"],
        help="The orders to compare; avt is joint training.",
    )
    parser.add_argument("--seeds", type=list[int], default=[0], help="Each order is trained once per seed.")
    parser.add_argument(
        "--benchmarks", type=list[str], default=[], help="Names of benchmarks. Empty: all that the store has clips for."
    )
    parser.add_argument(
        "--first_stage_seed", type=int | None, default=None, help="Let all seeds share the first stages of this seed."
    )
    parser.add_argument("--resume", action="store_true", help="Has no effect: a study always continues.")
    values = parse(parser, words)
    from trichord.study.run import run_study

    table = run_study(
        values.store, values.out, values.orders, values.seeds, recipe_of(values),
        benchmarks=values.benchmarks or None, first_stage_seed=values.first_stage_seed,
    )  # fmt: skip
    if not is_main():
        return 0
    print_study(table, values.out)
    print(f"next: trichord report {values.out}")
    return 0


def print_study(table: Any, out: Path) -> None:
    from rich.console import Console

    from trichord.study.table import to_rich

    Console(width=None if sys.stdout.isatty() else 120).print(to_rich(table))
    show(table.caption)
    print(f"table: {out / 'table.md'} (also table.csv, table.tex, study.json, orders.png)")


def freeze(words: list[str]) -> int:
    parser = parser_of(
        "freeze",
        "Compute ahead what later stages will read of a run's trained encoders. Several processes and machines can share the work.",
        "trichord freeze my_study --store my_store --order 'av>t'",
    )
    parser.add_argument("run", type=Path, help="Run, study or stage folder.")
    parser.add_argument(
        "--store", type=str, required=True, help="The store that the run is trained on: a folder, or a URL."
    )
    parser.add_argument(
        "--order",
        type=str | None,
        default=None,
        help="Compute only for the later stages of this order. By default, for all that may follow.",
    )
    parser.add_argument("--device", type=Literal["auto", "cpu"], default="auto", help="Where to compute.")
    parser.add_argument(
        "--ray", type=str | None, default=None,
        help="Compute on a Ray cluster: auto (the one that runs here), local, HOST:PORT or ray://HOST:PORT.",
    )  # fmt: skip
    parser.add_argument(
        "--workers",
        type=int | None,
        default=None,
        help="Number of workers on Ray. By default, as many as there is room for.",
    )
    values = parse(parser, words)
    if values.workers is not None and values.ray is None:
        raise TrichordError(f"--workers {values.workers} has no effect without --ray; add that, or leave it out")
    from trichord.cluster import RayOptions
    from trichord.study.freeze import freeze

    cluster = RayOptions(values.ray) if values.ray is not None else None
    ready = freeze(
        values.run,
        values.store,
        order=values.order,
        device=values.device,
        cluster=cluster,
        workers=values.workers,
        say=say,
    )
    if is_main() and ready:
        print(f"ready for later stages: {', '.join(path.name for path in ready)} in {ready[0].parent}")
    return 0


def reproduce(words: list[str]) -> int:
    parser = parser_of(
        "reproduce",
        "Repeat a diverged training step from the files that it left, and report where the numbers stop being finite.",
        "trichord reproduce my_study/stages/STAGE/divergence",
    )
    parser.add_argument("dump", type=Path, help="The folder `divergence` of a stage, or the stage folder itself.")
    values = parse(parser, words)
    from trichord.study.reproduce import reproduce

    show(reproduce(values.dump))
    return 0


def demo(words: list[str]) -> int:
    from trichord.cli.demo import run_demo

    table, out = call(run_demo, "demo", words, positional=(), example="trichord demo --out demo")
    print_study(table, out)
    return 0
