"""Which models a study folder holds: every order and seed of its plan, each with the stage that holds its whole model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError
from trichord.modality import Order
from trichord.study.files import is_there, read_json
from trichord.study.folder import divergence_of, is_plan_entry
from trichord.study.places import check_stage
from trichord.study.plan import first_stage_label
from trichord.training.models import DESCRIPTION

PLAN = "study.json"


@dataclass(frozen=True)
class TrainedRun:
    """One order with one seed.

    Attributes:
        order: Code, e.g. `av>t`.
        seed: Of the run.
        stage: Name under `stages/` of its last stage.
        first_stage: That of its first stage; several seeds may share it.
        why: Why it cannot be evaluated; '' for a finished run.
    """

    order: str
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
        return f"{Order.parse(self.order).slug}/seed-{self.seed}"

    @property
    def modalities(self) -> tuple[str, ...]:
        return Order.parse(self.order).modalities

    def __str__(self) -> str:
        return f"{Order.parse(self.order)} seed {self.seed}"


def read_plan(study: Path) -> dict[str, Any]:
    """`study.json`. Raises TrichordError when it is not there, cannot be read, or does not tell its orders and stages."""
    path = study / PLAN
    if not is_there(path):
        raise TrichordError(f"{study}: no study here (no {PLAN}); give the --out folder of a `trichord study`")
    content = read_json(path)
    entries = content.get("orders")
    if not isinstance(entries, list) or not all(map(is_plan_entry, entries)):
        raise TrichordError(
            f"{path}: its orders do not tell their stages; run the study again, which trains nothing twice"
        )
    return content


def trained_runs(study: Path) -> list[TrainedRun]:
    """Every order and seed of a study, in the order of its plan. Raises as `read_plan`."""
    return [
        TrainedRun(
            Order.parse(entry["order"]).code,
            entry["seed"],
            entry["stages"][-1]["folder"],
            entry["stages"][0]["folder"],
            _why_not(study, entry["stages"]),
        )
        for entry in read_plan(study)["orders"]
    ]


def _why_not(study: Path, stages: list[dict[str, Any]]) -> str:
    if is_there(study / "stages" / stages[-1]["folder"] / DESCRIPTION):
        return ""
    for stage in stages:
        folder = study / "stages" / stage["folder"]
        if is_there(folder / DESCRIPTION):
            continue
        why = divergence_of(folder)
        return f"diverged ({why})" if why else f"unfinished (stage {stage['folder']} is not trained)"
    raise AssertionError("the last stage is one of the stages")


def chosen_runs(study: Path, orders: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[TrainedRun]:
    """Those of some orders (any spelling) and seeds; empty takes all. Orders come as they are asked for.

    Raises TrichordError when the study has not one of them, none of its runs is finished, or a folder holds another stage.
    """
    runs = trained_runs(study)
    known = list(dict.fromkeys(run.order for run in runs))
    codes = list(dict.fromkeys(Order.parse(order).code for order in orders)) or known
    if strange := [code for code in codes if code not in known]:
        raise TrichordError(f"{study}: has no order {strange[0]}; it has {', '.join(known) or 'none'}")
    runs = [run for code in codes for run in runs if run.order == code]
    have = sorted({run.seed for run in runs})
    if lacking := [seed for seed in seeds if seed not in have]:
        raise TrichordError(
            f"{study}: has no seed {lacking[0]} of these orders; it has {', '.join(map(str, have)) or 'none'}"
        )
    runs = [run for run in runs if not seeds or run.seed in seeds]
    if all(run.why for run in runs):
        told = "; ".join(f"{run}: {run.why}" for run in runs[:3])
        raise TrichordError(f"{study}: no finished run to evaluate ({told or 'no run at all'}); go on with the study")
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
