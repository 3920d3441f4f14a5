"""Evaluation of all models of a study, one per order and seed, with the same protocols (`trichord evaluate STUDY`).

Each model is evaluated as if it were given alone, and the same files are written to `OUT/ORDER/seed-N`. `OUT/results.json` lists
the models and the inputs of each evaluation. It is written after each model, so an interrupted call can be continued:
evaluations with the same weights, data and options are read from their files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
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
from trichord.study.evaluate import evaluate
from trichord.study.evaluation import write_evaluation
from trichord.study.evaluation_files import PER_QUERY, RESULTS, refuse_run
from trichord.study.figures import ScoredRun
from trichord.study.files import RUN_AGAIN, check_sha256, is_there, read_json
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

CONTENTS = 3  # version of the content of the files; evaluations with another version are computed again
RECOMPUTED = "it is computed again"


@dataclass
class OrdersEvaluation:
    """The evaluations of the models of a study.

    Attributes:
        study: Study folder.
        runs: Runs that were evaluated, with their scores.
        left_out: Other runs, each with the reason why it was not evaluated.
    """

    study: Path
    runs: list[ScoredRun] = field(default_factory=list)
    left_out: dict[TrainedRun, str] = field(default_factory=dict)

    @property
    def benchmarks(self) -> list[str]:
        """Names of the benchmarks, in the order of the tables."""
        return list(dict.fromkeys(scored.name for done in self.runs for scored in done.scores.benchmarks))

    def notes(self) -> list[str]:
        """Return the notes of the evaluations, and a line for each run that was left out.

        Each note is listed once, and it names its models unless it concerns all of them.
        """
        runs_of_note: dict[str, list[TrainedRun]] = {}
        for done in self.runs:
            for note in dict.fromkeys(done.scores.all_notes):
                runs_of_note.setdefault(note, []).append(done.run)
        lines = [
            note if len(runs) == len(self.runs) else f"{_text_of(runs)}: {note}" for note, runs in runs_of_note.items()
        ]
        return lines + [f"{run} was left out: {why}" for run, why in self.left_out.items()]


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

    Runs that are unfinished or have diverged are left out, and so are benchmarks and directions that need a modality that an
    order lacks. `OrdersEvaluation.left_out` and the notes list them.

    Args:
        study: Study folder.
        store_path: Store with the clips: a folder or a URL.
        names: Benchmarks, as in `study.evaluate.evaluate`.
        out: Folder in which the evaluations are saved. None saves nothing.
        orders: Orders to evaluate. If empty, all orders of the study.
        seeds: Seeds to evaluate. If empty, all seeds of the study.
        directions: Retrieval directions, as in `study.evaluate.evaluate`.
        recipe: Recipe that defines how clips are read and scored. None uses that of the study.
        options: Further options, as in `study.evaluate.evaluate`.
        num_windows: Number of windows into which longer clips are cut. 0 embeds them whole.
        window_s: Length of a window in seconds. None uses the minimum length of clips in the recipe.
        window_pool: How the embeddings of the windows are combined: `mean` or `max`.

    Returns:
        The evaluations.

    Raises:
        TrichordError: No run is finished, or no order supports one of the directions or benchmarks.
    """
    from trichord.store import Store

    if out is not None and out.suffix == ".json":
        raise TrichordError(f"{out}: the evaluation of several models needs a folder; give --out a name without .json")
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
                logger.info(f"{run}: already evaluated ({finished.index(run) + 1} of {len(finished)})")
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
                write_evaluation(evaluation, out / run.folder, overwrite=True)
                on_main(partial(index.add, run, begun))
            evaluation_of_orders.runs.append(ScoredRun(run, evaluation.scores()))
            logger.info(f"{run}: evaluated ({finished.index(run) + 1} of {len(finished)})")
    _require_all(evaluation_of_orders, names)
    return evaluation_of_orders


def _text_of(runs: Sequence[TrainedRun]) -> str:
    """Return the orders and seeds of runs as text, such as `AV→T seeds 0, 1; VT→A seed 0`."""
    parts = []
    for order in dict.fromkeys(run.order for run in runs):
        seeds = [str(run.seed) for run in runs if run.order == order]
        parts.append(f"{order} seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}")
    return "; ".join(parts)


def _recipe_of(study: Path) -> Any:
    """Return the recipe of a study. Raise TrichordError if `study.json` does not contain it."""
    recipe = read_plan(study)[0].get("recipe")
    if not isinstance(recipe, dict):
        raise TrichordError(f"{study / 'study.json'}: has no 'recipe'; {RUN_AGAIN}")
    return recipe_from_dict(of_this_version(recipe), str(study / "study.json"))


def _check_directions(directions: Sequence[str] | str, runs: Sequence[TrainedRun]) -> None:
    """Raise TrichordError for a direction with modalities that no finished order has."""
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
                f"direction {code}: none of the finished orders ({trained}) was trained on all its modalities; leave it out"
            )


def _require_all(evaluation: OrdersEvaluation, names: list[str]) -> None:
    """Raise TrichordError if no model could be scored, or if no model could be scored on one of the given benchmarks."""
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
    problem, mend = "no order can be scored", "give other benchmarks or directions"
    if lacking:
        problem, mend = f"benchmark {lacking[0]}: {problem} on it", "leave this benchmark out"
    raise TrichordError(f"{evaluation.study}: {problem} ({reason}); {mend}")


@dataclass
class Index:
    """The file `OUT/results.json`, which lists the evaluated models with the inputs of each evaluation.

    Only the main process uses it.

    Attributes:
        out: Folder of the file. None if nothing is saved.
        study: Study folder.
        head: Content of the file except the lists of models.
        basis: Inputs that all evaluations of this call share.
        places: Order and seed of every run, in the order of the plan of the study.
        models: Entries of evaluated models by the folder of their evaluation.
        left_out: Entries of the runs of this call that cannot be evaluated, with the reason as a note.
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
        """Return the index of a call, with the entries of earlier evaluations that have the same weights, data and options.

        Args:
            out: Folder of the file. None if nothing is saved.
            study: Study folder.
            store: Store with the clips.
            asked: Arguments of `evaluate` by name.
            recipe: Content of the given recipe. None for the recipe of the study.

        Raises:
            TrichordError: The folder contains the evaluation of a single model, or the runs of a study.
        """
        plain = {**asked, "options": asked["options"].to_dict(), "recipe": recipe}
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
        if out is None:
            return index
        for run in runs:
            refuse_run(out / run.folder / RESULTS)
        if not is_there(out / RESULTS):
            return index
        try:
            content = read_json(out / RESULTS, mend=RECOMPUTED)
        except Unavailable:
            raise
        except TrichordError as error:
            logger.warning(str(error))
            return index
        if "models" not in content:
            raise TrichordError(f"{out}: contains the evaluation of a single model; give another --out")
        entries = content["models"] if isinstance(content["models"], list) else []
        earlier = {entry["folder"]: entry for entry in entries if isinstance(entry, dict) and entry.get("folder")}
        for run in runs:
            entry = earlier.get(run.folder)
            if entry is not None and not run.why and entry.get("made_from") == index.made_from(run):
                index.models[run.folder] = entry
        return index

    def made_from(self, run: TrainedRun) -> str:
        """Return a digest of all inputs of the evaluation of a run."""
        weights = _sha256(self.study / "stages" / run.stage / DESCRIPTION)  # contains the digest of the weights
        return digest({**self.basis, "stage": run.stage, "model": weights})

    def kept(self, run: TrainedRun) -> ScoredRun | None:
        """Return the saved evaluation of a run with the same inputs, or None if there is none."""
        entry = self.models.get(run.folder)
        if entry is None or self.out is None:
            return None
        files = entry.get("files")
        try:
            for name in (RESULTS, PER_QUERY):
                recorded = files.get(name) if isinstance(files, dict) else ""
                check_sha256(self.out / run.folder / name, recorded or "", mend=RECOMPUTED)
            return ScoredRun(run, read_scores(self.out / run.folder).loaded())
        except Unavailable:
            raise
        except TrichordError as error:
            logger.warning(str(error).replace(AGAIN, RECOMPUTED))
            del self.models[run.folder]
            return None

    def add(self, run: TrainedRun, made_from: str) -> None:
        """Add the entry of an evaluation whose files have been written.

        Args:
            run: Run that was evaluated.
            made_from: Digest of the inputs of the evaluation.
        """
        assert self.out is not None
        files = {name: file_sha256(self.out / run.folder / name) for name in (RESULTS, PER_QUERY)}
        entry = {"order": run.order.code, "seed": run.seed, "folder": run.folder, "stage": run.stage}
        entry |= {"first_stage": run.first_stage, "note": ""}
        self.models[run.folder] = {**entry, "made_from": made_from, "files": files}
        self._write()

    def leave_out(self, run: TrainedRun, why: str) -> None:
        """Add the entry of a run that cannot be evaluated.

        Args:
            run: The run.
            why: Reason.
        """
        self.models.pop(run.folder, None)
        self.left_out.append({"order": run.order.code, "seed": run.seed, "stage": run.stage, "note": why})
        self._write()

    def _write(self) -> None:
        if self.out is not None:
            models = sorted(self.models.values(), key=lambda m: self.places.index((m["order"], m["seed"])))
            write_json(self.out / RESULTS, sealed({**self.head, "models": models, "left_out": self.left_out}))


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or '' if it does not exist. Raise TrichordError if it cannot be read."""
    if not is_there(path):
        return ""
    try:
        return file_sha256(path)
    except OSError as error:
        raise unreadable(path, error) from None


def _label_files(labels: Path) -> list[Path]:
    """Return the files of labels: a single file, or the lists in a folder."""
    return sorted(labels.glob("*.txt")) if labels.is_dir() else [labels]
