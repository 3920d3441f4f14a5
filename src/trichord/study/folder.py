"""The study folder: who may write into it, what it says of itself, and which of its runs diverged.

`run.yaml` holds the settings and the data's fingerprint, written before the first step; `study.json` the plan (every order
and seed that was asked for, with its stages) and the results so far; `stages/` the trained stages; `orders/` the figures,
ranks and geometry of each order and seed; `queries/` the clips and captions of each benchmark.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from trichord.errors import Diverged, TrichordError, one_line
from trichord.evaluation.benchmarks import Benchmark
from trichord.recipes import Recipe
from trichord.study.plan import PlannedOrder, PlannedStage, training_settings
from trichord.training.checkpoint import write_json

if TYPE_CHECKING:
    from trichord.store import Store

PACKAGES = ("trichord", "torch", "numpy", "accelerate", "safetensors")
DIVERGED = "diverged.json"


def write_study(
    out: Path,
    store: Store,
    recipe: Recipe,
    plan: list[PlannedOrder],
    benchmarks: list[Benchmark],
    results: list[dict[str, Any]],
) -> None:
    """Write `study.json`. Orders and seeds of earlier calls stay in the plan: a report shows them all."""
    path = out / "study.json"
    mine = [
        {
            "order": p.order.code,
            "seed": p.seed,
            "stages": [{"folder": s.folder, "key": s.key, "chain": s.stage.chain, "seed": s.seed} for s in p.stages],
        }
        for p in plan
    ]
    asked = {(entry["order"], entry["seed"]) for entry in mine}
    earlier: list[dict[str, Any]] = []
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8")).get("orders", [])
        earlier = [entry for entry in found if (entry["order"], entry["seed"]) not in asked]
    content = {
        "versions": versions(),
        "store": {"path": str(store.path), "fingerprint": store.fingerprint},
        "recipe": recipe.to_dict(),
        "benchmarks": [vars(b) for b in benchmarks],
        "orders": earlier + mine,
        "results": results,
    }
    write_json(path, content)


def note_divergence(folder: Path, error: Diverged) -> None:
    """Leave word in a stage folder that its training diverged."""
    write_json(folder / DIVERGED, {"message": one_line(error)})


def divergence_of(folder: Path) -> str | None:
    """Why the training of a stage folder ended, if it diverged."""
    path = folder / DIVERGED
    if not path.is_file():
        return None
    return str(json.loads(path.read_text(encoding="utf-8")).get("message", "diverged"))


def claim(out: Path, store: Store, recipe: Recipe, *, must_be_new: bool) -> None:
    """Write `run.yaml`, or compare with the one that is there: one folder holds one setting on one store."""
    path = out / "run.yaml"
    mine: dict[str, Any] = {
        "store": str(store.path.resolve()),
        "fingerprint": store.fingerprint,
        "settings": training_settings(recipe),
    }
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump({**mine, "versions": versions()}, sort_keys=False), encoding="utf-8")
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


def config_text(store: Store, recipe: Recipe, planned: PlannedStage) -> str:
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
        "versions": versions(),
    }
    return yaml.safe_dump(content, sort_keys=False)


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
