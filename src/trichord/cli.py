"""The command line: parse, call one function of the library, print. No command imports more than it needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trichord.errors import TrichordError, disk_error, one_line, printable, writing

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from trichord.recipes import Recipe

USAGE = """\
usage: trichord COMMAND [ARGUMENTS] [--debug]

In which order should video, audio and text be combined? Train in stages, compare the orders.

commands:
  demo       render the built-in world, run the study on it, print the order table
  world      write the built-in world: narrated how-to videos as real files
  import     bring published features or data into a store: howto100m, youcook2, msrvtt, lsmdc, stamps, webdataset, npy
  extract    features of a folder of narrated videos, or of a table of clips, into a store
  train      train one order, e.g. av>t
  freeze     compute ahead what later stages will read of a run's trained encoders: on other machines, or on Ray
  evaluate   score a model, a published checkpoint or a file of embeddings, on the benchmarks of the field
  study      train and compare orders, print the order table
  report     one page of a study: intervals, comparisons, curves, the joint space; or of what two studies differ in
  reproduce  run a diverged training step again, and say where the numbers stop being finite
  store      info STORE, verify STORE, export STORE --out DIR (published layouts, webdataset, npy)
  doctor     what works here, what is missing, and the command that mends it

example, from videos to the table:
  trichord extract my_videos --store my_store
  trichord study --store my_store --out my_study --recipe small

trichord COMMAND --help explains a command; --version prints the version; --debug shows tracebacks."""


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, or 2 after a user's mistake (one line on standard error)."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"trichord {version('trichord')}")
        return 0
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    try:
        return _run(words[0], words[1:])
    except TrichordError as error:
        return _fail(error, debug)
    except KeyboardInterrupt:
        if _tells():
            print("trichord: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        if told := disk_error(error) or _loss_of_others(error):
            return _fail(told, debug, error)
        return _fail(
            f"{type(error).__name__}: {error} (a defect, or an input nobody thought of; --debug shows where)",
            debug,
            error,
        )


def _fail(message: object, debug: bool, error: Exception | None = None) -> int:
    if debug:
        raise error if error is not None else message  # type: ignore[misc]
    if _tells():
        print(f"trichord: error: {one_line(message)}", file=sys.stderr, flush=True)
    return 2


def _is_launched() -> bool:
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def _tells() -> bool:
    """Whether it is for this process to say why the launch fails."""
    if not _is_launched():
        return True
    from trichord.parallel import first_to_fail

    return first_to_fail()


def _loss_of_others(error: Exception) -> str | None:
    if not _is_launched():
        return None
    from trichord.parallel import loss_of_others

    return loss_of_others(error)


def _is_main() -> bool:
    """Whether this process prints results; of several, all have come as far then, and part."""
    if not _is_launched():
        return True
    from trichord.parallel import is_main, leave

    main = is_main()
    leave()
    return main


def _run(command: str, words: list[str]) -> int:
    if command not in COMMANDS:
        raise TrichordError(f"no command '{command}'; known are {', '.join(COMMANDS)}: see trichord --help")
    return COMMANDS[command](words) or 0


def _parser(command: str, description: str, example: str) -> ArgumentParser:
    from jsonargparse import ArgumentParser

    text = f"{description} Example: {example}"
    return ArgumentParser(prog=f"trichord {command}", description=text, exit_on_error=False, allow_abbrev=False)


def _parse(parser: ArgumentParser, words: list[str]) -> Namespace:
    import argparse

    try:
        return parser.parse_args(words)
    except (argparse.ArgumentError, TypeError, ValueError, KeyError) as error:
        if isinstance(error, TrichordError):
            raise
        raise TrichordError(f"{_with_dashes(parser, one_line(error))}; see {parser.prog} --help") from None


def _with_dashes(parser: ArgumentParser, text: str) -> str:
    """'... are required: out' -> '... are required: --out', as a user types it."""
    head, mark, names = text.partition("arguments are required: ")
    options = {option for action in parser._actions for option in action.option_strings}
    shown = [f"--{name}" if f"--{name}" in options else name for name in names.split(", ")]
    return head + mark + ", ".join(shown)


def _say(line: str) -> None:
    """Print a line of progress. A reader that has gone (`| head`) does not end the work."""
    try:
        print(printable(line), flush=True)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends


def _show(result: object) -> None:
    """Print lines of a result. Names in it come from files: what a terminal would obey is escaped."""
    print("\n".join(map(printable, str(result).split("\n"))))


def _call(
    function: Callable[..., Any], command: str, words: list[str], *, positional: tuple[str, ...], example: str
) -> Any:
    """Build the command line of a library function from its signature, parse, call."""
    parser = _parser(command, one_line((function.__doc__ or "").split("\n\n")[0]), example)
    for name in positional:
        parser.add_argument(name, type=str if name == "store" else Path)
    parser.add_function_arguments(function, skip={*positional, "progress"}, fail_untyped=False)
    values = _parse(parser, _as_typed(function, words)).as_dict()
    with writing(values.get("out") or values.get("store")):
        return function(**{k: v for k, v in values.items() if k != "config"}, progress=_say)


def _as_typed(function: Callable[..., Any], words: list[str]) -> list[str]:
    """`--dry-run` as `--dry_run true`: dashes as people type them, and switches that stand alone."""
    import inspect

    annotations = {name: p.annotation for name, p in inspect.signature(function).parameters.items()}
    typed: list[str] = []
    for index, word in enumerate(words):
        head, equals, value = word.partition("=")
        if word.startswith("--"):
            head = "--" + head[2:].replace("-", "_")
        typed.append(head + equals + value)
        after = words[index + 1] if index + 1 < len(words) else ""
        is_switch = annotations.get(head[2:]) in ("bool", bool) and not equals
        if is_switch and after.lower() not in ("true", "false", "yes", "no"):
            typed.append("true")
    return typed


def _world(words: list[str]) -> int:
    from trichord.world import write_world

    _show(
        _call(
            write_world,
            "world",
            words,
            positional=("out",),
            example="trichord world my_world --num_train 60 --num_test 40",
        )
    )
    return 0


def _extract(words: list[str]) -> int:
    from trichord.extraction.extract import extract

    if words in (["--list-encoders"], ["--list_encoders"]):
        from trichord.extraction.choice import list_encoders

        print("\n".join(list_encoders()))
        return 0
    example = "trichord extract my_videos --store my_store --dry-run"
    summary = _call(extract, "extract", words, positional=("videos",), example=example)
    _show(summary)
    return 130 if getattr(summary, "interrupted", False) else 0


def _import(words: list[str]) -> int:
    from trichord.extraction.stamps import import_stamps
    from trichord.releases import IMPORTERS

    importers: dict[str, Callable[..., Any]] = {**IMPORTERS, "stamps": import_stamps}
    if not words or words[0] in ("-h", "--help"):
        print(
            f"usage: trichord import {{{','.join(importers)}}} --root DIR --store STORE\n"
            "trichord import NAME --help explains one"
        )
        return 0
    if words[0] not in importers:
        raise TrichordError(f"no importer '{words[0]}'; known are {', '.join(importers)}")
    options = {
        "stamps": "--root stamps --language es",
        "webdataset": "--root shards",
        "npy": "--root arrays",
    }.get(words[0], "--root release --words GoogleNews-vectors-negative300.bin")
    example = f"trichord import {words[0]} {options} --store my_store"
    summary = _call(importers[words[0]], f"import {words[0]}", words[1:], positional=(), example=example)
    _show(summary)
    return 130 if getattr(summary, "interrupted", False) else 0


def _store(words: list[str]) -> int:
    from trichord.store.inspect import store_info, verify

    if words[:1] == ["export"]:
        from trichord.releases.export import export_store

        example = "trichord store export my_store --out release --layout howto100m"
        _show(_call(export_store, "store export", words[1:], positional=("store",), example=example))
        return 0
    if len(words) != 2 or words[0] not in ("info", "verify"):
        if words and words[0] not in ("-h", "--help"):
            raise TrichordError(
                "give `trichord store info STORE`, `trichord store verify STORE` or `store export STORE`"
            )
        print("usage: trichord store {info,verify} STORE\n       trichord store export STORE --out DIR --layout LAYOUT")
        return 0
    if words[0] == "info":
        _show(store_info(words[1]))
        return 0
    problems = verify(words[1])
    for problem in problems:
        _show(problem)
    if problems:
        raise TrichordError(f"{words[1]}: {len(problems)} problem(s), listed above")
    print(f"{words[1]}: sound")
    return 0


def _recipe_parser(command: str, description: str, example: str, words: list[str], default: str) -> ArgumentParser:
    """A parser with every recipe setting as a dotted option, whose defaults are those of `--recipe`."""
    from jsonargparse import ActionConfigFile

    from trichord.recipes import Recipe, load_recipe, recipe_names, refuse_renamed

    parser = _parser(command, description, example)
    for word in words:
        refuse_renamed(word.partition("=")[0].removeprefix("--"), "the command line")
    name = _value_of("--recipe", words) or default
    parser.add_argument("--recipe", type=str, default=name, help=f"One of {', '.join(recipe_names())}, or a YAML file.")
    parser.add_argument("--config", action=ActionConfigFile, help="A file as --print_config prints it.")
    parser.add_class_arguments(Recipe)
    parser.set_defaults(
        {f"{group}.{key}": v for group, values in load_recipe(name).to_dict().items() for key, v in values.items()}
    )
    return parser


def _value_of(option: str, words: list[str]) -> str | None:
    for index, word in enumerate(words):
        if word == option and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _recipe_of(values: Namespace) -> Recipe:
    from dataclasses import fields

    from trichord.recipes import Recipe, recipe_from_dict

    plain = values.as_dict()
    return recipe_from_dict({f.name: plain[f.name] for f in fields(Recipe)}, source=str(values.recipe))


def _train(words: list[str]) -> int:
    example = "trichord train --store my_store --out my_run --order 'av>t' --recipe debug --training.epochs 3"
    parser = _recipe_parser("train", "Train one order, stage by stage.", example, words, "debug")
    parser.add_argument(
        "--store", type=str, required=True, help="The store to train on: a folder, or a URL (s3://...)."
    )
    parser.add_argument("--out", type=Path, required=True, help="Run folder.")
    parser.add_argument("--order", type=str, default="av>t", help="E.g. av>t, at>v, vt>a, avt.")
    parser.add_argument("--seed", type=int, default=0, help="Of initial weights, batches and clustering.")
    parser.add_argument("--resume", action="store_true", help="Go on where the run of --out stopped.")
    values = _parse(parser, words)
    from trichord.study.run import train_order

    summary = train_order(
        values.store, values.out, values.order, values.seed, _recipe_of(values), resume=values.resume, say=None
    )
    if not _is_main():
        return 0
    print(f"{summary.order}: {summary.num_steps} steps; the model lies in {summary.model_folder}")
    print(f"next: trichord evaluate {summary.model_folder} --store {values.store}")
    return 0


def _study(words: list[str]) -> int:
    example = "trichord study --store my_store --out my_study --recipe debug --seeds '[0,1,2]'"
    parser = _recipe_parser(
        "study", "Train and compare orders; a second call goes on where the first stopped.", example, words, "debug"
    )
    parser.add_argument(
        "--store",
        type=str,
        required=True,
        help="The store to train and evaluate on: a folder, or a URL (s3://...).",
    )
    parser.add_argument("--out", type=Path, required=True, help="Study folder.")
    parser.add_argument(
        "--orders", type=list[str], default=["av>t", "at>v", "vt>a", "avt"], help="Orders; avt is the joint reference."
    )
    parser.add_argument("--seeds", type=list[int], default=[0], help="Each order is trained once per seed.")
    parser.add_argument(
        "--benchmarks", type=list[str], default=[], help="Names; empty takes all that the store has clips for."
    )
    parser.add_argument(
        "--first_stage_seed", type=int | None, default=None, help="Let all seeds share first stages of this seed."
    )
    parser.add_argument("--resume", action="store_true", help="Accepted for symmetry: a study always goes on.")
    values = _parse(parser, words)
    from trichord.study.run import run_study

    table = run_study(
        values.store, values.out, values.orders, values.seeds, _recipe_of(values),
        benchmarks=values.benchmarks or None, first_stage_seed=values.first_stage_seed,
    )  # fmt: skip
    if not _is_main():
        return 0
    print_study(table, values.out)
    print(f"next: trichord report {values.out}")
    return 0


def print_study(table: Any, out: Path) -> None:
    from rich.console import Console

    from trichord.study.table import to_rich

    Console(width=None if sys.stdout.isatty() else 120).print(to_rich(table))
    _show(table.caption)
    print(f"table: {out / 'table.md'} (also table.csv, table.tex, study.json, orders.png)")


def _report(words: list[str]) -> int:
    parser = _parser(
        "report",
        "Write the report of a study: one HTML page that opens offline, and the same as Markdown, LaTeX, JSON and CSV.",
        "trichord report my_study; trichord report --compare my_study other_study",
    )
    parser.add_argument("study", type=Path | None, nargs="?", default=None, help="Study folder.")
    parser.add_argument("--out", type=Path | None, default=None, help="Folder of the report; default STUDY/report.")
    parser.add_argument(
        "--direction", type=str, default="", help="Of the main table, e.g. t2v; default the recipe's first."
    )
    parser.add_argument("--level", type=float, default=0.95, help="Of all intervals.")
    parser.add_argument(
        "--compare", type=Path, nargs=2, default=None, metavar=("A", "B"), help="What changed from study A to B."
    )
    values = _parse(parser, words)
    options = {"direction": values.direction, "level": values.level}
    if (values.study is None) == (values.compare is None):
        raise TrichordError("give a study folder, or --compare and two of them; see trichord report --help")
    from trichord.report.write import write_comparison, write_report

    if values.compare is not None:
        first, second = values.compare
        _show(write_comparison(first, second, values.out, **options))
        return 0
    _show(write_report(values.study, values.out, **options))
    return 0


def _evaluate(words: list[str]) -> int:
    parser = _parser(
        "evaluate",
        "Score a run, a published .pth checkpoint, or embeddings from a file, on benchmarks.",
        "trichord evaluate my_run --store my_store --benchmark youcook2 --directions all --out results; "
        "trichord evaluate --list; trichord evaluate --embeddings theirs.npz",
    )
    parser.add_argument(
        "run", type=Path | None, nargs="?", help="Run, study or stage folder, or a published .pth file."
    )
    parser.add_argument("--store", type=str | None, help="Store with the clips: a folder, or a URL (s3://...).")
    parser.add_argument(
        "--benchmark", type=str, nargs="+", default=[], metavar="NAME",
        help="As --list shows them, NAME:COLLECTION/SPLIT, or COLLECTION/SPLIT; none takes all that is held out.",
    )  # fmt: skip
    parser.add_argument("--benchmarks", type=list[str], default=[], help="The same as one list.")
    parser.add_argument("--list", action="store_true", help="List the benchmarks, and end.")
    parser.add_argument("--explain", type=str | None, metavar="NAME", help="Tell a benchmark's protocol, and end.")
    parser.add_argument(
        "--embeddings", type=Path | None, help="A .safetensors or .npz file in place of a run and a store."
    )
    parser.add_argument("--save_embeddings", type=Path | None, help="Write such a file of the clips that were scored.")
    parser.add_argument(
        "--directions", type=list[str] | str, default=[], help="E.g. [t2v,t2va]; all; empty takes the recipe's."
    )
    parser.add_argument(
        "--fusion", type=str, default="auto", help="Of several modalities: sum, mean_normalized; auto: as in training."
    )
    parser.add_argument(
        "--dual_softmax", type=float, default=0.0, help="Its scale, e.g. 100; uses the whole set of queries."
    )
    parser.add_argument("--missing", type=str, default="auto", help="drop, miss, or auto: as the benchmark has it.")
    parser.add_argument("--gallery", type=Path | None, help="File with the ids of the clips that count, one a line.")
    parser.add_argument("--windows", type=int, default=0, help="Cut longer clips into so many windows (MIL-NCE: 10).")
    parser.add_argument("--window_s", type=float | None, help="Their length; default the recipe's shortest clip.")
    parser.add_argument("--window_pool", type=str, default="mean", help="mean or max of the windows' embeddings.")
    parser.add_argument(
        "--recipe", type=str | None, default=None, help="For a published checkpoint: how clips are read (default mcn)."
    )
    parser.add_argument("--seed", type=int, default=0, help="Of what a benchmark draws.")
    parser.add_argument(
        "--out", type=Path | None, default=None, help="Folder for results and per-query files; a .json takes the rows."
    )
    values = _parse(parser, [word.replace("--save-embeddings", "--save_embeddings") for word in words])
    from rich.console import Console

    from trichord.evaluation.protocol import Options
    from trichord.evaluation.registry import find_protocol
    from trichord.study.evaluate import evaluate, read_gallery, save_embeddings, write_evaluation
    from trichord.study.evaluation_tables import evaluation_tables, protocols_table

    console = Console(width=None if sys.stdout.isatty() else 120)
    if values.list:
        console.print(protocols_table())
        return 0
    if values.explain is not None:
        print(find_protocol(values.explain).explanation())
        return 0
    gallery = None if values.gallery is None else read_gallery(values.gallery)
    evaluation = evaluate(
        values.run, values.store, [*values.benchmark, *values.benchmarks],
        embeddings=values.embeddings, directions=values.directions, recipe=values.recipe,
        options=Options(
            fusion=values.fusion, dual_softmax=values.dual_softmax, missing=values.missing, gallery=gallery, seed=values.seed
        ),
        num_windows=values.windows, window_s=values.window_s, window_pool=values.window_pool,
    )  # fmt: skip
    if values.save_embeddings is not None:
        save_embeddings(evaluation, values.save_embeddings)
    if values.out is not None:
        write_evaluation(evaluation, values.out)
    if not _is_main():
        return 0
    for note in [*evaluation.notes, *(note for done in evaluation.benchmarks for note in done.outcome.notes)]:
        _show(note)
    for table in evaluation_tables(evaluation):
        console.print(table)
    print("Recalls and chance in percent; ranks count from 1.")
    return 0


def _freeze(words: list[str]) -> int:
    parser = _parser(
        "freeze",
        "Compute what later stages will read of a run's trained encoders; several processes and machines share the work.",
        "trichord freeze my_study --store my_store --order 'av>t'",
    )
    parser.add_argument("run", type=Path, help="Run, study or stage folder.")
    parser.add_argument("--store", type=str, required=True, help="The store that it is trained on: a folder, or a URL.")
    parser.add_argument(
        "--order", type=str | None, default=None, help="Only for its later stages; without it for all that may follow."
    )
    parser.add_argument("--device", type=Literal["auto", "cpu"], default="auto", help="Where to compute.")
    parser.add_argument(
        "--ray", type=str | None, default=None,
        help="Let a Ray cluster do it: auto (the one that runs here), local, HOST:PORT or ray://HOST:PORT.",
    )  # fmt: skip
    parser.add_argument("--workers", type=int | None, default=None, help="On Ray; without it as many as have room.")
    values = _parse(parser, words)
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
        say=_say,
    )
    if _is_main() and ready:
        print(f"ready for later stages: {', '.join(path.name for path in ready)} in {ready[0].parent}")
    return 0


def _reproduce(words: list[str]) -> int:
    parser = _parser(
        "reproduce",
        "Run a diverged step again from what it left, and say where the numbers stop being finite.",
        "trichord reproduce my_study/stages/STAGE/divergence",
    )
    parser.add_argument("dump", type=Path, help="The folder `divergence` of a stage, or the stage folder.")
    values = _parse(parser, words)
    from trichord.study.reproduce import reproduce

    _show(reproduce(values.dump))
    return 0


def _demo(words: list[str]) -> int:
    from trichord.demo import run_demo

    table, out = _call(run_demo, "demo", words, positional=(), example="trichord demo --out demo")
    print_study(table, out)
    return 0


def _doctor(words: list[str]) -> int:
    from trichord.doctor import examine

    for line in examine():
        print(line)
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": _demo,
    "world": _world,
    "import": _import,
    "extract": _extract,
    "train": _train,
    "freeze": _freeze,
    "evaluate": _evaluate,
    "study": _study,
    "report": _report,
    "reproduce": _reproduce,
    "store": _store,
    "doctor": _doctor,
}
