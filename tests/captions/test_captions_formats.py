"""Caption files of all kinds: text, irregular cues, JSON of recognisers, tables, and the choice of file or track."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from av.stream import Disposition
from hypothesis import given
from hypothesis import strategies as st

from subtitle_files import Track, write_tracks
from trichord.captions import choose_sidecar, find_sidecar, plain_text, read_captions, tokenize
from trichord.errors import TrichordError
from trichord.extraction.folder import captions_of, sidecar_of
from trichord.extraction.sources import Source
from trichord.extraction.table import read_table
from trichord.media import subtitles

Rows = list[tuple[float, float, str]]
SRT = "1\n00:00:01,000 --> 00:00:02,000\n{}\n"


def read(path: Path, content: str | bytes, notes: list[str] | None = None) -> Rows:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    captions = read_captions(path, notes=notes)
    return list(zip(captions.start_s.tolist(), captions.end_s.tolist(), captions.text, strict=True))


# ---- text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("stir<br>the<br/>soup<BR />now", "stir the soup now"),
        ("{\\an8}cut\\Nthe\\honion\\nnow", "cut the onion now"),
        ('<font color="#E5E5E5">cut</font> it &amp; stir', "cut it & stir"),
        ("don&#39;t, don&amp;#39;t", "don't, don't"),
        ("if a<b then c>d", "if a<b then c>d"),
        ("a < b and b > c, 1<2, I <3 you", "a < b and b > c, 1<2, I <3 you"),
        ("<v Anna Lee>yes</v> <c.yellow.bold>no</c> <00:00:01.000>so", "yes no so"),
        ("{\\an7\\p1}m 0 0 l 100 0{\\p0}stir", "stir"),
        ("{\\p1}m 0 0 l 100 0", ""),
        ("{\\pos(1,2)}stir {not hidden}", "stir {not hidden}"),
        ("&lt;b&gt; is bold", "<b> is bold"),
        ("u\u0308ber cafe\u0301", "\u00fcber caf\u00e9"),
    ],
)
def test_markup_becomes_text(tmp_path: Path, markup: str, text: str) -> None:
    assert plain_text(markup) == text
    (tmp_path / "a.json").write_text(json.dumps([{"start": 1, "end": 2, "text": markup}]))
    assert read_captions(tmp_path / "a.json").text == (text,)
    assert read(tmp_path / "a.srt", SRT.format(markup)) == [(1, 2, text)]
    quoted = markup.replace('"', '""')
    assert read(tmp_path / "a.csv", f'start,end,text\n1,2,"{quoted}"\n') == [(1, 2, text)]


@pytest.mark.parametrize("part", ["<i ", "<v ", "<v.a.a", "<i a=", "{\\p1", "<!--", "<b x='", "</a ", " " * 50])
def test_hostile_markup_takes_linear_time(part: str) -> None:
    plain_text("<i" + part * 20_000)  # the timeout of the tests would end a quadratic pattern


@pytest.mark.parametrize("line", ["9" * 300_000 + ":00:00", "1:" * 300_000 + "x", "1 " * 300_000 + "x:"])
def test_hostile_timing_lines_take_linear_time(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.srt"
    path.write_text(f"1\n{line} --> 00:00:01,000\nhello\n")
    with pytest.raises(TrichordError, match="is not a time"):
        read_captions(path)


@given(st.text(alphabet="ab<>{}\\&;/= \n\"'pNh0", max_size=40))
def test_any_markup_becomes_one_line(markup: str) -> None:
    assert "\n" not in plain_text(markup)


# ---- words


def test_unicode_words_keep_their_marks_and_apostrophes() -> None:
    assert tokenize("सूप हिलाओ।", "unicode") == ["सूप", "हिलाओ"]
    assert tokenize("หั่น", "unicode") == ["หั่น"]
    assert tokenize("حَرِّك، الحساء", "unicode") == ["حَرِّك", "الحساء"]
    assert tokenize("u\u0308ber nai\u0308ve", "unicode") == ["über", "naïve"]
    assert tokenize("don\u2019t \u2018stir\u2019 'it' rock 'n' roll", "unicode") == [
        "don't",
        "stir",
        "it",
        "rock",
        "n",
        "roll",
    ]
    assert tokenize("می\u200cخواهم zwie\u00adbel", "unicode") == ["می\u200cخواهم", "zwiebel"]
    assert tokenize("\u2764\ufe0f \u266a", "unicode") == []
    assert tokenize("हि don\u2019t", "published") == ["ह", "don", "t"]


@given(st.text(max_size=30))
def test_unicode_words_are_the_same_in_nfc_and_nfd(text: str) -> None:
    import unicodedata

    assert tokenize(unicodedata.normalize("NFD", text), "unicode") == tokenize(text, "unicode")
    assert all(word == unicodedata.normalize("NFC", word) for word in tokenize(text, "unicode"))


# ---- odd files and cues


def test_srt_with_odd_ends_of_line_and_numbers_far_from_their_times(tmp_path: Path) -> None:
    texts = enumerate(["stir\nit", "5", "no"])
    plain = "\n\n".join(f"{n + 1}\n00:00:0{2 * n + 1},000 --> 00:00:0{2 * n + 2},000\n{text}" for n, text in texts)
    expected = [(1, 2, "stir it"), (3, 4, "5"), (5, 6, "no")]
    assert read(tmp_path / "a.srt", plain) == expected
    assert read(tmp_path / "a.srt", plain.replace("\n", "\r\r\n")) == expected
    assert read(tmp_path / "a.srt", plain.replace("\n", "\n\n")) == expected
    assert read(tmp_path / "a.srt", plain.replace("\n00", "\n\n00")) == expected
    assert read(tmp_path / "a.srt", plain.encode("utf-16")) == expected
    vtt = "WEBVTT\n\n" + plain.replace(",", ".")
    assert read(tmp_path / "a.vtt", vtt.replace("\n", "\r\r\n")) == expected
    assert read(tmp_path / "a.vtt", vtt.replace("\n", "\n\n")) == expected


@pytest.mark.parametrize(
    ("timing", "row"),
    [
        ("-00:00:03,000 --> -00:00:01,000", (-3, -1, "odd")),
        ("00:00:03,0009999999999 --> 00:00:05,000", (3.0009999999999, 5, "odd")),
        ("00:00:03,000.5 --> 00:00:05", (3.0005, 5, "odd")),
        ("00:00:03:500 --> 00: 00:05, 250", (3.5, 5.25, "odd")),
        ("4 00:00:03.5 --> 00:00:05.25 X1:0", (3.5, 5.25, "odd")),
        ("00:00:03.-004 --> 00:00:04.300", None),
        ("00:00:03,000 -->", None),
        ("--> 00:00:03,000", None),
        ("00:00:03,000 --> soon", None),
        ("O0:00:03,000 --> 00:00:05,000", None),
    ],
)
def test_only_the_invalid_cue_is_dropped(tmp_path: Path, timing: str, row: tuple[float, float, str] | None) -> None:
    notes: list[str] = []
    good = "00:00:01,000 --> 00:00:02,000\nstir\n\n{}\nodd\n\n00:00:08,000 --> 00:00:09,000\ncut\n"
    expected = [(1, 2, "stir"), *([row] if row else []), (8, 9, "cut")]
    for name, head in (("a.srt", ""), ("a.vtt", "WEBVTT\n\n")):
        assert read(tmp_path / name, head + good.format(timing), notes) == [
            (pytest.approx(s), pytest.approx(e), t) for s, e, t in expected
        ]
    assert len(notes) == (0 if row else 2) and all("1 of 3 captions cannot be read" in note for note in notes)


@pytest.mark.parametrize("text", ["from raw -->> cooked", "raw --> cooked", "-->", "step 1 --> 2:00 later"])
def test_an_arrow_without_a_time_is_text(tmp_path: Path, text: str) -> None:
    assert read(tmp_path / "a.vtt", f"WEBVTT\n\n00:01.000 --> 00:02.000\n{text}\n\n00:03.000 --> 00:04.000\nb\n") == [
        (1, 2, text),
        (3, 4, "b"),
    ]


def test_unreadable_rows_are_left_out(tmp_path: Path) -> None:
    notes: list[str] = []
    assert read(tmp_path / "a.csv", "start,end,text\n1,2,a\nsoon,3,b\n,,\n  ,,\n4,5,c\n", notes) == [
        (1, 2, "a"),
        (4, 5, "c"),
    ]
    rows = [{"start": 1, "end": 2, "text": "a"}, {"start": None, "end": 3, "text": "b"}]
    assert read(tmp_path / "a.json", json.dumps(rows), notes) == [(1, 2, "a")]
    assert "a.csv: 1 of 3 captions cannot be read and are left out: line 3: start or end" in notes[0]
    assert "a.json: 1 of 2 captions cannot be read and are left out: caption 2: start or end" in notes[1]


# ---- formats


ROWS = [{"start": 0.5, "end": 2, "text": " a"}, {"start": 3, "end": 5, "text": "b"}]
OFFSETS = [{"from": 500, "to": 2000}, {"from": 3000, "to": 5000}]
EVENTS = [
    {"tStartMs": 0, "dDurationMs": 9},
    {"tStartMs": 500, "dDurationMs": 1500, "segs": [{"utf8": "a"}]},
    {"tStartMs": 2000, "aAppend": 1, "segs": [{"utf8": "\n"}]},
    {"tStartMs": 3000, "dDurationMs": 2000, "segs": [{"utf8": "b"}]},
]
RECOGNISED = {
    "whisper": {"text": " a b", "segments": ROWS, "language": "en"},
    "whisperX": {"segments": [row | {"words": [{"word": "a"}]} for row in ROWS], "word_segments": []},
    "youtube-transcript-api": [
        {"text": "a", "start": 0.5, "duration": 1.5},
        {"text": "b", "start": 3.0, "duration": 2},
    ],
    "transformers": {"chunks": [{"timestamp": [0.5, 2], "text": "a"}, {"timestamp": [3, 5], "text": "b"}]},
    "whisper.cpp": {"transcription": [{"offsets": span, "text": t} for span, t in zip(OFFSETS, "ab", strict=True)]},
    "json3": {"wireMagic": "pb3", "events": EVENTS},
}


@pytest.mark.parametrize("kind", RECOGNISED)
def test_json_of_recognisers_is_read(tmp_path: Path, kind: str) -> None:
    assert read(tmp_path / "a.json", json.dumps(RECOGNISED[kind])) == [(0.5, 2, "a"), (3, 5, "b")]


def test_rolling_json3_ends_where_the_next_line_begins(tmp_path: Path) -> None:
    words = [
        [{"utf8": "stir"}, {"utf8": " it", "tOffsetMs": 400}],
        [{"utf8": "cut"}, {"utf8": " it", "tOffsetMs": 400}],
    ]
    events = [{"tStartMs": 1000 + 2000 * n, "dDurationMs": 4000, "segs": segs} for n, segs in enumerate(words)]
    assert read(tmp_path / "a.json3", json.dumps({"events": events})) == [(1, 3, "stir it"), (3, 7, "cut it")]


def test_ass_ttml_and_tsv(tmp_path: Path) -> None:
    head = (
        "[Script Info]\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    )
    lines = [
        "Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,{\\i1}stir{\\i0}, the{a note}\\Nsoup",
        "Comment: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,hidden",
        "Dialogue: 1,0:00:01.00,0:00:02.50,Sign,,0,0,0,,{\\p1}m 0 0 l 100 0{\\p0}",
        "Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,cut",
    ]
    assert read(tmp_path / "a.ass", head + "\n".join(lines))[0::2] == [(1, 2.5, "stir, the soup"), (3, 4, "cut")]
    ttml = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<tt xmlns="http://www.w3.org/ns/ttml" '
        'xmlns:ttp="http://www.w3.org/ns/ttml#parameter" ttp:tickRate="10000000"><body><div begin="1s">'
        '<p begin="00:00:00.000" end="00:00:01.500">a &lt; b<br/>stir\n  <span>it</span></p>'
        '<p begin="20000000t" dur="1000ms">cut</p></div></body></tt>'
    )
    assert read(tmp_path / "a.ttml", ttml) == [(1, 2.5, "a < b stir it"), (3, 4, "cut")]
    assert read(tmp_path / "a.tsv", 'start\tend\ttext\n500\t2000\t"stir it\n3000\t5000\tcut\n') == [
        (0.5, 2, '"stir it'),
        (3, 5, "cut"),
    ]
    assert read(tmp_path / "a.tsv", "start\tend\ttext\n1\t2\tstir\n3\t4\tcut\n") == [(1, 2, "stir"), (3, 4, "cut")]
    for name, content in (("a.ttml", "<html/>"), ("a.ttml", '<!DOCTYPE x [<!ENTITY a "b">]><tt/>'), ("a.ass", "hello")):
        with pytest.raises(TrichordError, match="line 1"):
            read(tmp_path / name, content)


# ---- which file


@pytest.mark.parametrize(
    "name",
    [
        "v.SRT",
        "v.VTT",
        "v.de.vtt",
        "v.eng.srt",
        "v.en_US.srt",
        "v.mp4.srt",
        "v.en.json3",
        "v.en.ttml",
        "v.ass",
        "v.English.srt",
    ]
    + ["v.en.sdh.srt", "v.zh-Hans.vtt", "v.mp4.de.vtt", "v.forced.srt"],
)
def test_a_caption_file_is_found_however_it_is_spelt(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert find_sidecar(tmp_path / "v.mp4") == tmp_path / name


@pytest.mark.parametrize("name", ["v.info.json", "v2.vtt", "v.part2.vtt", "v.de.jpg", "v.txt", "other.vtt"])
def test_other_files_are_not_captions(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert find_sidecar(tmp_path / "v.mp4") is None


def test_captions_of_a_video_with_a_longer_name_are_its_own(tmp_path: Path) -> None:
    for name in ("v.de.mp4", "v.de.vtt"):
        (tmp_path / name).write_text("x")
    assert find_sidecar(tmp_path / "v.mp4") is None
    assert find_sidecar(tmp_path / "v.de.mp4") == tmp_path / "v.de.vtt"


def test_of_several_files_the_one_in_the_language_of_the_sound_is_read(tmp_path: Path) -> None:
    def chosen(*names: str, spoken: str = "") -> str | None:
        for path in tmp_path.iterdir():
            path.unlink()
        for name in names:
            (tmp_path / name).write_text(
                SRT.format(name).replace(",", ".") if name.endswith("vtt") else SRT.format(name)
            )
        path = choose_sidecar(tmp_path / "v.mp4", lambda: spoken).path
        return path and path.name

    assert chosen("v.de.srt", "v.ja.srt", spoken="jpn") == "v.ja.srt"
    assert chosen("v.de.srt", "v.en.srt", "v.ja.srt") == "v.en.srt"
    assert chosen("v.de.srt", "v.en.srt", spoken="ger") == "v.de.srt"
    assert chosen("v.srt", "v.de.srt") == "v.srt"
    assert chosen("v.en.forced.srt", "v.en.srt", "v.de.srt") == "v.en.srt"
    assert chosen("v.forced.srt", "v.de.srt") == "v.de.srt"
    notes = choose_sidecar(tmp_path / "v.mp4").notes
    assert len(notes) == 1 and "read from v.de.srt; not read: v.forced.srt" in notes[0]


def test_empty_files_and_metadata_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "v.vtt").write_text("WEBVTT\n")
    (tmp_path / "v.srt").write_text(SRT.format("stir"))
    assert find_sidecar(tmp_path / "v.mp4") == tmp_path / "v.srt"
    (tmp_path / "w.json").write_text('{"key": "00000", "caption": "stir the soup"}')
    sidecar = choose_sidecar(tmp_path / "w.mp4")
    assert sidecar.path is None and "no captions were found in w.json in the same folder" in sidecar.notes[0]
    with pytest.raises(TrichordError, match="nor the output of a known speech recognizer"):
        read_captions(tmp_path / "w.json")
    (tmp_path / "u.sbv").write_text("x")
    assert "u.sbv is in the same folder and is not read; convert it" in choose_sidecar(tmp_path / "u.mp4").notes[0]


def test_a_file_without_words_is_skipped_for_a_track(
    tmp_path: Path,
) -> None:
    path = write_tracks(tmp_path / "v.mkv", [Track("subrip", [(1, 2, "stir")])], sound_language="ger")
    (tmp_path / "v.vtt").write_text("WEBVTT\n")
    assert captions_of(Source("v", "v", video=path), 4.0).text == ("stir",)
    for name in ("v.de.vtt", "v.en.vtt"):
        (tmp_path / name).write_text(f"WEBVTT\n\n00:01.000 --> 00:02.000\n{name}\n")
    assert sidecar_of(path).path == tmp_path / "v.de.vtt"


# ---- which track


@pytest.mark.parametrize(
    ("tracks", "spoken", "text"),
    [
        ([Track("subrip", [(1, 2, "sign")], "eng", 65), Track("subrip", [(1, 2, "full")], "eng")], "", "full"),
        ([Track("subrip", [(1, 2, "sign")], title="Signs"), Track("subrip", [(1, 2, "full")])], "", "full"),
        ([Track("subrip", [(1, 2, "de")], "ger"), Track("subrip", [(1, 2, "en")], "eng")], "eng", "en"),
        ([Track("subrip", [(1, 2, "de")], "ger"), Track("subrip", [(1, 2, "en")], "eng")], "", "de"),
        (
            [Track("subrip", [(1, 2, "de")], "ger"), Track("subrip", [(1, 2, "en")], "eng", int(Disposition.default))],
            "",
            "en",
        ),
        ([Track("subrip", [(1, 2, "<i></i>")]), Track("subrip", [(1, 2, "words")])], "", "words"),
    ],
)
def test_the_track_that_is_read_and_the_note_of_it(tmp_path: Path, tracks: list[Track], spoken: str, text: str) -> None:
    notes: list[str] = []
    captions = subtitles(write_tracks(tmp_path / "a.mkv", tracks, spoken), notes)
    assert captions is not None and captions.text == (text,)
    assert len(notes) == 1 and "captions are read from subtitle track" in notes[0] and "; not read: " in notes[0]


def test_one_track_needs_no_note_and_drawings_are_not_words(tmp_path: Path) -> None:
    notes: list[str] = []
    cues = [(1.0, 2.0, "0,0,Default,,0,0,0,,{\\p1}m 0 0 l 9 9{\\p0}"), (3.0, 4.0, "1,0,Default,,0,0,0,,stir\\Nit")]
    captions = subtitles(write_tracks(tmp_path / "a.mkv", [Track("ass", cues)]), notes)
    assert captions is not None and captions.text == ("stir it",) and notes == []


# ---- tables of clips


@pytest.mark.parametrize(("suffix", "mark"), [(".csv", ","), (".tsv", "\t")])
def test_empty_rows_are_ignored(tmp_path: Path, suffix: str, mark: str) -> None:
    (tmp_path / "v.mp4").touch()
    path = tmp_path / f"t{suffix}"
    path.write_bytes("\ufeffvideo,start,end,text,,\r\nv.mp4,0,4,stir it,,\r\n,,,,,\r\n\r\n".replace(",", mark).encode())
    clips = read_table(path)
    assert [(clip.start_s, clip.end_s, clip.text) for clip in clips] == [(0, 4, ("stir it",))]


def test_ttml_is_read_to_a_depth_and_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ttml"
    shallow, deep = '<p begin="1s" end="2s">stir it</p>', '<p begin="3s" end="4s">too deep</p>'
    nested = f"{'<div>' * 20_000}{deep}{'</div>' * 20_000}"
    path.write_text(f"<tt><body>{shallow}{nested}</body></tt>")
    notes: list[str] = []
    assert read_captions(path, notes=notes).text == ("stir it",)
    assert notes == [
        f"{path}: 1 of 2 captions cannot be read and are left out: elements are nested more than 100 levels deep"
    ]
    path.write_text(
        f'<tt><body><p begin="1s" end="2s">cut {"<span>" * 20_000}it{"</span>" * 20_000} up</p></body></tt>'
    )
    assert read_captions(path).text == ("cut up",)
    monkeypatch.setattr("trichord.captions.reading.MAX_BYTES", 100)
    with pytest.raises(TrichordError, match="a.ttml: "):
        read_captions(path)


def test_a_pipe_named_like_captions_is_noted_and_not_opened(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.touch()
    os.mkfifo(tmp_path / "a.srt")
    assert choose_sidecar(video).path is None
    assert choose_sidecar(video).notes == (f"{video}: a.srt is not a regular file and is not read",)
    (tmp_path / "a.de.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nSuppe\n")
    (tmp_path / "a.vtt").mkdir()
    chosen = choose_sidecar(video)
    assert chosen.path == tmp_path / "a.de.vtt"
    assert [note.partition(": ")[2] for note in chosen.notes] == [
        "captions are read from a.de.vtt",
        "a.srt is not a regular file and is not read",
        "a.vtt is not a regular file and is not read",
    ]


def test_notes_on_cues_of_a_file_beside_a_video_name_both(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.touch()
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nstir\n\n2\n00:00:0x,000 --> 00:00:03,000\ncut\n")
    notes: list[str] = []
    assert captions_of(Source("a", "a.mp4", video=video), 9.0, notes).text == ("stir",)
    (note,) = notes
    assert note.startswith(f"{video}: a.srt: 1 of 2 captions cannot be read and are left out: line 6: ")
