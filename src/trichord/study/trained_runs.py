"""The models of a study folder: every order and seed of its plan, with the stage that contains the complete model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError
from trichord.modality import Order
from trichord.study.files import is_there, read_json
from trichord.study.folder import PlanEntry, divergence_of, plan_entries
from trichord.study.places import check_stage
from trichord.study.plan import first_stage_label
from trichord.training.models import DESCRIPTION

PLAN = "study.json"


@dataclass(frozen=True)
class TrainedRun:
    """An order with a seed.

    Attributes:
        order: Order.
        seed: Seed.
        stage: Name of the folder of its last stage in `stages/`.
        first_stage: Name of the folder of its first stage. Several seeds may share it.
        why: Reason why it cannot be evaluated. '' for a finished run.
    """

    order: Order
    seed: int
    stage: str
    first_stage: str
    why: str = ""

    @property
    def first_stage_label(self) -> int | str:
        """Label that identifies its first stage among those of the order (`study.plan.first_stage_label`)."""
        return first_stage_label(self.first_stage, self.seed)

    @property
    def folder(self) -> str:
        """Folder of its evaluation, such as `av-t/seed-0`."""
        return f"{self.order.slug}/seed-{self.seed}"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the order."""
        return self.order.modalities

    def __str__(self) -> str:
        return f"{self.order} seed {self.seed}"


def read_plan(study: Path) -> tuple[dict[str, Any], tuple[PlanEntry, ...]]:
    """Return the content of `study.json`, and its orders and seeds.

    Raises:
        TrichordError: The file is missing, cannot be read, or does not list its orders and their stages.
    """
    path = study / PLAN
    if not is_there(path):
        raise TrichordError(
            f"{study}: contains no study (there is no {PLAN}); give the --out folder of a `trichord study`"
        )
    content = read_json(path)
    if (entries := plan_entries(content.get("orders"))) is None:
        raise TrichordError(
            f"{path}: does not list the stages of its orders; run the study again, which trains nothing twice"
        )
    return content, entries


def trained_runs(study: Path) -> list[TrainedRun]:
    """Return every order and seed of a study, in the sequence of its plan.

    Raises:
        TrichordError: The plan cannot be read.
    """
    return [
        TrainedRun(entry.order, entry.seed, entry.folders[-1], entry.folders[0], _why_not(study, entry.folders))
        for entry in read_plan(study)[1]
    ]


def _why_not(study: Path, stages: Sequence[str]) -> str:
    if is_there(study / "stages" / stages[-1] / DESCRIPTION):
        return ""
    first = next(stage for stage in stages if not is_there(study / "stages" / stage / DESCRIPTION))
    why = divergence_of(study / "stages" / first)
    return f"diverged ({why})" if why else f"unfinished (stage {first} has not been trained)"


def chosen_runs(study: Path, orders: Sequence[str | Order] = (), seeds: Sequence[int] = ()) -> list[TrainedRun]:
    """Return the runs of the given orders and seeds, in the sequence of `orders`.

    Args:
        study: Study folder.
        orders: Orders. If empty, all orders of the study.
        seeds: Seeds. If empty, all seeds of the study.

    Raises:
        TrichordError: The study lacks one of them, none of the runs is finished, or a folder contains another stage.
    """
    runs = trained_runs(study)
    known = list(dict.fromkeys(run.order for run in runs))
    chosen = list(dict.fromkeys(map(Order.parse, orders))) or known
    if lacking_orders := [order.code for order in chosen if order not in known]:
        codes = ", ".join(order.code for order in known)
        raise TrichordError(f"{study}: has no order {lacking_orders[0]}; it has {codes or 'none'}")
    runs = [run for order in chosen for run in runs if run.order == order]
    have = sorted({run.seed for run in runs})
    if lacking := [seed for seed in seeds if seed not in have]:
        raise TrichordError(
            f"{study}: has no seed {lacking[0]} of these orders; it has {', '.join(map(str, have)) or 'none'}"
        )
    runs = [run for run in runs if not seeds or run.seed in seeds]
    if all(run.why for run in runs):
        reasons = "; ".join(f"{run}: {run.why}" for run in runs[:3])
        raise TrichordError(
            f"{study}: contains no finished run to evaluate ({reasons or 'no run at all'}); continue the study"
        )
    for run in runs:
        check_stage(study / "stages" / run.stage)
    return runs


def holds_several(folder: Path) -> bool:
    """Return whether a folder is that of a study with several orders or seeds.

    Raises:
        TrichordError: The plan cannot be read, and the folder does not contain exactly one model.
    """
    from trichord.study.loading import find_model

    if is_there(folder / DESCRIPTION) or not is_there(folder / PLAN):
        return False
    try:
        return len(trained_runs(folder)) > 1
    except TrichordError:
        try:
            find_model(folder)
        except TrichordError:
            pass
        else:
            return False
        raise
