"""Deprecated location of `trichord.embedder.mteb`."""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def __getattr__(name: str) -> Any:
    value = getattr(importlib.import_module("trichord.embedder.mteb"), name)
    warnings.warn(
        "trichord.evaluation.mteb has moved to trichord.embedder.mteb; the old name will be removed in the next release",
        DeprecationWarning,
        stacklevel=2,
    )
    return value
