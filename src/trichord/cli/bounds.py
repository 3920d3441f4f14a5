"""Bounds of the numeric command-line options. The bounds of recipe settings are defined in `trichord.recipes`."""

from __future__ import annotations

from argparse import Action
from typing import TYPE_CHECKING, Any

from trichord.settings import DRAW_SEED, SEED, Bounds

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

_COUNT = Bounds(1, 1_000_000)
_WORKERS = Bounds(1, 4096)
_SECONDS = Bounds(0, 1_000_000, above=True)
OPTIONS = {  # by name, or by command and name if commands differ
    "seed": SEED,
    "evaluate seed": DRAW_SEED,
    "seeds": SEED,
    "first_stage_seed": SEED,
    "num_train": _COUNT,
    "num_test": _COUNT,
    "num_val": Bounds(0, 1_000_000),
    "steps_per_video": _COUNT,
    "step_s": Bounds(1, 60),
    "width": Bounds(64, 8192),
    "height": Bounds(64, 8192),
    "frame_rate_hz": Bounds(1, 60),
    "workers": _WORKERS,
    "extract workers": Bounds(0, 4096),  # 0 works in this process
    "worker_cpus": _WORKERS,
    "worker_gpus": Bounds(0, 4096),
    "num_threads": _WORKERS,
    "test_fraction": Bounds(0, 1),
    "stall_s": Bounds(0, 999_999),
    "dual_softmax": Bounds(0, 1_000_000),
    "windows": Bounds(0, 1_000_000),
    "window_s": _SECONDS,
    "audio_window_s": _SECONDS,
    "level": Bounds(0, 1, above=True),
    "fps": Bounds(0, 1_000_000, above=True),
    "shard_items": Bounds(1),
    "shard_bytes": Bounds(1, 2**62),
}


def check_options(parser: ArgumentParser, values: Namespace) -> None:
    """Raise TrichordError if a numeric option of a command is out of bounds."""
    value_of_option = values.as_dict()
    for action in parser._actions:
        if is_numeric(action):
            bounds_of(parser, action).check(f"--{action.dest}", value_of_option.get(action.dest))


def bounds_of(parser: ArgumentParser, action: Action) -> Bounds:
    """Return the bounds of a numeric option.

    Raises:
        KeyError: The option has no bounds.
    """
    command = parser.prog.removeprefix("trichord ")
    return OPTIONS.get(f"{command} {action.dest}") or OPTIONS[action.dest]


def is_numeric(action: Action) -> bool:
    """Return whether an option takes a number or a list of numbers; settings of recipes (`training.epochs`) do not count."""
    kind: Any = getattr(action, "_typehint", None) or action.type
    text = kind.__name__ if isinstance(kind, type) else str(kind)
    return "." not in action.dest and any(number in text for number in ("int", "float"))
