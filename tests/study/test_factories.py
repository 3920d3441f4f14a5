"""Plain objects created from recipes."""

from __future__ import annotations

from dataclasses import replace

from trichord.recipes import load_recipe
from trichord.study.factories import build_accelerator


def test_each_stage_uses_the_precision_of_its_recipe() -> None:
    recipe = load_recipe("debug")
    wanted = ("no", "bf16", "no")
    precisions = [
        build_accelerator(replace(recipe, training=replace(recipe.training, precision=p))).mixed_precision
        for p in wanted
    ]
    assert tuple(precisions) == wanted
