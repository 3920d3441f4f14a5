"""The centroids of a trained model, and the assignment of clips to them as `CombinedLoss` computes it.

Shape letters: K centroids, D joint width, n clips.
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
    """The centroids of the last k-means fit of a `ClusterMemory`.

    Attributes:
        rows: Centroids of shape (K, D), float32, on the CPU.
        cosine: Whether embeddings were scaled to unit length before they were fused and clustered (`loss.cluster_cosine`).

    Example:
        >>> import torch
        >>> from trichord.losses.centroids import Centroids
        >>> centroids = Centroids(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> centroids.nearest({"video": torch.tensor([[0.9, 0.1]]), "text": torch.tensor([[0.2, 0.8]])})
        tensor([0])
    """

    rows: Tensor
    cosine: bool = True

    @torch.no_grad()
    def nearest(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Assign each clip to the centroid that has the largest cosine with the mean of the clip's embeddings.

        Training labels clips in the same way. Without `cosine`, the embeddings are averaged without being scaled to unit length,
        so longer embeddings weigh more.

        Args:
            embeddings: Embeddings of shape (n, D) by modality. The mean is taken over these modalities.

        Returns:
            Indices of centroids of shape (n,), int64. The lowest index wins a tie.

        Example:
            >>> import torch
            >>> from trichord.losses.centroids import Centroids
            >>> centroids = Centroids(torch.eye(2))
            >>> centroids.nearest({"video": torch.tensor([[3.0, 1.0], [0.0, 2.0]])})
            tensor([0, 1])
        """
        rows = {m: e.float() for m, e in embeddings.items()}
        if self.cosine:
            rows = {m: F.normalize(e, dim=1) for m, e in rows.items()}
        present = torch.ones(len(next(iter(rows.values()))), dtype=torch.bool)
        fused, _ = fuse(rows, dict.fromkeys(rows, present))
        return assign(fused, self.rows, path="plain")
