"""Reading of stores: streams, captions, checks and damage."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from store_helpers import build, item, word_vectors
from trichord.errors import TrichordError
from trichord.store import Store, StoreWriter
from trichord.store.inspect import store_info, verify

SHARD, ROWS = "00001.safetensors", "00001.parquet"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An intact store of three parts: a, b | c, d | e."""
    items = [item(name, 4 + k, split="test" if name in "ce" else "train") for k, name in enumerate("abcde")]
    items[3] = replace(items[3], captions=replace(items[3].captions, text=("now stir",)))
    del items[1].streams["spectrogram"], items[4].streams["visual_2d"]
    return build(tmp_path_factory.mktemp("sound") / "s", items)


@pytest.fixture
def store_path(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "s"))


def read_everything(path: Path) -> None:
    store = Store(path)
    for i in range(len(store)):
        for name in store.streams:
            store.rows(name, i).copy()
        store.caption_spans(i)
        for c in range(store.num_captions(i)):
            store.caption_text(i, c)
            store.word_ids(i, c).sum()
    _ = store.word_vectors


# ---- opening


def test_a_missing_folder_and_an_empty_store_name_the_next_action(tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match="none: does not exist; create a store with `trichord import` or"):
        Store(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(TrichordError, match="file: is a file, not a store"):
        Store(tmp_path / "file")
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        pass
    with pytest.raises(
        TrichordError, match="s: contains no items; fill it with `trichord import` or `trichord extract`"
    ):
        Store(tmp_path / "s")
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        writer.skip("a.mp4", "has no audio")
    with pytest.raises(TrichordError, match=r"s: contains no items .skipped: 1.; see .*skipped.jsonl"):
        Store(tmp_path / "s")


def test_items_are_selected_by_collection_and_split(sound: Path) -> None:
    store = Store(sound)
    assert store.select().tolist() == [0, 1, 2, 3, 4] and store.select().dtype == np.int64
    assert store.select("howto", "test").tolist() == [2, 4] and store.select(split="train").tolist() == [0, 1, 3]
    assert store.select("other").tolist() == [] and store.select(split="other").tolist() == []
    assert store.collections() == {("howto", "train"): 3, ("howto", "test"): 2}


def test_numbers_out_of_range_raise(sound: Path) -> None:
    store = Store(sound)
    for read in (store.video_id, store.duration_s, store.num_captions, lambda i: store.rows("visual_2d", i)):
        with pytest.raises(IndexError):
            read(5)
    for c in (-1, 1):
        with pytest.raises(IndexError, match="item 0 has 1 captions"):
            store.caption_text(0, c)
    with pytest.raises(TrichordError, match="s: has no stream 'depth'; expected one of: spectrogram, visual_2d"):
        store.rows("depth", 0)
    assert store.num_rows("depth", 0) == 0 and np.isnan(store.rate_hz("depth", 0))


def test_slices_are_read_only_views_of_one_mapping(sound: Path) -> None:
    store = Store(sound)
    whole, part = store.rows("visual_2d", 2), store.rows("visual_2d", 2, 1, 3)
    assert np.shares_memory(whole, part) and np.shares_memory(part, store.rows("visual_2d", 2, 2, 9))
    for array in (whole, store.word_ids(2, 0), store.caption_spans(2)[0]):
        assert not array.flags.writeable


def test_indices_may_be_numpy_integers(sound: Path) -> None:
    store = Store(sound)
    i = store.select(split="test")[0]
    assert store.video_id(i) == "c" and store.caption_text(i, np.int64(0)) == "add the salt"
    assert store.rows("visual_2d", i, np.int64(1), np.int64(3)).shape == (2, 4)


def test_parts_are_mapped_when_asked_for_and_hold_no_descriptor(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    from trichord.store import store as module

    mapped = module.map_shard
    monkeypatch.setattr(module, "map_shard", lambda path: (opened.append(path.name), mapped(path))[1])
    before = len(os.listdir("/proc/self/fd"))
    store = Store(sound)
    assert opened == []
    for _ in range(2):
        for i in (4, 0, 1):
            store.rows("spectrogram", i)
    assert opened == ["00002.safetensors", "00000.safetensors"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_store_pickles_as_its_path(sound: Path) -> None:
    store = pickle.loads(pickle.dumps(Store(sound)))
    assert (store.rows("visual_2d", 0) == Store(sound).rows("visual_2d", 0)).all()
    assert len(pickle.dumps(store)) < 500


def test_a_view_outlives_its_store(sound: Path) -> None:
    rows = Store(sound).rows("visual_2d", 0)
    assert rows[1, 2] == 4.0 + 2 / 8 + ord("a")


def test_the_fingerprint_depends_on_content_alone(sound: Path, tmp_path: Path) -> None:
    def fingerprint(name: str, **change: object) -> str:
        return Store(build(tmp_path / name, [replace(item("a"), **change), item("b")])).fingerprint

    first = fingerprint("first")
    assert first == fingerprint("elsewhere") and len(first) == 64
    others = [{"split": "test"}, {"video_id": "z"}, {"duration_s": 9.0}, {"captions": item("a", texts=["x"]).captions}]
    assert len({first, *(fingerprint(f"other{k}", **change) for k, change in enumerate(others))}) == 5
    assert Store(sound).fingerprint != first


# ---- info and verify


def test_info_lists_the_contents_of_a_store(store_path: Path) -> None:
    with StoreWriter(store_path, word_vectors()) as writer:
        writer.skip("x.mp4", "is cut short")
    info = store_info(store_path)
    assert (len(info.store), info.num_parts, info.num_captions, info.num_words) == (5, 3, 5, 5)
    assert info.streams["visual_2d"].num_items == 4 and info.streams["visual_2d"].num_rows == 4 + 5 + 6 + 7
    assert info.num_bytes == sum(p.stat().st_size for p in (store_path / "parts").iterdir())
    text = str(info)
    for line in (
        "items        5 in 3 parts, 0.0 MB, 0.01 hours",
        "  howto train          3",
        "stream       spectrogram  40 x float16, 75 rows of 4 items",
        "words        5 of test 3-d",
        f"skipped      1 (see {store_path / 'skipped.jsonl'})",
        f"fingerprint  {info.store.fingerprint}",
    ):
        assert line in text.splitlines()


def test_verify_accepts_an_intact_store_and_logs_progress(sound: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "trichord.store.inspect"):
        assert verify(sound) == []
    assert caplog.messages == [f"checking {sound / 'parts' / f'0000{k}.parquet'}" for k in range(3)]


def test_verify_of_an_empty_store(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert verify(tmp_path / "empty") == [
        f"{tmp_path / 'empty'}: contains no items; fill it with `trichord import` or `trichord extract`"
    ]
    with pytest.raises(TrichordError, match="none: does not exist"):
        verify(tmp_path / "none")


# ---- damage


def overwrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def with_header(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    """Change the JSON header of a shard without changing the size of the file; the data after the header moves or is cut."""

    def apply(data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        changed = change(header) or header
        text = json.dumps(changed, separators=(",", ":")).encode()
        length = max(length, len(text))
        return (length.to_bytes(8, "little") + text.ljust(length) + data[8 + length :])[: len(data)]

    return apply


AT_OPENING = {
    "shard cut short": (SHARD, lambda data: data[:-1], "bytes, but .* were written"),
    "shard grown": (SHARD, lambda data: data + b"\0", "bytes, but .* were written"),
    "shard empty": (SHARD, lambda data: b"", "has 0 bytes, but .* were written"),
    "rows cut short": (ROWS, lambda data: data[:-20], "cannot be read"),
    "rows empty": (ROWS, lambda data: b"", "cannot be read"),
    "rows are something else": (ROWS, lambda data: b"PAR1 no PAR1", "cannot be read"),
    "a flipped bit in the rows": (ROWS, lambda data: data.replace(b"howto", b"hawto", 1), "cannot be read"),
}


@pytest.mark.parametrize("kind", AT_OPENING)
def test_damage_found_at_opening_is_an_error_of_one_line(store_path: Path, kind: str) -> None:
    name, change, text = AT_OPENING[kind]
    overwrite(store_path / "parts" / name, change)
    way_out = f"run `trichord store verify .*s`, .*; otherwise delete {SHARD} and {ROWS} in .*parts and import again"
    with pytest.raises(TrichordError, match=f"parts/{name}: .*{text}.*; {way_out}$") as caught:
        Store(store_path)
    assert "\n" not in str(caught.value)
    assert verify(store_path) == [str(caught.value)]
    with pytest.raises(TrichordError, match=name):
        StoreWriter(store_path, word_vectors())
    for part in (SHARD, ROWS):  # the way out that the line names
        (store_path / "parts" / part).unlink()
    assert verify(store_path) == [] and len(build(store_path, [item("c")]).name) and len(Store(store_path)) == 4


def test_a_missing_shard_is_an_error_of_one_line(store_path: Path) -> None:
    (store_path / "parts" / SHARD).unlink()
    with pytest.raises(TrichordError, match=f"parts/{SHARD}: cannot be read .No such file"):
        Store(store_path)
    assert len(verify(store_path)) == 1


def huge(header: dict) -> None:
    header["visual_2d"]["shape"] = [10**12, 4]


def shifted(header: dict) -> None:
    begin, end = header["visual_2d"]["data_offsets"]
    header["visual_2d"]["data_offsets"] = [begin - 4, end - 4]


def negative(header: dict) -> None:
    header["visual_2d"] |= {"shape": [-1, -4], "data_offsets": [4, 20]}


AT_FIRST_USE = {
    "header length": (lambda data: b"\xff" * 8 + data[8:], "not a safetensors file, or truncated"),
    "header text": (lambda data: data[:8] + b"{" * 20 + data[28:], "its header is not valid"),
    "header is a list": (with_header(lambda header: [1]), "its header is not valid"),
    "header nests deep": (lambda data: data[:8] + b"[" * (len(data) - 8), "its header is not valid|truncated"),
    "huge shape": (with_header(huge), "its header is not valid"),
    "negative shape": (with_header(negative), "its header is not valid"),
    "shifted tensor": (with_header(shifted), "its tensors overlap or leave gaps"),
    "unknown dtype": (with_header(lambda header: header["visual_2d"].update(dtype="X")), "its header is not valid"),
}


@pytest.mark.parametrize("kind", AT_FIRST_USE)
def test_a_damaged_header_is_an_error_at_first_use(store_path: Path, kind: str) -> None:
    change, text = AT_FIRST_USE[kind]
    overwrite(store_path / "parts" / SHARD, change)
    store = Store(store_path)
    store.rows("visual_2d", 0)
    with pytest.raises(TrichordError, match=f"parts/{SHARD}: .*({text}).*; run `trichord store verify"):
        store.rows("visual_2d", 2)
    problems = verify(store_path)
    assert any("does not match its checksum" in line for line in problems) and len(problems) == 2


def rewrite(path: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Change the tensors of a shard, and adjust size and checksum, like a faulty program."""
    shard = path / "parts" / SHARD
    tensors = {name: array.copy() for name, array in load_file(shard).items()}
    change(tensors)
    save_file(tensors, shard)
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    redescribe(path, num_bytes=shard.stat().st_size, sha256=digest)


def redescribe(path: Path, columns: dict[str, list] | None = None, **change: object) -> None:
    rows = path / "parts" / ROWS
    table = pq.read_table(rows)
    described = json.loads(table.schema.metadata[b"trichord"]) | change
    if columns:
        table = pa.table(table.to_pydict() | columns, schema=table.schema)
    pq.write_table(table.replace_schema_metadata({"trichord": json.dumps(described)}), rows)


def set_value(name: str, index: object, value: object) -> Callable[[dict[str, np.ndarray]], None]:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[name][index] = value

    return change


CONTENT = {
    "a lost stream": (lambda t: t.pop("visual_2d"), "its tensor visual_2d is not float32 of width 4"),
    "too few rows": (lambda t: t.update(visual_2d=t["visual_2d"][:-1]), "has 12 rows of visual_2d, but its Parquet"),
    "other precision": (lambda t: t.update(visual_2d=t["visual_2d"].astype("f2")), "is not float32 of width 4"),
    "too few captions": (
        lambda t: t.update(caption_start_s=np.zeros(1)),
        "caption_start_s is missing or does not have",
    ),
    "lost words": (lambda t: t.pop("word_ids"), "its tensor word_ids is missing or does not have"),
    "text offsets": (set_value("caption_text_offsets", 2, 99), "its caption_text offsets do not match the data"),
}
CONTENT_IN_VERIFY = {
    "NaN": (set_value("visual_2d", (3, 1), np.nan), "visual_2d contains NaN or infinity"),
    "NaN in time": (set_value("caption_end_s", 0, np.nan), "caption_end_s contains NaN or infinity"),
    "infinite word": (set_value("word_vectors", 0, np.inf), "word_vectors contains NaN or infinity"),
    "offsets fall": (set_value("word_offsets", 1, 99), "word_offsets decrease"),
    "not UTF-8": (set_value("caption_text", 0, 255), "its text is not UTF-8"),
    "a stray word id": (set_value("word_ids", 0, 77), "its captions use word ids that it does not list"),
    "word numbers": (set_value("word_table_ids", 0, 0), "its new words are not numbered consecutively"),
    "another word": (set_value("word_spelling", -1, ord("X")), "is 'salX' here and 'salt' in an earlier part"),
}


@pytest.mark.parametrize("kind", CONTENT)
def test_tensors_that_do_not_match_the_rows_are_an_error(store_path: Path, kind: str) -> None:
    change, text = CONTENT[kind]
    rewrite(store_path, change)
    with pytest.raises(TrichordError, match=f"parts/{SHARD}: .*{text}"):
        read_everything(store_path)
    assert [line for line in verify(store_path) if text in line]


@pytest.mark.parametrize("kind", CONTENT_IN_VERIFY)
def test_verify_finds_wrong_content(store_path: Path, kind: str) -> None:
    change, text = CONTENT_IN_VERIFY[kind]
    rewrite(store_path, change)
    problems = verify(store_path)
    again = f"delete {SHARD} and {ROWS} in {store_path / 'parts'} and import again"
    assert any(str(store_path / "parts" / SHARD) in line and text in line and line.endswith(again) for line in problems)


def test_verify_finds_a_flipped_bit_that_opening_cannot_see(store_path: Path) -> None:
    overwrite(store_path / "parts" / SHARD, lambda data: data[:-90] + bytes([data[-90] ^ 1]) + data[-89:])
    Store(store_path)
    (problem,) = [line for line in verify(store_path) if "checksum" in line]
    assert problem.startswith(
        f"{store_path / 'parts' / SHARD}: its content does not match its checksum; if the store was copied"
    )


DESCRIPTION = {
    "another format": (
        {"format": 5},
        "has format 5, but this version of trichord reads formats 1 to 4; install a newer version",
    ),
    "a newer format than its columns": ({"format": 4}, "its columns are not those of a store"),
    "items to supersede in an old format": ({"supersedes": 1}, "its description is not valid"),
    "a path outside": ({"shard": "../../secret"}, "its description is not valid"),
    "a negative size": ({"num_bytes": -1}, "its description is not valid"),
    "endless words": ({"first_word": 10**12}, "its description is not valid"),
    "an odd dtype": ({"streams": {"visual_2d": {"dim": 4, "dtype": "object"}}}, "its description is not valid"),
    "an unknown key": ({"surprise": 1}, "its description is not valid"),
    "another width": (
        {"streams": {"spectrogram": {"dim": 40, "dtype": "float16"}, "visual_2d": {"dim": 5, "dtype": "float32"}}},
        "its stream visual_2d is 5 wide, that of earlier parts 4",
    ),
    "other words": ({"word_source": "other"}, "its words are from other, those of earlier parts from test 3-d"),
    "fewer streams": ({"streams": {}}, "its columns are not those of a store"),
}


@pytest.mark.parametrize("kind", DESCRIPTION)
def test_a_wrong_description_is_an_error_of_one_line(store_path: Path, kind: str) -> None:
    change, text = DESCRIPTION[kind]
    redescribe(store_path, **change)
    with pytest.raises(TrichordError, match=f"parts/{ROWS}: {text}"):
        Store(store_path)
    assert verify(store_path)


def test_a_foreign_parquet_file_is_refused(store_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), store_path / "parts" / ROWS)
    with pytest.raises(TrichordError, match=f"{ROWS}: is not a part of a store"):
        Store(store_path)
    (store_path / "parts" / "notes.parquet").write_text("not ours")
    (store_path / "parts" / ROWS).unlink()
    assert len(Store(store_path)) == 3


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"visual_2d_end": [6, 1]}, "its visual_2d offsets are not valid"),
        ({"visual_2d_begin": [-1, 6]}, "its visual_2d offsets are not valid"),
        ({"caption_begin": [2, 1]}, "its caption offsets are not valid"),
        ({"video_id": [None, "x"]}, "has missing values"),
        ({"visual_2d_end": [6, 99]}, "has 13 rows of visual_2d, but its Parquet file expects 99"),
    ],
)
def test_wrong_rows_are_an_error_of_one_line(store_path: Path, columns: dict[str, list], text: str) -> None:
    redescribe(store_path, columns)
    with pytest.raises(TrichordError, match=text):
        read_everything(store_path)
    assert any(text in line for line in verify(store_path))


def test_verify_finds_changed_rows_and_duplicate_items(store_path: Path) -> None:
    redescribe(store_path, {"video_id": ["a", "d"]})
    rows = store_path / "parts" / ROWS
    again = "if the store was copied or downloaded, copy the part again; otherwise "
    again += f"delete {SHARD} and {ROWS} in {rows.parent} and import again"
    assert verify(store_path) == [
        f"{rows}: its rows were changed after they were written; {again}",
        f"{rows}: repeats howto/a, which 00000.parquet contains; {again}",
    ]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_random_damage_only_raises_errors_of_one_line(sound: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copytree(sound, Path(folder) / "s"))
        victim = path / "parts" / data.draw(st.sampled_from([SHARD, ROWS]))
        content = bytearray(victim.read_bytes())
        length = len(content) if victim.suffix == ".parquet" else 2500
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
        changed = bytes(content) != victim.read_bytes()
        victim.write_bytes(content)
        for read in (read_everything, store_info):
            try:
                read(path)
            except TrichordError as error:
                assert changed and victim.stem in str(error) and "\n" not in str(error)
        problems = verify(path)
        assert changed or not problems
        assert all("\n" not in problem for problem in problems)
        assert problems or not changed or victim.suffix == ".parquet"
