"""Commands that score models, write reports and check the installation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.cli.command import NOTHING, command
from trichord.cli.launch import is_main
from trichord.cli.parsing import parts_of, seeds_of, show
from trichord.errors import TrichordError

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
    """Write the report of a study or of evaluations as one HTML page that opens offline, and as Markdown, LaTeX, JSON and CSV.

    Args:
        folders: Study folder, or one or more --out folders of `trichord evaluate`.
        out: Folder of the report. By default, FOLDER/report.
        direction: Direction of the main table, such as t2v. By default, the first direction that was scored.
        level: Confidence level of all intervals.
        compare: Report the differences between study A and study B. For two evaluations, this equals giving both as FOLDER.
            By default, no studies are compared.
    """
    if bool(folders) == (compare is not None):
        raise TrichordError(
            "give a study folder, folders of evaluations, or --compare with two studies; see trichord report --help"
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
    """Score a run, all orders of a study, a published .pth checkpoint, or embeddings from a file on benchmarks.

    Args:
        run: Run, study or stage folder, or a published .pth file. Required if --embeddings is not given.
        store: Store with the clips: a folder, or a URL (s3://...). Required if --embeddings is not given.
        benchmark: Benchmarks: a name shown by --list, NAME:COLLECTION/SPLIT, or COLLECTION/SPLIT. By default, all held-out
            clips.
        benchmarks: Benchmarks as a list, or separated by commas. Empty: those of --benchmark.
        orders: Orders of a study to score, such as 'av>t' or 'av>t,vt>a'. Empty: all.
        seeds: Seeds of a study to score, such as 0 or 0,1. Empty: all.
        list: List the benchmarks and exit.
        explain: Explain the protocol of a benchmark and exit.
        embeddings: File of embeddings, .safetensors or .npz. If it is given, it is scored instead of a run and a store.
        save_embeddings: File to which the embeddings of the scored clips are written. By default, they are not saved.
        directions: Retrieval directions, such as [t2v,t2va], or all. Empty: those of the recipe.
        fusion: Fusion of several modalities: sum, mean_normalized, or auto (as in training).
        dual_softmax: Scale of the dual softmax, such as 100. Its scores depend on all queries of the benchmark. 0: no dual
            softmax.
        missing: Treatment of clips that lack a modality: drop (excluded), miss (errors), or auto (policy of the benchmark).
        gallery: File with the ids of the clips to score, one per line. By default, all clips.
        windows: Number of windows that longer clips are cut into (MIL-NCE uses 10). 0: no windows.
        window_s: Duration of the windows in seconds. By default, the shortest clip of the recipe.
        window_pool: Pooling of the embeddings of windows: mean or max.
        audio_window_s: Duration of the sound around each second that is searched for steps, in seconds.
        labels: Labels of the clips: .csv, .jsonl, world.json, or a folder of official lists. By default, those in the file of
            embeddings, or the folders of the videos.
        templates: Texts around class names: 'a video of {}', or several as ['{} in a video','a photo of {}']. Empty: the name
            only.
        text_encoder: Encoder of step texts and class names, such as st:all-minilm-l6-v2. Empty: the encoder recorded in the store.
        recipe: Recipe that defines how clips are read and scored. By default, that of the training; for a published checkpoint,
            mcn.
        seed: Random seed for benchmarks that sample clips or windows.
        out: Folder for results and per-query files; a .json file contains only the rows. By default, the results are only
            printed.
    """
    from rich.console import Console

    from trichord.evaluation import embedded
    from trichord.study.evaluation_files import check_target, read_gallery
    from trichord.study.evaluation_tables import protocols_table
    from trichord.tasks.protocol import Options
    from trichord.tasks.registry import explanation_of

    selection: dict[str, Any] = {"orders": parts_of(orders), "seeds": seeds_of(seeds)}
    console = Console(width=None if sys.stdout.isatty() else 120)
    if list:
        console.print(protocols_table(console.width))
        show("\nTo use your clips: NAME:COLLECTION/SPLIT. To read the protocol: --explain NAME")
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
    settings: dict[str, Any] = {"directions": directions, "recipe": recipe, "options": options}
    settings |= {"num_windows": windows, "window_s": window_s, "window_pool": window_pool}
    names = [*benchmark, *parts_of(benchmarks)]
    if _is_of_orders(run, store, embeddings, names, selection):
        assert run is not None
        if save_embeddings is not None:
            raise TrichordError(
                f"{save_embeddings}: a file of embeddings cannot contain several models; give the folder of one stage"
            )
        return _evaluate_orders(console, run, store, names, out=out, **selection, **settings)
    return _evaluate_model(
        console, run, store, names, embeddings=embeddings, save_to=save_embeddings, out=out, **settings
    )


def _is_of_orders(
    run: Path | None, store: str | None, embeddings: Path | None, names: list[str], selection: dict[str, Any]
) -> bool:
    """Return whether several models of a study are requested; `selection` contains the given orders and seeds."""
    from trichord.study.evaluate import refuse_model_among
    from trichord.study.trained_runs import holds_several

    if run is None or embeddings is not None or store is None:
        if any(selection.values()):
            refuse_model_among(names if run is None else ())
            raise TrichordError("--orders and --seeds select runs of a study; give the study folder and --store")
        return False
    return any(selection.values()) or holds_several(run)


def _evaluate_orders(console: Console, run: Path, *subject: Any, out: Path | None, **settings: Any) -> int:
    from trichord.study.evaluate_orders import evaluate_orders
    from trichord.study.evaluation_tables import order_caption, order_tables
    from trichord.study.figures import order_figures

    evaluations = evaluate_orders(run, *subject, out=out, **settings)
    if not is_main():
        return 0
    for note in evaluations.notes():
        show(note)
    figures = order_figures(evaluations.runs)
    for table in order_tables(figures, list(dict.fromkeys(done.run.order for done in evaluations.runs))):
        console.print(table)
    show(order_caption(figures))
    if out is not None:
        show(f"results written to {out}: results.json, and a folder for each order and seed")
    return 0


def _evaluate_model(console: Console, *subject: Any, save_to: Path | None, out: Path | None, **settings: Any) -> int:
    from trichord.study.evaluate import evaluate, save_embeddings
    from trichord.study.evaluation import write_evaluation
    from trichord.study.evaluation_tables import evaluation_tables, footer

    evaluation = evaluate(*subject, **settings)
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
    if footer_text := footer(evaluation):
        print(footer_text)
    return 0


def doctor(words: list[str]) -> int:
    """Run `trichord doctor`."""
    if words and words[0] not in ("-h", "--help"):
        raise TrichordError(f"doctor takes no arguments, but {words[0]} was given; run `trichord doctor`")
    if words:
        print(
            "usage: trichord doctor\n\nCheck the installation, and print the commands that install missing parts.\n"
            "Example: trichord doctor"
        )
        return 0
    from trichord.doctor import examine

    for line in examine():
        print(line)
    return 0
