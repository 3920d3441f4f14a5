"""The retrieval protocols of the field, each with what changes its figures: gallery, captions, missing clips, frames."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Return the rows and per-query ranks of these directions."""
    outcome = Outcome(arrays=clip_arrays(name, embedded))
    clips = embedded.embeddings, embedded.valid, None if embedded.one_text_each else embedded.text_clip
    scored = score_directions(
        name, *clips, directions, fusion, missing, block=options.block, dual_softmax=options.dual_softmax
    )
    results = [replace(result, windows=options.windows_label) for result in scored]
    for result in results:
        assert result.ranks is not None
        outcome.rows += retrieval_rows(result, embedded)
        outcome.arrays |= result.ranks.to_arrays(f"{name}/{result.direction}")
    outcome.details["results"] = [result.to_dict() for result in results]
    if missed := {r.num_missing for r in results if r.num_missing}:
        treatment = "counted as errors" if missing == "miss" else "left out"
        outcome.notes.append(f"{name}: up to {max(missed):,} queries lack a modality: {treatment} ({missing})")
    if options.dual_softmax:
        outcome.notes.append(
            f"{name}: dual softmax (scale {options.dual_softmax:g}) uses the whole set of queries for each of them; figures "
            "without it are others"
        )
    return outcome


def retrieval_rows(result: RetrievalResult, embedded: Embedded) -> list[Row]:
    """Return the recalls with chance, and the median and mean rank, each with what every query gives to it. Queries that lack a
    modality are errors under `miss`, and have the rank of the last."""
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
    rows = ranked_rows(name, result.of, result, chance, ranks, places, num_units, units, last)
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
) -> list[Row]:
    """Return the recalls and the median rank of ranked queries, each with what every unit gives to it.

    Args:
        name: Name of the rows.
        scope: Direction and fusion of the figures.
        metrics: The figures.
        chance: The chance of each recall by its field.
        ranks: Of Q queries.
        places: (Q,) the unit of each query.
        num_units: How many units there are.
        units: Name of the array with the names of the units.
        last: The rank of units that were not ranked and count as errors; None leaves them out.
    """
    rows = []
    for recall in RECALLS:
        value = getattr(metrics, recall.field)
        row = Row(name, scope, recall.measure, value, metrics.num_queries, chance[recall.field])
        hits = aligned(ranks.hits(recall.k), places, num_units, np.nan if last is None else 0.0)
        rows.append(row.over(hits, units))
    row = Row(name, scope, MEDIAN_RANK, metrics.medr, metrics.num_queries, None, "rank")
    each = aligned(ranks.rank(), places, num_units, np.nan if last is None else last)
    return [*rows, row.over(each, units)]


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
    """Return a note on clips that are not here, and on what makes them count as errors as in the protocol."""
    every = protocol.sizes["clips"]
    means = (
        f"give {every:,} rows of each modality, and audio_valid (video_valid, ...) false where a clip lacks it"
        if given
        else f"import the release with its list of all {every:,} (MSRVTT_JSFUSION_test.csv) beside it"
    )
    return f"{protocol.name}: {lost:,} clips are not here, so they do not count as errors; for these, {means}"


def _with_rows(embedded: Embedded) -> np.ndarray:
    """Return the clips with features over time; all clips if the embeddings do not say."""
    visual = embedded.labels.get("visual")
    return np.arange(embedded.num_clips) if visual is None else np.flatnonzero(visual == "rows")


_RANKS = "R@1, R@5, R@10 (ties at their expected value), median and mean rank, of each direction"
IMPORT = "The clips of `trichord import {}`, with every modality that a direction names; or embeddings of them."
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
        "MCN's and AVLnet's figures are made so, with pooled features and `sum`. Everything at Once's are of other clips "
        "(youcook2-full) and 4,608 frames, with `mean_normalized`: its `t2v+a` is t2va here; what it calls `t2va` is the "
        "output of its transformer for the tokens of both, which no fusion of two embeddings gives.",
        clips=3350, texts=3350,
    ),
    _protocol(
        Selection(YOUCOOK2, keep=_with_rows), "youcook2-full", "YouCook2, full-resolution features",
        "As youcook2, but only the clips with features per time step, which 11 of the 3,350 lack: the gallery of 3,339 that "
        "Everything at Once ranks, with 4,608 frames where it is 5,120 here. Its code counts the 11 as errors, so that its "
        "recalls are over 3,350: so do those here with `--missing miss`; without it they are over 3,339 (63.9 instead of 63.7). "
        "Import with `--full_resolution true`.",
        IMPORT.format("youcook2 --full_resolution true"), clips=3339, texts=3339,
    ),
    _protocol(
        Selection(YOUCOOK2, needs_gallery=True), "youcook2-mteb", "YouCook2, the gallery of MTEB",
        "The 3,104 clips that MTEB's YouCook2 tasks score, by a list of their ids (`--gallery FILE`, one a line). A smaller "
        "gallery is easier: figures are not those of youcook2.",
        IMPORT.format("youcook2"), clips=3104, texts=3104,
    ),
    _published(
        "msrvtt",
        "The rank of a missing clip is that of the last, so the median rank is over all 1,000 (MCN and AVLnet print the median "
        "of those found). A file of embeddings has 1,000 rows of each modality, and `audio_valid` is false where there is no "
        "audio.",
        clips=1000, texts=1000,
    ),
    _protocol(
        Selection(_MSRVTT), "msrvtt-1k-a", "MSR-VTT 1k-A",
        "The same 1,000 test clips as msrvtt, as models of video and text score them: 1k-A is the split whose 9,000 other "
        "clips may be trained on. Clips that lack a modality are left out of queries and gallery, so a direction with audio "
        "has 968; those figures are not comparable to the ones over 1,000.",
        IMPORT.format("msrvtt"), clips=1000, texts=1000,
    ),
    _protocol(
        Selection(replace(_MSRVTT, collection="msrvtt-full", texts="all")), "msrvtt-full", "MSR-VTT, full test set",
        "The 2,990 test clips with 20 captions each. Text to video: 59,800 queries, each with one clip as its truth. Video to "
        "text: 2,990 queries over 59,800 captions, each with 20 truths; the rank is that of the best of them, captions that "
        "stand twice tie. Clips that lack a modality are left out. 3,072 spectrogram frames.",
        IMPORT.format("msrvtt --full test_videodatainfo.json"), clips=2990, texts=59800,
    ),
    _protocol(
        Selection(ClipSet("lsmdc", "test", 3072)), "lsmdc", "LSMDC",
        "The 1,000 test clips of the Large Scale Movie Description Challenge, one description each; clips that lack a "
        "modality are left out. 3,072 spectrogram frames.",
        IMPORT.format("lsmdc"), clips=1000, texts=1000,
    ),
    _protocol(
        Selection(None), "retrieval", "Retrieval on any clips",
        "Clips of the store that are held out, or embeddings from a file. In a store neighbouring captions are joined until "
        "the clip is long enough, each caption is used once, clips do not overlap; captions that span a whole video are texts "
        "of one clip. Clips that lack a modality are left out. "
        "Say which as retrieval:COLLECTION/SPLIT, or COLLECTION/SPLIT alone.",
        "Clips with the modalities of a direction.",
    ),
)  # fmt: skip
