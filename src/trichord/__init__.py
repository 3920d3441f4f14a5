"""Trichord: in which order should video, audio and text be combined?

`import trichord` is cheap; what needs torch is imported when it is first used.
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
