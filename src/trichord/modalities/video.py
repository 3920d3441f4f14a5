"""Video: features of images (2-D) and of motion (3-D), each pooled over the clip."""

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
    """The modality video.

    Its features (B, F) are the concatenated streams. Each stream is reduced to the maximum over the time of the clip and scaled to
    unit length.
    """

    name, letter, colour = "video", "v", "#56b4e9"

    def streams(self, settings: ReadingSettings) -> tuple[str, ...]:
        """Return the streams of visual features."""
        return settings.visual_streams

    def width(self, store: Store, settings: ReadingSettings) -> int | None:
        """Return the total width of the streams, or None if the store lacks one of them."""
        streams = self.streams(settings)
        return sum(store.streams[name].dim for name in streams) if all(s in store.streams for s in streams) else None

    def width_in(self, arguments: Mapping[str, Any]) -> int | None:
        """Return the width of the video features that a network reads."""
        return int(arguments["video_dim"])

    def read(
        self, store: Store, clips: Clips, settings: ReadingSettings, memory: Memory, pin: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Read clips, and pool the features of each stream."""
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
        """Return a `FeatureEncoder`."""
        from trichord.layers.encoders import FeatureEncoder

        return FeatureEncoder(arguments["video_dim"], arguments["embed_dim"])

    def head_has_relu(self, arguments: Mapping[str, Any]) -> bool:
        """Return whether the reconstruction head ends with a relu."""
        return bool(arguments["reconstruction_relu"])

    def axes(self, arguments: Mapping[str, Any]) -> dict[str, Axis]:
        """Return the expected width of the video features."""
        return {"video": Axis(2, -1, arguments["video_dim"])}


def visual_streams_of(store: Store, visual_3d: str) -> tuple[str, ...]:
    """Return the streams whose features are concatenated into the video features.

    Args:
        store: Store of the features.
        visual_3d: Setting `model.visual_3d` of the recipe: "auto", "yes" or "no". "auto" uses 3-D features if the store has them.

    Returns:
        Names of the streams.

    Raises:
        TrichordError: If `visual_3d` is "yes" and the store has no 3-D features.
    """
    has_3d = "visual_3d" in store.streams
    if visual_3d == "yes" and not has_3d:
        raise TrichordError(
            f"{store.path}: model.visual_3d is yes, but the store has no 3-D features; import them, or set model.visual_3d "
            "to auto"
        )
    return VISUAL_STREAMS if has_3d and visual_3d != "no" else VISUAL_STREAMS[:1]
