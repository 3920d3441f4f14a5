"""Recipes and studies that tests of several rooms train."""

from __future__ import annotations

from typing import Any

from trichord.recipes import Recipe, load_recipe

QUICK_WORDS = [
    "--recipe",
    "debug",
    "--training.max_steps",
    "2",
    "--training.tensorboard",
    "false",
    "--training.device",
    "cpu",
]


def quick(**training: Any) -> Recipe:
    """Return a recipe that trains two steps, which is enough for tests of what a study writes."""
    return load_recipe(
        "debug",
        training={"tensorboard": False, "max_steps": 2, "device": "cpu", **training},
        evaluation={"directions": ["t2v", "t2va", "a2v", "v2a"]},
    )
