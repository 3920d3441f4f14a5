"""The weighted sum of a stage's terms: contrast over its pairs, clustering, reconstruction.

MCN (Chen et al. 2021, section 3): L = L_contrast + L_cluster + L_reconstruction. A stage restricts each term to what it
trains: pairs hold at least one trained modality, clustering and reconstruction touch trained modalities only. Frozen
embeddings still take part as the other side of a pair, and in the mean that k-means clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from trichord.losses.clustering import ClusterMemory, cluster_contrast
from trichord.losses.precision import at_least_float32
from trichord.losses.reconstruction import reconstruction_loss
from trichord.modality import NAMES, Pair, letter_of
from trichord.parallel import gather_rows

if TYPE_CHECKING:
    from trichord.nn import Encoded

Contrast = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(scores (B, B), valid (B,), positives (B, B)) -> scalar"""


class CombinedLoss:
    """All terms of one stage. Called with the outputs of this process, it returns terms over the batch of all processes.

    Args:
        pairs: Pairs of modality names that the contrast term compares.
        contrast: The contrast of one pair, from a score matrix.
        contrast_weight: Weight of the contrast term (sum over pairs).
        cosine: Scores are cosines instead of raw dot products.
        cluster: Modalities that the clustering term pulls towards centroids; empty for none.
        cluster_weight: Weight of the clustering term (mean over modalities).
        cluster_on: `modalities`, or `fused` for one loss on the mean embedding.
        cluster_cosine: Embeddings are brought to length one before they are fused, clustered and compared.
        cluster_margin: Subtracted from the assigned centroid's logit.
        cluster_temperature: Divides the logits.
        memory: Queue and centroids; needed when `cluster` is not empty.
        reconstruct: Modalities with a reconstruction term; empty for none.
        reconstruction_weight: Weight of the reconstruction term (sum over modalities).
        reconstruction_detach: Targets carry no gradient.
    """

    def __init__(
        self,
        *,
        pairs: Sequence[Pair],
        contrast: Contrast,
        contrast_weight: float = 1.0,
        cosine: bool = False,
        cluster: Sequence[str] = (),
        cluster_weight: float = 1.0,
        cluster_on: str = "modalities",
        cluster_cosine: bool = True,
        cluster_margin: float = 0.001,
        cluster_temperature: float = 1.0,
        memory: ClusterMemory | None = None,
        reconstruct: Sequence[str] = (),
        reconstruction_weight: float = 50.0,
        reconstruction_detach: bool = True,
    ) -> None:
        assert memory is not None or not cluster, "clustering needs a memory"
        self.pairs, self.contrast, self.contrast_weight, self.cosine = tuple(pairs), contrast, contrast_weight, cosine
        self.cluster, self.cluster_weight, self.cluster_on = tuple(cluster), cluster_weight, cluster_on
        self.cluster_cosine, self.cluster_margin = cluster_cosine, cluster_margin
        self.cluster_temperature, self.memory = cluster_temperature, memory
        self.reconstruct, self.reconstruction_weight = tuple(reconstruct), reconstruction_weight
        self.reconstruction_detach = reconstruction_detach

    def __call__(
        self,
        outputs: Mapping[str, Encoded],
        valid: Mapping[str, Tensor],
        positives: Tensor | None = None,
        stored: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Terms of one batch.

        Args:
            outputs: Per modality its embedding (B, D), reconstruction target and reconstruction (B, P).
            valid: Per modality (B,) bool: the clip has it.
            positives: (B, B) bool, which texts count as true for which clips (MIL-NCE); default the diagonal.
            stored: (B,) bool over the batch of all processes, clips that enter the cluster queue; default all.

        Returns:
            Scalars by name; `loss` is the weighted sum of the unweighted terms beside it (`contrast_VT`, `cluster`,
            `reconstruction_A`, ...). `cluster_objective`, from the first fit of the centroids on, is a plain value for
            the log and no part of the loss: the mean of 1 - cosine that k-means last reached.
        """
        modalities = [m for m in NAMES.values() if m in outputs]
        embeddings = {m: gather_rows(at_least_float32(outputs[m].embedding)) for m in modalities}
        present = {m: gather_rows(valid[m]) for m in modalities}
        terms = self._contrast_terms(embeddings, present, positives)
        total = self.contrast_weight * sum(terms.values())
        if self.cluster:
            terms["cluster"] = self._cluster_term(embeddings, present, stored)
            total = total + self.cluster_weight * terms["cluster"]
            if self.memory is not None and self.memory.objective is not None:
                terms["cluster_objective"] = terms["cluster"].new_tensor(self.memory.objective)
        for modality in self.reconstruct:
            out = outputs[modality]
            assert out.reconstruction is not None, f"{modality} has no reconstruction head"
            term = reconstruction_loss(
                gather_rows(at_least_float32(out.reconstruction)),
                gather_rows(at_least_float32(out.target)),
                detach_target=self.reconstruction_detach,
                valid=present[modality],
            )
            terms[f"reconstruction_{letter_of(modality)}"] = term
            total = total + self.reconstruction_weight * term
        assert isinstance(total, Tensor)
        return {"loss": total, **terms}

    def _contrast_terms(
        self, embeddings: Mapping[str, Tensor], present: Mapping[str, Tensor], positives: Tensor | None
    ) -> dict[str, Tensor]:
        terms = {}
        for first, second in self.pairs:
            rows, columns = embeddings[first], embeddings[second]
            if self.cosine:
                rows, columns = F.normalize(rows, dim=1), F.normalize(columns, dim=1)
            with torch.autocast(rows.device.type, enabled=False):
                scores = rows @ columns.T
            true = positives
            if true is None:
                true = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
            both = present[first] & present[second]
            terms[f"contrast_{letter_of(first)}{letter_of(second)}"] = self.contrast(scores, both, true)
        return terms

    def _cluster_term(
        self, embeddings: Mapping[str, Tensor], present: Mapping[str, Tensor], stored: Tensor | None
    ) -> Tensor:
        assert self.memory is not None
        if self.cluster_cosine:
            embeddings = {m: F.normalize(e, dim=1) for m, e in embeddings.items()}
        fused, any_present = fuse(embeddings, present)
        found = self.memory.update(fused.detach(), any_present, stored=stored)
        if found is None:
            return fused.new_zeros(())
        centroids, labels = found
        options = {"margin": self.cluster_margin, "temperature": self.cluster_temperature}
        if self.cluster_on == "fused":
            rows = F.normalize(fused, dim=1) if self.cluster_cosine else fused
            return cluster_contrast(rows, centroids, labels, valid=any_present, **options)
        losses = [cluster_contrast(embeddings[m], centroids, labels, valid=present[m], **options) for m in self.cluster]
        return torch.stack(losses).mean()


def fuse(embeddings: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (B, D) of the embeddings that a clip has, and (B,) whether it has any."""
    names = list(embeddings)
    weights = torch.stack([present[m].float() for m in names])
    count = weights.sum(0)
    total = torch.stack([embeddings[m] * w[:, None] for m, w in zip(names, weights, strict=True)]).sum(0)
    return total / count.clamp(min=1)[:, None], count > 0
