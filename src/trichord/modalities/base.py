"""What a modality is: where its clips are read, how they become tensors, and what the network makes of them.

Nothing here imports torch before it is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
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
    """The axis of an input that must have the width of the network: of `num_axes` axes, `axis` has `size` entries."""

    num_axes: int
    axis: int
    size: int


class Modality(ABC):
    """The specification of a modality. What is not overridden is that of a modality with one input, read from a stream of its name.

    Attributes:
        name: Of the modality, and of the stream that it is read from.
        letter: In orders and directions, lowercase.
        colour: In plots; '' for one of the palette.
        pooled_input: The input that takes the place of the others when what precedes the last layers of a frozen encoder was
            computed once (`pool`); '' where a modality has no such input.
    """

    name: str
    letter: str
    colour: ClassVar[str] = ""
    pooled_input: ClassVar[str] = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its arguments of `MCN.forward`, in the order in which its encoder takes them. All have a row per clip, and no
        two modalities share a name."""
        return (self.name,)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that a batch may hold of it."""
        return self.inputs

    def streams(self, settings: ReadingSettings) -> tuple[str, ...]:
        """Return the streams of a store that it is read from; none where it is read from the words of captions."""
        return (self.name,)

    def is_present(self, store: Store, settings: ReadingSettings) -> bool:
        """Return whether any item of the store has it."""
        return has_rows(store, self.streams(settings)[0])

    def width(self, store: Store, settings: ReadingSettings) -> int | None:
        """Return the width of what the encoder reads; None where the store lacks it, or where the width is always the same."""
        info = store.streams.get(self.streams(settings)[0])
        return None if info is None else info.dim

    def width_in(self, arguments: Mapping[str, Any]) -> int | None:
        """Return the width that a network with these arguments (`MCN.arguments`) reads; None where it is always the same."""
        return int(arguments["feature_dims"][self.name])

    @abstractmethod
    def read(
        self, store: Store, clips: Clips, settings: ReadingSettings, memory: Memory, pin: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Read clips.

        Args:
            store: Where they lie.
            clips: What to read.
            settings: How.
            memory: Lends large tensors.
            pin: The batch moves to a GPU: tensors from `memory` are in page-locked memory.

        Returns:
            Tensors by name, each with a row per clip, and (B,) bool, which clips have the modality. The others have zeros or
            padding.
        """

    def network_inputs(self, tensors: Mapping[str, Tensor], word_vectors: Tensor) -> dict[str, Tensor]:
        """Return the inputs of the network, by name, that follow from the tensors of a batch.

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
        """Return P, the width of the reconstruction targets: that of what the encoder reads."""
        width = self.width_in(arguments)
        assert width is not None
        return width

    def head_has_relu(self, arguments: Mapping[str, Any]) -> bool:
        """Return whether the reconstruction head ends with a relu: never, unless the targets are never negative."""
        return False

    @abstractmethod
    def axes(self, arguments: Mapping[str, Any]) -> dict[str, Axis]:
        """Return, for each input without which there is nothing to encode, the axis that has the width of the network."""

    def check(self, arguments: Mapping[str, Any], given: Mapping[str, Tensor]) -> None:
        """Raise TrichordError for inputs that a network with these arguments cannot take."""
        for name, (num_axes, axis, size) in self.axes(arguments).items():
            if name in given and (given[name].ndim != num_axes or given[name].shape[axis] != size):
                raise TrichordError(
                    f"{name} has the shape {tuple(given[name].shape)}, but this network wants {num_axes} axes with {size} on axis "
                    f"{axis % num_axes}; build it with the widths of the data"
                )

    def pooled_dim(self, arguments: Mapping[str, Any]) -> int | None:
        """Return the width of what `pool` gives; None where this network has nothing of the kind."""
        return None

    def pool(self, encoder: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return what the encoder computes before its last layers, to be given as `pooled_input`."""
        raise NotImplementedError


def has_rows(store: Store, stream: str) -> bool:
    """Return whether any item of the store has rows of the stream."""
    return stream in store.streams and bool(store.has(stream).any())
