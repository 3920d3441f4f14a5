"""Reading of a study folder: its plan, the status of every run, figures, ranks, geometry and learning curves.

A run is an order with a seed. It is `done` if its figures exist and belong to the stages of the plan, `diverged` if the training of
one of its stages reached values that are not finite, and `unfinished` otherwise. Only done runs are averaged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.evaluation.geometry import Geometry
from trichord.files.reading import open_regular, read_bytes, unreadable
from trichord.modality import Direction, Order
from trichord.study.calls import is_call
from trichord.study.figures import ScoredRun, System, systems_of
from trichord.study.files import RUN_AGAIN, damaged, deleting, is_there, read_json
from trichord.study.folder import PlanEntry, divergence_of, is_benchmark
from trichord.study.places import check_stage, identity_of_entry
from trichord.study.saved_runs import SavedRun, geometry_of
from trichord.study.scores import Scores
from trichord.study.trained_runs import TrainedRun, read_plan

Status = Literal["done", "diverged", "unfinished"]
_DELETE_CURVES = "delete this file; the report will then lack the curves of this stage"
CURVE_LINES = (
    2000  # largest number of lines that are read from a metrics file; of a longer file, every n-th line is read
)
NOT_TERMS = ("step", "epoch", "clips", "seconds")


@dataclass(frozen=True)
class StageRecord:
    """A stage of the plan. Numbers that were not recorded are None.

    Attributes:
        folder: Name of its folder in `stages/`.
        order: Order up to and including this stage.
        seed: Seed of its initial weights and batches.
        trained: Number of trained parameters.
        frozen: Number of frozen parameters.
        num_steps: Number of steps.
        num_clips: Number of clips seen, including repetitions.
        seconds: Training time.
        finished: Whether its model exists.
        calls: Calls that trained parts of it, each with `begun`, `versions` and `machine`. () if they were not recorded.
    """

    folder: str
    order: Order
    seed: int
    trained: int | None
    frozen: int | None
    num_steps: int
    num_clips: int
    seconds: float | None
    finished: bool
    calls: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Run:
    """An order with a seed.

    Attributes:
        order: Order.
        seed: Seed.
        stages: Names of its stage folders, starting with the first.
        status: `done`, `diverged` or `unfinished`.
        why: Reason why the run is not done, or ''.
        scores: Its scores. None if it is not done.
        directions: Directions in which it was scored.
    """

    order: Order
    seed: int
    stages: tuple[str, ...]
    status: Status
    why: str
    scores: Scores | None = None
    directions: tuple[Direction, ...] = ()

    def __str__(self) -> str:
        return f"{self.order} seed {self.seed}"

    @property
    def results(self) -> list[dict[str, Any]]:
        """Rows of figures."""
        return [] if self.scores is None else self.scores.results(order=self.order.code, seed=self.seed)


@dataclass(frozen=True)
class Curve:
    """A quantity over the steps of a stage."""

    steps: np.ndarray
    values: np.ndarray


class Study:
    """The content of a study folder. Use `read_study` to create it."""

    def __init__(self, path: Path, content: dict[str, Any], plan: Sequence[PlanEntry], runs: tuple[Run, ...]) -> None:
        self.path, self.content, self.plan, self.runs = path, content, plan, runs

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def recipe(self) -> dict[str, Any]:
        """All settings of the study."""
        recipe: dict[str, Any] = self.content["recipe"]
        return recipe

    @property
    def directions(self) -> tuple[Direction, ...]:
        """All directions with results, starting with those of the recipe."""
        scored = {direction.code: direction for run in self.done for direction in run.directions}
        codes = [code for code in self.recipe["evaluation"]["directions"] if code in scored]
        return tuple(scored[code] for code in dict.fromkeys([*codes, *sorted(scored)]))

    @property
    def benchmarks(self) -> tuple[dict[str, Any], ...]:
        """Names, titles and protocols of all benchmarks with results."""
        scored = {row["benchmark"] for run in self.done for row in run.results}
        return tuple(b for b in self.content["benchmarks"] if b["name"] in scored)

    @property
    def done(self) -> tuple[Run, ...]:
        """Runs with complete figures."""
        return tuple(run for run in self.runs if run.status == "done")

    @property
    def orders(self) -> tuple[Order, ...]:
        """All orders of the plan."""
        return tuple(dict.fromkeys(run.order for run in self.runs))

    def runs_of(self, order: Order) -> tuple[Run, ...]:
        """Return the done runs of an order, sorted by seed."""
        return tuple(sorted((run for run in self.done if run.order == order), key=lambda run: run.seed))

    @cached_property
    def stages(self) -> dict[str, StageRecord]:
        """Every stage of the plan by the name of its folder."""
        return {
            stage["folder"]: _read_stage(self.path, stage, entry.order.up_to(number))
            for entry in self.plan
            for number, stage in enumerate(entry.stages)
        }

    def scores(self, run: Run) -> Scores:
        """Return the figures of a done run with the results of its queries."""
        assert run.scores is not None
        return run.scores

    @cached_property
    def systems(self) -> tuple[System, ...]:
        """Orders of the study with their finished runs."""
        runs = (run for order in self.orders for run in self.runs_of(order))
        trained = ((TrainedRun(run.order, run.seed, run.stages[-1], run.stages[0]), run) for run in runs)
        return tuple(systems_of((ScoredRun(record, self.scores(run)) for record, run in trained), self.path))

    def geometry(self, run: Run, benchmark: str) -> Geometry | None:
        """Return the geometry of the joint space of a run on a benchmark, or None if it was not measured."""
        return geometry_of(self.scores(run), benchmark)

    def curves(self, stage: StageRecord) -> dict[str, Curve]:
        """Return the loss, its terms, the gradient norm and the learning rate over the steps of a stage."""
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
    """Read a study folder.

    Raises:
        TrichordError: The folder contains no study, a file cannot be read, or no run is finished.
    """
    path = Path(path)
    content, plan = read_plan(path)
    _check_content(path / "study.json", content)
    study = Study(path, content, plan, tuple(_read_run(path, entry, content) for entry in plan))
    if not study.done:
        reasons = "; ".join(f"{run}: {run.status}{f' ({run.why})' if run.why else ''}" for run in study.runs[:3])
        if study.runs and all(run.status == "diverged" for run in study.runs):
            raise TrichordError(
                f"{path}: every run diverged ({reasons}); run the study in another --out with a lower training.learning_rate"
            )
        raise TrichordError(
            f"{path}: contains no finished run to report ({reasons or 'no run at all'}); continue the study"
        )
    return study


def _check_content(path: Path, content: dict[str, Any]) -> None:
    """Raise TrichordError if a part of `study.json` is missing or has another type."""
    kinds = {"recipe": dict, "benchmarks": list, "versions": dict, "store": dict}
    for part, kind in kinds.items():
        if not isinstance(content.get(part), kind):
            raise TrichordError(f"{path}: has no '{part}'; {RUN_AGAIN}")
    if not all(isinstance(content["store"].get(part), str) for part in ("path", "fingerprint")):
        raise TrichordError(f"{path}: its store has no path and fingerprint; {RUN_AGAIN}")
    if not all(map(is_benchmark, content["benchmarks"])):
        raise TrichordError(f"{path}: its benchmarks have no names; {RUN_AGAIN}")
    if len({benchmark["name"] for benchmark in content["benchmarks"]}) < len(content["benchmarks"]):
        raise TrichordError(f"{path}: it has a benchmark twice; {RUN_AGAIN}")
    evaluation = content["recipe"].get("evaluation")
    directions = evaluation.get("directions") if isinstance(evaluation, dict) else None
    if not isinstance(directions, list) or not all(isinstance(direction, str) for direction in directions):
        raise TrichordError(f"{path}: its recipe has no evaluation.directions; {RUN_AGAIN}")
    if not isinstance(content["recipe"].get("later_stages", {}), dict):
        raise TrichordError(f"{path}: later_stages of its recipe is not an object; {RUN_AGAIN}")


def _read_run(study: Path, entry: PlanEntry, content: dict[str, Any]) -> Run:
    saved = SavedRun.read(study / "orders" / entry.order.slug / f"seed-{entry.seed}")
    status, why = _status(study, entry, saved)
    run = Run(entry.order, entry.seed, entry.folders, status, why)
    if status != "done" or saved is None:
        return run
    scores = saved.scores({"subject": str(run), "store": content["store"]}, content["benchmarks"])
    directions = map(Direction.parse, dict.fromkeys(row["direction"] for row in scores.results()))
    return replace(run, scores=scores, directions=tuple(directions))


def _status(study: Path, entry: PlanEntry, saved: SavedRun | None) -> tuple[Status, str]:
    folders = [study / "stages" / folder for folder in entry.folders]
    if why := next(filter(None, map(divergence_of, folders)), ""):
        return "diverged", why
    if missing := [folder.name for folder in folders if not is_there(folder / "model.json")]:
        return "unfinished", f"stage {missing[0]} has not been trained"
    for folder, stage in zip(folders, entry.stages, strict=True):
        check_stage(folder, identity_of_entry(stage))
    if saved is None or not saved.identity or not is_there(saved.arrays_path):
        return "unfinished", "not evaluated"
    if saved.identity.get("stage") != entry.stages[-1]["key"]:
        return "unfinished", "its figures belong to another training; run the study again"
    if "ranks" in saved.identity or "contents" not in saved.identity:
        return "unfinished", "evaluated by an older version; run the study again, which trains nothing twice"
    return "done", ""


def _read_stage(study: Path, entry: dict[str, Any], order: Order) -> StageRecord:
    folder = study / "stages" / entry["folder"]
    path = folder / "model.json"
    described = read_json(path, mend=deleting(folder)) if is_there(path) else {}
    parameters = described.get("parameters", {})
    if not isinstance(parameters, dict) or not all(isinstance(n, int | None) for n in parameters.values()):
        raise damaged(path, "its numbers of parameters are not integers", deleting(folder))
    calls = described.get("calls", [])
    if not isinstance(calls, list) or not all(map(is_call, calls)):
        raise damaged(path, "its calls lack the time, versions or machine", deleting(folder))
    values, num_clips = _totals(folder / "metrics.jsonl")
    return StageRecord(
        entry["folder"],
        order,
        entry.get("seed", described.get("seed", 0)),
        parameters.get("trained"),
        parameters.get("frozen"),
        int(values.get("step", -1)) + 1,
        num_clips,
        values.get("seconds"),
        bool(described),
        tuple(calls),
    )


def _totals(path: Path) -> tuple[dict[str, Any], int]:
    """Return the last complete line of a metrics file and the number of clips of all lines. Only the last line is parsed."""
    last, num_clips = b"", 0
    try:
        with open_regular(path) as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                at = line.find(b'"clips": ')
                num_clips += int(line[at + 9 : line.find(b",", at)]) if at >= 0 else 0
                last = line
    except FileNotFoundError:
        return {}, 0
    except (OSError, ValueError) as error:
        raise _damaged_metrics(path, error) from None
    return (_parsed(path, last) if last else {}), num_clips


def _metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a metrics file, or every n-th line if there are more than CURVE_LINES. An incomplete line is ignored."""
    if not is_there(path):
        return
    try:
        lines = [line for line in read_bytes(path).split(b"\n")[:-1] if line]
    except OSError as error:
        raise _damaged_metrics(path, error) from None
    every = math.ceil(len(lines) / CURVE_LINES) or 1
    for line in lines[::every]:
        yield _parsed(path, line)


def _parsed(path: Path, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged_metrics(path, error) from None
    if not isinstance(values, dict) or not isinstance(values.get("step"), int):
        raise _damaged_metrics(path, "a line has no step")
    if wrong := [name for name, value in values.items() if not isinstance(value, int | float)]:
        raise _damaged_metrics(path, f"'{wrong[0]}' is not a number")
    return values


def _damaged_metrics(path: Path, reason: object) -> TrichordError:
    """Return the error for a metrics file. The advice is to delete the file, since no stage is trained again for its curves."""
    if isinstance(reason, OSError):
        return unreadable(path, reason, mend=_DELETE_CURVES)
    return damaged(path, one_line(reason), _DELETE_CURVES)
