"""Every number that a user can set has bounds: settings of a recipe, and options of every command."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import jsonargparse
import pytest

from trichord.cli import COMMANDS, _run, main
from trichord.cli.bounds import bounds_of, is_numeric
from trichord.errors import TrichordError
from trichord.recipes import Recipe, load_recipe, of_this_version, recipe_from_dict
from trichord.recipes.identity import training_settings
from trichord.releases import IMPORTERS
from trichord.settings import KEY, Bounds
from trichord.study.plan import plan_study
from trichord.study.run import run_study


def numeric_settings(kind: type = Recipe, prefix: str = "") -> Iterator[tuple[str, Bounds | None, Any]]:
    """Return name, bounds and default of every setting that is a number or a list of numbers."""
    hints = get_type_hints(kind)
    for entry in fields(kind):
        if is_dataclass(hints[entry.name]):
            yield from numeric_settings(hints[entry.name], f"{prefix}{entry.name}.")
        elif any(number in str(hints[entry.name]) for number in ("int", "float")):
            yield f"{prefix}{entry.name}", entry.metadata.get(KEY), getattr(kind(), entry.name)


SETTINGS = {name: (bounds, default) for name, bounds, default in numeric_settings()}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_numeric_setting_has_bounds(name: str) -> None:
    bounds, default = SETTINGS[name]
    assert bounds is not None
    group, key = name.split(".")
    below = bounds.least if bounds.above else bounds.least - 1
    refused = rf"^{name} is \S.*; (it|each number) must be (at least|above) \S+, and at most"
    below, above = (
        [value] * len(default) if isinstance(default, list) else type(default)(value)
        for value in (below, bounds.most + 1)
    )
    with pytest.raises(TrichordError, match=refused):
        load_recipe("debug", **{group: {key: below}})
    recipe = load_recipe("debug")
    setattr(getattr(recipe, group), key, above)
    with pytest.raises(TrichordError, match=refused):
        recipe.check()
    with pytest.raises(TrichordError, match=rf"{name} is \S+; it must be a"):
        load_recipe("debug", **{group: {key: math.inf}})
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(TrichordError, match=rf"^{name} is \S+; it must be"):
            bounds.check(name, value)


@pytest.mark.parametrize("channels", [[], [1], [0, 0, 0, 0], [-1, 2, 2, 2], [1, 1, 1, 1, 1]])
def test_sound_has_four_widths(channels: list[int]) -> None:
    with pytest.raises(TrichordError, match=r"model.audio_channels is \["):
        load_recipe("debug", model={"audio_channels": channels})


def parsers() -> Iterator[list[str]]:
    for command in COMMANDS:
        if command not in ("import", "store", "doctor"):
            yield [command]
    for name in (*IMPORTERS, "stamps"):
        yield ["import", name]
    yield ["store", "export"]


@pytest.mark.parametrize("words", list(parsers()), ids=" ".join)
def test_every_numeric_option_has_bounds(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Caught(BaseException):
        pass

    def catch(self: jsonargparse.ArgumentParser, *_: object) -> None:
        raise Caught(self)

    monkeypatch.setattr(jsonargparse.ArgumentParser, "parse_args", catch)
    with pytest.raises(Caught) as caught:
        _run([*words, "x"])
    (parser,) = caught.value.args
    for action in filter(is_numeric, parser._actions):
        bounds_of(parser, action).check(action.dest, action.default)


@pytest.mark.parametrize(
    "words",
    [
        "train --store S --out O --seed -1", "study --store S --out O --seeds [-1]", "study --store S --out O --seeds [0,-1]",
        "study --store S --out O --first_stage_seed -1", "train --store S --out O --seed 99999999999999999999",
        "train --store S --out O --training.max_steps -1", "evaluate R --store S --seed -1", "evaluate R --store S --seeds -1",
        "evaluate R --store S --windows -1", "evaluate R --store S --dual_softmax nan", "extract V --store S --workers -1",
        "extract V --store S --test_fraction nan", "extract V --store S --stall_s inf", "world O --step_s nan",
        "report R --level nan", "embed M f.mp4 --out e.npz --window_s -1", "freeze R --store S --ray local --workers 0",
        "demo --seed -1", "import webdataset --root R --store S --num_threads -1", "store export S --out O --shard_items 0",
    ],
)  # fmt: skip
def test_an_option_out_of_bounds_is_an_error_of_one_line(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    error_text = capsys.readouterr().err
    assert error_text.startswith("trichord: error: ") and error_text.count("\n") == 1
    assert "; it must be " in error_text or "; each number must be " in error_text
    assert f"{words.split()[-2].removeprefix('--')} is {words.split()[-1][:2]}" in error_text


def test_empty_lists_are_called_empty(tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", "--store", str(tiny_store), "--out", str(tmp_path / "out"), "--recipe", "debug"]
    for option, subject in (
        ("--orders", "list of orders"),
        ("--seeds", "list of seeds"),
        ("--evaluation.directions", "directions"),
    ):
        assert main([*words, option, "[]"]) == 2
        assert f"{subject} is empty; give at least one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_seed_that_is_given_twice_counts_once() -> None:
    from trichord.modality import Order

    plan = plan_study([Order.parse("av>t")], [1, 1, 0], load_recipe("debug"), "fingerprint")
    assert [planned.seed for planned in plan] == [1, 0]


def test_settings_that_were_changed_in_python_are_checked(tiny_store: Path, tmp_path: Path) -> None:
    recipe = load_recipe("debug")
    recipe.training.max_steps = -1
    with pytest.raises(TrichordError, match="training.max_steps is -1; it must be at least 0"):
        run_study(tiny_store, tmp_path / "out", ["vt"], [0], recipe)


def test_models_of_earlier_versions_are_still_read() -> None:
    kept = load_recipe("debug").to_dict()
    kept["training"] |= {"clip_grad_norm": -1.0, "warmup_steps": -5}
    recipe = recipe_from_dict(of_this_version(kept))
    assert recipe.training.clip_grad_norm == recipe.training.warmup_steps == 0


def test_bounds_do_not_enter_the_keys_of_stages() -> None:
    assert "bounds" not in str(training_settings(load_recipe("paper")))
    assert training_settings(load_recipe("paper"))["training"]["warmup_steps"] == 5000
