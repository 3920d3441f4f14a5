"""Retrieval in every direction over video, audio, text and further modalities, from embeddings.

N clips, M texts. A side of a direction with text has M rows (each text, joined with the other modalities of its clip), one
without has N. So with several texts a clip, `t2v` has M queries with one truth each; `v2t` has N queries with several
truths, and the rank is that of the best of them; `ta2v` M queries; `v2ta` N queries over M items; `a2v` N and N.

Several modalities of a side are joined by a named rule: `sum`, of the embeddings as they are (MCN's text to video + audio);
`mean_normalized`, the mean of the embeddings of length one (Everything at Once). A side of one modality is that embedding
itself, as it is under `sum`, of length one under `mean_normalized`. Scores are dot products.
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
    MEDIAN_RANK,
    RECALLS,
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
    """The counts of each query, from which every figure of a direction follows: see `evaluation.ranks`.

    Attributes:
        clip: (Q,) number of the benchmark's clip that each query is, or whose text it is.
        greater: (Q,) gallery items that score higher than the truth, the best one where there are several.
        equal: (Q,) those that score the same, the truth included.
        num_gallery: Items that were ranked.
        truths: (Q,) how many of `equal` are truths; None where each query has one.
        text: (Q,) number of the text that each query is or holds, where clips have several.
    """

    clip: np.ndarray
    greater: np.ndarray
    equal: np.ndarray
    num_gallery: int
    truths: np.ndarray | None = None
    text: np.ndarray | None = None

    def hits(self, k: int) -> np.ndarray:
        """Return the hits (Q,) at K in [0, 1], expected over ties, as `evaluation.statistics` takes them."""
        return expected_hits(min(k, self.num_gallery), self.greater, self.equal, self.truths)

    def rank(self) -> np.ndarray:
        """Return the ranks (Q,) from 1, expected over ties, of which median and mean rank are made."""
        return expected_ranks(self.greater, self.equal, self.num_gallery, self.truths)

    def each(self, num_errors: int = 0) -> dict[str, np.ndarray]:
        """Return by measure what each query (Q + E,) contributes to a recall, and its rank. The last E queries could not be
        ranked: they are errors, with the rank of the last item of a gallery that holds them."""
        last = np.full(num_errors, float(self.num_gallery + num_errors))
        hits = {recall.measure: np.concatenate([self.hits(recall.k), np.zeros(num_errors)]) for recall in RECALLS}
        return hits | {MEDIAN_RANK: np.concatenate([self.rank(), last])}

    def to_arrays(self, head: str) -> dict[str, np.ndarray]:
        """Return the counts under the names that a file has them by, `HEAD/clip`, ...; `truths` and `text` where they are known."""
        counts = {"clip": self.clip, "greater": self.greater, "equal": self.equal}
        arrays = {f"{head}/{part}": array.astype(np.int32) for part, array in counts.items()}
        arrays[f"{head}/num_gallery"] = np.array(self.num_gallery)
        several = {"truths": self.truths, "text": self.text}
        return arrays | {f"{head}/{part}": a.astype(np.int32) for part, a in several.items() if a is not None}


@dataclass(frozen=True)
class RetrievalResult:
    """The figures of one direction on one benchmark. Recalls and chance are in percent. `windows` is `Windows.told` where clips
    were divided into windows."""

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
        """Return the direction and how it was scored, as names of rows have it: `t2va, sum`, `t2va, sum, dual softmax 100, 10
        windows of 3 s, mean`."""
        marked = f", dual softmax {self.dual_softmax:g}" if self.dual_softmax else ""
        return f"{self.direction}, {self.fusion}{marked}{f', {self.windows}' if self.windows else ''}"


def all_directions(modalities: tuple[str, ...] = MODALITIES) -> tuple[str, ...]:
    """Return the codes of all directions over these modalities.

    Of video, audio and text: all with disjoint sides, 12 for the three. With further modalities, every single modality to every
    other, as joined sides would be too many (50 for four).
    """
    letters = [letter_of(m).lower() for m in in_order(modalities)]
    sides = [side for side in ("t", "v", "a", "va", "ta", "vt") if set(side) <= set(letters)]
    if further := [letter for letter in letters if letter not in ("v", "a", "t")]:
        sides = [side for side in sides if len(side) == 1] + further
    return tuple(f"{q}2{t}" for q in sides for t in sides if not set(q) & set(t))


def unit(rows: np.ndarray) -> np.ndarray:
    """Return the rows scaled to length one; rows of zeros stay."""
    return F.normalize(torch.from_numpy(rows), dim=1).numpy()


def fuse(parts: list[np.ndarray], fusion: str) -> np.ndarray:
    """Return one side (R, D) from the rows of its modalities. Raises TrichordError for an unknown rule."""
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
    """Score clips in several directions, each as `score_direction` does."""
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
    """Rank the gallery for every query of one direction.

    A clip takes part that has every modality of the direction, and of text at least one. Texts that are empty, or of a clip
    that does not take part, neither query nor are found.

    Args:
        embeddings, valid: As of `Embedded`.
        direction: Which sides.
        name: Of the benchmark, for the row and messages.
        text_clip: (M,) the clip of each text; None: one each, in order.
        fusion: `sum` or `mean_normalized`.
        missing: `drop` leaves queries that lack something out; `miss` counts them as errors.
        block: Rows of a score block.
        dual_softmax: Its scale, see `tasks.retrieval.dual_softmax`; 0 leaves it out.

    Raises TrichordError when no clip has all that the direction needs.
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
