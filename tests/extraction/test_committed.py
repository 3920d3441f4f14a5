"""The content of a store that is kept between commits equals that of the store read again, whatever other processes do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store_helpers import build, item, word_vectors
from trichord.errors import TrichordError
from trichord.extraction.plan import Known
from trichord.store import Store, StoreWriter
from trichord.store.committed import Committed, new_parts

TEXTS = (("add the salt",), ("stir now",), ("crème",), ())


def committed_content(known: Committed) -> tuple[object, ...]:
    vectors = [vector.tolist() for vector in known.vectors]
    return known.splits, known.dims, known.word_table, known.words, vectors, known.word_ids, known.next_part


def content_read_again(store: Path) -> tuple[object, ...]:
    known = Committed()
    known.renew(store)
    return committed_content(known)


def commit(store: Path, known: Committed | None, number: int) -> None:
    with StoreWriter(store, word_vectors(), committed=known) as writer:
        writer.add(replace(item(f"v{number}", texts=TEXTS[number % 4]), source=f"key {number}"))


@given(steps=st.lists(st.sampled_from(["mine", "mine", "theirs", "refused", "delete", "full disk"]), max_size=6))
@settings(max_examples=20, deadline=None)
def test_the_kept_content_equals_the_content_read_again(
    steps: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store, known = tmp_path_factory.mktemp("store") / "s", Committed()
    commit(store, known, 0)
    for number, step in enumerate(steps, 1):
        if step == "mine":
            commit(store, known, number)
        elif step == "theirs":
            commit(store, None, number)
        elif step == "delete" and len(parts := sorted((store / "parts").glob("*.parquet"))) > 1:
            parts[0].unlink()
        elif step == "refused":  # its words are looked up before the item turns out to be present
            with StoreWriter(store, word_vectors(), committed=known) as writer:
                writer._ids_of("it's")
        elif step == "full disk":
            with pytest.MonkeyPatch.context() as patch, pytest.raises(TrichordError, match="cannot write part"):
                patch.setattr("trichord.store.writer.write_shard", _no_space)
                commit(store, known, number)
        with StoreWriter(store, word_vectors(), committed=known) as writer:
            assert committed_content(known) == content_read_again(store)
            opened = Store(store)
            assert all(writer.contains("howto", opened.video_id(i)) for i in range(len(opened)))
            have = opened.sources("howto")
            assert all(writer.has_source("howto", f"key {n}") == (f"key {n}" in have) for n in range(9))
            assert not writer.has_source("other", "key 0")
    opened, fresh = Store(store), store.parent / "fresh"
    if "delete" not in steps:  # writers without the kept content write the same store
        for i in range(len(opened)):
            commit(fresh, None, int(opened.video_id(i)[1:]))
        assert Store(fresh).fingerprint == opened.fingerprint


def _no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_new_parts_are_reported_once(tmp_path: Path) -> None:
    store = build(tmp_path / "s", [item(f"v{i}") for i in range(4)])
    parts, gone = new_parts(store, [])
    assert [part.path.name for part in parts] == ["00000.parquet", "00001.parquet"] and not gone
    assert new_parts(store, ["00000.parquet", "00001.parquet"]) == ([], False)
    parts, gone = new_parts(store, ["00000.parquet"])
    assert [part.path.name for part in parts] == ["00001.parquet"] and not gone
    (store / "parts" / "00000.parquet").unlink()
    parts, gone = new_parts(store, ["00000.parquet", "00001.parquet"])
    assert [part.path.name for part in parts] == ["00001.parquet"] and gone


def test_the_plan_sees_commits_and_deletions_of_others(tmp_path: Path) -> None:
    store = tmp_path / "s"
    commit(store, None, 0)
    known = Known(store, "howto")
    known.renew()
    commit(store, None, 1)
    known.renew()
    assert known.ids == {"v0", "v1"}
    assert known.sources == {"key 0": "v0", "key 1": "v1"} and known.split_of == {"v0": "train", "v1": "train"}
    (store / "parts" / "00000.parquet").unlink()
    known.renew()
    assert known.ids == {"v1"} and known.sources == {"key 1": "v1"} and known.split_of == {"v1": "train"}
    other = Known(store, "none")
    other.renew()
    assert not other.ids
