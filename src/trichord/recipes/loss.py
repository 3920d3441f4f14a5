"""The settings of the loss: those of its terms, and those of every pairwise loss that exists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trichord.errors import TrichordError
from trichord.losses.registry import own_settings, with_own_settings
from trichord.settings import bounded


@dataclass
class CommonLossSettings:
    """Contrast between pairs, clustering towards shared centroids, reconstruction; and their weights.

    Args:
        contrast: The loss that compares two modalities.
        contrast_weight: Weight of the contrast term.
        margin: Clustering: Subtracted from the score of the assigned centroid.
        cosine: Scores are cosines (embeddings of length one) instead of raw dot products.
        cluster_weight: Weight of the clustering term; 0 leaves it out.
        num_clusters: Number K of centroids.
        cluster_rows: Past embeddings that the queue keeps (published: 40,960).
        cluster_refit_every_steps: Steps between two k-means fits.
        cluster_on: `modalities`: every modality towards the centroids; `fused`: their mean.
        cluster_cosine: Unit vectors throughout: spherical k-means and cosine logits; false is the published mixture.
        cluster_temperature: Cluster logits are divided by it.
        cluster_empty: An empty cluster is `reseed`-ed, or gets the `zero` centroid as published.
        cluster_store: Clips that enter the queue: `all`, or the `first_half` of each video's, as published.
        cluster_wait_until_full: Fit on the batch alone while the queue is not full, as published.
        cluster_reset_every_epoch: Forget the centroids when an epoch starts, as published.
        reconstruction_weight: Weight of the reconstruction term (published: 50); 0 leaves it out.
        reconstruction_detach: Targets carry no gradient; false is the published behaviour.
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
        def __getattr__(self, name: str) -> Any: ...

else:
    LossSettings = with_own_settings(CommonLossSettings, "LossSettings")


def check_effect(loss: LossSettings) -> None:
    """Raise TrichordError for a setting that is not at its default and that the chosen pairwise loss does not read."""
    for setting, readers in own_settings(CommonLossSettings).items():
        if loss.contrast not in readers and getattr(loss, setting.name) != setting.default:
            default = f"{setting.default:g}" if isinstance(setting.default, float) else setting.default
            raise TrichordError(
                f"loss.{setting.name} has no effect with loss.contrast {loss.contrast}; use {' or '.join(readers)}, or leave "
                f"it at {default}"
            )
