"""The last section of the report: data, versions and commands that reproduce the study or the evaluations, and the report."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.report.document import Cell, Commands, Section, Table, Text, columns, first_of, folded
from trichord.tasks.protocol import Options

if TYPE_CHECKING:
    from trichord.modality import Direction
    from trichord.report.reading import Study
    from trichord.study.figures import System
    from trichord.study.scores import Scores

NAMED = 8  # largest number of stages that a row of the table names
LEVEL = 0.95  # the default of `trichord report`


def repeat_section(study: Study, direction: Direction, level: float) -> Section:
    """Return the section with the commands that reproduce a study. Their paths are absolute."""
    content = study.content
    store, folder = content["store"], study.path.resolve()
    versions = ", ".join(f"{package} {number}" for package, number in content["versions"].items())
    elsewhere = places_table(study)
    last = (
        " This describes the last call. The table lists the versions and machines of other calls." if elsewhere else ""
    )
    texts = (
        f"Data: the store {store['path']}, fingerprint {store['fingerprint']}. "
        "trichord store info prints the fingerprint of a store.",
        f"Versions: {versions}.{_machine_words(content.get('machine'))}{last}",
        "The commands work in any folder of the machine on which this report was written. Change the paths if the store, the "
        "study or the report has been moved, or if the path of the store is relative, as in studies of early versions. The file "
        "recipe.yaml next to this page contains all settings. The command reads it from "
        f"{folder / 'report'}, the default folder of the report.",
        "On a CPU, the same versions, type of processor and numbers of threads and processes give bit-identical figures.",
    )
    return Section(
        "To repeat this",
        (
            Text(texts),
            *([elsewhere] if elsewhere else []),
            Commands(commands(study, direction, level)),
            Commands(tuple(recipe_text(study).splitlines()), "recipe.yaml"),
        ),
    )


def commands(study: Study, direction: Direction, level: float = LEVEL) -> tuple[str, ...]:
    """Return the shell commands that repeat all calls of a study, with the output folder NAME-again, and write its report.

    Args:
        study: Study.
        direction: Direction of the report.
        level: Level of the intervals of the report.
    """
    content = study.content
    machine = content.get("machine") or {}
    folder = study.path.resolve()
    out = _word(f"{folder}-again")
    benchmarks = [benchmark["name"] for benchmark in content["benchmarks"]]
    threads = f"OMP_NUM_THREADS={int(machine['threads'])} " if machine.get("threads") else ""
    device = " --training.device cpu" if machine.get("device") == "cpu" else ""
    lines: list[str] = []
    for orders, seeds, first in _calls(content["orders"]):
        shared = "" if first is None else f" --first_stage_seed {first}"
        lines += [
            f"{threads}trichord study --store {_word(content['store']['path'])} --out {out} \\",
            f"  --recipe {_word(str(folder / 'report' / 'recipe.yaml'))}{device} \\",
            f"  --orders {_list(orders)} --seeds {_list(seeds)} --benchmarks {_list(benchmarks)}{shared}",
        ]
    options = "" if level == LEVEL else f" --level {level!r}"
    return (*lines, f"trichord report {out} --direction {direction.code}{options}")


def _calls(entries: list[dict[str, Any]]) -> list[tuple[list[str], list[int], int | None]]:
    """Return orders, seeds and seed of the first stages of the fewest calls of `trichord study` that plan all entries.

    An order of one stage has no first stage to share and is planned together with the others.
    """
    firsts = {entry.get("first_stage_seed") for entry in entries if len(entry["stages"]) > 1}
    common = next(iter(firsts)) if len(firsts) == 1 else None
    orders_of: dict[tuple[int, int | None], list[str]] = {}
    for entry in entries:
        first = entry.get("first_stage_seed") if len(entry["stages"]) > 1 else common
        orders_of.setdefault((entry["seed"], first), []).append(entry["order"])
    seeds_of: dict[tuple[tuple[str, ...], int | None], list[int]] = {}
    for (seed, first), orders in orders_of.items():
        seeds_of.setdefault((tuple(orders), first), []).append(seed)
    return [(list(orders), seeds, first) for (orders, first), seeds in seeds_of.items()]


def _list(values: list[Any]) -> str:
    return shlex.quote(json.dumps(values, ensure_ascii=False))


def _word(text: str) -> str:
    """Return the text as one shell word that is not read as an option."""
    line = text if text.isprintable() else folded(text)
    return shlex.quote(f"./{line}" if line.startswith("-") else line)


def _machine_words(machine: dict[str, Any] | None) -> str:
    if not machine:
        return ""
    threads, processes = machine.get("threads"), machine.get("processes") or 1
    parts = [f"{threads} thread{'s' if threads != 1 else ''}"] if threads else []
    parts += [f"{processes} processes"] if processes > 1 else []
    parts += [f"on {machine['device']}"] if machine.get("device") else []
    parts += [f"({machine['processor']})"] if machine.get("processor") else []
    return f" It ran with {' '.join(parts)}." if parts else ""


def places_table(study: Study) -> Table | None:
    """Return the table of the versions and machines that trained the stages, or None if all are those of the last call."""
    last = _Place(study.content["versions"], study.content.get("machine") or {})
    places: dict[str, _Place] = {last.key: last}
    for name, stage in study.stages.items():
        for call in stage.calls if stage.finished else ():
            place = _Place(call["versions"], call["machine"])
            places.setdefault(place.key, place).add(name, call["begun"])
    if len(places) == 1:
        return None
    packages = dict.fromkeys(package for place in places.values() for package in place.versions)
    differ = [p for p in packages if len({str(place.versions.get(p)) for place in places.values()}) > 1]
    rows = [
        (
            Cell(first_of([*(["the last call"] if place is last else []), *place.stages], NAMED)),
            Cell(_machine_words(place.machine).removeprefix(" It ran with ").removesuffix(".") or "-"),
            Cell(", ".join(f"{p} {place.versions.get(p, '-')}" for p in differ) or "none"),
            Cell(place.first_day or "-"),
        )
        for place in places.values()
    ]
    labels = ("what ran", "with", "versions that differ", "from")
    caption = (
        "A stage that was continued elsewhere has several rows. The last call computed the evaluations and tables."
    )
    return Table("places", "Where it ran", columns(labels, labels), tuple(rows), caption)


@dataclass
class _Place:
    """Versions and a machine, with the stages that were trained with them."""

    versions: dict[str, Any]
    machine: dict[str, Any]
    stages: dict[str, None] = field(default_factory=dict)
    first_day: str = ""

    @property
    def key(self) -> str:
        return json.dumps([self.versions, self.machine], sort_keys=True)

    def add(self, stage: str, begun: str) -> None:
        self.stages[stage] = None
        self.first_day = min(self.first_day or begun[:10], begun[:10])


def recipe_text(study: Study) -> str:
    """Return the recipe of a study as the text of a file for `--recipe`."""
    import yaml

    return yaml.safe_dump(study.recipe, sort_keys=False, allow_unicode=True)


# ---- evaluations

PLAIN = ("fusion", "missing", "dual_softmax", "audio_window_s", "labels", "text_encoder", "seed")


def repeat_evaluations_section(systems: Sequence[System], direction: Direction | None, level: float) -> Section:
    """Return the section with the commands that reproduce each folder of evaluations, and the report."""
    lines: list[str] = []
    gallery = recipe = False
    folders = list(dict.fromkeys(system.folder for system in systems))
    for folder in folders:
        mine = [system for system in systems if system.folder == folder]
        scores = mine[0].scores[0]
        gallery = gallery or any(scored.options.get("gallery") for scored in scores.benchmarks)
        recipe = recipe or scores.store is not None
        lines += evaluation_command(mine, scores, folder)
    options = f" --direction {direction.code}" if direction is not None else ""
    options += "" if level == LEVEL else f" --level {level!r}"
    lines.append(f"trichord report {' '.join(_word(os.path.abspath(folder)) for folder in folders)}{options}")
    sentences = [
        "The commands are reconstructed from results.json. Relative paths are shown as they were given, and start at the folder in "
        "which trichord evaluate was called."
    ]
    if gallery:
        sentences.append("The list of clips that was given with --gallery was not saved: replace GALLERY by its file.")
    if recipe:
        sentences.append(
            "A recipe that was given with --recipe was not saved. Without it, a run is scored with its own recipe."
        )
    return Section("To repeat this", (Text((" ".join(sentences),)), Commands(tuple(lines))))


def evaluation_command(systems: Sequence[System], scores: Scores, folder: Path) -> list[str]:
    """Return the shell commands of `trichord evaluate` that reproduce a folder.

    Benchmarks with the same options share a call. An edited file may list benchmarks with different options, which have separate
    calls.

    Args:
        systems: Systems of the folder.
        scores: Scores of its first model.
        folder: Output folder of the command.
    """
    if scores.store is None:
        head = f"trichord evaluate --embeddings {_word(scores.subject)}"
    else:
        head = (
            f"trichord evaluate {_word(systems[0].study or scores.subject)} --store {_word(str(scores.store['path']))}"
        )
    calls: dict[str, list[str]] = {}
    for scored in scores.benchmarks:
        calls.setdefault(_options(scored.options), []).append(scored.name)
    lines = []
    for options, names in calls.items():
        first = f"{head} \\"
        lines += [
            first,
            f"  --benchmark {' '.join(_word(name) for name in names)}{options} --out {_word(os.path.abspath(folder))}",
        ]
    return lines


def _options(options: dict[str, Any]) -> str:
    words = ""
    directions = options.get("directions")
    if isinstance(directions, list) and directions:
        words += f" --directions {shlex.quote(json.dumps([str(code) for code in directions]))}"
    for name in PLAIN:
        usual = getattr(Options, name)
        if (value := options.get(name, usual)) != usual and isinstance(value, str | int | float):
            words += f" --{name} {_word(str(value))}"
    if isinstance(templates := options.get("templates"), list) and templates:
        words += f" --templates {shlex.quote(json.dumps([str(t) for t in templates], ensure_ascii=False))}"
    if isinstance(windows := options.get("windows"), dict):
        names = {"count": "windows", "length_s": "window_s", "pool": "window_pool"}
        words += "".join(f" --{names[k]} {_word(str(windows[k]))}" for k in names if windows.get(k) is not None)
    return words + (" --gallery GALLERY" if options.get("gallery") else "")
