"""MCN, the Multimodal Clustering Network (Chen et al., ICCV 2021), with one encoder per modality into a joint space.

The encoder of a modality and the width of its reconstruction are defined in the module of the modality (`trichord.modalities`).

Shape letters: B clips, D joint width, F video feature width, M mel bins, T spectrogram frames, L words, W word width,
C width of the pooled audio (or of the audio embeddings), P width of the reconstructions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from trichord.errors import TrichordError
from trichord.layers.encoders import Encoded, reconstruction_head
from trichord.modalities.registry import modality_of_tensor, specification
from trichord.modality import MODALITIES, Pair, in_order, pairs_of
from trichord.nn import published
from trichord.nn.pairs import PairParameters, pair_key


@contextmanager
def _generator_of(name: str, state: torch.Tensor) -> Iterator[None]:
    """Seed torch's generator from a name and a generator state, and restore it afterwards."""
    digest = hashlib.sha256(name.encode() + state.numpy().tobytes()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        yield


class _ByModality(nn.ModuleDict):
    """A dictionary of modules by modality. A name may equal that of an attribute of modules, such as `items` or `type`."""

    def __setitem__(self, name: str, module: nn.Module) -> None:
        self._modules[name] = module


class MCN(nn.Module):
    """Encoders of video, audio, text and further modalities into one joint space, with optional reconstruction heads.

    Embeddings are compared by their raw dot product, without normalization or temperature, as in the published code.

    With `mask_padding` (the default), the audio embedding is computed from the valid frames alone, in train and eval mode, and
    padded words are left out of the maximum. Padding then does not change an embedding, except for the rounding of the
    convolutions. A clip without frames or without words is pooled to zeros. Its embedding depends only on the biases, and the
    caller should mask the clip out of the losses.

    Without `mask_padding`, the network computes the same outputs as the published code. The mean over the audio runs over all steps
    in train mode, and over the first max(1, frames // round(T / T')) of the T' output steps in eval mode. Padding influences the
    last valid steps through the convolutions, and it influences the batch statistics. Padded words pass through the linear layer,
    so that its bias enters the maximum.

    Args:
        video_dim: Width of the video features, F.
        embed_dim: Width of the joint space, D.
        word_dim: Width of the word vectors, W.
        reconstruction_dim: Width of the hidden layer of the reconstruction heads. None disables the heads.
        audio_channels: Widths of the four stages of DAVEnet. C is the last.
        mel_bins: Height of the spectrograms, M.
        audio_dim: Width of audio embeddings that another network computed, C. They are passed as `audio_pooled` to a gated unit
            that replaces DAVEnet. Their reconstruction head has no final relu, because the embeddings can be negative. None
            uses spectrograms and DAVEnet, as in the published code.
        modalities: Encoders to create, out of video, audio and text.
        mask_padding: Whether to leave padding out. False reproduces the published code.
        reconstruction_relu: Whether the reconstruction heads end with a relu, as in the published code.
        normalize: Whether to scale embeddings to unit length, as in the text-video model of HowTo100M. The reconstruction heads
            read the embeddings before they are scaled.
        feature_dims: Width of each further modality, by name. The initial weights of a further modality depend on its name and on
            the state of torch's generator before the network is built. The initial weights of the other modalities do not depend
            on it.

    Attributes:
        arguments: Arguments that the network was built with, including defaults.
        load_report: Report of `from_published` about the keys of the checkpoint.

    Raises:
        TrichordError: If a modality is unknown or a width is invalid.

    Example:
        >>> import torch
        >>> from trichord import MCN
        >>> network = MCN(video_dim=6, embed_dim=4, word_dim=5, modalities=("video", "text"))
        >>> embeddings = network.embed(video=torch.zeros(2, 6), text=torch.zeros(2, 3, 5))
        >>> {modality: embedding.shape for modality, embedding in embeddings.items()}
        {'video': torch.Size([2, 4]), 'text': torch.Size([2, 4])}
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
        pair_temperature: float | None = None,
    ) -> None:
        super().__init__()
        further = in_order(feature_dims or {})
        if not (modalities or further) or set(modalities) - set(MODALITIES):
            known = ", ".join(MODALITIES)
            raise TrichordError(f"MCN does not support the modalities {list(modalities)}; give one or more of {known}")
        if fixed := [m for m in further if m in MODALITIES]:
            raise TrichordError(
                f"feature_dims contains {fixed[0]}, which is not a further modality; pass the widths of video, audio and text as "
                "video_dim, audio_dim and word_dim"
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
                raise TrichordError(
                    f"feature_dims: the width of {m} is {str(width)[:20]}; it must be an integer greater than 0"
                )
            self.arguments.setdefault("feature_dims", {})[m] = width
        self.normalize = normalize
        self._specifications = {m: specification(m) for m in self.modalities}
        self.encoders, self.heads = _ByModality(), _ByModality()
        state = torch.get_rng_state()
        self._add(own)
        for m in further:
            with _generator_of(m, state):
                self._add([m])
        self.pairs = _ByModality()
        if pair_temperature is not None:
            self.arguments["pair_temperature"] = pair_temperature
            for pair in pairs_of(self.modalities):
                self.pairs[pair_key(pair)] = PairParameters(pair_temperature)
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
        """Return the modules of one modality.

        Every parameter and buffer of the network belongs to one part of one modality, or to a pair (`pair_parts`).

        Args:
            modality: Name of the modality.

        Returns:
            The modules `encoder` and `reconstruction`. The latter is None without reconstruction heads.

        Raises:
            TrichordError: If the network has no encoder for the modality.

        Example:
            >>> from trichord import MCN
            >>> network = MCN(video_dim=6, embed_dim=4, word_dim=5, modalities=("video", "text"))
            >>> parts = network.parts("video")
            >>> list(parts), sum(p.numel() for p in parts["encoder"].parameters())
            (['encoder', 'reconstruction'], 48)
        """
        self._require(modality)
        # ModuleDict has no method `get`.
        heads = dict(self.heads.items())
        return {"encoder": self.encoders[modality], "reconstruction": heads.get(modality)}

    def pair_parts(self, pairs: Iterable[Pair]) -> dict[Pair, PairParameters]:
        """Return the parameters of pairs of modalities. The dictionary is empty if the network has none.

        Args:
            pairs: Pairs of modality names.

        Example:
            >>> from trichord import MCN
            >>> network = MCN(video_dim=6, embed_dim=4, word_dim=5, modalities=("video", "text"), pair_temperature=0.07)
            >>> list(network.pair_parts([("video", "text")]))
            [('video', 'text')]
        """
        return {
            pair: cast(PairParameters, self.pairs[pair_key(pair)]) for pair in pairs if pair_key(pair) in self.pairs
        }

    def temperatures(self, pairs: Iterable[Pair]) -> dict[Pair, torch.Tensor]:
        """Return the learned temperature of each pair, a scalar. The dictionary is empty if temperatures are not learned.

        Args:
            pairs: Pairs of modality names.

        Example:
            >>> from trichord import MCN
            >>> MCN(video_dim=6, embed_dim=4, word_dim=5, modalities=("video", "text")).temperatures([("video", "text")])
            {}
        """
        return {pair: parts.temperature for pair, parts in self.pair_parts(pairs).items()}

    def _require(self, modality: str) -> None:
        if modality not in self.modalities:
            raise TrichordError(
                f"this network has no encoder for {modality}; it has encoders for {', '.join(self.modalities)}"
            )

    def _encode(self, tensors: Mapping[str, torch.Tensor | None]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return the embedding before normalization and the target of each modality whose input is given."""
        inputs = {name: tensor for name, tensor in tensors.items() if tensor is not None}
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
        """Compute the embeddings of the modalities whose inputs are given. Any subset of the network's modalities is allowed.

        Args:
            video: Pooled video features of shape (B, F).
            audio: Log-mel spectrograms of shape (B, M, T), padded at the end.
            audio_frames: Number of valid frames of each spectrogram, of shape (B,). None means that all frames are valid.
            text: Word vectors, or embeddings of captions, of shape (B, L, W), padded with zero rows.
            text_mask: Mask of the words, of shape (B, L), bool. None treats every row that is not all zeros as a word. Not read
                without `mask_padding`.
            audio_pooled: Pooled DAVEnet output of shape (B, C), in place of `audio`. With `audio_dim`, pooled audio embeddings.
            further: Inputs of further modalities, by name. Feature arrays have the shape (B, F) and the name of the modality.

        Returns:
            Embeddings of shape (B, D), by modality.

        Raises:
            TrichordError: If an input belongs to another modality than those of the network, or has a wrong shape.

        Example:
            >>> import torch
            >>> from trichord import MCN
            >>> network = MCN(video_dim=6, embed_dim=4, word_dim=5, modalities=("video", "text")).eval()
            >>> mask = torch.tensor([[True, True, False], [True, False, False]])
            >>> network.embed(text=torch.ones(2, 3, 5), text_mask=mask)["text"].shape
            torch.Size([2, 4])
        """
        tensors = {
            "video": video, "audio": audio, "audio_frames": audio_frames, "text": text, "text_mask": text_mask,
            "audio_pooled": audio_pooled, **further,
        }  # fmt: skip
        encoded = self._encode(tensors)
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
        """Compute embeddings, reconstruction targets and reconstructions.

        Args:
            video: As in `embed`.
            audio: As in `embed`.
            audio_frames: As in `embed`.
            text: As in `embed`.
            text_mask: As in `embed`.
            audio_pooled: As in `embed`.
            further: As in `embed`.

        Returns:
            The outputs of each modality whose input is given.

        Example:
            >>> import torch
            >>> from trichord import MCN
            >>> network = MCN(video_dim=6, embed_dim=4, word_dim=5, modalities=("video", "text"))
            >>> encoded = network(video=torch.zeros(2, 6))["video"]
            >>> encoded.embedding.shape, encoded.target.shape, encoded.reconstruction.shape
            (torch.Size([2, 4]), torch.Size([2, 6]), torch.Size([2, 6]))
        """
        tensors = {
            "video": video, "audio": audio, "audio_frames": audio_frames, "text": text, "text_mask": text_mask,
            "audio_pooled": audio_pooled, **further,
        }  # fmt: skip
        encoded = self._encode(tensors)
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
        """Load a published checkpoint of MCN, AVLnet (except its fused form) or HowTo100M.

        Widths and modalities are derived from the shapes of the weights. By default, the network computes the same outputs as the
        published code, including its treatment of padding. `load_report` lists the keys that were ignored. Published keys that no
        code reads (those of an unused batch normalization) are kept for `to_published`. Weights are converted to float32.

        Args:
            source: Path of a .pth, .pt or .safetensors file, of which nothing is executed, or a state dict. The state dict may be
                wrapped as {"state_dict": ...}, {"net": ...}, {"model": ...} or {"model_state_dict": ...}, and its keys may have the
                prefix `module.`.
            mask_padding: As in `MCN`. False reproduces the published code.
            reconstruction_relu: As in `MCN`.
            normalize: As in `MCN`. None follows the published code: True for HowTo100M and False for the others.
            allow: Patterns (`fnmatch`) of keys that may be missing or unknown.

        Returns:
            The network in train mode.

        Raises:
            TrichordError: If the file cannot be read, or if a key is missing, unknown or of the wrong shape.

        Example:
            >>> from trichord import MCN
            >>> network = MCN(video_dim=6, embed_dim=4, word_dim=5, reconstruction_dim=None, modalities=("video", "text"))
            >>> copy = MCN.from_published(network.to_published())
            >>> copy.modalities
            ('video', 'text')
        """
        state, name = published.read_state(source)
        layout = published.layout_of(state, name)
        config = published.config_of(state, layout, name)
        if normalize is None:
            normalize = layout == "howto100m"
        with torch.device("meta"):  # a checkpoint that does not fit is rejected before memory is allocated
            published.check_fit(cls(**config, reconstruction_relu=reconstruction_relu), state, layout, name, allow)
        model = cls(**config, mask_padding=mask_padding, reconstruction_relu=reconstruction_relu, normalize=normalize)
        model.load_report = published.load_state(model, state, layout, name, allow)
        return model

    def to_published(self) -> dict[str, torch.Tensor]:
        """Return copies of the weights on the CPU under the published keys, in the published order.

        A network that `from_published` loaded returns the same entries in the order of its file, including the unused ones. For
        any other network with an audio encoder, the unused `DAVEnet.batchnorm1` is added with its initial values.

        Returns:
            The state dict.

        Raises:
            TrichordError: If the network reads audio embeddings or further modalities, for which no published format exists.

        Example:
            >>> from trichord import MCN
            >>> network = MCN(video_dim=6, embed_dim=4, word_dim=5, reconstruction_dim=None, modalities=("text",))
            >>> for name, weight in network.to_published().items():
            ...     print(name, tuple(weight.shape))
            text_pooling_caption.fc.weight (4, 5)
            text_pooling_caption.fc.bias (4,)
            GU_text_captions.fc.weight (4, 4)
            GU_text_captions.fc.bias (4,)
            GU_text_captions.cg.fc.weight (4, 4)
            GU_text_captions.cg.fc.bias (4,)
        """
        if further := self.arguments.get("feature_dims"):
            raise TrichordError(
                f"there is no published checkpoint format for a network with {', '.join(further)}; "
                "save it in trichord's own format instead"
            )
        if self.arguments["audio_dim"] is not None:
            raise TrichordError(
                "there is no published checkpoint format for a network of audio embeddings; "
                "save it in trichord's own format instead"
            )
        return published.published_state(self, self.load_report)
