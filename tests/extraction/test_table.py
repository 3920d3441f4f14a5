"""Tables of clips: three formats, common column names, merging, and errors with row and column."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trichord.errors import TrichordError
from trichord.extraction.sources import Source
from trichord.extraction.table import read_table
from trichord.files.tables import delimiter_of

FORMATS = ("csv", "jsonl", "parquet")
Row = dict[str, Any]


def write(folder: Path, rows: list[Row], kind: str = "csv") -> Path:
    path = folder / f"clips.{kind}"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    else:
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), path)
    for name in ("v.mp4", "sub/w.mkv", "p.png", "s.ogg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_all_fields_in_every_format(tmp_path: Path, kind: str) -> None:
    rows: list[Row] = [
        {"id": "a", "video": "v.mp4", "caption": "crack, the\n egg", "start": 1.5, "end": 4.0, "split": "test"},
        {"id": "b", "image": "p.png", "audio": "s.ogg", "caption": "a frog", "split": "validation"},
        {"id": "c", "audio": "s.ogg", "captions": "c.vtt", "end": 2.0},
        {"video": "sub/w.mkv"},
        {"video": "sub/w.mkv", "start": 0.25, "end": 10.0},
        {"video": "sub/w.mkv", "start": 10.0},
    ]
    path = write(tmp_path, rows, kind)
    ids = ["a", "b", "c", "sub/w", "sub/w_0.25-10", "sub/w_10-"]
    names = [f"{path.name} row {n} ({i})" for n, i in enumerate(ids, 1)]
    files = ["v.mp4", "p.png", "s.ogg", "sub/w.mkv", "sub/w.mkv", "sub/w.mkv"]
    assert [source.file_name for source in read_table(path)] == files
    assert [replace(source, file_name="") for source in read_table(path)] == [
        Source("a", names[0], tmp_path / "v.mp4", text=("crack, the egg",), start_s=1.5, end_s=4.0, split="test"),
        Source("b", names[1], image=tmp_path / "p.png", audio=tmp_path / "s.ogg", text=("a frog",), split="val"),
        Source("c", names[2], audio=tmp_path / "s.ogg", captions=tmp_path / "c.vtt", end_s=2.0),
        Source("sub/w", names[3], tmp_path / "sub" / "w.mkv"),
        Source("sub/w_0.25-10", names[4], tmp_path / "sub" / "w.mkv", start_s=0.25, end_s=10.0),
        Source("sub/w_10-", names[5], tmp_path / "sub" / "w.mkv", start_s=10.0),
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_names_of_the_field_and_columns_that_are_not_read(tmp_path: Path, kind: str) -> None:
    row = {"Video_ID": 7, "path": "v.mp4", "Sentence": "x", "start_s": 1, "end_s": 2, "task": "226", "views": 3}
    notes: list[str] = []
    path = write(tmp_path, [row], kind)
    (source,) = read_table(path, notes=notes)
    assert (source.video_id, source.text, source.start_s, source.end_s) == ("7", ("x",), 1, 2)
    assert notes == [f"{path}: ignored columns: task, views"]


@pytest.mark.parametrize("kind", ("jsonl", "parquet"))
def test_a_list_of_texts(tmp_path: Path, kind: str) -> None:
    rows: list[Row] = [
        {"id": "a", "video": "v.mp4", "text": ["one", " ", "two"]},
        {"id": "b", "video": "v.mp4", "text": []},
    ]
    assert [source.text for source in read_table(write(tmp_path, rows, kind))] == [("one", "two"), ()]


def test_rows_of_one_clip_are_merged(tmp_path: Path) -> None:
    rows = [
        {"video_id": i, "video": "v.mp4", "sentence": t} for i, t in (("a", "1"), ("b", "2"), ("a", "3"), ("a", "1"))
    ]
    first, second = read_table(write(tmp_path, rows))
    assert (first.video_id, first.text, first.name) == ("a", ("1", "3"), "clips.csv row 1 (a)")
    assert (second.video_id, second.text) == ("b", ("2",))


@pytest.mark.parametrize("change", [{"video": "w.mp4"}, {"end": "3"}, {"split": "val"}, {"text": ""}])
def test_one_id_for_two_clips(tmp_path: Path, change: Row) -> None:
    row = {"id": "a", "video": "v.mp4", "text": "x", "end": "", "split": ""}
    with pytest.raises(
        TrichordError, match=r"clips\.csv: rows 1 and 3 both have the id 'a' and are not captions of one"
    ):
        read_table(write(tmp_path, [row, {**row, "id": "b"}, {**row, **change}]))


def test_a_folder_of_videos(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("x.y.mkv", "x.y.mp4", "x.y.vtt", "z.webm"):
        (videos / name).touch()
    rows = [
        {"end": "60", "start": "47", "task": "1", "text": "pick", "video_id": "x.y"},
        {"end": "89.5", "start": "67", "task": "1", "text": "mix", "video_id": "x.y"},
        {"end": "", "start": "", "task": "1", "text": "all", "video_id": "z"},
        {"end": "5", "start": "", "task": "1", "text": "gone", "video_id": "gone"},
    ]
    path = write(tmp_path, rows)
    sources = read_table(path, videos)
    assert [(s.video_id, s.start_s, s.end_s) for s in sources] == [
        ("x.y_47-60", 47, 60), ("x.y_67-89.5", 67, 89.5), ("z", 0, None), ("gone_0-5", 0, 5),
    ]  # fmt: skip
    assert [s.video.name for s in sources if s.video] == ["x.y.mp4", "x.y.mp4", "z.webm", "gone.mp4"]
    with pytest.raises(TrichordError, match="has no column video, image or audio; .* or pass the folder of the videos"):
        read_table(path)
    with pytest.raises(TrichordError, match="none: does not exist; pass the folder of the videos"):
        read_table(path, tmp_path / "none")
    rows = [{**row, "clip_id": f"c{n}"} for n, row in enumerate(rows)]
    assert [s.video_id for s in read_table(write(tmp_path, rows), videos)] == ["c0", "c1", "c2", "c3"]


def test_ids_with_the_suffix_of_a_file_name_the_videos_of_a_folder(tmp_path: Path) -> None:
    """As elsewhere, the exact name is tried first, then the name without known media suffixes, in both directions."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("x.webm", "y.mkv", "y.mp4", "a.mp4.webm", "b.mp4.webm", "b.mkv.webm"):
        (videos / name).touch()

    def video_of(video_id: str) -> Path | None:
        return read_table(write(tmp_path, [{"video_id": "x"}, {"video_id": video_id, "clip_id": "c"}]), videos)[1].video

    assert [video_of(name) for name in ("x.mp4", "y.mkv", "y.webm", "y.mp4", "a", "a.mp4", "gone.mp4", "d.e")] == [
        videos / name
        for name in ("x.webm", "y.mkv", "y.mp4", "y.mp4", "a.mp4.webm", "a.mp4.webm", "gone.mp4", "d.e.mp4")
    ]
    assert video_of("b.mkv") == videos / "b.mkv.webm"
    with pytest.raises(TrichordError, match=r"'b' may refer to 'b\.m..' or 'b\.m..'"):
        video_of("b")


@pytest.mark.parametrize(
    ("row", "column", "what"),
    [
        ({"start": "soon"}, "start", "'soon' is not a number of seconds"),
        ({"start": "-1"}, "start", "'-1' is not a number"),
        ({"end": "nan"}, "end", "'nan' is not a number"),
        ({"start": "3", "end": "3"}, "end", r"3 is not after the start \(3\)"),
        ({"split": "dev"}, "split", "'dev' is not a split; use train, val or test"),
        ({"text": "x", "captions": "c.vtt"}, "captions", "has a file although the row also has a text"),
        ({"image": "p.png"}, "image", "has a picture although the row also has a video"),
        ({"video": ""}, "video", "is empty, and so are image and audio"),
        ({"video": "", "image": "p.png", "end": "3"}, "end", "has no effect on a picture without sound"),
    ],
)
def test_wrong_values_name_row_and_column(tmp_path: Path, row: Row, column: str, what: str) -> None:
    good = {
        "id": "good",
        "video": "v.mp4",
        "image": "",
        "text": "",
        "captions": "",
        "start": "",
        "end": "",
        "split": "",
    }
    with pytest.raises(TrichordError, match=rf"clips\.csv, row 2, column {column}: {what}") as caught:
        read_table(write(tmp_path, [good, {**good, "id": "bad", **row}]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "column"), [({"id": True}, "id"), ({"id": "a\nb"}, "id"), ({"video": 3}, "video"), ({"text": 3}, "text"),
                        ({"text": [1]}, "text"), ({"start": True}, "start"), ({"start": [1]}, "start")],
)  # fmt: skip
def test_values_of_another_kind(tmp_path: Path, row: Row, column: str) -> None:
    with pytest.raises(TrichordError, match=rf"clips\.jsonl, row 1, column {column}: '"):
        read_table(write(tmp_path, [{"id": "a", "video": "v.mp4", **row}], "jsonl"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "x", r"t\.txt: is not a table; expected one of \.csv, \.tsv, \.jsonl, \.parquet"),
        ("t.csv", "", r"t\.csv: has no header row"),
        ("t.csv", "video,text\n", r"t\.csv: contains no rows"),
        ("t.csv", "video,video\na,b\n", r"t\.csv: has the column 'video' twice"),
        ("t.csv", "text,caption,video\na,b,c\n", "the columns text and caption both contain the text"),
        ("t.csv", "video,text\na,b,c\n", r"t\.csv, row 1: has 3 cells for 2 columns; put texts that contain commas"),
        ("t.csv", "video,text\nv.mp4,caf\xe9\n", r"t\.csv, row \d: is not CSV in UTF-8"),
        ("t.csv", "task,title\n1,x\n", r"has no column video, image or audio; its columns are task, title"),
        ("t.csv", "video\ngone.mp4\n", r"none of its files exists, e\.g\. .*gone\.mp4; paths are relative"),
        ("t.jsonl", '{"video": "a"}\n{"video"', r"t\.jsonl, row 2: is not JSON"),
        ("t.jsonl", "[1]\n", r"t\.jsonl, row 1: is not a JSON object"),
        ("t.parquet", "PAR1", r"t\.parquet: is not a Parquet file"),
    ],
)  # fmt: skip
def test_tables_that_give_nothing(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(TrichordError, match=message) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_a_parquet_table_without_a_usable_column(tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match="has no column video, image or audio; its columns are task"):
        read_table(write(tmp_path, [{"task": 1}], "parquet"))


def test_a_single_missing_file_is_not_an_error(tmp_path: Path) -> None:
    sources = read_table(write(tmp_path, [{"video": "v.mp4"}, {"video": "gone.mp4"}]))
    assert [s.video_id for s in sources] == ["v", "gone"]


def test_paths_outside_the_folder_give_their_stem(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    path = write(folder, [{"video": "../v.mp4"}, {"video": str(folder / "sub" / "w.mkv")}])
    assert [s.video_id for s in read_table(path)] == ["v", "w"]


@pytest.mark.parametrize(
    "content",
    [
        "video;text;start;end\r\nv.mp4;stir, it;0,5;2,5\r\n;;;\r\n",
        "sep=;\nvideo;text;start;end\nv.mp4;stir, it;0,5;2,5\n",
        "video\ttext\tstart\tend\nv.mp4\tstir, it\t0.5\t2.5\n",
        'video,text,start,end\nv.mp4,"stir, it",0:00.5,00:00:02.500\n',
    ],
)
def test_a_csv_as_spreadsheets_write_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "v.mp4").touch()
    (tmp_path / "t.csv").write_bytes(content.encode())
    assert [(clip.start_s, clip.end_s, clip.text) for clip in read_table(tmp_path / "t.csv")] == [
        (0.5, 2.5, ("stir, it",))
    ]


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("a,b;c,d", ","),
        ("id;text, spoken;start", ";"),
        ("id\ttext, spoken\tstart", "\t"),
        ("id", ","),
        ("a;b,c", ","),
        ("", ","),
    ],
)
def test_the_most_frequent_delimiter_of_the_header_is_taken(header: str, delimiter: str) -> None:
    assert delimiter_of(header) == delimiter
