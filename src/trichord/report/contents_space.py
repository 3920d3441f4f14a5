"""The report's part on the joint space: where embeddings lie, gaps between modalities, clusters, similarity matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trichord.modality import Order
from trichord.report import plots
from trichord.report.document import Block, Figure, Section
from trichord.report.tables_space import geometry_table, mean_of

if TYPE_CHECKING:
    from trichord.evaluation.geometry import Geometry
    from trichord.report.reading import Study


def space_section(study: Study, slugs: dict[str, str], colours: dict[str, str]) -> Section | None:
    """None where no geometry was kept. `slugs`: of the benchmarks."""
    blocks: list[Block] = []
    for benchmark in study.benchmarks:
        name, title = benchmark["name"], benchmark["title"]
        found: list[tuple[str, list[Geometry]]] = []
        for order in study.orders:
            several = [g for run in study.runs_of(order) if (g := study.geometry(run, name)) is not None]
            if several:
                found.append((order, several))
        if found:
            blocks += _space_blocks(study, name, title, slugs[name], found, colours)
    intro = (
        "Measured on held-out clips, on vectors of length one. The plane is that of the two principal components of all modalities "
        "together, of the first seed; clusters are k-means over all modalities together."
    )
    return Section("The joint space", tuple(blocks), intro) if blocks else None


def _space_blocks(
    study: Study, name: str, title: str, where: str, found: list[tuple[str, list[Geometry]]], colours: dict[str, str]
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
                **({label: mean_of([g.label_purity_chance for g in several])} if label else {}),
                **{
                    f"same cluster {p}": mean_of([g.agreement_chance.get(p) for g in several])
                    for p in several[0].agreement
                },
            },
        )
        for order, several in found
    ]
    return [
        geometry_table(title, where, found, label),
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
