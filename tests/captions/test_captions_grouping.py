"""Merging, ordering and splitting of captions and words."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paths import FIXTURES
from trichord.captions import Captions
from trichord.captions.grouping import LONGEST_S, PAUSE_S, Word, group_words, in_order

REAL = FIXTURES / "parity" / "howto100m_captions.json.gz"


@st.composite
def spoken(draw: st.DrawFn) -> list[Word]:
    """Words in temporal order with pauses between them, with times in steps of 10 ms as recognisers return them."""
    words, now = [], 0
    for pause, length in draw(st.lists(st.tuples(st.integers(0, 250), st.integers(2, 500)), max_size=60)):
        now += pause
        words.append(Word(now / 100, (now + length) / 100, f" w{len(words)}"))
        now += length
    return words


def seconds(captions: Captions) -> np.ndarray:
    return captions.end_s - captions.start_s


@given(spoken())
def test_no_word_is_lost_and_each_caption_spans_its_words(words: list[Word]) -> None:
    captions = group_words(words)
    assert " ".join(captions.text).split() == [word.text.strip() for word in words]
    by_text = {word.text.strip(): word for word in words}
    for start_s, end_s, text in zip(captions.start_s, captions.end_s, captions.text, strict=True):
        own = [by_text[part] for part in text.split()]
        assert (start_s, end_s) == (own[0].start_s, own[-1].end_s)
    assert (seconds(captions) > 0).all()
    assert (captions.start_s[1:] >= captions.end_s[:-1]).all()


@given(spoken())
def test_captions_break_at_pauses_and_are_not_too_long(words: list[Word]) -> None:
    captions = group_words(words)
    starts = set(captions.start_s.tolist())
    for before, after in pairwise(words):
        if after.start_s - before.end_s >= PAUSE_S:
            assert after.start_s in starts
    by_text = {word.text.strip(): word for word in words}
    for length_s, text in zip(seconds(captions), captions.text, strict=True):
        own = [by_text[part] for part in text.split()]
        halves_s = sum(word.end_s - word.start_s for word in (own[0], own[-1])) / 2
        assert length_s <= LONGEST_S + halves_s + 1e-6


def test_a_sentence_is_cut_into_equal_parts_and_a_pause_ends_it() -> None:
    words = [Word(i * 0.5, i * 0.5 + 0.5, f" {i}") for i in range(10)]  # 5 s
    words += [Word(6.0, 6.5, " then"), Word(6.9, 7.0, ".")]
    captions = group_words(words)
    assert captions.text == ("0 1 2 3 4", "5 6 7 8 9", "then.")
    assert captions.start_s.tolist() == [0, 2.5, 6] and captions.end_s.tolist() == [2.5, 5, 7]


def test_no_words_and_blanks_give_no_captions() -> None:
    assert len(group_words([])) == 0 and len(group_words([Word(0, 1, " "), Word(1, 1, "")])) == 0


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), max_size=30))
def test_in_order_returns_increasing_times(times: list[tuple[float, float]]) -> None:
    words = in_order(Word(start_s, end_s, "a") for start_s, end_s in times)
    assert len(words) == len(times) and all(word.end_s > word.start_s for word in words)
    assert all(before.end_s <= after.start_s for before, after in pairwise(words))


def test_in_order_does_not_change_valid_times() -> None:
    words = [Word(0.5, 1.0, " a"), Word(1.0, 1.5, " b"), Word(2.0, 2.0, " c"), Word(2.0, 2.3, " d")]
    assert in_order(words) == [*words[:2], Word(2.0, 2.02, " c"), Word(2.02, 2.3, " d")]


def new_words(captions: Captions) -> list[Word]:
    """Return the words of a real caption file, each spread over the time of the caption in which it first appears."""
    words: list[Word] = []
    gaps_s = captions.start_s[1:] - captions.end_s[:-1]
    in_pairs = len(gaps_s) > 0 and float(np.median(gaps_s)) < -0.5
    previous: list[str] = []
    for i, text in enumerate(captions.text):
        own, start_s, end_s = text.split(), captions.start_s[i], captions.end_s[i]
        if in_pairs:
            new = own
            if i + 1 < len(captions):
                end_s = min(end_s, max(captions.start_s[i + 1], start_s + 0.05))
        else:
            sizes = range(min(len(previous), len(own)) + 1)
            new = own[max(k for k in sizes if previous[len(previous) - k :] == own[:k]) :]
        previous = own
        edges = np.linspace(start_s, end_s, len(new) + 1)
        words += [Word(a, b, f" {word}") for a, b, word in zip(edges[:-1], edges[1:], new, strict=True)]
    return words


def test_captions_are_as_long_as_those_of_howto100m() -> None:
    """Checks the figures that the module states, on the real captions and on ours from their words."""
    with gzip.open(REAL) as file:
        real = [Captions(c["start"], c["end"], c["text"]) for c in json.load(file).values()]
    ours = [group_words(new_words(captions)) for captions in real]

    def measured(files: list[Captions]) -> tuple[int, float, float, float]:
        lengths_s = np.concatenate([seconds(captions) for captions in files])
        counts = [len(text.split()) for captions in files for text in captions.text]
        gaps_s = np.concatenate([captions.start_s[1:] - captions.end_s[:-1] for captions in files])
        return len(lengths_s), float(np.median(lengths_s)), float(np.median(counts)), float(np.mean(gaps_s > 1))

    num, median_s, median_words, wide = measured(real)
    assert (num, round(median_s, 2), median_words, round(wide, 3)) == (5042, 3.32, 4, 0.034)
    num, median_s, median_words, wide = measured(ours)
    assert abs(num / 5042 - 1) < 0.1 and abs(median_s / 3.32 - 1) < 0.05 and median_words == 3 and wide < 0.07
