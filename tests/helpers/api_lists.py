"""The public API, read from the code: imports, methods, commands with their options, settings, and the contents of files.

`python tests/helpers/api_lists.py` updates the tables of docs/api.md, and `test_api.py` compares them with the code. A name that is
removed or renamed is a change that users notice: imports keep working for one release with a DeprecationWarning.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import pkgutil
import re
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import trichord
from paths import FIXTURES, ROOT
from trichord.cli import COMMANDS, main
from trichord.recipes import Recipe

Lists = dict[str, tuple[str, ...]]

DOCUMENT = ROOT / "docs" / "api.md"

EARLIER, SAMPLE = FIXTURES / "earlier.tar.xz", FIXTURES / "earlier-figures.tar.xz"
TABLES = ("runs", "stages", "costs", "differences")  # tables whose columns do not depend on what was evaluated
SUBCOMMANDS = {
    "import": (
        "howto100m", "youcook2", "msrvtt", "lsmdc", "crosstask", "mining-youtube", "actions", "world-steps", "stamps",
        "webdataset", "npy",
    ),
    "store": ("info", "verify", "export"),
}  # fmt: skip
_OPTION = re.compile(r"^  (?:-\w, )?(--[a-z][\w.-]*)", re.MULTILINE)
_IMPORT = re.compile(r"^ *from (trichord[\w.]*) import ([\w, ]+)", re.MULTILINE)
_SETTINGS = re.compile(r"--(?:model|data|loss|training|later_stages|evaluation)(?:\.|$)")


def imports() -> Lists:
    """Return the public names of each module."""
    names_by_module = {"trichord": tuple(trichord.__all__)}
    for info in pkgutil.iter_modules(trichord.__path__, "trichord."):
        if info.ispkg and (names := getattr(importlib.import_module(info.name), "__all__", None)):
            names_by_module[info.name] = tuple(names)
    for module, names in imports_in_documentation().items():
        names_by_module[module] = tuple(dict.fromkeys((*names_by_module.get(module, ()), *names)))
    return names_by_module


def methods() -> Lists:
    """Return the public methods and properties of each class, without inherited ones."""
    return {"trichord.Embedder": tuple(name for name in vars(trichord.Embedder) if not name.startswith("_"))}


def imports_in_documentation() -> Lists:
    """Return the names of each module that the README and the pages of docs import."""
    names_by_module: dict[str, list[str]] = {}
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for module, names in _IMPORT.findall(path.read_text()):
            names_by_module.setdefault(module, []).extend(re.split(r", *", names.strip()))
    return {module: tuple(dict.fromkeys(names)) for module, names in sorted(names_by_module.items())}


def options() -> Lists:
    """Return the options of each command, without those of settings, which `settings` returns."""
    words = [[name] for name in COMMANDS if name not in SUBCOMMANDS]
    words += [[name, sub] for name, subs in SUBCOMMANDS.items() for sub in subs]
    return {" ".join(command): options_of(command) for command in sorted(words)}


def options_of(command: list[str]) -> tuple[str, ...]:
    """Return the options in the help of a command."""
    help_text = io.StringIO()
    with contextlib.redirect_stdout(help_text), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    names = {name for name in _OPTION.findall(help_text.getvalue()) if not _SETTINGS.match(name)}
    return tuple(sorted(names - {"--help"}))


def settings() -> Lists:
    """Return the settings of each section of a recipe."""
    return {section: tuple(values) for section, values in Recipe().to_dict().items()}


def files(folder: Path) -> Lists:
    """Return the columns, keys or arrays of each file.

    This version writes the files to `folder`, from studies and evaluations of an earlier version.
    """
    for archive in (EARLIER, SAMPLE):
        with tarfile.open(archive) as content:
            content.extractall(folder / archive.name, filter="data")
    small, sample, out = folder / EARLIER.name, folder / SAMPLE.name, folder / "out"
    common = ("--store", small / "store", "--recipe", small / "recipe.yaml")
    run("study", *common, "--out", small / "study", "--orders", "[av>t,avt]", "--seeds", "[0]")  # trains nothing
    run("train", *common, "--out", small / "stopped", "--order", "vt", "--resume")
    run("evaluate", "--embeddings", sample / "near.npz", "--benchmark", "retrieval", "--directions", "t2v",
        "--out", out / "results")  # fmt: skip
    run("report", sample / "study", "--out", out / "study")
    run("report", sample / "near", sample / "far", "--out", out / "both")
    (stage,) = (small / "stopped" / "stages").iterdir()
    study, results = read(small / "study" / "study.json"), read(out / "results" / "results.json")
    step = json.loads((stage / "metrics.jsonl").read_text().splitlines()[-1])
    terms = ("contrast_", "cluster", "reconstruction_")
    with np.load(sample / "near.npz") as arrays:
        embeddings = tuple(arrays)
    tables = {name: columns(out / "study" / "tables" / f"{name}.csv") for name in TABLES}
    return {
        "STUDY/study.json": tuple(study),
        "STUDY/study.json, results": tuple(study["results"][0]),
        "STUDY/table.csv": columns(small / "study" / "table.csv"),
        "STUDY/stages/STAGE/model.json": tuple(read(stage / "model.json")),
        "STUDY/stages/STAGE/metrics.jsonl": tuple(key for key in step if not key.startswith(terms)),
        "RESULTS/results.json": tuple(results),
        "RESULTS/results.json, benchmarks": tuple(results["benchmarks"][0]),
        "RESULTS/results.json, benchmarks, rows": tuple(results["benchmarks"][0]["rows"][0]),
        "report.json": tuple(read(out / "study" / "report.json")),
        **{f"tables/{name}.csv of a study": names for name, names in tables.items()},
        "tables/differences.csv of evaluations": columns(out / "both" / "tables" / "differences.csv"),
        "embeddings (.npz, .safetensors)": embeddings,
    }


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def run(*words: object) -> None:
    """Run a command without its output."""
    with contextlib.redirect_stdout(io.StringIO()):
        if main([str(word) for word in words]) != 0:
            raise RuntimeError(f"trichord {' '.join(map(str, words))} failed")


def columns(path: Path) -> tuple[str, ...]:
    """Return the column names of a CSV file."""
    with path.open(newline="") as lines:
        return tuple(next(csv.reader(lines)))


def documented(title: str) -> Lists:
    """Return the table under a heading of docs/api.md: the names in each row, by its first column."""
    section = DOCUMENT.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): tuple(re.findall(r"`([^`]+)`", row[1])) if len(row) > 1 else () for row in rows}


def table(lists: Lists) -> str:
    """Return the rows of a Markdown table."""
    return "".join(f"| `{name}` | {' '.join(f'`{entry}`' for entry in entries)} |\n" for name, entries in lists.items())


def rewritten(text: str, title: str, lists: Lists) -> str:
    """Return the document with the rows of the table under a heading replaced."""
    before, heading, rest = text.partition(f"\n## {title}\n")
    section, following, after = rest.partition("\n## ")
    lines = section.splitlines(keepends=True)
    head = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    kept = "".join(lines[: head + 1]), "".join(line for line in lines[head + 1 :] if not line.startswith("|"))
    return f"{before}{heading}{kept[0]}{table(lists)}{kept[1]}{following}{after}"


TITLES: dict[str, Callable[[], Lists]] = {
    "Imports": imports, "Methods": methods, "Commands": options, "Settings": settings,
}  # fmt: skip

if __name__ == "__main__":
    document = DOCUMENT.read_text()
    for title, make in TITLES.items():
        document = rewritten(document, title, make())
    with tempfile.TemporaryDirectory() as place:
        document = rewritten(document, "Files", files(Path(place)))
    DOCUMENT.write_text(document)
    sys.exit(0)
