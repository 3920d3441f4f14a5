"""Labels from files: the rows that belong to a clip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.tasks.labels.tables import LabelTable, plain_name, read_labels


def clips(videos: list[str], spans: list[tuple[float, float]] | None = None, ids: list[str] | None = None) -> Embedded:
    start, end = zip(*(spans or [(0.0, 1.0)] * len(videos)), strict=True)
    names = ids or [f"clip {i}" for i in range(len(videos))]
    return Embedded.of({"video": np.ones((len(videos), 2))}, ids=names, videos=videos, start_s=start, end_s=end)


def test_rows_by_clip_by_video_by_plain_name_and_by_its_last_part(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,class,split\nclip 0,a,train\nv1,b,test\nc/v2.avi,c,\nelsewhere/v3,d,test\nx/v4,e,\ny/v4,f,\n")
    embedded = clips(["v1", "v1", "train/c/v2", "v3", "v5"])
    columns = read_labels(path).of_clips(embedded)
    assert columns["class"].tolist() == ["a", "b", "c", "d", ""]
    assert columns["split"].tolist() == ["train", "test", "", "test", ""]
    with pytest.raises(
        TrichordError, match="clip 'v4' matches 'x/v4' and 'y/v4'; use the ids of the clips in the labels"
    ):
        read_labels(path).of_clips(clips(["v1", "v4"]))


@pytest.mark.parametrize("label", ["{}", "{}.mp4", "{}.MKV", "train/{}", "x/y/{}.wav"])
@pytest.mark.parametrize("clip", ["{}", "{}.mp4", "test/{}.avi"])
def test_labels_are_found_with_and_without_suffixes_on_either_side(label: str, clip: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,class\n" + "".join(f"{label.format(name)},{name}\n" for name in ("a.b", "a")))
    matched = read_labels(path).of_clips(clips([clip.format(name) for name in ("a", "a.b")]))
    assert matched["class"].tolist() == ["a", "a.b"]


def test_a_clip_that_two_ids_may_mean_and_exact_ids_first(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,class\nv.mp4,a\nv.avi,b\n")
    assert read_labels(path).of_clips(clips(["v.avi"]))["class"].tolist() == ["b"]
    with pytest.raises(TrichordError, match="clip 'v' matches 'v.mp4' and 'v.avi'"):
        read_labels(path).of_clips(clips(["v"]))


def test_labels_of_less_than_half_of_the_clips_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,class\nv0,a\nw1,b\nw2,b\n")
    table, embedded = read_labels(path), clips(["v0", "v1", "v2", "v3"])
    with pytest.raises(TrichordError) as caught:
        table.of_clips(embedded)
    assert "3 of its 4 ids are not in" in str(caught.value) and "--missing drop" in str(caught.value)
    assert "'clip 1', 'clip 2', 'clip 3'" in str(caught.value) and "'w1', 'w2'" in str(caught.value)
    assert table.of_clips(embedded, allow_missing=True)["class"].tolist() == ["a", "", "", ""]


@pytest.mark.parametrize("rows", [("v,dog,", "w,cat,", "v,cat,"), ("v,cat,", "v,cat,train"), ("v,,", "v,dog,")])
def test_a_clip_with_two_contents_is_an_error_that_names_it(rows: tuple[str, ...], tmp_path: Path) -> None:
    for order in (rows, rows[::-1]):
        path = tmp_path / "labels.csv"
        path.write_text("\n".join(["id,class,split", *order]))
        with pytest.raises(
            TrichordError, match=r"clip 'v' has two values of (class|split) \(.+, .+\) in rows \d and \d"
        ):
            read_labels(path)


def test_rows_that_say_the_same_twice_and_spans_of_one_clip(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,start,end,class\nv,0,2,a\nv,2,4,b\nv,0,2,a\n")
    assert read_labels(path).of_clips(clips(["v"], [(2.0, 3.0)]))["class"].tolist() == ["b"]
    path.write_text("id,start,end,class\nv,0,2,a\nv,0,2,b\n")
    with pytest.raises(TrichordError, match="clip 'v' has two values of class"):
        read_labels(path)
    path.write_text("id,start,end,class\nv,0,2,a\nv,,,b\n")
    with pytest.raises(TrichordError, match="clip 'v' has two values of class"):
        read_labels(path)


def test_official_lists_that_put_a_clip_in_both_parts(tmp_path: Path) -> None:
    (tmp_path / "trainlist01.txt").write_text("a/v1.avi 1\na/v2.avi 1\n")
    (tmp_path / "testlist01.txt").write_text("a/v2.avi\n")
    with pytest.raises(TrichordError, match=r"clip 'a/v2.avi' is in two parts of a fold \("):
        read_labels(tmp_path)


def test_a_table_of_clips_may_serve_as_labels(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    rows = [
        {"id": "v0", "video": "v0.mp4", "text": "x", "class": "a"},
        {"id": "v1", "class": 7, "start": 1, "end": 2.5},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    table = read_labels(path)
    assert table.columns == {"class": ["a", "7"]} and table.start_s[1] == 1 and np.isnan(table.end_s[0])
    assert table.of_clips(clips(["v0", "v1"], [(0, 9), (0, 1)]))["class"].tolist() == ["a", ""]  # [0, 1) and [1, 2.5)


span = st.tuples(st.integers(0, 6), st.integers(1, 4)).map(lambda s: (float(s[0]), float(s[0] + s[1])))


@given(st.lists(span, min_size=1, max_size=6), span)
def test_the_row_that_shares_most_seconds(rows: list[tuple[float, float]], clip: tuple[float, float]) -> None:
    starts, ends = np.array(rows).T
    names = [str(i) for i in range(len(rows))]
    table = LabelTable("t", ["v"] * len(rows), starts, ends, {"class": names})
    # seconds counted one by one: all bounds are whole
    shared = [len(set(range(int(s), int(e))) & set(range(int(clip[0]), int(clip[1])))) for s, e in rows]
    if not max(shared):
        with pytest.raises(TrichordError, match="t: none of its times overlaps with a clip of embeddings"):
            table.of_clips(clips(["v"], [clip]))
    else:
        assert table.of_clips(clips(["v"], [clip]))["class"].tolist() == [str(shared.index(max(shared)))]


def test_the_truth_of_a_world(tmp_path: Path) -> None:
    from trichord.world.profiles import profile_named
    from trichord.world.script import write_script
    from trichord.world.truth import truth_of

    profile = profile_named("balanced")
    videos = write_script(num_train=2, num_test=1, steps_per_video=3, step_s=5.0, seed=0, profile=profile)
    path = tmp_path / "world.json"
    path.write_text(json.dumps(truth_of({"profile": {"name": "balanced"}}, videos, {})))
    table = read_labels(path)
    assert list(table.columns) == ["action", "tool", "object", "place"] and len(table.ids) == 9
    test = next(v for v in videos if v.split == "test")
    name = f"test/{test.video_id}"
    columns = table.of_clips(clips([name, name], [(0.2, 6.0), (4.0, 9.0)]))
    assert columns["action"].tolist() == [test.steps[0].action, test.steps[1].action]
    assert columns["place"].tolist() == [test.place] * 2


def test_official_lists_of_ucf101_and_hmdb51(tmp_path: Path) -> None:
    ucf, hmdb = tmp_path / "ucf", tmp_path / "hmdb"
    ucf.mkdir(), hmdb.mkdir()
    (ucf / "trainlist01.txt").write_text("YoYo/v_YoYo_g08_c01.avi 1\r\nRun/v_Run_g08_c01.avi 2\r\n")
    (ucf / "testlist01.txt").write_text("YoYo/v_YoYo_g01_c01.avi\n")
    (ucf / "testlist02.txt").write_text("YoYo/v_YoYo_g08_c01.avi\n")
    (ucf / "classInd.txt").write_text("1 YoYo\n")
    table = read_labels(ucf)
    rows = {i: tuple(table.columns[c][n] for c in ("class", "fold-1", "fold-2")) for n, i in enumerate(table.ids)}
    assert rows == {
        "YoYo/v_YoYo_g08_c01.avi": ("YoYo", "train", "test"),
        "Run/v_Run_g08_c01.avi": ("Run", "train", ""),
        "YoYo/v_YoYo_g01_c01.avi": ("YoYo", "test", ""),
    }
    (hmdb / "brush_hair_test_split1.txt").write_text("a b.avi 1\nc.avi 2 \nd.avi 0 \n".replace("a b", "ab"))
    table = read_labels(hmdb)
    assert table.columns == {"class": ["brush_hair"] * 3, "fold-1": ["train", "test", ""]}
    assert table.of_clips(clips(["brush_hair/c"]))["fold-1"].tolist() == ["test"]


def test_plain_names() -> None:
    names = ["train/a/b.MP4", "b.v1", "test", "val/x", "trains/x.avi"]
    assert [plain_name(name) for name in names] == ["a/b", "b.v1", "test", "x", "trains/x"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,class\n,x\n", "row 1 has no id; give each row the id of a clip or a video"),
        ("a.csv", "id\nv\n", "contains no labels; add a column id, and a column with labels, such as class"),
        ("a.csv", "", "contains no labels"),
        ("a.csv", "id,class,start,end\nv,x,3,2\n", "row 1 has start 3 and end 2; give both, with start before end"),
        ("a.csv", "id,class,start\nv,x,3\n", "row 1 has start 3 and end None"),
        (
            "a.csv",
            "id,class,start,end\nv,x,soon,2\n",
            "row 1: 'soon' is not a time in seconds; correct it or remove it",
        ),
        ("a.jsonl", "[1]\n", "row 1 has no id"),
        ("a.jsonl", "{", "cannot be read"),
        ("world.json", "{}", "is not the truth of a built-in world; give a .csv or .jsonl file of labels"),
        (
            "a.txt",
            "x",
            "not a file of labels; give a .csv, .tsv or .jsonl file, a world.json or a folder of official lists",
        ),
    ],
)
def test_an_invalid_table_of_labels_is_reported(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TrichordError) as caught:
        read_labels(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_without_lists(tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match=r"no.csv: cannot be read \(No such file or directory\)"):
        read_labels(tmp_path / "no.csv")
    with pytest.raises(TrichordError, match="contains no lists of UCF101"):
        read_labels(tmp_path)
    (tmp_path / "trainlist01.txt").write_text("v.avi 1\n")
    with pytest.raises(TrichordError, match="'v.avi' has no class in front"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "\ufeffID,class,,\r\na,x,,\r\nb,y,,\r\n,,,\r\n"),
        ("a.csv", "id;class\na;x\nb;y\n;\n"),
        ("a.csv", "sep=;\r\nid;class\r\na;x\r\nb;y\r\n"),
        ("a.CSV", "id\tclass\na\tx\nb\ty\n"),
        ("a.tsv", "id\tclass\na\tx\nb\ty\n"),
    ],
)
def test_labels_as_spreadsheets_write_them(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    table = read_labels(path)
    assert table.ids == ["a", "b"] and table.columns == {"class": ["x", "y"]}
