"""The report's part on training: learning curves, parameters, and what stages and orders cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trichord.modality import Order
from trichord.report import plots
from trichord.report.document import Figure, Section
from trichord.report.tables_space import mean_of
from trichord.report.tables_training import costs_table, order_costs, stage_status, stages_table

if TYPE_CHECKING:
    from trichord.report.plots_training import Curve
    from trichord.report.reading import StageRecord, Study

NAMED = 8  # stages that a caption names; of more it gives the number


def training_section(study: Study, colours: dict[str, str]) -> Section:
    """Only finished stages enter medians, means and counts; the others are drawn dashed and named."""
    status = stage_status(study)
    chains: dict[str, list[StageRecord]] = {}
    for name, stage in study.stages.items():
        if status[name] == "done":
            chains.setdefault(stage.chain, []).append(stage)
    counts = [
        plots.ParameterRow(chain, several[0].frozen or 0, several[0].trained or 0) for chain, several in chains.items()
    ]
    return Section(
        "Training",
        (
            _curves(study, status),
            stages_table(study),
            Figure("parameters", "Trained and frozen parameters", plots.parameters(counts, colours), "",
                   "Counts of trained and frozen parameters by stage"),
            costs_table(study),
            _costs(study, chains, colours),
        ),
    )  # fmt: skip


def _curves(study: Study, status: dict[str, str]) -> Figure:
    kept: dict[str, dict[str, list[Curve]]] = {}
    lost: dict[str, dict[str, list[Curve]]] = {}
    named = []
    for name, stage in study.stages.items():
        found = {t: (c.steps, c.values) for t, c in study.curves(stage).items() if t != "learning_rate"}
        if not found:
            continue
        if status[name] != "done":
            named.append(f"{Order.parse(stage.chain)} seed {stage.seed} ({status[name]})")
        for term, curve in found.items():
            (kept if status[name] == "done" else lost).setdefault(stage.chain, {}).setdefault(term, []).append(curve)
    panels = [
        plots.StageCurves(str(Order.parse(chain)), kept.get(chain, {}), lost.get(chain, {}))
        for chain in dict.fromkeys(stage.chain for stage in study.stages.values())
    ]
    caption = (
        "Every term of the loss as it enters before its weight, the weighted sum (loss) and the gradient's norm; thin: each "
        "seed, thick: the median of the finished ones."
    )
    if named:
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        caption += f" Dashed, and not in the median: {', '.join(named[:NAMED])}{more}."
    return Figure(
        "curves", "Learning curves", plots.learning_curves(panels), caption, "Loss terms over the steps of every stage"
    )


def _costs(study: Study, chains: dict[str, list[StageRecord]], colours: dict[str, str]) -> Figure:
    """Orders in all first, then their stages."""
    orders = [plots.CostRow(c.order, c.seconds, c.steps, c.clips, "in all") for c in order_costs(study)]
    stages = [
        plots.CostRow(
            chain, mean_of([s.seconds for s in several]), several[0].num_steps, several[0].num_clips,
            f"stage {len(Order.parse(chain).stages)}",
        )
        for chain, several in chains.items()
    ]  # fmt: skip
    return Figure(
        "costs", "Cost of orders and stages",
        plots.costs([*orders, *stages], colours, rules=[len(orders)] if orders and stages else []),
        "Means over seeds; training alone. Above: orders in all, the sums over their stages, where a stage that orders share "
        "counts for each of them. Below: the stages, each trained once a seed.",
        "Seconds, steps and clips by order and by stage",
    )  # fmt: skip
