"""The section on the joint space: principal plane, modality gaps, clusters and similarity matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trichord.report import plots
from trichord.report.document import Block, Figure, Section
from trichord.report.tables_space import geometry_table, mean_of

if TYPE_CHECKING:
    from trichord.evaluation.geometry import Geometry
    from trichord.modality import Order
    from trichord.report.reading import Study


def space_section(study: Study, slugs: dict[str, str], colours: dict[Order, str]) -> Section | None:
    """Return the section on the joint space, or None if no geometry was saved.

    Args:
        study: Study.
        slugs: Slug of each benchmark, for the names of tables and figures.
        colours: Colour of each order.
    """
    blocks: list[Block] = []
    for benchmark in study.benchmarks:
        name, title = benchmark["name"], benchmark["title"]
        geometries: list[tuple[Order, list[Geometry]]] = []
        for order in study.orders:
            several = [g for run in study.runs_of(order) if (g := study.geometry(run, name)) is not None]
            if several:
                geometries.append((order, several))
        if geometries:
            blocks += _space_blocks(study, name, title, slugs[name], geometries, colours)
    intro = (
        "Measured on held-out clips, with embeddings of unit length. The plane is spanned by the first two principal components "
        "of all modalities together, for the first seed. The clusters are those of k-means over all modalities together."
    )
    return Section("The joint space", tuple(blocks), intro) if blocks else None


def _space_blocks(
    study: Study,
    name: str,
    title: str,
    where: str,
    geometries: list[tuple[Order, list[Geometry]]],
    colours: dict[Order, str],
) -> list[Block]:
    every = (scored for run in study.done for scored in study.scores(run).benchmarks)
    label = next((scored.labels for scored in every if scored.name == name and scored.labels), "")
    scatter = [
        plots.ScatterPanel(str(o), several[0].coordinates, several[0].cluster, several[0].explained.tolist())
        for o, several in geometries
    ]
    matrices = [
        plots.SimilarityPanel(f"{o} {pair}", np.asarray(matrix, np.float32))
        for o, several in geometries
        for pair, matrix in several[0].similarity.items()
    ]
    gaps = [plots.GapPanel(pair, _gaps_of(geometries, pair)) for pair in _pairs(geometries)]
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
        for order, several in geometries
    ]
    return [
        geometry_table(title, where, geometries, label),
        Figure(f"plane-{where}", f"The joint space in two dimensions, {title}", plots.joint_space(scatter),
               "Above: by modality. Below: by cluster. One seed of each order.",
               f"Embeddings of {title} by modality and by cluster"),
        Figure(f"gap-{where}", f"Modality gap, {title}", plots.gaps(gaps, colours), "A dot for each seed; 0 means no gap.",
               "Distance between the mean vectors of two modalities, by order"),
        Figure(f"purity-{where}", f"Clusters, {title}", plots.purity(rows, colours),
               "A dot for each seed; ticks mark chance. Lower is better for the purity of modalities, higher for the others.",
               "Purity of clusters and agreement of modalities, by order"),
        Figure(f"similarity-{where}", f"Similarity matrices, {title}", plots.similarity_matrices(matrices),
               "Cosines of up to 48 clips, the first modality in rows. True pairs are on the diagonal. One seed of each order.",
               "Matrices of cosines between modalities"),
    ]  # fmt: skip


def _pairs(geometries: list[tuple[Order, list[Geometry]]]) -> list[str]:
    return list(dict.fromkeys(pair for _, several in geometries for pair in several[0].gap))


def _gaps_of(geometries: list[tuple[Order, list[Geometry]]], pair: str) -> dict[Order, list[float]]:
    return {order: [g.gap[pair] for g in several] for order, several in geometries if pair in several[0].gap}
