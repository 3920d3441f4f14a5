"""The interface of a modality: where its clips are read, how they become tensors, and how the network encodes them.

This module does not import torch at module level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
    """The settings with which the clips of a store are read.

    Attributes:
        visual_streams: Streams whose features are concatenated into the video features, such as ("visual_2d",). Each stream is
            pooled and normalized separately.
        audio_frames: Number of spectrogram frames of a clip. Shorter clips are padded, and longer clips are truncated.
        audio_pad_db: Value of the padded frames, in dB.
        max_words: Maximum number of words of a clip, or of captions if `text` is "embeddings".
        audio: "spectrogram", or "embeddings" to read the stream `audio`.
        text: "words", or "embeddings" to read the stream `text`.
    """

    visual_streams: tuple[str, ...] = ("visual_2d",)
    audio_frames: int = 1000
    audio_pad_db: float = -80.0
    max_words: int = 20
    audio: AudioInput = "spectrogram"
    text: TextInput = "words"


@dataclass(frozen=True)
class Noise:
    """The random changes of the inputs of a modality in training.

    Attributes:
        dropout: Probability with which a feature or a word is dropped.
        time_mask: Largest number of spectrogram frames in a mask.
        frequency_mask: Largest number of mel bins in a mask.
    """

    dropout: float = 0.0
    time_mask: int = 0
    frequency_mask: int = 0

    def __bool__(self) -> bool:
        return bool(self.dropout or self.time_mask or self.frequency_mask)


Draw = Callable[[Sequence[int]], "Tensor"]  # returns uniform numbers in [0, 1) of shape (B, *shape)


class Axis(NamedTuple):
    """The expected size of one axis of an input.

    Attributes:
        num_axes: Expected number of axes of the input.
        axis: Index of the axis.
        size: Expected size of this axis.
    """

    num_axes: int
    axis: int
    size: int


class Pooling(NamedTuple):
    """An intermediate result of an encoder, such as the mean of its features over time.

    Attributes:
        input: Name of the network input that takes the result in place of the other inputs of the modality.
        dim: Function that returns the width of the result for the arguments of a network, or None if this network does not compute
            the result.
        compute: Function that computes the result from the encoder and the inputs of the network.
    """

    input: str
    dim: Callable[[Mapping[str, Any]], int | None]
    compute: Callable[[nn.Module, Mapping[str, Tensor]], Tensor]


class Modality(ABC):
    """The specification of a modality. By default, a modality has one input, which is read from the stream of its name.

    Attributes:
        name: Name of the modality, and by default of the stream that it is read from.
        letter: Lowercase letter of the modality in orders and directions.
        colour: Color of the modality in plots. An empty string selects one from the palette.
        pooling: Intermediate result of a frozen encoder that can be saved in place of its embeddings, or None.
    """

    name: str
    letter: str
    colour: ClassVar[str] = ""
    pooling: ClassVar[Pooling | None] = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arguments of `MCN.forward` that belong to the modality, in the order in which its encoder takes them.

        Each input has one row per clip, and no two modalities share a name.
        """
        return (self.name,)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors of the modality that a batch may contain."""
        return self.inputs

    def streams(self, settings: ReadingSettings) -> tuple[str, ...]:
        """Return the streams of a store that the modality is read from. The tuple is empty if it is read from caption words."""
        return (self.name,)

    def is_present(self, store: Store, settings: ReadingSettings) -> bool:
        """Return whether any item of the store has the modality."""
        return has_rows(store, self.streams(settings)[0])

    def width(self, store: Store, settings: ReadingSettings) -> int | None:
        """Return the width of the features in a store, or None if the store has no such features or their width is fixed."""
        info = store.streams.get(self.streams(settings)[0])
        return None if info is None else info.dim

    def width_in(self, arguments: Mapping[str, Any]) -> int | None:
        """Return the width of the features that a network with these arguments (`MCN.arguments`) reads, or None if it is fixed."""
        return int(arguments["feature_dims"][self.name])

    @abstractmethod
    def read(
        self, store: Store, clips: Clips, settings: ReadingSettings, memory: Memory, pin: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Read clips.

        Args:
            store: Store of the features.
            clips: Clips to read.
            settings: Settings of reading.
            memory: Pool that lends large tensors.
            pin: Whether the batch is copied to a GPU. If so, tensors from `memory` are in page-locked memory.

        Returns:
            Tensors by name, each with one row per clip, and a mask of shape (B,) of the clips that have the modality. The rows of
            other clips are zero or padding.
        """

    def network_inputs(self, tensors: Mapping[str, Tensor], word_vectors: Tensor) -> dict[str, Tensor]:
        """Compute the inputs of the network, by name, from the tensors of a batch.

        Args:
            tensors: Tensors that `read` returned, on the device of the network.
            word_vectors: Word table of the store, of shape (V, W), on the same device.

        Returns:
            The inputs of the network by name.
        """
        return dict(tensors)

    @property
    def target_input(self) -> str:
        """Name of the input that is the reconstruction target itself, or '' if the encoder computes the target."""
        return self.name

    def with_noise(self, tensors: Mapping[str, Tensor], noise: Noise, draw: Draw) -> dict[str, Tensor]:
        """Return the tensors of a batch with random changes, for training. By default, features are dropped.

        Args:
            tensors: Tensors of the modality in a batch, by name.
            noise: Kind and strength of the changes.
            draw: Function that returns uniform numbers in [0, 1) of shape (B, *shape).

        Returns:
            The changed tensors by name.
        """
        return {
            name: dropped(tensor, noise.dropout, draw) if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }

    @abstractmethod
    def encoder(self, arguments: Mapping[str, Any]) -> nn.Module:
        """Build the encoder of the modality.

        Args:
            arguments: Arguments of the network (`MCN.arguments`).

        Returns:
            A module that takes a tensor or None for each of `inputs`, and returns embeddings (B, D) and reconstruction targets
            (B, P).
        """

    def target_dim(self, arguments: Mapping[str, Any]) -> int:
        """Return the width of the reconstruction targets, P. By default, it is the width of the features."""
        width = self.width_in(arguments)
        assert width is not None
        return width

    def head_has_relu(self, arguments: Mapping[str, Any]) -> bool:
        """Return whether the reconstruction head ends with a relu, which requires targets that are not negative."""
        return False

    @abstractmethod
    def axes(self, arguments: Mapping[str, Any]) -> dict[str, Axis]:
        """Return, for each required input, the axis whose size is a width of the network."""

    def check(self, arguments: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> None:
        """Raise TrichordError if a network with these arguments cannot read the inputs."""
        for name, (num_axes, axis, size) in self.axes(arguments).items():
            if name in inputs and (inputs[name].ndim != num_axes or inputs[name].shape[axis] != size):
                raise TrichordError(
                    f"{name} has the shape {tuple(inputs[name].shape)}, but this network expects {num_axes} axes and a size of "
                    f"{size} on axis {axis % num_axes}; build the network with the widths of the data"
                )


def has_rows(store: Store, stream: str) -> bool:
    """Return whether any item of the store has rows of the stream."""
    return stream in store.streams and bool(store.has(stream).any())


def dropped(features: Tensor, probability: float, draw: Draw) -> Tensor:
    """Return features with some set to zero and the others divided by 1 - `probability` (inverted dropout).

    Args:
        features: Features of shape (B, ...).
        probability: Probability of each feature to be set to zero.
        draw: Function that returns uniform numbers in [0, 1) of shape (B, *shape).
    """
    if not probability:
        return features
    kept = draw(features.shape[1:]) >= probability
    return features * kept.to(features.dtype) / (1.0 - probability)
