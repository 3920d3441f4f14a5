"""The feature encoders that a model was trained behind, known by their fingerprints, and the rows that they give of files
and arrays: the rows that an extraction into a store gives, for the same part of the same file.

They are loaded when they are first needed. An encoder that would give other features than the recorded one is refused.
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
from trichord.media import choose_decoder, image, pictures, probe, sound
from trichord.media.arrays import pictures_of
from trichord.media.watchdog import watched, watching
from trichord.store.location import shown_url

LOG_MEL_STREAM = "spectrogram"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".svg", ".svgz")
_FRAMES_PER_BLOCK = 64
_URL = re.compile(
    r"((?:[^/]*::)?[A-Za-z][A-Za-z0-9+.-]+):/+"
)  # a path has lost one of the two slashes; a drive has one letter


class Absent(TrichordError):
    """An item that holds nothing of a modality, or nothing in the span that was asked for."""


def file_of(value: str | Path) -> Path:
    """The path of a file. Raises TrichordError for a folder and for a URL; whether there is such a file is not asked."""
    path = Path(value)
    if path.is_dir():
        raise TrichordError(f"{path}: is a folder; give the files in it")
    if (match := _URL.match(str(value))) and not path.exists():
        url = shown_url(f"{match[1]}://{str(value)[match.end() :]}")
        raise TrichordError(f"{url}: is a URL; files are read from a disk, so download it first")
    return path


class FeatureEncoders:
    """Encoders by the stream that each makes.

    Args:
        recorded: Stream -> fingerprint as the store recorded it (`Fingerprint.to_dict`); a stream without is not known.
        names: Stream -> name as `trichord extract` takes it, in place of the recorded one: where it lies elsewhere, or
            nothing was recorded.
        weights: Stream -> weights file in place of the usual one.
        device: Where they compute.
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
        """The encoder of a stream. Raises TrichordError when it is not known, not here, or another one."""
        if stream not in self._loaded:
            name = self.names.get(stream) or recorded_name(self.recorded.get(stream, {}), stream)
            if not name and stream == LOG_MEL_STREAM:
                name = "log-mel"
            if not name:
                raise TrichordError(
                    f"the model does not say what makes its {stream} features; name it, e.g. "
                    f"encoders={{'{stream}': 'resnet152'}} (`trichord extract --list-encoders`), or give features"
                )
            try:
                encoder = self._load(stream, name)
            except TrichordError as error:
                raise TrichordError(
                    f"the encoder of {stream}, {name}, cannot be loaded: {error} (from Python: weights={{'{stream}': FILE}} "
                    f"or encoders={{'{stream}': NAME}})"
                ) from None
            self._check(stream, encoder.fingerprint)
            self._loaded[stream] = encoder
        return self._loaded[stream]

    def _load(self, stream: str, name: str) -> Any:
        if stream == LOG_MEL_STREAM:
            from trichord.features.spectrogram import LogMel

            if self.names.get(stream, "log-mel") != "log-mel":
                raise TrichordError("spectrograms are made by log-mel alone; leave it out")
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

    def _check(self, stream: str, found: Fingerprint) -> None:
        recorded = self.recorded.get(stream, {})
        if not same_features(recorded, found):
            raise TrichordError(
                f"the model's {stream} features were made by {recorded['name']} ({recorded['digest']}), "
                f"{found.name} here gives others ({found.digest}); use the same encoder, version and weights"
            )

    # ---- pictures

    def video_rows(self, stream: str, path: Path, start_s: float, end_s: float | None) -> np.ndarray:
        """Rows int(start * rate) to int(end * rate), both included, of a video file (n, F) float16; the one row of a picture.

        Raises TrichordError when the file cannot be read or the clip holds not one picture.
        """
        encoder: VisualEncoder = self.get(stream)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            if encoder.window > 1:
                raise TrichordError(f"{path}: is a still picture, {stream} is made of moving ones; give a video")
            with watching(path):
                picture = image(path, encoder.frames)
            return encoder.encode(picture[None])
        first, last = _rows_between(start_s, end_s, encoder.rate_hz)
        decoder = choose_decoder(self._decoder_of(stream), self.device)
        found = pictures(
            path,
            [encoder.frames],
            start_s=first / encoder.rate_hz,
            end_s=None if last is None else last / encoder.rate_hz,
            decoder=decoder,
        )
        return _encoded(encoder, (picture for _, picture in watched(found, partial(watching, path))))

    def frame_rows(
        self, stream: str, frames: np.ndarray, rate_hz: float, start_s: float, end_s: float | None
    ) -> np.ndarray:
        """The same of frames (T, H, W, 3) uint8 RGB, `rate_hz` of them a second."""
        encoder: VisualEncoder = self.get(stream)
        first, last = _rows_between(start_s, end_s, encoder.rate_hz)
        return _encoded(encoder, pictures_of(frames, rate_hz, encoder.frames))[first:last]

    def _decoder_of(self, stream: str) -> str:
        parameters = self.recorded.get(stream, {}).get("parameters", {})
        return str(parameters.get("decoder", "pyav")).partition(" ")[0]

    # ---- sound

    def sound_rows(self, stream: str, path: Path) -> np.ndarray:
        """Rows of the whole sound of a file: the level of a spectrogram is relative to its loudest moment. The rows of the
        file that was asked for last are kept, so that clips of one file cost one pass.

        Raises TrichordError when the file cannot be read or has no sound.
        """
        encoder = self.get(stream)
        if not path.is_file():
            raise TrichordError(f"{path}: no such file; check the path")
        rows = FILE_ROWS.get(
            path, encoder, lambda: watched(sound(path, sample_rate_hz=encoder.sample_rate_hz), partial(watching, path))
        )
        if not len(rows):
            raise Absent(f"{path}: has no sound; name another file, or leave its audio out")
        return rows

    def waveform_rows(self, stream: str, samples: np.ndarray, sample_rate_hz: float) -> np.ndarray:
        """The same of mono samples (N,): floating point in [-1, 1], or 16-bit integers."""
        encoder = self.get(stream)
        waves = samples.astype(np.float32) / (32768.0 if samples.dtype == np.int16 else 1.0)
        if samples.dtype.kind not in "f" and samples.dtype != np.int16:
            raise TrichordError(
                f"a waveform is floating point in [-1, 1] or 16-bit integers, not {samples.dtype}; convert it"
            )
        if not np.isfinite(waves).all():
            raise TrichordError("the waveform holds numbers that are not finite; replace them")
        if not 0 < sample_rate_hz < float("inf"):
            raise TrichordError(f"the waveform has {sample_rate_hz} samples a second; give its rate, such as 16000")
        if sample_rate_hz != encoder.sample_rate_hz:
            import librosa

            waves = librosa.resample(
                waves, orig_sr=sample_rate_hz, target_sr=encoder.sample_rate_hz, res_type="soxr_hq"
            )
        rows = _joined(encoder.encode(lambda: iter([waves])))
        if not len(rows):
            raise TrichordError("the waveform is empty; give one sample or more")
        return rows

    def sound_duration_s(self, path: Path, num_rows: int, rate_hz: float) -> float:
        """When the sound of a file ends, as an extraction counts it where there are no pictures."""
        decoded_s = (num_rows - 1) / rate_hz
        with watching(path):
            stated_s = probe(path).duration_s
        return min(stated_s, decoded_s) if stated_s else decoded_s

    # ---- text

    def text_rows(self, captions: Sequence[str]) -> np.ndarray:
        """A row (F,) float16 for each caption."""
        return np.asarray(self.get(EMBEDDING_STREAMS["text"]).encode(list(captions)))


def _rows_between(start_s: float, end_s: float | None, rate_hz: float) -> tuple[int, int | None]:
    return int(start_s * rate_hz), None if end_s is None else int(end_s * rate_hz) + 1


def _encoded(encoder: VisualEncoder, stream: Iterator[np.ndarray]) -> np.ndarray:
    """Rows of all pictures; the last window is filled with black ones, as in an extraction."""
    window = encoder.window
    most = max(_FRAMES_PER_BLOCK // window, 1) * window
    rows: list[np.ndarray] = []
    held: list[np.ndarray] = []

    def send() -> None:
        block = np.stack(held)
        rows.append(encoder.encode(block.reshape(-1, window, *block.shape[1:]) if window > 1 else block))
        held.clear()

    for picture in stream:
        held.append(picture)
        if len(held) == most:
            send()
    if held:
        held += [np.zeros_like(held[-1])] * (-len(held) % window)
        send()
    return _joined(rows)


def _joined(blocks: Iterable[np.ndarray]) -> np.ndarray:
    found = [np.asarray(block) for block in blocks if len(block)]
    return np.concatenate(found) if found else np.empty((0, 0), np.float16)
