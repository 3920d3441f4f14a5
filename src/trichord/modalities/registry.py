"""The registry of modalities.

Every module of `modalities` that defines a modality is found and declared when this module is imported. All other modalities are
feature arrays. This module does not import torch.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from inspect import isabstract
from pkgutil import iter_modules
from types import ModuleType

from trichord import modalities
from trichord.errors import TrichordError
from trichord.modalities.base import Modality
from trichord.modalities.features import Features
from trichord.modality import declare, known, letter_of

_NO_MODALITIES = ("base", "features", "gather", "registry")  # modules of this package that do not define a modality


@cache
def own_modalities() -> dict[str, Modality]:
    """Declare the modalities that have a module of their own, and return them by name."""
    names = (module.name for module in iter_modules(modalities.__path__) if module.name not in _NO_MODALITIES)
    specifications = [_modality_of(import_module(f"{modalities.__name__}.{name}")) for name in sorted(names)]
    declare({modality.name: modality.letter for modality in specifications})
    return {modality.name: modality for modality in specifications}


def specification(name: str) -> Modality:
    """Return the specification of a modality: that of its own module, or otherwise that of feature arrays.

    Args:
        name: Name of the modality.

    Returns:
        The specification.

    Raises:
        TrichordError: If the modality is not declared.
    """
    if (own := own_modalities().get(name)) is not None:
        return own
    if name not in known():
        raise TrichordError(
            f"unknown modality {name[:40]!r}; expected one of {', '.join(known())}; declare another modality with its "
            'letter, for example by trichord.modality.declare({"depth": "d"})'
        )
    if (other := modality_of_tensor(name)) != name:
        raise TrichordError(
            f"a modality cannot be named {name}, because a tensor of {other} has this name; choose another name"
        )
    return Features(name, letter_of(name).lower())


def modality_of_tensor(name: str) -> str:
    """Return the modality of a tensor of a batch or of an input of the network."""
    return _owners().get(name, name)


@cache
def _owners() -> dict[str, str]:
    return {tensor: modality.name for modality in own_modalities().values() for tensor in modality.tensors}


def _modality_of(module: ModuleType) -> Modality:
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Modality) and value.__module__ == module.__name__
    ]
    if len(own) != 1 or isabstract(own[0]):
        raise TypeError(
            f"{module.__name__} defines {len(own)} subclasses of Modality; define exactly one, and implement all abstract methods"
        )
    return own[0]()


own_modalities()  # declares the modalities, which reserves their letters
