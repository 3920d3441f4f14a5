"""Timed text: the four file formats, irregular and broken files, and cleaning compared with a slow implementation."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trichord.captions import Captions, clean_captions, find_sidecar, read_captions, tokenize
from trichord.captions.rolling import num_repeated
from trichord.errors import TrichordError

ROWS = [(1.0, 2.5, "crack the egg"), (62.25, 3723.125, "don't stop & stir")]

VTT = """WEBVTT - a title
Kind: captions

STYLE
::cue { color: red }

NOTE this cue has no hours,
and a second line

first
00:01.000 --> 00:02.500 align:start position:0%
<v Anna>crack <i>the</i>
<c.yellow>egg</c></v>

00:01:02.250 --> 01:02:03.125
don't stop &amp;&nbsp;stir
"""
SRT = """1
00:00:01,000 --> 00:00:02,500
{\\an8}<i>crack</i>

the egg

2
00:01:02,250 --> 01:02:03,125
don't stop & stir
"""
LONG_NUMBER = b"1" * 5000  # Python reads integers of 4300 digits, floats below 1e309
JSON_LISTS = json.dumps({"start": [1, 62.25], "end": [2.5, 3723.125], "text": [r[2] for r in ROWS]})
JSON_ROWS = json.dumps([{"start": s, "end": e, "text": t, "speaker": 1} for s, e, t in ROWS], indent=1)
CSV = 'text, start ,end,id\n"crack  the egg",1.0,2.5,a\n"don\'t stop & stir",62.25,3723.125,b\n'


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    ("name", "content"), [("a.vtt", VTT), ("a.srt", SRT), ("a.json", JSON_LISTS), ("a.json", JSON_ROWS), ("a.CSV", CSV)]
)
def test_all_formats_give_the_same_rows(tmp_path: Path, name: str, content: str, encoding: str, newline: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.replace("\n", newline).encode(encoding))
    captions = read_captions(path)
    assert list(zip(captions.start_s, captions.end_s, captions.text, strict=True)) == ROWS
    assert captions.start_s.dtype == captions.end_s.dtype == np.float64


def test_order_and_unusual_times_are_unchanged(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("start,end,text\n5,4,b\n-1,2,\n1e2,3,a\n")
    captions = read_captions(tmp_path / "a.csv")
    assert captions.start_s.tolist() == [5, -1, 100] and captions.text == ("b", "", "a")


def test_machine_captions_that_roll_up_lose_only_their_repeats(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text(
        "WEBVTT\nKind: captions\nLanguage: en\n\n"
        "00:00:00.000 --> 00:00:02.000 align:start position:0%\n \nhello<00:00:00.500><c> there</c>\n\n"
        "00:00:02.000 --> 00:00:02.010 align:start position:0%\nhello there\n \n\n"
        "00:00:02.010 --> 00:00:04.000 align:start position:0%\nhello there\ncut<00:00:03.000><c> it</c>\n\n"
        "00:00:04.000 --> 00:00:04.010 align:start position:0%\ncut it\n \n\n"
        "00:00:04.010 --> 00:00:05.000 align:start position:0%\ncut it\nnow\n"
    )
    captions = read_captions(tmp_path / "a.vtt")
    assert captions.text == ("hello there", "cut it", "now")
    assert captions.start_s.tolist() == [0, 2.01, 4.01]


@pytest.mark.parametrize("name", ["a.vtt", "a.srt"])
def test_an_empty_file_has_no_captions(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    assert len(read_captions(tmp_path / name)) == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.vtt", b"<html>\nnot found\n", "a.vtt, line 1: has neither a WEBVTT header nor a timing line"),
        ("a.vtt", b"WEBVTT\n\n00:01.000 --> soon\nhi\n", "a.vtt, line 3: 'soon' is not a time such as 00:01:02.500"),
        ("a.vtt", b"WEBVTT\n\n00:01.000 -->\nhi\n", "a.vtt, line 3: '00:01.000 -->' lacks a start or an end"),
        ("a.srt", b"hello\n", "a.srt, line 1: has no timing line such as"),
        ("a.srt", b"1\n1.5 --> 2.5\nhi\n", "a.srt, line 2: '1.5' is not a time"),
        ("a.json", b'{"start": [1],\n "end": }', "a.json, line 2: is not JSON"),
        ("a.json", b'{"start": [1], "end": [2, 3], "text": ["a"]}', "differ in length (1 start, 2 end, 1 text)"),
        ("a.json", b'{"fps": 3}', 'a.json, line 1: is neither {"start": [], "end": [], "text": []} nor a list'),
        ("a.json", b'[{"start": 1, "end": null, "text": "a"}]', "a.json, caption 1: start or end is not a number"),
        (
            "a.csv",
            b"begin,end,text\n1,2,a\n",
            "a.csv, line 1: needs the columns start,end,text, but has 'begin,end,text'",
        ),
        ("a.csv", b"", "a.csv, line 1: needs the columns start,end,text"),
        ("a.csv", b"start,end,text\n1,nan,a\n", "a.csv, line 2: start or end is not a number of seconds"),
        ("a.csv", b"start,end,text\n1\n", "a.csv, line 2: start or end is not a number of seconds"),
        ("a.csv", b"start,end,text\n1,2,caf\xe9\n", "a.csv, line 2: is not UTF-8 text; save the file as UTF-8"),
        ("a.json", b"[" * 100000, "a.json, line 1: is JSON nested too deeply for captions; correct"),
        (
            "a.json",
            b'[{"start": 1, "end": 2, "text": %s}]' % (b'{"a":' * 5000 + b"1" + b"}" * 5000),
            "a.json, line 1: is JSON nested too deeply",
        ),
        ("a.json", b'[{"start": %s, "end": 2, "text": "a"}]' % LONG_NUMBER, "a.json, caption 1: start or end is not a"),
        (
            "a.json",
            b'{"start": [1], "end": [%s], "text": [""]}' % LONG_NUMBER[:400],
            "a.json, caption 1: start",
        ),
        ("a.vtt", b"WEBVTT\n\n%s:00:01.000 --> 00:02.000\nhi\n" % LONG_NUMBER, "a.vtt, line 3: '1111"),
        ("a.srt", b"1\n00:00:01,000 --> %s:00:02,000\nhi\n" % LONG_NUMBER[:400], "a.srt, line 2: '1111"),
        ("a.csv", b"start,end,text\n1,%s,a\n" % LONG_NUMBER, "a.csv, line 2: start or end is not a number of seconds"),
        ("a.csv", b"start,end,text\n1,2,%s\n" % (b"a" * 200000), "is not CSV (field larger than field limit"),
        (
            "a.txt",
            b"hi",
            "a.txt: unsupported caption format; convert the file to one of .vtt, .srt, .json, .csv, .ass, .ssa, .ttml, .dfxp,",
        ),
    ],
)
def test_a_broken_file_is_an_error_with_file_and_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrichordError) as caught:
        read_captions(tmp_path / name)
    assert message in str(caught.value) and str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        (
            "a.json",
            b'[{"start": 1, "end": 2, "text": %s, "id": %s}]' % (LONG_NUMBER, LONG_NUMBER),
            LONG_NUMBER.decode(),
        ),
        ("a.json", b'[{"start": 1, "end": 2, "text": "a \\ud800"}]', "a ?"),  # half a character cannot be stored
        ("a.vtt", b"WEBVTT\n\n00:01.000 --> 00:02.000\na &#%s; b\n" % LONG_NUMBER, "a \ufffd b"),
        ("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\n&#%s\n" % LONG_NUMBER, "\ufffd"),
    ],
)
def test_odd_texts_are_read(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(content)
    captions = read_captions(tmp_path / name)
    assert captions.text == (text,) and (captions.start_s[0], captions.end_s[0]) == (1, 2)


def long_file(name: str, num: int = 20_000) -> str:
    """Write that many captions; `one.vtt` has two that roll up, of half as many lines each."""
    times = [f"{i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}.000" for i in range(num + 1)]
    if name == "a.json":
        return json.dumps([{"start": i, "end": i + 1, "text": f"crack the egg {i}"} for i in range(num)])
    if name == "a.csv":
        return "start,end,text\n" + "".join(f"{i},{i + 1},crack the egg {i}\n" for i in range(num))
    if name == "one.vtt":
        body = "same<00:00:00.500><c> line</c>\n" * (num // 2 - 1)
        return "WEBVTT\n\n" + "".join(f"{times[i]} --> {times[i + 1]}\n{body}end {i}\n\n" for i in range(2))
    texts = [
        f"line {i}\nline<00:00:00.500><c> {i + 1}</c>" if name == "roll.vtt" else f"<i>a</i> b {i}" for i in range(num)
    ]
    return "WEBVTT\n\n" + "".join(f"{times[i]} --> {times[i + 1]}\n{texts[i]}\n\n" for i in range(num))


@pytest.mark.parametrize("name", ["a.vtt", "roll.vtt", "one.vtt", "a.srt", "a.json", "a.csv"])
def test_long_files_take_a_second(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(long_file(name))
    began = time.process_time()
    captions = read_captions(tmp_path / name)
    assert time.process_time() - began < 3  # 0.1 to 0.3 s on a quiet machine
    assert len(captions) == (2 if name == "one.vtt" else 20_000)


@given(st.lists(st.sampled_from("ab"), max_size=12), st.lists(st.sampled_from("ab"), max_size=12))
def test_repeated_lines_against_slices(shown: list[str], lines: list[str]) -> None:
    most = min(len(shown), len(lines))
    assert num_repeated(shown, lines) == max(k for k in range(most + 1) if shown[len(shown) - k :] == lines[:k])


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match=r"gone\.vtt: does not exist; check the path"):
        read_captions(tmp_path / "gone.vtt")


def test_sidecars_are_looked_up_in_order(tmp_path: Path) -> None:
    video = tmp_path / "a [x].v2.mp4"
    assert find_sidecar(video) is None
    for name in ("a [x].csv", "a [x].v2.txt", "b.vtt"):
        (tmp_path / name).touch()
    assert find_sidecar(video) is None
    for name in (".csv", ".en.json", ".json", ".srt", ".en-US.vtt", ".en.vtt", ".vtt"):  # each beats those before it
        path = tmp_path / f"a [x].v2{name}"
        path.touch()
        assert find_sidecar(video) == path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Crack 2 eggs, don't stir!", ["Crack", "2", "eggs", "don't", "stir"]),
        ("crème-brûlée_x", ["crème", "brûlée_x"]),
        ("", []),
        (" ... ", []),
        (12.5, ["12", "5"]),  # the published loaders take str() of whatever a cell holds
    ],
)
def test_tokenize(text: str, words: list[str]) -> None:
    assert tokenize(text) == words


def test_clean_captions_reports_its_changes() -> None:
    captions = Captions.from_rows(
        [(8, 12, "late"), (0, 2, "a"), (1, 3, "b"), (3, 3, "zero"), (5, 6, " "), (11, 12, "after"), (-1, 1, "early")]
        + [(math.nan, 1, "c"), (-3, -1, "before"), (6, 5, "")]
    )
    cleaned, notes = clean_captions(captions, duration_s=10.0, source="x.vtt")
    assert cleaned.text == ("a", "early", "b", "late")
    assert cleaned.start_s.tolist() == [0, 0, 1, 8] and cleaned.end_s.tolist() == [2, 1, 3, 10]
    assert notes == [
        "x.vtt: 1 of 10 captions have a time that is not a number; dropped",
        "x.vtt: 2 of 10 captions end at or before their start; dropped",
        "x.vtt: 1 of 10 captions have no text; dropped",
        "x.vtt: 1 of 10 captions end before the video's start; dropped",
        "x.vtt: 1 of 10 captions start after the video's end (10.00 s); dropped",
        "x.vtt: 1 of 10 captions run past the video's end (10.00 s); cut",
        "x.vtt: 1 of 10 captions start before the video's start; cut",
        "x.vtt: captions are not in order of time; sorted",
        "x.vtt: 2 of 10 captions overlap an earlier one; kept",
    ]


def test_clean_captions_of_nothing() -> None:
    cleaned, notes = clean_captions(Captions.empty(), duration_s=None, source="x")
    assert len(cleaned) == 0 and notes == []


SECONDS = st.one_of(st.integers(-3, 12).map(float), st.sampled_from([math.nan, math.inf, -math.inf]))


@given(
    st.lists(st.tuples(SECONDS, SECONDS, st.sampled_from(["", "a", "b c"])), max_size=8), st.none() | st.integers(1, 9)
)
def test_clean_captions_against_loops(rows: list[tuple[float, float, str]], duration_s: float | None) -> None:
    expected = []
    for start_s, end_s, text in rows:
        if not (math.isfinite(start_s) and math.isfinite(end_s)) or not text:
            continue
        stop_s = end_s if duration_s is None else min(end_s, duration_s)
        if end_s > start_s and max(start_s, 0.0) < stop_s:
            expected.append((max(start_s, 0.0), stop_s, text))
    expected.sort(key=lambda row: row[0])
    cleaned, notes = clean_captions(Captions.from_rows(rows), duration_s=duration_s, source="s")
    assert list(zip(cleaned.start_s, cleaned.end_s, cleaned.text, strict=True)) == expected
    assert all(note.startswith("s: ") and "\n" not in note for note in notes)
    assert bool(notes) or expected == rows  # nothing is changed silently
    again, notes = clean_captions(cleaned, duration_s=duration_s, source="s")
    assert again.text == cleaned.text and all("overlap" in note for note in notes)
