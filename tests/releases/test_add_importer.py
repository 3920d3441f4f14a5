"""The importer of docs/add-an-importer.md imports the release that the page describes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paths import ROOT
from trichord.errors import TrichordError
from trichord.store import Store

PAGE = ROOT / "docs" / "add-an-importer.md"


@pytest.fixture
def import_plain_clips() -> Callable[..., Any]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "plain_clips"}
    exec(compile(code, str(PAGE), "exec"), names)
    importer: Callable[..., Any] = names["import_plain_clips"]
    return importer


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Three clips, one of which is damaged."""
    root = tmp_path / "release"
    root.mkdir()
    (root / "clips.csv").write_text("id,split,caption\na,train,stir the soup\nb,test,cut a tomato\nc,train,peel it\n")
    for name, num_rows in (("a", 4), ("b", 2)):
        np.save(root / f"{name}.npy", np.random.default_rng(num_rows).random((num_rows, 5), np.float32))
    (root / "c.npy").write_bytes(b"not an array")
    return root


def test_clips_are_stored_once_and_a_damaged_one_is_skipped(
    import_plain_clips: Callable[..., Any], release: Path, tmp_path: Path
) -> None:
    summary = import_plain_clips(release, tmp_path / "store")
    assert (summary.num_added, summary.num_skipped) == (2, 1)
    store = Store(tmp_path / "store")
    rows = [store.rows("visual_2d", i) for i in range(len(store))]
    assert np.array_equal(rows[0], np.load(release / "a.npy")) and np.array_equal(rows[1], np.load(release / "b.npy"))
    assert sorted(store.collections()) == [("plain-clips", "test"), ("plain-clips", "train")]
    assert "c.npy" in (tmp_path / "store" / "skipped.jsonl").read_text()
    again = import_plain_clips(release, tmp_path / "store")
    assert (again.num_added, again.num_present) == (0, 2)


def test_a_release_without_a_list_is_an_error(
    import_plain_clips: Callable[..., Any], release: Path, tmp_path: Path
) -> None:
    (release / "clips.csv").unlink()
    with pytest.raises(TrichordError, match=r"clips\.csv"):
        import_plain_clips(release, tmp_path / "store")
