"""The reconstruction loss of MCN: each embedding gives back its encoder's input."""

from __future__ import annotations

import torch

from trichord.losses.precision import full_precision


@full_precision
def reconstruction_loss(
    reconstruction: torch.Tensor,
    target: torch.Tensor,
    *,
    detach_target: bool = True,
    valid: torch.Tensor | None = None,
    count: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over the clips of the mean squared error of a row (Chen et al., MCN, 2021, for one modality).

    The published code sums it over the three modalities, times 50, and lets the gradient flow into the targets, which
    the audio and text encoders can then shrink.

    Args:
        reconstruction: (B, P).
        target: (B, P).
        detach_target: take the target as given; False is the published behaviour.
        valid: (B,) bool, or None for all. When none is valid the loss is 0.
        count: valid clips of all processes, where these rows are the part of one: its share of the mean.
    """
    if reconstruction.shape != target.shape:
        raise ValueError(f"{tuple(reconstruction.shape)} and {tuple(target.shape)} differ")
    if detach_target:
        target = target.detach()
    if valid is not None:
        reconstruction, target = reconstruction[valid], target[valid]
    errors = (reconstruction - target).square()
    if count is not None:
        return errors.sum() / (count * target.shape[1]).clamp(min=1)
    return errors.mean() if errors.numel() else errors.sum()
