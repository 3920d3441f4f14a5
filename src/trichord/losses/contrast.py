"""Contrastive losses over a square matrix of scores: row i and column i are the two modalities of clip i.

B clips. `valid` (B,) marks the clips that have both modalities; the others count neither as rows nor as columns. When
none is valid, the loss is exactly 0 and still carries a (zero) gradient.
"""

from __future__ import annotations

import torch

from trichord.losses.pair import PairBatch
from trichord.losses.precision import full_precision

_NOTHING = -1e30  # the logarithm of an empty sum; finite, so that gradients stay zero and not NaN


def _kept(scores: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    if not (scores.ndim == 2 and scores.shape[0] == scores.shape[1]):
        raise ValueError(f"scores must be square, not {tuple(scores.shape)}")
    return scores if valid is None else scores[valid][:, valid]


def _both_directions(logits: torch.Tensor) -> torch.Tensor:
    """Cross-entropy to the diagonal along rows plus along columns, each a mean over the clips."""
    truth = logits.diagonal()
    return (logits.logsumexp(1) - truth).mean() + (logits.logsumexp(0) - truth).mean()


@full_precision
def masked_margin_softmax(
    scores: torch.Tensor, margin: float = 0.001, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Masked margin softmax, MMS (Ilharco et al., Large-scale representation learning from visually grounded
    untranscribed speech, 2019; as used by AVLnet and MCN).

    The sum of two cross-entropies, with S' = S - margin * I:
    mean_i [logsumexp_j S'_ij - S'_ii] + mean_j [logsumexp_i S'_ij - S'_jj].
    All-zero scores without margin give 2 ln B.

    Args:
        scores: (B, B), dot products.
        margin: subtracted from the scores of true pairs; a larger one asks for a larger lead.
        valid: (B,) bool, or None for all.
    """
    kept = _kept(scores, valid)
    if not kept.numel():
        return kept.sum()
    return _both_directions(kept - margin * torch.eye(len(kept), dtype=kept.dtype, device=kept.device))


@full_precision
def info_nce(scores: torch.Tensor, temperature: float = 0.07, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Symmetric InfoNCE (van den Oord et al., 2018, eq. 4; in both directions as in CLIP, Radford et al., 2021).

    The mean of the two directions' cross-entropies of S / temperature (MMS is their sum). All-zero scores give ln B.

    Args:
        scores: (B, B), usually cosines.
        temperature: divides the scores; a smaller one weighs the hardest negatives more.
        valid: (B,) bool, or None for all.
    """
    if not temperature > 0:
        raise ValueError("the temperature must be positive")
    kept = _kept(scores, valid)
    return kept.sum() if not kept.numel() else 0.5 * _both_directions(kept / temperature)


@full_precision
def softmax_share(
    scores: torch.Tensor,
    place: torch.Tensor,
    valid: torch.Tensor,
    *,
    margin: float = 0.0,
    temperature: float = 1.0,
) -> torch.Tensor:
    """What some rows give to one direction of `masked_margin_softmax` (temperature 1) or twice that of `info_nce` (margin
    0): processes that hold a part of the clips each add up to it.

    The sum over these rows of [logsumexp_j S'_ij - S'_i,place(i)] / number of valid clips, S' = (S - margin at the true
    column) / temperature.

    Args:
        scores: (b, B), rows of one modality against all columns of the other (or turned, for the other direction).
        place: (b,) the true column of each row.
        valid: (B,) bool, clips that have both modalities.
        margin: subtracted from the scores of true pairs.
        temperature: divides the scores.
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
    pair: PairBatch, part: slice, *, margin: float = 0.0, temperature: float = 1.0, weight: float = 1.0
) -> torch.Tensor:
    """Return `weight` times what the clips `part` give to both directions, as `softmax_share` computes each."""
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
    """MIL-NCE (Miech et al., End-to-End Learning of Visual Representations from Uncurated Instructional Videos, 2020):
    several candidate positives per row, of which some may be right.

    For row i with positives P_i: -log(sum_P / (sum_P + sum_N)), sums of exp(score). N_i holds the pairs of row i with
    columns outside P_i, and the pairs of the columns of P_i with rows of which they are no positive. The mean over the
    rows that have a positive.

    Args:
        scores: (B, B), rows video and columns text (or any other pair).
        positives: (B, B) bool; its diagonal need not be set.
        valid: (B,) bool, or None for all.
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
