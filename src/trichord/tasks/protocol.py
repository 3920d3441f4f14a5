"""Protocols of benchmarks: their descriptions, requirements and results.

`Protocol.run` takes a `Subject` (a model on a store, or embeddings from a file) and `Options`, and returns an `Outcome`. All
processes of a launch call it, since they share the embedding of clips. The main process then computes the figures
(`parallel.on_main`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.evaluation.ranks import MEDIAN_RANK
from trichord.evaluation.replication import Runs
from trichord.evaluation.statistics import Interval, mean_interval, median_rank_interval
from trichord.modality import Direction

if TYPE_CHECKING:
    from trichord.tasks.subject import Subject
    from trichord.tasks.windows import Windows

Kind = Literal["retrieval", "localization", "classification", "probe", "clustering"]


def has_interval(measure: str, unit: str) -> bool:
    """Return whether an interval can be computed for a figure. This is the case for percentages and median ranks."""
    return unit == "%" or (unit == "rank" and measure == MEDIAN_RANK)


def interval_over_units(
    each: np.ndarray | Runs, measure: str, unit: str, *, shares: bool = False, level: float = 0.95
) -> Interval | None:
    """Compute the interval of a figure over units.

    Args:
        each: Values (n,) of the units, or those of several runs. Units with NaN do not count. They are the same in all runs.
        measure: Name of the measure.
        unit: Unit of the measure.
        shares: Whether the values are means themselves, as described at `Row.shares`.
        level: Level of the interval.

    Returns:
        The interval. None for a figure without an interval (`has_interval`), and for a single unit.
    """
    runs = Runs.of(each)
    counted = runs.with_values(runs.values[:, ~np.isnan(runs.values[0])])
    if counted.values.shape[1] < 2 or not has_interval(measure, unit):
        return None
    return median_rank_interval(counted, level) if unit == "rank" else mean_interval(counted, level, shares=shares)


@dataclass(frozen=True)
class Row:
    """A figure.

    Attributes:
        protocol: Name of the protocol.
        of: Scope of the figure: a direction with its fusion rule, a modality, or a task.
        measure: Name of the measure, such as `R@1` or `recall, pooled per task`.
        value: Value, in `unit`.
        num: Number of queries, videos or items that the figure is a mean over.
        chance: Expected value for random scores. None if it is unknown.
        unit: `%`, `rank` or another.
        each: Contribution of each unit (query, clip or video), (n,) float64. The value is their mean, times 100 for percentages;
            for median ranks, it is their median. NaN marks a unit that does not count. None if the figure is not such a mean.
        each_of: Name of the array in `Outcome.arrays` with the names (n,) of the units. Two models are compared over the same
            units.
        shares: Whether a contribution is a mean itself (such as the recall of a video), and not a hit.
        low: Lower end of the interval over the units of this model. None without `each`, or with a single unit.
        high: Upper end of this interval.
    """

    protocol: str
    of: str
    measure: str
    value: float
    num: int
    chance: float | None = None
    unit: str = "%"
    each: np.ndarray | None = field(default=None, repr=False, compare=False)
    each_of: str = ""
    shares: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def key(self) -> str:
        """Return the name of `each` in the file of arrays."""
        return f"{self.protocol}/{self.of}/{self.measure}/each"

    def over(self, each: np.ndarray, each_of: str, *, shares: bool = False, interval: bool = True) -> Row:
        """Return the row with the contributions of its units, and with the interval that follows from them.

        Args:
            each: Contributions (n,) of the units.
            each_of: Name of the array with the names of the units.
            shares: Whether a contribution is a mean itself.
            interval: Whether to compute the interval.
        """
        made = replace(self, each=each, each_of=each_of, shares=shares)
        ends = interval_over_units(each, self.measure, self.unit, shares=shares) if interval else None
        return made if ends is None else replace(made, low=ends.low, high=ends.high)

    def to_dict(self) -> dict[str, Any]:
        """Return the row for results.json, where `each` is the name of an array, or None."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return plain | {"each": None if self.each is None else self.key}


@dataclass
class Outcome:
    """The result of a protocol.

    Attributes:
        rows: Figures, in the order in which they are printed.
        arrays: Arrays with a value per query, video or item. Their names begin with that of the protocol, such as
            `youcook2/t2v/greater`.
        notes: Notes for the reader, for example on sizes that differ from the protocol, or on clips that were left out.
        details: Further plain data for results.json.
    """

    rows: list[Row] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def kept(self) -> dict[str, np.ndarray]:
        """Return the arrays to save: `arrays`, and the contributions of the units of each row."""
        return self.arrays | {row.key: row.each for row in self.rows if row.each is not None}


def clip_arrays(name: str, embedded: Embedded) -> dict[str, np.ndarray]:
    """Return the arrays that name the clips and texts, whose numbers the arrays per query contain.

    Args:
        name: Prefix of the names of the arrays.
        embedded: N clips with M texts.

    Returns:
        Arrays (N,) `id`, `video_id`, `start_s` and `end_s`, and arrays (M,) `text_id`, the clip of each text, and `caption`, if
        captions are known.
    """
    arrays = {
        f"{name}/id": embedded.ids,
        f"{name}/video_id": embedded.videos,
        f"{name}/start_s": embedded.start_s,
        f"{name}/end_s": embedded.end_s,
        f"{name}/text_id": embedded.ids[embedded.text_clip],
    }
    return arrays if embedded.captions is None else arrays | {f"{name}/caption": embedded.captions}


@dataclass(frozen=True)
class Options:
    """The options of a user. Each kind of protocol reads those that concern it.

    Attributes:
        directions: Retrieval directions, as objects or codes such as "t2v". If empty, those of the protocol, or `usual`.
        usual: Directions of the recipe, for plain retrieval.
        fusion: Rule by which several modalities are combined: `sum` or `mean_normalized`. `auto` uses the rule of the training.
        dual_softmax: Scale of the dual softmax. 0 disables it.
        missing: Policy for clips that lack a modality: `auto`, `drop` or `miss`.
        gallery: Ids of the clips to score. None scores all clips.
        on: COLLECTION or COLLECTION/SPLIT of the store, which the user appends to the name of a benchmark without clips of its own
            (`full-video:my_videos/test`). '' uses the only held-out clips.
        windows: Windows into which long clips are cut. None embeds them whole.
        audio_window_s: Length of the sound around a second, in seconds, for the localization of steps (MCN: 8).
        block: Number of rows of a block of scores.
        labels: File or folder with the labels of clips (`tasks.labels.tables`). '' uses those of the embeddings, or the first
            folder of the id of a video.
        templates: Sentences with `{}` in place of the name of a class. If empty, the name alone is used.
        text_encoder: Encoder of step texts and class names for a model that reads text embeddings, as given to `trichord extract
            --text`. '' uses the encoder that is recorded in the store.
        seed: Seed of random numbers.
    """

    directions: tuple[Direction, ...] = ()
    usual: tuple[Direction, ...] = ()
    fusion: str = "auto"
    dual_softmax: float = 0.0
    missing: str = "auto"
    gallery: tuple[str, ...] | None = None
    on: str = ""
    windows: Windows | None = None
    audio_window_s: float = 8.0
    block: int = 1024
    labels: str = ""
    templates: tuple[str, ...] = ()
    text_encoder: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("directions", "usual"):
            object.__setattr__(self, name, tuple(map(Direction.parse, getattr(self, name))))

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain data, with the codes of directions."""
        codes = {name: [direction.code for direction in getattr(self, name)] for name in ("directions", "usual")}
        return asdict(self) | codes

    @property
    def windows_label(self) -> str:
        """Text of the windows in the scope of a row, or ''."""
        return "" if self.windows is None else self.windows.text

    def missing_or(self, default: str) -> str:
        """Return the policy for missing clips, where `auto` is replaced by the default of the protocol."""
        return default if self.missing == "auto" else self.missing

    def fusion_of(self, subject: Subject) -> str:
        """Return the fusion rule, where `auto` is replaced by that of the subject."""
        return subject.fusion if self.fusion == "auto" else self.fusion


@dataclass(frozen=True)
class Protocol:
    """A named way of scoring a subject.

    Attributes:
        name: Name that the user gives and that is printed.
        title: Heading.
        kind: Kind of the task.
        paragraph: Description of the computation, with every choice that affects the figures.
        needs: Required content of a store or a file of embeddings.
        gives: Description of the rows.
        score: Function that computes the figures.
        sizes: Published sizes, such as {"clips": 3350}. A note reports a difference.
        clips: Scored clips of a store, as COLLECTION/SPLIT. '' if the user chooses them (`Options.on`).
        draws: Whether figures depend on `Options.seed`.
    """

    name: str
    title: str
    kind: Kind
    paragraph: str
    needs: str
    gives: str
    score: Callable[[Protocol, Subject, Options], Outcome]
    sizes: Mapping[str, int] = field(default_factory=dict)
    clips: str = ""
    draws: bool = False

    def run(self, subject: Subject, options: Options) -> Outcome:
        """Score a subject.

        Args:
            subject: Model or embeddings.
            options: Options of the user.
        """
        return self.score(self, subject, options)

    def row_name(self, options: Options) -> str:
        """Return the name of the rows: that of the protocol, with the clips that the user chose."""
        return f"{self.name}:{options.on}" if options.on else self.name

    def refuse_clips(self, on: str) -> None:
        """Check that the user does not choose clips if the protocol defines them.

        Raises:
            TrichordError: The user does.
        """
        if self.clips and on:
            raise TrichordError(f"the clips of benchmark {self.name} cannot be chosen; leave ':{on}' out")

    def size_notes(self, sizes_here: Mapping[str, int]) -> list[str]:
        """Return a note for each size that differs from the published one.

        If each clip has a single text, the number of texts has no note.

        Args:
            sizes_here: Sizes of this evaluation.
        """
        one_each = all(sizes.get("texts") == sizes.get("clips") for sizes in (self.sizes, sizes_here))
        return [
            f"{self.name}: {sizes_here[what]:,} {what} instead of {size:,}, so figures are not comparable to published ones"
            for what, size in self.sizes.items()
            if what in sizes_here and sizes_here[what] != size and not (what == "texts" and one_each)
        ]

    def explanation(self) -> str:
        """Return the text that `trichord evaluate --explain NAME` prints."""
        sizes = ", ".join(f"{size:,} {what}" for what, size in self.sizes.items())
        lines = [f"{self.name}: {self.title} ({self.kind})", "", self.paragraph, "", f"Requires: {self.needs}"]
        return "\n".join([*lines, f"Reports: {self.gives}", *([f"Published sizes: {sizes}"] if sizes else [])])
