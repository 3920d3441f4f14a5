"""Orders and directions: parsing, printing and errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.modality import Direction, Order, letter_of, name_of, pairs_of


@pytest.mark.parametrize(
    ("text", "printed", "code"),
    [("av>t", "AV→T", "av>t"), ("VA>T", "AV→T", "av>t"), ("ta→v", "AT→V", "at>v"), ("vt->a", "VT→A", "vt>a"),
     ("avt", "AVT", "avt"), ("vt>a>x", "VT→A→X", "vt>a>x")],
)  # fmt: skip
def test_orders_are_read_and_printed(text: str, printed: str, code: str) -> None:
    order = Order.parse(text)
    assert (str(order), order.code) == (printed, code)
    assert Order.parse(str(order)) == order == Order.parse(order.code)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "is empty"), ("av>", "stage without a modality"), ("a>vt", "starts with A alone"), ("av>a", "names A twice"),
     ("av>1", "'1', which is not a modality letter"), (">av", "stage without")],
)  # fmt: skip
def test_a_wrong_order_gives_the_reason_and_an_example(text: str, complaint: str) -> None:
    with pytest.raises(TrichordError, match=complaint) as caught:
        Order.parse(text)
    assert "a valid order is av>t" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stages_list_new_and_earlier_modalities() -> None:
    order = Order.parse("vt>a>x")
    assert order.added(0) == ("video", "text") and order.before(0) == ()
    assert order.added(1) == ("audio",) and order.before(1) == ("video", "text")
    assert order.modalities == ("video", "text", "audio", "x")
    assert [order.up_to(stage).code for stage in range(3)] == ["vt", "vt>a", "vt>a>x"]
    assert order.up_to(0).followed_by(["audio"]) == Order.parse("vt>a")


def test_what_is_parsed_already_stays_as_it_is() -> None:
    order, direction = Order.parse("av>t"), Direction.parse("t2v")
    assert Order.parse(order) is order and Direction.parse(direction) is direction


@pytest.mark.parametrize(("text", "printed"), [("t2v", "T→V"), ("T2VA", "T→V+A"), ("ta2v", "TA→V"), ("a2v", "A→V")])
def test_directions(text: str, printed: str) -> None:
    direction = Direction.parse(text)
    assert str(direction) == printed and direction.code == text.lower()


@pytest.mark.parametrize("text", ["t", "t2", "2v", "t2t", "t2x", "tv", "t2v2a", ""])
def test_wrong_directions_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(TrichordError, match="valid directions are t2v"):
        Direction.parse(text)


@given(st.permutations(["video", "audio", "text"]))
def test_pairs_do_not_depend_on_the_order_given(names: list[str]) -> None:
    assert pairs_of(names) == (("video", "audio"), ("video", "text"), ("audio", "text"))


def test_letters_and_names_are_inverse() -> None:
    assert [name_of(letter_of(n)) for n in ("video", "audio", "text", "x")] == ["video", "audio", "text", "x"]
