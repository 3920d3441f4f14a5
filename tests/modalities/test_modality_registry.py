"""Modalities beyond video, audio and text: declared by name and letter, and refused if they could be confused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trichord import modality
from trichord.errors import TrichordError
from trichord.modality import Direction, Order, declare, declared, in_order, known, pairs_of


@pytest.fixture(autouse=True)
def no_declared_modalities(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(modality, "_declared", {})
    yield


def test_a_declared_modality_is_known_by_name_and_letter() -> None:
    order = Order.parse("vt>a>d")
    assert order.modalities == ("video", "text", "audio", "d")
    declare({"depth": "d"})
    declare({"depth": "D"})
    assert known() == ("video", "audio", "text", "depth") and declared() == {"depth": "d"}
    assert order.modalities == ("video", "text", "audio", "depth") and order.code == "vt>a>d"
    direction = Direction.parse("d2t")
    assert direction.modalities == ("depth", "text") and direction.code == "d2t" and str(direction) == "D→T"


def test_modalities_are_ordered_by_name_and_not_by_declaration() -> None:
    declare({"touch": "h", "depth": "d"})
    assert known() == ("video", "audio", "text", "depth", "touch")
    assert in_order(["touch", "text", "depth", "video", "text"]) == ("video", "text", "depth", "touch")
    assert pairs_of(["depth", "audio"]) == (("audio", "depth"),)


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ({"depth": "v"}, "the letter v already stands for video"),
        ({"depth": "d", "dance": "d"}, "the letter d already stands for depth"),
        ({"video": "x"}, "modality video: its letter is v, not x"),
        ({"depth": "dd"}, "'dd' is not a letter"),
        ({"depth": "é"}, "'é' is not a letter"),
        ({"Depth": "d"}, "'Depth' cannot be the name"),
        ({"../depth": "d"}, "cannot be the name"),
        ({"spectrogram": "s"}, "cannot be the name"),
        ({"videos": "s"}, "cannot be the name"),
        ({"depth_valid": "s"}, "cannot be the name"),
        ({"caption_rows": "s"}, "cannot be the name"),
    ],
)
def test_a_declaration_that_cannot_hold_is_refused(modalities: dict[str, str], message: str) -> None:
    with pytest.raises(TrichordError, match=message):
        declare(modalities)


def test_a_direction_with_an_unknown_letter_lists_the_known_ones() -> None:
    declare({"depth": "d"})
    with pytest.raises(TrichordError, match="expected v, a, t and d"):
        Direction.parse("t2x")
