"""Embed items with the network, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from trichord.embedder.inputs import audio_inputs, text_inputs
from trichord.tasks.benchmarks import CLIPS_PER_BATCH, ScoringSettings

if TYPE_CHECKING:
    import torch

    from trichord.nn import MCN


def embed_rows(
    model: MCN, modality: str, rows: Iterable[np.ndarray], scoring: ScoringSettings, device: str
) -> np.ndarray:
    """Embed the items of a modality.

    Args:
        model: The network.
        modality: Name of the modality.
        rows: Input of each item, as `Inputs` returns it. An iterator is read one batch at a time.
        scoring: How clips are read.
        device: Device of the network.

    Returns:
        Embeddings (N, D) float32.

    Example:
        >>> from trichord import Embedder
        >>> embedder = Embedder.from_pretrained("my_model")
        >>> rows = [np.ones(1280, np.float32)] * 3
        >>> embed_rows(embedder.model, "video", rows, embedder.parts.scoring, "cpu").shape
        (3, 8)
    """
    import torch

    items, embeddings = iter(rows), [np.empty((0, int(model.arguments["embed_dim"])), np.float32)]
    while batch := list(islice(items, CLIPS_PER_BATCH)):
        inputs = {name: tensor.to(device) for name, tensor in network_inputs(modality, batch, scoring).items()}
        with torch.inference_mode():
            embeddings.append(model.embed(**inputs)[modality].float().cpu().numpy())
    return np.concatenate(embeddings)


def network_inputs(modality: str, rows: Sequence[np.ndarray], scoring: ScoringSettings) -> dict[str, torch.Tensor]:
    """Return the inputs of the network by name for a batch of items.

    Example:
        >>> from trichord import Embedder
        >>> scoring = Embedder.from_pretrained("my_model").parts.scoring
        >>> network_inputs("video", [np.zeros(1280, np.float32)] * 2, scoring)["video"].shape
        torch.Size([2, 1280])
    """
    import torch

    if modality == "text":
        return text_inputs(rows, scoring)
    if modality == "audio":
        return audio_inputs(rows, scoring)
    return {modality: torch.from_numpy(np.stack(rows))}
