"""Analysis of studies and evaluations: figures with intervals over units and seeds, and comparisons of systems.

A benchmark has targets: what its figures are of, a direction or a modality. Systems (orders, or models that were scored alone)
are compared in a target's main measure (retrieval: R@10; steps in time: the first recall; classes: top-1; clusters: none) over the
same units, and only where these and all that changes the figure are the same: `difference_of_scoring` names what is not. Of several
folds their mean is compared.

Of a study's orders those are compared that combine most modalities: a pair alone (`vt`) is shown beside them, but it is the first
stage of an order (`vt>a`), and where that order's later stage freezes it, the two have one and the same figure. Orders with one
first stage are left out where others have more (`evaluation.replication`).

Holm's family is all pairs of systems in all targets of all benchmarks; of a study those of its main direction. Only there can a
system be a winner. A study's other recalls are compared too, over the pairs of one benchmark; no winner is named there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.comparison import Comparison, Interaction, compare_on_benchmarks, compare_orders, interaction
from trichord.evaluation.ranks import RECALLS
from trichord.evaluation.replication import ONE_SEED, TWO_SEEDS, Runs
from trichord.modality import Direction, Order
from trichord.report.reading import Run, Study
from trichord.study.figures import Measure, Models, System, benchmark_keys, models_on, target_names
from trichord.study.scores import Scored, fusion_of, target_of
from trichord.study.units import are_numbered, difference_of_scoring

_MEAN = re.compile(r"(.+), mean of \d+ folds", re.DOTALL)
USUAL = ": the most frequent class"  # what a target is called that is no figure of the model
MAIN_RECALL = "R@10"
MAIN = {"retrieval": MAIN_RECALL, "classification": "top-1", "probe": "top-1"}
FEWER, ALONE = (
    "it combines fewer modalities than other orders of its study",
    "it has one seed, and other orders have more",
)


@dataclass(eq=False)
class Target:
    """One thing that figures of a benchmark are of.

    Attributes:
        benchmark, title: Of the benchmark.
        first: The benchmark as its first model was scored on it.
        name: Without how it was scored (`study.scores.target_of`).
        models: By system, of the benchmark.
        figures: By system and measure.
        main: The measure that systems are compared in; '' for none.
        comparisons: Of systems that may be compared; several where they fall into groups.
        further: Of a study, the comparisons in other measures.
        beside: Orders that are shown beside those that are compared.
    """

    benchmark: str
    title: str
    first: Scored
    name: str
    models: dict[str, Models]
    figures: dict[str, dict[str, Measure]]
    main: str
    comparisons: list[Comparison] = field(default_factory=list)
    further: dict[str, Comparison] = field(default_factory=dict)
    beside: set[str] = field(default_factory=set)

    @property
    def shown(self) -> str:
        """The measure of the picture: the main one, else the first."""
        return self.main or next(iter(next(iter(self.figures.values()))))

    @property
    def compared(self) -> tuple[str, ...]:
        """The systems of the first comparison."""
        return tuple(self.comparisons[0].recalls) if self.comparisons else ()

    @property
    def winner(self) -> str | None:
        """The system that is better than every other one, if all systems except the orders in `beside` were compared."""
        if len(self.comparisons) == 1 and not set(self.figures) - {*self.compared, *self.beside}:
            return self.comparisons[0].winner
        return None

    @property
    def result(self) -> dict[str, Any]:
        """Retrieval only: the row of the first model that was scored in this direction, with its gallery and policies."""
        models = self.models[next(iter(self.figures))]
        return next(row for scored in models.scored if (row := scored.result(self.name)) is not None)

    def of(self, system: str) -> str:
        """Return the target that the rows of a system name."""
        return next(iter(self.figures[system].values())).of

    def runs(self, system: str, measure: str, base: Models | None = None) -> Runs | None:
        """What the units that count give in each run of a system, in the order of `base` or of the first system; None where that
        is not known or the units are others."""
        own, first = self.models[system], base or self.models[next(iter(self.figures))]
        runs, places = own.runs(self.name, measure), own.places(first, self.name, measure)
        if runs is None or places is None:
            return None
        values = runs.values[:, places]
        return runs.with_values(values[:, ~np.isnan(values[0])])


@dataclass(eq=False)
class Bench:
    """One benchmark of all systems. apart: sentences that say which were not compared, and why."""

    key: tuple[str, str]
    first: Scored
    models: dict[str, Models]
    targets: list[Target]
    apart: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.first.name

    @property
    def title(self) -> str:
        """As printed; with the clips that the user named."""
        return _title(self.key, self.first)

    @property
    def measures(self) -> list[str]:
        """All measures, in the order met."""
        return list(dict.fromkeys(m for target in self.targets for of in target.figures.values() for m in of))


def _title(key: tuple[str, str], first: Scored) -> str:
    return f"{first.title}, {key[1]}" if key[1] else first.title


def analyse(systems: Sequence[System], *, direction: str = "", level: float = 0.95) -> list[Bench]:
    """Figures and comparisons of all benchmarks, in the order met.

    Args:
        systems: Read.
        direction: Its targets come first; '' leaves them as they are.
        level: Of all intervals and of the family of comparisons.

    Raises TrichordError when no benchmark was scored in that direction, or arrays do not fit their figures.
    """
    benches = [_bench(systems, key, level) for key in benchmark_keys(systems)]
    if direction:
        _put_first(benches, direction)
    _compare(benches, level)
    return benches


def analyse_study(study: Study, direction: str, *, level: float = 0.95, compare: bool = True) -> list[Bench]:
    """The same of a study. Its orders are compared in one direction, which comes first, at every recall.

    Args:
        study: Whose runs passed `check_comparable`.
        direction: E.g. `t2v`.
        level: Of all intervals.
        compare: Whether orders are compared; otherwise figures of that direction alone are found.

    Raises TrichordError when no run was scored in that direction.
    """
    if direction not in study.directions:
        known = ", ".join(study.directions)
        raise TrichordError(f"{study.path}: no run was scored in direction '{direction}'; choose one of {known}")
    only = None if compare else (direction,)
    benches = [_bench(study.systems, key, level, only) for key in benchmark_keys(study.systems)]
    benches = [bench for bench in benches if bench.targets]
    for target in (target for bench in benches for target in bench.targets if target.name != direction or not compare):
        target.main = ""
    for bench in benches:
        bench.targets.sort(key=lambda target: target.name != direction)
    _compare(benches, level)
    for target in (target for bench in benches for target in bench.targets if target.comparisons):
        for recall in (recall.measure for recall in RECALLS if recall.measure != MAIN_RECALL):
            hits = {system: target.runs(system, recall) for system in target.compared}
            compared = compare_orders(hits, level, benchmark=target.benchmark, explain=False)
            target.further[recall] = replace(compared, winner=None)
    return benches


def targets_of(benches: Sequence[Bench], direction: str) -> list[Target]:
    """Return the targets of one direction."""
    return [target for bench in benches for target in bench.targets if target.name == direction]


def _bench(systems: Sequence[System], key: tuple[str, str], level: float, only: Collection[str] | None = None) -> Bench:
    models = models_on(systems, key)
    first = next(iter(models.values())).scored[0]
    names = target_names(models)
    folds = {name for name in names if any(is_fold_of(name, mean) for mean in names)}
    targets = []
    for name in names if only is None else [name for name in names if name in only]:
        figures = {system: found for system, own in models.items() if (found := own.figures(name, level))}
        main = "" if name.endswith(USUAL) or name in folds else _main(first.kind, name, models)
        targets.append(Target(first.name, _title(key, first), first, name, models, figures, main))
    return Bench(key, first, models, targets)


def is_fold_of(target: str, mean: str) -> bool:
    """Whether a target is one fold of what another is the mean of: `video, class, fold-1` of `video, class, mean of 3 folds`."""
    base = _MEAN.fullmatch(mean)
    return base is not None and target != mean and target.startswith(f"{base[1]}, ")


def _main(kind: str, target: str, models: dict[str, Models]) -> str:
    rows = [row for of in models.values() for scored in of.scored for row in scored.rows
            if row.each and target_of(kind, row.of) == target]  # fmt: skip
    if kind == "localization":
        return next((row.measure for row in rows if row.measure.startswith("recall")), "")
    return MAIN[kind] if kind in MAIN and any(row.measure == MAIN[kind] for row in rows) else ""


def _put_first(benches: list[Bench], direction: str) -> None:
    kinds = ("retrieval", "localization")
    known = dict.fromkeys(t.name.partition(":")[0] for b in benches if b.first.kind in kinds for t in b.targets)
    if direction not in known:
        raise TrichordError(
            f"no benchmark was scored in direction '{direction}'; choose one of {', '.join(known) or 'none'}"
        )
    for bench in benches:
        bench.targets.sort(key=lambda target: target.name.partition(":")[0] != direction)


# ---- comparison


def _compare(benches: Sequence[Bench], level: float) -> None:
    """Fill in the comparisons, all of one family, and the sentences on what was not compared."""
    groups: dict[str, dict[str, Runs]] = {}
    place: dict[str, Target] = {}
    for bench in benches:
        if len(bench.models) < 2:
            continue
        reasons: dict[str, list[str]] = {}
        compared = [target for target in bench.targets if target.main]
        for target in compared:
            found, why = _groups(target)
            for reason in why:
                reasons.setdefault(reason, []).append(target.name)
            for number, group in enumerate(found):
                if len(group) > 1:
                    name = ", ".join([*filter(None, bench.key), target.name]) + (f" ({number + 1})" if number else "")
                    groups[name], place[name] = group, target
        bench.apart = [
            reason if len(names) == len(compared) else f"{', '.join(names)}: {reason}"
            for reason, names in reasons.items()
        ]
    if groups:
        for name, comparison in compare_on_benchmarks(groups, level, bounded=False).items():
            place[name].comparisons.append(comparison)


def _groups(target: Target) -> tuple[list[dict[str, Runs]], list[str]]:
    """What the units that count give, by system, of systems that may be compared with each other; and why others may not."""
    groups: list[dict[str, Runs]] = []
    why, apart = [], []
    target.beside = {system for system in target.figures if _why_beside(target, system)}
    for system, models in target.models.items():
        if told := _why_alone(target, system):
            why.append(f"{system} is not compared: {told}")
            continue
        first = ""
        for group in groups:
            theirs = target.models[next(iter(group))]
            told = difference_of_scoring(theirs.one, models.one, target.name, target.main)
            if not told:
                break
            first = first or told
        else:
            theirs = models
            groups.append(group := {})
            apart.append(first)
        runs = target.runs(system, target.main, theirs)
        assert runs is not None
        group[system] = runs
    for group, told in zip(groups[1:], apart[1:], strict=True):
        one, two = (", ".join(some) for some in (groups[0], group))
        why.append(f"{one} {'is' if len(groups[0]) == 1 else 'are'} not compared with {two}: {told}")
    for group in groups:
        numbered = [name for name in group if are_numbered(*target.models[name].one)]
        if len(group) > 1 and numbered:
            why.append(
                f"{', '.join(numbered)} have no ids, so rows were paired by number; give ids to be sure of the pairs"
            )
    return groups, why


def _why_alone(target: Target, system: str) -> str:
    """Why a system is compared with no other in a target; '' where it may be."""
    models = target.models[system]
    if system not in target.figures or models.rows(target.name, target.main) is None:
        return "it was not scored there" if system not in target.figures else "some of its seeds were not scored there"
    others = zip(models.scores[1:], models.scored[1:], strict=True)
    differences = (difference_of_scoring(models.one, other, target.name, target.main) for other in others)
    if told := next(filter(None, differences), ""):
        return f"its seeds were scored differently: {told}"
    if (table := models.table(target.name, target.main)) is None:
        return "what each unit gives was not kept"
    if np.count_nonzero(~np.isnan(table[0])) < 2:
        return "one unit alone counts"
    return _why_beside(target, system)


def _why_beside(target: Target, system: str) -> str:
    """Return why an order is shown beside the other orders of its study but not compared; '' if it is compared."""
    own = target.models[system].system
    if not own.order:
        return ""
    size, seeds = {}, {}
    for name, figures in target.figures.items():
        other = target.models[name].system
        if other.order and other.folder == own.folder:
            size[name], seeds[name] = len(Order.parse(other.order).modalities), figures[target.shown].num_seeds
    if size[system] < max(size.values()):
        return FEWER
    several = [name for name in size if size[name] == size[system] and seeds[name] > 1]
    return ALONE if seeds[system] == 1 and len(several) > 1 else ""


def rule_of(target: Target, system: str) -> str:
    """How a system was scored in a target, where systems differ in that: `mean_normalized`."""
    fusion, scale = fusion_of(target.first.kind, target.of(system))
    return fusion + (f", dual softmax {scale}" if scale else "")


# ---- studies


def check_comparable(study: Study) -> None:
    """Refuse a study whose runs were scored on different galleries, or under different policies.

    Raises TrichordError, which names two runs and the difference.
    """
    for benchmark in (str(b["name"]) for b in study.benchmarks):
        first: dict[str, Run] = {}
        for run in study.done:
            for direction in (row["direction"] for row in run.results if row["benchmark"] == benchmark):
                other = first.setdefault(direction, run)
                if other is run:
                    continue
                sides = ((scores, scores.scored((benchmark, ""))) for scores in map(study.scores, (other, run)))
                one, two = ((scores, scored) for scores, scored in sides if scored is not None)
                if why := difference_of_scoring(one, two, direction, MAIN_RECALL):
                    raise TrichordError(
                        f"{study.path}: {other} and {run} cannot be compared on {benchmark} {direction}: {why}; "
                        "run the study again with one setting for all orders, on one store"
                    )


def notes_on_orders(study: Study, target: Target) -> dict[str, tuple[str, ...]]:
    """Return the notes on the figures of each order of a study."""
    thawed = bool(study.recipe.get("later_stages", {}).get("thaw"))
    counts = {name: target.figures[name][target.shown].num_seeds for name in target.figures}
    largest = max(count for name, count in counts.items() if name not in target.beside)
    notes = {}
    for name, count in counts.items():
        told, note = [], target.figures[name][target.shown].note
        if untouched(target.models[name].system.order, target.name) and not thawed:
            told.append(f"its later stages leave {target.name} untouched: the figure of its first pair")
        if name not in target.beside and count < largest:
            told.append(f"{count} of {largest} seeds")
        told += [note] if note not in ("", ONE_SEED, TWO_SEEDS) or count == 1 < largest else []
        notes[name] = tuple(told)
    return notes


def untouched(order: str, direction: str) -> bool:
    """Whether an order's later, frozen stages cannot change a direction: its first stage has all of its modalities."""
    parsed = Order.parse(order)
    return len(parsed.stages) > 1 and set(Direction.parse(direction).modalities) <= set(parsed.added(0))


@dataclass(frozen=True)
class BenchmarkPair:
    """Whether the comparison of orders comes out differently on two benchmarks."""

    first: str
    second: str
    pairs: tuple[Interaction, ...]
    verdict: str


def interactions(targets: Sequence[Target], level: float = 0.95) -> tuple[BenchmarkPair, ...]:
    """For every two benchmarks: is the best order another one? At the main recall, over the orders that both have."""
    found = []
    for i, one in enumerate(targets):
        for two in targets[i + 1 :]:
            common = [order for order in one.compared if order in two.compared]
            if len(common) > 1:
                hits = [{order: side.runs(order, MAIN_RECALL) for order in common} for side in (one, two)]
                pairs, verdict = interaction(hits[0], hits[1], level)
                told = verdict.replace("benchmark 1", one.title).replace("benchmark 2", two.title)
                found.append(BenchmarkPair(one.title, two.title, pairs, told))
    return tuple(found)
