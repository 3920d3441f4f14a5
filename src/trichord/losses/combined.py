"""The weighted sum of a stage's terms: contrast over its pairs, clustering, reconstruction.

MCN (Chen et al. 2021, section 3): L = L_contrast + L_cluster + L_reconstruction. A stage restricts each term to what it
trains: pairs hold at least one trained modality, clustering and reconstruction touch trained modalities only. Frozen
embeddings still take part as the other side of a pair, and in the mean that k-means clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from trichord.losses.clustering import ClusterMemory, cluster_contrast
from trichord.losses.pair import DividedLoss, PairBatch, PairwiseLoss
from trichord.losses.precision import at_least_float32
from trichord.losses.reconstruction import reconstruction_loss
from trichord.modality import Pair, in_order, letter_of
from trichord.parallel import gather_rows, process_index, rows_of_each, sum_over_processes

if TYPE_CHECKING:
    from trichord.layers.encoders import Encoded


class CombinedLoss:
    """All terms of one stage. Called with the outputs of this process, it returns terms over the batch of all processes.

    Args:
        pairs: Pairs of modality names that the contrast term compares.
        contrast: The loss of one pair.
        divide: Several processes divide all terms where `contrast` can be divided: each computes those of its own clips
            against all. Else each computes the contrast of the whole batch.
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
        contrast: PairwiseLoss,
        divide: bool = True,
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
        if memory is None and cluster:
            raise ValueError("clustering needs a memory")
        self.pairs, self.contrast, self.contrast_weight, self.cosine = tuple(pairs), contrast, contrast_weight, cosine
        self.divide = divide
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
        modalities = in_order(outputs)
        here = {m: at_least_float32(outputs[m].embedding) for m in modalities}
        first = next(iter(here.values()))
        sizes = rows_of_each(len(first), first.device)
        begin = sum(sizes[: process_index()])
        own = slice(begin, begin + len(first)) if len(sizes) > 1 else None
        embeddings = {m: gather_rows(rows, sizes) for m, rows in here.items()}
        present = {m: gather_rows(valid[m], sizes) for m in modalities}
        if not (self.divide and isinstance(self.contrast, DividedLoss)):
            own = None
        terms = self._contrast_terms(embeddings, present, positives, own)
        contrasts, weights = list(terms), {}
        if self.cluster:
            terms["cluster"] = self._cluster_term(embeddings, present, stored, own)
            weights["cluster"] = self.cluster_weight
        for modality in self.reconstruct:
            name = f"reconstruction_{letter_of(modality)}"
            terms[name] = self._reconstruction_term(outputs[modality], present[modality], sizes, own)
            weights[name] = self.reconstruction_weight
        if own is not None:
            terms = dict(zip(terms, sum_over_processes(torch.stack(list(terms.values()))).unbind(), strict=True))
        total = self.contrast_weight * sum(terms[name] for name in contrasts)
        for name, weight in weights.items():
            total = total + weight * terms[name]
        assert isinstance(total, Tensor)
        if self.cluster and self.memory is not None and self.memory.objective is not None:
            terms["cluster_objective"] = total.new_tensor(self.memory.objective)
        return {"loss": total, **terms}

    def _contrast_terms(
        self,
        embeddings: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        positives: Tensor | None,
        own: slice | None,
    ) -> dict[str, Tensor]:
        terms = {}
        for first, second in self.pairs:
            rows = embeddings[first], embeddings[second]
            if self.cosine:
                rows = F.normalize(rows[0], dim=1), F.normalize(rows[1], dim=1)
            pair = PairBatch(*rows, present[first] & present[second], positives)
            with torch.autocast(pair.first.device.type, enabled=False):
                terms[_name(first, second)] = self._contrast_term(pair, own)
        return terms

    def _contrast_term(self, pair: PairBatch, own: slice | None) -> Tensor:
        if own is None:
            return self.contrast(pair)
        assert isinstance(self.contrast, DividedLoss)
        return self.contrast.share(pair, own)

    def _reconstruction_term(self, out: Encoded, present: Tensor, sizes: list[int], own: slice | None) -> Tensor:
        assert out.reconstruction is not None, "a modality has no reconstruction head"
        parts = at_least_float32(out.reconstruction), at_least_float32(out.target)
        if own is not None:
            valid, count = present[own], present.sum()
            return reconstruction_loss(*parts, detach_target=self.reconstruction_detach, valid=valid, count=count)
        every = [gather_rows(part, sizes) for part in parts]
        return reconstruction_loss(*every, detach_target=self.reconstruction_detach, valid=present)

    def _cluster_term(
        self, embeddings: Mapping[str, Tensor], present: Mapping[str, Tensor], stored: Tensor | None, own: slice | None
    ) -> Tensor:
        assert self.memory is not None
        if self.cluster_cosine:
            embeddings = {m: F.normalize(e, dim=1) for m, e in embeddings.items()}
        fused, any_present = fuse(embeddings, present)
        part = slice(None) if own is None else own
        found = self.memory.update(fused.detach(), any_present, stored=stored, assigned=part)
        if found is None:
            return fused.new_zeros(())
        centroids, labels = found

        def term(rows: Tensor, valid: Tensor) -> Tensor:
            return cluster_contrast(
                rows[part], centroids, labels, margin=self.cluster_margin, valid=valid[part],
                temperature=self.cluster_temperature, count=None if own is None else valid.sum(),
            )  # fmt: skip

        if self.cluster_on == "fused":
            return term(F.normalize(fused, dim=1) if self.cluster_cosine else fused, any_present)
        return torch.stack([term(embeddings[m], present[m]) for m in self.cluster]).mean()


def _name(first: str, second: str) -> str:
    return f"contrast_{letter_of(first)}{letter_of(second)}"


def fuse(embeddings: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (B, D) of the embeddings that a clip has, and (B,) whether it has any."""
    names = list(embeddings)
    weights = torch.stack([present[m].float() for m in names])
    count = weights.sum(0)
    total = torch.stack([embeddings[m] * w[:, None] for m, w in zip(names, weights, strict=True)]).sum(0)
    return total / count.clamp(min=1)[:, None], count > 0
