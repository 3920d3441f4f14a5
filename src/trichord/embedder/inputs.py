"""From what a user has (strings, files, arrays) to what the network reads, one item at a time: cut, pooled and padded as
`data.reader.ClipReader` does it with a store.

| what | given as |
|---|---|
| text | a string, or a sequence of strings: the captions of one clip |
| video | a file (also a still picture); frames (T, H, W, 3) uint8 with their rate; features (T, F), of several streams by name |
| audio | a file; mono samples (N,) with their rate; a log-mel spectrogram (40, T), or audio embeddings (T, C) |
| features | a file (.npy, or .npz with one array); a vector (F,); rows in time (T, F) |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trichord.audio_frames import NUM_MELS, time_to_frame
from trichord.data.reader import AUDIO_STREAM, EMBEDDING_STREAMS
from trichord.embedder.encoders import Absent, FeatureEncoders, file_of
from trichord.embedder.vocabulary import Vocabulary
from trichord.errors import TrichordError
from trichord.extraction.arrays import Width, checked_rows, load_features
from trichord.modalities.features import Features
from trichord.modalities.registry import specification
from trichord.modality import MODALITIES
from trichord.tasks.benchmarks import ScoringSettings


@dataclass(frozen=True)
class Span:
    """Part of an item, in seconds; `end_s` None: to its end."""

    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        end_s = float("inf") if self.end_s is None else self.end_s
        if not 0 <= self.start_s < end_s:
            raise TrichordError(f"a clip from {self.start_s:g} s to {end_s:g} s is empty; correct its start and end")

    @property
    def is_whole(self) -> bool:
        return self.start_s == 0 and self.end_s is None


@dataclass
class Inputs:
    """Makes the inputs of a network.

    Attributes:
        scoring: How clips are read.
        encoders: Of files and arrays.
        vocabulary: Of a network that reads words.
        dims: Width of each stream, as far as it is known.
    """

    scoring: ScoringSettings
    encoders: FeatureEncoders
    vocabulary: Vocabulary | None
    dims: Mapping[str, int]

    # ---- text

    def words(self, texts: Sequence[str | Sequence[str]], truncate: bool) -> list[np.ndarray]:
        """Vectors (L, W) of each text's words, or embeddings of its captions: at most `max_words`.

        Raises TrichordError for a text without a known word, and without `truncate` for one that is too long.
        """
        said: list[list[str]] = []
        for text in texts:
            several = isinstance(text, Iterable) and not isinstance(text, str | Mapping | set | frozenset)
            captions: list[Any] = list(text) if several else [text]
            if not all(isinstance(caption, str) for caption in captions):
                raise TrichordError(f"a text is a string or a sequence of strings, not {text!r:.60}; convert it")
            said.append(captions)
            if not any(caption.strip() for caption in captions):
                raise TrichordError("a text is empty; leave it out")
        if self.scoring.text == "embeddings":
            rows = [self.encoders.text_rows(captions).astype(np.float32) for captions in said]
        elif self.vocabulary is None:
            raise TrichordError(
                "the model came without its words; load it with words=TABLE, the table it was trained with"
            )
        else:
            rows = self.vocabulary.vectors_of(said)
        for captions, found in zip(said, rows, strict=True):
            told = " ".join(captions)
            if not len(found):
                source = self.vocabulary.source if self.vocabulary else ""
                raise TrichordError(f"no word of {told!r:.60} is known to the model ({source}); write it otherwise")
            if len(found) > self.scoring.max_words and not truncate:
                what = "words" if self.scoring.text == "words" else "captions"
                raise TrichordError(
                    f"{told!r:.60} has {len(found)} {what}, the model reads {self.scoring.max_words}; shorten it, or truncate"
                )
        return [found[: self.scoring.max_words] for found in rows]

    # ---- video

    def video(self, value: Any, span: Span, rate_hz: float | None) -> np.ndarray:
        """Pooled features (F,) float32 of one video, streams side by side.

        Raises TrichordError when it cannot be read, is of another form or width, or holds nothing in that span.
        """
        streams = self.scoring.visual_streams
        if isinstance(value, str | Path):
            path = file_of(value)
            return self._pooled(
                {s: self.encoders.video_rows(s, path, span.start_s, span.end_s) for s in streams}, str(path)
            )
        if isinstance(value, Mapping):
            if set(value) != set(streams):
                raise TrichordError(
                    f"features of {', '.join(map(str, value))} are given, the model reads {', '.join(streams)}"
                )
            return self._features({s: array_of(value[s]) for s in streams}, span)
        array = array_of(value)
        if array.ndim == 4:
            if rate_hz is None and len(array) > 1:
                raise TrichordError("frames are given without their rate; add rate_hz=, the frames a second")
            rows = {
                s: self.encoders.frame_rows(s, array, 1.0 if rate_hz is None else rate_hz, span.start_s, span.end_s)
                for s in streams
            }
            return self._pooled(rows, "the frames")
        if array.ndim == 2 and len(streams) == 1:
            return self._features({streams[0]: array}, span)
        wanted = "(T, F)" if len(streams) == 1 else f"{{name: (T, F)}} of {', '.join(streams)}"
        raise TrichordError(
            f"a video is a file, frames (T, H, W, 3) or features {wanted}, not {array.dtype} of shape {array.shape}"
        )

    def _features(self, rows: dict[str, np.ndarray], span: Span) -> np.ndarray:
        if not span.is_whole:
            raise TrichordError("features have no times here; give those of the clip, without start_s and end_s")
        for stream, array in rows.items():
            if array.ndim != 2 or array.dtype.kind != "f":
                raise TrichordError(
                    f"features of {stream} are (T, F) floating point, not {array.dtype} of shape {array.shape}"
                )
        return self._pooled(rows, "the features")

    def _pooled(self, rows: dict[str, np.ndarray], where: str) -> np.ndarray:
        parts = []
        for stream, found in rows.items():
            if not len(found):
                raise Absent(f"{where}: holds not one picture in that span; correct its start and end")
            if not np.isfinite(found).all():
                raise TrichordError(f"{where}: {stream} holds numbers that are not finite; make them anew")
            dim = self.dims.get(stream, found.shape[1])
            if found.shape[1] != dim:
                raise TrichordError(
                    f"{where}: {stream} has width {found.shape[1]}, the model reads {dim}; use its encoder"
                )
            parts.append(unit_row(found.max(axis=0).astype(np.float32)))
        pooled = np.concatenate(parts)
        if len(pooled) != self.dims["video"]:
            raise TrichordError(f"{where}: width {len(pooled)}, the model reads {self.dims['video']}; use its encoders")
        return pooled

    # ---- audio

    def audio(self, value: Any, span: Span, rate_hz: float | None, truncate: bool) -> np.ndarray:
        """One sound's spectrogram (T, 40) of at most `audio_frames`; with audio embeddings the pooled row (C,).

        Raises TrichordError when it cannot be read, is of another form, or holds nothing in that span; without `truncate`
        when it is too long.
        """
        embeds = self.scoring.audio == "embeddings"
        stream = EMBEDDING_STREAMS["audio"] if embeds else AUDIO_STREAM
        if isinstance(value, str | Path):
            path, where = file_of(value), str(value)
            rows = self.encoders.sound_rows(stream, path)
            frame_hz = float(self.encoders.get(stream).rate_hz)
            ends_s = None
            if span.end_s is not None and not embeds:
                ends_s = self.encoders.sound_duration_s(path, len(rows), frame_hz)
        else:
            array, where, ends_s = array_of(value), "the sound", None
            if array.ndim == 1:
                if rate_hz is None:
                    raise TrichordError("a waveform is given without its rate; add rate_hz=, the samples a second")
                rows = self.encoders.waveform_rows(stream, array, rate_hz)
                frame_hz = float(self.encoders.get(stream).rate_hz)
                ends_s = len(array) / rate_hz
            else:
                rows, frame_hz = self._given_sound(array, span, embeds), 100.0
                ends_s = len(rows) / frame_hz
        if embeds:
            last = None if span.end_s is None else int(span.end_s * frame_hz) + 1
            return self._mean(rows[int(span.start_s * frame_hz) : last], where)
        return self._frames(rows, span, ends_s, where, truncate)

    def _given_sound(self, array: np.ndarray, span: Span, embeds: bool) -> np.ndarray:
        form = "audio embeddings (T, C)" if embeds else f"a log-mel spectrogram ({NUM_MELS}, T)"
        width = self.dims["audio"] if embeds else NUM_MELS
        fits = array.ndim == 2 and array.dtype.kind == "f" and array.shape[1 if embeds else 0] == width
        if not fits:
            raise TrichordError(
                f"a sound is a file, samples (N,) or {form} of width {width}, not {array.dtype} of shape {array.shape}"
            )
        if embeds and not span.is_whole:
            raise TrichordError("embeddings have no times here; give those of the clip, without start_s and end_s")
        if not np.isfinite(array).all():
            raise TrichordError("the sound holds numbers that are not finite; make it anew")
        return array if embeds else array.T

    def _mean(self, rows: np.ndarray, where: str) -> np.ndarray:
        if not len(rows):
            raise Absent(f"{where}: holds no sound in that span; correct its start and end")
        if rows.shape[1] != self.dims["audio"]:
            raise TrichordError(
                f"{where}: width {rows.shape[1]}, the model reads {self.dims['audio']}; use its encoder"
            )
        return unit_row(rows.mean(axis=0, dtype=np.float32))

    def _frames(self, rows: np.ndarray, span: Span, ends_s: float | None, where: str, truncate: bool) -> np.ndarray:
        longest = self.scoring.audio_frames
        whole = span.start_s <= 0 and (span.end_s is None or (ends_s is not None and span.end_s >= ends_s))
        begin = 0 if whole else time_to_frame(span.start_s)
        end = len(rows) if whole or span.end_s is None else time_to_frame(span.end_s)
        found = rows[begin:end]
        if not len(found):
            raise Absent(f"{where}: holds no sound in that span; correct its start and end")
        if len(found) > longest and not truncate:
            raise TrichordError(
                f"{where}: {len(found) / 100:.1f} s of sound, the model reads {longest / 100:.1f} s; "
                "give start_s and end_s, or truncate"
            )
        return np.asarray(found[:longest])

    # ---- further modalities

    def features(self, modality: str, value: Any) -> np.ndarray:
        """Pooled features (F,) float32 of one clip: the maximum of its rows, of length one.

        Raises TrichordError when it cannot be read, is of another form or width, or holds numbers that are not finite.
        """
        if not isinstance(specification(modality), Features):
            other = f"encode_{modality}" if modality in MODALITIES else "trichord evaluate --save-embeddings"
            raise TrichordError(f"{modality} is not read as one vector of features for each clip; use {other}")
        if isinstance(value, str | Path):
            path = file_of(value)
            array, where = load_features(path), f"{modality}: {path}"
        else:
            array, where = array_of(value), f"{modality}: the array"
        rows = checked_rows(array, where, Width(int(self.dims[modality]), "the model"))
        return unit_row(rows.max(axis=0).astype(np.float32))


def unit_row(row: np.ndarray) -> np.ndarray:
    """A vector of length one; zeros stay."""
    return np.asarray(row / max(float(np.linalg.norm(row)), 1e-12), np.float32)


def array_of(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
