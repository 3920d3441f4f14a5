"""Captions that a file shows several times are read once, in whatever form the file repeats them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trichord.captions import read_captions
from trichord.captions.model import Captions, Cue
from trichord.captions.rolling import merged

Rows = list[tuple[float, float, str]]

YOUTUBE = [
    (0.16, 2.389, [" ", "today<00:00:00.480><c> we</c><00:00:00.719><c> bake</c>"]),
    (2.389, 2.399, ["today we bake", " "]),
    (2.399, 4.55, ["today we bake", "first<00:00:02.720><c> weigh</c><00:00:03.120><c> it</c>"]),
    (4.55, 4.56, ["first weigh it", " "]),
    (4.56, 6.9, ["first weigh it", "then pour"]),
    (6.9, 6.91, ["then pour", " "]),
]
SPOKEN = [(0.16, 2.389, "today we bake"), (2.399, 4.55, "first weigh it"), (4.56, 6.9, "then pour")]


def stamp(seconds: float, mark: str = ".") -> str:
    return f"00:00:{seconds:06.3f}".replace(".", mark)


def without_stamps(lines: list[str]) -> list[str]:
    return [re.sub(r"<[^>]*>", "", line) for line in lines]


def write_vtt(path: Path, cues: list[tuple[float, float, list[str]]]) -> Path:
    body = "".join(f"{stamp(s)} --> {stamp(e)}\n" + "\n".join(lines) + "\n\n" for s, e, lines in cues)
    path.write_text(f"WEBVTT\nKind: captions\n\n{body}")
    return path


def write_srt(path: Path, cues: list[tuple[float, float, list[str]]]) -> Path:
    rows = (
        f"{n}\n{stamp(s, ',')} --> {stamp(e, ',')}\n" + "\n".join(lines) + "\n\n"
        for n, (s, e, lines) in enumerate(cues, 1)
    )
    path.write_text("".join(rows))
    return path


def rows_of(captions: Captions) -> Rows:
    return [
        (round(float(s), 3), round(float(e), 3), t)
        for s, e, t in zip(captions.start_s, captions.end_s, captions.text, strict=True)
    ]


def read(path: Path) -> Rows:
    return rows_of(read_captions(path))


def merge(*cues: tuple[float, float, str] | tuple[float, float, str, str]) -> Rows:
    """Merge cues given as start, end, text with `|` between lines, and optionally a speaker."""
    return rows_of(merged(Cue(c[0], c[1], tuple(c[2].split("|")), *c[3:]) for c in cues))


def test_rolling_captions_are_the_same_with_and_without_stamps_in_vtt_and_srt(tmp_path: Path) -> None:
    plain = [(s, e, without_stamps(lines)) for s, e, lines in YOUTUBE]
    stripped = [(s, e, [line.strip() for line in lines]) for s, e, lines in YOUTUBE]
    assert read(write_vtt(tmp_path / "stamped.vtt", YOUTUBE)) == SPOKEN
    assert read(write_vtt(tmp_path / "plain.vtt", plain)) == SPOKEN
    assert read(write_srt(tmp_path / "plain.srt", plain)) == SPOKEN
    assert read(write_vtt(tmp_path / "stripped.vtt", stripped)) == SPOKEN


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_rolling_captions_in_a_subtitle_track(tmp_path: Path, suffix: str) -> None:
    from subtitle_files import Track, write_tracks
    from trichord.media import subtitles

    codec = "webvtt" if suffix == ".mkv" else "mov_text"
    cues = [(s, e, "\n".join(without_stamps(lines))) for s, e, lines in YOUTUBE]
    path = write_tracks(tmp_path / f"a{suffix}", [Track(codec, cues)])
    captions = subtitles(path)
    assert captions is not None and rows_of(captions) == SPOKEN


def test_words_highlighted_one_after_the_other(tmp_path: Path) -> None:
    cues = [
        (1.0, 1.3, ["<u>stir</u> the soup"]),
        (1.3, 1.6, ["stir <u>the</u> soup"]),
        (1.6, 2.0, ["stir the <u>soup</u>"]),
        (4.0, 4.5, ["<u>stir</u> it"]),
    ]
    expected = [(1.0, 2.0, "stir the soup"), (4.0, 4.5, "stir it")]
    assert read(write_vtt(tmp_path / "a.vtt", cues)) == read(write_srt(tmp_path / "a.srt", cues)) == expected


def test_lines_that_grow_word_by_word_and_then_roll_up() -> None:
    assert merge(
        (1, 2, "Tomorrow"),
        (2, 3, "Tomorrow night."),
        (3, 4, "Tomorrow night. Life"),
        (4, 5, "Tomorrow night. Life|goes"),
        (5, 6, "Tomorrow night. Life|goes on"),
        (6, 7, "goes on|here"),
    ) == [(1, 4, "Tomorrow night. Life"), (4, 6, "goes on"), (6, 7, "here")]


def test_a_line_that_grows_and_is_broken_elsewhere() -> None:
    assert merge((1, 2, "stir the soup and"), (2, 3, "stir the soup|and serve")) == [(1, 3, "stir the soup and serve")]


def test_growth_is_at_the_end_of_a_word() -> None:
    assert merge((1, 2, "cut"), (2, 3, "cutting board")) == [(1, 2, "cut"), (2, 3, "cutting board")]
    assert merge((1, 2, "cut"), (2, 3, "cut, then")) == [(1, 3, "cut, then")]
    assert merge((1, 2, "玉ねぎ"), (2, 3, "玉ねぎを切る")) == [(1, 3, "玉ねぎを切る")]


@pytest.mark.parametrize("order", [(0, 0, 1, 1), (0, 1, 0, 1)])
def test_exact_repeats_also_of_whole_segments(order: tuple[int, ...]) -> None:
    cues = [(0.5, 2.0, "stir the soup"), (3.0, 5.0, "cut the onion")]
    assert merge(*(cues[at] for at in order)) == cues


def test_a_cue_across_segments_is_one_caption() -> None:
    assert merge((0, 4, "a b"), (4, 6, "c d"), (6, 7, "c d"), (7, 9, "e")) == [
        (0, 4, "a b"),
        (4, 7, "c d"),
        (7, 9, "e"),
    ]


def test_a_long_sign_and_the_dialogue_over_it_are_kept_apart() -> None:
    cues = [(0, 9, "KITCHEN"), (1, 2, "stir"), (3, 4, "cut")]
    assert merge(*cues, (5, 9, "KITCHEN")) == cues


def test_the_same_words_after_a_gap_or_of_two_speakers_stay() -> None:
    gap = [(1, 2, "yes"), (3, 4, "yes")]
    assert merge(*gap) == gap
    assert merge((1, 2, "yes", "Anna"), (2, 3, "yes", "Bob")) == [(1, 2, "yes"), (2, 3, "yes")]
    assert merge((1, 2, "yes", "Anna"), (2, 3, "yes", "Anna")) == [(1, 3, "yes")]


def test_speakers_are_read_from_voices(tmp_path: Path) -> None:
    cues = [(1.0, 2.0, ["<v Anna>yes"]), (2.0, 3.0, ["<v Bob>yes</v>"]), (3.0, 4.0, ["<v Bob>yes"])]
    assert read(write_vtt(tmp_path / "a.vtt", cues)) == [(1, 2, "yes"), (2, 4, "yes")]
    (tmp_path / "a.json").write_text(
        json.dumps([{"start": n, "end": n + 1, "text": "yes", "speaker": f"S{n}"} for n in (1, 2)])
    )
    assert len(read(tmp_path / "a.json")) == 2


def test_a_pause_in_a_rolling_file_repeats_no_line(tmp_path: Path) -> None:
    cues = [*YOUTUBE[:2], (5.0, 6.0, ["today we bake", "first weigh"]), (8.0, 9.0, ["first weigh"])]
    assert read(write_vtt(tmp_path / "a.vtt", cues)) == [
        (0.16, 2.389, "today we bake"),
        (5, 6, "first weigh"),
        (8, 9, "first weigh"),  # said again
    ]


def test_the_words_of_a_long_stamped_cue_are_at_their_stamps(tmp_path: Path) -> None:
    text = "stir<00:00:01.000><c> the</c><00:00:01.400><c> soup</c><00:00:20.000><c> cut</c><00:00:20.500><c> it</c>"
    for name, end_s in (("whole", 30.0), ("short", 5.0)):
        rows = read(write_vtt(tmp_path / f"{name}.vtt", [(0.0, end_s, [text])]))
        assert [row[2] for row in rows] == ["stir the soup", "cut it"]
        assert rows[0][:2] == (0, 2.4) and rows[1][0] == 20 and rows[1][1] <= 21.5
    backwards = "stir<00:00:09.000> the<00:00:01.400> soup"
    assert read(write_vtt(tmp_path / "odd.vtt", [(0.0, 30.0, [backwards])])) == [(0, 30, "stir the soup")]


def test_joined_text_and_missing_blanks_are_cleaned(tmp_path: Path) -> None:
    (tmp_path / "joined.vtt").write_text(
        "WEBVTT\n\n00:01.000 --> 00:02.000\nstir the soup\nWEBVTT\nX-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000\n\n"
        "00:03.000 --> 00:04.000\ncut it\n\ufeffWEBVTT\n\n00:05.000 --> 00:06.000\nX-TIMESTAMP-MAP=LOCAL:0\nserve\n"
    )
    assert read(tmp_path / "joined.vtt") == [(1, 2, "stir the soup"), (3, 4, "cut it"), (5, 6, "serve")]
    (tmp_path / "blank.vtt").write_text(
        "WEBVTT\n\n00:01.000 --> 00:02.000 line:79%\n\ncut the onion\nin half\n\nNOTE no text\n\n"
        "00:03.000 --> 00:04.000\n\nNOTE nothing was said\n\n00:05.000 --> 00:06.000\nserve\n"
    )
    assert read(tmp_path / "blank.vtt") == [(1, 2, "cut the onion in half"), (3, 4, ""), (5, 6, "serve")]


def test_a_line_with_highlighted_words_is_one_caption(tmp_path: Path) -> None:
    cues = [
        (0.5, 0.8, ["<u>stir</u> the"]),
        (1.0, 1.3, ["<u>stir</u> the soup"]),
    ]  # as whisper and its variants write them
    cues += [(1.3, 1.6, ["stir <u>the</u> soup"]), (1.8, 2.0, ["stir the <u>soup</u>"])]
    assert read(write_vtt(tmp_path / "pauses.vtt", cues)) == [(0.5, 2.0, "stir the soup")]
    again = [(start + 2, end + 2, lines) for start, end, lines in cues[1:]]
    assert read(write_vtt(tmp_path / "twice.vtt", cues + again)) == [
        (0.5, 2.0, "stir the soup"),
        (3.0, 4.0, "stir the soup"),
    ]
    soon = [(start + 1.2, end + 1.2, lines) for start, end, lines in cues[1:]]  # 0.2 s after its end: said again
    assert len(read(write_vtt(tmp_path / "soon.vtt", cues + soon))) == 2
    late = [cues[1], (2.4, 2.7, ["stir <u>the</u> soup"])]
    assert len(read(write_vtt(tmp_path / "late.vtt", late))) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("go home", "go home"),  # nothing is highlighted
        ("<i>go home</i>", "<i>go home</i>"),  # nor where all of it is
        ("<i>go</i> home", "<i>go</i> home"),  # it does not move on
        ("go <u>home</u>", "<u>go</u> home"),
        ("<v Anna><u>go</u> home", "<v Bob>go <u>home</u>"),
        ("<u>go</u> home", "go back <u>home</u>"),
    ],
)
def test_repetitions_after_a_pause_are_kept(tmp_path: Path, first: str, second: str) -> None:
    path = write_vtt(tmp_path / "a.vtt", [(1.0, 1.4, [first]), (1.8, 2.2, [second])])
    assert [row[:2] for row in read(path)] == [(1.0, 1.4), (1.8, 2.2)]


LINES = st.lists(st.sampled_from(["a", "b", "a b", "b c", "c"]), min_size=1, max_size=2).map(tuple)
CUES = st.lists(
    st.builds(
        lambda start, length, lines, speaker, highlight: Cue(
            start / 4, (start + length) / 4, lines, speaker, highlight=highlight
        ),
        st.integers(0, 20),
        st.integers(0, 8),
        LINES,
        st.sampled_from(["", "Anna"]),
        st.sampled_from([None, 0, 2]),
    ),
    max_size=12,
)


@given(CUES)
def test_merging_keeps_exactly_the_words(cues: list[Cue]) -> None:
    captions = merged(cues)
    shown = {" ".join(cue.lines) for cue in cues}
    words = {word for text in shown for word in text.split()}
    assert {word for text in captions.text for word in text.split()} == words
    assert len(captions) <= len(cues)
    assert all(s <= e for s, e in zip(captions.start_s, captions.end_s, strict=True))
    assert set(captions.start_s.tolist()) <= {cue.start_s for cue in cues}
    assert sum(len(text.split()) for text in captions.text) <= sum(len(text.split()) for c in cues for text in c.lines)


@given(CUES)
def test_captions_are_not_merged_across_gaps(cues: list[Cue]) -> None:
    apart = [Cue(10.0 * n, 10.0 * n + 1 + cue.end_s / 10, cue.lines) for n, cue in enumerate(cues)]
    assert list(merged(apart).text) == [" ".join(cue.lines) for cue in apart]


@given(CUES)
def test_a_file_without_repetitions_is_unchanged(cues: list[Cue]) -> None:
    distinct = [Cue(cue.start_s, cue.end_s, (f"line {n:03d}",)) for n, cue in enumerate(cues)]
    once = merged(distinct)
    assert rows_of(once) == [(round(c.start_s, 3), round(c.end_s, 3), c.lines[0]) for c in distinct]
    again = merged(Cue(s, e, (t,)) for s, e, t in zip(once.start_s, once.end_s, once.text, strict=True))
    assert rows_of(again) == rows_of(once)


@pytest.mark.parametrize(("text", "step"), [("stir the soup", 1), ("stir the soup", 2), ("I'm here", 1)])
def test_lines_that_are_typed_letter_by_letter_are_one_caption(text: str, step: int) -> None:
    ends = [*range(step, len(text), step), len(text)]
    typed = [(0.1 * n, 0.1 * (n + 1), text[:end].strip()) for n, end in enumerate(ends)]
    end_s = round(typed[-1][0], 3) + 2.0
    rows = merge((0.0, 0.0, "x"), *typed[:-1], (typed[-1][0], end_s, text), (end_s, end_s + 2, "serve it"))[1:]
    assert rows == [(0.0, round(end_s, 3), text), (round(end_s, 3), round(end_s + 2, 3), "serve it")]
    assert merge((0, 2, "no"), (2, 4, "not now")) == [(0, 2, "no"), (2, 4, "not now")]
