"""The file of the centroids of a trained model: `centroids.safetensors`, with one tensor `centroids` of shape (K, D), float32.

It lies next to the weights, and `model.json` contains its digest as `centroids_sha256`. A folder without this entry has no
centroids: its stage had no clustering, or an early version of trichord trained it. A checkpoint stores the centroids in
`clusters.safetensors`, whose digest is in `checkpoint.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trichord.errors import TrichordError
from trichord.files.reading import check_regular, file_sha256, unreadable
from trichord.files.writing import replacing
from trichord.losses.centroids import Centroids
from trichord.training.checkpoint_folder import MANIFEST
from trichord.training.seals import again

CENTROIDS, IN_CHECKPOINT = "centroids.safetensors", "clusters.safetensors"
DIGEST, _NAME = "centroids_sha256", "centroids"


def write_centroids(folder: Path, centroids: Tensor | None) -> dict[str, str]:
    """Write the file, or remove an existing one if there are no centroids.

    Args:
        folder: Folder of the model.
        centroids: Tensor of shape (K, D), or None.

    Returns:
        The entries that describe the file in `model.json`.
    """
    from safetensors.torch import save_file

    if centroids is None:
        (folder / CENTROIDS).unlink(missing_ok=True)
        return {}
    with replacing(folder / CENTROIDS) as partial:
        save_file({_NAME: centroids.detach().float().cpu().contiguous()}, partial)
        return {DIGEST: file_sha256(partial)}


def read_centroids(folder: Path, described: Mapping[str, Any], width: int) -> Centroids | None:
    """Read the centroids of a model folder, or of a checkpoint whose files have been checked.

    Args:
        folder: Folder of the model or the checkpoint.
        described: Content of its `model.json`.
        width: Size D of the embeddings of the model.

    Returns:
        The centroids, or None if the folder has none.

    Raises:
        TrichordError: The file cannot be read, was changed, or does not fit the model.
    """
    from safetensors import SafetensorError, safe_open

    in_checkpoint = (folder / MANIFEST).is_file()
    path = folder / (IN_CHECKPOINT if in_checkpoint else CENTROIDS)
    if not path.is_file() if in_checkpoint else DIGEST not in described:
        return None
    try:
        if not in_checkpoint and file_sha256(path) != described[DIGEST]:
            raise TrichordError(f"{path}: the centroids have changed since they were written; {again(folder)}")
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            rows = file.get_tensor(_NAME)
    except (OSError, SafetensorError, MemoryError) as error:
        raise unreadable(path, error, mend=again(folder)) from None
    if in_checkpoint and not rows.numel():  # before the first fit
        return None
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows) or rows.dtype != torch.float32:
        raise TrichordError(
            f"{path}: the centroids have shape {tuple(rows.shape)} and type {rows.dtype}, but the model needs (K, {width}) "
            f"and torch.float32; {again(folder)}"
        )
    if not rows.isfinite().all():
        raise TrichordError(f"{path}: the centroids are not finite, so the model has diverged; train it again")
    loss = described.get("settings", {}).get("loss", {})
    return Centroids(rows, bool(loss.get("cluster_cosine", True)))
