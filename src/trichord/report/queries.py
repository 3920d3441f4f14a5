"""Results on single units: the two systems of a benchmark that differ most clearly, and the recall of a system at every K."""

from __future__ import annotations

import numpy as np

from trichord.evaluation.ranks import chance_recall
from trichord.evaluation.replication import Runs
from trichord.report.analysis import Bench, Target
from trichord.report.duels import Duel
from trichord.study.figures import Models
from trichord.study.units import captions_of_units, names_of_units
from trichord.tasks.protocol import MEDIAN_RANK

POINTS = 120  # largest number of points of a curve


def clearest_duel(bench: Bench) -> Duel | None:
    """Return the comparison of the two systems with the smallest p-value, and in case of a tie, the largest difference.

    The result is None if no systems were compared.
    """
    pairs = [
        (pair.p, -abs(pair.estimate), i, pair, target)
        for i, target in enumerate(bench.targets)
        for comparison in target.comparisons
        for pair in comparison.differences
    ]
    if not pairs:
        return None
    *_, pair, target = min(pairs, key=lambda candidate: candidate[:3])
    a, b = (pair.a, pair.b) if pair.estimate >= 0 else (pair.b, pair.a)
    first, second = bench.models[a], bench.models[b]
    row = first.scored[0].row(target.name, target.main)
    assert row is not None
    values = _values(first, target), _values(second, target)
    ranks = bench.first.kind == "retrieval"
    if values[0] is None or values[1] is None or len(values[0]) != len(values[1]):
        return None
    places = second.places(first, target.name, target.main)
    if places is None:
        return None
    value_b = values[1][places]
    counted = ~np.isnan(values[0]) & ~np.isnan(value_b)
    one, two = values[0][counted], value_b[counted]
    names = names_of_units(first.scores[0], row)
    captions = _captions(first, target)
    what = {"retrieval": "rank", "localization": "steps found"}.get(bench.first.kind, "share right")
    what += ", mean over seeds" if max(len(first.seeds), len(second.seeds)) > 1 else ""
    return Duel(a, b, one, two, ranks, what, names[counted], captions[counted], target.name)


def _values(models: Models, target: Target) -> np.ndarray | None:
    """Return the values (n,) of the units as means over seeds. NaN for units that do not count.

    For steps in time, a value is the number of steps that are hit.
    """
    kind = models.scored[0].kind
    table = models.table(target.name, MEDIAN_RANK if kind == "retrieval" else target.main)
    if table is not None and kind == "localization":
        code = target.name.partition(",")[0]
        steps = [
            scores.named(f"{scored.head}/{code}/aligned", "f", table.shape[1])
            for scores, scored in zip(models.scores, models.scored, strict=True)
        ]
        known = [own for own in steps if own is not None]
        table = np.stack(known) if len(known) == len(steps) else table
    return None if table is None else Runs(table, models.first_stages, models.seeds).replicates.mean(axis=0)


def _captions(models: Models, target: Target) -> np.ndarray:
    """Return the texts (n,) of the units. The text of a clip with a label includes its class."""
    scores, scored = models.scores[0], models.scored[0]
    row = scored.row(target.name, target.main)
    assert row is not None
    names = scores.units(row)
    texts = captions_of_units(scores, scored, row)
    captions = np.full(len(names), "", object) if texts is None else texts.astype(object)
    head = f"{scored.head}/{row.of}"
    clip, truth = (scores.named(f"{head}/{part}", "iu") for part in ("clip", "truth"))
    classes = scores.named(f"{head}/classes", "U")
    if clip is not None and truth is not None and classes is not None and len(clip) == len(truth):
        for at, kind in zip(clip.tolist(), truth.tolist(), strict=True):
            if 0 <= at < len(captions) and 0 <= kind < len(classes):
                captions[at] = f"{classes[kind]}: {captions[at]}" if captions[at] else f"{classes[kind]}"
    return captions


def curve_of(models: Models, target: Target) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return the recall at K for K from 1 to the size of the gallery, as means over seeds.

    Args:
        models: Models of a system.
        target: Direction.

    Returns:
        Values of K, recalls in percent, and chance in percent, which is empty if queries have several true items. None if the
        ranks were not saved.
    """
    recalls: list[np.ndarray] = []
    chances: list[np.ndarray] = []
    at: np.ndarray | None = None
    for scores, scored in zip(models.scores, models.scored, strict=True):
        row = scored.row(target.name, target.main)
        ranks = scores.ranks(scored, target.name) if row is not None else None
        if ranks is None or row is None or not len(ranks.clip) or (at is not None and at[-1] != ranks.num_gallery):
            return None
        if at is None:
            at = np.unique(np.round(np.geomspace(1, ranks.num_gallery, POINTS)).astype(np.int64))
        share = len(ranks.greater) / max(row.num, len(ranks.greater))
        recalls.append(np.array([100 * ranks.hits(int(k)).mean() * share for k in at]))
        if ranks.truths is None:
            chances.append(np.array([chance_recall(int(k), ranks.num_gallery) * share for k in at]))
    if at is None:
        return None
    by_chance = np.mean(chances, axis=0) if chances else np.empty(0)
    return at, np.mean(recalls, axis=0), by_chance
