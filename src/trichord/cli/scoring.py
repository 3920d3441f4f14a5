"""Commands that score and tell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.cli.launch import is_main
from trichord.cli.parsing import parse, parser_of, parts_of, say, show
from trichord.errors import TrichordError
from trichord.settings import SEED

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from rich.console import Console


def report(words: list[str]) -> int:
    parser = parser_of(
        "report",
        "Write the report of a study or of evaluations: one HTML page that opens offline, and the same as Markdown, LaTeX, JSON "
        "and CSV.",
        "trichord report my_study; trichord report --compare my_study other_study; trichord report results_1 results_2",
    )
    parser.add_argument(
        "folders", type=Path, nargs="*", default=[], metavar="FOLDER",
        help="A study folder, or one or more --out folders of `trichord evaluate`.",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path | None, default=None, help="Folder of the report. By default, FOLDER/report."
    )
    parser.add_argument(
        "--direction",
        type=str,
        default="",
        help="Direction of the main table, such as t2v. By default, the first one that was scored.",
    )
    parser.add_argument("--level", type=float, default=0.95, help="Confidence level of all intervals.")
    parser.add_argument(
        "--compare", type=Path, nargs=2, default=None, metavar=("A", "B"),
        help="Report what changed from study A to study B. Of two evaluations, the same as naming both.",
    )  # fmt: skip
    values = parse(parser, words)
    if bool(values.folders) == (values.compare is not None):
        raise TrichordError(
            "give a study folder, or --compare and two of them, or folders of evaluations; see trichord report --help"
        )
    from trichord.report.write import write_reports

    show(
        write_reports(
            values.compare or values.folders, values.out, compare=values.compare is not None,
            direction=values.direction, level=values.level,
        )
    )  # fmt: skip
    return 0


def evaluate(words: list[str]) -> int:
    parser = parser_of(
        "evaluate",
        "Score a run, all orders of a study, a published .pth checkpoint, or embeddings from a file, on benchmarks.",
        "trichord evaluate my_run --store my_store --benchmark youcook2 --directions all --out results; "
        "trichord evaluate --list; trichord evaluate --embeddings theirs.npz",
    )
    parser.add_argument(
        "run", type=Path | None, nargs="?", help="Run, study or stage folder, or a published .pth file."
    )
    parser.add_argument("--store", type=str | None, help="Store with the clips: a folder, or a URL (s3://...).")
    parser.add_argument(
        "--benchmark", type=str, nargs="+", default=[], metavar="NAME",
        help="Benchmarks: a name that --list shows, NAME:COLLECTION/SPLIT, or COLLECTION/SPLIT. By default, all held-out clips.",
    )  # fmt: skip
    parser.add_argument("--benchmarks", type=list[str] | str, default=[], help="The same as one list, or with commas.")
    parser.add_argument(
        "--orders", type=list[str] | str, default=[],
        help="Orders of a study to score, such as 'av>t' or 'av>t,vt>a'. Empty: all.",
    )  # fmt: skip
    parser.add_argument(
        "--seeds",
        type=list[int] | int | str,
        default=[],
        help="Seeds of a study to score, such as 0 or 0,1. Empty: all.",
    )
    parser.add_argument("--list", action="store_true", help="List the benchmarks and exit.")
    parser.add_argument(
        "--explain", type=str | None, metavar="NAME", help="Explain the protocol of a benchmark and exit."
    )
    parser.add_argument(
        "--embeddings", type=Path | None, help="A .safetensors or .npz file in place of a run and a store."
    )
    parser.add_argument(
        "--save_embeddings", type=Path | None, help="Write the embeddings of the scored clips to such a file."
    )
    parser.add_argument(
        "--directions",
        type=list[str] | str,
        default=[],
        help="Retrieval directions, such as [t2v,t2va], or all. Empty: those of the recipe.",
    )
    parser.add_argument(
        "--fusion",
        type=str,
        default="auto",
        help="How several modalities are combined: sum, mean_normalized, or auto (as in training).",
    )
    parser.add_argument(
        "--dual_softmax",
        type=float,
        default=0.0,
        help="Scale of the dual softmax, such as 100. Its scores depend on all queries of the benchmark. 0 turns it off.",
    )
    parser.add_argument(
        "--missing",
        type=str,
        default="auto",
        help="What clips count as that lack a modality: drop (left out), miss (errors), or auto (as the benchmark has it).",
    )
    parser.add_argument("--gallery", type=Path | None, help="File with the ids of the clips to score, one per line.")
    parser.add_argument(
        "--windows",
        type=int,
        default=0,
        help="Number of windows that longer clips are cut into (MIL-NCE uses 10). 0: none.",
    )
    parser.add_argument(
        "--window_s",
        type=float | None,
        help="Length of the windows in seconds. By default, that of the recipe's shortest clip.",
    )
    parser.add_argument(
        "--window_pool", type=str, default="mean", help="How the embeddings of windows are combined: mean or max."
    )
    parser.add_argument(
        "--audio_window_s",
        type=float,
        default=8.0,
        help="Seconds of sound around each second in which steps are searched.",
    )
    parser.add_argument(
        "--labels",
        type=Path | None,
        help="Labels of the clips: .csv, .jsonl, world.json, or a folder of official lists.",
    )
    parser.add_argument(
        "--templates", type=list[str] | str, default=[],
        help="Texts around class names: 'a video of {}', or several as ['{} in a video','a photo of {}']. Empty: the name alone.",
    )  # fmt: skip
    parser.add_argument(
        "--text_encoder", type=str, default="",
        help="Encoder of step texts and class names, such as st:all-minilm-l6-v2. Empty: the one that the store recorded.",
    )  # fmt: skip
    parser.add_argument(
        "--recipe", type=str | None, default=None,
        help="Recipe by which clips are read and scored. By default, that of the training; for a published checkpoint, mcn.",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="Seed of what a benchmark draws at random.")
    parser.add_argument(
        "--out", type=Path | None, default=None, help="Folder for results and per-query files; a .json takes the rows."
    )
    values = parse(parser, [_underscored(word) for word in words])
    templates = [values.templates] if isinstance(values.templates, str) else values.templates
    values.orders, values.seeds = parts_of(values.orders), _seeds(values.seeds)
    from rich.console import Console

    from trichord.evaluation import embedded
    from trichord.protocols.protocol import Options
    from trichord.study.evaluate import evaluate, explanation_of, save_embeddings, write_evaluation
    from trichord.study.evaluation_files import check_target, read_gallery
    from trichord.study.evaluation_tables import evaluation_tables, footer, protocols_table

    console = Console(width=None if sys.stdout.isatty() else 120)
    if values.list:
        console.print(protocols_table(console.width))
        show("\nOn your clips: NAME:COLLECTION/SPLIT. The protocol in words: --explain NAME")
        return 0
    if values.explain is not None:
        show(explanation_of(values.explain, values.store))
        return 0
    if values.save_embeddings is not None:
        embedded.check_target(values.save_embeddings)
    if values.out is not None:
        check_target(values.out)
    gallery = None if values.gallery is None else read_gallery(values.gallery)
    how = {
        "directions": values.directions, "recipe": values.recipe,
        "options": Options(
            fusion=values.fusion, dual_softmax=values.dual_softmax, missing=values.missing, gallery=gallery, seed=values.seed,
            labels="" if values.labels is None else str(values.labels), templates=tuple(templates),
            audio_window_s=values.audio_window_s, text_encoder=values.text_encoder,
        ),
        "num_windows": values.windows, "window_s": values.window_s, "window_pool": values.window_pool,
    }  # fmt: skip
    names = [*values.benchmark, *parts_of(values.benchmarks)]
    if _is_of_orders(values, names):
        return _evaluate_orders(values, names, how, console)
    evaluation = evaluate(values.run, values.store, names, embeddings=values.embeddings, **how)
    if values.save_embeddings is not None:
        save_embeddings(evaluation, values.save_embeddings)
    if values.out is not None:
        write_evaluation(evaluation, values.out)
    if not is_main():
        return 0
    for note in [*evaluation.notes, *(note for done in evaluation.benchmarks for note in done.outcome.notes)]:
        show(note)
    for table in evaluation_tables(evaluation):
        console.print(table)
    if told := footer(evaluation):
        print(told)
    return 0


def _seeds(given: list[int] | int | str) -> list[int]:
    """Whole numbers, from a list, one of them, or text with commas."""
    try:
        seeds = [int(part) for part in parts_of(given if isinstance(given, str) else str(given).strip("[]"))]
    except ValueError:
        raise TrichordError(f"--seeds {given}: a seed is a whole number; give one, or several as 0,1") from None
    SEED.check("--seeds", seeds)
    return seeds


def _is_of_orders(values: Namespace, names: list[str]) -> bool:
    """Whether several models of a study are asked for."""
    from trichord.study.evaluate import refuse_model_among
    from trichord.study.trained_runs import holds_several

    if values.run is None or values.embeddings is not None or values.store is None:
        if values.orders or values.seeds:
            refuse_model_among(names if values.run is None else ())
            raise TrichordError("--orders and --seeds choose among the runs of a study; give its folder and --store")
        return False
    return bool(values.orders or values.seeds) or holds_several(values.run)


def _evaluate_orders(values: Namespace, names: list[str], how: dict[str, Any], console: Console) -> int:
    from trichord.study.evaluate_orders import evaluate_orders
    from trichord.study.evaluation_tables import order_caption, order_tables
    from trichord.study.figures import order_figures

    if values.save_embeddings is not None:
        raise TrichordError(
            f"{values.save_embeddings}: one file holds the embeddings of one model; give one stage folder"
        )
    found = evaluate_orders(
        values.run, values.store, names, out=values.out, orders=values.orders, seeds=values.seeds, say=say, **how
    )
    if not is_main():
        return 0
    for note in found.notes():
        show(note)
    figures = order_figures(found.runs)
    for table in order_tables(figures, list(dict.fromkeys(done.run.order for done in found.runs))):
        console.print(table)
    show(order_caption(figures))
    if values.out is not None:
        show(f"kept in {values.out}: results.json, and a folder for each order and seed")
    return 0


def _underscored(word: str) -> str:
    """`--save-embeddings=x` as `--save_embeddings=x`: dashes as people type them."""
    head, equals, value = word.partition("=")
    return "--" + head[2:].replace("-", "_") + equals + value if word.startswith("--") else word


def doctor(words: list[str]) -> int:
    from trichord.doctor import examine

    for line in examine():
        print(line)
    return 0
