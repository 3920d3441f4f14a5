"""Damaged exports and malicious files: an error of one line with the reason, all other data is imported, memory is bounded."""

from __future__ import annotations

import io
import json
import random
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export_helpers import LAYOUTS, content_of, some_items, write_store
from trichord.errors import TrichordError
from trichord.releases import IMPORTERS, ImportSummary, export_store, import_npy, import_webdataset
from trichord.store import Store
from trichord.store.ledger import read_ledger


@pytest.fixture
def exported(tmp_path: Path) -> Callable[[str], Path]:
    def export(layout: str) -> Path:
        write_store(tmp_path / "store", some_items(), items_per_part=1)
        export_store(tmp_path / "store", tmp_path / layout, layout=layout)  # type: ignore[arg-type]
        return tmp_path / layout

    return export


def imported(layout: str, root: Path, store: Path) -> tuple[ImportSummary, str]:
    """Return the summary of an import and all reasons, one line each; all stored items are unchanged."""
    summary = IMPORTERS[layout](root, store)
    before, after = content_of(Store(root.parent / "store")), content_of(Store(store))
    assert all(before[key] == value for key, value in after.items()) and len(after) == summary.num_added
    reasons = "\n".join(f"{entry['source']} | {entry['reason']}" for entry in read_ledger(store))
    assert len(reasons.splitlines()) == summary.num_skipped
    return summary, reasons


def refused(layout: str, root: Path) -> str:
    with pytest.raises(TrichordError) as caught:
        IMPORTERS[layout](root, root.parent / "refused")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tar(path: Path, *files: tuple[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    return path


def record(**more: Any) -> bytes:
    values = {"id": "a", "collection": "c", "split": "train", "duration_s": 2.0, "rates_hz": {"visual_2d": 1.0}}
    return json.dumps(values | {"captions": {"start": [0], "end": [1], "text": ["add"]}} | more).encode()


def npy(array: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, np.asarray(array), **options)
    return out.getvalue()


GOOD = npy(np.ones((2, 3), np.float32))


# ---- webdataset


def test_foreign_shards_need_no_end_mark(tmp_path: Path) -> None:
    tar(tmp_path / "x" / "a.tar", ("v1.json", record()), ("v1.visual_2d.npy", GOOD), ("v1.jpg", b"not ours"))
    assert import_webdataset(tmp_path / "x", tmp_path / "store").streams == {"visual_2d": 1}
    store = Store(tmp_path / "store")
    assert store.rows("visual_2d", 0).tolist() == [[1.0] * 3] * 2 and store.word_source.startswith("GloVe")


HARMFUL: dict[str, tuple[list[tuple[str, bytes]], str]] = {
    "traversal": ([("../../etc/v.json", record()), ("../../etc/v.visual_2d.npy", GOOD)], "leads out of its folder"),
    "absolute": ([("/etc/v.json", record()), ("/etc/v.visual_2d.npy", GOOD)], "leads out of its folder"),
    "no json": ([("v.visual_2d.npy", GOOD)], "has 0 .json files, expected one"),
    "two json": ([("v.json", record()), ("v.json", record())], "has 2 .json files, expected one"),
    "no JSON": ([("v.json", b"{"), ("v.visual_2d.npy", GOOD)], "is not JSON"),
    "deep JSON": ([("v.json", b"[" * 100_000)], "is not JSON"),
    "no object": ([("v.json", b"[1]")], "is not a JSON object but a list"),
    "no id": ([("v.json", b"{}"), ("v.visual_2d.npy", GOOD)], "has no id or no collection"),
    "id of two lines": ([("v.json", record(id="a\nb")), ("v.visual_2d.npy", GOOD)], "is not a single line of text"),
    "surrogate": ([("v.json", record(id="\ud800")), ("v.visual_2d.npy", GOOD)], "is not a single line of text"),
    "no duration": ([("v.json", record(duration_s=None)), ("v.visual_2d.npy", GOOD)], "duration_s is not a number"),
    "duration": ([("v.json", record(duration_s=10**400)), ("v.visual_2d.npy", GOOD)], "duration_s is not a number"),
    "NaN": ([("v.json", record(duration_s=float("nan"))), ("v.visual_2d.npy", GOOD)], "its duration is nan s"),
    "captions": ([("v.json", record(captions=[1])), ("v.visual_2d.npy", GOOD)], "is not lists start, end and text"),
    "caption": (
        [("v.json", record(captions={"start": [0], "end": [1, 2], "text": ["a"]})), ("v.visual_2d.npy", GOOD)],
        "its captions is not as many starts and ends as texts (1)",
    ),
    "times": (
        [("v.json", record(captions={"start": ["x"], "end": [1], "text": ["a"]})), ("v.visual_2d.npy", GOOD)],
        "its caption times is not numbers",
    ),
    "rates": ([("v.json", record(rates_hz=[1])), ("v.visual_2d.npy", GOOD)], "rates_hz is not numbers by stream"),
    "no rate": ([("v.json", record(rates_hz={})), ("v.visual_2d.npy", GOOD)], "rate of visual_2d is not a number"),
    "lacks a stream": ([("v.json", record())], "lacks visual_2d"),
    "object": (
        [("v.json", record()), ("v.visual_2d.npy", npy(np.array([{}], object), allow_pickle=True))],
        "refused: holds an array of type |O",
    ),
    "text": ([("v.json", record()), ("v.visual_2d.npy", npy(["a"]))], "where an array of numbers is expected"),
    "flat": ([("v.json", record()), ("v.visual_2d.npy", npy([1.0]))], "has shape (1,), expected (rows, width)"),
    "not finite": ([("v.json", record()), ("v.visual_2d.npy", npy([[np.inf, 1, 1]]))], "contains NaN or infinity"),
    "no array": ([("v.json", record()), ("v.visual_2d.npy", b"hello")], "does not begin with the header of .npy"),
    "huge array": (
        [("v.json", record()), ("v.visual_2d.npy", GOOD.replace(b"(2, 3), ", b"(9999999999, 3), ")[:200])],
        "does not fit in its",
    ),
    "long header": (
        [("v.json", record()), ("v.visual_2d.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\x7f")],
        "its header does not describe an array",
    ),
    "stream's name": (
        [("v.json", record(rates_hz={"word_x": 1})), ("v.word_x.npy", GOOD)],
        "is not a valid stream name",
    ),
}


@pytest.mark.parametrize("case", HARMFUL)
def test_a_harmful_sample_is_listed_and_the_others_arrive(case: str, tmp_path: Path) -> None:
    files, expected = HARMFUL[case]
    good = [("good.json", record(id="good")), ("good.visual_2d.npy", GOOD)]
    tar(tmp_path / "x" / "a.tar", *files, *good)
    summary = import_webdataset(tmp_path / "x", tmp_path / "store")
    assert (summary.num_added, summary.num_skipped) == (1, 1)
    (entry,) = read_ledger(tmp_path / "store")
    assert expected in entry["reason"] and "\n" not in entry["reason"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store", "x"]


def test_a_truncated_shard_returns_the_samples_before_the_cut(exported: Callable[[str], Path]) -> None:
    root = exported("webdataset")
    shard = root / "train-000000.tar"
    whole = shard.read_bytes()
    sizes = sorted({0, 1, 511, 512, 513, 1024, *range(2000, len(whole) - 10240, len(whole) // 12), len(whole) - 10240})
    counts = []
    for size in sizes:
        shard.write_bytes(whole[:size])
        summary, reasons = imported("webdataset", root, root.parent / f"cut{size}")
        assert str(shard) in reasons and 3 <= summary.num_added < 7 and summary.num_skipped >= 1
        counts.append(summary.num_added)
    assert counts == sorted(counts) and counts[-1] > counts[0]
    shard.unlink()
    gone = import_webdataset(root, root.parent / "gone")
    assert (gone.num_added, gone.num_skipped) == (3, 1)
    assert "cannot be read (No such file or directory)" in read_ledger(root.parent / "gone")[0]["reason"]


def test_a_shard_with_lost_samples_is_reported(exported: Callable[[str], Path]) -> None:
    root = exported("webdataset")
    tar(root / "train-000000.tar", ("v.json", record()), ("v.visual_2d.npy", GOOD))
    summary = import_webdataset(root, root.parent / "back")
    assert (summary.num_added, summary.num_skipped) == (4, 1)
    assert "has 1 of 4 items; copy or export it again" in read_ledger(root.parent / "back")[0]["reason"]


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


HEADERS = {
    "huge file": header("v.json", 1 << 50),
    "negative": header("v.json", -(1 << 40)),
    "huge pax header": header("x", 5 << 30, b"x") + b"0" * 4096,
    "negative pax header": header("x", -512, b"x"),
    "huge long name": header("x", 1 << 40, b"L"),
    "pax without end": header("x", 20, b"x") + b"99999999 path=abc\n".ljust(512, b"\0"),
    "pax size": header("x", 30, b"x") + b"28 size=99999999999999999999".ljust(512, b"\0") + header("v.json", 1),
    "pax on pax": header("x", 11, b"x") * 1 + (b"11 path=ab\n".ljust(512, b"\0") + header("x", 11, b"x")) * 3000,
    "link": header("v.json", 0, b"2"),
    "device": header("v.json", 0, b"3"),
    "sparse": header("v.json", 10, b"S"),
    "end of a tar": b"hello " * 500,
    "checksum": header("v.json", 3).replace(b"v.json", b"w.json"),
}


@pytest.mark.parametrize("case", HEADERS)
@pytest.mark.parametrize("first", [True, False])
def test_headers_that_lie(case: str, first: bool, tmp_path: Path) -> None:
    good = tar(tmp_path / "good.tar", ("good.json", record(id="good")), ("good.visual_2d.npy", GOOD)).read_bytes()
    body = good.rstrip(b"\0")
    body += bytes(-len(body) % 512)
    shard = tmp_path / "x" / "a.tar"
    shard.parent.mkdir()
    shard.write_bytes(HEADERS[case] + b"\0" * 512 if first else body + HEADERS[case] + b"junk" * 128)
    tar(tmp_path / "x" / "b.tar", ("v.json", record(id="other")), ("v.visual_2d.npy", GOOD))
    tracemalloc.start()
    try:
        summary = import_webdataset(tmp_path / "x", tmp_path / "store")
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()
    assert summary.num_skipped >= 1 and summary.num_added >= 1
    assert any(f"{shard}: is broken or truncated (" in entry["reason"] for entry in read_ledger(tmp_path / "store"))


def test_shards_that_are_not_there_or_packed(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert refused("webdataset", tmp_path / "x").endswith(
        "x: contains no shard (*.tar); pass the folder of the shards with --root"
    )
    (tmp_path / "x" / "a.tar.gz").write_bytes(b"")
    assert "no shard (*.tar); unpack *.tar.gz first" in refused("webdataset", tmp_path / "x")
    (tmp_path / "x" / "a.tar").write_bytes(b"")
    assert "nothing could be imported, because all 1 entries were skipped" in refused("webdataset", tmp_path / "x")


# ---- the other layouts


def harm_npy(root: Path) -> Iterator[tuple[str, str]]:
    """Damage the export step by step; return the item and the reason why it is skipped."""
    (root / "visual_2d" / "howto100m" / "%2E.npy").unlink()
    yield "howto100m/.", "visual_2d/howto100m/%2E.npy: does not exist"
    np.save(root / "audio" / "howto100m" / "%2E..npy", np.array([{}], object), allow_pickle=True)
    yield "howto100m/..", "refused: holds an array of type |O"
    (root / "captions" / "cooking" / "%2E.%2Fx.json").write_text("{")
    yield "cooking/../x", "is not JSON"
    index = (root / "index.csv").read_text()
    (root / "index.csv").write_text(index.replace("cooking/a%20b.npy", "../../a%20b.npy"))
    yield "cooking/a b", "refers to the file '../../a%20b.npy', which is not in this folder"


def test_npy_damaged_items_are_listed(exported: Callable[[str], Path]) -> None:
    root = exported("npy")
    for number, (name, reason) in enumerate(harm_npy(root), 1):
        summary, reasons = imported("npy", root, root.parent / f"back{number}")
        assert summary.num_skipped == number and any(
            line.startswith(f"{name} | ") and reason in line for line in reasons.splitlines()
        ), reasons


def test_npy_index(exported: Callable[[str], Path]) -> None:
    root = exported("npy")
    index = root / "index.csv"
    whole = index.read_bytes()
    index.write_bytes(b"\r\n".join(whole.split(b"\r\n")[:4]) + b"\r\n")
    summary = import_npy(root, root.parent / "cut")
    assert (summary.num_added, summary.num_skipped) == (3, 1)
    assert "index.csv: has 3 of 7 items; copy or export it again" in read_ledger(root.parent / "cut")[0]["reason"]
    for data, expected in (
        (b"", "has no column video_id, path, duration_s"),
        (b"video_id,path,duration_s\r\n", "lists no item"),
        (b"\xff\xfe", "cannot be read"),
        (b'video_id,path,duration_s\r\n"a', "cannot be read (unexpected end of data)"),
        (b"video_id,path,duration_s\r\na,b\r\n", "has more or fewer cells than columns"),
        (b"video_id,path,duration_s\r\na,b,soon\r\n", "its duration_s 'soon' is not a number"),
        (b"video_id,path,duration_s\r\na,/etc/passwd,1\r\n", "which is not in this folder"),
        (b"video_id,path,duration_s,x_rate_hz\r\na,\0b,1,1\r\n", "which is not in this folder"),
        (b"video_id,path,duration_s\r\na," + b"b" * 200_000 + b",1\r\n", "field larger than field limit"),
    ):
        index.write_bytes(data)
        assert expected in refused("npy", root)
    index.unlink()
    assert "index.csv: cannot be read" in refused("npy", root)


def test_howto100m_damaged_items_are_listed(exported: Callable[[str], Path]) -> None:
    root = exported("howto100m")
    index = root / "trichord.jsonl"
    bomb = root / "howto100m" / "video__" / "howto100m+%2E" / "howto100m+%2E_2d.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("features.npy", "w") as member:
        member.write(npy(np.zeros((1, 3), np.float32))[:128].replace(b"(1, 3), ", b"(90000000, 3), ")[:128])
        for _ in range(300):
            member.write(bytes(1 << 20))
    lines = index.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"howto100m/video__/howto100m+%2E./howto100m+%2E._2d.npz"', '"../../secret_2d.npz"')
    lines[3] = "{\n"
    lines[4] = lines[4].replace('"dtypes": {', '"dtypes": {"x": "object"}, "files": {"x": "trichord.json"}, "y": {')
    index.write_text("".join(lines)[:-30])  # the last line is cut
    tracemalloc.start()
    try:
        summary, reasons = imported("howto100m", root, root.parent / "back")
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()
    assert (summary.num_added, summary.num_skipped) == (2, 5)
    for expected in (
        "howto100m/. | ", "_2d.npz: refused: features.npy unpacks from",
        "refers to the file '../../secret_2d.npz', which is not in this folder", "trichord.jsonl, line 4: is not JSON",
        "trichord.json: is broken", "trichord.jsonl, line 7: is truncated or too long; copy or export it again",
    ):  # fmt: skip
        assert expected in reasons, expected
    index.write_text("".join(lines[:2]))
    summary = IMPORTERS["howto100m"](root, root.parent / "short")
    assert "has 2 of 7 lines; copy or export it again" in read_ledger(root.parent / "short")[-1]["reason"]
    index.unlink()
    assert "trichord.jsonl: cannot be read" in refused("howto100m", root)


def test_youcook2_damaged_items_are_listed(exported: Callable[[str], Path]) -> None:
    from release_helpers import write
    from trichord.files.pickles import load_pickle

    root = exported("youcook2")
    path = root / "youcook_train_audio.pkl"
    whole = load_pickle(path)
    whole[0].pop("trichord")
    whole[1]["trichord"]["rates_hz"] = 5
    whole[2]["2d_full"] = "text"
    whole[3]["trichord"].pop("id")
    write(path, whole)
    summary, reasons = imported("youcook2", root, root.parent / "back")
    assert (summary.num_added, summary.num_skipped) == (3, 4)
    for expected in (
        "has no key 'trichord'",
        "has no rates_hz or no streams",
        "contains a str",
        "has no id or no coll",
    ):
        assert expected in reasons
    write(path, whole[:1])
    import_again = IMPORTERS["youcook2"](root, root.parent / "few")
    assert import_again.num_skipped == 2 and "has 1 of 4 clips" in read_ledger(root.parent / "few")[-1]["reason"]
    path.write_bytes(path.read_bytes()[:300])
    assert IMPORTERS["youcook2"](root, root.parent / "cut").num_added == 3
    assert "is damaged or not a pickle" in read_ledger(root.parent / "cut")[0]["reason"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_marks_that_cannot_be(layout: str, exported: Callable[[str], Path]) -> None:
    root = exported(layout)
    mark = json.loads((root / "trichord.json").read_text())
    for more, expected in (
        ({"complete": False}, "contains an incomplete export"),
        (
            {"version": 99},
            "was exported in version 99, but this version of trichord reads 1; install the version of trichord that wrote it",
        ),
        ({"files": [1]}, "lacks files or words"),
        ({"words": {"dim": "x"}}, "does not describe its words; pass word vectors with --words"),
        ({"words": mark["words"] | {"dim": 1 << 40}}, "does not describe its words"),
    ):
        (root / "trichord.json").write_text(json.dumps(mark | more))
        assert expected in refused(layout, root)
    (root / "trichord.json").write_text(json.dumps(mark)[:50])  # not read as a plain release, which would lose things
    assert f"{root / 'trichord.json'}: is not JSON" in refused(layout, root)
    (root / "trichord.json").write_text(json.dumps(mark))
    (root / "word2vec.bin").unlink()
    assert "word2vec.bin: cannot be read (No such file or directory)" in refused(layout, root)
    if layout in ("youcook2", "webdataset"):
        (root / "trichord.json").write_text(json.dumps(mark | {"files": {"../x": 1}}))
        assert "refers to the file '../x', which is not in this folder" in refused(layout, root)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flipped_bytes_never_end_in_anything_but_a_line(layout: str, exported: Callable[[str], Path]) -> None:
    """Imported items may differ, since the layout has no checksums, but nothing crashes."""
    root = exported(layout)
    draw = random.Random(7)
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".txt")
    for number in range(25):
        path = draw.choice(files)
        whole = path.read_bytes()
        data = bytearray(whole)
        for _ in range(draw.choice([1, 3, 20])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data)
        try:
            IMPORTERS[layout](root, root.parent / f"flipped{number}")
        except TrichordError as error:
            assert "\n" not in str(error)
        path.write_bytes(whole)
