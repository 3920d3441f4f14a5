"""Unit by unit: two orders or systems over the same queries, videos or clips, and where each is furthest ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trichord.report import plots
from trichord.report.document import Block, Cell, Column, Figure, Section, Table, Text, folded

LONGEST = 160  # letters of a caption


@dataclass(frozen=True, eq=False)
class Duel:
    """Two orders or systems over the same units. Values are means over seeds.

    Attributes:
        a, b: As printed; `a` has the higher main measure.
        value_a, value_b: (n,) of the units that count: ranks from 1 (`ranks`), else shares or counts, more is better.
        ranks: Which of the two.
        what: What the values are, for a heading.
        names: (n,) of the units.
        captions: (n,) texts of the units, '' where there is none.
        of: What they were compared in: a direction or a modality.
    """

    a: str
    b: str
    value_a: np.ndarray
    value_b: np.ndarray
    ranks: bool
    what: str
    names: np.ndarray
    captions: np.ndarray
    of: str

    @property
    def wins(self) -> int:
        """Units on which `a` is ahead."""
        return int(((self.value_a < self.value_b) if self.ranks else (self.value_a > self.value_b)).sum())

    @property
    def ties(self) -> int:
        return int((self.value_a == self.value_b).sum())

    @property
    def losses(self) -> int:
        return len(self.value_a) - self.wins - self.ties

    def furthest(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The units where `a`, and where `b`, is furthest ahead: by the ratio of ranks, or the difference of values."""
        ahead = np.log(self.value_b) - np.log(self.value_a) if self.ranks else self.value_a - self.value_b
        order = np.argsort(-ahead, kind="stable")
        first, last = order[:count], order[::-1][:count]
        return first[ahead[first] > 0], last[ahead[last] < 0]


def duels_section(
    duels: Sequence[tuple[str, str, Duel]], colours: Mapping[str, str], intro: str, table: str
) -> Section | None:
    """The part of a report on single units; None without duels.

    Args:
        duels: (slug, title, duel) of each benchmark.
        colours: Of orders or systems.
        intro: First paragraph.
        table: What the names of the tables begin with.
    """
    blocks: list[Block] = []
    for slug, title, found in duels:
        units = "queries" if found.ranks else "units"
        caption = (
            f"{found.a} is ahead on {found.wins:,} {units}, {found.b} on {found.losses:,}; {found.ties:,} are level."
        )
        if found.ranks:
            panel = plots.RankPanel(title, found.a, found.b, found.value_a, found.value_b)
            blocks.append(Figure(
                f"duel-{slug}", f"{found.a} against {found.b}, {title}", plots.wins_and_losses(panel, colours), caption,
                f"Ranks of every query under {found.a} and {found.b}. {caption}",
            ))  # fmt: skip
        else:
            blocks.append(Text((f"{title}: {caption}",)))
        blocks.append(_units_table(f"{table}-{slug}", title, found))
    return Section("Query by query", tuple(blocks), intro) if blocks else None


def _units_table(name: str, title: str, found: Duel, count: int = 8) -> Table:
    """The units where one of the two is furthest ahead of the other."""
    better_a, better_b = found.furthest(count)
    captioned = any(found.captions)
    rows = []
    for ahead, units in ((found.a, better_a), (found.b, better_b)):
        for unit in units.tolist():
            line = folded(str(found.captions[unit]))
            short = line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
            values = [
                Cell(f"{v[unit]:.1f}" if found.ranks else f"{v[unit]:.2f}", float(v[unit]))
                for v in (found.value_a, found.value_b)
            ]
            known = (Cell(short, line),) if captioned else ()
            own = str(found.names[unit])
            rows.append((Cell(ahead), Cell(folded(own), own), *known, *values))
    columns = (
        Column("ahead", numeric=False),
        Column("id", numeric=False),
        *((Column("caption", numeric=False),) if captioned else ()),
        Column(found.a, found.what),
        Column(found.b, found.what),
    )
    split = len(better_a)
    return Table(
        name, f"Where {found.a} and {found.b} differ most, {title}", columns, tuple(rows), "",
        (split,) if 0 < split < len(rows) else (),
    )  # fmt: skip
