"""Scoring of the runs of a study. The results are saved for its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.data.reader import Clips
from trichord.errors import TrichordError, Unavailable, one_line
from trichord.evaluation.geometry import Geometry, measure_geometry
from trichord.files.reading import file_sha256
from trichord.files.writing import write_json
from trichord.logs import main_process_logger
from trichord.modality import Direction
from trichord.parallel import on_main
from trichord.recipes import Recipe
from trichord.recipes.identity import evaluation_settings
from trichord.study import factories
from trichord.study.files import (
    check_sha256,
    damaged,
    is_there,
    mended_by_deleting,
    read_arrays,
    read_json,
    read_queries,
)
from trichord.study.places import check_stage, identity_of
from trichord.study.plan import PlannedOrder
from trichord.study.ranks import (
    fault_of_clips,
    fault_of_ranks,
    fault_of_rows,
    rank_arrays,
    write_arrays,
    write_queries,
)
from trichord.tasks.benchmarks import (
    Benchmark,
    benchmark_clips,
    find_benchmark,
)
from trichord.tasks.retrieval.measure import score_directions
from trichord.tasks.subject import ClipSet, Subject, TextRows
from trichord.training.models import load_model
from trichord.training.seals import sealed

if TYPE_CHECKING:
    import torch

    from trichord.store import Store

logger = main_process_logger(__name__)

CONTENTS = 2  # to be raised when the files of a run contain more; older results are then computed again
RECOMPUTED = "it is computed again"


def results_path(out: Path, planned: PlannedOrder) -> Path:
    """Return the path of the figures of an order and seed. The arrays have the same name with `.npz`."""
    return out / "orders" / planned.order.slug / f"seed-{planned.seed}.json"


@dataclass
class Figures:
    """The saved results of an order and seed.

    Attributes:
        names: Names of the intact benchmarks.
        rows: Figures of these benchmarks.
        labels: Kind of the labels of the clips of each benchmark (`clip_labels`).
        arrays: Ranks, clips and geometry of these benchmarks by name.
        lost: Names of the damaged benchmarks.
    """

    names: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


def evaluate_order(
    planned: PlannedOrder,
    out: Path,
    store: Store,
    recipe: Recipe,
    benchmarks: list[Benchmark],
    directions: list[Direction],
) -> list[dict[str, Any]]:
    """Return the results of an order and seed on benchmarks. Saved results are read, and others are computed.

    Damaged results are computed again. Saved results of other benchmarks are kept if their training and scoring are the same. The
    processes of a launch share the embedding of clips. The main process does the rest.

    Args:
        planned: Order and seed.
        out: Study folder.
        store: Store with the clips.
        recipe: All settings.
        benchmarks: Benchmarks to score.
        directions: Retrieval directions. Those that need a modality that the order lacks are left out.

    Returns:
        A result row for each benchmark and direction.

    Raises:
        Diverged: The embeddings are not finite.
        TrichordError: The model cannot be read.
    """
    path = results_path(out, planned)
    identity = {
        "stage": planned.stages[-1].key,
        "evaluation": evaluation_settings(recipe),
        "contents": CONTENTS,
    }
    device = factories.scoring_device(recipe)
    figures = Figures()

    def look() -> list[Benchmark]:
        nonlocal figures
        figures = kept_figures(path, identity)
        lacking = [b for b in benchmarks if b.name not in figures.names]
        lacking += [find_benchmark(store, name) for name in figures.lost if name not in [b.name for b in lacking]]
        for benchmark in benchmarks:
            if benchmark not in lacking:
                _mend_queries(out, store, benchmark, recipe, len(figures.arrays[f"{benchmark.name}/start_s"]))
        return lacking

    def keep() -> list[dict[str, Any]]:
        if lacking:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_arrays(path.with_suffix(".npz"), figures.arrays)
            whole = {**identity, "benchmarks": figures.names}
            kept = {"identity": whole, "results": figures.rows, "labels": figures.labels}
            write_json(path, sealed({**kept, "arrays_sha256": file_sha256(path.with_suffix(".npz"))}))
        return [row for b in benchmarks for row in figures.rows if row["benchmark"] == b.name]

    lacking = on_main(look)
    if lacking:
        _evaluate(planned, out, store, recipe, lacking, directions, figures, device)
    return on_main(keep)


def kept_figures(path: Path, identity: dict[str, Any]) -> Figures:
    """Read saved results. A benchmark is either complete or left out.

    Args:
        path: File of the figures.
        identity: Identity of the training and the scoring. Results with another identity are ignored.
    """
    figures = Figures()
    if not is_there(path):
        return figures
    try:
        kept = read_json(path, mend=RECOMPUTED)
        identity_there = kept.get("identity")
        if (
            not isinstance(identity_there, dict)
            or {k: v for k, v in identity_there.items() if k != "benchmarks"} != identity
        ):
            return figures
        rows, labels, names = kept.get("results"), kept.get("labels"), identity_there.get("benchmarks")
        if not isinstance(labels, dict) or not isinstance(names, list) or fault_of_rows(rows):
            raise damaged(path, fault_of_rows(rows) or "it is incomplete", RECOMPUTED)
        figures.lost = [name for name in names if isinstance(name, str)]
        check_sha256(path.with_suffix(".npz"), kept.get("arrays_sha256"), mend=RECOMPUTED)
        arrays = read_arrays(path.with_suffix(".npz"), mend=RECOMPUTED)
    except Unavailable:
        raise
    except TrichordError as error:
        logger.warning(str(error))
        return figures
    names, figures.lost = figures.lost, []
    for name in names:
        mine = [row for row in rows if row["benchmark"] == name]
        if why := _fault(name, mine, arrays):
            logger.warning(str(damaged(path.with_suffix(".npz"), why, RECOMPUTED)))
            figures.lost.append(name)
            continue
        figures.names.append(name)
        figures.rows += mine
        figures.labels[name] = str(labels.get(name, ""))
    # The names of arrays begin with that of their benchmark. With benchmarks `a` and `a/val`, the longest match counts.
    for key, array in arrays.items():
        owner = max((name for name in names if key.startswith(f"{name}/")), key=len, default=None)
        if owner in figures.names:
            figures.arrays[key] = array
    return figures


def _fault(benchmark: str, rows: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> str:
    """Return what is wrong with the saved results of a benchmark, or ''."""
    faults = [
        fault_of_clips(arrays, benchmark),
        *(fault_of_ranks(arrays, f"{benchmark}/{r['direction']}") for r in rows),
    ]
    try:
        Geometry.from_arrays(arrays, f"{benchmark}/geometry")
    except (TrichordError, ValueError, TypeError) as error:
        faults.append(one_line(error))
    return next(filter(None, faults), "")


def _mend_queries(out: Path, store: Store, benchmark: Benchmark, recipe: Recipe, num_clips: int) -> None:
    """Write the clips and captions of a benchmark if their file is missing or damaged."""
    try:
        read_queries(out, benchmark.name, num_clips, mend=RECOMPUTED)
    except Unavailable:
        raise
    except TrichordError as error:
        logger.warning(str(error))
        write_queries(out, store, benchmark, benchmark_clips(store, benchmark, factories.scoring_settings(recipe, ())))


def _evaluate(
    planned: PlannedOrder,
    out: Path,
    store: Store,
    recipe: Recipe,
    benchmarks: list[Benchmark],
    directions: list[Direction],
    figures: Figures,
    device: torch.device,
) -> None:
    """Evaluate the model of an order on benchmarks. The results are added to `figures` of the main process."""
    folder = out / "stages" / planned.stages[-1].folder
    check_stage(folder, identity_of(planned.stages[-1]))
    with mended_by_deleting(folder):
        trained = load_model(folder)
    possible = [d for d in directions if set(d.modalities) <= set(trained.trained)]
    trained.model.to(device)
    settings = factories.scoring_settings(recipe, trained.visual_streams, trained.audio, trained.text)
    subject = Subject.of_model(f"{planned.order} seed {planned.seed}", trained.model, store, settings, trained.trained)

    def score(benchmark: Benchmark, rows: TextRows) -> None:
        missing = benchmark.missing if settings.missing == "auto" else settings.missing
        scored = score_directions(
            benchmark.name, *rows.by_clip(), possible, subject.fusion, missing, block=settings.block
        )
        labels, label_name = clip_labels(store, rows.texts)
        geometry = measure_geometry(
            rows.embeddings, rows.valid, labels=labels, num_clusters=recipe.loss.num_clusters, seed=0
        )
        figures.names.append(benchmark.name)
        figures.rows += [{"order": planned.order.code, "seed": planned.seed, **row.to_dict()} for row in scored]
        figures.labels[benchmark.name] = label_name
        figures.arrays |= rank_arrays(store, benchmark, rows.texts, scored, rows.first)
        figures.arrays |= geometry.to_arrays(f"{benchmark.name}/geometry") if geometry is not None else {}
        write_queries(out, store, benchmark, rows.texts)
        for first in scored[:1]:
            logger.info(
                f"{planned.order} seed {planned.seed}  {benchmark.title} {first.direction}  R@1 {first.r1:.2f}  "
                f"R@5 {first.r5:.2f}  R@10 {first.r10:.2f}  (chance {first.chance_r10:.2f})"
            )

    for benchmark in benchmarks:
        rows = subject.text_rows(ClipSet.of_benchmark(benchmark), trained.trained)
        on_main(partial(score, benchmark, rows))


def clip_labels(store: Store, clips: Clips) -> tuple[list[str] | None, str]:
    """Return labels that say which clips belong together.

    Args:
        store: Store with the clips.
        clips: Clips.

    Returns:
        The label of each clip and the kind of the labels: the video if videos have several clips, otherwise the first folder of
        the id of the video. None and '' if there are no folders.
    """
    videos = [store.video_id(int(i)) for i in clips.item]
    if len(set(videos)) < len(videos):
        return videos, "video"
    folders = [name.partition("/")[0] if "/" in name else "" for name in videos]
    if all(folders) and len(set(folders)) > 1:
        return folders, "first folder of the name"
    return None, ""
