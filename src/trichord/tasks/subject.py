"""The subject of an evaluation: a model on a store, or embeddings from a file. Protocols get `Embedded` in both cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from trichord.data.batches import clips_of_texts, evaluation_clips
from trichord.data.reader import Clips, require_modalities
from trichord.errors import Diverged, TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.files.arrays import shortened
from trichord.modality import MODALITIES, in_order
from trichord.store.overlap import check_overlap
from trichord.tasks.benchmarks import Benchmark, ScoringSettings, benchmark_names, embed_clips, find_benchmark
from trichord.tasks.windows import Windows, pooled, window_clips

if TYPE_CHECKING:
    from trichord.losses.centroids import Centroids
    from trichord.nn import MCN
    from trichord.store import Store


class Untrained(TrichordError):
    """The subject does not embed a required modality."""


@dataclass(frozen=True)
class ClipSet:
    """A set of clips of a store.

    Attributes:
        collection: Collection of the store.
        split: Split of the collection.
        audio_frames: Number of spectrogram frames of a clip. 0 uses that of the model.
        texts: With `each`, every caption with times is a clip with a single text, and captions of a whole video are texts of the
            same clip. With `all`, all captions with the same times are texts of the same clip.
    """

    collection: str
    split: str
    audio_frames: int = 0
    texts: Literal["each", "all"] = "each"

    @property
    def address(self) -> str:
        """The clips as COLLECTION/SPLIT."""
        return f"{self.collection}/{self.split}"

    @classmethod
    def of_benchmark(cls, benchmark: Benchmark, texts: Literal["each", "all"] = "each") -> ClipSet:
        """Return the clips of a benchmark."""
        return cls(benchmark.collection, benchmark.split, benchmark.audio_frames, texts)


@dataclass(frozen=True, eq=False)
class TextRows:
    """M texts of N clips, each with the embeddings of its clip.

    Attributes:
        texts: Clips with a row for each text.
        embeddings: Embeddings (M, D) by modality.
        valid: Masks (M,) of the rows that have the modality.
        embedded: The same embeddings with a row for each clip, as they are scored.
    """

    texts: Clips
    embeddings: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    embedded: Embedded


@dataclass(frozen=True, eq=False)
class Subject:
    """A model on a store (`model`, `store`, `settings`), or embeddings (`given`).

    Attributes:
        name: Name for messages and results.
        modalities: Modalities that the model was trained on, or that were embedded.
        model: Network.
        store: Store with the clips.
        settings: Settings by which clips are read and scored.
        given: Embeddings from a file, which are used for every set of clips.
        fusion: Default rule by which several modalities are combined: `sum` or `mean_normalized`.
        centroids: Centroids of the model. None if it has none.
        trained_on: Numbers of the items of the store that the model was trained on. None if it was trained on another store.
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
        """Return a model on a store as a subject.

        Args:
            name: Name for messages and results.
            model: Network.
            store: Store with the clips.
            settings: Settings by which clips are read and scored. `cosine` determines the default fusion rule.
            modalities: Modalities that the model was trained on.
            centroids: Centroids of the model.
            trained_on: Numbers of the items of the store that the model was trained on.
        """
        fusion = "mean_normalized" if settings.cosine else "sum"
        return cls(name, modalities, model, store, settings, fusion=fusion, centroids=centroids, trained_on=trained_on)

    @classmethod
    def of_embeddings(cls, given: Embedded) -> Subject:
        """Return embeddings from a file as a subject."""
        return cls(given.source, in_order(given.embeddings), given=given)

    def needed(self, modalities: tuple[str, ...], why: str) -> None:
        """Check that the subject embeds all given modalities.

        Args:
            modalities: Required modalities.
            why: Name of what requires them, for the message.

        Raises:
            Untrained: The subject lacks one of them.
        """
        if lacking := [m for m in modalities if m not in self.modalities]:
            what = "these embeddings lack" if self.given is not None else "this model was not trained on"
            has = ", ".join(self.modalities)
            raise Untrained(f"{self.name}: {why} needs {lacking[0]}, which {what}; available modalities: {has}")

    def require_collection(self, collection: str, split: str) -> None:
        """Check that the store has clips of a collection and split.

        Raises:
            TrichordError: It has none.
        """
        if self.store is not None and (collection, split) not in self.store.collections():
            known = ", ".join(f"{c}/{s}" for c, s in self.store.collections())
            raise TrichordError(
                f"{self.store.path}: contains no clips of {collection}/{split}; it has {known}; "
                f"add them with `trichord import {collection}`"
            )

    def embedded(self, clip_set: ClipSet, modalities: tuple[str, ...], windows: Windows | None = None) -> Embedded:
        """Return the embeddings of a set of clips, which are computed once. All processes of a launch call this together.

        Args:
            clip_set: Set of clips.
            modalities: Modalities to embed. The result may contain further ones.
            windows: Windows into which long clips are cut. None embeds them whole.

        Raises:
            TrichordError: The model or the store lacks a modality or the clips, or embeddings from a file would have to be cut.
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
        """Return a set of clips.

        Args:
            name: COLLECTION or COLLECTION/SPLIT of the store. '' selects the only held-out clips.
            texts: How captions are assigned to clips (`ClipSet.texts`).

        Raises:
            TrichordError: There are no such clips, or '' is ambiguous.
        """
        if self.given is not None or self.store is None:
            return ClipSet("embeddings", name or "all", texts=texts)
        held_out = benchmark_names(self.store)
        if not name and len(held_out) != 1:
            available = ", ".join(held_out) or "none"
            raise TrichordError(
                f"{self.store.path}: choose the clips with BENCHMARK:COLLECTION; collections with held-out clips: {available}"
            )
        return ClipSet.of_benchmark(find_benchmark(self.store, name or held_out[0]), texts)

    @property
    def made(self) -> list[Embedded]:
        """All sets of clips that have been embedded."""
        return [self.given] if self.given is not None else list(self._made.values())

    def text_rows(self, clip_set: ClipSet, modalities: tuple[str, ...]) -> TextRows:
        """Embed the texts of a set with all modalities of their clips, in batches of texts, as in a study.

        If clips have several texts, `embedded` uses batches of clips instead, which can change the last bits.

        Args:
            clip_set: Set of clips.
            modalities: Modalities to embed.

        Raises:
            TrichordError: The model or the store lacks a modality or the clips.
        """
        store, texts = self._texts(clip_set, in_order(modalities))
        vectors, valid = self._vectors(texts, in_order(modalities), clip_set)
        text_clip, first = clips_of_texts(store, texts)
        by_clip = [{m: rows if m == "text" else rows[first] for m, rows in part.items()} for part in (vectors, valid)]
        return TextRows(
            texts, vectors, valid, self._with_names(clip_set, texts, texts.take(first), text_clip, *by_clip)
        )

    def _embed(self, clip_set: ClipSet, modalities: tuple[str, ...], windows: Windows | None) -> Embedded:
        store, texts = self._texts(clip_set, modalities)
        if clip_set.texts == "all":
            clips, text_clip = distinct_spans(texts)
        else:
            text_clip, first = clips_of_texts(store, texts)
            if windows is None and len(first) == len(texts):
                return self._with_names(clip_set, texts, texts, text_clip, *self._vectors(texts, modalities, clip_set))
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
        return self._with_names(clip_set, texts, clips, text_clip, vectors, valid)

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
                f"{self.store.path}: no video of {clip_set.address} has captions, from which its clips would be made"
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

    def _with_names(
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
    """Return whether the visual features of a video are `rows` over time or `pooled` into one, or '' if they are missing."""
    have = [name for name in streams if store.num_rows(name, item)]
    if len(have) < len(streams):
        return ""
    return "rows" if all(store.rate_hz(name, item) > 0 for name in have) else "pooled"


def distinct_spans(texts: Clips) -> tuple[Clips, np.ndarray]:
    """Merge clips with the same times.

    Args:
        texts: M clips.

    Returns:
        N clips with distinct times, in order of appearance, each with all its captions, and the index (M,) of the merged clip of
        each given clip.
    """
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
    """Return the captions of each clip, joined by spaces, as texts that fit in an array (`files.arrays.shortened`)."""
    return shortened(
        [
            " ".join(store.caption_text(int(item), int(c)) for c in captions)
            for item, captions in zip(texts.item, texts.captions, strict=True)
        ]
    )


def clip_ids(store: Store, clips: Clips) -> list[str]:
    """Return unique names of clips (`names_of_clips`)."""
    return names_of_clips([store.video_id(int(item)) for item in clips.item], clips.start_s, clips.end_s)


def names_of_clips(videos: Sequence[str], start_s: np.ndarray, end_s: np.ndarray) -> list[str]:
    """Return unique names of clips.

    The name of a clip is the id of its video. If the video has several clips, their times are appended, and if several clips have
    the same times, also `#2`, `#3` and so on.

    Args:
        videos: Id of the video of each clip.
        start_s: Start of each clip in seconds.
        end_s: End of each clip in seconds.
    """
    of_video = Counter(videos)
    seen: Counter[str] = Counter()
    names: dict[str, None] = {}
    for video, start, end in zip(videos, start_s.tolist(), end_s.tolist(), strict=True):
        name = video if of_video[video] == 1 else f"{video}@{start:.2f}-{end:.2f}"
        unused = name
        while unused in names:
            seen[name] += 1
            unused = f"{name}#{seen[name] + 1}"
        names[unused] = None
    return list(names)
