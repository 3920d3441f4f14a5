"""Modalities without a module of their own, which are read as feature arrays from the stream with the name of the modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.modalities.base import Axis, Modality, ReadingSettings
from trichord.modalities.gather import Memory, write_max_pooled

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trichord.store import Store
    from trichord.store.clips import Clips


class Features(Modality):
    """A modality of feature arrays (B, F).

    The features of a clip are the maximum over its rows in time or over the rows of its captions, or its single row. They are
    scaled to unit length. The encoder is the same as that of video. The features are their own reconstruction target, and they
    may be negative.

    Args:
        name: Name of the modality and of its stream.
        letter: Lowercase letter of the modality.
    """

    def __init__(self, name: str, letter: str) -> None:
        self.name, self.letter = name, letter

    def read(
        self, store: Store, clips: Clips, settings: ReadingSettings, memory: Memory, pin: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Read clips, and pool the features of each."""
        import torch

        tensor = memory.tensor(self.name, (len(clips), store.streams[self.name].dim), np.float32, pin)
        out = tensor.numpy()
        valid = write_max_pooled(store, self.name, clips, out)
        out[~valid] = 0.0
        return {self.name: tensor}, torch.from_numpy(valid)

    def encoder(self, arguments: Mapping[str, Any]) -> nn.Module:
        """Return a `FeatureEncoder`."""
        from trichord.layers.encoders import FeatureEncoder

        return FeatureEncoder(self.target_dim(arguments), arguments["embed_dim"])

    def axes(self, arguments: Mapping[str, Any]) -> dict[str, Axis]:
        """Return the expected width of the features."""
        return {self.name: Axis(2, -1, self.target_dim(arguments))}
