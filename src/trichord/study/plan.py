"""The plan of a study: the stages of every order and seed, each with a key that identifies everything it depends on."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from trichord.errors import TrichordError
from trichord.modality import Order
from trichord.recipes import Recipe
from trichord.recipes.identity import stage_settings
from trichord.settings import SEED
from trichord.training.stage import Stage, stages_of

_SEED_OF_STAGE = re.compile(r"\.seed(\d{1,20})\.[0-9a-f]{8}$")
FORMAT = 1  # to be raised when the same settings lead to another training


@dataclass(frozen=True)
class PlannedStage:
    """A stage to train.

    Attributes:
        stage: Stage.
        seed: Seed.
        key: Digest of everything that the weights depend on. Stages with equal keys have equal weights.
        parent: Preceding stage. None for a first stage.
    """

    stage: Stage
    seed: int
    key: str
    parent: PlannedStage | None

    @property
    def folder(self) -> str:
        """Name of its folder, such as `av-t.seed0.1a2b3c4d`."""
        return f"{self.stage.slug}.seed{self.seed}.{self.key[:8]}"


@dataclass(frozen=True)
class PlannedOrder:
    """An order with a seed.

    Attributes:
        order: Order.
        seed: Seed.
        stages: Stages, starting with the first.
    """

    order: Order
    seed: int
    stages: tuple[PlannedStage, ...]


def plan_order(
    order: Order, seed: int, recipe: Recipe, store_fingerprint: str, first_stage_seed: int | None = None
) -> PlannedOrder:
    """Return the stages of one order and seed.

    Args:
        order: The order, such as `av>t`.
        seed: Seed of initial weights, batches and clustering.
        recipe: The settings. Those that affect the training are part of the keys.
        store_fingerprint: Fingerprint of the data.
        first_stage_seed: Seed of the first stage of orders with several stages. If given, all seeds share that stage.

    Raises:
        TrichordError: A seed is out of bounds.
    """
    SEED.check("seed", seed)
    SEED.check("first_stage_seed", first_stage_seed)
    planned: list[PlannedStage] = []
    later = recipe.later_stages
    for index, stage in enumerate(stages_of(order, thaw=later.thaw > 0, replay=later.replay)):
        shared = index == 0 and first_stage_seed is not None and len(order.stages) > 1
        stage_seed = first_stage_seed if shared and first_stage_seed is not None else seed
        parent = planned[-1] if planned else None
        key = _key(stage, stage_seed, recipe, store_fingerprint, parent)
        planned.append(PlannedStage(stage, stage_seed, key, parent))
    return PlannedOrder(order, seed, tuple(planned))


def plan_study(
    orders: list[Order],
    seeds: list[int],
    recipe: Recipe,
    store_fingerprint: str,
    first_stage_seed: int | None = None,
) -> list[PlannedOrder]:
    """Return the plan of a study: each pair of an order and a seed once.

    All orders of a seed come before the next seed, so that the table compares orders as early as possible.

    Args:
        orders: Orders.
        seeds: Seeds.
        recipe: The settings. Those that affect the training are part of the keys.
        store_fingerprint: Fingerprint of the data.
        first_stage_seed: Seed of the first stage of orders with several stages. If given, all seeds share that stage.

    Raises:
        TrichordError: There is no order or no seed, or a seed is out of bounds.
    """
    if not orders:
        raise TrichordError("the list of orders is empty; give at least one, for example av>t")
    if not seeds:
        raise TrichordError("the list of seeds is empty; give at least one, for example 0")
    return [
        plan_order(order, seed, recipe, store_fingerprint, first_stage_seed)
        for seed in dict.fromkeys(seeds)
        for order in dict.fromkeys(orders)
    ]


def first_stage_label(folder: str, seed: int) -> int | str:
    """Return a label that identifies a first stage among those of an order.

    Args:
        folder: Name of the folder of the first stage. '' if it is unknown.
        seed: Seed of the run.

    Returns:
        The seed in the name of the folder, the name if it contains no seed, or `seed` if the name is unknown.
    """
    match = _SEED_OF_STAGE.search(folder)
    return int(match[1]) if match else folder or seed


def distinct_stages(plan: list[PlannedOrder]) -> list[PlannedStage]:
    """Return each stage to train once, parents before children."""
    return list({stage.key: stage for planned in plan for stage in planned.stages}.values())


def _key(stage: Stage, seed: int, recipe: Recipe, store_fingerprint: str, parent: PlannedStage | None) -> str:
    settings = stage_settings(recipe, stage.train + stage.thawed, stage.pairs)
    if parent is None:
        settings.pop("later_stages", None)  # first stages do not depend on them
    content = {
        "format": FORMAT,
        "train": sorted(stage.train),
        "frozen": sorted(stage.frozen),
        "seed": seed,
        "settings": settings,
        "store": store_fingerprint,
        "parent": parent.key if parent else None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
