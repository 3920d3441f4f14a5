"""The published retrieval protocols, with all choices that affect their figures: gallery, captions, missing clips, frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from trichord.evaluation.contributions import aligned
from trichord.evaluation.embedded import Embedded
from trichord.evaluation.ranks import MEDIAN_RANK, RECALLS, RetrievalMetrics
from trichord.modality import Direction
from trichord.parallel import on_main
from trichord.tasks.benchmarks import PUBLISHED
from trichord.tasks.protocol import Options, Outcome, Protocol, Row, clip_arrays
from trichord.tasks.retrieval.measure import QueryRanks, RetrievalResult, score_directions
from trichord.tasks.retrieval.selection import Selection, directions_of, possible_directions
from trichord.tasks.subject import ClipSet, Subject


def retrieval_outcome(
    name: str, embedded: Embedded, directions: list[Direction], fusion: str, missing: str, options: Options
) -> Outcome:
    """Return the rows and the ranks of the queries of several directions.

    Args:
        name: Name of the rows.
        embedded: Clips.
        directions: Directions.
        fusion: Rule by which several modalities are combined.
        missing: Policy for queries that lack a modality: `drop` or `miss`.
        options: Options of the user.
    """
    clips = embedded.embeddings, embedded.valid, None if embedded.one_text_each else embedded.text_clip
    scored = score_directions(
        name, *clips, directions, fusion, missing, block=options.block, dual_softmax=options.dual_softmax
    )
    outcome = outcome_of(name, embedded, [replace(result, windows=options.windows_label) for result in scored])
    if options.dual_softmax:
        outcome.notes.append(
            f"{name}: the dual softmax (scale {options.dual_softmax:g}) uses all queries to rank each of them; figures are not "
            "comparable to those without it"
        )
    return outcome


def outcome_of(name: str, embedded: Embedded, results: Sequence[RetrievalResult], *, intervals: bool = True) -> Outcome:
    """Return the rows and arrays of results that have ranks.

    Args:
        name: Name of the rows.
        embedded: Clips. Only their names and numbers are used.
        results: Result of each direction.
        intervals: Whether to compute the interval of each row.
    """
    outcome = Outcome(arrays=clip_arrays(name, embedded))
    for result in results:
        assert result.ranks is not None
        outcome.rows += retrieval_rows(result, embedded, intervals=intervals)
        outcome.arrays |= result.ranks.to_arrays(f"{name}/{result.direction}")
    outcome.details["results"] = [result.to_dict() for result in results]
    if missed := {r.num_missing for r in results if r.num_missing}:
        policy = results[0].missing
        treatment = "counted as errors" if policy == "miss" else "left out"
        outcome.notes.append(f"{name}: up to {max(missed):,} queries lack a modality and are {treatment} ({policy})")
    return outcome


def retrieval_rows(result: RetrievalResult, embedded: Embedded, *, intervals: bool = True) -> list[Row]:
    """Return the recalls with chance, and the median and mean rank, each with the contributions of the queries.

    With the policy `miss`, queries that lack a modality are errors and have the last rank.

    Args:
        result: Figures and ranks of a direction.
        embedded: Clips.
        intervals: Whether to compute the interval of each row.
    """
    name, ranks = result.benchmark, result.ranks
    assert ranks is not None
    texts = ranks.text is not None or (embedded.one_text_each and result.direction.startswith("t"))
    places, num_units = (
        ranks.clip if ranks.text is None else ranks.text,
        embedded.num_texts if texts else embedded.num_clips,
    )
    units = f"{name}/text_id" if texts else f"{name}/id"
    last = float(ranks.num_gallery + result.num_missing) if result.missing == "miss" else None
    chance = {recall.field: getattr(result, f"chance_{recall.field}") for recall in RECALLS}
    rows = ranked_rows(name, result.of, result, chance, ranks, places, num_units, units, last, intervals=intervals)
    mean = Row(name, result.of, "MeanR", result.meanr, result.num_queries, None, "rank")
    assert rows[-1].each is not None
    return [*rows, mean.over(rows[-1].each, units)]


def ranked_rows(
    name: str,
    scope: str,
    metrics: RetrievalResult | RetrievalMetrics,
    chance: Mapping[str, float],
    ranks: QueryRanks,
    places: np.ndarray,
    num_units: int,
    units: str,
    last: float | None,
    *,
    intervals: bool = True,
) -> list[Row]:
    """Return the recalls and the median rank of ranked queries, each with the contributions of the units.

    Args:
        name: Name of the rows.
        scope: Scope of the figures.
        metrics: Figures.
        chance: Chance of each recall by its field.
        ranks: Ranks of Q queries.
        places: Index (Q,) of the unit of each query.
        num_units: Number of units.
        units: Name of the array with the names of the units.
        last: Rank of units that were not ranked and count as errors. None leaves them out.
        intervals: Whether to compute the interval of each row.
    """
    rows = []
    for recall in RECALLS:
        value = getattr(metrics, recall.field)
        row = Row(name, scope, recall.measure, value, metrics.num_queries, chance[recall.field])
        hits = aligned(ranks.hits(recall.k), places, num_units, np.nan if last is None else 0.0)
        rows.append(row.over(hits, units, interval=intervals))
    row = Row(name, scope, MEDIAN_RANK, metrics.medr, metrics.num_queries, None, "rank")
    each = aligned(ranks.rank(), places, num_units, np.nan if last is None else last)
    return [*rows, row.over(each, units, interval=intervals)]


def _run(selection: Selection, protocol: Protocol, subject: Subject, options: Options) -> Outcome:
    name = options.on or protocol.name
    directions = directions_of(subject, options, name)
    embedded, notes = selection.embedded(protocol, name, subject, options, directions)
    if not options.directions:
        directions, more = possible_directions(embedded, directions, name)
        notes += more
    missing, fusion = options.missing_or(selection.missing), options.fusion_of(subject)
    outcome = on_main(lambda: retrieval_outcome(name, embedded, directions, fusion, missing, options))
    kept = embedded.num_clips if selection.keep is None else len(selection.keep(embedded))
    sizes = {"clips": kept, "texts": embedded.num_texts if kept == embedded.num_clips else kept}
    notes += protocol.size_notes(sizes)
    if selection.missing == missing == "miss" and (lost := protocol.sizes["clips"] - embedded.num_clips) > 0:
        notes.append(_lost_clips(protocol, lost, subject.given is not None))
    outcome.notes = [*notes, *outcome.notes]
    return outcome


def _lost_clips(protocol: Protocol, lost: int, given: bool) -> str:
    """Return a note on missing clips that says how to count them as errors, as in the protocol."""
    every = protocol.sizes["clips"]
    means = (
        f"give {every:,} rows of each modality, and set audio_valid (video_valid, ...) to false for clips that lack it"
        if given
        else f"import the release with its list of all {every:,} clips (MSRVTT_JSFUSION_test.csv) in the same folder"
    )
    return f"{protocol.name}: {lost:,} clips are missing and do not count as errors; to count them, {means}"


def _with_rows(embedded: Embedded) -> np.ndarray:
    """Return the indices of the clips with features over time, or those of all clips if this is not recorded."""
    visual = embedded.labels.get("visual")
    return np.arange(embedded.num_clips) if visual is None else np.flatnonzero(visual == "rows")


_RANKS = "R@1, R@5, R@10 (ties have their expected value), median and mean rank of each direction"
IMPORT = "The clips of `trichord import {}` with the modalities of a direction, or their embeddings."
YOUCOOK2, _MSRVTT = (ClipSet.of_benchmark(PUBLISHED[name]) for name in ("youcook2", "msrvtt"))


def _protocol(selection: Selection, name: str, title: str, paragraph: str, needs: str, **sizes: int) -> Protocol:
    score = partial(_run, selection)
    return Protocol(name, title, "retrieval", paragraph, needs, _RANKS, score, sizes, selection.address)


def _published(name: str, remark: str, **sizes: int) -> Protocol:
    """Return the protocol of a published benchmark, which a study scores in the same way."""
    benchmark = PUBLISHED[name]
    selection = Selection(ClipSet.of_benchmark(benchmark), benchmark.missing)
    paragraph = f"{benchmark.protocol} {remark}"
    return _protocol(selection, name, benchmark.title, paragraph, IMPORT.format(name), **sizes)


PROTOCOLS: tuple[Protocol, ...] = (
    _published(
        "youcook2",
        "The figures of MCN and AVLnet are computed in this way, with pooled features and `sum`. Those of Everything at Once are "
        "for other clips (youcook2-full), 4,608 frames and `mean_normalized`. Its `t2v+a` is t2va here. What it calls `t2va` is "
        "the output of its transformer for the tokens of both modalities, which cannot be computed from two embeddings.",
        clips=3350, texts=3350,
    ),
    _protocol(
        Selection(YOUCOOK2, keep=_with_rows), "youcook2-full", "YouCook2, full-resolution features",
        "As youcook2, but only for clips with features per time step, which 11 of the 3,350 lack. This is the gallery of 3,339 "
        "clips that Everything at Once ranks (with 4,608 frames instead of 5,120). Its code counts the 11 as errors, so its "
        "recalls are over 3,350 clips. Those here are over 3,339, or over 3,350 with `--missing miss` (63.7 instead of 63.9). "
        "Import with `--full_resolution true`.",
        IMPORT.format("youcook2 --full_resolution true"), clips=3339, texts=3339,
    ),
    _protocol(
        Selection(YOUCOOK2, needs_gallery=True), "youcook2-mteb", "YouCook2, the gallery of MTEB",
        "The 3,104 clips of the YouCook2 tasks of MTEB, given by a list of their ids (`--gallery FILE`, one id per line). Since a "
        "smaller gallery is easier, figures are not comparable to those of youcook2.",
        IMPORT.format("youcook2"), clips=3104, texts=3104,
    ),
    _published(
        "msrvtt",
        "Errors have the last rank, so the median rank is over all 1,000 (MCN and AVLnet print the median over clips with "
        "features). A file of embeddings has 1,000 rows of each modality, and `audio_valid` is false for clips without audio.",
        clips=1000, texts=1000,
    ),
    _protocol(
        Selection(_MSRVTT), "msrvtt-1k-a", "MSR-VTT 1k-A",
        "The same 1,000 test clips as msrvtt, as scored by models of video and text. In the split 1k-A, the 9,000 other clips "
        "may be used for training. Clips that lack a modality are neither queries nor in the gallery, so a direction with audio "
        "has 968 clips, and its figures are not comparable to those over 1,000.",
        IMPORT.format("msrvtt"), clips=1000, texts=1000,
    ),
    _protocol(
        Selection(replace(_MSRVTT, collection="msrvtt-full", texts="all")), "msrvtt-full", "MSR-VTT, full test set",
        "The 2,990 test clips with 20 captions each. From text to video, there are 59,800 queries with one true clip each. From "
        "video to text, there are 2,990 queries with 20 truths each among 59,800 captions; the best truth determines the rank, "
        "and repeated captions tie. Clips that lack a modality are left out. 3,072 spectrogram frames.",
        IMPORT.format("msrvtt --full test_videodatainfo.json"), clips=2990, texts=59800,
    ),
    _protocol(
        Selection(ClipSet("lsmdc", "test", 3072)), "lsmdc", "LSMDC",
        "The 1,000 test clips of the Large Scale Movie Description Challenge, with one description each. Clips that lack a "
        "modality are left out. 3,072 spectrogram frames.",
        IMPORT.format("lsmdc"), clips=1000, texts=1000,
    ),
    _protocol(
        Selection(None), "retrieval", "Retrieval on any clips",
        "Held-out clips of the store, or embeddings from a file. In a store, neighbouring captions are joined until the clip is "
        "long enough. Each caption is used once, and clips do not overlap. Captions of a whole video are texts of the same clip. "
        "Clips that lack a modality are left out. "
        "Choose the clips with retrieval:COLLECTION/SPLIT, or COLLECTION/SPLIT alone.",
        "Clips with the modalities of a direction.",
    ),
)  # fmt: skip
