"""Modalities without a module of their own: feature arrays in the stream with the name of the modality."""

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
    """Features (B, F) of a clip: the maximum over its rows in time, its one row or the rows of its captions, of length one.

    The encoder is that of video. The features are their own reconstruction target, and may be negative.
    """

    def __init__(self, name: str, letter: str) -> None:
        self.name, self.letter = name, letter

    def read(
        self, store: Store, clips: Clips, settings: ReadingSettings, memory: Memory, pin: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        import torch

        tensor = memory.tensor(self.name, (len(clips), store.streams[self.name].dim), np.float32, pin)
        out = tensor.numpy()
        valid = write_max_pooled(store, self.name, clips, out)
        out[~valid] = 0.0
        return {self.name: tensor}, torch.from_numpy(valid)

    def encoder(self, arguments: Mapping[str, Any]) -> nn.Module:
        from trichord.layers.encoders import FeatureEncoder

        return FeatureEncoder(self.target_dim(arguments), arguments["embed_dim"])

    def axes(self, arguments: Mapping[str, Any]) -> dict[str, Axis]:
        return {self.name: Axis(2, -1, self.target_dim(arguments))}
