"""Losses are computed in float32 (float64 stays) with autocast off."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

T = TypeVar("T")
_LOW = (torch.float16, torch.bfloat16)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision becomes float32; all else stays as it is."""
    return tensor.float() if tensor.dtype in _LOW else tensor


def full_precision(function: Callable[..., T]) -> Callable[..., T]:
    """`function` with its half-precision tensor arguments brought to float32, and autocast off inside."""

    def raised(value: Any) -> Any:
        return at_least_float32(value) if isinstance(value, torch.Tensor) else value

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> T:
        device = next(v.device.type for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor))
        with torch.autocast(device, enabled=False):
            return function(*(raised(v) for v in args), **{k: raised(v) for k, v in kwargs.items()})

    return wrapper
