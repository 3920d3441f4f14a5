"""Tables of the training: the status of every run, the stages, and the cost of each order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trichord.modality import Order
from trichord.report.document import Cell, Table, columns
from trichord.report.reading import Run, StageRecord, Study
from trichord.report.tables_space import mean_of


@dataclass(frozen=True)
class OrderCost:
    """The cost of all stages of an order, as means over its finished runs.

    Attributes:
        order: The order.
        num_stages: Number of stages of a run.
        num_seeds: Number of runs that are averaged.
        steps: Number of optimizer steps.
        clips: Number of clips seen, including repetitions.
        seconds: Training time. None if each run has a stage without a recorded time.
    """

    order: Order
    num_stages: int
    num_seeds: int
    steps: float
    clips: float
    seconds: float | None


def order_costs(study: Study) -> list[OrderCost]:
    """Return the cost of each order. A stage that orders share counts in full for each of them."""
    costs = []
    for order in study.orders:
        runs = [[study.stages[name] for name in run.stages] for run in study.runs_of(order)]
        if runs:
            seconds = [_sum_s(stages) for stages in runs]
            steps, clips = (
                sum(getattr(stage, part) for stages in runs for stage in stages) / len(runs)
                for part in ("num_steps", "num_clips")
            )
            costs.append(OrderCost(order, len(runs[0]), len(runs), steps, clips, mean_of(seconds)))
    return costs


def _sum_s(stages: Sequence[StageRecord]) -> float | None:
    known = [stage.seconds for stage in stages if stage.seconds is not None]
    return sum(known) if len(known) == len(stages) else None


def stage_status(study: Study) -> dict[str, str]:
    """Return the status of each stage by its folder: `done`, `diverged` or `unfinished`.

    In a diverged run, the first stage without a model is the diverged one, or the last stage if all have models.
    """
    status = {name: "done" if stage.finished else "unfinished" for name, stage in study.stages.items()}
    for run in study.runs:
        if run.status == "diverged":
            status[next((name for name in run.stages if not study.stages[name].finished), run.stages[-1])] = "diverged"
    return status


def runs_table(study: Study) -> Table:
    """Return the table of the status and cost of every run of the plan."""
    labels = ("order", "seed", "status", "steps", "clips seen", "seconds", "stages", "why")
    texts = ("order", "status", "stages", "why")
    caption = (
        "All stages of a run are counted, including those shared with other runs. Figures are those of finished runs."
    )
    return Table(
        "runs", "Every run", columns(labels, texts), tuple(_run_row(study, run) for run in study.runs), caption
    )


def _run_row(study: Study, run: Run) -> tuple[Cell, ...]:
    stages = [study.stages[name] for name in run.stages]
    known = [stage.seconds for stage in stages if stage.seconds is not None]
    total = sum(known) if known else None
    steps, clips = (sum(getattr(stage, part) for stage in stages) for part in ("num_steps", "num_clips"))
    return (
        Cell(str(run.order)), Cell(str(run.seed), run.seed),
        Cell(run.status, strong=run.status != "done"), Cell(f"{steps:,}", steps), Cell(f"{clips:,}", clips),
        Cell("-" if total is None else f"{total:,.0f}", total), Cell(", ".join(run.stages)), Cell(run.why),
    )  # fmt: skip


def stages_table(study: Study) -> Table:
    """Return the table of parameters and cost of the finished stages, as means over seeds."""
    labels = ("stage", "trained parameters", "frozen parameters", "seeds", "steps", "clips seen", "seconds")
    by_order: dict[Order, list[StageRecord]] = {}
    status = stage_status(study)
    for name, stage in study.stages.items():
        if status[name] == "done":
            by_order.setdefault(stage.order, []).append(stage)
    rows = []
    for order, several in by_order.items():
        first = several[0]
        counts = [Cell("-" if n is None else f"{n:,}", n) for n in (first.trained, first.frozen)]
        rows.append((
            Cell(str(order)), *counts, Cell(str(len(several)), len(several)),
            Cell(f"{first.num_steps:,}", first.num_steps), Cell(f"{first.num_clips:,}", first.num_clips),
            _seconds(mean_of([stage.seconds for stage in several])),
        ))  # fmt: skip
    caption = "A stage that several orders share was trained once. Seconds: training time, mean over seeds."
    return Table("stages", "Stages", columns(labels, labels[:1]), tuple(rows), caption)


def costs_table(study: Study) -> Table:
    """Return the table of the total cost of each order."""
    labels = ("order", "stages", "seeds", "steps", "clips seen", "seconds")
    rows = tuple(
        (
            Cell(str(cost.order)), Cell(str(cost.num_stages), cost.num_stages),
            Cell(str(cost.num_seeds), cost.num_seeds), Cell(f"{cost.steps:,.0f}", cost.steps),
            Cell(f"{cost.clips:,.0f}", cost.clips), _seconds(cost.seconds),
        )
        for cost in order_costs(study)
    )  # fmt: skip
    caption = (
        "Sums over the stages of an order, as means over its finished runs. A stage that orders share counts for each of them. "
        "Seconds: training time."
    )
    return Table("costs", "Cost of the orders", columns(labels, labels[:1]), rows, caption)


def _seconds(value: float | None) -> Cell:
    return Cell("-" if value is None else f"{value:,.1f}", value)
