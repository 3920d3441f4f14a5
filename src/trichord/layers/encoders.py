"""Encoders of modalities: features to an embedding in the joint space and the target of reconstruction.

Shape letters: B clips, D joint width, F feature width, M mel bins, T spectrogram frames, L words, W word width, C width of the
pooled audio, P width of what a reconstruction head gives back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional

from trichord.layers.davenet import DAVEnet, output_steps
from trichord.layers.gating import GatedUnit


class Encoded(NamedTuple):
    """What the network makes of one modality of a batch.

    embedding: (B, D), in the joint space.
    target: (B, P), what the reconstruction head is to give back; it carries a gradient, the loss decides on it.
    reconstruction: (B, P), or None without reconstruction heads.
    """

    embedding: torch.Tensor
    target: torch.Tensor
    reconstruction: torch.Tensor | None


class FeatureEncoder(nn.Module):
    """Pooled features (B, F) -> (embedding (B, D), target = the features)."""

    def __init__(self, feature_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.gated = GatedUnit(feature_dim, embed_dim)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.gated(features), features


class AudioEmbeddingEncoder(FeatureEncoder):
    """Pooled embeddings of sound (B, C), made by another network; it takes the arguments of `AudioEncoder`."""

    def forward(  # type: ignore[override]
        self, audio: torch.Tensor | None, num_frames: torch.Tensor | None, pooled: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert pooled is not None
        return super().forward(pooled)


class AudioEncoder(nn.Module):
    """Spectrogram (B, M, T) -> (embedding (B, D), target = the mean over time of DAVEnet's output (B, C))."""

    def __init__(self, mel_bins: int, channels: Sequence[int], embed_dim: int, mask_padding: bool) -> None:
        super().__init__()
        self.mask_padding = mask_padding
        self.davenet = DAVEnet(mel_bins, channels)
        self.gated = GatedUnit(channels[-1], channels[-1])
        self.projection = nn.Linear(channels[-1], embed_dim)

    def pool(self, audio: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
        """Mean of DAVEnet's output over time, (B, C): see `MCN` for which steps count."""
        if num_frames is None:
            return cast(torch.Tensor, self.davenet(audio).mean(-1))
        num_frames = num_frames.to(audio.device, torch.int64)
        if self.mask_padding:
            features = self.davenet(audio, num_frames)
            num_steps = torch.div(num_frames.clamp(0, audio.shape[-1]) + 15, 16, rounding_mode="floor")
            # Steps beyond the end are zeros here, so the plain sum is the sum over the valid ones.
            sums = features.sum(-1, dtype=torch.promote_types(features.dtype, torch.float32))
            return (sums / num_steps.clamp(min=1)[:, None]).to(features.dtype)
        features = self.davenet(audio)
        if self.training:
            return cast(torch.Tensor, features.mean(-1))
        total = output_steps(audio.shape[-1])
        num_steps = torch.div(num_frames, round(audio.shape[-1] / total), rounding_mode="floor").clamp(1, total)
        steps = torch.arange(total, device=audio.device)
        weights = (steps < num_steps[:, None]) / num_steps[:, None]
        return torch.einsum("bct,bt->bc", features, weights.to(features.dtype))

    def forward(
        self, audio: torch.Tensor | None, num_frames: torch.Tensor | None, pooled: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if pooled is None:
            assert audio is not None
            pooled = self.pool(audio, num_frames)
        return self.projection(self.gated(pooled)), pooled


class TextEncoder(nn.Module):
    """Word vectors (B, L, W) -> (embedding (B, D), target = the maximum over the words (B, D))."""

    def __init__(self, word_dim: int, embed_dim: int, mask_padding: bool) -> None:
        super().__init__()
        self.mask_padding = mask_padding
        self.word = nn.Linear(word_dim, embed_dim)
        self.gated = GatedUnit(embed_dim, embed_dim)

    def pool(self, text: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Maximum over the words of relu(linear(word)), (B, D)."""
        if text.shape[1] == 0:  # no word in the whole batch; padding rows are none either
            return functional.relu(self.word(text)).sum(1)
        words = self.word(text)
        if self.mask_padding:
            keep = (text != 0).any(-1) if mask is None else mask.to(torch.bool)
            # A relu is never below zero, so a zero row leaves the maximum alone.
            words = words.masked_fill(~keep[:, :, None], 0.0)
        return functional.relu(words).max(1).values

    def forward(self, text: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = self.pool(text, mask)
        return self.gated(pooled), pooled


def reconstruction_head(embed_dim: int, hidden_dim: int, output_dim: int, relu: bool) -> nn.Sequential:
    """Embedding (B, D) -> reconstruction (B, P), with a relu at the end or not."""
    layers = [nn.Linear(embed_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, output_dim)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)
