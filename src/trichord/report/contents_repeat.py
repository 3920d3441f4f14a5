"""The report's last part: the data, versions and commands that give the same study, evaluations and report again."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.report.document import Cell, Column, Commands, Section, Table, Text, folded
from trichord.tasks.protocol import Options

if TYPE_CHECKING:
    from trichord.report.reading import Study
    from trichord.study.figures import System
    from trichord.study.scores import Scores

NAMED = 8  # stages that a row of the table names; of more it gives the number
LEVEL = 0.95  # what `trichord report` takes by itself


def repeat_section(study: Study, direction: str, level: float) -> Section:
    """Commands that work in any folder: their paths are absolute."""
    content = study.content
    store, folder = content["store"], study.path.resolve()
    versions = ", ".join(f"{package} {number}" for package, number in content["versions"].items())
    elsewhere = places_table(study)
    last = " That is the last call; the table tells where stages were trained otherwise." if elsewhere else ""
    texts = (
        f"Data: the store {store['path']}, fingerprint {store['fingerprint']}. "
        "trichord store info prints a store's fingerprint.",
        f"Versions: {versions}.{_machine_words(content.get('machine'))}{last}",
        "The commands work in any folder of the machine on which this report was written. Where the store, the study or the "
        "report was moved since, or the store's path is not absolute (as earlier versions recorded it), put the path of today. "
        "The recipe, every setting resolved, lies beside this page as recipe.yaml; the command takes it from "
        f"{folder / 'report'}, where a report lies unless it was written elsewhere.",
        "On a CPU the same versions, kind of processor, number of threads and of processes give the same figures bit for bit.",
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


def commands(study: Study, direction: str, level: float = LEVEL) -> tuple[str, ...]:
    """Lines for a shell: the study again into NAME-again, call by call, and its report."""
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
    wished = "" if level == LEVEL else f" --level {level!r}"
    return (*lines, f"trichord report {out} --direction {shlex.quote(direction)}{wished}")


def _calls(entries: list[dict[str, Any]]) -> list[tuple[list[str], list[int], int | None]]:
    """(orders, seeds, seed of the first stages) of as few calls of `trichord study` as plan all the entries.

    An order of one stage has no first stage to share: it goes with the others.
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
    """One word for a shell that is no option."""
    line = text if text.isprintable() else folded(text)
    return shlex.quote(f"./{line}" if line.startswith("-") else line)


def _machine_words(machine: dict[str, Any] | None) -> str:
    if not machine:
        return ""
    threads, processes = machine.get("threads"), machine.get("processes") or 1
    told = [f"{threads} thread{'s' if threads != 1 else ''}"] if threads else []
    told += [f"{processes} processes"] if processes > 1 else []
    told += [f"on {machine['device']}"] if machine.get("device") else []
    told += [f"({machine['processor']})"] if machine.get("processor") else []
    return f" It ran with {' '.join(told)}." if told else ""


def places_table(study: Study) -> Table | None:
    """Versions and machines of the calls that trained the stages, where they are not all those of the last call."""
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
            Cell(_shortened([*(["the last call"] if place is last else []), *place.stages])),
            Cell(_machine_words(place.machine).removeprefix(" It ran with ").removesuffix(".") or "-"),
            Cell(", ".join(f"{p} {place.versions.get(p, '-')}" for p in differ) or "all alike"),
            Cell(place.first_day or "-"),
        )
        for place in places.values()
    ]
    columns = tuple(Column(label, numeric=False) for label in ("what ran", "with", "versions that differ", "from"))
    caption = "A stage that was stopped and went on elsewhere is in several rows. Evaluations and the table are of the last call."
    return Table("places", "Where it ran", columns, tuple(rows), caption)


@dataclass
class _Place:
    """Versions and a machine, and the stages that a call with them trained."""

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


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def recipe_text(study: Study) -> str:
    """The study's recipe as a file that `--recipe` takes."""
    import yaml

    return yaml.safe_dump(study.recipe, sort_keys=False, allow_unicode=True)


# ---- evaluations

PLAIN = ("fusion", "missing", "dual_softmax", "audio_window_s", "labels", "text_encoder", "seed")


def repeat_evaluations_section(systems: Sequence[System], direction: str, level: float) -> Section:
    """A command for each folder, then that of the report."""
    lines: list[str] = []
    gallery = recipe = False
    folders = list(dict.fromkeys(system.folder for system in systems))
    for folder in folders:
        mine = [system for system in systems if system.folder == folder]
        scores = mine[0].scores[0]
        gallery = gallery or any(scored.options.get("gallery") for scored in scores.benchmarks)
        recipe = recipe or scores.store is not None
        lines += evaluation_command(mine, scores, folder)
    wished = f" --direction {_word(direction)}" if direction else ""
    wished += "" if level == LEVEL else f" --level {level!r}"
    lines.append(f"trichord report {' '.join(_word(os.path.abspath(folder)) for folder in folders)}{wished}")
    told = [
        "What was called is known as far as results.json tells it. A path that is not absolute is as it was given then: it counts "
        "from the folder in which trichord evaluate was called."
    ]
    if gallery:
        told.append("--gallery took a list of clips, of which the number alone was kept: put its file for GALLERY.")
    if recipe:
        told.append("A --recipe that was given is not kept; a run brings its own.")
    return Section("To repeat this", (Text((" ".join(told),)), Commands(tuple(lines))))


def evaluation_command(systems: Sequence[System], scores: Scores, folder: Path) -> list[str]:
    """Lines for a shell: `trichord evaluate` as it made a folder. Options that benchmarks share are given once; benchmarks that
    were scored with other options, as an edited file may tell, have a call of their own."""
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
    told = ""
    directions = options.get("directions")
    if isinstance(directions, list) and directions:
        told += f" --directions {shlex.quote(json.dumps([str(code) for code in directions]))}"
    for name in PLAIN:
        usual = getattr(Options, name)
        if (value := options.get(name, usual)) != usual and isinstance(value, str | int | float):
            told += f" --{name} {_word(str(value))}"
    if isinstance(templates := options.get("templates"), list) and templates:
        told += f" --templates {shlex.quote(json.dumps([str(t) for t in templates], ensure_ascii=False))}"
    if isinstance(windows := options.get("windows"), dict):
        names = {"count": "windows", "length_s": "window_s", "pool": "window_pool"}
        told += "".join(f" --{names[k]} {_word(str(windows[k]))}" for k in names if windows.get(k) is not None)
    return told + (" --gallery GALLERY" if options.get("gallery") else "")
