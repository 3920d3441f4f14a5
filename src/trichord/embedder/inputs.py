"""Convert strings, files and arrays to inputs of the network, one item at a time.

Items are cut, pooled and padded in the same way as by `data.reader.ClipReader`, which reads a store.

| input | given as |
|---|---|
| text | a string, or a sequence of strings: the captions of one clip |
| video | a file (also a still picture); frames (T, H, W, 3) uint8 with their rate; features (T, F), by name for several streams |
| audio | a file; mono samples (N,) with their rate; a log-mel spectrogram (40, T), or audio embeddings (T, C) |
| features | a file (.npy, or .npz with one array); a vector (F,); rows over time (T, F) |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Span:
    """Part of an item.

    Attributes:
        start_s: Start in seconds.
        end_s: End in seconds; None for the end of the item.

    Example:
        >>> Span(1.0, 2.5)
        Span(start_s=1.0, end_s=2.5)
        >>> Span(2.0, 2.0)
        Traceback (most recent call last):
        trichord.errors.TrichordError: the clip from 2 s to 2 s is empty; correct its start and end
    """

    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        end_s = float("inf") if self.end_s is None else self.end_s
        if not 0 <= self.start_s < end_s:
            raise TrichordError(f"the clip from {self.start_s:g} s to {end_s:g} s is empty; correct its start and end")

    @property
    def is_whole(self) -> bool:
        """Whether the span is the whole item.

        Example:
            >>> Span().is_whole, Span(end_s=2.5).is_whole
            (True, False)
        """
        return self.start_s == 0 and self.end_s is None


@dataclass
class Inputs:
    """Converter of items to inputs of the network.

    Attributes:
        scoring: How clips are read.
        encoders: Encoders of files and arrays.
        vocabulary: Vocabulary of a network that reads words.
        dims: Width of each stream, as far as it is known.

    Example:
        >>> from trichord import Embedder
        >>> inputs = Embedder.from_pretrained("my_model").inputs
        >>> inputs.video(np.ones((5, 1280), np.float32), Span(), rate_hz=None).shape
        (1280,)
    """

    scoring: ScoringSettings
    encoders: FeatureEncoders
    vocabulary: Vocabulary | None
    dims: Mapping[str, int]

    # ---- text

    def words(self, texts: Sequence[str | Sequence[str]], truncate: bool) -> list[np.ndarray]:
        """Return the vectors (L, W) of the words of each text, or the embeddings of its captions: at most `max_words`.

        Args:
            texts: Strings, or sequences of strings with the captions of a clip.
            truncate: Whether to cut texts that are too long.

        Raises:
            TrichordError: A text contains no known word, or it is too long and `truncate` is false.

        Example:
            >>> from trichord import Embedder
            >>> inputs = Embedder.from_pretrained("my_model").inputs
            >>> vectors = inputs.words(["stir the soup", ("cut the bread", "fry an egg")], truncate=True)
            >>> [rows.shape for rows in vectors]
            [(3, 6), (6, 6)]
        """
        captions_of_texts: list[list[str]] = []
        for text in texts:
            is_sequence = isinstance(text, Iterable) and not isinstance(text, str | Mapping | set | frozenset)
            captions: list[Any] = list(text) if is_sequence else [text]
            if not all(isinstance(caption, str) for caption in captions):
                raise TrichordError(f"a text must be a string or a sequence of strings, not {text!r:.60}; convert it")
            captions_of_texts.append(captions)
            if not any(caption.strip() for caption in captions):
                raise TrichordError("a text is empty; remove it")
        if self.scoring.text == "embeddings":
            rows = [self.encoders.text_rows(captions).astype(np.float32) for captions in captions_of_texts]
        elif self.vocabulary is None:
            raise TrichordError(
                "the model was saved without its words; load it with words=TABLE, the word table that it was trained with"
            )
        else:
            rows = self.vocabulary.vectors_of(captions_of_texts)
        for captions, vectors in zip(captions_of_texts, rows, strict=True):
            joined_text = " ".join(captions)
            if not len(vectors):
                source = self.vocabulary.source if self.vocabulary else ""
                raise TrichordError(
                    f"the model ({source}) does not know any word of {joined_text!r:.60}; use other words"
                )
            if len(vectors) > self.scoring.max_words and not truncate:
                unit_name = "words" if self.scoring.text == "words" else "captions"
                raise TrichordError(
                    f"{joined_text!r:.60} has {len(vectors)} {unit_name}, but the model reads at most {self.scoring.max_words}; "
                    "shorten it, or pass truncate=True"
                )
        return [vectors[: self.scoring.max_words] for vectors in rows]

    # ---- video

    def video(self, value: Any, span: Span, rate_hz: float | None) -> np.ndarray:
        """Return the pooled features (F,) float32 of one video, with all streams concatenated.

        Args:
            value: A file, frames (T, H, W, 3) or features (T, F), or features by stream.
            span: Part of the item.
            rate_hz: Number of frames per second, for frames.

        Raises:
            TrichordError: The item cannot be read, has an unknown form or width, or is empty in this span.

        Example:
            >>> from trichord import Embedder
            >>> inputs = Embedder.from_pretrained("my_model").inputs
            >>> row = inputs.video({"visual_2d": np.ones((5, 1280), np.float32)}, Span(), rate_hz=None)
            >>> row.shape, round(float(np.linalg.norm(row)), 3)
            ((1280,), 1.0)
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
                    f"features of {', '.join(map(str, value))} were given, but the model reads {', '.join(streams)}; give features "
                    "of all its streams"
                )
            return self._features({s: array_of(value[s]) for s in streams}, span)
        array = array_of(value)
        if array.ndim == 4:
            if rate_hz is None and len(array) > 1:
                raise TrichordError(
                    "frames were given without their rate; pass the number of frames per second as rate_hz"
                )
            rows = {
                s: self.encoders.frame_rows(s, array, 1.0 if rate_hz is None else rate_hz, span.start_s, span.end_s)
                for s in streams
            }
            return self._pooled(rows, "the frames")
        if array.ndim == 2 and len(streams) == 1:
            return self._features({streams[0]: array}, span)
        form = "(T, F)" if len(streams) == 1 else f"{{name: (T, F)}} of {', '.join(streams)}"
        raise TrichordError(
            f"a video must be a file, frames (T, H, W, 3) or features {form}, not {array.dtype} of shape {array.shape}"
        )

    def _features(self, rows: dict[str, np.ndarray], span: Span) -> np.ndarray:
        if not span.is_whole:
            raise TrichordError("start_s and end_s cannot be applied to features; give the features of the clip only")
        for stream, array in rows.items():
            if array.ndim != 2 or array.dtype.kind != "f":
                raise TrichordError(
                    f"features of {stream} must be floating-point arrays (T, F), not {array.dtype} of shape {array.shape}"
                )
        return self._pooled(rows, "the features")

    def _pooled(self, rows: dict[str, np.ndarray], where: str) -> np.ndarray:
        parts = []
        for stream, features in rows.items():
            if not len(features):
                raise Absent(f"{where}: there is no picture in this span; correct its start and end")
            if not np.isfinite(features).all():
                raise TrichordError(f"{where}: {stream} contains numbers that are not finite; compute them again")
            dim = self.dims.get(stream, features.shape[1])
            if features.shape[1] != dim:
                raise TrichordError(
                    f"{where}: {stream} has width {features.shape[1]}, but the model reads width {dim}; use its encoder"
                )
            parts.append(unit_row(features.max(axis=0).astype(np.float32)))
        pooled = np.concatenate(parts)
        if len(pooled) != self.dims["video"]:
            raise TrichordError(
                f"{where}: the features have width {len(pooled)}, but the model reads width {self.dims['video']}; use "
                "its encoders"
            )
        return pooled

    # ---- audio

    def audio(self, value: Any, span: Span, rate_hz: float | None, truncate: bool) -> np.ndarray:
        """Return the spectrogram (T, 40) of a sound with at most `audio_frames` frames, or its pooled audio embeddings (C,).

        Args:
            value: A file, mono samples (N,), a log-mel spectrogram (40, T), or audio embeddings (T, C).
            span: Part of the item.
            rate_hz: Number of samples per second, for samples.
            truncate: Whether to cut sounds that are too long.

        Raises:
            TrichordError: The item cannot be read, has an unknown form, is empty in this span, or is too long and `truncate` is
                false.

        Example:
            >>> from trichord import Embedder
            >>> inputs = Embedder.from_pretrained("my_model").inputs
            >>> inputs.audio(np.zeros((40, 300), np.float32), Span(1.0, 2.0), rate_hz=None, truncate=True).shape
            (100, 40)
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
                    raise TrichordError(
                        "a waveform was given without its rate; pass the number of samples per second as rate_hz"
                    )
                rows = self.encoders.waveform_rows(stream, array, rate_hz)
                frame_hz = float(self.encoders.get(stream).rate_hz)
                ends_s = len(array) / rate_hz
            else:
                rows, frame_hz = self._checked_sound(array, span, embeds), 100.0
                ends_s = len(rows) / frame_hz
        if embeds:
            last = None if span.end_s is None else int(span.end_s * frame_hz) + 1
            return self._mean(rows[int(span.start_s * frame_hz) : last], where)
        return self._frames(rows, span, ends_s, where, truncate)

    def _checked_sound(self, array: np.ndarray, span: Span, embeds: bool) -> np.ndarray:
        form = "audio embeddings (T, C)" if embeds else f"a log-mel spectrogram ({NUM_MELS}, T)"
        width = self.dims["audio"] if embeds else NUM_MELS
        fits = array.ndim == 2 and array.dtype.kind == "f" and array.shape[1 if embeds else 0] == width
        if not fits:
            raise TrichordError(
                f"a sound must be a file, samples (N,) or {form} of width {width}, not {array.dtype} of shape {array.shape}"
            )
        if embeds and not span.is_whole:
            raise TrichordError(
                "start_s and end_s cannot be applied to embeddings; give the embeddings of the clip only"
            )
        if not np.isfinite(array).all():
            raise TrichordError("the sound contains numbers that are not finite; compute it again")
        return array if embeds else array.T

    def _mean(self, rows: np.ndarray, where: str) -> np.ndarray:
        if not len(rows):
            raise Absent(f"{where}: there is no sound in this span; correct its start and end")
        if rows.shape[1] != self.dims["audio"]:
            raise TrichordError(
                f"{where}: the embeddings have width {rows.shape[1]}, but the model reads width {self.dims['audio']}; use its "
                "encoder"
            )
        return unit_row(rows.mean(axis=0, dtype=np.float32))

    def _frames(self, rows: np.ndarray, span: Span, ends_s: float | None, where: str, truncate: bool) -> np.ndarray:
        max_frames = self.scoring.audio_frames
        whole = span.start_s <= 0 and (span.end_s is None or (ends_s is not None and span.end_s >= ends_s))
        begin = 0 if whole else time_to_frame(span.start_s)
        end = len(rows) if whole or span.end_s is None else time_to_frame(span.end_s)
        frames = rows[begin:end]
        if not len(frames):
            raise Absent(f"{where}: there is no sound in this span; correct its start and end")
        if len(frames) > max_frames and not truncate:
            raise TrichordError(
                f"{where}: the sound has {len(frames) / 100:.1f} s, but the model reads at most {max_frames / 100:.1f} s; "
                "give start_s and end_s, or pass truncate=True"
            )
        return np.asarray(frames[:max_frames])

    # ---- further modalities

    def features(self, modality: str, value: Any) -> np.ndarray:
        """Return the pooled features (F,) float32 of one clip: the maximum of its rows, normalized.

        Args:
            modality: Name of the modality.
            value: A file (.npy, or .npz with one array), a vector (F,), or rows over time (T, F).

        Raises:
            TrichordError: The item cannot be read, has an unknown form or width, or contains numbers that are not finite.

        Example:
            >>> from trichord import Embedder
            >>> Embedder.from_pretrained("my_depth_model").inputs.features("depth", "a.npy").shape
            (7,)
        """
        if not isinstance(specification(modality), Features):
            other = f"encode_{modality}" if modality in MODALITIES else "trichord evaluate --save-embeddings"
            raise TrichordError(f"{modality} is not read as a feature vector per clip; use {other} instead")
        if isinstance(value, str | Path):
            path = file_of(value)
            array, where = load_features(path), f"{modality}: {path}"
        else:
            array, where = array_of(value), f"{modality}: the array"
        rows = checked_rows(array, where, Width(int(self.dims[modality]), "the model"))
        return unit_row(rows.max(axis=0).astype(np.float32))


def audio_inputs(rows: Sequence[np.ndarray], scoring: ScoringSettings) -> dict[str, torch.Tensor]:
    """Return the inputs of the network by name for a batch of spectrograms (T, 40) or pooled audio embeddings (C,).

    Example:
        >>> from trichord import Embedder
        >>> scoring = Embedder.from_pretrained("my_model").parts.scoring
        >>> inputs = audio_inputs([np.zeros((200, 40), np.float32), np.zeros((100, 40), np.float32)], scoring)
        >>> inputs["audio"].shape, inputs["audio_frames"]
        (torch.Size([2, 40, 400]), tensor([200, 100]))
    """
    import torch

    if scoring.audio == "embeddings":
        return {"audio_pooled": torch.from_numpy(np.stack(rows))}
    padded = np.full((len(rows), scoring.audio_frames, rows[0].shape[1]), scoring.audio_pad_db, np.float32)
    for row, frames in enumerate(rows):
        padded[row, : len(frames)] = frames
    audio = torch.from_numpy(padded).transpose(1, 2)  # the same memory layout as in the reader
    return {"audio": audio, "audio_frames": torch.tensor([len(frames) for frames in rows])}


def text_inputs(rows: Sequence[np.ndarray], scoring: ScoringSettings) -> dict[str, torch.Tensor]:
    """Return the inputs of the network by name for a batch of word vectors, or embeddings of captions, (L, W) each.

    Example:
        >>> from trichord import Embedder
        >>> scoring = Embedder.from_pretrained("my_model").parts.scoring
        >>> inputs = text_inputs([np.zeros((3, 6), np.float32), np.zeros((1, 6), np.float32)], scoring)
        >>> inputs["text"].shape, inputs["text_mask"].sum(1)
        (torch.Size([2, 20, 6]), tensor([3, 1]))
    """
    import torch

    length = scoring.max_words if scoring.text == "words" else max(map(len, rows))
    text, mask = np.zeros((len(rows), length, rows[0].shape[1]), np.float32), np.zeros((len(rows), length), bool)
    for row, vectors in enumerate(rows):
        text[row, : len(vectors)], mask[row, : len(vectors)] = vectors, True
    return {"text": torch.from_numpy(text), "text_mask": torch.from_numpy(mask)}


def stream_widths(arguments: Mapping[str, Any], scoring: ScoringSettings) -> dict[str, int]:
    """Return the widths of modalities and streams that the arguments of a network determine, by name.

    Example:
        >>> from trichord import Embedder
        >>> embedder = Embedder.from_pretrained("my_model")
        >>> stream_widths(embedder.model.arguments, embedder.parts.scoring)
        {'video': 1280, 'audio': 40, 'visual_2d': 1280}
    """
    widths = {"video": arguments["video_dim"], "audio": arguments["audio_dim"] or arguments["mel_bins"]}
    widths |= arguments.get("feature_dims", {})
    if len(scoring.visual_streams) == 1:
        widths[scoring.visual_streams[0]] = arguments["video_dim"]
    return widths


def unit_row(row: np.ndarray) -> np.ndarray:
    """Return a normalized vector; zeros stay zero.

    Example:
        >>> unit_row(np.array([3.0, 4.0]))
        array([0.6, 0.8], dtype=float32)
    """
    return np.asarray(row / max(float(np.linalg.norm(row)), 1e-12), np.float32)


def array_of(value: Any) -> np.ndarray:
    """Return a tensor or another value as an array.

    Example:
        >>> import torch
        >>> array_of(torch.ones(2, requires_grad=True))
        array([1., 1.], dtype=float32)
    """
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
