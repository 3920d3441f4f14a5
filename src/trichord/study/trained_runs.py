"""The models of a study folder: every order and seed of its plan, each with the stage that holds its whole model."""

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
    """One order with one seed.

    Attributes:
        order: The order.
        seed: The seed of the run.
        stage: Name of the folder of its last stage under `stages/`.
        first_stage: Name of the folder of its first stage; several seeds may share it.
        why: Why it cannot be evaluated; '' for a finished run.
    """

    order: Order
    seed: int
    stage: str
    first_stage: str
    why: str = ""

    @property
    def first_stage_label(self) -> int | str:
        """What tells its first stage from those of other runs of the order (`study.plan.first_stage_label`)."""
        return first_stage_label(self.first_stage, self.seed)

    @property
    def folder(self) -> str:
        """Where its evaluation lies: `av-t/seed-0`."""
        return f"{self.order.slug}/seed-{self.seed}"

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.order.modalities

    def __str__(self) -> str:
        return f"{self.order} seed {self.seed}"


def read_plan(study: Path) -> tuple[dict[str, Any], tuple[PlanEntry, ...]]:
    """Return the content of `study.json`, and its orders and seeds.

    Raises TrichordError if the file is missing, cannot be read, or does not name its orders and their stages.
    """
    path = study / PLAN
    if not is_there(path):
        raise TrichordError(f"{study}: no study here (no {PLAN}); give the --out folder of a `trichord study`")
    content = read_json(path)
    if (entries := plan_entries(content.get("orders"))) is None:
        raise TrichordError(
            f"{path}: its orders do not name their stages; run the study again, which trains nothing twice"
        )
    return content, entries


def trained_runs(study: Path) -> list[TrainedRun]:
    """Return every order and seed of a study, in the order of its plan. Raises what `read_plan` raises."""
    return [
        TrainedRun(entry.order, entry.seed, entry.folders[-1], entry.folders[0], _why_not(study, entry.folders))
        for entry in read_plan(study)[1]
    ]


def _why_not(study: Path, stages: Sequence[str]) -> str:
    if is_there(study / "stages" / stages[-1] / DESCRIPTION):
        return ""
    first = next(stage for stage in stages if not is_there(study / "stages" / stage / DESCRIPTION))
    why = divergence_of(study / "stages" / first)
    return f"diverged ({why})" if why else f"unfinished (stage {first} is not trained)"


def chosen_runs(study: Path, orders: Sequence[str | Order] = (), seeds: Sequence[int] = ()) -> list[TrainedRun]:
    """Return the runs of the given orders and seeds, in the sequence of `orders`. An empty list takes all.

    Raises TrichordError if the study lacks one of them, none of its runs is finished, or a folder holds another stage.
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
            f"{study}: no finished run to evaluate ({reasons or 'no run at all'}); go on with the study"
        )
    for run in runs:
        check_stage(study / "stages" / run.stage)
    return runs


def holds_several(folder: Path) -> bool:
    """Whether it is a study folder of several orders or seeds; not where its plan cannot be read and one model is there."""
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
