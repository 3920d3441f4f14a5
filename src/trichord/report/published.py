"""Published recalls that are printed below the table of a study: Table 1 of the order study, HowTo100M, MIL-NCE, VideoCLIP and MCN.

A row contains only figures that its source prints. If the number of queries is known for certain from the source or its list of
clips, a recall has Wilson's interval over these queries (`published_interval`). It does not cover other seeds, since no source
states the variation between seeds.

The order study does not state its gallery. `conditional_intervals` returns the intervals for the usual galleries, with a note that
names the gallery. `consistent_galleries` tests a gallery: with N queries of one run, only rounded multiples of 100 / N are
possible. All nine YouCook2 figures are possible with 3,350 clips. By chance, this would hold for one figure with two decimals in
three. With the usual MSR-VTT galleries of 1,000 or 2,990 clips with one caption each, no row of this benchmark is possible, so the
study must have scored several captions of a clip, a mean over runs or another list of clips.

Figures whose source could not be checked are left out and listed in `LEFT_OUT`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trichord.errors import TrichordError
from trichord.evaluation.ranks import RECALLS

if TYPE_CHECKING:
    from trichord.evaluation.statistics import Interval

MEASURES = {recall.field: recall.measure for recall in RECALLS}
USUAL_GALLERIES: dict[str, tuple[int, ...]] = {"youcook2": (3350,), "msrvtt": (1000, 2990)}

ORDER_STUDY = "The order study, Table 1 (zero-shot text-to-video retrieval by order of modalities)"
HOWTO100M = (
    "Miech, Zhukov, Alayrac, Tapaswi, Laptev, Sivic: HowTo100M: Learning a Text-Video Embedding by Watching Hundred "
    "Million Narrated Video Clips, ICCV 2019"
)
MIL_NCE = (
    "Miech, Alayrac, Smaira, Laptev, Sivic, Zisserman: End-to-End Learning of Visual Representations from Uncurated "
    "Instructional Videos, CVPR 2020"
)
VIDEOCLIP = "Xu et al.: VideoCLIP: Contrastive Pre-training for Zero-shot Video-Text Understanding, EMNLP 2021"
MCN = "Chen et al.: Multimodal Clustering Networks for Self-supervised Learning from Unlabeled Videos, ICCV 2021"
LEADERBOARD = "YouCook2 leaderboard (github.com/LuoweiZhou/YouCook2-Leaderboard)"
MIL_NCE_PAGE = "README of github.com/antoine77340/MIL-NCE_HowTo100M"


@dataclass(frozen=True)
class PublishedRow:
    """A published result.

    Attributes:
        method: Name of the system and its variant.
        order: Printed order, such as `AV→T`, or `AVT` for joint training. '' for a system without audio.
        benchmark: `youcook2` or `msrvtt`.
        direction: `t2v`, or `t2va` if the gallery combines video and audio.
        r1: R@1 in percent. None if it is not published.
        r5: R@5 in percent, or None.
        r10: R@10 in percent, or None.
        medr: Median rank, or None.
        num_queries: Number of queries, and of clips with one caption each. None if it is not known for certain.
        source: Publications that print the figures.
        note: Differences in training data, features, gallery, variant and scoring.
        decimals: Numbers of decimals of the three recalls in the source.
    """

    method: str
    order: str
    benchmark: str
    direction: str
    r1: float | None
    r5: float | None
    r10: float | None
    medr: float | None
    num_queries: int | None
    source: str
    note: str
    decimals: tuple[int, int, int] = (1, 1, 1)

    def recall(self, name: str) -> float | None:
        """Return a recall in percent, or None if it is not published.

        Args:
            name: `r1`, `r5` or `r10`.

        Raises:
            TrichordError: The name is unknown.
        """
        if name not in MEASURES:
            raise TrichordError(f"unknown recall '{name}' of {self.method}; expected one of {', '.join(MEASURES)}")
        return {"r1": self.r1, "r5": self.r5, "r10": self.r10}[name]

    def printed(self, name: str) -> str:
        """Return a recall with the decimals of its source, such as `1.10`, or `-` if it is not published."""
        value = self.recall(name)
        return "-" if value is None else f"{value:.{self.decimals[list(MEASURES).index(name)]}f}"


_STUDY_NOTE = (
    "trained on HowTo100M in two stages, not fine-tuned; ResNet-152 features, spectrograms, word2vec; "
    "gallery size, seeds and intervals not stated"
)
_STUDY_EVIDENCE = {
    "youcook2": "the figures fit 3,350 clips with one caption each",
    "msrvtt": "neither 1,000 nor 2,990 clips with one caption each, in one run, can give the three figures",
}


def _study(benchmark: str, order: str, *figures: str) -> PublishedRow:
    """Return a row of the table of the order study, from its printed figures."""
    r1, r5, r10 = (float(figure) for figure in figures)
    one, five, ten = (len(figure.partition(".")[2]) for figure in figures)
    note = f"{_STUDY_NOTE}; {_STUDY_EVIDENCE[benchmark]}"
    return PublishedRow(
        "Order study", order, benchmark, "t2v", r1, r5, r10, None, None, ORDER_STUDY, note, (one, five, ten)
    )


_ZERO_SHOT = "trained on HowTo100M, not fine-tuned"
_TIES = "the code counts a tie as a hit at each tied rank"
_HT_NOTE = f"video and text only; ResNet-152 and ResNeXt-101 features, word2vec; {_TIES}"
_S3D_NOTE = "video and text only; S3D trained from pixels"
_CLIP_NOTE = "video and text only; transformers on S3D features"
_YC2 = "3,350 of the 3,492 validation clips, those not in HowTo100M"
_VTT = "1,000 test clips (JSFusion's), one caption each"
_TPU = "the authors' model, trained on TPUs"

PUBLISHED_ROWS: tuple[PublishedRow, ...] = (
    _study("youcook2", "AV→T", "1.61", "5.97", "9.43"),
    _study("youcook2", "AT→V", "5.16", "11.3", "15.3"),
    _study("youcook2", "VT→A", "1.10", "5.13", "7.13"),
    PublishedRow(
        "HowTo100M", "", "youcook2", "t2v", 6.1, 17.3, 24.8, 46, 3350, f"{HOWTO100M}; {LEADERBOARD}",
        f"{_ZERO_SHOT}; {_HT_NOTE}; {_YC2}",
    ),
    PublishedRow(
        "HowTo100M, fine-tuned", "", "youcook2", "t2v", 8.2, 24.5, 35.3, 24, 3350, f"{HOWTO100M}; {LEADERBOARD}",
        f"trained on HowTo100M and fine-tuned on YouCook2, not zero-shot; {_HT_NOTE}; {_YC2}",
    ),
    PublishedRow(
        "MIL-NCE, original", "", "youcook2", "t2v", 15.1, 38.0, 51.2, 10, None, f"{MIL_NCE}; {MIL_NCE_PAGE}",
        f"{_ZERO_SHOT}; {_S3D_NOTE}; {_TPU}; scored on slightly fewer videos than the 3,350 clips come from, clips not "
        "counted",
    ),
    PublishedRow(
        "MIL-NCE, rerun", "", "youcook2", "t2v", 13.9, 36.3, 48.9, 11, 3350, f"{MIL_NCE}; {LEADERBOARD}",
        f"{_ZERO_SHOT}; {_S3D_NOTE}; scored again with the released code; {_YC2}",
    ),
    PublishedRow(
        "MIL-NCE, PyTorch, 150 epochs", "", "youcook2", "t2v", 7.4, 21.5, 32.2, 29, 3350, MIL_NCE_PAGE,
        f"{_ZERO_SHOT}; {_S3D_NOTE}; the released PyTorch training, batch 512; {_YC2}",
    ),
    PublishedRow(
        "MIL-NCE, PyTorch, 300 epochs", "", "youcook2", "t2v", 8.8, 24.3, 34.6, 23, 3350, MIL_NCE_PAGE,
        f"{_ZERO_SHOT}; {_S3D_NOTE}; the released PyTorch training, batch 1,024; {_YC2}",
    ),
    PublishedRow(
        "VideoCLIP", "", "youcook2", "t2v", 22.7, 50.4, 63.1, None, 3305, f"{VIDEOCLIP}; {LEADERBOARD}",
        f"{_ZERO_SHOT}; {_CLIP_NOTE}; 3,305 clips, not the 3,350 of other rows",
    ),
    PublishedRow(
        "VideoCLIP, without retrieval", "", "youcook2", "t2v", 18.5, 42.8, 54.6, None, 3305, VIDEOCLIP,
        f"{_ZERO_SHOT}, batches without retrieved hard negatives; {_CLIP_NOTE}; 3,305 clips, not the 3,350 of other rows",
    ),
    PublishedRow(
        "VideoCLIP, fine-tuned", "", "youcook2", "t2v", 32.2, 62.6, 75.0, None, None, f"{VIDEOCLIP}; {LEADERBOARD}",
        f"trained on HowTo100M and fine-tuned on YouCook2, not zero-shot; {_CLIP_NOTE}; 3,305 clips are named for the "
        "zero-shot figures only",
    ),
    PublishedRow(
        "MCN", "AVT", "youcook2", "t2va", 18.1, 35.5, 45.2, None, 3350, f"{MCN}; {LEADERBOARD}",
        f"{_ZERO_SHOT}; all three modalities at once; text against the sum of video and audio; ResNet-152 and ResNeXt-101 "
        f"features, spectrograms, word2vec; {_TIES}; 3,350 clips with pooled features",
    ),
    _study("msrvtt", "AV→T", "0.18", "0.92", "1.63"),
    _study("msrvtt", "AT→V", "0.14", "0.61", "1.35"),
    _study("msrvtt", "VT→A", "0.14", "0.53", "1.14"),
    PublishedRow(
        "HowTo100M", "", "msrvtt", "t2v", 7.5, 21.2, 29.6, None, 1000, f"{HOWTO100M}; as printed in {VIDEOCLIP}",
        f"{_ZERO_SHOT}; {_HT_NOTE}; {_VTT}",
    ),
    PublishedRow(
        "MIL-NCE, original", "", "msrvtt", "t2v", 9.9, 24.0, 32.4, 29.5, 1000, f"{MIL_NCE}; {MIL_NCE_PAGE}",
        f"{_ZERO_SHOT}; {_S3D_NOTE}; {_TPU}; {_VTT}",
    ),
    PublishedRow(
        "MIL-NCE, PyTorch, 150 epochs", "", "msrvtt", "t2v", 7.7, 19.0, 27.3, 37, 1000, MIL_NCE_PAGE,
        f"{_ZERO_SHOT}; {_S3D_NOTE}; the released PyTorch training, batch 512; {_VTT}",
    ),
    PublishedRow(
        "MIL-NCE, PyTorch, 300 epochs", "", "msrvtt", "t2v", 8.2, 21.5, 29.5, 40, 1000, MIL_NCE_PAGE,
        f"{_ZERO_SHOT}; {_S3D_NOTE}; the released PyTorch training, batch 1,024; {_VTT}",
    ),
    PublishedRow(
        "VideoCLIP", "", "msrvtt", "t2v", 10.4, 22.2, 30.0, None, 1000, VIDEOCLIP,
        f"{_ZERO_SHOT}; {_CLIP_NOTE}; {_VTT}",
    ),
)  # fmt: skip

LEFT_OUT: tuple[tuple[str, str], ...] = (
    (
        "MCN on MSR-VTT",
        "the source could not be checked; its code scores 968 clips and divides by 1,000, while the median rank leaves the 32 "
        "missing clips out",
    ),
    ("MCN: loss ablation, retrieval of whole YouCook2 videos", "the source could not be checked"),
    ("MCN on CrossTask and Mining YouTube", "localisation, not retrieval, and the source could not be checked"),
    ("MIL-NCE on MSR-VTT, reported by a user of the code", "an issue thread, not a publication"),
    ("AVLnet, Everything at Once and Norton", "the source could not be checked"),
)


def published_rows(benchmark: str) -> tuple[PublishedRow, ...]:
    """Return the rows of a benchmark, starting with those of the order study, or () if nothing is published."""
    return tuple(row for row in PUBLISHED_ROWS if row.benchmark == benchmark)


def published_interval(row: PublishedRow, recall: str, level: float = 0.95) -> Interval | None:
    """Return Wilson's interval of a recall over queries, in percent.

    Args:
        row: Published result.
        recall: `r1`, `r5` or `r10`.
        level: Level of the interval.

    Returns:
        The interval. None if the recall is not published or the number of queries is not known for certain. For the latter case,
        see `conditional_intervals`.

    Raises:
        TrichordError: The recall is unknown, or the level is not in (0, 1).
    """
    from trichord.evaluation.statistics import binomial_interval, check_level

    check_level(level)
    value = row.recall(recall)
    return None if value is None or row.num_queries is None else binomial_interval(value, row.num_queries, level)


def conditional_intervals(row: PublishedRow, recall: str, level: float = 0.95) -> tuple[Interval, ...]:
    """Return the intervals of a recall for each usual gallery of its benchmark.

    Args:
        row: Published result.
        recall: `r1`, `r5` or `r10`.
        level: Level of the intervals.

    Returns:
        An interval for each gallery, whose size is `num_queries`. Its note begins with `if the gallery has N clips`, and states
        whether the figure is impossible with N queries of one run. () if the number of queries is known or the recall is not
        published.

    Raises:
        TrichordError: The recall is unknown, or the level is not in (0, 1).
    """
    from trichord.evaluation.statistics import binomial_interval, check_level

    check_level(level)
    value = row.recall(recall)
    if value is None or row.num_queries is not None:
        return ()
    intervals = []
    for size in USUAL_GALLERIES[row.benchmark]:
        interval = binomial_interval(value, size, level)
        doubt = "" if possible_hits(row, recall, size) else f"; no whole number of hits gives {row.printed(recall)}"
        note = f"if the gallery has {size:,} clips, one caption each{doubt}; {interval.note}"
        intervals.append(replace(interval, note=note))
    return tuple(intervals)


def possible_hits(row: PublishedRow, recall: str, num_queries: int) -> range:
    """Return the numbers of hits among `num_queries` queries whose percentage rounds to the printed figure.

    The computation is exact. A percentage half-way between two figures may be printed as either of them.

    Args:
        row: Published result.
        recall: `r1`, `r5` or `r10`.
        num_queries: Number of queries.

    Raises:
        TrichordError: The recall is not published, or there is no query.
    """
    value = row.recall(recall)
    if value is None or num_queries < 1:
        raise TrichordError(
            f"{row.method}: the hits of {MEASURES[recall]} {row.printed(recall)} over {num_queries} queries cannot be counted; "
            "give a published recall and at least one query"
        )
    digits = int(row.printed(recall).replace(".", ""))  # the figure in units of its last place
    hit = 200 * 10 ** row.decimals[list(MEASURES).index(recall)]  # one hit of N is hit / N half-units
    low = max(-(-(2 * digits - 1) * num_queries // hit), 0)
    return range(low, min((2 * digits + 1) * num_queries // hit, num_queries) + 1)


def consistent_galleries(row: PublishedRow, candidates: Iterable[int]) -> tuple[int, ...]:
    """Return the sizes of galleries with which all published recalls of a row are possible.

    Args:
        row: Published result.
        candidates: Numbers of queries: of clips with one caption each in one run, or of captions times runs. If 100 / N is smaller
            than the last decimal of the figures, every candidate N is consistent.
    """
    shown = [name for name in MEASURES if row.recall(name) is not None]
    return tuple(size for size in candidates if all(possible_hits(row, name, size) for name in shown))


def gallery_evidence(row: PublishedRow) -> tuple[str, ...]:
    """Return a sentence for each usual gallery that states which recalls of a row are possible with it."""
    shown = [name for name in MEASURES if row.recall(name) is not None]
    sentences = []
    for size in USUAL_GALLERIES[row.benchmark]:
        bad = [name for name in shown if not possible_hits(row, name, size)]
        needs = ", ".join(
            f"{MEASURES[name]} {row.printed(name)} would need {(row.recall(name) or 0) * size / 100:.2f} hits"
            for name in bad
        )
        verdict = f"cannot give the row: {needs}" if bad else "can give every figure"
        sentences.append(f"{size:,} clips with one caption each, in one run, {verdict}.")
    return tuple(sentences)
