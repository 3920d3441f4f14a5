"""Run the stages of a plan, evaluate the orders, write the table. Everything that is finished is kept and used again."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from trichord.data.reader import EMBEDDING_STREAMS
from trichord.errors import TrichordError
from trichord.evaluation.benchmarks import (
    Benchmark,
    RetrievalResult,
    benchmark_names,
    evaluate_retrieval,
    find_benchmark,
)
from trichord.modality import Direction, Order
from trichord.recipes import Recipe, load_recipe, recipe_from_dict
from trichord.study import factories
from trichord.study.plan import PlannedOrder, PlannedStage, distinct_stages, plan_order, plan_study, training_settings
from trichord.study.ranks import rank_arrays, write_arrays
from trichord.study.table import StudyTable, write_table
from trichord.training.checkpoint import write_json
from trichord.training.loop import train_stage
from trichord.training.models import DESCRIPTION, WEIGHTS, TrainedModel, load_model, load_weights, save_model

if TYPE_CHECKING:
    from trichord.store import Store

Say = Callable[[str], None]
PACKAGES = ("trichord", "torch", "numpy", "accelerate", "safetensors")


@dataclass(frozen=True)
class TrainSummary:
    """What `train` leaves: the folder of each stage, in order; the last one holds the whole model."""

    order: str
    stage_folders: tuple[Path, ...]
    num_steps: int

    @property
    def model_folder(self) -> Path:
        return self.stage_folders[-1]


def train_order(
    store_path: Path, out: Path, order: str, seed: int, recipe: Recipe, *, resume: bool = False, say: Say | None = None
) -> TrainSummary:
    """Train the stages of one order.

    Args:
        store_path: The store.
        out: Run folder; gets `run.yaml` and `stages/`.
        order: E.g. `av>t`.
        seed: Of initial weights, batches and clustering.
        recipe: All settings.
        resume: Go on with the run of `out`; without it a folder that holds a run is refused.
        say: Takes progress lines.
    """
    from trichord.store import Store

    store = Store(store_path)
    planned = plan_order(Order.parse(order), seed, recipe, store.fingerprint)
    _claim(out, store, recipe, must_be_new=not resume)
    steps = sum(_run_stage(stage, out, store, recipe, say) for stage in planned.stages)
    return TrainSummary(planned.order.code, tuple(out / "stages" / s.folder for s in planned.stages), steps)


def run_study(
    store_path: Path,
    out: Path,
    orders: list[str],
    seeds: list[int],
    recipe: Recipe,
    *,
    benchmarks: list[str] | None = None,
    first_stage_seed: int | None = None,
    say: Say | None = None,
) -> StudyTable:
    """Train orders x seeds, evaluate each on every benchmark, write the table. A second call goes on where the first stopped.

    Args:
        store_path: The store to train on and to take the benchmarks from.
        out: Study folder; gets `stages/`, `orders/`, `study.json`, `table.md`, `table.csv`, `table.tex`, `orders.png`.
        orders: E.g. ["av>t", "at>v", "vt>a", "avt"].
        seeds: Each order is trained once per seed.
        recipe: All settings.
        benchmarks: Names; None takes all that the store has clips for.
        first_stage_seed: Given, all seeds share first stages that were trained with it.
        say: Takes progress lines.
    """
    from trichord.store import Store

    store = Store(store_path)
    parsed = [Order.parse(order) for order in orders]
    plan = plan_study(parsed, seeds, recipe, store.fingerprint, first_stage_seed)
    directions = [Direction.parse(code) for code in recipe.evaluation.directions]
    names = benchmarks or benchmark_names(store)
    if not names:
        raise TrichordError(
            f"{store.path}: no clips to evaluate on (every video is in split train); give --benchmarks COLLECTION/train"
        )
    chosen = [find_benchmark(store, name) for name in names]
    _claim(out, store, recipe, must_be_new=False)
    say = say or _print
    stages = distinct_stages(plan)
    say(
        f"{len(plan)} orders x seeds, {len(stages)} stages to train ({sum(len(p.stages) for p in plan)} without sharing)"
    )
    results: list[dict[str, Any]] = []
    for planned in plan:
        for stage in planned.stages:
            _run_stage(stage, out, store, recipe, say)
        results += _evaluate_order(planned, out, store, recipe, chosen, directions, say)
        table = StudyTable.from_results(
            results, [b.title for b in chosen], [b.name for b in chosen], directions[0].code
        )
        _write_study(out, store, recipe, plan, chosen, results, table)
    return table


def evaluate_model(
    run: Path, store_path: Path, benchmarks: list[str], directions: list[str] | None = None, recipe: str | None = None
) -> tuple[list[RetrievalResult], tuple[str, ...]]:
    """Score a trained model or a published checkpoint on benchmarks of a store.

    Args:
        run: Run, study or stage folder, or a published .pth file.
        store_path: Store with the clips.
        benchmarks: Names; empty takes all that the store has clips for.
        directions: E.g. ["t2v"]; None takes the recipe's, as far as their modalities were trained.
        recipe: How clips are read and scored; None takes the recipe that trained the model, `mcn` for a published one.

    Returns:
        Results, and notes of what a reader should know.

    Raises TrichordError when the model's widths are not the store's, or a direction needs an untrained modality.
    """
    from trichord.store import Store

    store, trained = Store(store_path), load_model(find_model(run))
    _check_widths(run, trained, store)
    used = recipe_from_dict(trained.settings) if trained.settings and recipe is None else load_recipe(recipe or "mcn")
    codes = directions or [
        code for code in used.evaluation.directions if set(Direction.parse(code).modalities) <= set(trained.trained)
    ]
    parsed = [Direction.parse(code) for code in codes]
    for direction in parsed:
        if untrained := [m for m in direction.modalities if m not in trained.trained]:
            raise TrichordError(
                f"{run}: direction {direction.code} needs {untrained[0]}, which this model was not trained on; "
                f"it knows {', '.join(trained.trained)}"
            )
    chosen = [find_benchmark(store, name) for name in benchmarks or benchmark_names(store)]
    settings = factories.scoring_settings(used, trained.visual_streams, trained.audio, trained.text)
    return [row for b in chosen for row in evaluate_retrieval(trained.model, store, b, parsed, settings)], trained.notes


def find_model(run: Path) -> Path:
    """The model that a folder means: its own, or that of the last stage of the one order that was trained there.

    Raises TrichordError when there is none, or when there are several to choose from.
    """
    if run.is_file() or (run / DESCRIPTION).is_file():
        return run
    found = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in run.glob(f"stages/*/{DESCRIPTION}")
    }
    last = sorted(set(found) - {described.get("parent") for described in found.values()})
    if not last:
        raise TrichordError(f"{run}: no trained model here; give a run folder, a stage folder or a published .pth file")
    if len(last) > 1:
        raise TrichordError(f"{run}: holds {len(last)} models; give one of them, e.g. {run / 'stages' / last[0]}")
    return run / "stages" / last[0]


def _check_widths(run: Path, trained: TrainedModel, store: Store) -> None:
    arguments = trained.model.arguments
    if "video" in trained.trained and all(s in store.streams for s in trained.visual_streams):
        width = sum(store.streams[s].dim for s in trained.visual_streams)
        if arguments["video_dim"] != width:
            raise TrichordError(
                f"{run}: the model reads video of width {arguments['video_dim']}, {store.path} has {width} "
                f"({' + '.join(trained.visual_streams)}); use the store that it was trained on, or features of the same encoder"
            )
    reads_words = trained.text == "words"
    if "text" in trained.trained and reads_words and store.word_dim and arguments["word_dim"] != store.word_dim:
        raise TrichordError(
            f"{run}: the model reads words of width {arguments['word_dim']}, {store.path} has {store.word_dim}; "
            "import with the same word vectors"
        )
    wanted = {"audio": arguments["audio_dim"], "text": None if reads_words else arguments["word_dim"]}
    for modality, width in wanted.items():
        info = store.streams.get(EMBEDDING_STREAMS[modality])
        if modality in trained.trained and width is not None and info is not None and info.dim != width:
            raise TrichordError(
                f"{run}: the model reads {modality} embeddings of width {width}, {store.path} has {info.dim}; "
                "use the store that it was trained on, or embeddings of the same encoder"
            )


def _run_stage(planned: PlannedStage, out: Path, store: Store, recipe: Recipe, say: Say | None) -> int:
    """Train a stage unless it is finished. Returns the steps done now."""
    folder = out / "stages" / planned.folder
    if (folder / DESCRIPTION).is_file():
        return 0
    accelerator = factories.build_accelerator(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        (folder / "config.yaml").write_text(_config_text(store, recipe, planned), encoding="utf-8")
    model = factories.build_model(recipe, store, planned.seed)
    trained: tuple[str, ...] = planned.stage.train
    if planned.parent is not None:
        load_weights(model, out / "stages" / planned.parent.folder / WEIGHTS)
        model = _with_fresh(model, factories.build_model(recipe, store, planned.seed), planned)
        trained = planned.stage.frozen + trained
    if recipe.training.sync_batch_norm:
        import torch

        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    loss = factories.build_loss(recipe, planned.stage, planned.seed)
    source, reader = factories.build_batches(recipe, store, planned.stage, planned.seed)
    order = Order.parse(planned.stage.chain)
    title = f"{order} stage {len(order.stages)} seed {planned.seed}"
    steps = train_stage(
        model, planned.stage, loss, source, reader, factories.loop_settings(recipe),
        accelerator=accelerator, folder=folder, title=title, say=say,
    )  # fmt: skip
    if accelerator.is_main_process:
        extra = {
            "stage": planned.stage.chain,
            "seed": planned.seed,
            "key": planned.key,
            "parent": planned.parent and planned.parent.folder,
        }
        save_model(
            folder, model, trained=trained, visual_streams=reader.visual_streams, audio=reader.audio, text=reader.text,
            settings=recipe.to_dict(), extra=extra,
        )  # fmt: skip
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    return steps


def _with_fresh(model: Any, fresh: Any, planned: PlannedStage) -> Any:
    """Give the modalities that this stage trains the initial weights of this stage's seed."""
    for modality in planned.stage.train:
        for name, part in model.parts(modality).items():
            if part is not None:
                part.load_state_dict(fresh.parts(modality)[name].state_dict())
    return model


def _evaluate_order(
    planned: PlannedOrder,
    out: Path,
    store: Store,
    recipe: Recipe,
    benchmarks: list[Benchmark],
    directions: list[Direction],
    say: Say,
) -> list[dict[str, Any]]:
    """Results of one order and seed, computed or read back."""
    import torch

    path = out / "orders" / planned.order.slug / f"seed-{planned.seed}.json"
    identity = {
        "stage": planned.stages[-1].key,
        "evaluation": recipe.to_dict()["evaluation"],
        "benchmarks": [b.name for b in benchmarks],
        "ranks": path.with_suffix(".npz").name,
    }
    if path.is_file() and path.with_suffix(".npz").is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.get("identity") == identity:
            rows: list[dict[str, Any]] = kept["results"]
            return rows
    trained = load_model(out / "stages" / planned.stages[-1].folder)
    possible = [d for d in directions if set(d.modalities) <= set(trained.trained)]
    device = (
        torch.device("cuda") if torch.cuda.is_available() and recipe.training.device == "auto" else torch.device("cpu")
    )
    trained.model.to(device)
    settings = factories.scoring_settings(recipe, trained.visual_streams, trained.audio, trained.text)
    rows = []
    arrays: dict[str, np.ndarray] = {}
    for benchmark in benchmarks:
        scored = evaluate_retrieval(trained.model, store, benchmark, possible, settings)
        rows += [{"order": planned.order.code, "seed": planned.seed, **row.to_dict()} for row in scored]
        arrays |= rank_arrays(store, benchmark, settings, scored)
        first = scored[0]
        say(
            f"{planned.order} seed {planned.seed}  {benchmark.title} {first.direction}  R@1 {first.r1:.2f}  "
            f"R@5 {first.r5:.2f}  R@10 {first.r10:.2f}  (chance {first.chance_r10:.2f})"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path.with_suffix(".npz"), arrays)
    write_json(path, {"identity": identity, "results": rows})
    return rows


def _write_study(
    out: Path,
    store: Store,
    recipe: Recipe,
    plan: list[PlannedOrder],
    benchmarks: list[Benchmark],
    results: list[dict[str, Any]],
    table: StudyTable,
) -> None:
    content = {
        "versions": _versions(),
        "store": {"path": str(store.path), "fingerprint": store.fingerprint},
        "recipe": recipe.to_dict(),
        "benchmarks": [vars(b) for b in benchmarks],
        "orders": [
            {"order": p.order.code, "seed": p.seed, "stages": [{"folder": s.folder, "key": s.key} for s in p.stages]}
            for p in plan
        ],
        "results": results,
    }
    write_json(out / "study.json", content)
    write_table(table, out)


def _claim(out: Path, store: Store, recipe: Recipe, *, must_be_new: bool) -> None:
    """Write `run.yaml`, or compare with the one that is there: one folder holds one setting on one store."""
    path = out / "run.yaml"
    mine: dict[str, Any] = {
        "store": str(store.path.resolve()),
        "fingerprint": store.fingerprint,
        "settings": training_settings(recipe),
    }
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump({**mine, "versions": _versions()}, sort_keys=False), encoding="utf-8")
        return
    if must_be_new:
        raise TrichordError(f"{out}: holds a run already; add --resume to go on with it, or give another --out")
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    if found.get("fingerprint") != mine["fingerprint"]:
        raise TrichordError(
            f"{out}: was run on another or since changed store ({found.get('store')}); give another --out"
        )
    if changed := _first_difference(found.get("settings") or {}, mine["settings"]):
        raise TrichordError(f"{out}: was run with other settings ({changed}); give another --out, or the same settings")


def _first_difference(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> str:
    for key in sorted(set(a) | set(b)):
        name = f"{prefix}{key}"
        if isinstance(a.get(key), dict) and isinstance(b.get(key), dict):
            if inner := _first_difference(a[key], b[key], f"{name}."):
                return inner
        elif a.get(key) != b.get(key):
            return f"{name} {a.get(key)} there, {b.get(key)} now"
    return ""


def _config_text(store: Store, recipe: Recipe, planned: PlannedStage) -> str:
    stage = planned.stage
    content = {
        "stage": {
            "chain": stage.chain,
            "trains": list(stage.train),
            "frozen": list(stage.frozen),
            "pairs": [list(p) for p in stage.pairs],
        },
        "seed": planned.seed,
        "parent": planned.parent.folder if planned.parent else None,
        "store": {"path": str(store.path), "fingerprint": store.fingerprint},
        "recipe": recipe.to_dict(),
        "versions": _versions(),
    }
    return yaml.safe_dump(content, sort_keys=False)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _print(line: str) -> None:
    print(line, flush=True)
