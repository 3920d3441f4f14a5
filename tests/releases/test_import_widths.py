"""Features whose width differs from that of most items, and duplicate items, in any order."""

from __future__ import annotations

import csv
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export_helpers import write_store
from release_helpers import WORDS, reasons, refused, write
from trichord.captions import Captions
from trichord.errors import TrichordError
from trichord.releases import IMPORTERS, export_store, import_npy, import_webdataset
from trichord.releases.common import _spread
from trichord.store import Item, Store


def clip(name: str, width: int, more: dict[str, Any]) -> dict[str, Any]:
    rows = np.random.default_rng(0).random((3, width)).astype(np.float32)
    return {"id": name, "2d": rows, "3d": rows[:, :4], "caption": "add salt", **more}


def write_pickles(name: str, root: Path, widths: list[int]) -> None:
    more = [
        {"video": f"v{i}.avi", "class": "jump", "training": False} if name == "actions" else {}
        for i, _ in enumerate(widths)
    ]
    file = {"youcook2": "youcook_val.pkl", "msrvtt": "msrvtt_jsfusion_test.pkl", "lsmdc": "lsmdc_test.pkl"}.get(
        name, "ucf101.pkl"
    )
    write(root / file, [clip(f"v{i}", width, more[i]) for i, width in enumerate(widths)])


@pytest.mark.parametrize("name", ["youcook2", "msrvtt", "lsmdc", "actions"])
@pytest.mark.parametrize("widths", [[8, *[16] * 9], [8, 8, 8, *[16] * 4], [16, 8, 16]])
def test_the_first_clip_does_not_decide_the_width(name: str, widths: list[int], tmp_path: Path) -> None:
    write_pickles(name, tmp_path, widths)
    summary = IMPORTERS[name](tmp_path, tmp_path / "store", WORDS)
    assert (summary.num_added, summary.num_skipped) == (widths.count(16), widths.count(8))
    assert Store(tmp_path / "store").streams["visual_2d"].dim == 16
    assert all(
        "its visual_2d has width 8, but the others have width 16" in r for r in reasons(tmp_path / "store").values()
    )


def test_all_clips_of_a_pickle_count(tmp_path: Path) -> None:
    write_pickles("youcook2", tmp_path, [8] * 40 + [16] * 60)
    assert IMPORTERS["youcook2"](tmp_path, tmp_path / "store", WORDS).num_added == 60


def test_the_store_that_is_there_decides_first(tmp_path: Path) -> None:
    write_pickles("youcook2", tmp_path / "a", [8])
    write_pickles("lsmdc", tmp_path / "b", [16, 16, 8])
    IMPORTERS["youcook2"](tmp_path / "a", tmp_path / "store", WORDS)
    summary = IMPORTERS["lsmdc"](tmp_path / "b", tmp_path / "store", WORDS)
    assert (summary.num_added, summary.num_skipped) == (1, 2)


def items(num: int, text: str = "stir") -> list[Item]:
    rng = np.random.default_rng(0)
    spans = Captions(np.zeros(1), np.ones(1), (text,))
    return [
        Item(
            f"v{i}",
            "mine",
            "test",
            1.0,
            {"visual_2d": rng.random((2, 6)).astype(np.float32)},
            {"visual_2d": 2.0},
            spans,
        )
        for i in range(num)
    ]


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    def export(layout: str, name: str = "export", **more: Any) -> Path:
        write_store(tmp_path / f"{name}-store", items(5, **more))
        export_store(tmp_path / f"{name}-store", tmp_path / name, layout=layout)  # type: ignore[arg-type]
        return tmp_path / name

    return export


def test_npy_by_the_majority(exported: Callable[..., Path], tmp_path: Path) -> None:
    root = exported("npy")
    np.save(next(root.rglob("v0.npy")), np.ones((2, 9), np.float32))
    summary = import_npy(root, tmp_path / "back")
    assert (summary.num_added, summary.num_skipped) == (4, 1)
    assert "v0.npy: has width 9, but the others have width 6" in reasons(tmp_path / "back")["mine/v0"]


def test_webdataset_by_the_majority(exported: Callable[..., Path], tmp_path: Path) -> None:
    root, odd = exported("webdataset"), items(1)
    odd[0].streams["visual_2d"] = np.ones((2, 9), np.float32)
    write_store(tmp_path / "odd-store", odd)
    export_store(tmp_path / "odd-store", tmp_path / "odd", layout="webdataset")
    both = tmp_path / "both"
    both.mkdir()
    shutil.copy(next((tmp_path / "odd").glob("*.tar")), both / "0.tar")
    shutil.copy(next(root.glob("*.tar")), both / "1.tar")
    text = refused(import_webdataset, both, tmp_path / "back")  # v0 is in both shards
    assert "has different content for 'v0' than" in text
    write_store(
        tmp_path / "other-store", [Item("w", "mine", "test", 1.0, odd[0].streams, {"visual_2d": 2.0}, odd[0].captions)]
    )
    export_store(tmp_path / "other-store", tmp_path / "other", layout="webdataset")
    shutil.copy(next((tmp_path / "other").glob("*.tar")), both / "0.tar")
    summary = import_webdataset(both, tmp_path / "back", WORDS)
    assert (summary.num_added, summary.num_skipped) == (5, 1)


def test_rows_of_an_index_that_name_a_clip_twice(exported: Callable[..., Path], tmp_path: Path) -> None:
    root = exported("npy")
    (root / "trichord.json").unlink()
    index = root / "index.csv"
    with index.open(newline="") as file:
        rows = list(csv.reader(file))
    with index.open("w", newline="") as file:
        csv.writer(file).writerows([*rows, rows[1]])
    assert import_npy(root, tmp_path / "same", WORDS).num_added == 5
    again = list(rows[2])
    again[rows[0].index("video_id")] = "v0"
    with index.open("w", newline="") as file:
        csv.writer(file).writerows([*rows, again])
    with pytest.raises(
        TrichordError, match=r"index.csv, item 6: has different content for 'v0' than .*index.csv, item 1; keep one"
    ):
        import_npy(root, tmp_path / "back", WORDS)


@pytest.mark.parametrize(
    ("num", "most", "first"), [(0, 10, 3), (1, 10, 3), (7, 10, 3), (100, 10, 3), (100, 1000, 33), (5000, 1000, 33)]
)
def test_probes_are_spread_over_the_list(num: int, most: int, first: int) -> None:
    probes = _spread(num, most, first)
    assert len(set(probes)) == len(probes) == min(num, most) and all(0 <= at < num for at in probes)
    if num > 3 * first:
        assert max(probes[:first]) > 0.6 * num and np.median(probes[:first]) == pytest.approx(num / 2, rel=0.35)


def test_a_pickle_of_ids_alone_is_still_refused(tmp_path: Path) -> None:
    (tmp_path / "youcook_val.pkl").write_bytes(pickle.dumps([{"id": "a", "2d": "x", "caption": "b"}]))
    assert "nothing could be imported" in refused(IMPORTERS["youcook2"], tmp_path, tmp_path / "store")
