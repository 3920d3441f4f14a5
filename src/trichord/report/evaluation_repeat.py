"""The last part of a report of evaluations: the commands, as far as the files tell them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trichord.report.contents_repeat import LEVEL
from trichord.report.document import Commands, Section, Text, folded
from trichord.study.figures import System
from trichord.study.scores import Scores

PLAIN = {
    "fusion": "auto",
    "missing": "auto",
    "dual_softmax": 0.0,
    "audio_window_s": 8.0,
    "labels": "",
    "text_encoder": "",
    "seed": 0,
}


def repeat_section(systems: Sequence[System], direction: str, level: float) -> Section:
    """A command for each folder, then that of the report."""
    lines: list[str] = []
    gallery = recipe = False
    folders = list(dict.fromkeys(system.folder for system in systems))
    for folder in folders:
        mine = [system for system in systems if system.folder == folder]
        scores = mine[0].scores[0]
        gallery = gallery or any(scored.options.get("gallery") for scored in scores.benchmarks)
        recipe = recipe or scores.store is not None
        lines += command(mine, scores, folder)
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


def command(systems: Sequence[System], scores: Scores, folder: Path) -> list[str]:
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
    for name, usual in PLAIN.items():
        if (value := options.get(name, usual)) != usual and isinstance(value, str | int | float):
            told += f" --{name} {_word(str(value))}"
    if isinstance(templates := options.get("templates"), list) and templates:
        told += f" --templates {shlex.quote(json.dumps([str(t) for t in templates], ensure_ascii=False))}"
    if isinstance(windows := options.get("windows"), dict):
        names = {"count": "windows", "length_s": "window_s", "pool": "window_pool"}
        told += "".join(f" --{names[k]} {_word(str(windows[k]))}" for k in names if windows.get(k) is not None)
    return told + (" --gallery GALLERY" if options.get("gallery") else "")


def _word(text: str) -> str:
    """One word for a shell that is no option."""
    line = folded(text)
    return shlex.quote(f"./{line}" if line.startswith("-") else line)
