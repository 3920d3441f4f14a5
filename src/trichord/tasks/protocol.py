"""What a protocol is: the words that explain it, what it asks for, and the rows that it gives.

`Protocol.run` takes a `Subject` (a model on a store, or embeddings that were made elsewhere) and `Options`, and returns an
`Outcome`. All processes of a launch call it, since they share the embedding; the main one then computes the figures
(`parallel.on_main`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.evaluation.ranks import MEDIAN_RANK
from trichord.evaluation.replication import Runs
from trichord.evaluation.statistics import Interval, mean_interval, median_rank_interval

if TYPE_CHECKING:
    from trichord.tasks.subject import Subject
    from trichord.tasks.windows import Windows

Kind = Literal["retrieval", "localization", "classification", "probe", "clustering"]


def has_interval(measure: str, unit: str) -> bool:
    """Whether a figure follows from what units give in a way that has an interval: percent and median ranks do."""
    return unit == "%" or (unit == "rank" and measure == MEDIAN_RANK)


def interval_over_units(
    each: np.ndarray | Runs, measure: str, unit: str, *, shares: bool = False, level: float = 0.95
) -> Interval | None:
    """Return the interval of a figure over units, from the values (n,) of its units or from those of several runs (`Runs`). Units
    with NaN do not count; they are the same ones in every run. None for figures without an interval (`has_interval`) and for a
    single unit."""
    runs = Runs.of(each)
    counted = runs.with_values(runs.values[:, ~np.isnan(runs.values[0])])
    if counted.values.shape[1] < 2 or not has_interval(measure, unit):
        return None
    return median_rank_interval(counted, level) if unit == "rank" else mean_interval(counted, level, shares=shares)


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        protocol: Name of the protocol.
        of: What it is of: a direction with its fusion, a modality, a task.
        measure: In full: `R@1`, `recall, pooled per task`.
        value: In percent, but for ranks and what `unit` says.
        num: Of queries, videos or items that it is a mean over.
        chance: The same measure at random, where it is known.
        unit: `%`, `rank` or another.
        each: (n,) float64, what each unit (query, clip, video) gives: the value is the mean of these in percent, of ranks the
            mean or median itself. NaN: a unit that does not count. None where a figure is no such mean.
        each_of: Name among `Outcome.arrays` of the (n,) names of these units; two models are compared over the same ones.
        shares: Whether what a unit gives is a mean of its own (the recall of a video) or a contribution, and no hit.
        low, high: Interval over units, of this one model; None without `each`, or with one unit.
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

    def over(self, each: np.ndarray, each_of: str, *, shares: bool = False) -> Row:
        """Return the row with the values of its units, and with the interval that follows from them."""
        made = replace(self, each=each, each_of=each_of, shares=shares)
        interval = interval_over_units(each, self.measure, self.unit, shares=shares)
        return made if interval is None else replace(made, low=interval.low, high=interval.high)

    def to_dict(self) -> dict[str, Any]:
        """Return the row for results.json, where `each` is the name of an array, or None."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return plain | {"each": None if self.each is None else self.key}


@dataclass
class Outcome:
    """The result of a protocol.

    Attributes:
        rows: The figures, in the order in which they are printed.
        arrays: By name, per query, video or item; names begin with the protocol's: `youcook2/t2v/greater`.
        notes: Lines for the reader: sizes that differ from the protocol's, clips left out.
        details: Further plain data for results.json.
    """

    rows: list[Row] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def kept(self) -> dict[str, np.ndarray]:
        """Return `arrays`, with the values of the units of each row."""
        return self.arrays | {row.key: row.each for row in self.rows if row.each is not None}


def clip_arrays(name: str, embedded: Embedded) -> dict[str, np.ndarray]:
    """Return the names of the clips and texts that per-query arrays number: (N,) `id`, `video_id`, `start_s`, `end_s`, and (M,)
    `text_id`, the clip of each text, with `caption` where it is known."""
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
    """The choices of a user. Each kind of protocol reads those that concern it.

    Attributes:
        directions: Retrieval directions; empty takes the protocol's own, or `usual`.
        usual: Directions of the recipe, for plain retrieval.
        fusion: How several modalities become one side: `sum` or `mean_normalized`; `auto` follows how the model was trained.
        dual_softmax: Scale of the dual softmax; 0 leaves it out.
        missing: `auto`, `drop` or `miss`.
        gallery: Ids of the clips to score; None takes all.
        on: COLLECTION or COLLECTION/SPLIT of the store, given behind the name of a benchmark that has none of its own
            (`full-video:my_videos/test`); '' takes the only one that is held out.
        windows: How long clips are cut; None embeds each whole.
        audio_window_s: Length of the sound around a second, where steps are looked for (MCN: 8).
        block: Rows of a score block.
        labels: File or folder with the labels of clips (`tasks.labels.tables`); '' takes those of the embeddings, or the first
            folder of a video's name.
        templates: Sentences around the name of a class, `{}` in its place; empty takes the name alone.
        text_encoder: Encoder of step texts and class names, for a model that reads text embeddings, as `trichord extract --text`
            takes it; '' takes the one that the store recorded.
        seed: Of whatever is drawn.
    """

    directions: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()
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

    @property
    def windows_label(self) -> str:
        """Return the windows as the names of rows mention them, or ''."""
        return "" if self.windows is None else self.windows.told

    def missing_or(self, default: str) -> str:
        """Return the policy for missing clips, with the protocol's own for `auto`."""
        return default if self.missing == "auto" else self.missing

    def fusion_of(self, subject: Subject) -> str:
        """Return the fusion rule, with the subject's own for `auto`."""
        return subject.fusion if self.fusion == "auto" else self.fusion


@dataclass(frozen=True)
class Protocol:
    """A named way to score a subject.

    Attributes:
        name: As given and printed.
        title: Heading.
        kind: Of task.
        paragraph: What is done, with every choice that changes the figure.
        needs: What a store, or a file of embeddings, must hold.
        gives: The rows.
        clips: COLLECTION/SPLIT of a store that it scores; '' where the user says which (`Options.on`).
        sizes: Published sizes by what is counted, e.g. {"clips": 3350}; a run on others says so.
        score: Computes the figures.
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
        """Score a subject."""
        return self.score(self, subject, options)

    def row_name(self, options: Options) -> str:
        """Return the name of the rows: the protocol's, with the clips that the user chose."""
        return f"{self.name}:{options.on}" if options.on else self.name

    def refuse_clips(self, on: str) -> None:
        """Raise TrichordError if the user names clips although the protocol has its own."""
        if self.clips and on:
            raise TrichordError(f"benchmark {self.name} names its clips itself; leave ':{on}' out")

    def size_notes(self, sizes_here: Mapping[str, int]) -> list[str]:
        """Return a note for each size that differs from the published one. Where each clip has one text, both here and there, the
        number of texts has no note of its own."""
        one_each = all(sizes.get("texts") == sizes.get("clips") for sizes in (self.sizes, sizes_here))
        return [
            f"{self.name}: {sizes_here[what]:,} {what} here, {size:,} in the protocol: figures are not comparable to published ones"
            for what, size in self.sizes.items()
            if what in sizes_here and sizes_here[what] != size and not (what == "texts" and one_each)
        ]

    def explanation(self) -> str:
        """Return the text of `trichord evaluate --explain NAME`."""
        sizes = ", ".join(f"{size:,} {what}" for what, size in self.sizes.items())
        lines = [f"{self.name}: {self.title} ({self.kind})", "", self.paragraph, "", f"Needs: {self.needs}"]
        return "\n".join([*lines, f"Gives: {self.gives}", *([f"Published sizes: {sizes}"] if sizes else [])])
