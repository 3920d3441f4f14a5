"""Read a study folder back: its plan, what became of every run, figures, ranks, geometry, curves. Nothing is trained here.

A run is one order with one seed. It is `done` when its figures are there and are of the stages that the plan names,
`diverged` when the training of one of its stages left the finite numbers, else `unfinished`. Only done runs are averaged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.evaluation.benchmarks import QueryRanks
from trichord.evaluation.geometry import Geometry
from trichord.modality import Order
from trichord.study.folder import divergence_of
from trichord.study.ranks import read_ranks

Status = Literal["done", "diverged", "unfinished"]
CURVE_LINES = 2000  # of a metrics file; a longer one is read in even steps
NOT_TERMS = ("step", "epoch", "clips", "seconds")


@dataclass(frozen=True)
class StageRecord:
    """A stage of the plan. Counts are None where they were not recorded.

    Attributes:
        folder: Name under `stages/`.
        chain: The order up to this stage.
        seed: Of its initial weights and batches.
        trained, frozen: Parameters.
        num_steps, num_clips: Steps done and clips seen.
        seconds: Spent on them.
        finished: Whether its model is there.
    """

    folder: str
    chain: str
    seed: int
    trained: int | None
    frozen: int | None
    num_steps: int
    num_clips: int
    seconds: float | None
    finished: bool


@dataclass(frozen=True)
class Run:
    """An order with one seed. `why` says what is wrong with a run that is not done."""

    order: str
    seed: int
    stages: tuple[str, ...]
    status: Status
    why: str
    path: Path
    results: tuple[dict[str, Any], ...]
    labels: dict[str, str]
    evaluation: dict[str, Any]

    def result(self, benchmark: str, direction: str) -> dict[str, Any] | None:
        for row in self.results:
            if row["benchmark"] == benchmark and row["direction"] == direction:
                return row
        return None

    def __str__(self) -> str:
        return f"{Order.parse(self.order)} seed {self.seed}"


@dataclass(frozen=True)
class Curve:
    """One quantity over the steps of a stage."""

    steps: np.ndarray
    values: np.ndarray


class Study:
    """A study folder, read. Made by `read_study`."""

    def __init__(self, path: Path, content: dict[str, Any], runs: tuple[Run, ...]) -> None:
        self.path, self.content, self.runs = path, content, runs

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def recipe(self) -> dict[str, Any]:
        found: dict[str, Any] = self.content["recipe"]
        return found

    @property
    def directions(self) -> tuple[str, ...]:
        """Directions that some run was scored in, the recipe's first one first."""
        scored = {row["direction"] for run in self.done for row in run.results}
        wished = [d for d in self.recipe["evaluation"]["directions"] if d in scored]
        return tuple(dict.fromkeys([*wished, *sorted(scored)]))

    @property
    def benchmarks(self) -> tuple[dict[str, Any], ...]:
        """Names, titles and protocols of the benchmarks that some run was scored on."""
        scored = {row["benchmark"] for run in self.done for row in run.results}
        return tuple(b for b in self.content["benchmarks"] if b["name"] in scored)

    @property
    def done(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.status == "done")

    @property
    def orders(self) -> tuple[str, ...]:
        """All orders of the plan."""
        return tuple(dict.fromkeys(run.order for run in self.runs))

    def runs_of(self, order: str) -> tuple[Run, ...]:
        """Its done runs, by seed."""
        return tuple(sorted((run for run in self.done if run.order == order), key=lambda run: run.seed))

    @cached_property
    def stages(self) -> dict[str, StageRecord]:
        """Every stage of the plan by its folder's name."""
        entries = [stage for order in self.content["orders"] for stage in order["stages"]]
        return {entry["folder"]: _read_stage(self.path, entry) for entry in entries}

    def ranks(self, run: Run, benchmark: str, direction: str) -> QueryRanks:
        return read_ranks(run.path.with_suffix(".npz"), benchmark, direction)

    def clips(self, run: Run, benchmark: str) -> list[str]:
        """A name of each of the benchmark's clips: video and span."""
        with _open(run.path.with_suffix(".npz")) as arrays:
            parts = [arrays[f"{benchmark}/{part}"] for part in ("video_id", "start_s", "end_s")]
        return [f"{video} {start:.3f}-{end:.3f} s" for video, start, end in zip(*parts, strict=True)]

    def geometry(self, run: Run, benchmark: str) -> Geometry | None:
        with _open(run.path.with_suffix(".npz")) as arrays:
            return Geometry.from_arrays(arrays, f"{benchmark}/geometry")

    def captions(self, benchmark: str) -> list[str]:
        """The caption of each of the benchmark's clips; [] where they were not kept."""
        path = self.path / "queries" / f"{benchmark.replace('/', '-')}.json"
        return [query["caption"] for query in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []

    def curves(self, stage: StageRecord) -> dict[str, Curve]:
        """The loss, its terms, gradient norm and learning rate over the steps of a stage."""
        rows = list(_metrics(self.path / "stages" / stage.folder / "metrics.jsonl"))
        names = dict.fromkeys(name for row in rows for name in row if name not in NOT_TERMS)
        return {
            name: Curve(
                np.array([row["step"] + 1 for row in rows if name in row]),
                np.array([row[name] for row in rows if name in row], np.float64),
            )
            for name in names
        }


def read_study(path: Path | str) -> Study:
    """Read the study in folder `path`.

    Raises TrichordError when there is none, when a file of it cannot be read, or when it has no finished run.
    """
    path = Path(path)
    if not (path / "study.json").is_file():
        raise TrichordError(f"{path}: no study here (no study.json); give the --out folder of a `trichord study`")
    content = _json(path / "study.json")
    for part in ("orders", "recipe", "benchmarks", "versions", "store"):
        if part not in content:
            raise TrichordError(
                f"{path / 'study.json'}: has no '{part}'; run the study again, which trains nothing twice"
            )
    study = Study(path, content, tuple(_read_run(path, entry) for entry in content["orders"]))
    if not study.done:
        told = "; ".join(f"{run}: {run.status}{f' ({run.why})' if run.why else ''}" for run in study.runs[:3])
        raise TrichordError(f"{path}: no finished run to report ({told or 'no run at all'}); go on with the study")
    return study


def _read_run(study: Path, entry: dict[str, Any]) -> Run:
    order, seed = Order.parse(entry["order"]), int(entry["seed"])
    path = study / "orders" / order.slug / f"seed-{seed}.json"
    stages = tuple(stage["folder"] for stage in entry["stages"])
    kept = _json(path) if path.is_file() else {}
    identity = kept.get("identity", {})
    status, why = _status(study, entry, path, identity)
    done = status == "done"
    return Run(
        order.code, seed, stages, status, why, path,
        tuple(kept["results"]) if done else (), kept.get("labels", {}) if done else {},
        identity.get("evaluation", {}) if done else {},
    )  # fmt: skip


def _status(study: Path, entry: dict[str, Any], path: Path, identity: dict[str, Any]) -> tuple[Status, str]:
    for stage in entry["stages"]:
        if why := divergence_of(study / "stages" / stage["folder"]):
            return "diverged", why
    missing = [s["folder"] for s in entry["stages"] if not (study / "stages" / s["folder"] / "model.json").is_file()]
    if missing:
        return "unfinished", f"stage {missing[0]} is not trained"
    if not identity or not path.with_suffix(".npz").is_file():
        return "unfinished", "not evaluated"
    if identity.get("stage") != entry["stages"][-1]["key"]:
        return "unfinished", "its figures are of another training; run the study again"
    if "ranks" in identity or "contents" not in identity:
        return "unfinished", "evaluated by an older version; run the study again, which trains nothing twice"
    return "done", ""


def _read_stage(study: Path, entry: dict[str, Any]) -> StageRecord:
    folder = study / "stages" / entry["folder"]
    described = _json(folder / "model.json") if (folder / "model.json").is_file() else {}
    parameters = described.get("parameters", {})
    last, num_clips = None, 0
    path = folder / "metrics.jsonl"
    if path.is_file():
        with path.open("rb") as lines:
            for line in lines:
                at = line.find(b'"clips": ')
                num_clips += int(line[at + 9 : line.find(b",", at)]) if at >= 0 and line.endswith(b"\n") else 0
                last = line if line.endswith(b"\n") else last
    values = json.loads(last) if last else {}
    chain = str(entry.get("chain") or described.get("stage") or "")
    return StageRecord(
        entry["folder"],
        chain,
        int(entry.get("seed", described.get("seed", 0))),
        parameters.get("trained"),
        parameters.get("frozen"),
        int(values.get("step", -1)) + 1,
        num_clips,
        values.get("seconds"),
        bool(described),
    )


def _metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a metrics file, at most CURVE_LINES in even steps; a torn last line is left out."""
    if not path.is_file():
        return
    lines = [line for line in path.read_bytes().split(b"\n")[:-1] if line]
    every = math.ceil(len(lines) / CURVE_LINES) or 1
    for line in lines[::every]:
        yield json.loads(line)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrichordError(f"{path}: cannot be read ({one_line(error)}); run the study again") from None


def _open(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise TrichordError(f"{path}: cannot be read ({one_line(error)}); run the study again") from None
