"""Settings of the loss: those of its terms, and those of all pairwise losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trichord.errors import TrichordError
from trichord.losses.registry import own_settings, with_own_settings
from trichord.settings import bounded


@dataclass
class CommonLossSettings:
    """Settings of the contrastive, clustering and reconstruction terms and their weights.

    Args:
        contrast: Loss that compares two modalities.
        contrast_weight: Weight of the contrastive term.
        margin: Number that is subtracted from the score of the assigned centroid in the clustering term.
        cosine: Whether scores are cosines (normalized embeddings) instead of raw dot products.
        cluster_weight: Weight of the clustering term; 0 disables it.
        num_clusters: Number K of centroids.
        cluster_rows: Number of past embeddings that the queue keeps (published: 40,960).
        cluster_refit_every_steps: Number of steps between two k-means fits.
        cluster_on: `modalities` clusters every modality; `fused` clusters their mean.
        cluster_cosine: Whether to use unit vectors throughout (spherical k-means and cosine logits); false is the published
            mixture.
        cluster_temperature: Temperature by which cluster logits are divided.
        cluster_empty: Treatment of an empty cluster: `reseed` chooses a new centroid, `zero` sets the centroid to zero, as
            published.
        cluster_store: Clips that enter the queue: `all`, or the `first_half` of the clips of each video, as published.
        cluster_wait_until_full: Whether to fit on the batch only while the queue is not full, as published.
        cluster_reset_every_epoch: Whether to discard the centroids at the start of an epoch, as published.
        reconstruction_weight: Weight of the reconstruction term (published: 50); 0 disables it.
        reconstruction_detach: Whether to stop the gradient at the reconstruction targets; false is the published behaviour.
    """

    contrast: str = "mms"
    contrast_weight: float = bounded(1.0, 0)
    margin: float = bounded(0.001, -1_000_000, 1_000_000)
    cosine: bool = False
    cluster_weight: float = bounded(1.0, 0)
    num_clusters: int = bounded(256, 1)
    cluster_rows: int = bounded(40960, 1)
    cluster_refit_every_steps: int = bounded(20, 1)
    cluster_on: Literal["modalities", "fused"] = "modalities"
    cluster_cosine: bool = True
    cluster_temperature: float = bounded(0.1, 1e-6, 1_000_000)
    cluster_empty: Literal["reseed", "zero"] = "reseed"
    cluster_store: Literal["all", "first_half"] = "all"
    cluster_wait_until_full: bool = False
    cluster_reset_every_epoch: bool = False
    reconstruction_weight: float = bounded(50.0, 0)
    reconstruction_detach: bool = True


if TYPE_CHECKING:

    class LossSettings(CommonLossSettings):
        """Settings of the loss, including those of all pairwise losses, which are fields at run time."""

        def __getattr__(self, name: str) -> Any: ...

else:
    LossSettings = with_own_settings(CommonLossSettings, "LossSettings")


def check_effect(loss: LossSettings) -> None:
    """Raise TrichordError for a setting that differs from its default but is not used by the chosen pairwise loss."""
    for setting, readers in own_settings(CommonLossSettings).items():
        if loss.contrast not in readers and getattr(loss, setting.name) != setting.default:
            default = f"{setting.default:g}" if isinstance(setting.default, float) else setting.default
            raise TrichordError(
                f"loss.{setting.name} has no effect with loss.contrast {loss.contrast}; use {' or '.join(readers)}, "
                f"or leave loss.{setting.name} at {default}"
            )
