"""Text: the words of captions, or embeddings of captions that another network computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.errors import TrichordError
from trichord.modalities.base import Axis, Draw, Modality, Noise, ReadingSettings, TextInput, has_rows
from trichord.modalities.gather import Memory, clip_rows, word_ids

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trichord.store import Store
    from trichord.store.clips import Clips

EMBEDDING_STREAM = "text"


class Text(Modality):
    """The modality text.

    The inputs of the network are `text` (B, L, W), the word vectors or embeddings of the captions of a clip, padded with zeros, and
    `text_mask` (B, L), which is True except for the padding. In place of word vectors, a batch contains `word_ids` (B, L): rows
    of the word table of the store, padded with -1.
    """

    name, letter, colour = "text", "t", "#4d4d4d"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs of the network."""
        return ("text", "text_mask")

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that a batch may contain."""
        return (*self.inputs, "word_ids")

    def streams(self, settings: ReadingSettings) -> tuple[str, ...]:
        """Return the stream of text embeddings, or an empty tuple for words."""
        return (EMBEDDING_STREAM,) if settings.text == "embeddings" else ()

    def is_present(self, store: Store, settings: ReadingSettings) -> bool:
        """Return whether the store has words or text embeddings."""
        return len(store.words) > 0 if settings.text == "words" else super().is_present(store, settings)

    def width(self, store: Store, settings: ReadingSettings) -> int | None:
        """Return the width of the word vectors or text embeddings in a store."""
        return store.word_dim or None if settings.text == "words" else super().width(store, settings)

    def width_in(self, arguments: Mapping[str, Any]) -> int | None:
        """Return the width of the word vectors or text embeddings that a network reads."""
        return int(arguments["word_dim"])

    def read(
        self, store: Store, clips: Clips, settings: ReadingSettings, memory: Memory, pin: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Read the word ids or the text embeddings of clips."""
        import torch

        if settings.text == "embeddings":
            return _embeddings(store, clips, settings.max_words)
        ids = torch.from_numpy(word_ids(store, clips, settings.max_words))
        return {"word_ids": ids}, (ids >= 0).any(dim=1)

    def network_inputs(self, tensors: Mapping[str, Tensor], word_vectors: Tensor) -> dict[str, Tensor]:
        """Replace word ids by the word vectors and their mask."""
        if "word_ids" not in tensors:
            return dict(tensors)
        ids = tensors["word_ids"]
        mask = ids >= 0
        return {"text": word_vectors[ids.clamp(min=0)] * mask[..., None], "text_mask": mask}

    @property
    def target_input(self) -> str:
        """Return '', because the encoder computes the target."""
        return ""

    def with_noise(self, tensors: Mapping[str, Tensor], noise: Noise, draw: Draw) -> dict[str, Tensor]:
        """Drop words, or features of text embeddings. At least one word of a clip is kept."""
        if "word_ids" not in tensors:
            return super().with_noise(tensors, noise, draw)
        ids = tensors["word_ids"]
        if not noise.dropout or not ids.shape[1]:
            return dict(tensors)
        numbers = draw(ids.shape[1:])
        largest = numbers.masked_fill(ids < 0, -1.0).max(dim=1, keepdim=True).values
        return {**tensors, "word_ids": ids.masked_fill((numbers < noise.dropout) & (numbers < largest), -1)}

    def encoder(self, arguments: Mapping[str, Any]) -> nn.Module:
        """Return a `TextEncoder`."""
        from trichord.layers.encoders import TextEncoder

        return TextEncoder(arguments["word_dim"], arguments["embed_dim"], arguments["mask_padding"])

    def target_dim(self, arguments: Mapping[str, Any]) -> int:
        """Return the width of the joint space, D."""
        return int(arguments["embed_dim"])

    def head_has_relu(self, arguments: Mapping[str, Any]) -> bool:
        """Return whether the reconstruction head ends with a relu."""
        return bool(arguments["reconstruction_relu"])

    def axes(self, arguments: Mapping[str, Any]) -> dict[str, Axis]:
        """Return the expected width of `text`."""
        return {"text": Axis(3, -1, arguments["word_dim"])}


def _embeddings(store: Store, clips: Clips, most: int) -> tuple[dict[str, Tensor], Tensor]:
    import torch

    slices = [clip_rows(store, EMBEDDING_STREAM, clips, row)[:most] for row in range(len(clips))]
    longest = max([1, *map(len, slices)])
    out = np.zeros((len(clips), longest, store.streams[EMBEDDING_STREAM].dim), np.float32)
    mask = np.zeros((len(clips), longest), bool)
    for row, embeddings in enumerate(slices):
        out[row, : len(embeddings)], mask[row, : len(embeddings)] = embeddings, True
    present = torch.from_numpy(mask)
    return {"text": torch.from_numpy(out), "text_mask": present}, present.any(dim=1)


def text_input_of(store: Store, choice: str = "auto") -> TextInput:
    """Return the kind of input that the text encoder reads from a store.

    Args:
        store: Store of the features.
        choice: Setting `model.text` of the recipe: "auto", "words" or "embeddings". "auto" selects embeddings if the store has text
            embeddings and no words.

    Returns:
        "words" or "embeddings".

    Raises:
        TrichordError: If `choice` is "embeddings" and the store has no text embeddings.
    """
    if choice == "embeddings" and not has_rows(store, EMBEDDING_STREAM):
        raise TrichordError(
            f"{store.path}: model.text is embeddings, but the store has no text embeddings; extract them, or set model.text "
            "to auto"
        )
    auto = not store.words and has_rows(store, EMBEDDING_STREAM)
    return "embeddings" if choice == "embeddings" or (choice == "auto" and auto) else "words"
