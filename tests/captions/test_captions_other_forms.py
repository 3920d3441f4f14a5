"""Caption files in other forms that tools and people write: encodings, arrows, clocks, JSON of recognisers, names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trichord.captions import choose_sidecar, plain_text, read_captions
from trichord.errors import TrichordError

Rows = list[tuple[float, float, str]]
SRT = "1\n00:00:01,000 --> 00:00:02,000\nstir it\n"


def read(path: Path, content: str | bytes) -> Rows:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    captions = read_captions(path)
    return [
        (round(start, 3), round(end, 3), text)
        for start, end, text in zip(captions.start_s.tolist(), captions.end_s.tolist(), captions.text, strict=True)
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_captions_in_unicode_of_any_width_are_read(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-32-be" else ""
    assert read(tmp_path / "a.srt", (mark + SRT).encode(encoding)) == [(1, 2, "stir it")]


CUES = [f"00:00:0{n}.000 --> 00:00:0{n + 1}.000\n{text}\n\n".encode() for n, text in enumerate(("stir it", "serve it"))]
WRONG_BYTES = {
    "a.srt": CUES[0] + b"00:00:05.000 --> 00:00:06.000\ncr\xe8me\n\n" + CUES[1],
    "a.vtt": b"WEBVTT\n\nNOTE caf\xe9\n\n" + CUES[0] + b"00:00:05.000 --> 00:00:06.000\n\xe2\x80\n\n" + CUES[1],
    "a.csv": b"start,end,text\n0,1,stir it\n5,6,cr\xe8me\n1,2,serve it\n",
    "a.json": b'[{"start":0,"end":1,"text":"stir it"},{"start":5,"end":6,"text":"cr\xe8me"},{"start":1,"end":2,"text":"serve it"}]',
}


@pytest.mark.parametrize("name", WRONG_BYTES)
def test_only_the_cue_with_wrong_bytes_is_dropped(tmp_path: Path, name: str) -> None:
    path, notes = tmp_path / name, list[str]()
    assert read(path, WRONG_BYTES[name]) == [(0, 1, "stir it"), (1, 2, "serve it")]
    read_captions(path, notes=notes)
    assert len(notes) == 1 and "1 of 3 captions cannot be read and are left out: line " in notes[0]
    assert notes[0].endswith("is not UTF-8 text")


@pytest.mark.parametrize("content", [CUES[0].replace(b"stir", b"r\xfchr"), b"\xff\x00\x80", CUES[0][:20] + b"\xe9"])
def test_a_file_in_another_encoding_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(TrichordError, match="is not UTF-8 text; save the file as UTF-8"):
        read(tmp_path / "a.srt", content)


@pytest.mark.parametrize("arrow", ["->", "--->", "- ->", "\u2013>", "\u2014>", "\u2192", "=>", "--&gt;"])
@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_an_odd_arrow_between_two_times_is_an_arrow(tmp_path: Path, suffix: str, arrow: str) -> None:
    content = SRT + f"\n2\n00:00:02,000 {arrow} 00:00:03,000\nserve -> it\n"
    head = "WEBVTT\n\n" if suffix == ".vtt" else ""
    assert read(tmp_path / f"a{suffix}", head + content) == [(1, 2, "stir it"), (2, 3, "serve -> it")]
    alone = head + f"1\n00:00:02,000 {arrow} 00:00:03,000\nserve it\n"
    assert read(tmp_path / f"b{suffix}", alone) == [(2, 3, "serve it")]


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.csv", "start,end,text\n0,2000,stir it\n2000,4500,serve it\n", [(0, 2, "stir it"), (2, 4.5, "serve it")]),
        ("a.csv", "start,end,text\n0,180,chapter one\n180,300,chapter two\n", [(0, 180, "chapter one"), (180, 300, "chapter two")]),
        ("a.csv", "start,end,text\n00:00:01.500,0:02,stir it\n", [(1.5, 2, "stir it")]),
        ("a.tsv", "start\tend\ttext\n00:01,5\t00:02\tstir it\n", [(1.5, 2, "stir it")]),
    ],
)  # fmt: skip
def test_times_of_tables_may_be_milliseconds_or_clock_times(
    tmp_path: Path, name: str, content: str, rows: Rows
) -> None:
    assert read(tmp_path / name, content) == rows


ROWS = [{"start": 1, "end": 2, "text": "stir it"}, {"start": 2, "end": 3, "text": "serve it"}]
WORDS = [{"word": " stir", "start": 1.0, "end": 1.4}, {"word": "it", "start": 1.4, "end": 2.0}, {"word": "2"}]
JSON_FORMS: dict[str, tuple[str, Rows]] = {
    "a list in a list": (json.dumps([ROWS]), [(1, 2, "stir it"), (2, 3, "serve it")]),
    "a row per line": ("\n".join(map(json.dumps, ROWS)), [(1, 2, "stir it"), (2, 3, "serve it")]),
    "clock times": (json.dumps([{"start": "00:00:01,000", "end": "0:02.5", "text": "stir it"}]), [(1, 2.5, "stir it")]),
    "text in parts": (json.dumps([{"start": 1, "end": 2, "text": ["stir", "it"]}]), [(1, 2, "stir it")]),
    "another name": (json.dumps({"segments": [{"start": 1, "end": 2, "segment": "stir it"}]}), [(1, 2, "stir it")]),
    "an open end": (
        json.dumps(
            {"chunks": [{"timestamp": [1.0, 2.0], "text": "stir it"}, {"timestamp": [2.0, None], "text": "serve it"}]}
        ),
        [(1, 2, "stir it"), (2, 2.8, "serve it")],
    ),
    "words": (json.dumps({"text": "stir it 2", "words": WORDS}), [(1, 2.02, "stir it 2")]),
    "a list of words": (json.dumps(WORDS[:2]), [(1, 2, "stir it")]),
}


@pytest.mark.parametrize("form", JSON_FORMS)
def test_other_forms_of_json_are_read(tmp_path: Path, form: str) -> None:
    content, rows = JSON_FORMS[form]
    assert read(tmp_path / "a.json", content) == rows


def test_a_json3_event_that_appends_continues_the_line(tmp_path: Path) -> None:
    def event(start_ms: int, text: str, **more: object) -> dict[str, object]:
        return {"tStartMs": start_ms, "dDurationMs": 4000, "wWinId": 1, "segs": [{"utf8": text}], **more}

    append = {"aAppend": 1}
    events = [event(0, "stir"), event(1000, " the", **append), event(2000, " soup", **append)]
    events += [event(4000, "\n", **append), event(4000, "serve", **append), event(5000, " it", **append)]
    assert read(tmp_path / "a.json3", json.dumps({"events": events})) == [(0, 4, "stir the soup"), (4, 9, "serve it")]


@pytest.mark.parametrize(
    ("attributes", "begin_s", "end_s"),
    [
        ('ttp:timeBase="smpte" ttp:frameRate="25"', 1.48, 60.08),
        ('ttp:timeBase="smpte" ttp:frameRate="30" ttp:frameRateMultiplier="1000 1001"', 1.401, 60.127),
        (
            'ttp:timeBase="smpte" ttp:dropMode="dropNTSC" ttp:frameRate="30" ttp:frameRateMultiplier="1000 1001"',
            1.401,
            60.06,
        ),
        ('ttp:frameRate="30" ttp:frameRateMultiplier="1000 1001"', 1.4, 60.067),
    ],
)
def test_smpte_times_of_ttml_count_frames(tmp_path: Path, attributes: str, begin_s: float, end_s: float) -> None:
    name = 'xmlns="http://www.w3.org/ns/ttml" xmlns:ttp="http://www.w3.org/ns/ttml#parameter"'
    cue = '<p begin="00:00:01:12" end="00:01:00:02">stir it</p>'
    rows = read(tmp_path / "a.ttml", f"<tt {name} {attributes}><body><div>{cue}</div></body></tt>")
    assert rows == [(begin_s, end_s, "stir it")]


def test_ruby_text_and_invisible_padding_are_removed() -> None:
    assert plain_text("<ruby>\u6f22<rp>(</rp><rt>kan</rt><rp>)</rp></ruby>\u5b57") == "\u6f22\u5b57"
    assert plain_text("\u200b\n\u200e \u200f\nstir\u200b it") == "stir\u200b it"


@pytest.mark.parametrize("name", ["v.whisper.srt", "v.1.vtt", "v.srt.srt", "v.Deutsch.ass"])
def test_a_caption_file_whose_name_is_not_understood_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(SRT)
    (tmp_path / "v.other.mp4").touch()
    (tmp_path / "v.other.part.srt").write_text(SRT)  # of that video
    video = tmp_path / "v.mp4"
    (note,) = choose_sidecar(video).notes
    assert f"{name} is in the same folder and is not read; rename it to v{Path(name).suffix}" in note
    (tmp_path / "v.en.srt").write_text(SRT)
    assert choose_sidecar(video).notes == (f"{video}: captions are read from v.en.srt; not read: {name}",)


@pytest.mark.parametrize("name", ["v.und.srt", "v.mul.vtt"])
def test_captions_of_no_stated_language_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(SRT)
    assert choose_sidecar(tmp_path / "v.mp4").path == tmp_path / name
