"""What changed between two studies: settings, versions, data, and the figures, query by query where both met the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trichord.errors import TrichordError
from trichord.evaluation.ranks import MEDIAN_RANK
from trichord.evaluation.statistics import holm, paired_difference
from trichord.modality import Order
from trichord.report.analysis import (
    KS,
    MAIN_RECALL,
    Group,
    Ranked,
    analyse,
)
from trichord.report.document import Block, Cell, Column, Document, Section, Table, Text, distinct_slugs
from trichord.report.reading import Study
from trichord.report.tables import difference_cell, interval_cell, p_text
from trichord.study.units import difference_of_scoring


def compare_studies(a: Study, b: Study, *, direction: str = "", level: float = 0.95) -> Document:
    """What changed from study A to study B. Differences are B minus A.

    Args:
        a, b: Studies whose own runs passed `check_comparable`.
        direction: '' takes the first one that both were scored in.
        level: Of all intervals.

    Raises TrichordError when no figure of the two may be compared: the message names the difference. Where that holds
    of some benchmarks only, the document says so and compares the others.
    """
    common = [d for d in a.directions if d in b.directions]
    if not common or (direction and direction not in common):
        raise TrichordError(
            f"{a.path} was scored in {', '.join(a.directions)} and {b.path} in {', '.join(b.directions)}: "
            f"{f'not both in {direction}' if direction else 'no direction is common'}; evaluate both in one direction"
        )
    chosen = direction or common[0]
    settings = _changes_table("settings", "Settings", _settings(a), _settings(b))
    versions = _changes_table("versions", "Versions", a.content["versions"], b.content["versions"])
    summary = [_changed(settings, "setting"), _changed(versions, "version"), _data_sentence(a, b)]
    blocks, found = _figures(a, b, chosen, level)
    sections = (
        Section("What changed", (settings, versions, Text((_data_sentence(a, b),))), _runs_sentence(a, b)),
        Section(
            f"The figures, {chosen}", tuple(blocks),
            "B minus A over the same queries; Holm's correction runs over all orders and recalls of a benchmark.",
        ),
    )  # fmt: skip
    return Document(
        f"{b.name} compared with {a.name}",
        f"A is {a.name}, B is {b.name}; differences are B minus A",
        sections,
        tuple([*summary, *found]),
    )


def _figures(a: Study, b: Study, direction: str, level: float) -> tuple[list[Block], list[str]]:
    groups_a = {group.benchmark: group for group in analyse(a, direction, level=level, compare=False)}
    groups_b = {group.benchmark: group for group in analyse(b, direction, level=level, compare=False)}
    refused, blocks, found = [], [], []
    names = [name for name in groups_a if name in groups_b]
    if not names:
        raise TrichordError(
            f"{a.path} was scored on {', '.join(groups_a)} and {b.path} on {', '.join(groups_b)}: no benchmark is common"
        )
    slugs = distinct_slugs(names)
    for name in names:
        one, two = groups_a[name], groups_b[name]
        if why := _refusal(a, b, one, two):
            refused.append(f"{one.title}: not compared, since {why}")
            continue
        table, sentences = _differences(one, _paired(one, two), level, f"compared-{slugs[name]}")
        blocks.append(table)
        found += sentences
    if len(refused) == len(names):
        raise TrichordError(f"{a.path} and {b.path} cannot be compared: {'; '.join(refused)}")
    warning: list[Block] = [Text(tuple(refused), "warning")] if refused else []
    return warning + blocks, found + refused


def _refusal(a: Study, b: Study, one: Group, two: Group) -> str:
    """Why two groups may not be compared; '' where they may."""
    records = [next(r for r in study.content["benchmarks"] if r["name"] == one.benchmark) for study in (a, b)]
    for key in sorted(set(records[0]) | set(records[1])):
        if records[0].get(key) != records[1].get(key):
            return f"the benchmark's {key} is {records[0].get(key)} in A and {records[1].get(key)} in B"
    sides = [next(iter(group.models.values())).one for group in (one, two)]
    if why := difference_of_scoring(sides[0], sides[1], one.direction, f"R@{MAIN_RECALL}"):
        return (
            why.replace("in one and", "in A and").replace("in the other", "in B").replace("in one alone", "in A alone")
        )
    if not [order for order in one.orders if order in two.orders]:
        shown = (", ".join(str(Order.parse(o)) for o in group.orders) for group in (one, two))
        return "no order is common: A has {}, B has {}".format(*shown)
    return ""


def _paired(one: Group, two: Group) -> Group:
    """Group `two` with its queries in the order of those of `one`."""
    base = next(iter(one.models.values()))
    ranked = {
        order: Ranked.of(own, two.direction, own.places(base, two.direction, MEDIAN_RANK))
        for order, own in two.models.items()
    }
    return replace(two, ranked=ranked)


def _differences(one: Group, two: Group, level: float, name: str) -> tuple[Table, list[str]]:
    common = [order for order in one.orders if order in two.orders]
    pairs = {}
    for order in common:
        for k in KS:
            first, second = one.ranked[order].hits(k), two.ranked[order].hits(k)
            same = first.labels == second.labels
            pairs[order, k] = paired_difference(second, first, level, names=("B", "A"), paired_seeds=same)
    adjusted = dict(zip(pairs, holm([pair.p for pair in pairs.values()]), strict=True)) if pairs else {}
    rows, sentences = [], []
    for order in dict.fromkeys([*one.orders, *two.orders]):
        for k in KS:
            cells = [
                interval_cell(group.recalls[order][k]) if order in group.orders else Cell("-") for group in (one, two)
            ]
            if (order, k) not in pairs:
                rows.append((Cell(str(Order.parse(order))), Cell(f"R@{k}"), *cells, Cell("-"), Cell("-"), Cell("-")))
                continue
            pair, p = pairs[order, k], float(adjusted[order, k])
            strong = p < 1 - level and pair.num_seeds > 1
            rows.append((
                Cell(str(Order.parse(order))), Cell(f"R@{k}"), *cells,
                difference_cell(pair.estimate, pair.low, pair.high, strong=strong, note=pair.note),
                Cell(p_text(pair.p), pair.p), Cell(p_text(p), p, strong=strong),
            ))  # fmt: skip
            if strong and k == MAIN_RECALL:
                way = "higher" if pair.estimate > 0 else "lower"
                sentences.append(
                    f"{one.title}, {Order.parse(order)}: R@{k} is {abs(pair.estimate):.1f} points {way} in B "
                    f"(adjusted p {p_text(p)})."
                )
    if pairs and all(pair.num_seeds == 1 for pair in pairs.values()):
        sentences.append(f"{one.title}: one seed compares trained models, not settings; train three or more.")
    elif not sentences:
        sentences.append(f"{one.title}: no difference at R@{MAIN_RECALL} is distinguishable.")
    labels = ("order", "recall", "A", "B", "B - A", "p", "p, Holm")
    columns = tuple(Column(label, numeric=i > 1) for i, label in enumerate(labels))
    caption = (
        f"{one.num_queries:,} queries, {one.num_gallery:,} clips; recall in percent, differences in points, "
        f"{100 * level:g} % intervals. "
        "Seeds are paired where both studies have the same ones."
    )
    table = Table(name, one.title, columns, tuple(rows), caption,
                  tuple(range(3, len(rows), 3)))  # fmt: skip
    return table, sentences


def _settings(study: Study) -> dict[str, Any]:
    """The recipe, and what else a call of the study said."""
    firsts = {entry.get("first_stage_seed") for entry in study.content["orders"]} - {None}
    return {
        **study.recipe,
        "first_stage_seed": ", ".join(map(str, sorted(firsts))) or "each seed its own",
        "orders": ", ".join(study.orders),
        "seeds": ", ".join(map(str, sorted({run.seed for run in study.runs}))),
    }


def flattened(values: Mapping[str, Any], head: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flattened(value, f"{head}{key}.") if isinstance(value, Mapping) else {f"{head}{key}": value}
    return flat


def _changes_table(name: str, title: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Table:
    one, two = flattened(a), flattened(b)
    rows = tuple(
        (Cell(key), Cell(_shown(one, key)), Cell(_shown(two, key)))
        for key in dict.fromkeys([*one, *two])
        if key not in one or key not in two or one[key] != two[key]
    )
    columns = tuple(Column(label, numeric=False) for label in ("name", "A", "B"))
    return Table(name, title, columns, rows, "" if rows else "None differs.")


def _shown(values: Mapping[str, Any], key: str) -> str:
    return str(values[key]) if key in values else "not there"


def _changed(table: Table, what: str) -> str:
    names = [row[0].text for row in table.rows]
    if not names:
        return f"No {what} differs."
    shown = ", ".join(names[:6]) + (", ..." if names[6:] else "")
    return f"{len(names)} {what}{'s differ' if len(names) > 1 else ' differs'}: {shown}."


def _data_sentence(a: Study, b: Study) -> str:
    one, two = (study.content["store"]["fingerprint"] for study in (a, b))
    if one == two:
        return f"Both were trained on the same data (fingerprint {one[:12]})."
    return f"The data differ: fingerprint {one[:12]} in A, {two[:12]} in B."


def _runs_sentence(a: Study, b: Study) -> str:
    told = []
    for letter, study in (("A", a), ("B", b)):
        counts = {
            status: sum(run.status == status for run in study.runs) for status in ("done", "diverged", "unfinished")
        }
        told.append(f"{letter}: " + ", ".join(f"{count} runs {status}" for status, count in counts.items() if count))
    return "; ".join(told) + "."
