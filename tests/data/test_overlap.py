"""Videos that are both scored and trained on under another name: the run is refused, the store is not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from store_helpers import build, item
from study_helpers import quick
from tiny import tiny_item, word_vectors, write_tiny_store
from trichord.errors import TrichordError
from trichord.store import Item, Store, StoreWriter
from trichord.store.inspect import store_info
from trichord.store.overlap import check_overlap, same_content
from trichord.study import factories
from trichord.study.evaluate import evaluate
from trichord.study.run import run_study, train_order
from trichord.tasks.benchmarks import find_benchmark


def added(store: Path, *items: Item) -> Store:
    with StoreWriter(store, word_vectors()) as writer:
        for one in items:
            writer.add(one)
    return Store(store)


def pairs(*items: Item, path: Path) -> dict[str, str]:
    """Return items of split test with the items of split train that have their content."""
    store = Store(build(path, items))
    originals = same_content(store, store.select(split="train"), store.select(split="test"))
    return {store.video_id(i): store.video_id(k) for i, k in originals.items()}


@pytest.fixture
def leaking(tiny_store: Path, tmp_path: Path) -> Path:
    """The tiny store with a copy of its first training video among the held-out videos of another collection."""
    store = tmp_path / "leaking"
    shutil.copytree(tiny_store, store)
    added(store, replace(tiny_item(0, "test"), video_id="copy", collection="other"))
    return store


def test_a_study_that_scores_its_training_videos_is_refused(leaking: Path, tmp_path: Path) -> None:
    message = "benchmark other evaluates on 1 videos that are trained on under another name .'copy' of other/test is 'video000'"
    with pytest.raises(TrichordError, match=message):
        run_study(leaking, tmp_path / "out", ["vt"], [0], quick())
    assert not (tmp_path / "out").exists()
    assert "overlap      1 video of other splits with the content of a training video" in str(store_info(leaking))
    store = Store(leaking)
    factories.check_overlaps(quick(), store, [find_benchmark(store, "tiny"), find_benchmark(store, "tiny/train")])


def test_an_evaluation_on_the_store_of_training_is_refused_too(leaking: Path, tmp_path: Path) -> None:
    train_order(leaking, tmp_path / "run", "vt", 0, quick())
    with pytest.raises(TrichordError, match="evaluates on 1 videos that are trained on under another name"):
        evaluate(tmp_path / "run", leaking, ["other"])
    evaluate(tmp_path / "run", leaking, ["tiny"])
    elsewhere = write_tiny_store(tmp_path / "elsewhere", num_train=1)
    added(elsewhere, replace(tiny_item(0, "test"), video_id="copy", collection="other"))
    assert evaluate(tmp_path / "run", elsewhere, ["other"]).benchmarks, (
        "what it was trained on is not known to be there"
    )


def test_extracted_videos_are_known_by_their_files_whatever_their_captions(tmp_path: Path) -> None:
    def extracted_item(name: str, split: str, media: str, source: str = "") -> Item:
        return replace(item(name, split=split), media=media, source=source)

    originals = pairs(
        extracted_item("a", "train", "m1", "c1:f"),
        extracted_item("b", "test", "m1", "c2:f"),
        extracted_item("c", "test", "m2", "c3:f"),
        extracted_item("d", "train", "", "c4:f"),
        extracted_item("e", "test", "m3", "c4:g"),
        extracted_item("f", "val", "m1"),
        path=tmp_path / "s",
    )
    assert originals == {"b": "a", "e": "d"}


def test_imported_videos_are_known_by_their_features(tmp_path: Path) -> None:
    def imported_item(name: str, split: str, seed: int, **change: object) -> Item:
        one = item("x" * seed, split=split)
        rows = np.random.RandomState(seed).rand(6, 4).astype(np.float16)
        return replace(one, video_id=name, streams=one.streams | {"visual_2d": rows}, **change)  # type: ignore[arg-type]

    wide = imported_item("wide", "test", 1)
    wide.streams["visual_2d"] = wide.streams["visual_2d"].astype(np.float32)
    begins_alike = imported_item("begins alike", "test", 2)
    begins_alike.streams["visual_2d"][-1] += np.float16(1)
    shorter = imported_item("shorter", "test", 3)
    shorter.streams["visual_2d"] = shorter.streams["visual_2d"][:5]
    alone = imported_item("sound missing", "test", 4)
    del alone.streams["spectrogram"]
    other_sound = imported_item("other sound", "test", 5)
    other_sound.streams["spectrogram"] = other_sound.streams["spectrogram"] + np.float16(1)
    silent_one = replace(item("silent", split="test"))
    silent_one.streams["visual_2d"] += 0.25
    trained = [imported_item(f"t{seed}", "train", seed) for seed in range(1, 6)]
    of_silence = item("silent too")
    of_silence.streams["spectrogram"] = silent_one.streams["spectrogram"]
    tests = [wide, begins_alike, shorter, alone, other_sound, silent_one]
    originals = pairs(*trained, of_silence, *tests, path=tmp_path / "s")
    assert originals == {"wide": "t1", "sound missing": "t4"}


def test_no_more_than_three_pairs_are_named(tmp_path: Path) -> None:
    items = [replace(item(f"{split}{i}", split=split), media=f"m{i}") for split in ("train", "test") for i in range(5)]
    store = Store(build(tmp_path / "s", items))
    with pytest.raises(TrichordError) as caught:
        check_overlap(store, store.select(split="train"), store.select(split="test"), "it")
    assert str(caught.value).count(" is ") == 3 and "and 2 more); leave that benchmark out" in str(caught.value)
