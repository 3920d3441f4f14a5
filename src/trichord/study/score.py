"""Scoring of the runs of a study. The results are saved for its report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.errors import TrichordError, Unavailable
from trichord.logs import main_process_logger
from trichord.modality import Direction
from trichord.parallel import on_main
from trichord.recipes import Recipe
from trichord.recipes.identity import evaluation_settings
from trichord.study import factories
from trichord.study.evaluation import Evaluated, Evaluation, results_content, write_results
from trichord.study.evaluation_files import RESULTS
from trichord.study.figures import ScoredRun
from trichord.study.files import RUN_AGAIN, damaged, mended_by_deleting
from trichord.study.places import check_stage, identity_of
from trichord.study.plan import PlannedOrder
from trichord.study.protocols import study_protocol
from trichord.study.saved_runs import Saved, SavedRun, geometry_of
from trichord.study.scores import scores_of
from trichord.study.trained_runs import TrainedRun
from trichord.tasks.benchmarks import Benchmark, find_benchmark
from trichord.tasks.protocol import Options
from trichord.tasks.subject import Subject
from trichord.training.models import load_model

if TYPE_CHECKING:
    import torch

    from trichord.store import Store

logger = main_process_logger(__name__)

CONTENTS = 2  # to be raised when the files of a run contain more; older results are then computed again
RECOMPUTED = "it is computed again"


@dataclass
class Kept:
    """The saved results of an order and seed.

    Attributes:
        benchmarks: Entry and arrays of each intact benchmark.
        lost: Names of the damaged benchmarks.
    """

    benchmarks: dict[str, Saved] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


def evaluate_order(
    planned: PlannedOrder,
    out: Path,
    store: Store,
    recipe: Recipe,
    benchmarks: list[Benchmark],
    directions: list[Direction],
) -> ScoredRun:
    """Return the scores of an order and seed on benchmarks. Saved results are read, and others are computed.

    Damaged results are computed again. Saved results of other benchmarks are kept if their training and scoring are the same. The
    processes of a launch share the embedding of clips. The main process does the rest.

    Args:
        planned: Order and seed.
        out: Study folder.
        store: Store with the clips.
        recipe: All settings.
        benchmarks: Benchmarks to score.
        directions: Retrieval directions. Those that need a modality that the order lacks are left out.

    Raises:
        Diverged: The embeddings are not finite.
        TrichordError: The model cannot be read.
    """
    run = TrainedRun(planned.order, planned.seed, planned.stages[-1].folder, planned.stages[0].folder)
    folder = out / "orders" / run.folder
    identity = {
        "stage": planned.stages[-1].key,
        "evaluation": evaluation_settings(recipe),
        "contents": CONTENTS,
    }
    head = {**results_content(str(run), store, run.modalities, [], []), "identity": identity}
    device = factories.scoring_device(recipe)  # joins the other processes of a launch
    kept = Kept()

    def look() -> list[Benchmark]:
        nonlocal kept
        kept = kept_results(folder, head, store)
        lacking = [b for b in benchmarks if b.name not in kept.benchmarks]
        return lacking + [find_benchmark(store, name) for name in kept.lost if name not in [b.name for b in lacking]]

    def keep() -> ScoredRun:
        saved = kept.benchmarks
        if evaluation is not None:
            entries = zip(evaluation.benchmarks, evaluation.entries(), strict=True)
            saved = saved | {done.name: (entry, done.outcome.kept()) for done, entry in entries}
            write_results(folder, *_merged(head, saved.values()), seal=True)
            for suffix in (".json", ".npz"):  # of an earlier version, which would have replaced them
                folder.with_suffix(suffix).unlink(missing_ok=True)
        return ScoredRun(run, scores_of(folder / RESULTS, *_merged(head, [saved[b.name] for b in benchmarks])))

    lacking = on_main(look)
    evaluation = _evaluate(planned, out, store, recipe, lacking, directions, device) if lacking else None
    return on_main(keep)


def _merged(head: dict[str, Any], saved: Iterable[Saved]) -> Saved:
    """Return the content of `results.json` with the entries of benchmarks, and all arrays."""
    benchmarks = list(saved)
    arrays = {key: array for _, own in benchmarks for key, array in own.items()}
    return {**head, "benchmarks": [entry for entry, _ in benchmarks]}, arrays


def kept_results(folder: Path, head: dict[str, Any], store: Store) -> Kept:
    """Read saved results. A benchmark is either complete or left out.

    Args:
        folder: Folder of the run.
        head: Entries of `results.json` without benchmarks. Results with another identity are ignored.
        store: Store with the clips.
    """
    kept = Kept()
    names: list[str] = []
    try:
        saved = SavedRun.read(folder)
        if saved is None or saved.identity != head["identity"]:
            return kept
        names = saved.names
        assert saved.arrays is not None  # read here, since damage concerns all benchmarks
    except Unavailable:
        raise
    except TrichordError as error:
        logger.warning(str(error).replace(RUN_AGAIN, RECOMPUTED))
        return Kept(lost=names)
    for name in names:
        try:
            entry, arrays = saved.benchmark(vars(find_benchmark(store, name)))
            _check(saved, head, entry, arrays)
        except Unavailable:
            raise
        except TrichordError as error:
            logger.warning(str(error).replace(RUN_AGAIN, RECOMPUTED))
            kept.lost.append(name)
        else:
            kept.benchmarks[name] = entry, arrays
    return kept


def _check(saved: SavedRun, head: dict[str, Any], entry: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Raise an error if the saved results of a benchmark are damaged or lack a part."""
    scores = scores_of(saved.path, *_merged(head, [(entry, arrays)]))
    scores.file = saved.arrays_path
    for scored in scores.benchmarks:
        for row in scored.rows:
            scores.each(row)
            scores.units(row)
        for result in scored.results:
            if scores.ranks(scored, result["direction"]) is None:
                raise damaged(saved.arrays_path, f"{scored.head}/{result['direction']} is missing", RUN_AGAIN)
    geometry_of(scores, entry["name"])
    if f"{entry['name']}/caption" not in arrays:
        raise damaged(saved.arrays_path, f"{entry['name']}/caption is missing", RUN_AGAIN)


def _evaluate(
    planned: PlannedOrder,
    out: Path,
    store: Store,
    recipe: Recipe,
    benchmarks: list[Benchmark],
    directions: list[Direction],
    device: torch.device,
) -> Evaluation:
    """Evaluate the model of an order on benchmarks."""
    folder = out / "stages" / planned.stages[-1].folder
    check_stage(folder, identity_of(planned.stages[-1]))
    with mended_by_deleting(folder):
        trained = load_model(folder)
    trained.model.to(device)
    settings = factories.scoring_settings(recipe, trained.visual_streams, trained.audio, trained.text)
    subject = Subject.of_model(f"{planned.order} seed {planned.seed}", trained.model, store, settings, trained.trained)
    possible = tuple(d for d in directions if set(d.modalities) <= set(trained.trained))
    options = Options(directions=possible, missing=settings.missing, block=settings.block)
    evaluation = Evaluation(subject)
    for benchmark in benchmarks:
        protocol = study_protocol(benchmark, recipe.loss.num_clusters)
        outcome = protocol.run(subject, options)
        evaluation.benchmarks.append(Evaluated(benchmark.name, protocol, options, outcome))
        for first in outcome.details["results"][:1]:
            logger.info(
                f"{subject.name}  {benchmark.title} {first['direction']}  R@1 {first['r1']:.2f}  R@5 {first['r5']:.2f}  "
                f"R@10 {first['r10']:.2f}  (chance {first['chance_r10']:.2f})"
            )
    return evaluation
