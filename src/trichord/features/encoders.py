"""The interfaces of encoders: a fingerprint, the input, and the rows of features. There are four kinds of encoders.

This module does not import torch. The encoders are implemented in `visual` and other modules of this room;
`extraction.choice` selects them by name.

Shape letters: N rows, H and W height and width of a picture, P pictures per window, F feature width.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from trichord.captions import Captions
from trichord.errors import TrichordError, one_line
from trichord.media.sampling import FrameSpec
from trichord.store.encoders import ARRAYS

_PATH = re.compile(r"\s*(?:[/~\\]|\.{1,2}(?:/|$))|.*/\.\.(?:/|$)")
Sound = Callable[[], Iterator[np.ndarray]]
"""A function that yields a file's audio from the start at each call: mono float32 blocks (n,) in [-1, 1]."""


@dataclass(frozen=True)
class Fingerprint:
    """Everything that a feature depends on besides the file. Encoders with the same fingerprint compute the same features.

    Attributes:
        name: The complete name of the encoder, such as `efficientnet-lite0-160` or `hf:openai/clip-vit-base-patch32`. A folder is
            identified by its own name, without its path.
        version: The version of the code, which changes if it computes other numbers from the same weights.
        parameters: Other values that the numbers depend on: sizes, rates, windows, decoder. Plain JSON values.
        weights: The SHA-256 of the weights in hexadecimal; '' for an encoder without weights.
    """

    name: str
    version: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 of the four attributes."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.name}/v{self.version}/{self.digest}"

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes and the digest as plain JSON values."""
        return {**asdict(self), "parameters": dict(self.parameters), "digest": self.digest}


def arrays_fingerprint(modality: str, letter: str) -> Fingerprint:
    """Return the fingerprint of the stream of a modality whose feature arrays were computed elsewhere."""
    return Fingerprint(ARRAYS, "1", {"modality": modality, "letter": letter})


def same_features(recorded: Mapping[str, Any], current: Fingerprint) -> bool:
    """Return whether an encoder computes the recorded features: version, parameters and weights are the same.

    Names are not compared, because they depend on where a folder was found, nor are decoders, which are chosen separately. Records
    of early versions are a line of text without details and match every encoder.

    Args:
        recorded: The record, see `Fingerprint.to_dict`.
        current: The fingerprint of the encoder.
    """

    def identity(entry: Mapping[str, Any]) -> str:
        parameters = {k: v for k, v in dict(entry.get("parameters", {})).items() if k != "decoder"}
        return json.dumps([entry.get("version"), parameters, entry.get("weights")], sort_keys=True)

    return "weights" not in recorded or identity(recorded) == identity(current.to_dict())


def recorded_name(entry: Mapping[str, Any], stream: str) -> str:
    """Return the name of the encoder in a record of a store or model; '' if the record has none.

    Args:
        entry: The record, see `Fingerprint.to_dict`.
        stream: The name of the stream, for the error message.

    Raises:
        TrichordError: The name is a path. Folders are recorded without their paths, so this library did not write it, and a
            record from others must not choose which files are read on this machine.
    """
    name = entry.get("name", "")
    if not isinstance(name, str) or any(_PATH.match(part) for part in re.split("[:,]", name)):
        raise TrichordError(
            f"the encoder of {stream} is recorded as '{one_line(name)[:80]}', which is a path; if you trust it, "
            "pass the encoder yourself"
        )
    return name


class StreamEncoder(Protocol):
    """The interface of all encoders of features."""

    @property
    def stream(self) -> str:
        """The name of the stream that the rows belong to."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the encoder."""
        ...

    @property
    def dim(self) -> int:
        """The width of the rows."""
        ...


class VisualEncoder(StreamEncoder, Protocol):
    """An encoder of pictures, with one picture per row (stream `visual_2d`) or a window of pictures per row (`visual_3d`).

    The driver decodes `frames.rate_hz` pictures per second as `frames` specifies, splits them into windows of `window` pictures
    (padding the last one with black pictures) and passes at most `batch_size` windows at a time.
    """

    @property
    def frames(self) -> FrameSpec:
        """How pictures are sampled, scaled and cropped."""
        ...

    @property
    def window(self) -> int:
        """Pictures per row; 1 for an image encoder."""
        ...

    @property
    def rate_hz(self) -> float:
        """Rows per second: frames.rate_hz / window."""
        ...

    @property
    def batch_size(self) -> int:
        """The largest number of windows per call."""
        ...

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """Encode pictures.

        Args:
            pictures: uint8 RGB (N, H, W, 3), or (N, P, H, W, 3) if `window` is greater than 1.

        Returns:
            (N, F) float16.
        """
        ...


class AudioEncoder(StreamEncoder, Protocol):
    """An encoder of audio (stream `spectrogram` or `audio`) whose memory does not grow with the length of the audio."""

    @property
    def sample_rate_hz(self) -> int:
        """The sample rate of the input."""
        ...

    @property
    def rate_hz(self) -> float:
        """Rows per second."""
        ...

    def encode(self, sound: Sound) -> Iterator[np.ndarray]:
        """Yield blocks of rows (n, F) float16 in time order. Row i describes the time from i / rate_hz on.

        Args:
            sound: Yields samples at `sample_rate_hz`. It may be called more than once.
        """
        ...


class TextEncoder(StreamEncoder, Protocol):
    """An encoder of captions (stream `text`) with one row per caption."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return (N, F) float16 for N texts; N may be 0."""
        ...


class Recognizer(Protocol):
    """A speech recognizer that produces captions."""

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the recognizer."""
        ...

    @property
    def sample_rate_hz(self) -> int:
        """The sample rate of the input."""
        ...

    def transcribe(self, sound: Sound) -> Captions:
        """Return captions in time order, grouped like automatic captions."""
        ...
