"""Contrastive losses over a square matrix of scores, in which row i and column i are the two modalities of clip i.

B is the number of clips. The mask `valid` (B,) marks the clips that have both modalities; all other clips are left out, both as
rows and as columns. If no clip is valid, the loss is exactly 0, and its gradient is zero.
"""

from __future__ import annotations

import torch

from trichord.losses.pair import PairBatch
from trichord.losses.precision import full_precision

_NOTHING = -1e30  # stands for the logarithm of an empty sum; it is finite, so that gradients are zero instead of NaN


def _kept(scores: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    if not (scores.ndim == 2 and scores.shape[0] == scores.shape[1]):
        raise ValueError(f"scores must be a square matrix, but their shape is {tuple(scores.shape)}; pass (B, B)")
    return scores if valid is None else scores[valid][:, valid]


def _both_directions(logits: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of the diagonal along the rows plus that along the columns."""
    truth = logits.diagonal()
    return (logits.logsumexp(1) - truth).mean() + (logits.logsumexp(0) - truth).mean()


@full_precision
def masked_margin_softmax(
    scores: torch.Tensor, margin: float = 0.001, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute the masked margin softmax loss, MMS.

    The loss is the sum of two cross-entropies with S' = S - margin * I:
    mean_i [logsumexp_j S'_ij - S'_ii] + mean_j [logsumexp_i S'_ij - S'_jj]
    (Ilharco et al., Large-scale representation learning from visually grounded untranscribed speech, 2019; used by AVLnet and
    MCN). All-zero scores without a margin give 2 ln B.

    Args:
        scores: Dot products of shape (B, B).
        margin: Margin that is subtracted from the scores of true pairs. A larger margin demands a larger lead of the true pairs.
        valid: Mask of the clips that have both modalities, of shape (B,), bool. None means that all clips are valid.

    Returns:
        A scalar. It is 0 if no clip is valid.

    Raises:
        ValueError: If `scores` is not a square matrix.

    Example:
        >>> import torch
        >>> from trichord.losses import masked_margin_softmax
        >>> masked_margin_softmax(torch.zeros(4, 4), margin=0.0)  # 2 ln 4
        tensor(2.7726)
    """
    kept = _kept(scores, valid)
    if not kept.numel():
        return kept.sum()
    return _both_directions(kept - margin * torch.eye(len(kept), dtype=kept.dtype, device=kept.device))


@full_precision
def info_nce(
    scores: torch.Tensor, temperature: float | torch.Tensor = 0.07, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute the symmetric InfoNCE loss.

    The loss is the mean of the cross-entropies of S / temperature in both directions (van den Oord et al., 2018, eq. 4; in both
    directions as in CLIP, Radford et al., 2021). MMS is the sum of the two directions. All-zero scores give ln B.

    Args:
        scores: Scores of shape (B, B), usually cosines.
        temperature: Temperature that divides the scores. A smaller temperature gives more weight to the hardest negatives.
        valid: Mask of the clips that have both modalities, of shape (B,), bool. None means that all clips are valid.

    Returns:
        A scalar. It is 0 if no clip is valid.

    Raises:
        ValueError: If the temperature is not positive or `scores` is not a square matrix.

    Example:
        >>> import torch
        >>> from trichord.losses import info_nce
        >>> info_nce(torch.zeros(4, 4))  # ln 4
        tensor(1.3863)
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; give a positive number")
    kept = _kept(scores, valid)
    return kept.sum() if not kept.numel() else 0.5 * _both_directions(kept / temperature)


@full_precision
def softmax_share(
    scores: torch.Tensor,
    place: torch.Tensor,
    valid: torch.Tensor,
    *,
    margin: float = 0.0,
    temperature: float | torch.Tensor = 1.0,
) -> torch.Tensor:
    """Compute the contribution of some rows to one direction of a softmax loss.

    The contribution is the sum over these rows of [logsumexp_j S'_ij - S'_i,place(i)] / number of valid clips, with
    S' = (S - margin at the true column) / temperature. With temperature 1, the contributions of all clips add up to one direction
    of `masked_margin_softmax`; with margin 0, they add up to twice that of `info_nce`. Several processes that each hold a part of
    the clips thus add their contributions.

    Args:
        scores: Scores of shape (b, B) of some clips in one modality with all clips in the other.
        place: True column of each row, of shape (b,), int64.
        valid: Mask of the clips that have both modalities, of shape (B,), bool.
        margin: Margin that is subtracted from the scores of true pairs.
        temperature: Temperature that divides the scores.

    Returns:
        A scalar. It is 0 if no row is valid.

    Example:
        >>> import torch
        >>> from trichord.losses.contrast import softmax_share
        >>> scores, valid = torch.zeros(4, 4), torch.ones(4, dtype=torch.bool)
        >>> sum(softmax_share(scores[i : i + 2], torch.arange(i, i + 2), valid) for i in (0, 2))  # ln 4
        tensor(1.3863)
    """
    kept = scores[valid[place]][:, valid]
    if not kept.numel():
        return kept.sum()
    column = (valid.cumsum(0) - 1)[place[valid[place]]]
    logits = kept - margin * torch.nn.functional.one_hot(column, kept.shape[1]).to(kept.dtype) if margin else kept
    logits = logits / temperature
    truth = logits.gather(1, column[:, None])[:, 0]
    return (logits.logsumexp(1) - truth).sum() / kept.shape[1]


def softmax_shares(
    pair: PairBatch, part: slice, *, margin: float = 0.0, temperature: float | torch.Tensor = 1.0, weight: float = 1.0
) -> torch.Tensor:
    """Compute the contribution of some clips to both directions of a softmax loss.

    Args:
        pair: Embeddings of all B clips.
        part: Slice of the clips whose contribution is computed.
        margin: Margin that is subtracted from the scores of true pairs.
        temperature: Temperature that divides the scores.
        weight: Factor that multiplies the result.

    Returns:
        A scalar: `weight` times the sum of `softmax_share` over the two directions.

    Example:
        >>> import torch
        >>> from trichord.losses import PairBatch
        >>> from trichord.losses.contrast import softmax_shares
        >>> pair = PairBatch(torch.zeros(4, 3), torch.zeros(4, 3), torch.ones(4, dtype=torch.bool))
        >>> softmax_shares(pair, slice(0, 2)) + softmax_shares(pair, slice(2, 4))  # 2 ln 4
        tensor(2.7726)
    """
    place = torch.arange(len(pair.first), device=pair.first.device)[part]
    strips = pair.first[part] @ pair.second.T, pair.second[part] @ pair.first.T
    shares = [
        weight * softmax_share(strip, place, pair.valid, margin=margin, temperature=temperature) for strip in strips
    ]
    return shares[0] + shares[1]


def _logsumexp(scores: torch.Tensor, where: torch.Tensor, dim: int) -> torch.Tensor:
    return scores.masked_fill(~where, _NOTHING).logsumexp(dim)


@full_precision
def mil_nce(scores: torch.Tensor, positives: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Compute the MIL-NCE loss, in which each row has several candidate positives.

    For row i with positives P_i and negatives N_i, the loss is -log(sum_P / (sum_P + sum_N)), where the sums run over exp(score).
    N_i consists of the pairs of row i with columns outside P_i, and of the pairs of the columns in P_i with rows of which they are
    not positives. The result is the mean over the rows that have a positive (Miech et al., End-to-End Learning of Visual
    Representations from Uncurated Instructional Videos, 2020).

    Args:
        scores: Scores of shape (B, B), with the video in the rows and the text in the columns, or any other pair.
        positives: Mask of the positives of each row, of shape (B, B), bool. Its diagonal need not be set.
        valid: Mask of the clips that have both modalities, of shape (B,), bool. None means that all clips are valid.

    Returns:
        A scalar. It is 0 if no row has a positive.

    Raises:
        ValueError: If `scores` or `positives` is not a square matrix.

    Example:
        >>> import torch
        >>> from trichord.losses import mil_nce
        >>> positives = torch.tensor([[True, True], [False, True]])
        >>> mil_nce(torch.zeros(2, 2), positives)  # the mean of ln(3 / 2) and ln 2
        tensor(0.5493)
    """
    kept = _kept(scores, valid)
    positives = _kept(positives.to(torch.bool), valid)
    rows = positives.any(1)
    if not bool(rows.any()):
        return kept[rows].sum()
    numerator = _logsumexp(kept, positives, 1)
    column_negatives = _logsumexp(kept, ~positives, 0)
    others = _logsumexp(column_negatives.expand_as(kept), positives, 1)
    denominator = torch.logaddexp(kept.logsumexp(1), others)
    return (denominator - numerator)[rows].mean()
