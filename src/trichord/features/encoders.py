"""What an encoder is: a fingerprint, the input it wants, the rows it gives. Four kinds, each with one stream or more.

Nothing here imports torch. Encoders live in `visual` and its neighbours; `extraction.choice` turns names into them.

Shape letters: N rows, H and W picture height and width, P pictures of a window, F feature width.
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
"""A pass over a file's sound, from the start at each call: mono float32 blocks (n,) in [-1, 1]."""


@dataclass(frozen=True)
class Fingerprint:
    """What a feature depends on besides the file: two encoders with the same fingerprint give the same features.

    Attributes:
        name: As the user typed it, made whole: `efficientnet-lite0-160`, `hf:openai/clip-vit-base-patch32`; a folder
            by its own name.
        version: Of our code; changes when it gives other numbers for the same weights.
        parameters: What else the numbers depend on: sizes, rates, windows, decoder. Plain JSON values.
        weights: SHA-256 of the weights (hexadecimal), empty for an encoder without any.
    """

    name: str
    version: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of all four."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.name}/v{self.version}/{self.digest}"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "parameters": dict(self.parameters), "digest": self.digest}


def arrays_fingerprint(modality: str, letter: str) -> Fingerprint:
    """Fingerprint of the stream of a modality whose feature arrays were computed elsewhere."""
    return Fingerprint(ARRAYS, "1", {"modality": modality, "letter": letter})


def same_features(recorded: Mapping[str, Any], found: Fingerprint) -> bool:
    """Whether an encoder gives the features that a record (`Fingerprint.to_dict`) is of: version, parameters and weights are
    the same. Names are not compared, as that of a folder is wherever it lies, nor decoders, which are chosen apart. True of
    an early version's record, a line of text that tells nothing."""

    def identity(entry: Mapping[str, Any]) -> str:
        parameters = {k: v for k, v in dict(entry.get("parameters", {})).items() if k != "decoder"}
        return json.dumps([entry.get("version"), parameters, entry.get("weights")], sort_keys=True)

    return "weights" not in recorded or identity(recorded) == identity(found.to_dict())


def recorded_name(entry: Mapping[str, Any], stream: str) -> str:
    """Return the name of the encoder in a record of a store or model; empty where there is none.

    Args:
        entry: As of `Fingerprint.to_dict`.
        stream: For the message.

    Raises:
        TrichordError: The name is a path. A folder is recorded by its own name, so this library wrote no path there, and a
            record from others would choose what is read from this machine.
    """
    name = entry.get("name", "")
    if not isinstance(name, str) or any(_PATH.match(part) for part in re.split("[:,]", name)):
        raise TrichordError(
            f"the encoder of {stream} is recorded as '{one_line(name)[:80]}', a path; if you trust it, name the encoder yourself"
        )
    return name


class StreamEncoder(Protocol):
    """The interface that all encoders of features share."""

    @property
    def stream(self) -> str: ...

    @property
    def fingerprint(self) -> Fingerprint: ...

    @property
    def dim(self) -> int: ...


class VisualEncoder(StreamEncoder, Protocol):
    """Pictures to rows of stream `visual_2d` (one picture a row) or `visual_3d` (a window of pictures a row).

    The driver decodes `frames.rate_hz` pictures per second as `frames` says, cuts them into windows of `window`
    pictures (the last one filled with black ones) and hands over at most `batch_size` windows at a time.
    """

    @property
    def frames(self) -> FrameSpec: ...

    @property
    def window(self) -> int: ...  # pictures per row; 1 for an image encoder

    @property
    def rate_hz(self) -> float: ...  # rows per second: frames.rate_hz / window

    @property
    def batch_size(self) -> int: ...

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB, or (N, P, H, W, 3) where `window` is above 1 -> (N, F) float16."""
        ...


class AudioEncoder(StreamEncoder, Protocol):
    """Sound to rows of stream `spectrogram` (log-mel) or `audio` (embeddings), in memory that does not grow with it."""

    @property
    def sample_rate_hz(self) -> int: ...

    @property
    def rate_hz(self) -> float: ...  # rows per second

    def encode(self, sound: Sound) -> Iterator[np.ndarray]:
        """Blocks of rows (n, F) float16 in time order. `sound` gives samples at `sample_rate_hz`; it may be called
        more than once. Row i stands for the time from i / rate_hz on."""
        ...


class TextEncoder(StreamEncoder, Protocol):
    """Captions to rows of stream `text`: one row per caption."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(N, F) float16; N may be 0."""
        ...


class Recognizer(Protocol):
    """Speech to captions."""

    @property
    def fingerprint(self) -> Fingerprint: ...

    @property
    def sample_rate_hz(self) -> int: ...

    def transcribe(self, sound: Sound) -> Captions:
        """Captions in time order, grouped as automatic captions are."""
        ...
