"""The study folder: its settings, plan and results, and the runs that diverged.

`run.yaml` contains the settings and the fingerprint of the data, and is written before the first step. `study.json` contains the
plan (every requested order and seed with its stages) and the results so far, `stages/` the trained stages, and `orders/` an
evaluation folder for each order and seed (`study.saved_runs`).
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from trichord.errors import Diverged, TrichordError, Unavailable, one_line
from trichord.files.reading import reraise_unavailable
from trichord.files.writing import write_json, write_text
from trichord.logs import main_process_logger
from trichord.modality import Order
from trichord.recipes import Recipe
from trichord.recipes.identity import training_settings
from trichord.recipes.reading import read_yaml
from trichord.store.location import shown_url
from trichord.study.files import damaged, is_there, read_json
from trichord.study.plan import PlannedOrder, PlannedStage
from trichord.tasks.benchmarks import Benchmark
from trichord.training.seals import sealed

if TYPE_CHECKING:
    from trichord.store import Store

logger = main_process_logger(__name__)

_version = cache(version)  # reading the metadata of a package takes 10 ms
PACKAGES = ("trichord", "torch", "numpy", "accelerate", "safetensors", "scipy", "scikit-learn")
DIVERGED, STORE = "diverged.json", "store.json"
REBUILT = "it is rebuilt from this call; give the orders, seeds and benchmarks of earlier calls again to restore them"


def write_study(
    out: Path,
    store: Store,
    recipe: Recipe,
    plan: list[PlannedOrder],
    benchmarks: list[Benchmark],
    results: list[dict[str, Any]],
    *,
    first_stage_seed: int | None = None,
) -> None:
    """Write `study.json`. Orders, seeds, benchmarks and results of earlier calls are kept, since a report shows them all.

    Args:
        out: Study folder.
        store: The store of the training.
        recipe: All settings.
        plan: The plan of this call.
        benchmarks: The benchmarks of this call.
        results: The results of this call so far. They replace earlier ones of the same benchmark, order and seed.
        first_stage_seed: The seed of first stages that was given in this call.
    """
    mine = [
        {
            "order": p.order.code,
            "seed": p.seed,
            "first_stage_seed": first_stage_seed if len(p.stages) > 1 else None,
            "stages": [{"folder": s.folder, "key": s.key, "chain": s.stage.chain, "seed": s.seed} for s in p.stages],
        }
        for p in plan
    ]
    earlier = _earlier(out / "study.json")
    asked = {_run_of(entry) for entry in mine}
    content = {
        "versions": versions(),
        "machine": machine(recipe),
        "store": {"path": store.address, "fingerprint": store.fingerprint},
        "recipe": recipe.to_dict(),
        "benchmarks": list({b["name"]: b for b in [*earlier["benchmarks"], *map(vars, benchmarks)]}.values()),
        **({"modalities": store.modalities} if store.modalities else {}),
        "orders": [entry for entry in earlier["orders"] if _run_of(entry) not in asked] + mine,
        "results": _still_true(earlier, mine, results, recipe) + results,
    }
    write_json(out / "study.json", sealed(content))


def _earlier(path: Path) -> dict[str, Any]:
    """Return the usable content of `study.json`."""
    content: dict[str, Any] = {}
    if is_there(path):
        try:
            content = read_json(path, mend=REBUILT)
        except Unavailable:
            raise
        except TrichordError as error:
            logger.warning(str(error))
    parts = {}
    for part, is_whole in (("orders", plan_entry), ("benchmarks", is_benchmark), ("results", _is_result)):
        entries = content.get(part, [])
        parts[part] = [entry for entry in entries if is_whole(entry)] if isinstance(entries, list) else []
        if num_lost := (len(entries) if isinstance(entries, list) else 1) - len(parts[part]):
            logger.warning(
                f"{path}: {num_lost} of its {part} are invalid and left out; give them again to restore them"
            )
    recipe = content.get("recipe")
    return {**parts, "evaluation": recipe.get("evaluation") if isinstance(recipe, dict) else None}


def _still_true(
    earlier: dict[str, Any], mine: list[dict[str, Any]], results: list[dict[str, Any]], recipe: Recipe
) -> list[dict[str, Any]]:
    """Return the earlier results that this call did not compute again and whose training and scoring have not changed."""
    trained = {_run_of(entry): entry["stages"][-1]["key"] for entry in earlier["orders"]}
    defaults, kept = asdict(type(recipe.evaluation)()), earlier["evaluation"]
    scored_alike = isinstance(kept, dict) and {**defaults, **kept} == asdict(recipe.evaluation)
    other = {
        _run_of(entry)
        for entry in mine
        if not scored_alike or trained.get(_run_of(entry)) not in (None, entry["stages"][-1]["key"])
    }
    again = {(row["benchmark"], *_run_of(row)) for row in results}
    return [
        row
        for row in earlier["results"]
        if _run_of(row) not in other and (row["benchmark"], *_run_of(row)) not in again
    ]


def _run_of(entry: dict[str, Any]) -> tuple[str, int]:
    return entry["order"], entry["seed"]


def _is_run(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("order"), str) and isinstance(entry.get("seed"), int)


def _is_result(row: Any) -> bool:
    return _is_run(row) and isinstance(row.get("benchmark"), str)


def is_benchmark(entry: object) -> bool:
    """Return whether an entry of the list `benchmarks` of `study.json` has a name and a title."""
    return isinstance(entry, dict) and all(isinstance(entry.get(part), str) for part in ("name", "title"))


@dataclass(frozen=True)
class PlanEntry:
    """An order with a seed, as listed in `study.json`.

    Attributes:
        order: Order.
        seed: Seed.
        stages: Folder, key, chain and seed of each stage.
    """

    order: Order
    seed: int
    stages: tuple[dict[str, Any], ...]

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the stage folders below `stages`."""
        return tuple(stage["folder"] for stage in self.stages)


def plan_entry(entry: Any) -> PlanEntry | None:
    """Read an entry of the list `orders` of `study.json`. Return None if it lacks its order, its seed or a stage."""
    if not _is_run(entry) or not isinstance(entry.get("stages"), list) or not entry["stages"]:
        return None
    try:
        order = Order.parse(entry["order"])
    except TrichordError:
        return None
    is_whole = all(
        isinstance(stage, dict)
        and _is_name(stage.get("folder"))
        and isinstance(stage.get("key"), str)
        and isinstance(stage.get("seed", 0), int)
        for stage in entry["stages"]
    )
    return PlanEntry(order, int(entry["seed"]), tuple(entry["stages"])) if is_whole else None


def plan_entries(entries: Any) -> tuple[PlanEntry, ...] | None:
    """Read the list `orders` of `study.json`. Return None if it is not a list or has an invalid entry."""
    read = tuple(map(plan_entry, entries)) if isinstance(entries, list) else (None,)
    return None if None in read else tuple(entry for entry in read if entry is not None)


def _is_name(folder: object) -> bool:
    """Return whether a value is the name of a folder directly in `stages`."""
    return isinstance(folder, str) and folder not in ("", ".", "..") and not set(folder) & {"/", "\0"}


def note_divergence(folder: Path, error: Diverged) -> None:
    """Record in a stage folder that its training diverged."""
    write_json(folder / DIVERGED, {"message": one_line(error)})


def divergence_of(folder: Path) -> str | None:
    """Return why the training of a stage diverged, or None if it did not.

    A stage with a record that cannot be read counts as diverged.
    """
    path = folder / DIVERGED
    if not is_there(path):
        return None
    try:
        return str(read_json(path).get("message", "diverged"))
    except TrichordError:
        return f"diverged; {DIVERGED} does not contain the reason"


def claim(out: Path, store: Store, recipe: Recipe, *, must_be_new: bool) -> None:
    """Write `run.yaml`, or compare it with the existing one.

    All runs in a folder use the same store and the same settings.

    Args:
        out: Run or study folder.
        store: Store of the training.
        recipe: Recipe of the training.
        must_be_new: Whether an existing `run.yaml` is an error.

    Raises:
        TrichordError: The folder contains a run with another store or other settings, or, with `must_be_new`, any run.
    """
    path = out / "run.yaml"
    mine: dict[str, Any] = {
        "store": store.address,
        "fingerprint": store.fingerprint,
        "settings": training_settings(recipe),
    }
    if not is_there(path):
        out.mkdir(parents=True, exist_ok=True)
        (out / STORE).unlink(missing_ok=True)
        check_store(out, store)
        write_text(path, yaml.safe_dump({**mine, "versions": versions()}, sort_keys=False))
        return
    if must_be_new:
        raise TrichordError(f"{out}: already contains a run; add --resume to continue it, or give another --out")
    earlier = _read_claim(path)
    if earlier.get("fingerprint") != mine["fingerprint"]:
        raise TrichordError(
            f"{out}: contains a run on another store, or its store has changed ({shown_url(str(earlier.get('store')))}); "
            "give another --out"
        )
    if changed := _first_difference(earlier["settings"], mine["settings"]):
        raise TrichordError(
            f"{out}: contains a run with other settings ({changed}); give another --out, or use the same settings"
        )
    check_store(out, store)


def check_store(out: Path, store: Store) -> None:
    """Check that the files of the store have not changed since the run started.

    The first call records the files in `store.json`. A file with another size or modification time is read and compared with its
    checksum (`store.unchanged`). Call this when a run starts or continues, and before the model of a stage is saved.

    Args:
        out: Run or study folder.
        store: Store of the training.

    Raises:
        TrichordError: A file has changed. The message names it.
    """
    from trichord.store.unchanged import check_unchanged

    path = out / STORE
    noted: dict[str, Any] = {}
    if is_there(path):
        files = read_json(path, mend="delete this file and run the command again").get("files")
        noted = files if isinstance(files, dict) else {}
    now = check_unchanged(store, noted)
    if now != noted:
        write_json(path, {"files": now})


def was_trained_on(model: Path, store: Store) -> bool:
    """Return whether a model was trained on a store, according to the fingerprint or the address in `run.yaml`.

    Args:
        model: Folder of the stage.
        store: Store.
    """
    path = model.parent.parent / "run.yaml"
    if not is_there(path):
        return False
    try:
        claimed = _read_claim(path)
    except Unavailable:
        raise
    except TrichordError:
        return False
    return store.fingerprint == claimed.get("fingerprint") or store.address == claimed.get("store")


def _read_claim(path: Path) -> dict[str, Any]:
    mend = (
        "if the run used this store and these settings, delete this file and run the command again; "
        "otherwise, give another --out"
    )
    try:
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        reraise_unavailable(path, error)
        raise damaged(
            path, error.strerror if isinstance(error, OSError) and error.strerror else "damaged", mend
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise damaged(path, "it contains no settings", mend)
    return content


def _first_difference(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> str:
    for key in sorted(set(a) | set(b)):
        name = f"{prefix}{key}"
        if isinstance(a.get(key), dict) and isinstance(b.get(key), dict):
            if inner := _first_difference(a[key], b[key], f"{name}."):
                return inner
        elif a.get(key) != b.get(key):
            earlier, now = (values.get(key, "the default") for values in (a, b))
            return f"{name} was {earlier} and is now {now}"
    return ""


def config_text(store: Store, recipe: Recipe, planned: PlannedStage) -> str:
    """Return the text of `config.yaml` of a stage: everything that its training depends on."""
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
        "store": {"path": store.address, "fingerprint": store.fingerprint},
        "recipe": recipe.to_dict(),
        "versions": versions(),
    }
    return yaml.safe_dump(content, sort_keys=False)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages on which figures depend."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def machine(recipe: Recipe) -> dict[str, Any]:
    """Return the properties of the machine that affect rounding: threads, device, processor and number of processes."""
    import torch

    on_gpu = recipe.training.device != "cpu" and torch.cuda.is_available()
    return {
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
    }
