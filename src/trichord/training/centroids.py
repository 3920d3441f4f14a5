"""The centroids of a trained model as a file: `centroids.safetensors` beside its weights, one tensor `centroids` (K, D) float32.

`model.json` names its digest, as `centroids_sha256`. A folder whose description names none has none: a stage without clustering,
or one that was trained before they were kept. A checkpoint has them in its `clusters.safetensors`, which its own list seals.
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
    """Write the file, or remove one that is there when there are no centroids (K, D). Returns what the description says of it."""
    from safetensors.torch import save_file

    if centroids is None:
        (folder / CENTROIDS).unlink(missing_ok=True)
        return {}
    with replacing(folder / CENTROIDS) as partial:
        save_file({_NAME: centroids.detach().float().cpu().contiguous()}, partial)
        return {DIGEST: file_sha256(partial)}


def read_centroids(folder: Path, described: Mapping[str, Any], width: int) -> Centroids | None:
    """The centroids of a model folder, or of a checkpoint whose files were checked; None where it has none.

    Args:
        folder: With the file.
        described: What its `model.json` says.
        width: D of the model.

    Raises TrichordError when they cannot be read, were changed, or are of another width.
    """
    from safetensors import SafetensorError, safe_open

    in_checkpoint = (folder / MANIFEST).is_file()
    path = folder / (IN_CHECKPOINT if in_checkpoint else CENTROIDS)
    if not path.is_file() if in_checkpoint else DIGEST not in described:
        return None
    try:
        if not in_checkpoint and file_sha256(path) != described[DIGEST]:
            raise TrichordError(f"{path}: the centroids were changed since they were written; {again(folder)}")
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            rows = file.get_tensor(_NAME)
    except (OSError, SafetensorError, MemoryError) as error:
        raise unreadable(path, error, mend=again(folder)) from None
    if in_checkpoint and not rows.numel():  # before the first fit
        return None
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows) or rows.dtype != torch.float32:
        raise TrichordError(
            f"{path}: holds no centroids of this model: {tuple(rows.shape)} {rows.dtype} for a width of {width}; "
            f"{again(folder)}"
        )
    if not rows.isfinite().all():
        raise TrichordError(f"{path}: the centroids are not finite: the model has diverged; train it anew")
    loss = described.get("settings", {}).get("loss", {})
    return Centroids(rows, bool(loss.get("cluster_cosine", True)))
