"""Helpers that compute losses in float32 or float64 with autocast disabled."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

T = TypeVar("T")
_LOW = (torch.float16, torch.bfloat16)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Convert a half-precision tensor to float32. Tensors of other types are returned unchanged.

    Example:
        >>> import torch
        >>> from trichord.losses.precision import at_least_float32
        >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype, at_least_float32(torch.zeros(1).double()).dtype
        (torch.float32, torch.float64)
    """
    return tensor.float() if tensor.dtype in _LOW else tensor


def full_precision(function: Callable[..., T]) -> Callable[..., T]:
    """Decorate a function to convert its half-precision tensor arguments to float32 and to run with autocast disabled.

    Example:
        >>> import torch
        >>> from trichord.losses.precision import full_precision
        >>> total = full_precision(lambda tensor: tensor.sum())
        >>> total(torch.ones(2, dtype=torch.float16))
        tensor(2.)
    """

    def raised(value: Any) -> Any:
        return at_least_float32(value) if isinstance(value, torch.Tensor) else value

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> T:
        device = next(v.device.type for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor))
        with torch.autocast(device, enabled=False):
            return function(*(raised(v) for v in args), **{k: raised(v) for k, v in kwargs.items()})

    return wrapper
