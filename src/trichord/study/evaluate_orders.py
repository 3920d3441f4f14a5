"""`trichord evaluate` on a study folder: every order and seed under the same protocols.

Each model is evaluated as it would be alone and leaves the same files, in `OUT/ORDER/seed-N`. `OUT/results.json` says which
models these are, what each evaluation was made from, and the figures of the orders. It is written after each model, so a
call that was interrupted goes on with the next one: what was made from the same weights, data and choices is read back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.errors import Diverged, TrichordError, Unavailable
from trichord.files.paths import accepts_text_paths
from trichord.files.reading import file_sha256, unreadable
from trichord.files.writing import write_json, writing_to
from trichord.logs import main_process_logger
from trichord.modality import Direction, Order
from trichord.parallel import on_main
from trichord.recipes import load_recipe, of_this_version, recipe_from_dict
from trichord.store.names import ANNOTATIONS
from trichord.study import factories
from trichord.study.evaluate import evaluate, write_evaluation
from trichord.study.evaluation_files import PER_QUERY, RESULTS
from trichord.study.figures import ScoredRun
from trichord.study.files import check_sha256, is_there, read_json
from trichord.study.lock import alone_in
from trichord.study.scores import AGAIN, read_scores
from trichord.study.trained_runs import TrainedRun, chosen_runs, read_plan, trained_runs
from trichord.tasks.protocol import Options
from trichord.training.models import DESCRIPTION
from trichord.training.seals import digest, sealed

if TYPE_CHECKING:
    from trichord.store import Store
    from trichord.store.location import Location

logger = main_process_logger(__name__)

CONTENTS = 3  # raised when more is kept of an evaluation: older ones are then made again
ANEW = "it is made anew"


@dataclass
class OrdersEvaluation:
    """runs: Evaluated. left_out: Why other runs were not. benchmarks: Names, in the order of the tables."""

    study: Path
    runs: list[ScoredRun] = field(default_factory=list)
    left_out: dict[TrainedRun, str] = field(default_factory=dict)

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(scored.name for done in self.runs for scored in done.scores.benchmarks))

    def notes(self) -> list[str]:
        """What the evaluations noted, each once, with the models that it is of where it is not of all; who is left out."""
        runs_of_note: dict[str, list[TrainedRun]] = {}
        for done in self.runs:
            for note in dict.fromkeys(done.scores.all_notes):
                runs_of_note.setdefault(note, []).append(done.run)
        lines = [
            note if len(runs) == len(self.runs) else f"{_told(runs)}: {note}" for note, runs in runs_of_note.items()
        ]
        return lines + [f"{run} is left out: {why}" for run, why in self.left_out.items()]


@accepts_text_paths
def evaluate_orders(
    study: Path,
    store_path: Location,
    names: Sequence[str] = (),
    *,
    out: Path | None = None,
    orders: Sequence[str | Order] = (),
    seeds: Sequence[int] = (),
    directions: Sequence[str] | str = (),
    recipe: str | None = None,
    options: Options | None = None,
    num_windows: int = 0,
    window_s: float | None = None,
    window_pool: str = "mean",
) -> OrdersEvaluation:
    """Score every finished order and seed of a study on benchmarks.

    Args:
        study: Study folder.
        store_path: Store with the clips, a folder or a URL.
        names: Benchmarks, as of `study.evaluate.evaluate`.
        out: Folder of what is kept; None keeps nothing.
        orders: Which, in any spelling; empty takes all of the study.
        seeds: Which; empty takes all.
        directions, recipe, options, num_windows, window_s, window_pool: As of `study.evaluate.evaluate`.

    Runs that are unfinished or diverged are left out, and so is what the modalities of an order do not allow: `left_out` and
    the notes tell. Raises TrichordError where nothing is left: no finished run, a direction or a benchmark for no order.
    """
    from trichord.store import Store

    if out is not None and out.suffix == ".json":
        raise TrichordError(f"{out}: the evaluation of several models is a folder; give --out a name without .json")
    used = load_recipe(recipe) if recipe is not None else _recipe_of(study)
    factories.scoring_device(used)  # joins the other processes of a launch
    store = Store(store_path)
    chosen = on_main(partial(chosen_runs, study, orders, seeds))
    _check_directions(directions, chosen)
    options = options or Options()
    names = list(dict.fromkeys(names))
    asked: dict[str, Any] = {"names": names, "directions": directions, "recipe": recipe, "options": options}
    asked |= {"num_windows": num_windows, "window_s": window_s, "window_pool": window_pool}
    evaluation_of_orders = OrdersEvaluation(study)
    with nullcontext() if out is None else writing_to(out), nullcontext() if out is None else alone_in(out):
        index = on_main(lambda: Index.read(out, study, store, asked, used.to_dict() if recipe else None))
        finished = [run for run in chosen if not run.why]
        for run in chosen:
            if run.why:
                evaluation_of_orders.left_out[run] = run.why
                on_main(partial(index.leave_out, run, run.why))
                continue
            if kept := on_main(partial(index.kept, run)):
                logger.info(f"{run}: was evaluated before ({finished.index(run) + 1} of {len(finished)})")
                evaluation_of_orders.runs.append(kept)
                continue
            begun, why = on_main(partial(index.made_from, run)), ""
            try:
                evaluation = evaluate(study / "stages" / run.stage, store, leave_out=True, **asked)
                why = "" if evaluation.benchmarks else "; ".join(evaluation.notes)
            except Diverged as error:
                why = str(error)
            if why:
                evaluation_of_orders.left_out[run] = why
                on_main(partial(index.leave_out, run, why))
                continue
            if out is not None:
                write_evaluation(evaluation, out / run.folder, anew=True)
                on_main(partial(index.add, run, begun))
            evaluation_of_orders.runs.append(ScoredRun(run, evaluation.scores()))
            logger.info(f"{run}: evaluated ({finished.index(run) + 1} of {len(finished)})")
    _require_all(evaluation_of_orders, names)
    return evaluation_of_orders


def _told(runs: Sequence[TrainedRun]) -> str:
    """`AV→T seeds 0, 1; VT→A seed 0`."""
    parts = []
    for order in dict.fromkeys(run.order for run in runs):
        seeds = [str(run.seed) for run in runs if run.order == order]
        parts.append(f"{order} seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}")
    return "; ".join(parts)


def _recipe_of(study: Path) -> Any:
    """The settings of a study. Raises TrichordError when its plan does not hold them."""
    recipe = read_plan(study)[0].get("recipe")
    if not isinstance(recipe, dict):
        raise TrichordError(f"{study / 'study.json'}: has no 'recipe'; run the study again, which trains nothing twice")
    return recipe_from_dict(of_this_version(recipe), str(study / "study.json"))


def _check_directions(directions: Sequence[str] | str, runs: Sequence[TrainedRun]) -> None:
    """Raises TrichordError for a direction that no finished order knows the modalities of."""
    codes = [
        part.strip() for c in ([directions] if isinstance(directions, str) else directions) for part in c.split(",")
    ]
    for code in filter(None, codes):
        if code == "all":
            continue
        needed = set(Direction.parse(code).modalities)
        if not any(needed <= set(run.modalities) for run in runs if not run.why):
            trained = ", ".join(dict.fromkeys(run.order.code for run in runs if not run.why))
            raise TrichordError(
                f"direction {code}: no finished order was trained on all it needs ({trained}); leave it out"
            )


def _require_all(evaluation: OrdersEvaluation, names: list[str]) -> None:
    """Raises TrichordError where no model could be scored, or none on a benchmark that was asked for."""
    lacking = [name for name in names if name not in evaluation.benchmarks]
    if evaluation.runs and evaluation.benchmarks and not lacking:
        return
    reason = next(
        (
            n
            for done in evaluation.runs
            for n in done.scores.all_notes
            if n.startswith(f"benchmark {''.join(lacking[:1])}")
        ),
        "",
    )
    reason = reason or next(iter(evaluation.left_out.values()), "no benchmark")
    what = f"benchmark {lacking[0]}: no order can be scored on it" if lacking else "no order can be scored"
    raise TrichordError(f"{evaluation.study}: {what} ({reason}); leave it out")


@dataclass
class Index:
    """`OUT/results.json`: which models were evaluated, and what each evaluation was made from. Used by the main process.

    Attributes:
        out: Its folder; None keeps nothing.
        study: The study folder.
        head: What the file says besides of models.
        basis: What all evaluations of this call are made from.
        places: Order and seed of every run, as the study plans them.
        models: Entries by folder of the evaluation.
        left_out: Entries of the runs of this call that cannot be evaluated; their note says why.
    """

    out: Path | None
    study: Path
    head: dict[str, Any]
    basis: dict[str, Any]
    places: list[tuple[str, int]]
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(
        cls, out: Path | None, study: Path, store: Store, asked: dict[str, Any], recipe: dict[str, Any] | None
    ) -> Index:
        """The index of a call. Of what is there, those models stay that were made alike: of these weights, data and choices.

        Raises TrichordError when the folder holds the evaluation of one model.
        """
        plain = {**asked, "options": asdict(asked["options"]), "recipe": recipe}
        labels = asked["options"].labels
        basis = {
            **plain,
            "contents": CONTENTS,
            "version": version("trichord"),
            "store": store.fingerprint,
            "annotations": _sha256(store.folder / ANNOTATIONS),
            "labels": {path.name: _sha256(path) for path in _label_files(Path(labels))} if labels else {},
        }
        gallery = plain["options"]["gallery"]
        asked = {**plain, "options": {**plain["options"], "gallery": None if gallery is None else len(gallery)}}
        head = {
            "study": os.path.abspath(study),
            "store": {"path": store.address, "fingerprint": store.fingerprint},
            **({"modalities": store.modalities} if store.modalities else {}),
            "asked": asked,
        }
        runs = trained_runs(study)
        index = cls(out, study, head, basis, [(run.order.code, run.seed) for run in runs])
        if out is None or not is_there(out / RESULTS):
            return index
        try:
            content = read_json(out / RESULTS, mend=ANEW)
        except Unavailable:
            raise
        except TrichordError as error:
            logger.warning(str(error))
            return index
        if "models" not in content:
            raise TrichordError(f"{out}: holds the evaluation of one model; give another --out")
        entries = content["models"] if isinstance(content["models"], list) else []
        earlier = {entry["folder"]: entry for entry in entries if isinstance(entry, dict) and entry.get("folder")}
        for run in runs:
            entry = earlier.get(run.folder)
            if entry is not None and not run.why and entry.get("made_from") == index.made_from(run):
                index.models[run.folder] = entry
        return index

    def made_from(self, run: TrainedRun) -> str:
        """A digest of all that the evaluation of a run follows from."""
        weights = _sha256(self.study / "stages" / run.stage / DESCRIPTION)  # names the digest of the weights
        return digest({**self.basis, "stage": run.stage, "model": weights})

    def kept(self, run: TrainedRun) -> ScoredRun | None:
        """The evaluation of a run that is there and was made alike; None where it must be made."""
        entry = self.models.get(run.folder)
        if entry is None or self.out is None:
            return None
        files = entry.get("files")
        try:
            for name in (RESULTS, PER_QUERY):
                recorded = files.get(name) if isinstance(files, dict) else ""
                check_sha256(self.out / run.folder / name, recorded or "", mend=ANEW)
            return ScoredRun(run, read_scores(self.out / run.folder).loaded())
        except Unavailable:
            raise
        except TrichordError as error:
            logger.warning(str(error).replace(AGAIN, ANEW))
            del self.models[run.folder]
            return None

    def add(self, run: TrainedRun, made_from: str) -> None:
        """Note an evaluation that was just written."""
        assert self.out is not None
        files = {name: file_sha256(self.out / run.folder / name) for name in (RESULTS, PER_QUERY)}
        entry = {"order": run.order.code, "seed": run.seed, "folder": run.folder, "stage": run.stage}
        entry |= {"first_stage": run.first_stage, "note": ""}
        self.models[run.folder] = {**entry, "made_from": made_from, "files": files}
        self._write()

    def leave_out(self, run: TrainedRun, why: str) -> None:
        """Note a run that cannot be evaluated."""
        self.models.pop(run.folder, None)
        self.left_out.append({"order": run.order.code, "seed": run.seed, "stage": run.stage, "note": why})
        self._write()

    def _write(self) -> None:
        if self.out is not None:
            models = sorted(self.models.values(), key=lambda m: self.places.index((m["order"], m["seed"])))
            write_json(self.out / RESULTS, sealed({**self.head, "models": models, "left_out": self.left_out}))


def _sha256(path: Path) -> str:
    """Of a file; '' where there is none. Raises TrichordError when it cannot be read."""
    if not is_there(path):
        return ""
    try:
        return file_sha256(path)
    except OSError as error:
        raise unreadable(path, error) from None


def _label_files(labels: Path) -> list[Path]:
    """The files that labels are read from: one, or the lists of a folder."""
    return sorted(labels.glob("*.txt")) if labels.is_dir() else [labels]
