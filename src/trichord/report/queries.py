"""Unit by unit: two systems over the same queries, videos or clips, and the recall of a system at every K."""

from __future__ import annotations

import numpy as np

from trichord.evaluation.ranks import chance_recall
from trichord.evaluation.replication import Runs
from trichord.report.analysis import Bench, Target
from trichord.report.duels import Duel
from trichord.study.figures import Models
from trichord.study.ranks import ranks_from_arrays
from trichord.study.scores import Scored, Scores
from trichord.study.units import captions_of_units, names_of_units
from trichord.tasks.protocol import MEDIAN_RANK
from trichord.tasks.retrieval.measure import QueryRanks

POINTS = 120  # of a curve


def clearest_duel(bench: Bench) -> Duel | None:
    """The two systems of a benchmark that differ most clearly: smallest p, then the largest difference."""
    pairs = [
        (pair.p, -abs(pair.estimate), i, pair, target)
        for i, target in enumerate(bench.targets)
        for found in target.comparisons
        for pair in found.differences
    ]
    if not pairs:
        return None
    *_, pair, target = min(pairs, key=lambda found: found[:3])
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
    """(n,) of each unit, mean over seeds; NaN where it does not count. Steps found rather than what they give to a recall."""
    kind = models.scored[0].kind
    table = models.table(target.name, MEDIAN_RANK if kind == "retrieval" else target.main)
    if table is not None and kind == "localization":
        code = target.name.partition(",")[0]
        kept = [
            s.named(f"{one.head}/{code}/aligned", "f", table.shape[1])
            for s, one in zip(models.scores, models.scored, strict=True)
        ]
        table = np.stack([steps for steps in kept if steps is not None]) if all(k is not None for k in kept) else table
    return None if table is None else Runs(table, models.first_stages, models.seeds).replicates.mean(axis=0)


def _captions(models: Models, target: Target) -> np.ndarray:
    """(n,) texts of the units; of clips with labels the class too."""
    scores, scored = models.scores[0], models.scored[0]
    row = scored.row(target.name, target.main)
    assert row is not None
    names = scores.units(row)
    texts = captions_of_units(scores, scored, row)
    told = np.full(len(names), "", object) if texts is None else texts.astype(object)
    head = f"{scored.head}/{row.of}"
    clip, truth = (scores.named(f"{head}/{part}", "iu") for part in ("clip", "truth"))
    classes = scores.named(f"{head}/classes", "U")
    if clip is not None and truth is not None and classes is not None and len(clip) == len(truth):
        for at, kind in zip(clip.tolist(), truth.tolist(), strict=True):
            if 0 <= at < len(told) and 0 <= kind < len(classes):
                told[at] = f"{classes[kind]}: {told[at]}" if told[at] else f"{classes[kind]}"
    return told


def ranks_of(scores: Scores, scored: Scored, code: str) -> QueryRanks | None:
    """Return the ranks of a direction; None if none were saved."""
    head = f"{scored.head}/{code}"
    if f"{head}/greater" not in scores.arrays:
        return None
    ranks = ranks_from_arrays(scores.arrays, head, scores.file, scores.mend)
    return ranks if len(ranks.clip) else None


def curve_of(models: Models, target: Target) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(K, recall in percent, that of chance) from 1 to the gallery's size, mean over seeds; None where ranks were not kept.
    Chance is empty where queries have several truths."""
    recalls: list[np.ndarray] = []
    chances: list[np.ndarray] = []
    at: np.ndarray | None = None
    for scores, scored in zip(models.scores, models.scored, strict=True):
        row = scored.row(target.name, target.main)
        found = ranks_of(scores, scored, target.name) if row is not None else None
        if found is None or row is None or (at is not None and at[-1] != found.num_gallery):
            return None
        if at is None:
            at = np.unique(np.round(np.geomspace(1, found.num_gallery, POINTS)).astype(np.int64))
        share = len(found.greater) / max(row.num, len(found.greater))
        recalls.append(np.array([100 * found.hits(int(k)).mean() * share for k in at]))
        if found.truths is None:
            chances.append(np.array([chance_recall(int(k), found.num_gallery) * share for k in at]))
    if at is None:
        return None
    by_chance = np.mean(chances, axis=0) if chances else np.empty(0)
    return at, np.mean(recalls, axis=0), by_chance
