"""Comparison of two studies: settings, versions, data and figures, paired by query if both have the same queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trichord.errors import TrichordError
from trichord.evaluation.printed import in_percent
from trichord.evaluation.statistics import holm, paired_difference
from trichord.modality import Direction
from trichord.report.analysis import MAIN_RECALL, Target, analyse_study, targets_of
from trichord.report.document import Block, Cell, Document, Section, Table, Text, columns, distinct_slugs, first_of
from trichord.report.reading import Study
from trichord.report.tables import DASH, MEASURES, difference_cell, measure_cell, p_text
from trichord.study.figures import Models
from trichord.study.units import difference_of_scoring


def compare_studies(a: Study, b: Study, *, direction: Direction | None = None, level: float = 0.95) -> Document:
    """Return the report on the changes from study A to study B. Differences are B minus A.

    If only some benchmarks cannot be compared, the report says so and compares the others.

    Args:
        a: Study A, whose runs passed `check_comparable`.
        b: Study B, whose runs passed `check_comparable`.
        direction: Retrieval direction. None uses the first one in which both were scored.
        level: Level of all intervals.

    Raises:
        TrichordError: No figures of the two studies can be compared. The message names the difference.
    """
    common = [d for d in a.directions if d in b.directions]
    if not common or (direction is not None and direction not in common):
        codes = [", ".join(d.code for d in study.directions) for study in (a, b)]
        reason = "they have no direction in common" if direction is None else f"not both in {direction.code}"
        raise TrichordError(
            f"{a.path} was scored in {codes[0]} and {b.path} in {codes[1]}: {reason}; evaluate both in the same direction"
        )
    chosen = direction or common[0]
    settings = _changes_table("settings", "Settings", _settings(a), _settings(b))
    versions = _changes_table("versions", "Versions", a.content["versions"], b.content["versions"])
    summary = [_changed(settings, "setting"), _changed(versions, "version"), _data_sentence(a, b)]
    blocks, sentences = _figures(a, b, chosen, level)
    sections = (
        Section("What changed", (settings, versions, Text((_data_sentence(a, b),))), _runs_sentence(a, b)),
        Section(
            f"The figures, {chosen.code}", tuple(blocks),
            "B minus A over the same queries. Holm's correction covers all orders and recalls of a benchmark.",
        ),
    )  # fmt: skip
    return Document(
        f"{b.name} compared with {a.name}",
        f"A is {a.name}, B is {b.name}; differences are B minus A",
        sections,
        tuple([*summary, *sentences]),
    )


def _figures(a: Study, b: Study, direction: Direction, level: float) -> tuple[list[Block], list[str]]:
    of_a, of_b = (
        {target.benchmark: target for target in targets_of(benches, direction)}
        for benches in (analyse_study(study, direction, level=level, compare=False) for study in (a, b))
    )
    refused, blocks, sentences = [], [], []
    names = [name for name in of_a if name in of_b]
    if not names:
        raise TrichordError(
            f"{a.path} was scored on {', '.join(of_a)} and {b.path} on {', '.join(of_b)}; they have no benchmark in common"
        )
    slugs = distinct_slugs(names)
    for name in names:
        one, two = of_a[name], of_b[name]
        if why := _refusal(a, b, one, two):
            refused.append(f"{one.title} is not compared, since {why}")
            continue
        table, own = _differences(one, two, level, f"compared-{slugs[name]}")
        blocks.append(table)
        sentences += own
    if len(refused) == len(names):
        raise TrichordError(f"{a.path} and {b.path} cannot be compared: {'; '.join(refused)}")
    warning: list[Block] = [Text(tuple(refused), "warning")] if refused else []
    return warning + blocks, sentences + refused


def _refusal(a: Study, b: Study, one: Target, two: Target) -> str:
    """Return why two targets cannot be compared, or '' if they can."""
    records = [next(r for r in study.content["benchmarks"] if r["name"] == one.benchmark) for study in (a, b)]
    for key in sorted(set(records[0]) | set(records[1])):
        if records[0].get(key) != records[1].get(key):
            return f"the benchmark's {key} is {records[0].get(key)} in A and {records[1].get(key)} in B"
    sides = [_base(target).one for target in (one, two)]
    if why := difference_of_scoring(sides[0], sides[1], one.name, MAIN_RECALL):
        return why.replace("in one and", "in A and").replace("in the other", "in B").replace("only in one", "only in A")
    if not [order for order in one.figures if order in two.figures]:
        return "there is no common order: A has {}, B has {}".format(
            *(", ".join(target.figures) for target in (one, two))
        )
    return ""


def _base(target: Target) -> Models:
    """Return the models that determine the order of the queries."""
    return target.models[next(iter(target.figures))]


def _differences(one: Target, two: Target, level: float, name: str) -> tuple[Table, list[str]]:
    pairs = {}
    for order in (order for order in one.figures if order in two.figures):
        for measure in MEASURES:
            first, second = (target.runs(order, measure, _base(one)) for target in (one, two))
            assert first is not None and second is not None, "`_refusal` has compared the units"
            same = first.labels == second.labels
            pairs[order, measure] = paired_difference(second, first, level, names=("B", "A"), paired_seeds=same)
    adjusted = dict(zip(pairs, holm([pair.p for pair in pairs.values()]), strict=True)) if pairs else {}
    rows, sentences = [], []
    for order in dict.fromkeys([*one.figures, *two.figures]):
        for measure in MEASURES:
            cells = [measure_cell(target.figures.get(order, {}).get(measure)) for target in (one, two)]
            if (order, measure) not in pairs:
                rows.append((Cell(order), Cell(measure), *cells, DASH, DASH, DASH))
                continue
            pair, p = pairs[order, measure], float(adjusted[order, measure])
            strong = p < 1 - level and pair.num_seeds > 1
            rows.append((
                Cell(order), Cell(measure), *cells,
                difference_cell(pair.estimate, pair.low, pair.high, strong=strong, note=pair.note),
                Cell(p_text(pair.p), pair.p), Cell(p_text(p), p, strong=strong),
            ))  # fmt: skip
            if strong and measure == MAIN_RECALL:
                way = "higher" if pair.estimate > 0 else "lower"
                sentences.append(
                    f"{one.title}, {order}: {measure} is {abs(pair.estimate):.1f} points {way} in B "
                    f"(adjusted p {p_text(p)})."
                )
    if pairs and all(pair.num_seeds == 1 for pair in pairs.values()):
        sentences.append(
            f"{one.title}: with one seed, the comparison is between trained models, not between settings; "
            "train at least three seeds."
        )
    elif not sentences:
        sentences.append(f"{one.title}: no difference at {MAIN_RECALL} is significant.")
    labels = ("order", "recall", "A", "B", "B - A", "p", "p, Holm")
    caption = (
        f"{one.result['num_queries']:,} queries, {one.result['num_gallery']:,} clips; recall in percent, differences in points, "
        f"{in_percent(level)} intervals. Seeds are paired if both studies have the same ones."
    )
    table = Table(name, one.title, columns(labels, labels[:2]), tuple(rows), caption,
                  tuple(range(3, len(rows), 3)))  # fmt: skip
    return table, sentences


def _settings(study: Study) -> dict[str, Any]:
    """Return the recipe, and the other arguments of the study."""
    firsts = {entry.get("first_stage_seed") for entry in study.content["orders"]} - {None}
    return {
        **study.recipe,
        "first_stage_seed": ", ".join(map(str, sorted(firsts))) or "that of each seed",
        "orders": ", ".join(order.code for order in study.orders),
        "seeds": ", ".join(map(str, sorted({run.seed for run in study.runs}))),
    }


def flattened(values: Mapping[str, Any], head: str = "") -> dict[str, Any]:
    """Return nested settings as a flat dictionary with dotted names.

    Args:
        values: Nested settings.
        head: Prefix of the names.
    """
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
    labels = ("name", "A", "B")
    return Table(name, title, columns(labels, labels), rows, "" if rows else "There are no differences.")


def _shown(values: Mapping[str, Any], key: str) -> str:
    return str(values[key]) if key in values else "missing"


def _changed(table: Table, what: str) -> str:
    names = [row[0].text for row in table.rows]
    if not names:
        return f"No {what} differs."
    return f"{len(names)} {what}{'s differ' if len(names) > 1 else ' differs'}: {first_of(names, 6)}."


def _data_sentence(a: Study, b: Study) -> str:
    one, two = (study.content["store"]["fingerprint"] for study in (a, b))
    if one == two:
        return f"Both were trained on the same data (fingerprint {one[:12]})."
    return f"The data differ: fingerprint {one[:12]} in A, {two[:12]} in B."


def _runs_sentence(a: Study, b: Study) -> str:
    parts = []
    for letter, study in (("A", a), ("B", b)):
        counts = {
            status: sum(run.status == status for run in study.runs) for status in ("done", "diverged", "unfinished")
        }
        parts.append(f"{letter}: " + ", ".join(f"{count} runs {status}" for status, count in counts.items() if count))
    return "; ".join(parts) + "."
