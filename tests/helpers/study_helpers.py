"""Recipes and studies that tests of several rooms train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from trichord.recipes import Recipe, load_recipe
from trichord.study import table


@pytest.fixture(scope="module")
def without_chart() -> Iterator[None]:
    """Leave `orders.png` of studies empty. Drawing it takes a third of a second for each run; `test_study.py` tests it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "draw_orders", lambda study_table, path: path.write_bytes(b""))
        yield


def quick(**training: Any) -> Recipe:
    """Return a recipe that trains two steps, which is enough for tests of what a study writes."""
    return load_recipe(
        "debug",
        training={"tensorboard": False, "max_steps": 2, "device": "cpu", **training},
        evaluation={"directions": ["t2v", "t2va", "a2v", "v2a"]},
    )
