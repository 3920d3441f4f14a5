"""The retrieval protocols of the field, each with what changes its figures: gallery, captions, missing clips, frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.contributions import aligned
from trichord.evaluation.embedded import Embedded
from trichord.evaluation.ranks import MEDIAN_RANK, RECALLS
from trichord.ids import IdIndex, match_ids
from trichord.modality import Direction
from trichord.parallel import on_main
from trichord.tasks.benchmarks import PUBLISHED
from trichord.tasks.full_video.rows import Groups, full_video_outcome, own_videos, youcook2_videos
from trichord.tasks.protocol import Options, Outcome, Protocol, Row
from trichord.tasks.retrieval.measure import RetrievalResult, all_directions, score_direction
from trichord.tasks.subject import ClipSet, Subject

Keep = Callable[[Embedded], np.ndarray]


@dataclass(frozen=True)
class _Retrieval:
    """How a protocol scores: which clips (None: those that the user names), the missing-clip policy, which of them count; how
    clips are grouped into videos, where these are found."""

    clips: ClipSet | None
    missing: str = "drop"
    keep: Keep | None = None
    needs_gallery: bool = False
    groups: Groups = own_videos

    def embedded(
        self, name: str, head: str, subject: Subject, options: Options, modalities: tuple[str, ...]
    ) -> tuple[Embedded, list[str]]:
        """The clips that count, and notes that begin with `head`, the name of the rows."""
        if self.clips is not None and options.on:
            raise TrichordError(f"benchmark {name} names its clips itself; leave ':{options.on}' out")
        if self.needs_gallery and options.gallery is None:
            raise TrichordError(f"benchmark {name} is a list of clips; give it with --gallery FILE, one id a line")
        clip_set = self.clips or subject.clip_set(options.on)
        found, notes = subject.embedded(clip_set, modalities, options.windows), []
        if self.keep is not None:
            kept = self.keep(found)
            if not len(kept):
                raise TrichordError(f"{found.source}: none of {found.num_clips} clips is one of benchmark {name}")
            if (lost := found.num_clips - len(kept)) and options.missing == "miss":
                notes.append(f"{head}: {lost:,} of {found.num_clips:,} clips are not part of it and count as errors")
                found = _without_others(found, kept)
            elif lost:
                notes.append(f"{head}: {lost:,} clips are not part of it")
                found = found.take(kept)
        if options.windows is not None:
            notes.append(f"{head}: {options.windows.note}")
        if options.gallery is not None:
            found, more = _chosen(found, options.gallery, head, options.missing)
            notes += more
        return found, notes


def _without_others(found: Embedded, kept: np.ndarray) -> Embedded:
    """All clips, of which those that are not kept lack everything, so that they count as missing."""
    there = np.zeros(found.num_clips, bool)
    there[kept] = True
    valid = {m: mask & (there[found.text_clip] if m == "text" else there) for m, mask in found.valid.items()}
    return found.but(valid=valid)


def _possible(found: Embedded, directions: list[Direction], name: str) -> tuple[list[Direction], list[str]]:
    """The directions that some clip has all modalities of, and a note on the others; all of them where there is none."""
    possible, lost = [], []
    for direction in directions:
        has = np.logical_and.reduce([found.valid[m] for m in direction.modalities if m != "text"])
        if "text" in direction.modalities:
            has = found.valid["text"] & has[found.text_clip]
        if has.any():
            possible.append(direction)
        else:
            lost.append(direction)
    if not lost or not possible:
        return directions, []
    codes = ", ".join(direction.code for direction in lost)
    return possible, [
        f"{name}: {codes} left out: no clip has all modalities of {'this' if len(lost) == 1 else 'these'}"
    ]


def _chosen(found: Embedded, gallery: tuple[str, ...], name: str, missing: str) -> tuple[Embedded, list[str]]:
    """The clips of a gallery. missing: as the user gave it; anything but `auto` allows that most of them are not here."""
    wanted = list(dict.fromkeys(gallery))
    places = {clip: i for i, clip in enumerate(found.ids.tolist())}
    matched = match_ids(
        wanted,
        IdIndex(places, found.source),
        source="the gallery",
        allow_missing=missing != "auto",
        option="--missing drop or --missing miss",
    )
    kept = np.array([places[clip] for clip in matched.values()], np.int64)
    lacking = len(wanted) - len(kept)
    notes = [f"{name}: {lacking:,} of {len(wanted):,} clips of the gallery are not here"] if lacking else []
    return found.take(kept), notes


def directions_of(subject: Subject, options: Options, why: str) -> list[Direction]:
    """The directions asked for, the usual ones, or all that the subject knows. Raises TrichordError for any other."""
    asked = [
        Direction.parse(code) for code in options.directions or options.usual or all_directions(subject.modalities)
    ]
    if not asked:
        raise TrichordError(
            f"{subject.name}: knows {', '.join(subject.modalities)} alone, which nothing can be retrieved by; "
            "give embeddings of a second modality, or name a benchmark of labels, such as linear-probe"
        )
    for direction in asked:
        subject.needed(direction.modalities, f"{why} in direction {direction.code}")
    return asked


def _fusion(subject: Subject, options: Options) -> str:
    return subject.fusion if options.fusion == "auto" else options.fusion


def clip_arrays(name: str, found: Embedded) -> dict[str, np.ndarray]:
    """What names the clips, and the texts, that per-query arrays number: (N,) `id`, `video_id`, `start_s`, `end_s`, and (M,)
    `text_id`, the clip that each text describes, with `caption` where it is known."""
    arrays = {
        f"{name}/id": found.ids,
        f"{name}/video_id": found.videos,
        f"{name}/start_s": found.start_s,
        f"{name}/end_s": found.end_s,
        f"{name}/text_id": found.ids[found.text_clip],
    }
    return arrays if found.captions is None else arrays | {f"{name}/caption": found.captions}


def retrieval_outcome(
    name: str, found: Embedded, directions: list[Direction], fusion: str, missing: str, options: Options
) -> Outcome:
    """Rows and per-query ranks of these directions."""
    outcome = Outcome(arrays=clip_arrays(name, found))
    results: list[RetrievalResult] = []
    for direction in directions:
        scored = score_direction(
            found.embeddings,
            found.valid,
            direction,
            name=name,
            text_clip=None if found.one_text_each else found.text_clip,
            fusion=fusion,
            missing=missing,
            block=options.block,
            dual_softmax=options.dual_softmax,
        )
        result = replace(scored, windows="" if options.windows is None else options.windows.told)
        results.append(result)
        outcome.rows += retrieval_rows(result, found)
        outcome.arrays |= rank_arrays(f"{name}/{direction.code}", result)
    outcome.details["results"] = [result.to_dict() for result in results]
    if missed := {r.num_missing for r in results if r.num_missing}:
        told = "counted as errors" if missing == "miss" else "left out"
        outcome.notes.append(f"{name}: up to {max(missed):,} queries lack a modality: {told} ({missing})")
    if options.dual_softmax:
        outcome.notes.append(
            f"{name}: dual softmax (scale {options.dual_softmax:g}) uses the whole set of queries for each of them; figures "
            "without it are others"
        )
    return outcome


def retrieval_rows(result: RetrievalResult, found: Embedded) -> list[Row]:
    """Recalls with chance, median and mean rank, each with what every query gives to it. Queries that lack a modality are
    errors under `miss`, and have the rank of the last."""
    name, of, num, ranks = result.benchmark, result.of, result.num_queries, result.ranks
    assert ranks is not None
    texts = ranks.text is not None or (found.one_text_each and result.direction.startswith("t"))
    at, total = ranks.clip if ranks.text is None else ranks.text, found.num_texts if texts else found.num_clips
    units = f"{name}/text_id" if texts else f"{name}/id"
    missed = result.missing == "miss"
    rows = []
    for measure, key, k in RECALLS:
        row = Row(name, of, measure, getattr(result, key), num, getattr(result, f"chance_{key}"))
        rows.append(row.over(aligned(ranks.hits(k), at, total, 0.0 if missed else np.nan), units))
    last = float(ranks.num_gallery + result.num_missing) if missed else np.nan
    each = aligned(ranks.rank(), at, total, last)
    for measure, value in ((MEDIAN_RANK, result.medr), ("MeanR", result.meanr)):
        rows.append(Row(name, of, measure, value, num, None, "rank").over(each, units))
    return rows


def rank_arrays(head: str, result: RetrievalResult) -> dict[str, np.ndarray]:
    """Per-query counts, as a study keeps them; `truths` and `text` where clips have several texts."""
    ranks = result.ranks
    assert ranks is not None
    arrays = {
        f"{head}/clip": ranks.clip.astype(np.int32),
        f"{head}/greater": ranks.greater.astype(np.int32),
        f"{head}/equal": ranks.equal.astype(np.int32),
        f"{head}/num_gallery": np.array(ranks.num_gallery),
    }
    extra = {"truths": ranks.truths, "text": ranks.text}
    return arrays | {f"{head}/{part}": a.astype(np.int32) for part, a in extra.items() if a is not None}


def _run_retrieval(how: _Retrieval, protocol: Protocol, subject: Subject, options: Options) -> Outcome:
    name = options.on or protocol.name
    directions = directions_of(subject, options, name)
    modalities = tuple(m for d in directions for m in d.modalities)
    found, notes = how.embedded(protocol.name, name, subject, options, modalities)
    if not options.directions:
        directions, more = _possible(found, directions, name)
        notes += more
    missing = how.missing if options.missing == "auto" else options.missing
    fusion = _fusion(subject, options)
    outcome = on_main(lambda: retrieval_outcome(name, found, directions, fusion, missing, options))
    kept = found.num_clips if how.keep is None else len(how.keep(found))
    sizes = {"clips": kept, "texts": found.num_texts if kept == found.num_clips else kept}
    notes += protocol.size_notes(sizes)
    if how.missing == missing == "miss" and (lost := protocol.sizes["clips"] - found.num_clips) > 0:
        notes.append(_lost_clips(protocol, lost, subject.given is not None))
    outcome.notes = [*notes, *outcome.notes]
    return outcome


def _lost_clips(protocol: Protocol, lost: int, given: bool) -> str:
    """How clips that are not here would count as errors, as in the protocol."""
    every = protocol.sizes["clips"]
    means = (
        f"give {every:,} rows of each modality, and audio_valid (video_valid, ...) false where a clip lacks it"
        if given
        else f"import the release with its list of all {every:,} (MSRVTT_JSFUSION_test.csv) beside it"
    )
    return f"{protocol.name}: {lost:,} clips are not here, so they do not count as errors; for these, {means}"


def _run_full_video(how: _Retrieval, protocol: Protocol, subject: Subject, options: Options) -> Outcome:
    name = f"{protocol.name}:{options.on}" if options.on else protocol.name
    if options.dual_softmax:
        raise TrichordError(f"benchmark {protocol.name} has no dual softmax; leave it out")
    known = [code for code in all_directions(subject.modalities) if code.startswith("t2")]
    asked = directions_of(subject, replace(options, usual=tuple(known)), name)
    directions = [d for d in asked if d.query == ("text",)]
    if not directions:
        subject.needed(("text",), f"benchmark {protocol.name}")
        raise TrichordError(
            f"benchmark {protocol.name}: captions find videos, as in t2v or t2va; {asked[0].code} does not"
        )
    modalities = tuple(m for d in directions for m in d.modalities)
    found, notes = how.embedded(protocol.name, name, subject, options, modalities)
    missing = how.missing if options.missing == "auto" else options.missing
    fusion = _fusion(subject, options)
    videos, told = how.groups(name, found)
    windows = "" if options.windows is None else options.windows.told
    outcome = on_main(
        lambda: full_video_outcome(name, found, videos, directions, fusion, missing, options.block, windows)
    )
    sizes = {"clips": found.num_clips, "texts": found.num_texts}
    notes += told
    if others := [d.code for d in asked if d not in directions]:
        notes.append(f"{name}: captions find videos; {', '.join(others)} left out")
    outcome.notes = [*notes, *protocol.size_notes(sizes), *outcome.notes]
    return outcome


def _with_rows(found: Embedded) -> np.ndarray:
    """Clips with features over time; all where nothing is said of it."""
    visual = found.labels.get("visual")
    return np.arange(found.num_clips) if visual is None else np.flatnonzero(visual == "rows")


_RANKS = "R@1, R@5, R@10 (ties at their expected value), median and mean rank, of each direction"
_FULL_VIDEO = "R@1, R@5, R@10 and median rank of each way and direction (text as the query)"
_YOUCOOK2, _MSRVTT = (ClipSet.of_benchmark(PUBLISHED[name]) for name in ("youcook2", "msrvtt"))
_IMPORT = "The clips of `trichord import {}`, with every modality that a direction names; or embeddings of them."


def _protocol(
    how: _Retrieval,
    name: str,
    title: str,
    paragraph: str,
    needs: str,
    run: Callable[[_Retrieval, Protocol, Subject, Options], Outcome] = _run_retrieval,
    gives: str = _RANKS,
    **sizes: int,
) -> Protocol:
    def start(subject: Subject, options: Options) -> Outcome:
        return run(how, protocol, subject, options)

    clips = f"{how.clips.collection}/{how.clips.split}" if how.clips else ""
    protocol = Protocol(name, title, "retrieval", paragraph, needs, gives, start, sizes, clips)
    return protocol


PROTOCOLS: tuple[Protocol, ...] = (
    _protocol(
        _Retrieval(_YOUCOOK2), "youcook2", "YouCook2, pooled features",
        "The 3,350 of the 3,492 validation clips whose videos are not in HowTo100M, one caption each. Every clip that has the "
        "modalities of a direction is a query and in the gallery; the others are left out. Spectrograms are cut to 5,120 "
        "frames. MCN's and AVLnet's figures are made so, with `sum`. Everything at Once's are of other clips (youcook2-full) "
        "and 4,608 frames, with `mean_normalized`: its `t2v+a` is t2va here; what it calls `t2va` is the output of its "
        "transformer for the tokens of both, which no fusion of two embeddings gives.",
        _IMPORT.format("youcook2"), clips=3350, texts=3350,
    ),
    _protocol(
        _Retrieval(_YOUCOOK2, keep=_with_rows), "youcook2-full", "YouCook2, full-resolution features",
        "As youcook2, but only the clips with features per time step, which 11 of the 3,350 lack: the gallery of 3,339 that "
        "Everything at Once ranks, with 4,608 frames where it is 5,120 here. Its code counts the 11 as errors, so that its "
        "recalls are over 3,350: so do those here with `--missing miss`; without it they are over 3,339 (63.9 instead of 63.7). "
        "Import with `--full_resolution true`.",
        _IMPORT.format("youcook2 --full_resolution true"), clips=3339, texts=3339,
    ),
    _protocol(
        _Retrieval(_YOUCOOK2, needs_gallery=True), "youcook2-mteb", "YouCook2, the gallery of MTEB",
        "The 3,104 clips that MTEB's YouCook2 tasks score, by a list of their ids (`--gallery FILE`, one a line). A smaller "
        "gallery is easier: figures are not those of youcook2.",
        _IMPORT.format("youcook2"), clips=3104, texts=3104,
    ),
    _protocol(
        _Retrieval(_MSRVTT, PUBLISHED["msrvtt"].missing), "msrvtt", "MSR-VTT 1k, missing clips count",
        "The 1,000 test clips of JSFusion, one caption each. Clips without features are queries that fail: 968 have audio and "
        "are scored against 968, recalls are over 1,000. Their rank is that of the last, so the median rank is over all 1,000 "
        "(MCN and AVLnet print the median of those found). A file of embeddings has 1,000 rows of each modality, and "
        "`audio_valid` is false where there is no audio. 3,072 spectrogram frames.",
        _IMPORT.format("msrvtt"), clips=1000, texts=1000,
    ),
    _protocol(
        _Retrieval(_MSRVTT), "msrvtt-1k-a", "MSR-VTT 1k-A",
        "The same 1,000 test clips as msrvtt, as models of video and text score them: 1k-A is the split whose 9,000 other "
        "clips may be trained on. Clips that lack a modality are left out of queries and gallery, so a direction with audio "
        "has 968; those figures are not comparable to the ones over 1,000.",
        _IMPORT.format("msrvtt"), clips=1000, texts=1000,
    ),
    _protocol(
        _Retrieval(replace(_MSRVTT, collection="msrvtt-full", texts="all")), "msrvtt-full", "MSR-VTT, full test set",
        "The 2,990 test clips with 20 captions each. Text to video: 59,800 queries, each with one clip as its truth. Video to "
        "text: 2,990 queries over 59,800 captions, each with 20 truths; the rank is that of the best of them, captions that "
        "stand twice tie. Clips that lack a modality are left out. 3,072 spectrogram frames.",
        _IMPORT.format("msrvtt --full test_videodatainfo.json"), clips=2990, texts=59800,
    ),
    _protocol(
        _Retrieval(ClipSet("lsmdc", "test", 3072)), "lsmdc", "LSMDC",
        "The 1,000 test clips of the Large Scale Movie Description Challenge, one description each; clips that lack a "
        "modality are left out. 3,072 spectrogram frames.",
        _IMPORT.format("lsmdc"), clips=1000, texts=1000,
    ),
    _protocol(
        _Retrieval(None), "retrieval", "Retrieval on any clips",
        "Clips of the store that are held out, or embeddings from a file. In a store neighbouring captions are joined until "
        "the clip is long enough, each caption is used once, clips do not overlap; captions that span a whole video are texts "
        "of one clip. Clips that lack a modality are left out. "
        "Say which as retrieval:COLLECTION/SPLIT, or COLLECTION/SPLIT alone.",
        "Clips with the modalities of a direction.",
    ),
    _protocol(
        _Retrieval(_YOUCOOK2, groups=youcook2_videos), "youcook2-videos", "YouCook2, full videos",
        "Captions find the video. Which clips are of one video is what the store or the file says; where each clip has a video "
        "of its own, as in the releases, and all are named as YouCook2's clips are (the 11 characters of the video, then a "
        "separator or digits), it is the first 11 characters. Where no two clips are of one video, or all are, that is an "
        "error. Five ways from clips to videos, each a row: one caption as the query and a video's best clip, or the mean over "
        "its clips; all captions of a video as the query, by the mean of each one's best clip, the mean over all pairs, or "
        "votes, one for the video of each caption's best clip (clips that tie share it). Captions and clips of a video are "
        "those of the benchmark, without what lies between them.",
        _IMPORT.format("youcook2"), _run_full_video, _FULL_VIDEO,
        clips=3350, texts=3350,
    ),
    _protocol(
        _Retrieval(None), "full-video", "Full videos of any clips",
        "As youcook2-videos, but clips are of one video as the store or the file says, whatever their names. Say which clips "
        "as full-video:COLLECTION/SPLIT.",
        "Text, and clips of which several are of one video.", _run_full_video, _FULL_VIDEO,
    ),
)  # fmt: skip
