"""Feature encoders of a model, identified by their fingerprints, and the feature rows that they compute from files and arrays.

For the same part of the same file, the rows equal those of an extraction into a store. Encoders are loaded when they are first
used. An encoder whose features would differ from those of the recorded one is rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trichord.data.reader import EMBEDDING_STREAMS
from trichord.errors import TrichordError
from trichord.extraction.file_rows import FILE_ROWS
from trichord.features.encoders import Fingerprint, VisualEncoder, recorded_name, same_features
from trichord.files.reading import missing
from trichord.media import choose_decoder, image, pictures, probe, sound
from trichord.media.arrays import pictures_of
from trichord.media.watchdog import watched, watching
from trichord.store.location import shown_url

LOG_MEL_STREAM = "spectrogram"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".svg", ".svgz")
_FRAMES_PER_BLOCK = 64
_URL = re.compile(
    r"((?:[^/]*::)?[A-Za-z][A-Za-z0-9+.-]+):/+"
)  # pathlib merges the two slashes of a URL; the drive of a path has a single letter


class Absent(TrichordError):
    """The item does not contain a modality, or does not contain it in the requested span.

    Example:
        >>> encoders = FeatureEncoders({"visual_2d": {"name": "efficientnet-lite0-64"}})
        >>> try:
        ...     encoders.sound_rows("spectrogram", Path("silent.mp4"))
        ... except Absent as error:
        ...     print(error)
        silent.mp4: the file has no sound; give another file, or do not embed its audio
    """


def file_of(value: str | Path) -> Path:
    """Return the path of a file, which may not exist.

    Raises:
        TrichordError: The value is a folder or a URL.

    Example:
        >>> file_of("a.mp4").name
        'a.mp4'
        >>> file_of("https://example.org/a.mp4")
        Traceback (most recent call last):
        trichord.errors.TrichordError: https://example.org/a.mp4: URLs are not supported; download the file first
    """
    path = Path(value)
    if path.is_dir():
        raise TrichordError(f"{path}: the path is a folder; give the files in it")
    if (match := _URL.match(str(value))) and not path.exists():
        url = shown_url(f"{match[1]}://{str(value)[match.end() :]}")
        raise TrichordError(f"{url}: URLs are not supported; download the file first")
    return path


class FeatureEncoders:
    """Encoders of the feature streams of a model.

    Args:
        recorded: Fingerprint of the encoder of each stream as recorded in the store (`Fingerprint.to_dict`); streams without a
            recorded encoder are absent.
        names: Encoder of each stream, named as in `trichord extract`. It replaces the recorded encoder, for example if its folder
            has moved or no encoder was recorded.
        weights: Weights file of the encoder of each stream, instead of the default file.
        device: Device of the encoders.

    Example:
        >>> encoders = FeatureEncoders({"visual_2d": {"name": "efficientnet-lite0-64"}})
        >>> encoders.video_rows("visual_2d", Path("a.mp4"), start_s=0.0, end_s=None).shape
        (2, 1280)
    """

    def __init__(
        self,
        recorded: Mapping[str, Mapping[str, Any]],
        *,
        names: Mapping[str, str] | None = None,
        weights: Mapping[str, Path] | None = None,
        device: str = "cpu",
    ) -> None:
        self.recorded = {stream: dict(entry) for stream, entry in recorded.items()}
        self.names, self.weights, self.device = dict(names or {}), dict(weights or {}), device
        self._loaded: dict[str, Any] = {}

    def get(self, stream: str) -> Any:
        """Return the encoder of a stream.

        Raises:
            TrichordError: The encoder is unknown, is not available, or differs from the recorded one.

        Example:
            >>> encoders = FeatureEncoders({}, names={"visual_2d": "efficientnet-lite0-64"})
            >>> encoders.get("visual_2d").dim
            1280
        """
        if stream not in self._loaded:
            name = self.names.get(stream) or recorded_name(self.recorded.get(stream, {}), stream)
            if not name and stream == LOG_MEL_STREAM:
                name = "log-mel"
            if not name:
                raise TrichordError(
                    f"the model does not record the encoder of its {stream} features; give its name, such as "
                    f"encoders={{'{stream}': 'resnet152'}} (`trichord extract --list-encoders`), or pass features"
                )
            try:
                encoder = self._load(stream, name)
            except TrichordError as error:
                raise TrichordError(
                    f"the encoder {name} of the stream {stream} cannot be loaded: {error} (in Python: weights={{'{stream}': FILE}} "
                    f"or encoders={{'{stream}': NAME}})"
                ) from None
            self._check(stream, encoder.fingerprint)
            self._loaded[stream] = encoder
        return self._loaded[stream]

    def _load(self, stream: str, name: str) -> Any:
        if stream == LOG_MEL_STREAM:
            from trichord.features.spectrogram import LogMel

            if self.names.get(stream, "log-mel") != "log-mel":
                raise TrichordError(
                    "the only encoder of spectrograms is log-mel; omit the encoder of the spectrogram stream"
                )
            return LogMel()
        if stream == EMBEDDING_STREAMS["audio"]:
            from trichord.features.audio import load_audio_encoder

            return load_audio_encoder(name, self.device)
        if stream == EMBEDDING_STREAMS["text"]:
            from trichord.features.text import load_text_encoder

            return load_text_encoder(name, self.device)
        from trichord.features.visual import load_visual_encoder

        weights = self.weights.get(stream)
        return load_visual_encoder(name, None if weights is None else Path(weights), self.device)

    def _check(self, stream: str, loaded: Fingerprint) -> None:
        recorded = self.recorded.get(stream, {})
        if not same_features(recorded, loaded):
            raise TrichordError(
                f"the {stream} features of the model were computed by {recorded['name']} ({recorded['digest']}), but "
                f"{loaded.name} ({loaded.digest}) computes different features; use the same encoder, version and weights"
            )

    # ---- pictures

    def video_rows(self, stream: str, path: Path, start_s: float, end_s: float | None) -> np.ndarray:
        """Return the rows (n, F) float16 of a part of a video file, or the single row of a picture.

        The first row is int(start_s * rate), and the last one, which is included, is int(end_s * rate).

        Raises:
            TrichordError: The file cannot be read, or the clip does not contain any picture.

        Example:
            >>> encoders = FeatureEncoders({}, names={"visual_2d": "efficientnet-lite0-64"})
            >>> encoders.video_rows("visual_2d", Path("a.mp4"), start_s=0.0, end_s=1.0).shape  # one row per second
            (2, 1280)
        """
        encoder: VisualEncoder = self.get(stream)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            if encoder.window > 1:
                raise TrichordError(
                    f"{path}: the file is a still picture, but the stream {stream} is computed from videos; give a video"
                )
            with watching(path):
                picture = image(path, encoder.frames)
            return encoder.encode(picture[None])
        first, last = _rows_between(start_s, end_s, encoder.rate_hz)
        decoder = choose_decoder(self._decoder_of(stream), self.device)
        decoded = pictures(
            path,
            [encoder.frames],
            start_s=first / encoder.rate_hz,
            end_s=None if last is None else last / encoder.rate_hz,
            decoder=decoder,
        )
        return _encoded(encoder, (picture for _, picture in watched(decoded, partial(watching, path))))

    def frame_rows(
        self, stream: str, frames: np.ndarray, rate_hz: float, start_s: float, end_s: float | None
    ) -> np.ndarray:
        """Return the same rows of frames (T, H, W, 3) uint8 RGB, at `rate_hz` frames per second.

        Example:
            >>> encoders = FeatureEncoders({}, names={"visual_2d": "efficientnet-lite0-64"})
            >>> frames = np.zeros((50, 72, 96, 3), np.uint8)
            >>> encoders.frame_rows("visual_2d", frames, rate_hz=25.0, start_s=0.0, end_s=None).shape
            (2, 1280)
        """
        encoder: VisualEncoder = self.get(stream)
        first, last = _rows_between(start_s, end_s, encoder.rate_hz)
        return _encoded(encoder, pictures_of(frames, rate_hz, encoder.frames))[first:last]

    def _decoder_of(self, stream: str) -> str:
        parameters = self.recorded.get(stream, {}).get("parameters", {})
        return str(parameters.get("decoder", "pyav")).partition(" ")[0]

    # ---- sound

    def sound_rows(self, stream: str, path: Path) -> np.ndarray:
        """Return the rows of the whole sound of a file.

        The level of a spectrogram is relative to the loudest moment of the file, so a part cannot be computed alone. Rows of the
        most recent file are cached, so that several clips of a file need only one pass.

        Raises:
            TrichordError: The file cannot be read or has no sound.

        Example:
            >>> rows = FeatureEncoders({}).sound_rows("spectrogram", Path("a.mp4"))
            >>> rows.shape, float(rows.max())
            ((205, 40), 0.0)
        """
        encoder = self.get(stream)
        if not path.is_file():
            raise missing(path, "file", mend="check the path")
        rows = FILE_ROWS.get(
            path, encoder, lambda: watched(sound(path, sample_rate_hz=encoder.sample_rate_hz), partial(watching, path))
        )
        if not len(rows):
            raise Absent(f"{path}: the file has no sound; give another file, or do not embed its audio")
        return rows

    def waveform_rows(self, stream: str, samples: np.ndarray, sample_rate_hz: float) -> np.ndarray:
        """Return the rows of mono samples (N,), floating-point numbers in [-1, 1] or 16-bit integers.

        Raises:
            TrichordError: The samples have another type, are not finite or are empty, or the rate is not valid.

        Example:
            >>> samples = np.sin(np.arange(16_000) / 10).astype(np.float32)
            >>> FeatureEncoders({}).waveform_rows("spectrogram", samples, 16_000).shape
            (101, 40)
        """
        encoder = self.get(stream)
        waves = samples.astype(np.float32) / (32768.0 if samples.dtype == np.int16 else 1.0)
        if samples.dtype.kind not in "f" and samples.dtype != np.int16:
            raise TrichordError(
                f"a waveform must consist of floating-point numbers in [-1, 1] or 16-bit integers, not {samples.dtype}; convert it"
            )
        if not np.isfinite(waves).all():
            raise TrichordError("the waveform contains numbers that are not finite; replace them")
        if not 0 < sample_rate_hz < float("inf"):
            raise TrichordError(
                f"the sample rate of the waveform is {sample_rate_hz}; give a positive rate, such as 16000"
            )
        if sample_rate_hz != encoder.sample_rate_hz:
            import librosa

            waves = librosa.resample(
                waves, orig_sr=sample_rate_hz, target_sr=encoder.sample_rate_hz, res_type="soxr_hq"
            )
        rows = _joined(encoder.encode(lambda: iter([waves])))
        if not len(rows):
            raise TrichordError("the waveform is empty; give at least one sample")
        return rows

    def sound_duration_s(self, path: Path, num_rows: int, rate_hz: float) -> float:
        """Return the end time of the sound of a file, as computed in an extraction of a file without pictures.

        Example:
            >>> encoders = FeatureEncoders({})
            >>> rows = encoders.sound_rows("spectrogram", Path("a.mp4"))
            >>> encoders.sound_duration_s(Path("a.mp4"), len(rows), rate_hz=100.0)
            2.0
        """
        decoded_s = (num_rows - 1) / rate_hz
        with watching(path):
            stated_s = probe(path).duration_s
        return min(stated_s, decoded_s) if stated_s else decoded_s

    # ---- text

    def text_rows(self, captions: Sequence[str]) -> np.ndarray:
        """Return a row (F,) float16 for each caption.

        Example:
            >>> encoders = FeatureEncoders({}, names={"text": "hf:my_text_encoder"})
            >>> encoders.text_rows(["stir the soup", "cut the bread"]).shape
            (2, 16)
        """
        return np.asarray(self.get(EMBEDDING_STREAMS["text"]).encode(list(captions)))


def _rows_between(start_s: float, end_s: float | None, rate_hz: float) -> tuple[int, int | None]:
    return int(start_s * rate_hz), None if end_s is None else int(end_s * rate_hz) + 1


def _encoded(encoder: VisualEncoder, stream: Iterator[np.ndarray]) -> np.ndarray:
    """Return the rows of all pictures; the last window is padded with black pictures, as in an extraction."""
    window = encoder.window
    block_size = max(_FRAMES_PER_BLOCK // window, 1) * window
    rows: list[np.ndarray] = []
    pending: list[np.ndarray] = []

    def encode_pending() -> None:
        block = np.stack(pending)
        rows.append(encoder.encode(block.reshape(-1, window, *block.shape[1:]) if window > 1 else block))
        pending.clear()

    for picture in stream:
        pending.append(picture)
        if len(pending) == block_size:
            encode_pending()
    if pending:
        pending += [np.zeros_like(pending[-1])] * (-len(pending) % window)
        encode_pending()
    return _joined(rows)


def _joined(blocks: Iterable[np.ndarray]) -> np.ndarray:
    arrays = [np.asarray(block) for block in blocks if len(block)]
    return np.concatenate(arrays) if arrays else np.empty((0, 0), np.float16)
