"""The training loss of a stage: the weighted sum of contrast, clustering and reconstruction.

MCN (Chen et al. 2021, section 3) defines L = L_contrast + L_cluster + L_reconstruction. A stage restricts each term to the
modalities that it trains: each pair contains at least one trained modality, and clustering and reconstruction apply to trained
modalities only. Frozen embeddings still serve as the other side of a pair and contribute to the mean that k-means clusters.
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
    """The sum of all loss terms of one stage.

    Each process calls it with its own outputs and gets the terms over the batch of all processes.

    Args:
        pairs: Pairs of modality names that the contrast term compares.
        contrast: Loss of one pair.
        divide: Whether several processes divide all terms between them if `contrast` supports it: each process then compares its
            own clips with all clips. Otherwise, each process computes the contrast of the whole batch.
        contrast_weight: Weight of the contrast term, which is a sum over the pairs.
        pair_weights: Weight of each pair in this sum. Pairs that are not given have the weight 1.
        cosine: Whether scores are cosines instead of raw dot products.
        cluster: Modalities that the clustering term pulls towards centroids. Empty to disable the term.
        cluster_weight: Weight of the clustering term, which is a mean over the modalities.
        cluster_on: "modalities" for one loss per modality, "fused" for one loss on the mean embedding.
        cluster_cosine: Whether embeddings are scaled to unit length before they are fused, clustered and compared.
        cluster_margin: Margin that is subtracted from the logit of the assigned centroid.
        cluster_temperature: Temperature that divides the logits of the clustering term.
        memory: Queue and centroids. Required if `cluster` is not empty.
        reconstruct: Modalities with a reconstruction term. Empty to disable the term.
        reconstruction_weight: Weight of the reconstruction term, which is a sum over the modalities.
        reconstruction_detach: Whether the reconstruction targets carry no gradient.

    Raises:
        ValueError: If `cluster` is not empty and `memory` is None.

    Example:
        >>> import torch
        >>> from trichord.layers.encoders import Encoded
        >>> from trichord.losses import pairwise_losses
        >>> from trichord.losses.combined import CombinedLoss
        >>> loss = CombinedLoss(pairs=[("video", "text")], contrast=pairwise_losses()["mms"](margin=0.0))
        >>> outputs = {m: Encoded(torch.zeros(2, 4), torch.zeros(2, 3), None) for m in ("video", "text")}
        >>> present = {m: torch.ones(2, dtype=torch.bool) for m in outputs}
        >>> {name: round(float(term), 4) for name, term in loss(outputs, present).items()}  # 2 ln 2
        {'loss': 1.3863, 'contrast_VT': 1.3863}
    """

    def __init__(
        self,
        *,
        pairs: Sequence[Pair],
        contrast: PairwiseLoss,
        divide: bool = True,
        contrast_weight: float = 1.0,
        pair_weights: Mapping[Pair, float] | None = None,
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
            raise ValueError("the clustering term requires a ClusterMemory; pass it as `memory`")
        self.pairs, self.contrast, self.contrast_weight, self.cosine = tuple(pairs), contrast, contrast_weight, cosine
        self.divide = divide
        self.pair_weights = [1.0 if pair_weights is None else pair_weights.get(pair, 1.0) for pair in self.pairs]
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
        temperatures: Mapping[Pair, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms of one batch.

        Args:
            outputs: By modality, the embedding (B, D), and the reconstruction target and reconstruction (B, P).
            valid: By modality, a mask of shape (B,), bool, of the clips that have this modality.
            positives: Matrix of shape (B, B), bool, of the texts that count as positives of each clip (MIL-NCE). None means the
                diagonal.
            stored: Mask over the batch of all processes, bool, of the clips that enter the cluster queue. None stores all clips.
            temperatures: Learned temperature of each pair, a scalar. None or a pair that is not given uses the setting of the loss.

        Returns:
            Scalars by name. `loss` is the weighted sum of the other, unweighted terms (`contrast_VT`, `cluster`,
            `reconstruction_A`, ...). After the first fit of the centroids, `cluster_objective` is added for the log: the mean of
            1 - cosine that the last k-means fit reached. It does not contribute to the loss.
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
        terms = self._contrast_terms(embeddings, present, positives, own, temperatures or {})
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
        contrast = sum(
            w * terms[name] if w != 1 else terms[name] for w, name in zip(self.pair_weights, contrasts, strict=True)
        )
        total = self.contrast_weight * contrast
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
        temperatures: Mapping[Pair, Tensor],
    ) -> dict[str, Tensor]:
        terms = {}
        for first, second in self.pairs:
            rows = embeddings[first], embeddings[second]
            if self.cosine:
                rows = F.normalize(rows[0], dim=1), F.normalize(rows[1], dim=1)
            temperature = temperatures.get((first, second))
            pair = PairBatch(*rows, present[first] & present[second], positives, temperature)
            with torch.autocast(pair.first.device.type, enabled=False):
                terms[_name(first, second)] = self._contrast_term(pair, own)
        return terms

    def _contrast_term(self, pair: PairBatch, own: slice | None) -> Tensor:
        if own is None:
            return self.contrast(pair)
        assert isinstance(self.contrast, DividedLoss)
        return self.contrast.share(pair, own)

    def _reconstruction_term(self, out: Encoded, present: Tensor, sizes: list[int], own: slice | None) -> Tensor:
        assert out.reconstruction is not None, "the modality has no reconstruction head"
        parts = at_least_float32(out.reconstruction), at_least_float32(out.target)
        if own is not None:
            valid, count = present[own], present.sum()
            return reconstruction_loss(*parts, detach_target=self.reconstruction_detach, valid=valid, count=count)
        gathered = [gather_rows(part, sizes) for part in parts]
        return reconstruction_loss(*gathered, detach_target=self.reconstruction_detach, valid=present)

    def _cluster_term(
        self, embeddings: Mapping[str, Tensor], present: Mapping[str, Tensor], stored: Tensor | None, own: slice | None
    ) -> Tensor:
        assert self.memory is not None
        if self.cluster_cosine:
            embeddings = {m: F.normalize(e, dim=1) for m, e in embeddings.items()}
        fused, any_present = fuse(embeddings, present)
        part = slice(None) if own is None else own
        assignment = self.memory.update(fused.detach(), any_present, stored=stored, assigned=part)
        if assignment is None:
            return fused.new_zeros(())
        centroids, labels = assignment

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
    """Average the embeddings of each clip over the modalities that the clip has.

    Args:
        embeddings: By modality, embeddings of shape (B, D).
        present: By modality, a mask of shape (B,), bool, of the clips that have this modality.

    Returns:
        The means of shape (B, D), and a mask of shape (B,), bool, of the clips that have at least one modality. The mean of any
        other clip is zero.

    Example:
        >>> import torch
        >>> from trichord.losses.combined import fuse
        >>> embeddings = {"video": torch.tensor([[2.0], [4.0]]), "text": torch.tensor([[0.0], [9.0]])}
        >>> present = {"video": torch.tensor([True, True]), "text": torch.tensor([True, False])}
        >>> fuse(embeddings, present)
        (tensor([[1.],
                [4.]]), tensor([True, True]))
    """
    names = list(embeddings)
    weights = torch.stack([present[m].float() for m in names])
    count = weights.sum(0)
    total = torch.stack([embeddings[m] * w[:, None] for m, w in zip(names, weights, strict=True)]).sum(0)
    return total / count.clamp(min=1)[:, None], count > 0
