"""The training losses: contrast between modalities, clustering and reconstruction.

Each loss takes plain tensors and returns a scalar in float32. Encoders, data loading and the training loop live elsewhere
(`trichord.layers`, `trichord.data` and `trichord.training`).

The public names are imported on first use, so that the command line can read the settings of the losses without importing torch.
"""

# ruff: noqa: F401 - the imports tell type checkers which names `__getattr__` returns

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trichord.losses.clustering import ClusterMemory, cluster_contrast
    from trichord.losses.contrast import info_nce, masked_margin_softmax, mil_nce
    from trichord.losses.kmeans import KMeans, assign, fit_kmeans
    from trichord.losses.pair import DividedLoss, PairBatch, PairwiseLoss
    from trichord.losses.reconstruction import reconstruction_loss
    from trichord.losses.registry import pairwise_losses

_MODULES = {
    "clustering": ("ClusterMemory", "cluster_contrast"),
    "contrast": ("info_nce", "masked_margin_softmax", "mil_nce"),
    "kmeans": ("KMeans", "assign", "fit_kmeans"),
    "pair": ("DividedLoss", "PairBatch", "PairwiseLoss"),
    "reconstruction": ("reconstruction_loss",),
    "registry": ("pairwise_losses",),
}
__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"trichord.losses.{module}"), name)
    raise AttributeError(f"module 'trichord.losses' has no attribute '{name}'")
