"""Joint embedding spaces of video, audio and text, trained in stages, and a comparison of the orders of these stages.

`import trichord` is fast: subpackages, and classes that need PyTorch, are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trichord.errors import TrichordError
from trichord.modality import Direction, Order

if TYPE_CHECKING:
    from trichord.embedder import Embedder
    from trichord.nn import MCN

    __version__: str

__all__ = ["MCN", "Direction", "Embedder", "Order", "TrichordError", "__version__"]

_LAZY = {"Embedder": "trichord.embedder", "MCN": "trichord.nn"}
_ROOMS = (
    "data",
    "embedder",
    "evaluation",
    "features",
    "losses",
    "media",
    "nn",
    "recipes",
    "releases",
    "store",
    "study",
    "training",
    "world",
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("trichord")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in _ROOMS:
        return import_module(f"trichord.{name}")
    raise AttributeError(f"module 'trichord' has no attribute '{name}'")
