"""Retrieval in every direction over video, audio, text and further modalities, from embeddings.

Notation: N clips, M texts. A side of a direction with text has M rows: each text, combined with the other modalities of its clip.
A side without text has N rows. With several texts per clip, `t2v` has M queries with one truth each, `ta2v` has M queries, `v2t`
has N queries with several truths, of which the best one determines the rank, `v2ta` has N queries and M items, and `a2v` has N
queries and N items.

Several modalities of a side are combined by a rule. `sum` adds the embeddings without normalization (as in MCN, from text to
video + audio). `mean_normalized` averages the normalized embeddings (as in Everything at Once). A side with a single modality is
its embedding, which is normalized under `mean_normalized`. Scores are dot products.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from trichord.errors import TrichordError
from trichord.evaluation.counts import BestCounts, RankCounts
from trichord.evaluation.ranks import (
    best_truth_ranks,
    chance_recall,
    expected_hits,
    expected_ranks,
    metrics_from_counts,
    retrieval_ranks,
)
from trichord.modality import MODALITIES, Direction, in_order, letter_of
from trichord.tasks.retrieval.dual_softmax import dual_softmax_ranks

Fusion = Literal["sum", "mean_normalized"]
FUSIONS: tuple[Fusion, ...] = ("sum", "mean_normalized")


@dataclass(frozen=True, eq=False)
class QueryRanks:
    """The counts of each query, from which all figures of a direction are computed (`evaluation.ranks`).

    Attributes:
        clip: Index (Q,) of the clip of each query, or of the clip of its text.
        greater: Number (Q,) of gallery items that score higher than the best truth.
        equal: Number (Q,) of gallery items with the same score as the best truth, including itself.
        num_gallery: Number of items that were ranked.
        truths: Number (Q,) of truths among `equal`. None if each query has a single truth.
        text: Index (Q,) of the text of each query, if clips have several texts.
    """

    clip: np.ndarray
    greater: np.ndarray
    equal: np.ndarray
    num_gallery: int
    truths: np.ndarray | None = None
    text: np.ndarray | None = None

    def hits(self, k: int) -> np.ndarray:
        """Return the hits (Q,) at k, in [0, 1]. Ties have their expected value."""
        return expected_hits(min(k, self.num_gallery), self.greater, self.equal, self.truths)

    def rank(self) -> np.ndarray:
        """Return the ranks (Q,), from 1. Ties have their expected value."""
        return expected_ranks(self.greater, self.equal, self.num_gallery, self.truths)

    def to_arrays(self, head: str) -> dict[str, np.ndarray]:
        """Return the counts by their names in a file: `HEAD/clip` and so on, with `truths` and `text` if they are known."""
        counts = {"clip": self.clip, "greater": self.greater, "equal": self.equal}
        arrays = {f"{head}/{part}": array.astype(np.int32) for part, array in counts.items()}
        arrays[f"{head}/num_gallery"] = np.array(self.num_gallery)
        several = {"truths": self.truths, "text": self.text}
        return arrays | {f"{head}/{part}": a.astype(np.int32) for part, a in several.items() if a is not None}


@dataclass(frozen=True)
class RetrievalResult:
    """The figures of a direction on a benchmark.

    Recalls and chance are in percent. `windows` is `Windows.text` if clips were cut into windows, or ''.
    """

    benchmark: str
    direction: str
    r1: float
    r5: float
    r10: float
    medr: float
    meanr: float
    num_queries: int
    num_gallery: int
    num_missing: int
    missing: str
    chance_r1: float
    chance_r5: float
    chance_r10: float
    ties: str = "expected"
    ranks: QueryRanks | None = field(default=None, repr=False, compare=False)
    fusion: str = "sum"
    dual_softmax: float = 0.0
    windows: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, without the ranks of the queries."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "ranks"}

    @property
    def of(self) -> str:
        """Scope of the rows: the direction and the way of scoring.

        Examples are `t2va, sum` and `t2va, sum, dual softmax 100, 10 windows of 3 s, mean`.
        """
        marked = f", dual softmax {self.dual_softmax:g}" if self.dual_softmax else ""
        return f"{self.direction}, {self.fusion}{marked}{f', {self.windows}' if self.windows else ''}"


def all_directions(modalities: tuple[str, ...] = MODALITIES) -> tuple[Direction, ...]:
    """Return all directions over modalities.

    Over video, audio and text, these are all 12 directions with disjoint sides. With further modalities, these are the directions
    between single modalities, since there are too many combinations (50 for four modalities).
    """
    letters = [letter_of(m).lower() for m in in_order(modalities)]
    sides = [side for side in ("t", "v", "a", "va", "ta", "vt") if set(side) <= set(letters)]
    if further := [letter for letter in letters if letter not in ("v", "a", "t")]:
        sides = [side for side in sides if len(side) == 1] + further
    return tuple(Direction.parse(f"{q}2{t}") for q in sides for t in sides if not set(q) & set(t))


def unit(rows: np.ndarray) -> np.ndarray:
    """Return the normalized rows. Rows of zeros are not changed."""
    return F.normalize(torch.from_numpy(rows), dim=1).numpy()


def fuse(parts: list[np.ndarray], fusion: str) -> np.ndarray:
    """Combine the modalities of a side.

    Args:
        parts: Embeddings (R, D) of each modality.
        fusion: `sum` or `mean_normalized`.

    Returns:
        Rows (R, D) of the side.

    Raises:
        TrichordError: The rule is unknown.
    """
    if fusion not in FUSIONS:
        raise TrichordError(f"unknown fusion rule '{fusion}'; expected {' or '.join(FUSIONS)}")
    if fusion == "mean_normalized":
        parts = [unit(part) for part in parts]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total / len(parts) if fusion == "mean_normalized" and len(parts) > 1 else total


def score_directions(
    name: str,
    embeddings: Mapping[str, np.ndarray],
    valid: Mapping[str, np.ndarray],
    text_clip: np.ndarray | None,
    directions: Iterable[Direction],
    fusion: str,
    missing: str,
    *,
    block: int = 1024,
    dual_softmax: float = 0.0,
) -> list[RetrievalResult]:
    """Score clips in several directions. The arguments are those of `score_direction`."""
    return [
        score_direction(
            embeddings,
            valid,
            direction,
            name=name,
            text_clip=text_clip,
            fusion=fusion,
            missing=missing,
            block=block,
            dual_softmax=dual_softmax,
        )
        for direction in directions
    ]


def score_direction(
    embeddings: Mapping[str, np.ndarray],
    valid: Mapping[str, np.ndarray],
    direction: Direction,
    *,
    name: str,
    text_clip: np.ndarray | None = None,
    fusion: str = "sum",
    missing: str = "drop",
    block: int = 1024,
    dual_softmax: float = 0.0,
) -> RetrievalResult:
    """Rank the gallery for every query of a direction.

    A clip takes part if it has all modalities of the direction, and at least one text if the direction contains text. Empty texts,
    and texts of other clips, are neither queries nor gallery items.

    Args:
        embeddings: Embeddings by modality: (M, D) for text and (N, D) for others.
        valid: Masks of the rows that have the modality.
        direction: Direction.
        name: Name of the benchmark, for the row and messages.
        text_clip: Index (M,) of the clip of each text. None if each clip has one text, in the same order.
        fusion: Rule by which several modalities are combined: `sum` or `mean_normalized`.
        missing: Policy for queries that lack a modality: `drop` leaves them out, `miss` counts them as errors.
        block: Number of rows of a block of scores.
        dual_softmax: Scale of the dual softmax (`tasks.retrieval.dual_softmax`). 0 disables it.

    Returns:
        The figures and the ranks.

    Raises:
        TrichordError: No clip has all modalities of the direction.
    """
    alone = [m for m in direction.modalities if m != "text"]
    complete = np.logical_and.reduce([valid[m] for m in alone])
    several = "text" in direction.modalities and text_clip is not None
    texts = np.empty(0, np.int64)
    if "text" in direction.modalities:
        index = np.arange(len(valid["text"])) if text_clip is None else text_clip
        texts = np.flatnonzero(valid["text"] & complete[index])
        complete = complete & (np.bincount(index[texts], minlength=len(complete)) > 0)
    clips = np.flatnonzero(complete)
    if not len(clips):
        lacking = " and ".join(direction.modalities)
        raise TrichordError(f"benchmark {name}: no clip has {lacking}; direction {direction.code} cannot be scored")
    place = np.full(len(complete), -1)
    place[clips] = np.arange(len(clips))
    of_text = index[texts] if len(texts) else texts

    def side(modalities: tuple[str, ...]) -> np.ndarray:
        rows = of_text if "text" in modalities else clips
        return fuse([embeddings[m][texts if m == "text" else rows] for m in modalities], fusion)

    queries, gallery = side(direction.query), side(direction.target)
    truths: Any = 1
    counts: RankCounts | BestCounts
    if several and "text" in direction.target:
        owner = place[of_text]
        truths = np.bincount(owner, minlength=len(clips))
        counts = (
            dual_softmax_ranks(queries, gallery, owner=owner, scale=dual_softmax, block=block)
            if dual_softmax
            else best_truth_ranks(queries, gallery, owner, block)
        )
        num_missing = len(complete) - len(clips)
    else:
        truth = place[of_text] if several and "text" in direction.query else None
        counts = (
            dual_softmax_ranks(queries, gallery, truth=truth, scale=dual_softmax, block=block)
            if dual_softmax
            else retrieval_ranks(queries, gallery, truth, block)
        )
        num_missing = (len(complete) if truth is None else len(valid["text"])) - len(queries)
    counted = num_missing if missing == "miss" else 0
    metrics = metrics_from_counts(counts, num_missing=counted)
    share = len(queries) / (len(queries) + counted)
    chance = [chance_recall(k, len(gallery), truths) * share for k in (1, 5, 10)]
    own = of_text if several and "text" in direction.query else clips
    ranks = QueryRanks(
        own,
        counts.greater,
        counts.equal,
        counts.num_gallery,
        counts.truths if isinstance(counts, BestCounts) else None,
        texts if several and "text" in direction.query else None,
    )
    return RetrievalResult(
        name, direction.code, metrics.r1, metrics.r5, metrics.r10, metrics.medr, metrics.meanr, metrics.num_queries,
        metrics.num_gallery, num_missing, missing, chance[0], chance[1], chance[2], ranks=ranks, fusion=fusion,
        dual_softmax=dual_softmax,
    )  # fmt: skip
