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
from trichord.evaluation.geometry import Geometry
from trichord.files.reading import open_regular, read_bytes, unreadable
from trichord.modality import Order
from trichord.study.calls import is_call
from trichord.study.figures import System
from trichord.study.files import (
    RUN_AGAIN,
    check_sha256,
    damaged,
    deleting,
    is_there,
    queries_path,
    read_arrays,
    read_json,
    read_queries,
)
from trichord.study.folder import divergence_of, is_benchmark, is_plan_entry
from trichord.study.places import check_stage, identity_of_entry
from trichord.study.ranks import fault_of_rows, read_clips
from trichord.study.run_scores import RunScores

Status = Literal["done", "diverged", "unfinished"]
_DELETE_CURVES = "delete that file; the report then lacks the curves of this stage"
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
        calls: Of each call that trained a part of it: `begun`, `versions`, `machine`; () where they were not recorded.
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
    calls: tuple[dict[str, Any], ...] = ()


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
        self._scores: dict[tuple[str, int], RunScores] = {}
        self._captions: dict[str, list[str]] = {}

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

    def scores(self, run: Run) -> RunScores:
        """The figures of a run with the results of its queries, read once for all benchmarks and directions."""
        if (key := (run.order, run.seed)) not in self._scores:
            self._scores[key] = RunScores(
                run.path, run.results, self.content["benchmarks"], subject=str(run), store=self.content["store"],
                settings=run.evaluation, captions=self.captions,
            )  # fmt: skip
        return self._scores[key]

    @cached_property
    def systems(self) -> tuple[System, ...]:
        """The orders of the study with their finished runs."""
        return tuple(
            System(
                str(Order.parse(order)), order, self.path, tuple(run.seed for run in runs), tuple(map(self.scores, runs)),
                tuple(run.stages[0] for run in runs),
            )
            for order in self.orders
            if (runs := self.runs_of(order))
        )  # fmt: skip

    def geometry(self, run: Run, benchmark: str) -> Geometry | None:
        path, head = run.path.with_suffix(".npz"), f"{benchmark}/geometry"
        arrays = read_arrays(path, lambda name: name.startswith(f"{head}/"))
        try:
            return Geometry.from_arrays(arrays, head)
        except (TrichordError, ValueError, TypeError):
            raise damaged(path, f"a part of {head} is not there or not of its kind", RUN_AGAIN) from None

    def captions(self, benchmark: str) -> list[str]:
        """The caption of each of the benchmark's clips; [] where they were not kept."""
        if benchmark not in self._captions:
            scored = [run for run in self.done if any(row["benchmark"] == benchmark for row in run.results)]
            there = scored and is_there(queries_path(self.path, benchmark))
            num_clips = len(read_clips(scored[0].path.with_suffix(".npz"), benchmark)[0]) if there else 0
            self._captions[benchmark] = read_queries(self.path, benchmark, num_clips) if there else []
        return self._captions[benchmark]

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
    if not is_there(path / "study.json"):
        raise TrichordError(f"{path}: no study here (no study.json); give the --out folder of a `trichord study`")
    content = read_json(path / "study.json")
    _check_content(path / "study.json", content)
    study = Study(path, content, tuple(_read_run(path, entry) for entry in content["orders"]))
    if not study.done:
        told = "; ".join(f"{run}: {run.status}{f' ({run.why})' if run.why else ''}" for run in study.runs[:3])
        if study.runs and all(run.status == "diverged" for run in study.runs):
            raise TrichordError(
                f"{path}: every run diverged ({told}); run the study in another --out with a lower training.learning_rate"
            )
        raise TrichordError(f"{path}: no finished run to report ({told or 'no run at all'}); go on with the study")
    return study


def _check_content(path: Path, content: dict[str, Any]) -> None:
    kinds = {"orders": list, "recipe": dict, "benchmarks": list, "versions": dict, "store": dict}
    for part, kind in kinds.items():
        if not isinstance(content.get(part), kind):
            raise TrichordError(f"{path}: has no '{part}'; {RUN_AGAIN}")
    if not all(isinstance(content["store"].get(part), str) for part in ("path", "fingerprint")):
        raise TrichordError(f"{path}: its store has no path and fingerprint; {RUN_AGAIN}")
    if not all(map(is_plan_entry, content["orders"])):
        raise TrichordError(f"{path}: its orders do not tell their stages, as older versions wrote them; {RUN_AGAIN}")
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


def _read_run(study: Path, entry: dict[str, Any]) -> Run:
    order, seed = Order.parse(entry["order"]), int(entry["seed"])
    path = study / "orders" / order.slug / f"seed-{seed}.json"
    stages = tuple(stage["folder"] for stage in entry["stages"])
    kept = read_json(path) if is_there(path) else {}
    identity = kept.get("identity", {})
    if not isinstance(identity, dict):
        raise damaged(path, "it does not tell what its figures are of", RUN_AGAIN)
    status, why = _status(study, entry, path, identity)
    if status != "done":
        return Run(order.code, seed, stages, status, why, path, (), {}, {})
    check_sha256(path.with_suffix(".npz"), kept.get("arrays_sha256"))
    labels, evaluation = kept.get("labels", {}), identity.get("evaluation", {})
    if why := fault_of_rows(kept.get("results")):
        raise damaged(path, why, RUN_AGAIN)
    if not isinstance(labels, dict) or not isinstance(evaluation, dict):
        raise damaged(path, "its labels or settings are not objects", RUN_AGAIN)
    return Run(order.code, seed, stages, status, "", path, tuple(kept["results"]), labels, evaluation)


def _status(study: Path, entry: dict[str, Any], path: Path, identity: dict[str, Any]) -> tuple[Status, str]:
    for stage in entry["stages"]:
        if why := divergence_of(study / "stages" / stage["folder"]):
            return "diverged", why
    missing = [s["folder"] for s in entry["stages"] if not is_there(study / "stages" / s["folder"] / "model.json")]
    if missing:
        return "unfinished", f"stage {missing[0]} is not trained"
    for entry_of_stage in entry["stages"]:
        check_stage(study / "stages" / entry_of_stage["folder"], identity_of_entry(entry_of_stage))
    if not identity or not is_there(path.with_suffix(".npz")):
        return "unfinished", "not evaluated"
    if identity.get("stage") != entry["stages"][-1]["key"]:
        return "unfinished", "its figures are of another training; run the study again"
    if "ranks" in identity or "contents" not in identity:
        return "unfinished", "evaluated by an older version; run the study again, which trains nothing twice"
    return "done", ""


def _read_stage(study: Path, entry: dict[str, Any]) -> StageRecord:
    folder = study / "stages" / entry["folder"]
    path = folder / "model.json"
    described = read_json(path, mend=deleting(folder)) if is_there(path) else {}
    parameters = described.get("parameters", {})
    if not isinstance(parameters, dict) or not all(isinstance(n, int | None) for n in parameters.values()):
        raise damaged(path, "its parameters are not counted", deleting(folder))
    calls = described.get("calls", [])
    if not isinstance(calls, list) or not all(map(is_call, calls)):
        raise damaged(path, "its calls do not tell when and where they were", deleting(folder))
    values, num_clips = _totals(folder / "metrics.jsonl")
    return StageRecord(
        entry["folder"],
        str(entry.get("chain") or described.get("stage") or ""),
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
    """The last whole line of a metrics file, and the clips of all; read without parsing the lines before."""
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
    """Lines of a metrics file, at most CURVE_LINES in even steps; a torn last line is left out."""
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
        raise _damaged_metrics(path, "a line names no step")
    if wrong := [name for name, value in values.items() if not isinstance(value, int | float)]:
        raise _damaged_metrics(path, f"'{wrong[0]}' is not a number")
    return values


def _damaged_metrics(path: Path, reason: object) -> TrichordError:
    """A stage is not trained again for its curves: this file alone cannot be had back."""
    if isinstance(reason, OSError):
        return unreadable(path, reason, mend=_DELETE_CURVES)
    return damaged(path, one_line(reason), _DELETE_CURVES)
