"""The pairwise losses and their settings.

Every module of `losses/pairwise` defines a loss, unless its name begins with an underscore. This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Literal, NamedTuple, get_type_hints

from trichord.losses import pairwise
from trichord.losses.pair import PairwiseLoss
from trichord.settings import KEY, descriptions_of, summary_of


class Setting(NamedTuple):
    """A setting of one or more losses.

    Attributes:
        name: Name of the setting in the section `loss`.
        kind: Type of the setting.
        default: Default value.
        bounds: Bounds of the setting, or None if it is not a number.

    Example:
        >>> from trichord.losses.registry import Setting
        >>> Setting("smoothing", float, default=0.1, bounds=None).name
        'smoothing'
    """

    name: str
    kind: Any
    default: Any
    bounds: Any


@cache
def pairwise_losses() -> dict[str, type[PairwiseLoss]]:
    """Return the class of every pairwise loss by its name, in alphabetical order.

    Example:
        >>> from trichord.losses import pairwise_losses
        >>> list(pairwise_losses())
        ['barlow_twins', 'info_nce', 'mil_nce', 'mms']
    """
    names = sorted(module.name for module in iter_modules(pairwise.__path__) if not module.name.startswith("_"))
    return {name: _class_of(import_module(f"{pairwise.__name__}.{name}")) for name in names}


def pairwise_loss(name: str, settings: object) -> PairwiseLoss:
    """Build a pairwise loss from its name and settings.

    Args:
        name: Name of the loss, a key of `pairwise_losses()`.
        settings: Object that has the settings of the loss as attributes, such as the section `loss` of a recipe.

    Returns:
        The loss.

    Example:
        >>> from types import SimpleNamespace
        >>> from trichord.losses.registry import pairwise_loss
        >>> pairwise_loss("info_nce", SimpleNamespace(temperature=0.1))
        InfoNCE(temperature=0.1)
    """
    kind = pairwise_losses()[name]
    return kind(**{setting.name: getattr(settings, setting.name) for setting in _settings_of(kind)})


@cache
def own_settings(common: type) -> dict[Setting, list[str]]:
    """Return the settings that only pairwise losses read.

    Args:
        common: Dataclass of the settings that other loss terms read too. Pairwise losses may use them as well.

    Returns:
        The settings, each with the names of the losses that read it.

    Raises:
        TypeError: If two settings of one name differ in their type, default or bounds.

    Example:
        >>> from dataclasses import dataclass
        >>> from trichord.losses.registry import own_settings
        >>> @dataclass
        ... class Common:
        ...     contrast: str = "mms"
        >>> {setting.name: losses for setting, losses in own_settings(Common).items()}
        {'redundancy_weight': ['barlow_twins'], 'temperature': ['info_nce', 'mil_nce'], 'margin': ['mms']}
    """
    known = {setting.name: setting for setting in _settings_of(common)}
    shared = set(known)
    readers: dict[Setting, list[str]] = {}
    for loss, kind in pairwise_losses().items():
        for setting in _settings_of(kind):
            if known.setdefault(setting.name, setting) != setting:
                raise TypeError(
                    f"loss {loss}: the setting {setting.name} already exists with another type, default or bounds; "
                    "rename it or use the same definition"
                )
            if setting.name not in shared:
                readers.setdefault(setting, []).append(loss)
    return readers


def with_own_settings(common: type, name: str) -> type:
    """Return a dataclass with the settings of `common` and of all pairwise losses.

    The type of its field `contrast` is the choice of the names of all pairwise losses. Its docstring describes all settings.

    Args:
        common: Dataclass of the settings that other loss terms read too. It has a field `contrast` and a docstring that describes
            all of its fields under `Args:`.
        name: Name of the new class.

    Returns:
        The new dataclass, a subclass of `common`.

    Example:
        >>> from dataclasses import dataclass, fields
        >>> from trichord.losses.registry import with_own_settings
        >>> @dataclass
        ... class Common:
        ...     '''The settings of the loss.
        ...
        ...     Args:
        ...         contrast: Name of the pairwise loss.
        ...     '''
        ...     contrast: str = "mms"
        >>> [field.name for field in fields(with_own_settings(Common, "LossSettings"))]
        ['contrast', 'redundancy_weight', 'temperature', 'margin']
    """
    choices: Any = Literal[tuple(pairwise_losses())]
    added: list[Any] = [("contrast", choices, common.contrast)] + [  # type: ignore[attr-defined]
        (
            setting.name,
            setting.kind,
            field(default=setting.default, metadata={KEY: setting.bounds} if setting.bounds else {}),
        )
        for setting in own_settings(common)
    ]
    namespace = {"__doc__": _documentation(common), "__module__": common.__module__}
    return make_dataclass(name, added, bases=(common,), namespace=namespace)


def _class_of(module: ModuleType) -> type[PairwiseLoss]:
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, PairwiseLoss) and value.__module__ == module.__name__
    ]
    if len(own) != 1 or not is_dataclass(own[0]):
        raise TypeError(
            f"{module.__name__} defines {len(own)} subclasses of PairwiseLoss; define exactly one, and make it a dataclass"
        )
    return own[0]


def _settings_of(kind: Any) -> Iterable[Setting]:
    hints = get_type_hints(kind)
    for entry in fields(kind):
        yield Setting(entry.name, hints[entry.name], _default_of(kind, entry), entry.metadata.get(KEY))


def _default_of(kind: type, entry: Field[Any]) -> Any:
    if entry.default is MISSING:
        raise TypeError(
            f"{kind.__name__}.{entry.name} has no default; give it a number, a string or a bool as its default"
        )
    return entry.default


def _documentation(common: type) -> str:
    descriptions, losses_of = descriptions_of(common), dict[tuple[str, str], list[str]]()
    for loss, kind in pairwise_losses().items():
        descriptions["contrast"] += f" {loss}: {summary_of(kind)}."
        for described in descriptions_of(kind).items():
            losses_of.setdefault(described, []).append(loss)
    for (name, text), losses in losses_of.items():
        descriptions[name] = f"{descriptions.get(name, '')} {', '.join(losses)}: {text}".strip()
    arguments = "\n".join(f"    {name}: {text}" for name, text in descriptions.items())
    return f"{summary_of(common)}.\n\nArgs:\n{arguments}\n"
