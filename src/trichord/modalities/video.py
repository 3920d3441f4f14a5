"""Video: features of pictures and of motion, each pooled over the clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.errors import TrichordError
from trichord.modalities.base import Axis, Modality, ReadingSettings
from trichord.modalities.gather import Memory, write_max_pooled

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trichord.store import Store
    from trichord.store.clips import Clips

VISUAL_STREAMS = ("visual_2d", "visual_3d")


class Video(Modality):
    """Video (B, F): the streams side by side, each the maximum over the clip's time, of length one."""

    name, letter, colour = "video", "v", "#56b4e9"

    def streams(self, settings: ReadingSettings) -> tuple[str, ...]:
        return settings.visual_streams

    def width(self, store: Store, settings: ReadingSettings) -> int | None:
        streams = self.streams(settings)
        return sum(store.streams[name].dim for name in streams) if all(s in store.streams for s in streams) else None

    def width_in(self, arguments: Mapping[str, Any]) -> int | None:
        return int(arguments["video_dim"])

    def read(
        self, store: Store, clips: Clips, settings: ReadingSettings, memory: Memory, pin: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        import torch

        streams = self.streams(settings)
        dims = [store.streams[stream].dim for stream in streams]
        tensor = memory.tensor("video", (len(clips), sum(dims)), np.float32, pin)
        out = tensor.numpy()
        valid = np.ones(len(clips), bool)
        for stream, dim, offset in zip(streams, dims, np.cumsum([0, *dims]), strict=False):
            valid &= write_max_pooled(store, stream, clips, out[:, offset : offset + dim])
        out[~valid] = 0.0
        return {"video": tensor}, torch.from_numpy(valid)

    def encoder(self, arguments: Mapping[str, Any]) -> nn.Module:
        from trichord.layers.encoders import FeatureEncoder

        return FeatureEncoder(arguments["video_dim"], arguments["embed_dim"])

    def head_has_relu(self, arguments: Mapping[str, Any]) -> bool:
        return bool(arguments["reconstruction_relu"])

    def axes(self, arguments: Mapping[str, Any]) -> dict[str, Axis]:
        return {"video": Axis(2, -1, arguments["video_dim"])}


def visual_streams_of(store: Store, visual_3d: str) -> tuple[str, ...]:
    """Return the streams that make the video features, by the recipe's `model.visual_3d` (`auto`, `yes`, `no`)."""
    has_3d = "visual_3d" in store.streams
    if visual_3d == "yes" and not has_3d:
        raise TrichordError(
            f"{store.path}: model.visual_3d is yes, but the store has no 3-D features; import them, or use auto"
        )
    return VISUAL_STREAMS if has_3d and visual_3d != "no" else VISUAL_STREAMS[:1]
