"""Clips that are extended with neighbouring captions: the published windows, a slow implementation, and invariants."""

from __future__ import annotations

import gzip
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paths import FIXTURES
from trichord.captions import tokenize
from trichord.data import clip_spans, clip_windows, words_published_order
from trichord.errors import TrichordError

PARITY = FIXTURES / "parity"

Times = tuple[np.ndarray, np.ndarray]


def read_json(name: str) -> dict:
    return json.loads(gzip.decompress((PARITY / name).read_bytes()))


def grown_slowly(start: list[float], end: list[float], caption: int, least: float) -> tuple[float, float, list[int]]:
    """Extend clips by a literal implementation of the rule."""
    members = [caption]
    while True:
        begin, stop = min(members), max(members)
        clip = (start[begin], end[stop])
        choices = []
        if begin > 0:
            choices.append((end[stop] - start[begin - 1], 0, begin - 1))
        if stop + 1 < len(start):
            choices.append((end[stop + 1] - start[begin], 1, stop + 1))
        if clip[1] - clip[0] >= least or not choices:
            return *clip, members
        members.append(min(choices)[2])


@st.composite
def captions(draw: st.DrawFn) -> Times:
    """Captions in any order, with overlaps, ties, and lengths that are zero or negative."""
    count = draw(st.integers(0, 12))
    times = st.lists(st.integers(-8, 40).map(lambda t: t / 2), min_size=count, max_size=count)
    return np.array(draw(times), np.float64), np.array(draw(times), np.float64)


def test_published_windows_of_real_captions() -> None:
    windows, videos = read_json("caption_windows.json.gz"), read_json("howto100m_captions.json.gz")
    compared = 0
    for video, expected in windows.items():
        start, end = np.array(videos[video]["start"]), np.array(videos[video]["end"])
        words = [tokenize(text) for text in videos[video]["text"]]
        clip_start, clip_end = clip_windows(start, end, 10.0)
        assert clip_start.tolist() == [w[0] for w in expected]
        assert clip_end.tolist() == [w[1] for w in expected]
        for caption, (_, _, first_words) in enumerate(expected):
            order = words_published_order(caption, start, end, 10.0)
            assert [word for c in order for word in words[c]][:20] == first_words
        compared += len(expected)
    assert compared == 5042


def test_all_videos_at_once_equal_single_videos() -> None:
    videos = read_json("howto100m_captions.json.gz").values()
    offsets = np.concatenate([[0], np.cumsum([len(v["start"]) for v in videos])])
    start, end = (np.concatenate([v[key] for v in videos]) for key in ("start", "end"))
    together = clip_spans(start, end, 10.0, offsets)
    for begin, stop in zip(offsets[:-1], offsets[1:], strict=True):
        alone = clip_spans(start[begin:stop], end[begin:stop], 10.0)
        for field, (one, all_) in enumerate(zip(alone, together, strict=True)):
            np.testing.assert_array_equal(one + (begin if field > 1 else 0), all_[begin:stop])


@settings(deadline=None)
@given(captions(), st.sampled_from([0.0, 0.5, 3.0, 10.0, 1000.0]))
def test_equals_the_slow_rule(times: Times, least: float) -> None:
    start, end = times
    clip_start, clip_end, first, last = clip_spans(start, end, least)
    for caption in range(len(start)):
        slow_start, slow_end, members = grown_slowly(start.tolist(), end.tolist(), caption, least)
        assert (clip_start[caption], clip_end[caption]) == (slow_start, slow_end)
        assert list(range(first[caption], last[caption] + 1)) == sorted(members)
        assert words_published_order(caption, start, end, least).tolist() == members


@settings(deadline=None)
@given(captions(), st.sampled_from([0.5, 3.0, 10.0]))
def test_a_clip_holds_its_caption_and_is_long_enough_or_the_whole_video(times: Times, least: float) -> None:
    clip_start, clip_end, first, last = clip_spans(*times, least)
    index = np.arange(len(first))
    assert (first <= index).all() and (index <= last).all()
    whole = (first == 0) & (last == len(index) - 1)
    assert ((clip_end - clip_start >= least) | whole).all()


def test_shapes_and_types_at_the_corners() -> None:
    for array in clip_spans(np.array([]), np.array([])):
        assert array.shape == (0,)
    start, end, first, last = clip_spans(np.array([3]), np.array([4]))
    assert (start.dtype, end.dtype, first.dtype, last.dtype) == (np.float64, np.float64, np.int64, np.int64)
    assert (start[0], end[0], first[0], last[0]) == (3.0, 4.0, 0, 0)
    assert words_published_order(0, np.array([3]), np.array([4])).tolist() == [0]


def test_ties_prefer_the_left_neighbour_and_the_published_order_puts_it_last() -> None:
    start, end = np.array([0.0, 4.0, 8.0]), np.array([4.0, 8.0, 12.0])
    clip_start, clip_end = clip_windows(start, end, 8.0)
    assert (clip_start[1], clip_end[1]) == (0.0, 8.0)
    assert words_published_order(1, start, end, 8.0).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("start", "end", "least", "text"),
    [
        ([0.0, 1.0], [1.0], 10.0, "start_s has the shape (2,), and end_s has the shape (1,)"),
        ([[0.0]], [[1.0]], 10.0, "one start and one end per caption"),
        ([0.0, np.nan], [1.0, 2.0], 10.0, "not finite; remove such captions"),
        ([0.0], [np.inf], 10.0, "not finite"),
        ([0.0], [1.0], np.nan, "min_duration_s is nan"),
    ],
)
def test_refuses(start: list, end: list, least: float, text: str) -> None:
    with pytest.raises(TrichordError) as caught:
        clip_windows(np.array(start), np.array(end), least)
    assert text in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("offsets", [[0, 1], [1, 3], [0, 4], [0, 3, 2, 3], []])
def test_refuses_offsets_that_do_not_divide_the_captions(offsets: list[int]) -> None:
    with pytest.raises(TrichordError, match="do not divide the 3 captions"):
        clip_spans(np.zeros(3), np.ones(3), 10.0, np.array(offsets))


def test_a_million_captions_take_seconds() -> None:
    rng = np.random.default_rng(0)
    videos, each = 5000, 200
    start = (np.arange(each) * 3.5 + rng.random((videos, each))).ravel()
    end = start + 1 + 4 * rng.random(videos * each)
    began = time.perf_counter()
    clip_spans(start, end, 10.0, np.arange(videos + 1) * each)
    assert time.perf_counter() - began < 10
