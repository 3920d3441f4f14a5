"""What evaluations say, in numbers: figures with intervals over units and seeds, and comparisons of systems.

A benchmark has targets: what its figures are of, a direction or a modality. Systems are compared in a target's main measure
(retrieval: R@10; steps in time: the first recall; classes: top-1; clusters: none) over the same units, and only where these
and all that changes the figure are the same: `difference_of_scoring` names what is not. Of several folds their mean is compared;
of a study's orders those that combine most modalities, as in its own report. Holm's family is all pairs of systems
in all targets of all benchmarks; only there can a system be a winner.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.comparison import Comparison, compare_on_benchmarks
from trichord.evaluation.replication import Runs, replication_note
from trichord.modality import Order
from trichord.study.figures import Measure, Models, System, benchmark_keys, models_on, target_names
from trichord.study.scores import Scored, fusion_of, target_of
from trichord.study.units import are_numbered, difference_of_scoring

_MEAN = re.compile(r"(.+), mean of \d+ folds", re.DOTALL)
USUAL = ": the most frequent class"  # what a target is called that is no figure of the model
MAIN = {"retrieval": "R@10", "classification": "top-1", "probe": "top-1"}


@dataclass(eq=False)
class Target:
    """One thing that figures of a benchmark are of.

    Attributes:
        name: Without how it was scored (`evaluation_reading.target_of`).
        figures: By system and measure.
        main: The measure that systems are compared in; '' for none.
        comparisons: Of systems that may be compared; several where they fall into groups.
    """

    name: str
    figures: dict[str, dict[str, Measure]]
    main: str
    comparisons: list[Comparison] = field(default_factory=list)

    def of(self, system: str) -> str:
        """What the rows of a system say that they are of."""
        return next(iter(self.figures[system].values())).of

    @property
    def shown(self) -> str:
        """The measure of the picture: the main one, else the first."""
        return self.main or next(iter(next(iter(self.figures.values()))))

    @property
    def winner(self) -> str | None:
        """Where all systems of the target were compared with each other, the one that beats every other."""
        if len(self.comparisons) == 1 and len(self.comparisons[0].recalls) == len(self.figures):
            return self.comparisons[0].winner
        return None


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
        return f"{self.first.title}, {self.key[1]}" if self.key[1] else self.first.title

    @property
    def measures(self) -> list[str]:
        """All measures, in the order met."""
        return list(dict.fromkeys(m for target in self.targets for of in target.figures.values() for m in of))


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
    if len(systems) > 1:
        _compare(benches, level)
    return benches


def _bench(systems: Sequence[System], key: tuple[str, str], level: float) -> Bench:
    models = models_on(systems, key)
    first = next(iter(models.values())).scored[0]
    names = target_names(models)
    folds = {name for name in names if any(is_fold_of(name, mean) for mean in names)}
    return Bench(key, first, models, [_target(first.kind, name, models, level, name not in folds) for name in names])


def is_fold_of(target: str, mean: str) -> bool:
    """Whether a target is one fold of what another is the mean of: `video, class, fold-1` of `video, class, mean of 3 folds`."""
    base = _MEAN.fullmatch(mean)
    return base is not None and target != mean and target.startswith(f"{base[1]}, ")


def _target(kind: str, name: str, models: dict[str, Models], level: float, compared: bool) -> Target:
    figures = {system: found for system, own in models.items() if (found := own.figures(name, level))}
    main = "" if name.endswith(USUAL) or not compared else _main(kind, name, models)
    return Target(name, figures, main)


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


@dataclass(frozen=True, eq=False)
class _Group:
    """Systems that may be compared with each other: the values of the units that count."""

    values: dict[str, Runs] = field(default_factory=dict)


def _compare(benches: Sequence[Bench], level: float) -> None:
    """Fill in the comparisons, all of one family, and the sentences on what was not compared."""
    groups: dict[str, _Group] = {}
    place: dict[str, Target] = {}
    for bench in benches:
        reasons: dict[str, list[str]] = {}
        for target in bench.targets:
            if not target.main:
                continue
            found, why = _groups(bench, target)
            for reason in why:
                reasons.setdefault(reason, []).append(target.name)
            for number, group in enumerate(found):
                if len(group.values) > 1:
                    name = f"{bench.title}, {target.name}" + (f" ({number + 1})" if number else "")
                    groups[name], place[name] = group, target
        every = sum(bool(target.main) for target in bench.targets)
        bench.apart = [
            reason if len(names) == every else f"{', '.join(names)}: {reason}" for reason, names in reasons.items()
        ]
    if groups:
        values = {name: group.values for name, group in groups.items()}
        for name, comparison in compare_on_benchmarks(values, level, bounded=False).items():
            place[name].comparisons.append(comparison)


def _groups(bench: Bench, target: Target) -> tuple[list[_Group], list[str]]:
    """Systems that may be compared with each other; and why others may not."""
    groups: list[_Group] = []
    why, apart = [], []
    for system, models in bench.models.items():
        if told := _why_alone(bench, target, system):
            why.append(f"{system} is not compared: {told}")
            continue
        runs = models.runs(target.name, target.main)
        assert runs is not None
        own, first = (models.scores[0], models.scored[0]), ""
        places: np.ndarray | None = None
        for group in groups:
            theirs = bench.models[next(iter(group.values))]
            told = difference_of_scoring((theirs.scores[0], theirs.scored[0]), own, target.name, target.main)
            if not told:
                places = models.places(theirs, target.name, target.main)
                break
            first = first or told
        else:
            groups.append(group := _Group())
            apart.append(first)
        table = runs.values if places is None else runs.values[:, places]
        group.values[system] = runs.with_values(table[:, ~np.isnan(table[0])])
    for group, told in zip(groups[1:], apart[1:], strict=True):
        one, two = (", ".join(some.values) for some in (groups[0], group))
        why.append(f"{one} {'is' if len(groups[0].values) == 1 else 'are'} not compared with {two}: {told}")
    for group in groups:
        numbered = [name for name in group.values if are_numbered(*bench.models[name].one)]
        if len(group.values) > 1 and numbered:
            why.append(
                f"{', '.join(numbered)} have no ids, so rows were paired by number; give ids to be sure of the pairs"
            )
    return groups, why


def _why_alone(bench: Bench, target: Target, system: str) -> str:
    """Why a system is compared with no other in a target; '' where it may be."""
    models = bench.models[system]
    if system not in target.figures or models.rows(target.name, target.main) is None:
        return "it was not scored there" if system not in target.figures else "some of its seeds were not scored there"
    if told := _among_seeds(models, target):
        return f"its seeds were scored differently: {told}"
    if (table := models.table(target.name, target.main)) is None:
        return "what each unit gives was not kept"
    if np.count_nonzero(~np.isnan(table[0])) < 2:
        return "one unit alone counts"
    if models.system.order:
        own = len(Order.parse(models.system.order).modalities)
        others = [bench.models[name].system for name in target.figures]
        if any(
            o.order and o.folder == models.system.folder and len(Order.parse(o.order).modalities) > own for o in others
        ):
            return "it combines fewer modalities than other orders of its study"
    return ""


def _among_seeds(models: Models, target: Target) -> str:
    """In what the seeds of one system were scored differently; '' where they were not."""
    first = models.scores[0], models.scored[0]
    others = zip(models.scores[1:], models.scored[1:], strict=True)
    told = (difference_of_scoring(first, other, target.name, target.main) for other in others)
    return next(filter(None, told), "")


def in_words(verdict: str) -> str:
    """A verdict on orders as one on systems."""
    return verdict.replace("every other order", "every other system")


def note_of_seeds(systems: Sequence[System]) -> str:
    """What one or two seeds mean for every figure, where that holds of all systems."""
    told = {replication_note(system.num_seeds, len(system.seeds)) for system in systems}
    return told.pop() if len(told) == 1 else ""


def rule_of(bench: Bench, system: str, target: Target) -> str:
    """How a system was scored in a target, where systems differ in that: `mean_normalized`."""
    fusion, scale = fusion_of(bench.first.kind, target.of(system))
    return fusion + (f", dual softmax {scale}" if scale else "")
