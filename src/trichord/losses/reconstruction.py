"""The reconstruction loss of MCN, in which a head reconstructs the input of the encoder from the embedding."""

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
    """Compute the mean squared error of the reconstructions of one modality, averaged over the clips.

    The published code sums this loss over the three modalities and multiplies it by 50. It lets the gradient flow into the
    targets, which allows the audio and text encoders to lower the loss by shrinking their targets (Chen et al., MCN, 2021).

    Args:
        reconstruction: Reconstructions of shape (B, P).
        target: Targets of shape (B, P).
        detach_target: Whether to stop the gradient at the targets. The published code does not.
        valid: Mask of the valid clips, of shape (B,), bool. None means that all clips are valid.
        count: Number of valid clips in all processes. If given, the sum over these clips is divided by it, so that the results
            of all processes add up to the mean.

    Returns:
        A scalar. It is 0 if no clip is valid.

    Raises:
        ValueError: If the two shapes differ.

    Example:
        >>> import torch
        >>> from trichord.losses import reconstruction_loss
        >>> reconstruction_loss(torch.zeros(2, 3), torch.full((2, 3), 2.0))
        tensor(4.)
    """
    if reconstruction.shape != target.shape:
        raise ValueError(
            f"the reconstruction has the shape {tuple(reconstruction.shape)}, but the target has the shape {tuple(target.shape)}; "
            "pass tensors of the same shape"
        )
    if detach_target:
        target = target.detach()
    if valid is not None:
        reconstruction, target = reconstruction[valid], target[valid]
    errors = (reconstruction - target).square()
    if count is not None:
        return errors.sum() / (count * target.shape[1]).clamp(min=1)
    return errors.mean() if errors.numel() else errors.sum()
