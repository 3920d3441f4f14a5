"""UCF101 and HMDB51: import into a store, and the class of each clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from release_helpers import ODD, WORDS, item, refused, write
from trichord.captions import class_text
from trichord.releases import IMPORTERS, import_actions
from trichord.store import Store
from trichord.tasks.labels.tables import read_labels


def clip(video: str, kind: object, training: object = True, **more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(len(video))
    rows = {"2d": rng.random((4, 6)).astype(np.float32), "3d": rng.random((6, 4)).astype(np.float32)}
    pooled = {f"{name}_pooled": array.mean(0) for name, array in rows.items()}
    sound = {"audio": -80 * rng.random((40, 250)).astype(np.float32), "has_audio": True}
    return {"video": video, "class": kind, "training": training, **rows, **pooled, **sound, **more}


SILENT = {"audio": np.zeros((40, 1), np.float32), "has_audio": False}


def test_classes_splits_and_silence(tmp_path: Path) -> None:
    entries = [
        clip("UCF/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "ApplyEyeMakeup"),
        clip("v_ApplyEyeMakeup_g01_c02", "ApplyEyeMakeup", np.bool_(False), **SILENT),
        clip("v_YoYo_g01_c01.avi", "YoYo", 0, **{"audio": np.zeros((40, 1)), "has_audio": None}),
    ]
    write(tmp_path / "data" / "ucf101.pkl", entries)
    summary = import_actions(tmp_path, tmp_path / "store", WORDS)
    assert (summary.num_added, summary.streams["spectrogram"]) == (3, 1)
    assert "features are means over time" in str(summary)
    store = Store(tmp_path / "store")
    assert store.collections() == {("ucf101", "train"): 1, ("ucf101", "test"): 2}
    index = item(store, "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01")
    assert store.caption_text(index, 0) == "apply eye makeup" and store.num_rows("spectrogram", index) == 250
    np.testing.assert_array_equal(store.rows("visual_2d", index)[0], entries[0]["2d"].mean(0))
    full = import_actions(tmp_path, tmp_path / "full", WORDS, full_resolution=True)
    assert full.num_added == 3 and Store(tmp_path / "full").num_rows("visual_3d", 0) == 6


def test_a_clip_of_two_folds_is_there_once(tmp_path: Path) -> None:
    write(tmp_path / "hmdb51_1.pkl", [clip("a.avi", "brush_hair"), clip("b.avi", "brush_hair", False)])
    write(tmp_path / "hmdb51_2.pkl", [clip("a.avi", "brush_hair", False), clip("a.avi", "cartwheel", False)])
    summary = import_actions(tmp_path, tmp_path / "store", WORDS)
    store = Store(tmp_path / "store")
    assert {store.video_id(i): store.split(i) for i in range(3)} == {
        "brush_hair/a": "train", "brush_hair/b": "test", "cartwheel/a": "test"
    }  # fmt: skip
    assert "1 clips are in train in one fold and in test in another" in str(summary)


@pytest.mark.parametrize("key", ["class", "video", "training", "2d_pooled", "audio", "has_audio"])
def test_odd_values_never_end_the_import(key: str, tmp_path: Path) -> None:
    entries = [clip("good", "run")] + [clip(f"odd {n}", "run") | {key: value} for n, value in enumerate(ODD)]
    write(tmp_path / "ucf.pkl", entries)
    summary = import_actions(tmp_path, tmp_path / "store", WORDS)
    assert summary.num_added >= 1 and item(Store(tmp_path / "store"), "run/good") >= 0


def test_a_folder_without_a_release_is_reported(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert "no pickle of actions (*ucf*.pkl, *hmdb*.pkl)" in refused(import_actions, tmp_path, store)
    path = write(tmp_path / "ucf.pkl", [])
    assert refused(import_actions, tmp_path, store) == f"{path}: contains no clips; create it again"
    write(path, [{"id": "a"}])
    assert f"{path}: is not a list of clips with a video each" in refused(import_actions, tmp_path, store)
    write(path, [clip("a", None), clip("", "run")])
    text = refused(import_actions, tmp_path, store)
    assert f"all 2 entries were skipped; the reason for the first: {path}: entry 0 (/a): has no caption" in text
    write(tmp_path / "hmdb.pkl", [clip("a", "run")])
    assert "contains pickles of hmdb51 and ucf101" in refused(import_actions, tmp_path, store)
    assert IMPORTERS["actions"] is import_actions


def test_the_official_lists_name_the_clips_of_the_import(tmp_path: Path) -> None:
    from trichord.evaluation.embedded import Embedded

    write(tmp_path / "data" / "ucf.pkl", [clip("v_YoYo_g01_c01.avi", "YoYo"), clip("v_Run_g02_c01.avi", "Run", False)])
    import_actions(tmp_path, tmp_path / "store", WORDS)
    store = Store(tmp_path / "store")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "trainlist01.txt").write_text("YoYo/v_YoYo_g01_c01.avi 7\n")
    (tmp_path / "lists" / "testlist01.txt").write_text("Run/v_Run_g02_c01.avi\n")
    videos = [store.video_id(i) for i in range(2)]
    embedded = Embedded.of({"video": np.eye(2)}, ids=videos)
    columns = read_labels(tmp_path / "lists").of_clips(embedded)
    classes_and_folds = dict(
        zip(videos, zip(columns["class"].tolist(), columns["fold-1"].tolist(), strict=True), strict=True)
    )
    assert classes_and_folds == {"YoYo/v_YoYo_g01_c01": ("YoYo", "train"), "Run/v_Run_g02_c01": ("Run", "test")}


def test_names_of_classes_as_words() -> None:
    texts = {
        "ApplyEyeMakeup": "apply eye makeup",
        "brush_hair": "brush hair",
        "YoYo": "yo yo",
        "HTMLPage": "html page",
        "Ride-a Bike": "ride a bike",
        "don't stop": "don't stop",
        "UCF101Class": "ucf101 class",
        "ÉcoleÉté": "écoleété",  # split only at ASCII capitals
        "__": "",
    }
    assert {name: class_text(name) for name in texts} == texts
