"""What is evaluated: a model on a store, or embeddings that were made elsewhere. Either way protocols get `Embedded`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from trichord.data.batches import clips_of_texts, evaluation_clips
from trichord.data.reader import Clips, require_modalities
from trichord.errors import Diverged, TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.modality import MODALITIES, in_order
from trichord.store.overlap import check_overlap
from trichord.tasks.benchmarks import Benchmark, ScoringSettings, benchmark_names, embed_clips, find_benchmark
from trichord.tasks.windows import Windows, pooled, window_clips

if TYPE_CHECKING:
    from trichord.losses.centroids import Centroids
    from trichord.nn import MCN
    from trichord.store import Store


class Untrained(TrichordError):
    """The subject does not embed a modality that is needed."""


@dataclass(frozen=True)
class ClipSet:
    """A set of clips of a store.

    Attributes:
        collection, split: Of the store.
        audio_frames: Spectrogram frames of a clip; 0 takes the model's.
        texts: `each`: every caption that has times of its own makes a clip of its own, with one text; captions of a whole
            video are texts of one clip. `all`: all captions of one span are texts of one clip.
    """

    collection: str
    split: str
    audio_frames: int = 0
    texts: Literal["each", "all"] = "each"

    @property
    def address(self) -> str:
        """Return COLLECTION/SPLIT."""
        return f"{self.collection}/{self.split}"

    @classmethod
    def of_benchmark(cls, benchmark: Benchmark, texts: Literal["each", "all"] = "each") -> ClipSet:
        """Return the clips of a benchmark."""
        return cls(benchmark.collection, benchmark.split, benchmark.audio_frames, texts)


@dataclass(frozen=True, eq=False)
class TextRows:
    """M texts of N clips, each with the embeddings of its clip.

    Attributes:
        texts: A row for each text.
        embeddings: By modality (M, D).
        valid: By modality (M,), whether there is one.
        text_clip: (M,) the clip of each text.
        first: (N,) the first text of each clip.
    """

    texts: Clips
    embeddings: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    text_clip: np.ndarray
    first: np.ndarray

    def by_clip(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray | None]:
        """Return the embeddings of each clip once, those of its first text, as `score_directions` takes them."""
        if len(self.first) == len(self.texts):
            return self.embeddings, self.valid, None
        vectors = {m: rows if m == "text" else rows[self.first] for m, rows in self.embeddings.items()}
        valid = {m: there if m == "text" else there[self.first] for m, there in self.valid.items()}
        return vectors, valid, self.text_clip


@dataclass(frozen=True, eq=False)
class Subject:
    """A model on a store (`model`, `store`, `settings`), or embeddings (`given`).

    Attributes:
        name: For messages and results.
        modalities: That the model was trained on, or that were embedded.
        model: Has `embed(**inputs)`.
        store: With the clips.
        settings: How clips are read and scored.
        given: Embeddings that were made elsewhere; they stand for every set of clips.
        fusion: `sum` or `mean_normalized`: how sides of several modalities are made where nobody chooses.
        centroids: That the model was trained towards; None where it has none.
        trained_on: Numbers of the items of the store that it was trained on; None where that is another store.
    """

    name: str
    modalities: tuple[str, ...]
    model: MCN | None = None
    store: Store | None = None
    settings: ScoringSettings | None = None
    given: Embedded | None = None
    fusion: str = "sum"
    centroids: Centroids | None = None
    trained_on: np.ndarray | None = None
    _made: dict[object, Embedded] = field(default_factory=dict, repr=False)

    @classmethod
    def of_model(
        cls,
        name: str,
        model: MCN,
        store: Store,
        settings: ScoringSettings,
        modalities: tuple[str, ...] = MODALITIES,
        centroids: Centroids | None = None,
        trained_on: np.ndarray | None = None,
    ) -> Subject:
        """Return a model on a store as a subject. `settings.cosine` says whether its scores are cosines."""
        fusion = "mean_normalized" if settings.cosine else "sum"
        return cls(name, modalities, model, store, settings, fusion=fusion, centroids=centroids, trained_on=trained_on)

    @classmethod
    def of_embeddings(cls, given: Embedded) -> Subject:
        return cls(given.source, in_order(given.embeddings), given=given)

    def needed(self, modalities: tuple[str, ...], why: str) -> None:
        """Raise Untrained if the subject does not embed one of the modalities."""
        if lacking := [m for m in modalities if m not in self.modalities]:
            what = "these embeddings lack" if self.given is not None else "this model was not trained on"
            has = ", ".join(self.modalities)
            raise Untrained(f"{self.name}: {why} needs {lacking[0]}, which {what}; it knows {has}")

    def require_collection(self, collection: str, split: str) -> None:
        """Raise TrichordError if the store has no clips of a collection and split."""
        if self.store is not None and (collection, split) not in self.store.collections():
            known = ", ".join(f"{c}/{s}" for c, s in self.store.collections())
            raise TrichordError(
                f"{self.store.path}: has no clips of {collection}/{split}; it has {known}; "
                f"`trichord import {collection}` brings them"
            )

    def embedded(self, clip_set: ClipSet, modalities: tuple[str, ...], windows: Windows | None = None) -> Embedded:
        """Return the clips of a set in the joint space. They are computed once, by all processes of a launch together.

        Args:
            clip_set: Which clips.
            modalities: Which to embed at least.
            windows: How long clips are cut; None embeds each whole.

        Raises TrichordError when the model or the store lacks a modality.
        """
        needed = in_order(modalities)
        self.needed(needed, clip_set.address)
        self.require_collection(clip_set.collection, clip_set.split)
        if self.given is not None:
            if windows is not None:
                raise TrichordError(f"{self.name}: embeddings cannot be cut into windows; leave --windows out")
            return self.given
        key = (clip_set, windows)
        have = self._made.get(key)
        if have is None or not set(needed) <= set(have.embeddings):
            more = needed if have is None else in_order((*needed, *have.embeddings))
            self._made[key] = self._embed(clip_set, more, windows)
        return self._made[key]

    def clip_set(self, name: str, texts: Literal["each", "all"] = "each") -> ClipSet:
        """Return the clips of COLLECTION or COLLECTION/SPLIT of the store; '' means the only ones that are held out.

        Raises TrichordError when there are none, or several to choose from.
        """
        if self.given is not None or self.store is None:
            return ClipSet("embeddings", name or "all", texts=texts)
        held_out = benchmark_names(self.store)
        if not name and len(held_out) != 1:
            available = ", ".join(held_out) or "none"
            raise TrichordError(
                f"{self.store.path}: say which clips, as BENCHMARK:COLLECTION; held out are {available}"
            )
        return ClipSet.of_benchmark(find_benchmark(self.store, name or held_out[0]), texts)

    @property
    def made(self) -> list[Embedded]:
        """Return all sets that were embedded so far."""
        return [self.given] if self.given is not None else list(self._made.values())

    def text_rows(self, clip_set: ClipSet, modalities: tuple[str, ...]) -> TextRows:
        """Embed the texts of a set with all modalities of their clips, in batches of texts, as a study does.

        Where clips have several texts, `embedded` runs in batches of clips instead, which may change the last bits.

        Raises TrichordError as `embedded`.
        """
        store, texts = self._texts(clip_set, in_order(modalities))
        return TextRows(texts, *self._vectors(texts, in_order(modalities), clip_set), *clips_of_texts(store, texts))

    def _embed(self, clip_set: ClipSet, modalities: tuple[str, ...], windows: Windows | None) -> Embedded:
        store, texts = self._texts(clip_set, modalities)
        if clip_set.texts == "all":
            clips, text_clip = distinct_spans(texts)
        else:
            text_clip, first = clips_of_texts(store, texts)
            if windows is None and len(first) == len(texts):
                return self._found(clip_set, texts, texts, text_clip, *self._vectors(texts, modalities, clip_set))
            clips = texts.take(first)
        seen = tuple(m for m in modalities if m != "text")
        vectors: dict[str, np.ndarray] = {}
        valid: dict[str, np.ndarray] = {}
        if seen and windows is not None:
            cut, clip_of = window_clips(clips, windows)
            vectors, valid = pooled(*self._vectors(cut, seen, clip_set), clip_of, len(clips), windows)
        elif seen:
            vectors, valid = self._vectors(clips, seen, clip_set)
        if "text" in modalities:
            rows, there = self._vectors(texts, ("text",), clip_set)
            vectors, valid = vectors | rows, valid | there
        return self._found(clip_set, texts, clips, text_clip, vectors, valid)

    def _texts(self, clip_set: ClipSet, modalities: tuple[str, ...]) -> tuple[Store, Clips]:
        """Return the store, and the clips of a set with a row for each text."""
        assert self.store is not None and self.settings is not None
        require_modalities(self.store, modalities, clip_set.address, self.settings)
        items = self.store.select(clip_set.collection, clip_set.split)
        if self.trained_on is not None:
            check_overlap(self.store, self.trained_on, items, clip_set.address)
        texts = evaluation_clips(self.store, items, self.settings.min_clip_s)
        if not len(texts):
            raise TrichordError(
                f"{self.store.path}: no video of {clip_set.address} has captions, which its clips are made of"
            )
        return self.store, texts

    def _vectors(
        self, clips: Clips, modalities: tuple[str, ...], clip_set: ClipSet
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the embeddings of clips by modality, and which clips have one.

        Raises:
            Diverged: An embedding is not finite.
        """
        assert self.store is not None and self.model is not None and self.settings is not None
        frames = clip_set.audio_frames or self.settings.audio_frames
        embeddings, valid = embed_clips(self.model, self.store, clips, modalities, frames, self.settings)
        vectors = {m: v.numpy() for m, v in embeddings.items()}
        for modality, rows in vectors.items():
            if not np.isfinite(rows[valid[modality]]).all():
                raise Diverged(
                    f"{self.name}: {modality} embeddings of {clip_set.address} are not finite: the model has diverged; train "
                    "it again with a lower training.learning_rate"
                )
        return vectors, valid

    def _found(
        self,
        clip_set: ClipSet,
        texts: Clips,
        clips: Clips,
        text_clip: np.ndarray,
        vectors: dict[str, np.ndarray],
        valid: dict[str, np.ndarray],
    ) -> Embedded:
        """Return the embeddings with the names and captions of their clips."""
        store, settings = self.store, self.settings
        assert store is not None and settings is not None
        return Embedded.of(
            vectors,
            valid=valid,
            text_clip=text_clip,
            ids=clip_ids(store, clips),
            videos=[store.video_id(int(i)) for i in clips.item],
            start_s=clips.start_s,
            end_s=clips.end_s,
            captions=captions_of(store, texts),
            labels={"visual": [_visual(store, settings.visual_streams, int(i)) for i in clips.item]},
            source=f"{store.path} {clip_set.address}",
        )


def _visual(store: Store, streams: tuple[str, ...], item: int) -> str:
    """Whether the visual features of a video are `rows` over time, `pooled` into one, or not there: ``."""
    have = [name for name in streams if store.num_rows(name, item)]
    if len(have) < len(streams):
        return ""
    return "rows" if all(store.rate_hz(name, item) > 0 for name in have) else "pooled"


def distinct_spans(texts: Clips) -> tuple[Clips, np.ndarray]:
    """Return the distinct spans among clips, in order of appearance, with all captions, and the number of the span of each clip."""
    spans = list(zip(texts.item.tolist(), texts.start_s.tolist(), texts.end_s.tolist(), strict=True))
    places: dict[tuple[int, float, float], int] = {}
    text_clip = np.array([places.setdefault(span, len(places)) for span in spans], np.int64)
    first = np.unique(text_clip, return_index=True)[1] if len(text_clip) else np.empty(0, np.int64)
    said: list[list[np.ndarray]] = [[] for _ in places]
    for place, captions in zip(text_clip.tolist(), texts.captions, strict=True):
        said[place].append(captions)
    clips = texts.take(first)
    return Clips(clips.item, clips.start_s, clips.end_s, [np.concatenate(part) for part in said]), text_clip


def captions_of(store: Store, texts: Clips) -> list[str]:
    """Return the captions of each clip, joined by blanks."""
    return [
        " ".join(store.caption_text(int(item), int(c)) for c in captions)
        for item, captions in zip(texts.item, texts.captions, strict=True)
    ]


def clip_ids(store: Store, clips: Clips) -> list[str]:
    """Return the names of clips: that of the video if it has one clip, otherwise with the span. Names that repeat get `#2`, `#3`,
    ..."""
    of_video = Counter(clips.item.tolist())
    seen: Counter[str] = Counter()
    names: dict[str, None] = {}
    for item, start, end in zip(clips.item.tolist(), clips.start_s.tolist(), clips.end_s.tolist(), strict=True):
        name = store.video_id(item)
        name = name if of_video[item] == 1 else f"{name}@{start:.2f}-{end:.2f}"
        unused = name
        while unused in names:
            seen[name] += 1
            unused = f"{name}#{seen[name] + 1}"
        names[unused] = None
    return list(names)
