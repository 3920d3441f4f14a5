"""Functions that train the stages of a plan, evaluate the orders and write the table.

Finished stages and evaluations are reused.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.data.frozen import frozen_folder, why_not_writable
from trichord.errors import Diverged, TrichordError
from trichord.files.folders import remove_folder
from trichord.files.paths import accepts_text_paths
from trichord.files.reading import read_json_value
from trichord.files.writing import refuse_foreign, write_text, writing_to
from trichord.logs import deprecated_callback, is_main_process, main_process_logger
from trichord.modality import Direction, Order
from trichord.parallel import on_main
from trichord.recipes import Recipe
from trichord.study import factories
from trichord.study.calls import CALLS, begin_call, end_call
from trichord.study.figures import ScoredRun
from trichord.study.files import is_there, mended_by_deleting
from trichord.study.folder import DIVERGED, check_store, claim, config_text, divergence_of, note_divergence, write_study
from trichord.study.lock import alone_in
from trichord.study.places import check_described, identity_of
from trichord.study.plan import PlannedOrder, PlannedStage, distinct_stages, plan_order, plan_study
from trichord.study.score import evaluate_order
from trichord.study.table import TABLE_FILES, StudyTable, write_table
from trichord.study.validation import validation_score
from trichord.tasks.benchmarks import benchmark_names, find_benchmark
from trichord.training import divergence
from trichord.training.checkpoint import FOLDER as CHECKPOINTS
from trichord.training.checkpoint import finish_checkpoints
from trichord.training.frozen import frozen_inputs
from trichord.training.loop import train_stage
from trichord.training.models import DESCRIPTION, WEIGHTS, description_of, load_weights, read_description, save_model
from trichord.training.selection import Selection
from trichord.training.sharding import gather_weights
from trichord.training.stage import count_parameters

if TYPE_CHECKING:
    from trichord.store import Store
    from trichord.store.location import Location

logger = main_process_logger(__name__)


@dataclass(frozen=True)
class TrainSummary:
    """The result of `train_order`.

    Attributes:
        order: Order that was trained.
        stage_folders: Folder of each stage, starting with the first. The last one contains the model with all modalities.
        num_steps: Number of training steps of this call.
    """

    order: Order
    stage_folders: tuple[Path, ...]
    num_steps: int

    @property
    def model_folder(self) -> Path:
        """Folder of the model with all modalities."""
        return self.stage_folders[-1]


@accepts_text_paths
def train_order(
    store_path: Location,
    out: Path,
    order: str | Order,
    seed: int,
    recipe: Recipe,
    *,
    resume: bool = False,
) -> TrainSummary:
    """Train the stages of an order.

    Args:
        store_path: Store: a folder or a URL.
        out: Run folder, in which `run.yaml` and `stages/` are written.
        order: Order, such as `av>t`.
        seed: Seed of initial weights, batches and clustering.
        recipe: All settings.
        resume: Whether to continue the run in `out`. Without it, a folder that contains a run is an error. A stage that has
            diverged is trained again from its last checkpoint.

    Returns:
        The folders of the stages, and the number of steps.

    Raises:
        Diverged: A stage diverges, which is also recorded in the folder of the stage.
        TrichordError: The settings, the store or the folder cannot be used.
    """
    from trichord.store import Store

    recipe.check()
    factories.training_accelerator(recipe)  # joins the other processes of a launch
    store = Store(store_path, cache_gb=recipe.data.cache_gb or None)
    planned = plan_order(Order.parse(order), seed, recipe, store.fingerprint)
    with writing_to(out), alone_in(out):
        on_main(lambda: claim(out, store, recipe, must_be_new=not resume))
        for line in factories.check_data(recipe, store, [stage.stage for stage in planned.stages]):
            logger.warning(line)
        steps = 0
        on_main(partial(_note_read_only, planned.stages, out, store, recipe))
        for stage in planned.stages:
            folder = out / "stages" / stage.folder
            if why := on_main(partial(_diverged, folder)):
                logger.info(f"stage {stage.folder} diverged in an earlier call ({why}); it is trained again")
            steps += _train(stage, out, store, recipe)
    return TrainSummary(planned.order, tuple(out / "stages" / s.folder for s in planned.stages), steps)


@deprecated_callback("say")
@accepts_text_paths
def run_study(
    store_path: Location,
    out: Path,
    orders: Sequence[str | Order],
    seeds: list[int],
    recipe: Recipe,
    *,
    benchmarks: list[str] | None = None,
    first_stage_seed: int | None = None,
) -> StudyTable:
    """Train each order with each seed, evaluate the models on every benchmark and write the table.

    A second call continues where the first one stopped. An order that diverges, or whose embeddings are not finite, is left out
    with a warning, and the other orders continue.

    Args:
        store_path: Store with the training videos and the benchmarks: a folder or a URL.
        out: Study folder, in which `stages/`, `orders/`, `study.json`, `table.md`, `table.csv`, `table.tex` and `orders.png` are
            written.
        orders: Orders, such as ["av>t", "at>v", "vt>a", "avt"].
        seeds: Seeds. Each order is trained once for each seed.
        recipe: All settings.
        benchmarks: Names of benchmarks. None uses all benchmarks for which the store has clips.
        first_stage_seed: If given, all seeds share first stages that are trained with this seed.

    Returns:
        The table of the orders of this call. `study.json` and `orders/` also contain the results of earlier calls.

    Raises:
        Diverged: All orders diverge.
        TrichordError: The settings, the store or the folder cannot be used.
    """
    from trichord.store import Store

    recipe.check()
    factories.training_accelerator(recipe)  # joins the other processes of a launch
    store = Store(store_path, cache_gb=recipe.data.cache_gb or None)
    parsed = [Order.parse(order) for order in orders]
    plan = plan_study(parsed, seeds, recipe, store.fingerprint, first_stage_seed)
    directions = [Direction.parse(code) for code in recipe.evaluation.directions]
    names = benchmarks or benchmark_names(store)
    if not names:
        raise TrichordError(
            f"{store.path}: contains no clips for the evaluation (all videos are in split train); "
            "give --benchmarks COLLECTION/train"
        )
    chosen = [find_benchmark(store, name) for name in dict.fromkeys(names)]
    factories.check_overlaps(recipe, store, chosen)
    for line in factories.check_data(recipe, store, [stage.stage for stage in distinct_stages(plan)]):
        logger.warning(line)
    for line in _unscored(parsed, directions):
        logger.warning(line)
    results: list[dict[str, Any]] = []
    runs: list[ScoredRun] = []
    table = None
    with writing_to(out), alone_in(out):
        on_main(partial(_check_new, out))
        on_main(lambda: claim(out, store, recipe, must_be_new=False))
        write = partial(write_study, out, store, recipe, plan, chosen, results, first_stage_seed=first_stage_seed)
        on_main(write)
        stages = distinct_stages(plan)
        num_orders, num_seeds = (len({getattr(p, name) for p in plan}) for name in ("order", "seed"))
        counts = (
            f"{_count(num_orders, 'order')} with {_count(num_seeds, 'seed')}: {_count(len(stages), 'stage')} to train"
        )
        logger.info(f"{counts} ({sum(len(p.stages) for p in plan)} without sharing)")
        on_main(partial(_note_read_only, stages, out, store, recipe))
        for planned in plan:
            if why := _train_all(planned, out, store, recipe):
                logger.warning(f"{planned.order} seed {planned.seed}  is left out, since it diverged: {why}")
                continue
            try:
                scored = evaluate_order(planned, out, store, recipe, chosen, directions)
            except Diverged as error:
                logger.warning(f"{planned.order} seed {planned.seed}  is left out: {error}")
                continue
            results += scored.results
            runs.append(scored)
            table = StudyTable.from_results(
                results, [b.title for b in chosen], [b.name for b in chosen], directions[0], runs
            )
            on_main(write)
            on_main(partial(write_table, table, out))
    if table is None:
        raise Diverged(f"{out}: every order diverged; lower training.learning_rate, and give another --out")
    return table


def _unscored(orders: Sequence[Order], directions: Sequence[Direction]) -> list[str]:
    """Return a line for each order that cannot be scored in any direction."""
    lines = []
    for order in dict.fromkeys(orders):
        if not any(set(direction.modalities) <= set(order.modalities) for direction in directions):
            example = Direction(order.modalities[:1], order.modalities[1:2]).code
            lines.append(
                f"order {order} is trained but not scored, since every direction of evaluation.directions needs another "
                f"modality; add a direction such as {example}"
            )
    return lines


def _check_new(out: Path) -> None:
    """Raise TrichordError if a folder without a run contains a foreign file with the name of a file of a study."""
    if not is_there(out / "run.yaml"):
        is_study = is_there(out / "study.json") and _is_study(out / "study.json")
        refuse_foreign([out / name for name in ("study.json", *TABLE_FILES)], lambda _: is_study, "a file of a study")


def _is_study(path: Path) -> bool:
    try:
        content = read_json_value(path)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.keys() >= {"recipe", "orders", "results"}


def _note_read_only(stages: Sequence[PlannedStage], out: Path, store: Store, recipe: Recipe) -> None:
    """Warn before the first step that later stages are slower if the store is read-only."""
    lacking = [s for s in stages if s.stage.frozen and not is_there(out / "stages" / s.folder / DESCRIPTION)]
    folder = frozen_folder(store)
    if lacking and recipe.training.frozen_cache == "auto" and (why := why_not_writable(folder)):
        logger.warning(
            f"{folder}: cannot be written ({why}), so frozen embeddings are not cached; later stages compute them at every "
            "step, which takes longer (training.frozen_cache off does the same without this warning)"
        )


def _train_all(planned: PlannedOrder, out: Path, store: Store, recipe: Recipe) -> str:
    """Train the missing stages of an order. Return why it diverged, or ''.

    A stage that diverged would diverge again, so it is not trained while its folder records the divergence.
    """
    for stage in planned.stages:
        folder = out / "stages" / stage.folder
        if why := on_main(partial(_diverged, folder)):
            return f"{why} (delete {folder / DIVERGED} to train it again)"
        try:
            _train(stage, out, store, recipe)
        except Diverged as error:
            return str(error)
    return ""


def _diverged(folder: Path) -> str | None:
    """Return why a stage diverged, or None if it did not or has been finished since."""
    return None if is_there(folder / DESCRIPTION) else divergence_of(folder)


def _train(planned: PlannedStage, out: Path, store: Store, recipe: Recipe) -> int:
    """Run a stage, and record in its folder whether it diverged. Return the number of steps done."""
    folder = out / "stages" / planned.folder
    try:
        steps = _run_stage(planned, out, store, recipe)
    except Diverged as error:
        if is_main_process():
            note_divergence(folder, error)
        raise
    if is_main_process():
        (folder / DIVERGED).unlink(missing_ok=True)
        remove_folder(folder / divergence.FOLDER, divergence.FILES)
    return steps


def _run_stage(planned: PlannedStage, out: Path, store: Store, recipe: Recipe) -> int:
    """Train a stage unless it is finished. Return the number of steps done."""
    folder = out / "stages" / planned.folder
    if on_main(partial(_is_finished, planned, folder, recipe)):
        return 0
    accelerator = factories.training_accelerator(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        write_text(folder / "config.yaml", config_text(store, recipe, planned))
        begin_call(folder, recipe)
    begun_s = time.monotonic()
    model = factories.build_model(recipe, store, planned.seed)
    trained: tuple[str, ...] = planned.stage.train
    if planned.parent is not None:
        parent = out / "stages" / planned.parent.folder
        with mended_by_deleting(parent):
            load_weights(model, parent / WEIGHTS)
        model = _with_fresh(model, factories.build_model(recipe, store, planned.seed), planned)
        trained = planned.stage.earlier + trained
    loss = factories.build_loss(recipe, planned.stage, planned.seed)
    source, reader = factories.build_batches(recipe, store, planned.stage, planned.seed)
    reader.frozen = frozen_inputs(
        model,
        planned.stage,
        source,
        reader,
        factories.frozen_settings(recipe, planned.stage, source),
        accelerator,
    )
    if source.most_clips == 1:
        logger.warning(
            "a batch of a single clip has no negatives, so the contrastive loss has no effect; raise data.videos_per_batch "
            "or data.clips_per_video, or add videos"
        )
    order = planned.stage.order
    title = f"{order} stage {len(order.stages)} seed {planned.seed}"
    kept: dict[str, Any] = {
        "trained": trained,
        "visual_streams": reader.settings.visual_streams,
        "audio": reader.settings.audio,
        "text": reader.settings.text,
        "settings": recipe.to_dict(),
    }
    extra: dict[str, Any] = {
        "stage": planned.stage.chain,
        "seed": planned.seed,
        "key": planned.key,
        "parent": planned.parent and planned.parent.folder,
    }
    selection = None
    if recipe.training.select == "best":
        read = reader.settings
        scoring = factories.scoring_settings(recipe, read.visual_streams, read.audio, read.text)
        score = validation_score(recipe, store, planned.stage, model, scoring)
        selection = Selection(model, planned.stage, score, heads=bool(loss.reconstruct))
    steps = train_stage(
        model, planned.stage, loss, source, reader, factories.loop_settings(recipe, planned.stage),
        accelerator=accelerator, folder=folder, title=title,
        described={"settings": recipe.to_dict(), "seed": planned.seed},
        model_json=description_of(model, **kept, extra=extra), selection=selection,
    )  # fmt: skip
    on_main(partial(check_store, out, store))
    if selection is not None:
        extra["selection"] = selection.described()
    extra["parameters"] = count_parameters(model, planned.stage)
    if recipe.training.shard == "full":  # the weights are sharded
        state = gather_weights(model)
        model = factories.build_model(recipe, store, planned.seed)
        model.load_state_dict(dict(state))
    if accelerator.is_main_process:
        extra["calls"] = end_call(folder, steps, time.monotonic() - begun_s)
        centroids = None if loss.memory is None else loss.memory.centroids
        save_model(folder, model, **kept, extra=extra, centroids=centroids)
        (folder / CALLS).unlink(missing_ok=True)
        finish_checkpoints(folder / CHECKPOINTS, recipe.training.keep_best)
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    return steps


def _is_finished(planned: PlannedStage, folder: Path, recipe: Recipe) -> bool:
    if not is_there(folder / DESCRIPTION):
        return False
    with mended_by_deleting(folder):
        described = read_description(folder)
    check_described(folder, described, identity_of(planned))
    finish_checkpoints(folder / CHECKPOINTS, recipe.training.keep_best)  # the process may have been killed before this
    return True


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _with_fresh(model: Any, fresh: Any, planned: PlannedStage) -> Any:
    """Give the modalities and pairs that this stage adds the initial weights of the seed of this stage."""
    for modality in planned.stage.train:
        for name, part in model.parts(modality).items():
            if part is not None:
                part.load_state_dict(fresh.parts(modality)[name].state_dict())
    added = [pair for pair in planned.stage.pairs if set(pair) & set(planned.stage.train)]
    for pair, parameters in model.pair_parts(added).items():
        parameters.load_state_dict(fresh.pair_parts([pair])[pair].state_dict())
    return model
