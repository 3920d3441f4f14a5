"""Modalities of feature arrays: a column of a table becomes a stream, and the store records its name and letter."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import re
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract_helpers import ids_of, ledger, run
from s3_server import upload
from trichord import modality
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.extraction.arrays import Width, feature_rows, parse_modalities
from trichord.extraction.summary import ExtractSummary
from trichord.extraction.table import read_table
from trichord.modality import Order, declared
from trichord.releases import IMPORTERS, export_store
from trichord.store import Store
from trichord.store.encoders import read_encoders
from trichord.store.inspect import store_info
from trichord.store.ledger import read_ledger
from trichord.store.names import ENCODERS
from trichord.store.overlap import same_content

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def no_declared_modalities(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(modality, "_declared", {})
    yield


def table(folder: Path, rows: list[Row]) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    folder.mkdir(exist_ok=True)
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return folder / "clips.csv"


def extracted(path: Path, store: Path, modalities: str = "depth=d", **options: object) -> ExtractSummary:
    return run(
        path, store, **{"visual_2d": "none", "audio": "none", "modality": modalities, "captions": "none", **options}
    )


def rows_of(store: Store, name: str = "depth") -> dict[str, tuple[float, list[list[float]]]]:
    items = range(len(store))
    return {
        store.video_id(i): (store.rate_hz(name, i), store.rows(name, i).tolist()) for i in items if store.has(name)[i]
    }


def save(path: Path, values: Any, dtype: Any = np.float32) -> str:
    np.save(path, np.array(values, dtype))
    return path.name


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A table of four clips: a vector, rows over a span of 4 s, rows without a duration, and no array."""
    save(tmp_path / "a.npy", [1, 2], np.int16)
    save(tmp_path / "b.npy", [[1, 2], [3, -4]], np.float64)
    np.savez(tmp_path / "c.npz", anything=np.array([[1, 2], [3, -4]], np.float32))
    rows: list[Row] = [
        {"id": "a", "text": "one", "depth": "a.npy"},
        {"id": "b", "text": "two", "depth": "b.npy", "start": "2", "end": "6"},
        {"id": "c", "text": "three", "depth": "c.npz", "image": "p.png"},
        {"id": "d", "text": "four", "depth": "", "image": "p.png"},
    ]
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    return table(tmp_path, rows)


def test_a_column_of_arrays_becomes_a_stream(clips: Path, tmp_path: Path) -> None:
    summary = extracted(clips, tmp_path / "store", test_fraction=0.0)
    assert summary.num_added == 4 and summary.num_skipped == 0
    store = Store(tmp_path / "store")
    assert store.modalities == {"depth": "d"} == declared()
    assert rows_of(store) == {
        "a": (0.0, [[1, 2]]),
        "b": (0.5, [[1, 2], [3, -4]]),
        "c": (0.0, [[3, 2]]),  # the maximum of its rows
    }
    assert [store.duration_s(i) for i in range(4)] == [1, 4, 1, 1]
    assert str(store.streams["depth"]) == "StreamInfo(dim=2, dtype='float32')"
    assert read_encoders(tmp_path / "store")["depth"]["parameters"] == {"modality": "depth", "letter": "d"}
    assert "depth        2 x float32, 4 rows of 3 items, modality d" in str(store_info(tmp_path / "store"))
    assert Order.parse("vt>d").modalities == ("video", "text", "depth")


def with_sound(tmp_path: Path) -> Path:
    """A table of a sound of two seconds and of its first half, each with an array of eight rows."""
    with wave.open(str(tmp_path / "s.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(64000))
    save(tmp_path / "a.npy", np.ones((8, 3)), np.float16)
    return table(tmp_path, [{"id": "whole", "audio": "s.wav", "depth": "a.npy", "text": "x", "end": ""},
                            {"id": "half", "audio": "s.wav", "depth": "a.npy", "text": "x", "end": "1"}])  # fmt: skip


def test_rows_of_a_clip_with_sound_span_its_length(tmp_path: Path) -> None:
    path = with_sound(tmp_path)
    extracted(path, tmp_path / "store")
    store = Store(tmp_path / "store")
    assert {name: rate for name, (rate, _) in rows_of(store).items()} == {"whole": 4.0, "half": 8.0}
    assert store.streams["depth"].dtype == "float16"


def test_opening_a_store_elsewhere_declares_its_modalities(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracted(clips, tmp_path / "store")
    monkeypatch.setattr(modality, "_declared", {})
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    pickled = pickle.dumps(Store(tmp_path / "copy"))
    monkeypatch.setattr(modality, "_declared", {})
    assert pickle.loads(pickled).modalities == {"depth": "d"} == declared()


def test_only_changed_arrays_are_read_again(clips: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    extracted(clips, store)
    before = Store(store).fingerprint
    assert extracted(clips, store).num_present == 4 and Store(store).fingerprint == before
    save(tmp_path / "a.npy", [5, 6])
    summary = extracted(clips, store)
    assert (summary.num_present, summary.num_renewed, summary.num_skipped) == (3, 1, 0)
    opened = Store(store)
    assert rows_of(opened)["a"] == (0.0, [[5, 6]]) and ids_of(store) == ["a", "b", "c", "d"]
    assert opened.caption_text(0, 0) == "one"
    assert extracted(clips, store).num_present == 4


def test_clips_of_arrays_alone_are_not_the_content_of_each_other(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / f"{name}.npy", [1, 2] if name == "a" else [3, 4])
    rows: list[Row] = [
        {"id": "a", "text": "one", "depth": "a.npy", "start": "0", "end": "5", "split": "train"},
        {"id": "b", "text": "two", "depth": "b.npy", "start": "0", "end": "5", "split": "test"},
        {"id": "c", "text": "one", "depth": "a.npy", "start": "0", "end": "6", "split": "test"},
    ]
    extracted(table(tmp_path, rows), tmp_path / "store")
    store = Store(tmp_path / "store")
    assert same_content(store, store.select(split="train"), store.select(split="test")) == {}
    save(tmp_path / "b.npy", [5, 6])
    extracted(tmp_path / "clips.csv", tmp_path / "store")
    assert rows_of(Store(tmp_path / "store"))["b"][1] == [[5, 6]]


def test_a_new_array_does_not_change_the_sound_of_its_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, path = tmp_path / "store", with_sound(tmp_path)
    extracted(path, store, audio="log-mel")
    before = Store(store).rows("spectrogram", 0).copy()
    monkeypatch.setattr("trichord.extraction.work.sound", None)
    save(tmp_path / "a.npy", np.full((2, 3), 7), np.float16)
    summary = extracted(path, store, audio="log-mel")
    assert (summary.num_renewed, summary.num_skipped) == (2, 0)
    opened = Store(store)
    assert {name: rows for name, (_, rows) in rows_of(opened).items()} == dict.fromkeys(
        ("whole", "half"), [[7] * 3] * 2
    )
    assert [opened.rate_hz("depth", i) for i in (0, 1)] == [2 / opened.duration_s(i) for i in (0, 1)]
    assert np.array_equal(opened.rows("spectrogram", 0), before) and opened.caption_text(0, 0) == "x"


def test_a_copy_behind_a_url_declares_its_modalities(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRICHORD_CACHE", str(tmp_path / "cache"))
    extracted(clips, tmp_path / "store")
    modality._declared.clear()
    assert Store(upload(tmp_path / "store", "memory://arrays/store")).modalities == {"depth": "d"} == declared()


def test_a_cell_that_was_emptied_or_filled_is_taken_up(clips: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    extracted(clips, store)
    clips.write_text(clips.read_text().replace("c.npz", "").replace("d,four,", "d,four,a.npy"))
    assert extracted(clips, store).num_renewed == 2 and ledger(store) == {}
    assert {name: rows for name, (_, rows) in rows_of(Store(store)).items()} == {
        "a": [[1, 2]],
        "b": [[1, 2], [3, -4]],
        "d": [[1, 2]],
    }


def test_a_damaged_array_does_not_change_the_store(clips: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    extracted(clips, store)
    save(tmp_path / "a.npy", [np.nan, 6])
    assert extracted(clips, store).num_skipped == 1 and rows_of(Store(store))["a"] == (0.0, [[1, 2]])


@pytest.mark.parametrize(
    ("again", "message"),
    [
        ("depth=e", "modality depth: its letter is d, not e; use d"),
        ("depth=d,dance=d", "the letter d already stands for depth"),
        ("video=v", "the column video has another meaning"),
        ("depth", "pass a name and a letter, such as depth=d"),
        ("pose=p", "has no column pose, which --modality names; its columns are id, text, .*depth; correct the table"),
        ("Depth=d", "'Depth' cannot be the name of a modality"),
        ("depth=d,depth=e", "assigns two letters to depth, d and e"),
        ("caption_rows=c", "'caption_rows' cannot be the name"),
    ],
)  # fmt: skip
def test_another_choice_is_refused(clips: Path, tmp_path: Path, again: str, message: str) -> None:
    extracted(clips, tmp_path / "store")
    before = sorted(os.listdir(tmp_path / "store" / "parts"))
    with pytest.raises(TrichordError, match=message) as caught:
        extracted(clips, tmp_path / "store", again)
    assert "\n" not in str(caught.value) and sorted(os.listdir(tmp_path / "store" / "parts")) == before


def test_a_clip_extracted_without_the_modality_is_the_same_clip(clips: Path, tmp_path: Path) -> None:
    extracted(clips, tmp_path / "store")
    path = table(tmp_path / "more", [{"id": "a", "text": "one", "depth": "../a.npy", "pose": "../b.npy"}])
    extracted(path, tmp_path / "store", "depth=d,pose=p")
    (entry,) = read_ledger(tmp_path / "store")
    assert entry["class"] == "changed" and "computed by other encoders or settings; use those" in entry["reason"]


def test_a_folder_has_no_columns(tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match="--modality depth=d names columns of a table, but .* is not a table"):
        extracted(tmp_path, tmp_path / "store")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (np.ones((1, 2, 3), np.float32), r"has shape \(1, 2, 3\), expected \(width,\) or \(rows, width\)"),
        (np.array(["x", "y"]), "has dtype <U1, expected numbers"),
        (np.array([1j, 2]), "has dtype complex128, expected numbers"),
        (np.array([[1, 2], [np.nan, 1]], np.float32), r"contains NaN or infinity \(first in row 1\)"),
        (np.array([1, 1e300]), r"contains numbers outside the range of float32 \(first in row 0\)"),
        (np.empty((0, 2), np.float32), r"is empty \(shape \(0, 2\)\)"),
        (np.ones(3, np.float32), r"has width 3, expected 2 as in clips\.csv row 1 \(a\)"),
        (b"text", "is broken"),
        (None, "gone.npy: cannot be read"),
        (np.array([{}, {}], object), "refused|is broken"),
    ],
)  # fmt: skip
def test_a_wrong_array_skips_its_clip_and_names_row_and_column(
    clips: Path, tmp_path: Path, content: Any, what: str
) -> None:
    name = "gone.npy" if content is None else "wrong.npy"
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        np.save(tmp_path / name, content, allow_pickle=True)
    with clips.open("a") as file:
        file.write(f"e,five,{name},,,\n")
    summary = extracted(clips, tmp_path / "store")
    assert (summary.num_added, summary.num_skipped) == (4, 1)
    (entry,) = read_ledger(tmp_path / "store")
    assert entry["source"] == "clips.csv row 5 (e)" and entry["class"] == (
        "missing" if content is None else "unreadable"
    )
    assert re.search(what, entry["reason"]) and (content is None or entry["reason"].startswith("column depth: "))


def test_a_device_and_a_file_of_two_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.ones(2), b=np.ones(2))
    with pytest.raises(TrichordError, match=r"column depth: .*two\.npz: contains 2 arrays \(a, b\), expected one"):
        feature_rows(tmp_path / "two.npz", "depth", pooled=True)
    with pytest.raises(OSError):
        feature_rows(Path("/dev/zero"), "depth", pooled=True)
    np.save(tmp_path / "a.npy", np.ones(2))
    with pytest.raises(TrichordError, match="has width 2, expected 3 as in the store"):
        feature_rows(tmp_path / "a.npy", "depth", pooled=False, expected=Width(3, "the store"))


def test_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 32, 4)})
    (tmp_path / "big.npy").write_bytes(header.getvalue())
    os.truncate(tmp_path / "big.npy", (1 << 36) + 4096)
    with pytest.raises(TrichordError, match="has 68,719,480,832 bytes, but the features"):
        feature_rows(tmp_path / "big.npy", "depth", pooled=True)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "x", "depth": "", "text": "t"}], r"row 1, column video: is empty, and so are image, audio and depth"),
        ([{"id": "x", "depth": "a.npy", "start": "1"}], r"row 1, column start: has no matching end"),
        ([{"id": "x", "text": "t"}], r"has no column video, image, audio or depth"),
        ([{"id": "x", "depth": "nowhere.npy"}], r"none of its files exists, e\.g\. .*nowhere\.npy"),
    ],
)  # fmt: skip
def test_tables_that_name_no_array(tmp_path: Path, rows: list[Row], message: str) -> None:
    with pytest.raises(TrichordError, match=message):
        read_table(table(tmp_path, rows), modalities=("depth",))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_other_formats_of_tables(tmp_path: Path, kind: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    save(tmp_path / "a.npy", [1, 2])
    rows = [{"id": "a", "Depth": "a.npy", "odd": 1}, {"id": "b", "Depth": None, "image": "p.png"}]
    path = tmp_path / f"t.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(
            pa.Table.from_pylist([{"id": "", "Depth": "", "odd": 1, "image": ""} | row for row in rows]), path
        )
    notes: list[str] = []
    sources = read_table(path, modalities=("depth",), notes=notes)
    assert [dict(source.arrays) for source in sources] == [{"depth": tmp_path / "a.npy"}, {}]
    assert notes == [f"{path}: ignored columns: odd"]


def test_a_required_modality(clips: Path, tmp_path: Path) -> None:
    summary = extracted(clips, tmp_path / "store", require="depth")
    assert summary.num_skipped == 1 and ids_of(tmp_path / "store") == ["a", "b", "c"]
    assert read_ledger(tmp_path / "store")[0]["reason"] == "has no depth, which is required"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"modality": "pose", "letter": "d"}, "does not record the modality of the stream depth"),
        ([1], "does not record the modality of the stream depth"),
        ({"modality": "depth", "letter": "v"}, "the letter v already stands for video"),
        ({"modality": "depth", "letter": ["d"]}, "is not a letter"),
        ({"modality": "depth"}, "'' is not a letter"),
        ({"modality": "depth", "letter": "\x1b"}, "is not a letter"),
    ],
)  # fmt: skip
def test_a_hostile_record_is_an_error_that_names_it(clips: Path, tmp_path: Path, parameters: Any, message: str) -> None:
    extracted(clips, tmp_path / "store")
    path = tmp_path / "store" / ENCODERS
    record = json.loads(path.read_text())
    record["depth"]["parameters"] = parameters
    path.write_text(json.dumps(record))
    with pytest.raises(TrichordError, match=message) as caught:
        Store(tmp_path / "store")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_record_that_calls_video_an_array_is_refused(clips: Path, tmp_path: Path) -> None:
    extracted(clips, tmp_path / "store")
    path = tmp_path / "store" / ENCODERS
    path.write_text(
        json.dumps({"video": {"name": "arrays", "digest": "x", "parameters": {"modality": "video", "letter": "v"}}})
    )
    with pytest.raises(TrichordError, match="does not record the modality of the stream video"):
        Store(tmp_path / "store")


def test_stores_that_give_one_letter_to_two_modalities_are_not_read_together(clips: Path, tmp_path: Path) -> None:
    extracted(clips, tmp_path / "store")
    path = tmp_path / "store" / ENCODERS
    modality._declared.clear()
    parse_modalities("dance=d")
    with pytest.raises(TrichordError, match="the letter d already stands for dance"):
        Store(path.parent)


def test_the_option_may_be_given_more_than_once(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with clips.open() as file:
        rows = [row | {"pose": "a.npy"} for row in csv.DictReader(file)]
    table(tmp_path, rows)
    words = ["--visual_2d", "none", "--audio", "none", "--captions", "none", "--workers", "0"]
    assert (
        main(
            [
                "extract",
                str(clips),
                "--modality",
                "depth=d",
                "--store",
                str(tmp_path / "s"),
                "--modality=pose=p",
                *words,
            ]
        )
        == 0
    )
    assert Store(tmp_path / "s").modalities == {"depth": "d", "pose": "p"}
    assert "arrays" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["webdataset", "npy", "howto100m"])
def test_an_exported_modality_is_imported_again(clips: Path, tmp_path: Path, layout: Any) -> None:
    extracted(clips, tmp_path / "store")
    export_store(tmp_path / "store", tmp_path / "out", layout=layout)
    modality._declared.clear()
    IMPORTERS[layout](root=tmp_path / "out", store=tmp_path / "again")
    assert declared() == {"depth": "d"} == Store(tmp_path / "again").modalities
    assert rows_of(Store(tmp_path / "again")) == rows_of(Store(tmp_path / "store"))
    assert read_encoders(tmp_path / "again")["depth"] == read_encoders(tmp_path / "store")["depth"]
    modality._declared.clear()
    parse_modalities("dance=d")
    with pytest.raises(TrichordError, match=r"the letter d already stands for dance; files that disagree"):
        IMPORTERS[layout](root=tmp_path / "out", store=tmp_path / "third")
