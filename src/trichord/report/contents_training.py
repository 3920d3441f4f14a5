"""The section on training: learning curves, parameters, and the cost of stages and orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trichord.report import plots
from trichord.report.document import Figure, Section, first_of
from trichord.report.tables_space import mean_of
from trichord.report.tables_training import costs_table, order_costs, stage_status, stages_table

if TYPE_CHECKING:
    from trichord.modality import Order
    from trichord.report.plots_training import Curve
    from trichord.report.reading import StageRecord, Study

NAMED = 8  # largest number of stages that a caption names


def training_section(study: Study, colours: dict[Order, str]) -> Section:
    """Return the section on training.

    Only finished stages count for medians, means and totals. The curves of other stages are dashed, and the caption names them.

    Args:
        study: Study.
        colours: Colour of each order.
    """
    status = stage_status(study)
    finished: dict[Order, list[StageRecord]] = {}
    for name, stage in study.stages.items():
        if status[name] == "done":
            finished.setdefault(stage.order, []).append(stage)
    counts = [
        plots.ParameterRow(order, several[0].frozen or 0, several[0].trained or 0)
        for order, several in finished.items()
    ]
    return Section(
        "Training",
        (
            _curves(study, status),
            stages_table(study),
            Figure("parameters", "Trained and frozen parameters", plots.parameters(counts, colours), "",
                   "Counts of trained and frozen parameters by stage"),
            costs_table(study),
            _costs(study, finished, colours),
        ),
    )  # fmt: skip


def _curves(study: Study, status: dict[str, str]) -> Figure:
    kept: dict[Order, dict[str, list[Curve]]] = {}
    lost: dict[Order, dict[str, list[Curve]]] = {}
    named = []
    for name, stage in study.stages.items():
        curves = {t: (c.steps, c.values) for t, c in study.curves(stage).items() if t != "learning_rate"}
        if not curves:
            continue
        if status[name] != "done":
            named.append(f"{stage.order} seed {stage.seed} ({status[name]})")
        for term, curve in curves.items():
            (kept if status[name] == "done" else lost).setdefault(stage.order, {}).setdefault(term, []).append(curve)
    panels = [
        plots.StageCurves(str(order), kept.get(order, {}), lost.get(order, {}))
        for order in dict.fromkeys(stage.order for stage in study.stages.values())
    ]
    caption = (
        "Every term of the loss before it is weighted, the weighted sum (loss) and the norm of the gradient. Thin lines: each "
        "seed. Thick lines: the median of the finished seeds."
    )
    if named:
        caption += f" Dashed lines, not part of the median: {first_of(named, NAMED)}."
    return Figure(
        "curves", "Learning curves", plots.learning_curves(panels), caption, "Loss terms over the steps of every stage"
    )


def _costs(study: Study, finished: dict[Order, list[StageRecord]], colours: dict[Order, str]) -> Figure:
    """Return the figure of the cost of orders, followed by their stages."""
    orders = [plots.CostRow(c.order, c.seconds, c.steps, c.clips, "total") for c in order_costs(study)]
    stages = [
        plots.CostRow(
            order, mean_of([s.seconds for s in several]), several[0].num_steps, several[0].num_clips,
            f"stage {len(order.stages)}",
        )
        for order, several in finished.items()
    ]  # fmt: skip
    return Figure(
        "costs", "Cost of orders and stages",
        plots.costs([*orders, *stages], colours, rules=[len(orders)] if orders and stages else []),
        "Means over seeds, for training only. Above: the sums over all stages of each order; a stage that orders share counts for "
        "each of them. Below: the single stages, each trained once for each seed.",
        "Seconds, steps and clips by order and by stage",
    )  # fmt: skip
