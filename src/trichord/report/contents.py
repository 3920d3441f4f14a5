"""The report's document: what was found first, then the table, then what stands behind it. Numbers come from `analysis`,
tables from `tables`, figures from `plots`; here they are put in order and said in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.modality import Direction, Order
from trichord.report import plots
from trichord.report.analysis import MAIN_RECALL, Duel, Group, analyse, duel, interactions, untouched
from trichord.report.document import Block, Commands, Document, Figure, Section, Text, slug
from trichord.report.tables import (
    captions_table,
    differences_table,
    directions_table,
    geometry_table,
    interactions_table,
    order_table,
    p_text,
    published_table,
    runs_table,
    share,
    sizes_table,
    stages_table,
)

if TYPE_CHECKING:
    from trichord.evaluation.geometry import Geometry
    from trichord.report.reading import Study

PUBLISHED_TITLES = {"youcook2": "YouCook2", "msrvtt": "MSR-VTT"}
SMALL_GALLERY = 50.0  # chance of R@10 in percent, above which orders cannot be told apart


def build(study: Study, *, direction: str = "", level: float = 0.95) -> Document:
    """The report of a study whose runs passed `check_comparable`.

    Args:
        study: Read.
        direction: Of the main table; '' takes the recipe's first one that was scored.
        level: Of all intervals.
    """
    main = direction or study.directions[0]
    groups = analyse(study, main, level=level)
    others = {code: analyse(study, code, level=level, compare=False) for code in study.directions if code != main}
    colours = plots.order_colours(study.orders)
    duels = {group.benchmark: found for group in groups if (found := duel(group)) is not None}
    varies = interactions(groups, level)
    sections = [
        _table_section(study, groups, main),
        _comparison_section(groups, varies, colours),
        _directions_section({main: groups, **others}) if others else None,
        _queries_section(study, groups, duels, colours),
        _space_section(study, colours),
        _training_section(study, colours),
        Section("Runs", (runs_table(study),)),
        _published_section(groups),
        _repeat_section(study, main),
    ]
    summary = [_sentence(group) for group in groups]
    summary += [f"{pair.first} against {pair.second}: {pair.verdict}." for pair in varies]
    summary += _warnings(study, groups)
    seeds = sorted({run.seed for run in study.done})
    subtitle = (
        f"Zero-shot retrieval {Direction.parse(main)} by order of modalities; {len(study.done)} finished runs, "
        f"{len(study.orders)} orders, {len(seeds)} seed{'s' if len(seeds) != 1 else ''}"
    )
    return Document(f"Order study: {study.name}", subtitle, tuple(s for s in sections if s is not None), tuple(summary))


def _sentence(group: Group) -> str:
    if not group.comparisons:
        return f"{group.title}: {group.verdict}."
    best = max(group.compared, key=lambda order: group.recalls[order][MAIN_RECALL].estimate)
    found = group.recalls[best][MAIN_RECALL]
    apart = [] if group.comparisons[MAIN_RECALL].winner else told_apart(group)
    also = f" Told apart: {'; '.join(apart)}." if apart else ""
    return (
        f"{group.title}, R@{MAIN_RECALL}: {group.verdict}.{also} The highest is {Order.parse(best)} with {found.estimate:.1f} % "
        f"[{found.low:.1f}, {found.high:.1f}]; chance is {group.chance[MAIN_RECALL].estimate:.1f} %."
    )


def told_apart(group: Group) -> list[str]:
    """The pairs of orders whose main recalls differ after Holm's correction, in words. None with one seed."""
    found = []
    for pair in group.comparisons[MAIN_RECALL].differences:
        if pair.num_seeds > 1 and pair.p_adjusted < 1 - pair.level:
            ahead, behind = (pair.a, pair.b) if pair.estimate > 0 else (pair.b, pair.a)
            points = f"{abs(pair.estimate):.1f} points, adjusted p {p_text(pair.p_adjusted)}"
            found.append(f"{Order.parse(ahead)} is ahead of {Order.parse(behind)} ({points})")
    return found


def _warnings(study: Study, groups: Sequence[Group]) -> list[str]:
    told = []
    lost = [run for run in study.runs if run.status != "done"]
    if lost:
        names = ", ".join(f"{run} ({run.status})" for run in lost[:4]) + (", ..." if lost[4:] else "")
        told.append(f"{len(lost)} of {len(study.runs)} runs are not in the figures: {names}.")
    for group in groups:
        if group.chance[MAIN_RECALL].estimate > SMALL_GALLERY:
            told.append(f"{group.title}: the gallery is too small to tell orders apart; chance is above 50 % at R@10.")
        if min(len(values.seeds) for values in group.ranked.values()) == 1:
            told.append(f"{group.title}: one seed compares trained models, not orders.")
    for order in dict.fromkeys(order for group in groups for order in group.compared):
        if untouched(order, groups[0].direction) and not study.recipe.get("later_stages", {}).get("thaw"):
            told.append(
                f"{Order.parse(order)} scores {groups[0].direction} with its first pair alone, which later stages leave frozen."
            )
    return told


def _table_section(study: Study, groups: Sequence[Group], direction: str) -> Section:
    panels = [
        plots.RecallPanel(
            group.title,
            group.orders,
            {o: {k: (i.estimate, i.low, i.high) for k, i in by_k.items()} for o, by_k in group.recalls.items()},
            {k: found.estimate for k, found in group.chance.items()},
        )
        for group in groups
    ]
    blocks: list[Block] = [order_table(groups, direction), sizes_table(groups)]
    svg = plots.recall_intervals(panels, plots.order_colours(study.orders))
    blocks.append(Figure(
        "recalls", "Recall by order", svg, f"Points are means over seeds, bars {share(groups)} intervals over queries and seeds.",
        f"Recalls of {', '.join(str(Order.parse(o)) for o in study.orders)} with intervals on {len(groups)} benchmarks",
    ))  # fmt: skip
    protocols = [f"{b['title']}: {b['protocol']}" for b in study.benchmarks if b.get("protocol")]
    blocks.append(Text(tuple(protocols)))
    published = [published_table(group.benchmark, group.title) for group in groups]
    return Section("The order table", (*blocks, *(table for table in published if table is not None)))


def _published_section(groups: Sequence[Group]) -> Section | None:
    """The published tables of benchmarks that this study was not scored on."""
    scored = {group.benchmark for group in groups}
    found = [published_table(name, title) for name, title in PUBLISHED_TITLES.items() if name not in scored]
    tables = tuple(table for table in found if table is not None)
    intro = (
        "Of other data than this study's: they show what the field reports and how wide its intervals are, and are not to be "
        "compared with the tables above."
    )
    return Section("Published figures", tables, intro) if tables else None


def _comparison_section(groups: Sequence[Group], varies: Sequence[Any], colours: dict[str, str]) -> Section | None:
    compared = [group for group in groups if group.comparisons]
    if not compared:
        return None
    panels = [
        plots.DifferencePanel(
            group.title,
            [
                (f"{Order.parse(d.a)} − {Order.parse(d.b)}", d.estimate, d.low, d.high, d.p_adjusted)
                for d in group.comparisons[MAIN_RECALL].differences
            ],
        )
        for group in compared
    ]
    verdicts = tuple(f"{group.title}: {group.verdict}." for group in compared)
    blocks: list[Block] = [
        Text(verdicts, "finding"),
        Figure(
            "differences", f"Differences at R@{MAIN_RECALL}", plots.differences(panels),
            f"Points of recall with {share(compared)} intervals; filled: told apart after Holm's correction over all pairs.",
            "Differences between all pairs of orders with their intervals",
        ),
        differences_table(compared),
    ]  # fmt: skip
    if varies:
        blocks += [Text(tuple(f"{v.first}, {v.second}: {v.verdict}." for v in varies)), interactions_table(varies)]
    intro = (
        "Orders are compared over the same queries, seeds as the outer level. An order is called the winner only where it beats "
        "every other one after Holm's correction; otherwise the sentence says how large a study would see the difference."
    )
    return Section("Which order is best", tuple(blocks), intro)


def _directions_section(by_direction: dict[str, Sequence[Group]]) -> Section:
    return Section("Every direction", (directions_table(by_direction),))


def _queries_section(
    study: Study, groups: Sequence[Group], duels: dict[str, Duel], colours: dict[str, str]
) -> Section | None:
    blocks: list[Block] = []
    for group in groups:
        if group.benchmark not in duels:
            continue
        found = duels[group.benchmark]
        a, b = (str(Order.parse(order)) for order in (found.a, found.b))
        panel = plots.RankPanel(group.title, found.a, found.b, found.rank_a, found.rank_b)
        caption = f"{a} is ahead on {found.wins:,} queries, {b} on {found.losses:,}; {found.ties:,} are level."
        blocks += [
            Figure(f"duel-{slug(group.benchmark)}", f"{a} against {b}, {group.title}",
                   plots.wins_and_losses(panel, colours), caption, f"Ranks of every query under {a} and {b}. {caption}"),
            captions_table(group, found, study.captions(group.benchmark)),
        ]  # fmt: skip
    intro = "The two orders of each benchmark that differ most clearly. Ranks are means over seeds; 1 is best."
    return Section("Query by query", tuple(blocks), intro) if blocks else None


def _space_section(study: Study, colours: dict[str, str]) -> Section | None:
    blocks: list[Block] = []
    for benchmark in study.benchmarks:
        name, title = benchmark["name"], benchmark["title"]
        found: list[tuple[str, list[Geometry]]] = []
        for order in study.orders:
            several = [g for run in study.runs_of(order) if (g := study.geometry(run, name)) is not None]
            if several:
                found.append((order, several))
        if found:
            blocks += _space_blocks(study, name, title, found, colours)
    intro = (
        "Measured on held-out clips, on vectors of length one. The plane is that of the two principal components of all modalities "
        "together, of the first seed; clusters are k-means over all modalities together."
    )
    return Section("The joint space", tuple(blocks), intro) if blocks else None


def _space_blocks(
    study: Study, name: str, title: str, found: list[tuple[str, list[Geometry]]], colours: dict[str, str]
) -> list[Block]:
    label = next((run.labels.get(name, "") for run in study.done if run.labels.get(name)), "")
    scatter = [
        plots.ScatterPanel(
            str(Order.parse(o)), several[0].coordinates, several[0].cluster, several[0].explained.tolist()
        )
        for o, several in found
    ]
    matrices = [
        plots.SimilarityPanel(f"{Order.parse(o)} {pair}", np.asarray(matrix, np.float32))
        for o, several in found
        for pair, matrix in several[0].similarity.items()
    ]
    gaps = [plots.GapPanel(pair, _gaps_of(found, pair)) for pair in _pairs(found)]
    rows = [
        plots.PurityRow(
            order,
            {
                "modalities": [g.modality_purity for g in several],
                **({label: [g.label_purity for g in several]} if label else {}),
                **{
                    f"same cluster {p}": [g.agreement[p] for g in several if p in g.agreement]
                    for p in several[0].agreement
                },
            },
            {
                **({label: _mean([g.label_purity_chance for g in several])} if label else {}),
                **{
                    f"same cluster {p}": _mean([g.agreement_chance.get(p) for g in several])
                    for p in several[0].agreement
                },
            },
        )
        for order, several in found
    ]
    where = slug(name)
    return [
        geometry_table(title, name, found, label),
        Figure(f"plane-{where}", f"The joint space in two dimensions, {title}", plots.joint_space(scatter),
               "Above by modality, below by cluster. One seed an order.", f"Embeddings of {title} by modality and by cluster"),
        Figure(f"gap-{where}", f"Modality gap, {title}", plots.gaps(gaps, colours), "One dot a seed; 0 is no gap.",
               "Distance between the mean vectors of two modalities, by order"),
        Figure(f"purity-{where}", f"Clusters, {title}", plots.purity(rows, colours),
               "One dot a seed; ticks are the level by chance. Purity of modalities is best low, the others high.",
               "Purity of clusters and agreement of modalities, by order"),
        Figure(f"similarity-{where}", f"Similarity matrices, {title}", plots.similarity_matrices(matrices),
               "Cosines of up to 48 clips, the first modality's in rows; true pairs lie on the diagonal. One seed an order.",
               "Matrices of cosines between modalities"),
    ]  # fmt: skip


def _pairs(found: list[tuple[str, list[Geometry]]]) -> list[str]:
    return list(dict.fromkeys(pair for _, several in found for pair in several[0].gap))


def _gaps_of(found: list[tuple[str, list[Geometry]]], pair: str) -> dict[str, list[float]]:
    return {order: [g.gap[pair] for g in several] for order, several in found if pair in several[0].gap}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _training_section(study: Study, colours: dict[str, str]) -> Section:
    curves: dict[str, dict[str, list[tuple[Any, Any]]]] = {}
    chains: dict[str, Any] = {}
    for stage in study.stages.values():
        for term, curve in study.curves(stage).items():
            curves.setdefault(stage.chain, {}).setdefault(term, []).append((curve.steps, curve.values))
        if stage.finished:
            chains.setdefault(stage.chain, []).append(stage)
    panels = [
        plots.StageCurves(str(Order.parse(chain)), {t: v for t, v in terms.items() if t != "learning_rate"})
        for chain, terms in curves.items()
    ]
    counts = [
        plots.ParameterRow(chain, several[0].frozen or 0, several[0].trained or 0) for chain, several in chains.items()
    ]
    costs = [
        plots.CostRow(chain, _mean([s.seconds for s in several]), several[0].num_steps, several[0].num_clips)
        for chain, several in chains.items()
    ]
    return Section(
        "Training",
        (
            Figure("curves", "Learning curves", plots.learning_curves(panels),
                   "Every term of the loss as it enters before its weight, the weighted sum (loss) and the gradient's norm; thin: "
                   "each seed, thick: their median.", "Loss terms over the steps of every stage"),
            stages_table(study),
            Figure("parameters", "Trained and frozen parameters", plots.parameters(counts, colours), "",
                   "Counts of trained and frozen parameters by stage"),
            Figure("costs", "Cost of the stages", plots.costs(costs, colours), "Means over seeds; training alone.",
                   "Seconds, steps and clips by stage"),
        ),
    )  # fmt: skip


def _repeat_section(study: Study, direction: str) -> Section:
    content = study.content
    orders = "[" + ",".join(f'"{order}"' for order in study.orders) + "]"
    seeds = sorted({run.seed for run in study.runs})
    names = "[" + ",".join(f'"{b["name"]}"' for b in content["benchmarks"]) + "]"
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    store = content["store"]
    return Section(
        "To repeat this",
        (
            Text((
                f"Data: the store `{store['path']}`, fingerprint {store['fingerprint']}. `trichord store info` prints a store's "
                "fingerprint.",
                f"Versions: {versions}.",
                "The recipe, every setting resolved, lies beside this page as recipe.yaml. On a CPU the same versions and number "
                "of threads give the same figures bit for bit.",
            )),
            Commands((
                f"trichord study --store {store['path']} --out OUT --recipe recipe.yaml \\",
                f"  --orders '{orders}' --seeds '{seeds}' --benchmarks '{names}'",
                f"trichord report OUT --direction {direction}",
            )),
            Commands(tuple(_yaml(study.recipe).splitlines()), "recipe.yaml"),
        ),
    )  # fmt: skip


def _yaml(values: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def recipe_text(study: Study) -> str:
    """The study's recipe as a file that `--recipe` takes."""
    return _yaml(study.recipe)
