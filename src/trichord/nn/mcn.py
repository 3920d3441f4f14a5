"""MCN, the Multimodal Clustering Network (Chen et al., ICCV 2021): one encoder per modality into a joint space.

What the encoder of a modality is, and how wide its reconstruction, stands in the file of the modality (`modalities`).

Shape letters: B clips, D joint width, F video feature width, M mel bins, T spectrogram frames, L words, W word width,
C width of the pooled audio (or of the audio embeddings), P width of what a reconstruction head gives back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from trichord.errors import TrichordError
from trichord.layers.encoders import Encoded, reconstruction_head
from trichord.modalities.registry import modality_of_tensor, specification
from trichord.modality import MODALITIES, in_order
from trichord.nn import published


@contextmanager
def _generator_of(name: str, state: torch.Tensor) -> Iterator[None]:
    """Draw random numbers from a generator that is seeded by a name and a state, and restore torch's generator afterwards."""
    digest = hashlib.sha256(name.encode() + state.numpy().tobytes()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        yield


class _ByModality(nn.ModuleDict):
    """Modules by the names of modalities. A name may be that of an attribute of modules, such as `items` or `type`."""

    def __setitem__(self, name: str, module: nn.Module) -> None:
        self._modules[name] = module


class MCN(nn.Module):
    """Encoders of video, audio, text and further modalities into one joint space, with optional reconstruction heads.

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
        feature_dims: width of each further modality, by name. Its initial weights depend on its name and on the state of torch's
            generator before the network is built; those of the other modalities are the same without it.
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
        feature_dims: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        further = in_order(feature_dims or {})
        if not (modalities or further) or set(modalities) - set(MODALITIES):
            known = ", ".join(MODALITIES)
            raise TrichordError(f"MCN cannot have the modalities {list(modalities)}; give some of {known}")
        if fixed := [m for m in further if m in MODALITIES]:
            raise TrichordError(
                f"feature_dims names {fixed[0]}, which is not a further modality; pass its width as an argument"
            )
        own = tuple(m for m in MODALITIES if m in modalities)
        self.modalities = (*own, *further)
        self.arguments: dict[str, Any] = {
            "video_dim": video_dim, "embed_dim": embed_dim, "word_dim": word_dim,
            "reconstruction_dim": reconstruction_dim, "audio_channels": tuple(audio_channels), "mel_bins": mel_bins,
            "audio_dim": audio_dim, "modalities": own, "mask_padding": mask_padding,
            "reconstruction_relu": reconstruction_relu, "normalize": normalize,
        }  # fmt: skip
        for m in further:
            width = (feature_dims or {})[m]
            if not isinstance(width, int) or width < 1:
                raise TrichordError(f"feature_dims gives {m} the width {str(width)[:20]}; give a whole number above 0")
            self.arguments.setdefault("feature_dims", {})[m] = width
        self.normalize = normalize
        self._specifications = {m: specification(m) for m in self.modalities}
        self.encoders, self.heads = _ByModality(), _ByModality()
        state = torch.get_rng_state()
        self._add(own)
        for m in further:
            with _generator_of(m, state):
                self._add([m])
        self.load_report = published.LoadReport()

    def _add(self, modalities: Sequence[str]) -> None:
        """Create the encoders of the given modalities, then their reconstruction heads."""
        for m in modalities:
            self.encoders[m] = self._specifications[m].encoder(self.arguments)
        hidden_dim = self.arguments["reconstruction_dim"]
        for m in modalities if hidden_dim is not None else ():
            modality = self._specifications[m]
            self.heads[m] = reconstruction_head(
                self.arguments["embed_dim"],
                hidden_dim,
                modality.target_dim(self.arguments),
                modality.head_has_relu(self.arguments),
            )

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

    def _encode(self, given: Mapping[str, torch.Tensor | None]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """(embedding before normalisation, target) of each modality given."""
        inputs = {name: tensor for name, tensor in given.items() if tensor is not None}
        out: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for m in in_order(modality_of_tensor(name) for name in inputs):
            self._require(m)
            modality = self._specifications[m]
            own = {name: inputs[name] for name in modality.inputs if name in inputs}
            if not modality.axes(self.arguments).keys() & own.keys():
                continue
            modality.check(self.arguments, own)
            out[m] = self.encoders[m](*(own.get(name) for name in modality.inputs))
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
        **further: torch.Tensor | None,
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
            further: inputs of further modalities, by name; of feature arrays (B, F), by the name of the modality.
        """
        given = {
            "video": video, "audio": audio, "audio_frames": audio_frames, "text": text, "text_mask": text_mask,
            "audio_pooled": audio_pooled, **further,
        }  # fmt: skip
        encoded = self._encode(given)
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
        **further: torch.Tensor | None,
    ) -> dict[str, Encoded]:
        """Embeddings, reconstruction targets and reconstructions; the arguments are those of `embed`."""
        given = {
            "video": video, "audio": audio, "audio_frames": audio_frames, "text": text, "text_mask": text_mask,
            "audio_pooled": audio_pooled, **further,
        }  # fmt: skip
        encoded = self._encode(given)
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

        Raises TrichordError for a network of audio embeddings or of further modalities, which has no published form.
        """
        if further := self.arguments.get("feature_dims"):
            raise TrichordError(f"a network with {', '.join(further)} has no published form; keep it in its own format")
        if self.arguments["audio_dim"] is not None:
            raise TrichordError("a network of audio embeddings has no published form; keep it in its own format")
        return published.published_state(self, self.load_report)
