"""Items that a later part supersedes: readers use the newest under the number of the first; `verify` and `info` handle both."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from store_helpers import build, captions, item, word_vectors
from trichord.errors import TrichordError
from trichord.releases import IMPORTERS, export_store
from trichord.store import Item, Store, StoreWriter
from trichord.store.inspect import store_info, verify
from trichord.store.manifest import part_paths, read_manifest, write_manifest


def renewed(store: Path, *items: Item) -> Store:
    with StoreWriter(store, word_vectors()) as writer:
        for one in items:
            writer.add(one, supersede=True)
    return Store(store)


def contents_of(store: Store) -> list[tuple[str, str, list[str], list[str]]]:
    def texts(i: int) -> list[str]:
        return [store.caption_text(i, c) for c in range(store.num_captions(i))]

    def words(i: int) -> list[str]:
        return [store.words[w] for c in range(store.num_captions(i)) for w in store.word_ids(i, c)]

    return [(store.video_id(i), store.split(i), texts(i), words(i)) for i in range(len(store))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return build(tmp_path / "s", [item(f"v{i}", split="test" if i == 1 else "train") for i in range(5)])


def test_readers_take_the_newest_under_the_number_of_the_first(path: Path) -> None:
    before = Store(path)
    old = contents_of(before)
    fresh = [item(f"v{i}", split="test" if i == 1 else "train", texts=("stir", "now")) for i in (3, 1)]
    store = renewed(path, *fresh)
    assert [name for name, *_ in contents_of(store)] == [f"v{i}" for i in range(5)]
    for i in range(5):
        name, split, texts, words = contents_of(store)[i]
        assert (name, split) == old[i][:2]
        assert texts == words == ["stir", "now"] if i in (1, 3) else (texts, words) == old[i][2:]
        assert np.array_equal(store.rows("visual_2d", i), before.rows("visual_2d", i))
    assert store.fingerprint != before.fingerprint and store.num_superseded == 2
    assert store.collections() == before.collections() and store.select("howto", "test").tolist() == [1]
    assert store.numbered("howto", ["v3", "absent", "v1"]) == {"v3": 3, "v1": 1}
    assert verify(path) == []
    info = store_info(path)
    assert (len(info.store), info.num_captions, info.store.num_superseded) == (5, 7, 2)
    assert "superseded   2 earlier versions of items" in str(info)


def test_an_item_can_be_superseded_again_and_within_one_session(path: Path) -> None:
    renewed(path, item("v0", texts=("stir",)), item("v0", texts=("now",)), item("new", texts=("salt",)))
    store = renewed(path, item("v4", texts=("add",)), item("new", texts=("it's",)))
    assert [texts for _, _, texts, _ in contents_of(store)][::5] == [["now"], ["it's"]]
    assert len(store) == 6 and store.num_superseded == 4 and verify(path) == []
    assert [read_manifest(part).info.supersedes for part in part_paths(path)] == [0, 0, 0, 1, 1, 2]


def test_a_video_keeps_its_split_and_is_not_superseded_unasked(path: Path) -> None:
    with StoreWriter(path, word_vectors()) as writer:
        with pytest.raises(
            TrichordError, match="howto/v1: is in split 'test' of .* and cannot move to 'train'; choose"
        ):
            writer.add(item("v1"), supersede=True)
        with pytest.raises(TrichordError, match="howto/v1: is in .* already; skip it"):
            writer.add(item("v1", split="test"))
    assert len(part_paths(path)) == 3


def test_a_pickled_store_ignores_later_versions(path: Path) -> None:
    store = Store(path)
    old = contents_of(store)
    renewed(path, item("v0", texts=("now",)))
    assert contents_of(pickle.loads(pickle.dumps(store))) == old != contents_of(Store(path))


def test_other_items_and_parts_are_as_they_were(path: Path) -> None:
    first = {part.name: part.read_bytes() for part in (path / "parts").iterdir()}
    renewed(path, item("v0", texts=("now",)))
    assert {name: (path / "parts" / name).read_bytes() for name in first} == first
    newest = part_paths(path)[-1]
    for file in (newest, newest.with_suffix(".safetensors")):
        file.unlink()  # deleting the part that supersedes others undoes the renewal
    assert verify(path) == [] and contents_of(Store(path))[0][2] == ["add the salt"]


def test_a_store_without_renewed_items_has_the_format_that_earlier_versions_read(path: Path, tmp_path: Path) -> None:
    assert all("media" not in read_manifest(part).texts for part in part_paths(path))
    renewed(path, item("v0"))
    formats = [part.read_bytes().count(b'"format": 4') > 0 for part in part_paths(path)]
    assert formats == [False, False, False, True], "an earlier version refuses the new part alone"
    path_with_rules = build(
        tmp_path / "t", [replace(item("a"), media="m", rules="clock 2, captions 2"), item("b"), item("c")]
    )
    store = Store(path_with_rules)
    assert [(store.media(i), store.rules(i)) for i in range(3)] == [("m", "clock 2, captions 2"), ("", ""), ("", "")]


@pytest.mark.parametrize(
    ("num_superseded", "problem"), [(0, "repeats howto/v0, which 00000.parquet contains"), (1, "supersedes 2 items")]
)
def test_verify_finds_duplicates_that_are_not_superseded(path: Path, num_superseded: int, problem: str) -> None:
    renewed(path, item("v0"), item("v2"))
    newest = part_paths(path)[-1]
    manifest = read_manifest(newest)
    columns = {name: column.to_pylist() for name, column in manifest.texts.items()}
    columns |= {name: column.tolist() for name, column in manifest.numbers.items()}
    newest.unlink()
    write_manifest(newest, columns, replace(manifest.info, supersedes=num_superseded))
    assert any(problem in line for line in verify(path))


def test_captions_with_embeddings_are_superseded_with_them(tmp_path: Path) -> None:
    def with_text(*texts: str) -> Item:
        one = item("v", texts=texts)
        rows = np.arange(len(texts) * 2, dtype=np.float32).reshape(-1, 2) + len(texts)
        return replace(
            one, streams=one.streams | {"text": rows}, rates_hz=one.rates_hz | {"text": -1.0}, captions=captions(*texts)
        )

    path = build(tmp_path / "s", [with_text("add"), item("w")])
    store = renewed(path, with_text("add", "the", "salt"))
    assert store.num_rows("text", 0) == store.num_captions(0) == 3 and store.num_rows("text", 1) == 0
    assert store.rows("text", 0).tolist() == [[3, 4], [5, 6], [7, 8]]


@pytest.mark.parametrize("layout", ["howto100m", "youcook2", "webdataset", "npy"])
def test_an_export_holds_the_newest_version_and_its_sources(path: Path, tmp_path: Path, layout: str) -> None:
    renewed(path, replace(item("v0", texts=("stir",)), source="c:f", media="m", rules="clock 2, captions 2"))
    export_store(path, tmp_path / "out", layout=layout)  # type: ignore[arg-type]
    IMPORTERS[layout](tmp_path / "out", tmp_path / "back")
    store = Store(tmp_path / "back")
    i = store.numbered("howto", ["v0"])["v0"]
    assert len(store) == 5 and store.caption_text(i, 0) == "stir" and store.num_superseded == 0
    assert (store.source(i), store.media(i), store.rules(i)) == ("c:f", "m", "clock 2, captions 2")
