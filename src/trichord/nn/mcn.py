"""MCN, the Multimodal Clustering Network (Chen et al., ICCV 2021): one encoder per modality into a joint space.

Shape letters: B clips, D joint width, F video feature width, M mel bins, T spectrogram frames, L words, W word width,
C width of the pooled audio (or of the audio embeddings), P width of what a reconstruction head gives back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional

from trichord.errors import TrichordError
from trichord.modality import MODALITIES
from trichord.nn import published
from trichord.nn.davenet import DAVEnet, output_steps
from trichord.nn.gating import GatedUnit


class Encoded(NamedTuple):
    """What the network makes of one modality of a batch.

    embedding: (B, D), in the joint space.
    target: (B, P), what the reconstruction head is to give back; it carries a gradient, the loss decides on it.
    reconstruction: (B, P), or None without reconstruction heads.
    """

    embedding: torch.Tensor
    target: torch.Tensor
    reconstruction: torch.Tensor | None


class VideoEncoder(nn.Module):
    """Pooled video features (B, F) -> (embedding (B, D), target = the features)."""

    def __init__(self, video_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.gated = GatedUnit(video_dim, embed_dim)

    def forward(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.gated(video), video


class AudioEmbeddingEncoder(nn.Module):
    """Pooled embeddings of sound (B, C), made by another network -> (embedding (B, D), target = the input).

    As the video encoder is: no DAVEnet, nothing of the published network.
    """

    def __init__(self, audio_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.gated = GatedUnit(audio_dim, embed_dim)

    def forward(
        self, audio: torch.Tensor | None, num_frames: torch.Tensor | None, pooled: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert pooled is not None
        return self.gated(pooled), pooled


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


def _head(embed_dim: int, hidden_dim: int, output_dim: int, relu: bool) -> nn.Sequential:
    layers = [nn.Linear(embed_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, output_dim)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


class MCN(nn.Module):
    """Encoders of video, audio and text into one joint space, with optional reconstruction heads.

    Embeddings are compared by their raw dot product, as published (no normalisation, no temperature).

    Padding, with `mask_padding` (the default): the audio embedding is that of the valid frames alone, in train and
    eval mode; padded words do not enter the maximum. Neither the amount nor the content of padding changes an
    embedding, beyond the rounding of the convolutions. A clip without a frame or without a word pools to zeros: its
    embedding is that of the biases, and the caller should mask it out of the losses.
    Without it the network computes what the published code did: in train mode the audio mean runs over all steps, in
    eval mode over the first max(1, frames // round(F / T')); padding reaches into the last valid steps through the
    convolutions and into the batch statistics; padded words pass the linear layer, so its bias enters the maximum.

    `arguments` holds the arguments that it was made with, defaults included; `load_report` what `from_published` found.

    Args:
        video_dim: F, width of the video features.
        embed_dim: D, width of the joint space.
        word_dim: W, width of the word vectors.
        reconstruction_dim: hidden width of the reconstruction heads; None for none.
        audio_channels: widths of DAVEnet's four stages; C is the last.
        mel_bins: M, height of the spectrograms.
        audio_dim: C, width of audio embeddings that another network made: they come as `audio_pooled` into a gated
            unit, without DAVEnet, and their reconstruction head ends without a relu, since they have both signs.
            None: spectrograms into DAVEnet, as published.
        modalities: the encoders that there are, of video, audio and text.
        mask_padding: leave padding out; False for the published behaviour.
        reconstruction_relu: end the reconstruction heads with a relu, as published.
        normalize: give embeddings of unit length, as the HowTo100M text-video model does. The reconstruction heads
            read the embedding before that.
    """

    def __init__(
        self,
        video_dim: int = 4096,
        embed_dim: int = 6144,
        word_dim: int = 300,
        reconstruction_dim: int | None = 1024,
        *,
        audio_channels: Sequence[int] = (128, 256, 512, 1024),
        mel_bins: int = 40,
        audio_dim: int | None = None,
        modalities: Sequence[str] = MODALITIES,
        mask_padding: bool = True,
        reconstruction_relu: bool = True,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if not modalities or set(modalities) - set(MODALITIES):
            known = ", ".join(MODALITIES)
            raise TrichordError(f"MCN cannot have the modalities {list(modalities)}; give some of {known}")
        self.modalities = tuple(m for m in MODALITIES if m in modalities)
        self.arguments: dict[str, Any] = {
            "video_dim": video_dim, "embed_dim": embed_dim, "word_dim": word_dim,
            "reconstruction_dim": reconstruction_dim, "audio_channels": tuple(audio_channels), "mel_bins": mel_bins,
            "audio_dim": audio_dim, "modalities": self.modalities, "mask_padding": mask_padding,
            "reconstruction_relu": reconstruction_relu, "normalize": normalize,
        }  # fmt: skip
        self.normalize = normalize
        make = {
            "video": lambda: VideoEncoder(video_dim, embed_dim),
            "audio": lambda: (
                AudioEncoder(mel_bins, audio_channels, embed_dim, mask_padding)
                if audio_dim is None
                else AudioEmbeddingEncoder(audio_dim, embed_dim)
            ),
            "text": lambda: TextEncoder(word_dim, embed_dim, mask_padding),
        }
        self._pooled_dim = audio_channels[-1] if audio_dim is None else audio_dim
        target_dim = {"video": video_dim, "audio": self._pooled_dim, "text": embed_dim}
        self.encoders = nn.ModuleDict({m: make[m]() for m in self.modalities})
        self.heads = nn.ModuleDict()
        if reconstruction_dim is not None:
            for m in self.modalities:
                relu = reconstruction_relu and not (m == "audio" and audio_dim is not None)
                self.heads[m] = _head(embed_dim, reconstruction_dim, target_dim[m], relu)
        self.load_report = published.LoadReport()

    def parts(self, modality: str) -> dict[str, nn.Module | None]:
        """The modules of one modality: `encoder`, and `reconstruction` (its head, or None).

        Every parameter and buffer of the network belongs to one part of one modality.
        """
        self._require(modality)
        # ModuleDict has no get().
        heads = dict(self.heads.items())
        return {"encoder": self.encoders[modality], "reconstruction": heads.get(modality)}

    def _require(self, modality: str) -> None:
        if modality not in self.modalities:
            raise TrichordError(f"this network has no {modality} encoder; it has {', '.join(self.modalities)}")

    def _check(self, name: str, x: torch.Tensor, num_axes: int, axis: int, size: int) -> None:
        if x.ndim != num_axes or x.shape[axis] != size:
            raise TrichordError(
                f"{name} has the shape {tuple(x.shape)}, but this network wants {num_axes} axes with {size} on axis "
                f"{axis % num_axes}; build it with the widths of the data"
            )

    def _encode(
        self,
        video: torch.Tensor | None,
        audio: torch.Tensor | None,
        audio_frames: torch.Tensor | None,
        text: torch.Tensor | None,
        text_mask: torch.Tensor | None,
        audio_pooled: torch.Tensor | None,
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """(embedding before normalisation, target) of each modality given."""
        out: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        if video is not None:
            self._require("video")
            self._check("video", video, 2, -1, self.arguments["video_dim"])
            out["video"] = self.encoders["video"](video)
        if audio is not None or audio_pooled is not None:
            self._require("audio")
            if audio is not None and audio_pooled is not None:
                raise TrichordError("both audio and audio_pooled are given; give one of them")
            if audio is not None:
                if self.arguments["audio_dim"] is not None:
                    raise TrichordError("this network reads audio embeddings, not spectrograms; give audio_pooled")
                self._check("audio", audio, 3, 1, self.arguments["mel_bins"])
            if audio_pooled is not None:
                self._check("audio_pooled", audio_pooled, 2, -1, self._pooled_dim)
            out["audio"] = self.encoders["audio"](audio, audio_frames, audio_pooled)
        if text is not None:
            self._require("text")
            self._check("text", text, 3, -1, self.arguments["word_dim"])
            out["text"] = self.encoders["text"](text, text_mask)
        return out

    def _final(self, embedding: torch.Tensor) -> torch.Tensor:
        return functional.normalize(embedding, dim=-1) if self.normalize else embedding

    def embed(
        self,
        *,
        video: torch.Tensor | None = None,
        audio: torch.Tensor | None = None,
        audio_frames: torch.Tensor | None = None,
        text: torch.Tensor | None = None,
        text_mask: torch.Tensor | None = None,
        audio_pooled: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Embeddings {modality: (B, D)} of the modalities given, any subset of the network's.

        Args:
            video: (B, F) pooled video features.
            audio: (B, M, T) log-mel spectrograms, padded at the end.
            audio_frames: (B,) valid frames of each; None: all are.
            text: (B, L, W) word vectors (or L embeddings of captions), padded with zero rows.
            text_mask: (B, L) True at words; None: a row that is not all zeros is a word. Not read without
                `mask_padding`.
            audio_pooled: (B, C) pooled DAVEnet output, in place of `audio`; with `audio_dim`, pooled audio embeddings.
        """
        encoded = self._encode(video, audio, audio_frames, text, text_mask, audio_pooled)
        return {m: self._final(embedding) for m, (embedding, _) in encoded.items()}

    def forward(
        self,
        *,
        video: torch.Tensor | None = None,
        audio: torch.Tensor | None = None,
        audio_frames: torch.Tensor | None = None,
        text: torch.Tensor | None = None,
        text_mask: torch.Tensor | None = None,
        audio_pooled: torch.Tensor | None = None,
    ) -> dict[str, Encoded]:
        """Embeddings, reconstruction targets and reconstructions; the arguments are those of `embed`."""
        encoded = self._encode(video, audio, audio_frames, text, text_mask, audio_pooled)
        return {
            m: Encoded(self._final(embedding), target, self.heads[m](embedding) if m in self.heads else None)
            for m, (embedding, target) in encoded.items()
        }

    @classmethod
    def from_published(
        cls,
        source: str | Path | Mapping[str, Any],
        *,
        mask_padding: bool = False,
        reconstruction_relu: bool = True,
        normalize: bool | None = None,
        allow: Sequence[str] = (),
    ) -> MCN:
        """A network with the weights of a published checkpoint of MCN, AVLnet (not its fused form) or HowTo100M.

        Widths and modalities follow from the shapes. By default the network computes what the published code did,
        padding included. `.load_report` says which keys were ignored; published keys that nothing ever read (an
        unused batch norm) are kept for `to_published`. Weights of another floating type become float32.

        Args:
            source: a .pth/.pt or .safetensors file (nothing in it is executed), or a state dict; bare or wrapped as
                {"state_dict": ...}, {"net": ...}, {"model": ...} or {"model_state_dict": ...}, with or without `module.`
                prefixes.
            mask_padding: as for `MCN`; False is the published behaviour.
            reconstruction_relu: as for `MCN`.
            normalize: as for `MCN`; None: as published, True for HowTo100M and False for the others.
            allow: patterns (`fnmatch`) of keys that may be missing or unknown.

        Raises:
            TrichordError: the file cannot be read, or a key is missing, unknown or of the wrong shape.
        """
        state, name = published.read_state(source)
        layout = published.layout_of(state, name)
        config = published.config_of(state, layout, name)
        if normalize is None:
            normalize = layout == "howto100m"
        with torch.device("meta"):  # what does not fit is refused before it has memory
            published.check_fit(cls(**config, reconstruction_relu=reconstruction_relu), state, layout, name, allow)
        model = cls(**config, mask_padding=mask_padding, reconstruction_relu=reconstruction_relu, normalize=normalize)
        model.load_report = published.load_state(model, state, layout, name, allow)
        return model

    def to_published(self) -> dict[str, torch.Tensor]:
        """The weights under the published keys, in the published order, as copies on the CPU.

        A network made by `from_published` gives back the same entries in the order of its file, unused ones included;
        any other network gets the unused `DAVEnet.batchnorm1` with its initial values.

        Raises TrichordError for a network of audio embeddings, which has no published form.
        """
        if self.arguments["audio_dim"] is not None:
            raise TrichordError("a network of audio embeddings has no published form; keep it in its own format")
        return published.published_state(self, self.load_report)
