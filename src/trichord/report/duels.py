"""Comparison of two orders or systems unit by unit: the queries, videos or clips on which they differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trichord.report import plots
from trichord.report.document import Block, Cell, Column, Figure, Section, Table, Text, folded

LONGEST = 160  # largest number of characters of a caption


@dataclass(frozen=True, eq=False)
class Duel:
    """The results of two orders or systems on the same units, as means over seeds.

    Attributes:
        a: Printed name of the first system, which has the higher main measure.
        b: Printed name of the second system.
        value_a: Values (n,) of the counted units for `a`: ranks from 1, or shares or counts, for which higher is better.
        value_b: Values (n,) of the counted units for `b`.
        ranks: Whether the values are ranks.
        what: Description of the values, for a heading.
        names: Names (n,) of the units.
        captions: Texts (n,) of the units, or ''.
        target: Direction or modality of the comparison.
    """

    a: str
    b: str
    value_a: np.ndarray
    value_b: np.ndarray
    ranks: bool
    what: str
    names: np.ndarray
    captions: np.ndarray
    target: str

    @property
    def wins(self) -> int:
        """Number of units on which `a` is ahead."""
        return int(((self.value_a < self.value_b) if self.ranks else (self.value_a > self.value_b)).sum())

    @property
    def ties(self) -> int:
        """Number of units with equal values."""
        return int((self.value_a == self.value_b).sum())

    @property
    def losses(self) -> int:
        """Number of units on which `b` is ahead."""
        return len(self.value_a) - self.wins - self.ties

    def furthest(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the units on which `a` is furthest ahead, and those on which `b` is.

        Ranks are compared by their ratio, and other values by their difference.

        Args:
            count: Largest number of units for each of the two.
        """
        ahead = np.log(self.value_b) - np.log(self.value_a) if self.ranks else self.value_a - self.value_b
        units = np.argsort(-ahead, kind="stable")
        first, last = units[:count], units[::-1][:count]
        return first[ahead[first] > 0], last[ahead[last] < 0]


def duels_section(
    duels: Sequence[tuple[str, str, Duel]], colours: Mapping[str, str], intro: str, table: str
) -> Section | None:
    """Return the section on single units, or None if there are no duels.

    Args:
        duels: Slug, title and duel of each benchmark.
        colours: Colour of each order or system.
        intro: First paragraph.
        table: Prefix of the names of the tables.
    """
    blocks: list[Block] = []
    for slug, title, duel in duels:
        units = "queries" if duel.ranks else "units"
        caption = f"{duel.a} is ahead on {duel.wins:,} {units}, {duel.b} on {duel.losses:,}; {duel.ties:,} are equal."
        if duel.ranks:
            panel = plots.RankPanel(title, duel.a, duel.b, duel.value_a, duel.value_b)
            blocks.append(Figure(
                f"duel-{slug}", f"{duel.a} against {duel.b}, {title}", plots.wins_and_losses(panel, colours), caption,
                f"Ranks of every query under {duel.a} and {duel.b}. {caption}",
            ))  # fmt: skip
        else:
            blocks.append(Text((f"{title}: {caption}",)))
        blocks.append(_units_table(f"{table}-{slug}", title, duel))
    return Section("Query by query", tuple(blocks), intro) if blocks else None


def _units_table(name: str, title: str, duel: Duel, count: int = 8) -> Table:
    """Return the table of the units on which one of the two is furthest ahead of the other."""
    better_a, better_b = duel.furthest(count)
    captioned = any(duel.captions)
    rows = []
    for ahead, units in ((duel.a, better_a), (duel.b, better_b)):
        for unit in units.tolist():
            line = folded(str(duel.captions[unit]))
            short = line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
            values = [
                Cell(f"{v[unit]:.1f}" if duel.ranks else f"{v[unit]:.2f}", float(v[unit]))
                for v in (duel.value_a, duel.value_b)
            ]
            known = (Cell(short, line),) if captioned else ()
            own = str(duel.names[unit])
            rows.append((Cell(ahead), Cell(folded(own), own), *known, *values))
    columns = (
        Column("ahead", numeric=False),
        Column("id", numeric=False),
        *((Column("caption", numeric=False),) if captioned else ()),
        Column(duel.a, duel.what),
        Column(duel.b, duel.what),
    )
    split = len(better_a)
    return Table(
        name, f"Where {duel.a} and {duel.b} differ most, {title}", columns, tuple(rows), "",
        (split,) if 0 < split < len(rows) else (),
    )  # fmt: skip
