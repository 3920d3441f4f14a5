"""The centroids that a model was trained towards, and which of them a clip belongs to: as `CombinedLoss` decides it.

K centroids, D joint width, n clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trichord.losses.combined import fuse
from trichord.losses.kmeans import assign


@dataclass(frozen=True, eq=False)
class Centroids:
    """What the last fit of the clusters' memory found.

    Attributes:
        rows: (K, D) float32, on the CPU.
        cosine: Embeddings were brought to length one before they were fused and clustered (`loss.cluster_cosine`).
    """

    rows: Tensor
    cosine: bool = True

    @torch.no_grad()
    def nearest(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """(n,) int64, the centroid of each clip: the one of the largest cosine with the mean of its embeddings, the first
        one on ties. Training labels its clips in the same way, also where `cosine` is off: then the mean is of embeddings as
        they are, and long ones weigh more.

        Args:
            embeddings: By modality (n, D); the mean is over these.
        """
        given = {m: e.float() for m, e in embeddings.items()}
        if self.cosine:
            given = {m: F.normalize(e, dim=1) for m, e in given.items()}
        every = torch.ones(len(next(iter(given.values()))), dtype=torch.bool)
        fused, _ = fuse(given, dict.fromkeys(given, every))
        return assign(fused, self.rows, path="plain")
