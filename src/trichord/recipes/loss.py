"""Settings of the loss: those of its terms, and those of all pairwise losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trichord.errors import TrichordError
from trichord.losses.registry import own_settings, with_own_settings
from trichord.modality import Pair, letters_of
from trichord.settings import ByName, bounded, number_for


@dataclass
class CommonLossSettings:
    """Settings of the contrastive, clustering and reconstruction terms and their weights.

    Args:
        contrast: Loss that compares two modalities.
        contrast_weight: Weight of the contrastive term.
        pair_weights: Weights of the pairs in the contrastive term, by the letters of the two modalities, such as
            `{vt: 1, at: 0.5}`; other pairs have the weight 1. One number is the weight of all pairs.
        learn_temperature: Whether each pair learns its temperature, starting from `temperature`.
        least_temperature: Smallest temperature that is learned.
        most_temperature: Largest temperature that is learned.
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
    pair_weights: ByName = bounded(1.0, 0, 1_000)
    learn_temperature: bool = False
    least_temperature: float = bounded(0.01, 1e-6, 1_000)
    most_temperature: float = bounded(0.3, 1e-6, 1_000)
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


def number_for_pair(setting: ByName, pair: Pair) -> float:
    """Return the number for a pair, or 1 if a dictionary lacks the pair.

    Args:
        setting: One number for all pairs, or numbers by the letters of a pair, in either order.
        pair: Names of two modalities.
    """
    if not isinstance(setting, dict):
        return setting
    numbers = {"".join(sorted(letters.lower())): number for letters, number in setting.items()}
    return number_for(numbers, letters_of(pair), 1.0)


def check_effect(loss: LossSettings) -> None:
    """Raise TrichordError for a setting that differs from its default but is not used by the chosen pairwise loss."""
    for setting, readers in own_settings(CommonLossSettings).items():
        if loss.contrast not in readers and getattr(loss, setting.name) != setting.default:
            default = f"{setting.default:g}" if isinstance(setting.default, float) else setting.default
            raise TrichordError(
                f"loss.{setting.name} has no effect with loss.contrast {loss.contrast}; use {' or '.join(readers)}, "
                f"or leave loss.{setting.name} at {default}"
            )
    if loss.learn_temperature:
        _check_temperature(loss)


def _check_temperature(loss: LossSettings) -> None:
    settings = own_settings(CommonLossSettings).items()
    with_temperature = next(losses for setting, losses in settings if setting.name == "temperature")
    if loss.contrast not in with_temperature:
        raise TrichordError(
            f"loss.learn_temperature has no effect with loss.contrast {loss.contrast}, which has no temperature; use "
            f"{' or '.join(with_temperature)}, or set loss.learn_temperature to false"
        )
    least, most = loss.least_temperature, loss.most_temperature
    if not least <= loss.temperature <= most:
        raise TrichordError(
            f"loss.temperature is {loss.temperature:g}; the learned temperature starts there, so it must lie between "
            f"loss.least_temperature ({least:g}) and loss.most_temperature ({most:g})"
        )
