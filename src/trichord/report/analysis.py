"""Analysis of studies and evaluations: figures with intervals over units and seeds, and comparisons of systems.

The figures of a benchmark belong to targets, which are directions or modalities. Systems are orders, or models that were scored
alone. They are compared in the main measure of a target (R@10 for retrieval, the first recall for steps in time, top-1 for classes,
none for clusters) over the same units, and only if the units and all choices that affect the figure are the same;
`difference_of_scoring` describes the difference. If there are several folds, their mean is compared.

In a study, only the orders with the largest number of modalities are compared. A pair alone (`vt`) is shown without a comparison,
since it is the first stage of an order (`vt>a`). If the later stage of this order freezes it, both have the same figure. Orders
with a single first stage are left out if other orders have more (`evaluation.replication`).

Holm's correction covers all pairs of systems in all targets of all benchmarks, or those in the main direction of a study. Only
these comparisons can have a winner. The other recalls of a study are also compared, with a correction for each benchmark and no
winner.
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
USUAL = ": the most frequent class"  # suffix of the targets that are not figures of the model
MAIN_RECALL = "R@10"
MAIN = {"retrieval": MAIN_RECALL, "classification": "top-1", "probe": "top-1"}
FEWER, ALONE = (
    "it combines fewer modalities than other orders of its study",
    "it has one seed, and other orders have more",
)


@dataclass(eq=False)
class Target:
    """A direction or modality of a benchmark, with its figures.

    Attributes:
        benchmark: Name of the benchmark.
        title: Title of the benchmark.
        first: Result of the first model that was scored on the benchmark.
        name: Name of the target without the way of scoring (`study.scores.target_of`).
        models: Models of each system.
        figures: Figures of each system by measure.
        main: Measure in which systems are compared, or ''.
        comparisons: Comparisons of the systems. There are several if not all systems can be compared with each other.
        further: Comparisons of the orders of a study in other measures.
        beside: Orders that are shown but not compared.
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
        """Measure that is drawn: the main one, or otherwise the first."""
        return self.main or next(iter(next(iter(self.figures.values()))))

    @property
    def compared(self) -> tuple[str, ...]:
        """Systems of the first comparison."""
        return tuple(self.comparisons[0].recalls) if self.comparisons else ()

    @property
    def winner(self) -> str | None:
        """System that is better than every other one, if all systems except the orders in `beside` were compared."""
        if len(self.comparisons) == 1 and not set(self.figures) - {*self.compared, *self.beside}:
            return self.comparisons[0].winner
        return None

    @property
    def result(self) -> dict[str, Any]:
        """Retrieval row of the first model that was scored in this direction, with its gallery and policies."""
        models = self.models[next(iter(self.figures))]
        return next(row for scored in models.scored if (row := scored.result(self.name)) is not None)

    def of(self, system: str) -> str:
        """Return the scope of the rows of a system in this target."""
        return next(iter(self.figures[system].values())).of

    def runs(self, system: str, measure: str, base: Models | None = None) -> Runs | None:
        """Return the results of the counted units in each run of a system.

        Args:
            system: Name of the system.
            measure: Name of the measure.
            base: Models that define the sequence of the units. None uses those of the first system.

        Returns:
            The results. None if they are unknown or the units differ.
        """
        own, first = self.models[system], base or self.models[next(iter(self.figures))]
        runs, places = own.runs(self.name, measure), own.places(first, self.name, measure)
        if runs is None or places is None:
            return None
        values = runs.values[:, places]
        return runs.with_values(values[:, ~np.isnan(values[0])])


@dataclass(eq=False)
class Bench:
    """A benchmark with the figures of all systems. `apart` contains sentences on systems that were not compared."""

    key: tuple[str, str]
    first: Scored
    models: dict[str, Models]
    targets: list[Target]
    apart: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the benchmark."""
        return self.first.name

    @property
    def title(self) -> str:
        """Printed title, with the clips if the user named them."""
        return self.first.heading

    @property
    def measures(self) -> list[str]:
        """Names of all measures, in order of appearance."""
        return list(dict.fromkeys(m for target in self.targets for figures in target.figures.values() for m in figures))


def analyse(systems: Sequence[System], *, direction: Direction | None = None, level: float = 0.95) -> list[Bench]:
    """Return the figures and comparisons of all benchmarks, in order of appearance.

    Args:
        systems: Systems.
        direction: Direction whose targets come first. None keeps the sequence of the files.
        level: Level of all intervals and of the correction.

    Raises:
        TrichordError: No benchmark was scored in this direction, or arrays do not match their figures.
    """
    benches = [_bench(systems, key, level) for key in benchmark_keys(systems)]
    if direction is not None:
        _put_first(benches, direction.code)
    _compare(benches, level)
    return benches


def analyse_study(study: Study, direction: Direction, *, level: float = 0.95, compare: bool = True) -> list[Bench]:
    """Return the figures and comparisons of a study. Orders are compared in one direction, at every recall.

    Args:
        study: Study whose runs passed `check_comparable`.
        direction: Direction of the comparisons, which comes first.
        level: Level of all intervals.
        compare: Whether to compare orders. If not, only the figures of this direction are returned.

    Raises:
        TrichordError: No run was scored in this direction.
    """
    if direction not in study.directions:
        known = ", ".join(d.code for d in study.directions)
        raise TrichordError(f"{study.path}: no run was scored in direction '{direction.code}'; choose one of {known}")
    only = None if compare else (direction.code,)
    benches = [_bench(study.systems, key, level, only) for key in benchmark_keys(study.systems)]
    benches = [bench for bench in benches if bench.targets]
    for target in (
        target for bench in benches for target in bench.targets if target.name != direction.code or not compare
    ):
        target.main = ""
    for bench in benches:
        bench.targets.sort(key=lambda target: target.name != direction.code)
    _compare(benches, level)
    for target in (target for bench in benches for target in bench.targets if target.comparisons):
        for recall in (recall.measure for recall in RECALLS if recall.measure != MAIN_RECALL):
            hits = {system: target.runs(system, recall) for system in target.compared}
            compared = compare_orders(hits, level, benchmark=target.benchmark, explain=False)
            target.further[recall] = replace(compared, winner=None)
    return benches


def targets_of(benches: Sequence[Bench], direction: Direction) -> list[Target]:
    """Return the targets of a direction."""
    return [target for bench in benches for target in bench.targets if target.name == direction.code]


def _bench(systems: Sequence[System], key: tuple[str, str], level: float, only: Collection[str] | None = None) -> Bench:
    models = models_on(systems, key)
    first = next(iter(models.values())).scored[0]
    names = target_names(models)
    folds = {name for name in names if any(is_fold_of(name, mean) for mean in names)}
    targets = []
    for name in names if only is None else [name for name in names if name in only]:
        figures = {
            system: own for system, models_of_system in models.items() if (own := models_of_system.figures(name, level))
        }
        main = "" if name.endswith(USUAL) or name in folds else _main(first.kind, name, models)
        targets.append(Target(first.name, first.heading, first, name, models, figures, main))
    return Bench(key, first, models, targets)


def is_fold_of(target: str, mean: str) -> bool:
    """Return whether a target is a fold of a mean: `video, class, fold-1` of `video, class, mean of 3 folds`."""
    base = _MEAN.fullmatch(mean)
    return base is not None and target != mean and target.startswith(f"{base[1]}, ")


def _main(kind: str, target: str, models: dict[str, Models]) -> str:
    rows = [row for models_of_system in models.values() for scored in models_of_system.scored for row in scored.rows
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
    """Add the comparisons, with one correction for all of them, and the sentences on systems that were not compared."""
    groups: dict[str, dict[str, Runs]] = {}
    place: dict[str, Target] = {}
    for bench in benches:
        if len(bench.models) < 2:
            continue
        reasons: dict[str, list[str]] = {}
        compared = [target for target in bench.targets if target.main]
        for target in compared:
            target_groups, why = _groups(target)
            for reason in why:
                reasons.setdefault(reason, []).append(target.name)
            for number, group in enumerate(target_groups):
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
    """Return groups of systems that can be compared, with the results of their units, and the reasons why others cannot."""
    groups: list[dict[str, Runs]] = []
    why, apart = [], []
    target.beside = {system for system in target.figures if _why_beside(target, system)}
    for system, models in target.models.items():
        if reason := _why_alone(target, system):
            why.append(f"{system} is not compared: {reason}")
            continue
        first = ""
        for group in groups:
            theirs = target.models[next(iter(group))]
            difference = difference_of_scoring(theirs.one, models.one, target.name, target.main)
            if not difference:
                break
            first = first or difference
        else:
            theirs = models
            groups.append(group := {})
            apart.append(first)
        runs = target.runs(system, target.main, theirs)
        assert runs is not None
        group[system] = runs
    for group, difference in zip(groups[1:], apart[1:], strict=True):
        one, two = (", ".join(some) for some in (groups[0], group))
        why.append(f"{one} {'is' if len(groups[0]) == 1 else 'are'} not compared with {two}: {difference}")
    for group in groups:
        numbered = [name for name in group if are_numbered(*target.models[name].one)]
        if len(group) > 1 and numbered:
            why.append(
                f"{', '.join(numbered)} have no ids, so rows were matched by number; give ids to ensure that they match"
            )
    return groups, why


def _why_alone(target: Target, system: str) -> str:
    """Return why a system is not compared with any other in a target, or '' if it can be compared."""
    models = target.models[system]
    if system not in target.figures or models.rows(target.name, target.main) is None:
        return "it was not scored there" if system not in target.figures else "some of its seeds were not scored there"
    others = zip(models.scores[1:], models.scored[1:], strict=True)
    differences = (difference_of_scoring(models.one, other, target.name, target.main) for other in others)
    if difference := next(filter(None, differences), ""):
        return f"its seeds were scored differently: {difference}"
    if (table := models.table(target.name, target.main)) is None:
        return "the results of its units were not saved"
    if np.count_nonzero(~np.isnan(table[0])) < 2:
        return "only one unit counts"
    return _why_beside(target, system)


def _why_beside(target: Target, system: str) -> str:
    """Return why an order is shown but not compared with the other orders of its study, or '' if it is compared."""
    own = target.models[system].system
    if own.order is None:
        return ""
    size, seeds = {}, {}
    for name, figures in target.figures.items():
        other = target.models[name].system
        if other.order is not None and other.folder == own.folder:
            size[name], seeds[name] = len(other.order.modalities), figures[target.shown].num_seeds
    if size[system] < max(size.values()):
        return FEWER
    several = [name for name in size if size[name] == size[system] and seeds[name] > 1]
    return ALONE if seeds[system] == 1 and len(several) > 1 else ""


def rule_of(target: Target, system: str) -> str:
    """Return the fusion rule of a system in a target, such as `mean_normalized`, with the scale of the dual softmax."""
    fusion, scale = fusion_of(target.first.kind, target.of(system))
    return fusion + (f", dual softmax {scale}" if scale else "")


# ---- studies


def check_comparable(study: Study) -> None:
    """Check that all runs of a study were scored on the same galleries and with the same policies.

    Raises:
        TrichordError: They were not. The message names two runs.
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
                        "run the study again with the same settings and the same store for all orders"
                    )


def notes_on_orders(study: Study, target: Target, direction: Direction) -> dict[str, tuple[str, ...]]:
    """Return the notes on the figures of each order of a study in one direction."""
    thawed = bool(study.recipe.get("later_stages", {}).get("thaw"))
    counts = {name: target.figures[name][target.shown].num_seeds for name in target.figures}
    largest = max(count for name, count in counts.items() if name not in target.beside)
    notes = {}
    for name, count in counts.items():
        own, note = [], target.figures[name][target.shown].note
        order = target.models[name].system.order
        if order is not None and untouched(order, direction) and not thawed:
            own.append(f"its later stages do not change {target.name}, so the figure is that of its first pair")
        if name not in target.beside and count < largest:
            own.append(f"{count} of {largest} seeds")
        own += [note] if note not in ("", ONE_SEED, TWO_SEEDS) or count == 1 < largest else []
        notes[name] = tuple(own)
    return notes


def untouched(order: Order, direction: Direction) -> bool:
    """Return whether the later stages of an order cannot affect a direction, since its first stage has all its modalities."""
    return len(order.stages) > 1 and set(direction.modalities) <= set(order.added(0))


@dataclass(frozen=True)
class BenchmarkPair:
    """The interaction of orders and benchmarks: whether the differences between orders vary between two benchmarks."""

    first: str
    second: str
    pairs: tuple[Interaction, ...]
    verdict: str


def interactions(targets: Sequence[Target], level: float = 0.95) -> tuple[BenchmarkPair, ...]:
    """Return, for every two benchmarks, whether the best order differs, at the main recall, over the orders of both."""
    interactions_of_pairs = []
    for i, one in enumerate(targets):
        for two in targets[i + 1 :]:
            common = [order for order in one.compared if order in two.compared]
            if len(common) > 1:
                hits = [{order: side.runs(order, MAIN_RECALL) for order in common} for side in (one, two)]
                pairs, verdict = interaction(hits[0], hits[1], level)
                verdict = verdict.replace("benchmark 1", one.title).replace("benchmark 2", two.title)
                interactions_of_pairs.append(BenchmarkPair(one.title, two.title, pairs, verdict))
    return tuple(interactions_of_pairs)
