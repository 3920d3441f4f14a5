"""The encoders of the modalities, which map features to an embedding in the joint space and to a reconstruction target.

Shape letters: B clips, D joint width, F feature width, M mel bins, T spectrogram frames, L words, W word width, C width of the
pooled audio, P width of the reconstructions.
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
    """The outputs of the network for one modality of a batch.

    Attributes:
        embedding: Embeddings of shape (B, D) in the joint space.
        target: Targets of the reconstruction head, of shape (B, P). They carry a gradient, which the loss may stop.
        reconstruction: Reconstructions of shape (B, P), or None without reconstruction heads.

    Example:
        >>> import torch
        >>> from trichord.nn import MCN, Encoded
        >>> network = MCN(video_dim=6, embed_dim=4, reconstruction_dim=None, modalities=("video",))
        >>> encoded = network(video=torch.zeros(2, 6))["video"]
        >>> isinstance(encoded, Encoded), encoded.embedding.shape, encoded.target.shape
        (True, torch.Size([2, 4]), torch.Size([2, 6]))
    """

    embedding: torch.Tensor
    target: torch.Tensor
    reconstruction: torch.Tensor | None


class FeatureEncoder(nn.Module):
    """The encoder of pooled features: a gated unit. The reconstruction target is the features themselves.

    Args:
        feature_dim: Width of the features, F.
        embed_dim: Width of the joint space, D.
    """

    def __init__(self, feature_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.gated = GatedUnit(feature_dim, embed_dim)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map features (B, F) to embeddings (B, D), and return them with the features."""
        return self.gated(features), features


class AudioEmbeddingEncoder(FeatureEncoder):
    """The encoder of audio embeddings that another network computed. It is called like `AudioEncoder`."""

    def forward(  # type: ignore[override]
        self, audio: torch.Tensor | None, num_frames: torch.Tensor | None, pooled: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Map pooled audio embeddings (B, C) to embeddings (B, D), and return both. Other arguments are not read."""
        assert pooled is not None
        return super().forward(pooled)


class AudioEncoder(nn.Module):
    """The encoder of spectrograms. The reconstruction target is the mean of DAVEnet's output over time.

    Args:
        mel_bins: Height of the spectrograms, M.
        channels: Widths of the four stages of DAVEnet. C is the last.
        embed_dim: Width of the joint space, D.
        mask_padding: Whether padding is left out; see `trichord.nn.MCN`.
    """

    def __init__(self, mel_bins: int, channels: Sequence[int], embed_dim: int, mask_padding: bool) -> None:
        super().__init__()
        self.mask_padding = mask_padding
        self.davenet = DAVEnet(mel_bins, channels)
        self.gated = GatedUnit(channels[-1], channels[-1])
        self.projection = nn.Linear(channels[-1], embed_dim)

    def pool(self, audio: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
        """Average DAVEnet's output over time. `trichord.nn.MCN` describes which steps are averaged.

        Args:
            audio: Spectrograms of shape (B, M, T).
            num_frames: Number of valid frames of each clip, of shape (B,). None means that all frames are valid.

        Returns:
            Means of shape (B, C).
        """
        if num_frames is None:
            return cast(torch.Tensor, self.davenet(audio).mean(-1))
        num_frames = num_frames.to(audio.device, torch.int64)
        if self.mask_padding:
            features = self.davenet(audio, num_frames)
            num_steps = torch.div(num_frames.clamp(0, audio.shape[-1]) + 15, 16, rounding_mode="floor")
            # Steps beyond the end are zero, so the sum over all steps is the sum over the valid ones.
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
        """Map spectrograms to embeddings.

        Args:
            audio: Spectrograms of shape (B, M, T). Not read if `pooled` is given.
            num_frames: Number of valid frames of each clip, of shape (B,). None means that all frames are valid.
            pooled: Output of `pool`, of shape (B, C), or None.

        Returns:
            The embeddings (B, D) and the pooled output of DAVEnet (B, C).
        """
        if pooled is None:
            assert audio is not None
            pooled = self.pool(audio, num_frames)
        return self.projection(self.gated(pooled)), pooled


class TextEncoder(nn.Module):
    """The encoder of word vectors. The reconstruction target is the maximum over the words.

    Args:
        word_dim: Width of the word vectors, W.
        embed_dim: Width of the joint space, D.
        mask_padding: Whether padded words are left out; see `trichord.nn.MCN`.
    """

    def __init__(self, word_dim: int, embed_dim: int, mask_padding: bool) -> None:
        super().__init__()
        self.mask_padding = mask_padding
        self.word = nn.Linear(word_dim, embed_dim)
        self.gated = GatedUnit(embed_dim, embed_dim)

    def pool(self, text: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the maximum of relu(linear(word)) over the words of each clip.

        Args:
            text: Word vectors of shape (B, L, W).
            mask: Mask of the words, of shape (B, L). None treats every row that is not all zeros as a word.

        Returns:
            Maxima of shape (B, D).
        """
        if text.shape[1] == 0:  # the batch contains neither words nor padding
            return functional.relu(self.word(text)).sum(1)
        words = self.word(text)
        if self.mask_padding:
            keep = (text != 0).any(-1) if mask is None else mask.to(torch.bool)
            # The output of a relu is never negative, so a zero row does not change the maximum.
            words = words.masked_fill(~keep[:, :, None], 0.0)
        return functional.relu(words).max(1).values

    def forward(self, text: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Map word vectors (B, L, W) to embeddings (B, D), and return them with the output of `pool` (B, D)."""
        pooled = self.pool(text, mask)
        return self.gated(pooled), pooled


def reconstruction_head(embed_dim: int, hidden_dim: int, output_dim: int, relu: bool) -> nn.Sequential:
    """Build a network that maps embeddings (B, D) to reconstructions (B, P).

    Args:
        embed_dim: Width of the joint space, D.
        hidden_dim: Width of the hidden layer.
        output_dim: Width of the reconstructions, P.
        relu: Whether the network ends with a relu.

    Returns:
        The network.
    """
    layers = [nn.Linear(embed_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, output_dim)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)
