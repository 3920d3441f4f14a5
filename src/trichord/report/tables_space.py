"""The table of the joint space: modality gaps and clusters, with chance levels."""

from __future__ import annotations

from collections.abc import Sequence

from trichord.evaluation.geometry import Geometry
from trichord.modality import Order
from trichord.report.document import Cell, Column, Table
from trichord.report.tables import DASH, NAME


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of the known values, or None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def geometry_table(title: str, slug: str, geometries: Sequence[tuple[Order, Sequence[Geometry]]], label: str) -> Table:
    """Return the table of modality gaps and clusters of each order, as means over seeds.

    Args:
        title: Title of the benchmark.
        slug: Slug of the benchmark, for the name of the table.
        geometries: Each order with the geometry of each seed.
        label: Kind of the labels of the clips. '' without labels.
    """
    pairs = list(dict.fromkeys(pair for _, several in geometries for geometry in several for pair in geometry.gap))
    columns = [NAME]
    columns += [Column(pair, "modality gap") for pair in pairs]
    columns += [Column(pair, "cosine, true - other") for pair in pairs]
    columns += [Column(pair, "same cluster (chance)") for pair in pairs]
    columns += [Column("modalities", "cluster purity"), Column(label or "labels", "cluster purity")]
    rows = []
    for order, several in geometries:
        cells = [Cell(str(order))]
        cells += [_number(mean_of([g.gap.get(pair) for g in several])) for pair in pairs]
        for pair in pairs:
            known = [g for g in several if pair in g.cosine_true]
            cells.append(_number(mean_of([g.cosine_true[pair] - g.cosine_other[pair] for g in known])))
        for pair in pairs:
            known = [g for g in several if pair in g.agreement]
            same, by_chance = (mean_of([getattr(g, n)[pair] for g in known]) for n in ("agreement", "agreement_chance"))
            cells.append(_with_chance(same, by_chance))
        cells.append(_number(mean_of([g.modality_purity for g in several])))
        pure, by_chance = (
            mean_of([getattr(g, name) for g in several]) for name in ("label_purity", "label_purity_chance")
        )
        cells.append(_with_chance(pure, by_chance))
        rows.append(tuple(cells))
    sizes = sorted({len(geometry.clip) for _, several in geometries for geometry in several})
    caption = (
        f"Means over seeds, on up to {sizes[-1]:,} held-out clips that have all modalities of the model. Modality gap: the "
        "distance between the mean unit vectors of two modalities. Purity of modalities: 1 if every cluster contains a single "
        "modality, 1 / (number of modalities) if they are well mixed. In brackets: the value for random pairs or labels."
    )
    return Table(f"space-{slug}", f"The joint space on {title}", tuple(columns), tuple(rows), caption)


def _number(value: float | None) -> Cell:
    return DASH if value is None else Cell(f"{value + 0.0:.2f}", value)


def _with_chance(value: float | None, by_chance: float | None) -> Cell:
    if value is None or by_chance is None:
        return _number(value)
    return Cell(f"{value:.2f} ({by_chance:.2f})", value, values=(("chance", by_chance),))
