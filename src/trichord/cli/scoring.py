"""Commands that score and tell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.cli.command import NOTHING, command
from trichord.cli.launch import is_main
from trichord.cli.parsing import parts_of, say, show
from trichord.errors import TrichordError
from trichord.settings import SEED

if TYPE_CHECKING:
    from rich.console import Console


@command(
    "trichord report my_study; trichord report --compare my_study other_study; trichord report results_1 results_2",
    positional=("folders",),
    folders={"nargs": "*", "metavar": "FOLDER"},
    compare={"nargs": 2, "metavar": ("A", "B")},
)
def report(
    folders: list[Path] = NOTHING,
    *,
    out: Path | None = None,
    direction: str = "",
    level: float = 0.95,
    compare: list[Path] | None = None,
) -> int:
    """Write the report of a study or of evaluations: one HTML page that opens offline, and the same as Markdown, LaTeX, JSON
    and CSV.

    Args:
        folders: A study folder, or one or more --out folders of `trichord evaluate`.
        out: Folder of the report. By default, FOLDER/report.
        direction: Direction of the main table, such as t2v. By default, the first one that was scored.
        level: Confidence level of all intervals.
        compare: Report what changed from study A to study B. Of two evaluations, the same as naming both.
    """
    if bool(folders) == (compare is not None):
        raise TrichordError(
            "give a study folder, or --compare and two of them, or folders of evaluations; see trichord report --help"
        )
    from trichord.report.write import write_reports

    show(write_reports(compare or folders, out, compare=compare is not None, direction=direction, level=level))
    return 0


@command(
    "trichord evaluate my_run --store my_store --benchmark youcook2 --directions all --out results; trichord evaluate --list; "
    "trichord evaluate --embeddings theirs.npz",
    positional=("run",),
    run={"nargs": "?"},
    benchmark={"nargs": "+", "metavar": "NAME"},
    explain={"metavar": "NAME"},
)
def evaluate(
    run: Path | None = None,
    *,
    store: str | None = None,
    benchmark: list[str] = NOTHING,
    benchmarks: list[str] | str = NOTHING,
    orders: list[str] | str = NOTHING,
    seeds: list[int] | int | str = NOTHING,
    list: bool = False,
    explain: str | None = None,
    embeddings: Path | None = None,
    save_embeddings: Path | None = None,
    directions: list[str] | str = NOTHING,
    fusion: str = "auto",
    dual_softmax: float = 0.0,
    missing: str = "auto",
    gallery: Path | None = None,
    windows: int = 0,
    window_s: float | None = None,
    window_pool: str = "mean",
    audio_window_s: float = 8.0,
    labels: Path | None = None,
    templates: list[str] | str = NOTHING,
    text_encoder: str = "",
    recipe: str | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> int:
    """Score a run, all orders of a study, a published .pth checkpoint, or embeddings from a file, on benchmarks.

    Args:
        run: Run, study or stage folder, or a published .pth file.
        store: Store with the clips: a folder, or a URL (s3://...).
        benchmark: Benchmarks: a name that --list shows, NAME:COLLECTION/SPLIT, or COLLECTION/SPLIT. By default, all held-out
            clips.
        benchmarks: The same as one list, or with commas.
        orders: Orders of a study to score, such as 'av>t' or 'av>t,vt>a'. Empty: all.
        seeds: Seeds of a study to score, such as 0 or 0,1. Empty: all.
        list: List the benchmarks and exit.
        explain: Explain the protocol of a benchmark and exit.
        embeddings: A .safetensors or .npz file in place of a run and a store.
        save_embeddings: Write the embeddings of the scored clips to such a file.
        directions: Retrieval directions, such as [t2v,t2va], or all. Empty: those of the recipe.
        fusion: How several modalities are combined: sum, mean_normalized, or auto (as in training).
        dual_softmax: Scale of the dual softmax, such as 100. Its scores depend on all queries of the benchmark. 0 turns it off.
        missing: What clips count as that lack a modality: drop (left out), miss (errors), or auto (as the benchmark has it).
        gallery: File with the ids of the clips to score, one per line.
        windows: Number of windows that longer clips are cut into (MIL-NCE uses 10). 0: none.
        window_s: Length of the windows in seconds. By default, that of the recipe's shortest clip.
        window_pool: How the embeddings of windows are combined: mean or max.
        audio_window_s: Seconds of sound around each second in which steps are searched.
        labels: Labels of the clips: .csv, .jsonl, world.json, or a folder of official lists.
        templates: Texts around class names: 'a video of {}', or several as ['{} in a video','a photo of {}']. Empty: the name
            alone.
        text_encoder: Encoder of step texts and class names, such as st:all-minilm-l6-v2. Empty: the one that the store
            recorded.
        recipe: Recipe by which clips are read and scored. By default, that of the training; for a published checkpoint, mcn.
        seed: Seed of what a benchmark draws at random.
        out: Folder for results and per-query files; a .json takes the rows.
    """
    from rich.console import Console

    from trichord.evaluation import embedded
    from trichord.study.evaluation_files import check_target, read_gallery
    from trichord.study.evaluation_tables import protocols_table
    from trichord.tasks.protocol import Options
    from trichord.tasks.registry import explanation_of

    some: dict[str, Any] = {"orders": parts_of(orders), "seeds": _seeds(seeds)}
    console = Console(width=None if sys.stdout.isatty() else 120)
    if list:
        console.print(protocols_table(console.width))
        show("\nOn your clips: NAME:COLLECTION/SPLIT. The protocol in words: --explain NAME")
        return 0
    if explain is not None:
        show(explanation_of(explain, store))
        return 0
    if save_embeddings is not None:
        embedded.check_target(save_embeddings)
    if out is not None:
        check_target(out)
    options = Options(
        fusion=fusion,
        dual_softmax=dual_softmax,
        missing=missing,
        gallery=None if gallery is None else read_gallery(gallery),
        seed=seed,
        labels="" if labels is None else str(labels),
        templates=(templates,) if isinstance(templates, str) else tuple(templates),
        audio_window_s=audio_window_s,
        text_encoder=text_encoder,
    )
    how: dict[str, Any] = {"directions": directions, "recipe": recipe, "options": options}
    how |= {"num_windows": windows, "window_s": window_s, "window_pool": window_pool}
    names = [*benchmark, *parts_of(benchmarks)]
    if _is_of_orders(run, store, embeddings, names, some):
        assert run is not None
        if save_embeddings is not None:
            raise TrichordError(f"{save_embeddings}: one file holds the embeddings of one model; give one stage folder")
        return _evaluate_orders(console, run, store, names, out=out, **some, **how)
    return _evaluate_model(console, run, store, names, embeddings=embeddings, save_to=save_embeddings, out=out, **how)


def _seeds(given: list[int] | int | str) -> list[int]:
    """Whole numbers, from a list, one of them, or text with commas."""
    try:
        seeds = [int(part) for part in parts_of(given if isinstance(given, str) else str(given).strip("[]"))]
    except ValueError:
        raise TrichordError(f"--seeds {given}: a seed is a whole number; give one, or several as 0,1") from None
    SEED.check("--seeds", seeds)
    return seeds


def _is_of_orders(
    run: Path | None, store: str | None, embeddings: Path | None, names: list[str], some: dict[str, Any]
) -> bool:
    """Return whether several models of a study are requested; `some` are the given orders and seeds."""
    from trichord.study.evaluate import refuse_model_among
    from trichord.study.trained_runs import holds_several

    if run is None or embeddings is not None or store is None:
        if any(some.values()):
            refuse_model_among(names if run is None else ())
            raise TrichordError("--orders and --seeds choose among the runs of a study; give its folder and --store")
        return False
    return any(some.values()) or holds_several(run)


def _evaluate_orders(console: Console, run: Path, *subject: Any, out: Path | None, **how: Any) -> int:
    from trichord.study.evaluate_orders import evaluate_orders
    from trichord.study.evaluation_tables import order_caption, order_tables
    from trichord.study.figures import order_figures

    found = evaluate_orders(run, *subject, out=out, say=say, **how)
    if not is_main():
        return 0
    for note in found.notes():
        show(note)
    figures = order_figures(found.runs)
    for table in order_tables(figures, list(dict.fromkeys(done.run.order for done in found.runs))):
        console.print(table)
    show(order_caption(figures))
    if out is not None:
        show(f"kept in {out}: results.json, and a folder for each order and seed")
    return 0


def _evaluate_model(console: Console, *subject: Any, save_to: Path | None, out: Path | None, **how: Any) -> int:
    from trichord.study.evaluate import evaluate, save_embeddings, write_evaluation
    from trichord.study.evaluation_tables import evaluation_tables, footer

    evaluation = evaluate(*subject, **how)
    if save_to is not None:
        save_embeddings(evaluation, save_to)
    if out is not None:
        write_evaluation(evaluation, out)
    if not is_main():
        return 0
    for note in [*evaluation.notes, *(note for done in evaluation.benchmarks for note in done.outcome.notes)]:
        show(note)
    for table in evaluation_tables(evaluation):
        console.print(table)
    if told := footer(evaluation):
        print(told)
    return 0


def doctor(words: list[str]) -> int:
    from trichord.doctor import examine

    for line in examine():
        print(line)
    return 0
