"""The specification of a modality: where its clips are read, how they become tensors, and how the network encodes them.

This module does not import torch when it is imported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from trichord.errors import TrichordError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trichord.modalities.gather import Memory
    from trichord.store import Store
    from trichord.store.clips import Clips

AudioInput = Literal["spectrogram", "embeddings"]
TextInput = Literal["words", "embeddings"]


@dataclass(frozen=True)
class ReadingSettings:
    """How the clips of a store are read.

    Attributes:
        visual_streams: Streams that make the video features, e.g. ("visual_2d",); each is pooled and normalised alone.
        audio_frames: Spectrogram frames of a clip; shorter ones are padded, longer ones are cut.
        audio_pad_db: Value of padded frames.
        max_words: Most words of a clip; of embeddings, most captions.
        audio: `spectrogram`, or the `embeddings` of stream audio.
        text: `words`, or the `embeddings` of stream text.
    """

    visual_streams: tuple[str, ...] = ("visual_2d",)
    audio_frames: int = 1000
    audio_pad_db: float = -80.0
    max_words: int = 20
    audio: AudioInput = "spectrogram"
    text: TextInput = "words"


class Axis(NamedTuple):
    """Expected size of one axis of an input: the input has `num_axes` axes, and `axis` has `size` entries."""

    num_axes: int
    axis: int
    size: int


class Pooling(NamedTuple):
    """Intermediate result of an encoder, such as the mean of its features over time.

    Attributes:
        input: Name of the input of the network that takes the result in place of the other inputs of the modality.
        dim: Return the width of the result for the arguments of a network; None if that network does not compute it.
        compute: Compute the result from the encoder and the inputs of the network.
    """

    input: str
    dim: Callable[[Mapping[str, Any]], int | None]
    compute: Callable[[nn.Module, Mapping[str, Tensor]], Tensor]


class Modality(ABC):
    """The specification of a modality. By default, a modality has one input, which is read from the stream of its name.

    Attributes:
        name: Name of the modality, and by default of the stream that it is read from.
        letter: Lowercase letter in orders and directions.
        colour: Colour in plots; '' takes one from the palette.
        pooling: Intermediate result of a frozen encoder that can be saved in place of its embeddings; None if there is none.
    """

    name: str
    letter: str
    colour: ClassVar[str] = ""
    pooling: ClassVar[Pooling | None] = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arguments of `MCN.forward` that belong to the modality, in the order in which its encoder takes them.

        All have a row per clip, and no two modalities share a name.
        """
        return (self.name,)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors of the modality that a batch may hold."""
        return self.inputs

    def streams(self, settings: ReadingSettings) -> tuple[str, ...]:
        """Return the streams of a store that the modality is read from; none if it is read from the words of captions."""
        return (self.name,)

    def is_present(self, store: Store, settings: ReadingSettings) -> bool:
        """Return whether any item of the store has the modality."""
        return has_rows(store, self.streams(settings)[0])

    def width(self, store: Store, settings: ReadingSettings) -> int | None:
        """Return the width of the features in a store; None if the store lacks them or if the width is fixed."""
        info = store.streams.get(self.streams(settings)[0])
        return None if info is None else info.dim

    def width_in(self, arguments: Mapping[str, Any]) -> int | None:
        """Return the width of the features that a network with these arguments (`MCN.arguments`) reads; None if it is fixed."""
        return int(arguments["feature_dims"][self.name])

    @abstractmethod
    def read(
        self, store: Store, clips: Clips, settings: ReadingSettings, memory: Memory, pin: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Read clips.

        Args:
            store: Store of the features.
            clips: Clips to read.
            settings: How clips are read.
            memory: Lends large tensors.
            pin: Whether the batch moves to a GPU. If so, tensors from `memory` are in page-locked memory.

        Returns:
            Tensors by name, each with a row per clip, and a mask (B,) that is True for clips with the modality. The rows of
            other clips are zeros or padding.
        """

    def network_inputs(self, tensors: Mapping[str, Tensor], word_vectors: Tensor) -> dict[str, Tensor]:
        """Compute the inputs of the network, by name, from the tensors of a batch.

        Args:
            tensors: As `read` gave them, on the device of the network.
            word_vectors: (V, W) the store's word table, on that device.
        """
        return dict(tensors)

    @abstractmethod
    def encoder(self, arguments: Mapping[str, Any]) -> nn.Module:
        """Return a fresh encoder.

        Args:
            arguments: Of the network (`MCN.arguments`).

        Returns:
            A module that takes a tensor or None for each of `inputs`, and returns embeddings (B, D) and reconstruction targets
            (B, P).
        """

    def target_dim(self, arguments: Mapping[str, Any]) -> int:
        """Return P, the width of the reconstruction targets. By default, it is the width of the features."""
        width = self.width_in(arguments)
        assert width is not None
        return width

    def head_has_relu(self, arguments: Mapping[str, Any]) -> bool:
        """Return whether the reconstruction head ends with a relu, which needs targets without negative values."""
        return False

    @abstractmethod
    def axes(self, arguments: Mapping[str, Any]) -> dict[str, Axis]:
        """Return, for each required input, the axis whose size is a width of the network."""

    def check(self, arguments: Mapping[str, Any], given: Mapping[str, Tensor]) -> None:
        """Raise TrichordError for inputs that a network with these arguments cannot take."""
        for name, (num_axes, axis, size) in self.axes(arguments).items():
            if name in given and (given[name].ndim != num_axes or given[name].shape[axis] != size):
                raise TrichordError(
                    f"{name} has the shape {tuple(given[name].shape)}, but this network wants {num_axes} axes with {size} on axis "
                    f"{axis % num_axes}; build it with the widths of the data"
                )


def has_rows(store: Store, stream: str) -> bool:
    """Return whether any item of the store has rows of the stream."""
    return stream in store.streams and bool(store.has(stream).any())
