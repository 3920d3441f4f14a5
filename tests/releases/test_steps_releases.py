"""Minimal releases with annotated steps, in each layout: the resulting store, and refused releases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from release_helpers import WORDS, item, reasons, refused
from steps_helpers import (
    MATRICES,
    STEPS,
    rows,
    write_crosstask,
    write_crosstask_original,
    write_mining,
    write_mining_original,
)
from trichord.errors import TrichordError
from trichord.releases import import_crosstask, import_mining_youtube
from trichord.store import Store
from trichord.store.annotations import (
    NO_STEP,
    StepSpan,
    read_annotations,
    step_items,
    truth_matrix,
    write_annotations,
)
from trichord.store.names import ANNOTATIONS
from trichord.tasks.steps.scores import store_notes
from trichord.tasks.subject import Subject


def steps_of(store: Store, collection: str) -> dict[str, list[str]]:
    items = step_items(store, collection)
    return {task: [store.caption_text(i, c) for c in range(store.num_captions(i))] for task, i in items.items()}


def test_crosstask_as_published(tmp_path: Path) -> None:
    summary = import_crosstask(write_crosstask(tmp_path / "r"), tmp_path / "s", WORDS)
    store = Store(tmp_path / "s")
    assert store.collections() == {("crosstask", "test"): 3, ("crosstask", "steps"): 2}
    assert steps_of(store, "crosstask") == STEPS
    assert (summary.num_added, summary.num_skipped) == (5, 0) and "2 tasks with 5 steps" in str(summary)
    spans = read_annotations(store, "crosstask")
    for (task, video), truth in MATRICES.items():
        assert np.array_equal(truth_matrix(spans[task, video], *truth.shape), truth.astype(bool))
        assert store.duration_s(item(store, video)) == len(truth)
    v1, v2 = item(store, "v1"), item(store, "v2")
    assert np.array_equal(store.rows("visual_2d", v1), rows(6, 10, 6))
    assert np.array_equal(store.rows("visual_3d", v1), rows(5, 15, 5)) and store.rate_hz("visual_3d", v1) == 1.5
    assert np.array_equal(store.rows("spectrogram", v1), -80 * rows(0, 40, 1000).astype(np.float16).T)
    assert np.array_equal(store.rows("visual_2d", v2), rows(16, 8, 6)) and store.num_rows("spectrogram", v2) == 0
    # the captions are the annotated spans, ordered by time
    texts = [store.caption_text(v1, c) for c in range(store.num_captions(v1))]
    assert texts == ["stir the salt", "pour water", "stir the salt"]
    assert store.caption_spans(v1)[0].tolist() == [1, 5, 9]


def test_crosstask_cooking_tasks_only_and_repeated(tmp_path: Path) -> None:
    root = write_crosstask(tmp_path / "r")
    import_crosstask(root, tmp_path / "s", WORDS, cooking=True)
    assert Store(tmp_path / "s").collections() == {("crosstask", "test"): 2, ("crosstask", "steps"): 1}
    again = import_crosstask(root, tmp_path / "s", WORDS)  # the other task is added, and nothing is added twice
    assert (again.num_present, again.num_added) == (3, 2)
    assert len(read_annotations(Store(tmp_path / "s"), "crosstask")) == 3
    (root / "step.json").write_text(json.dumps({**STEPS, "111": ["stir", "add salt"]}))
    assert "has other steps for task '111'" in refused(import_crosstask, root, tmp_path / "s")


def test_crosstask_original(tmp_path: Path) -> None:
    import_crosstask(write_crosstask_original(tmp_path / "r"), tmp_path / "s", WORDS)
    store = Store(tmp_path / "s")
    assert store.collections() == {("crosstask", "test"): 2, ("crosstask", "train"): 1, ("crosstask", "steps"): 2}
    w1, array = item(store, "w1"), rows(0, 7, 3200)
    assert np.array_equal(store.rows("visual_3d", w1), array[:, :1024])
    assert np.array_equal(store.rows("visual_2d", w1), array[:, 1024:3072])
    assert np.array_equal(store.rows("audio", w1), array[:, 3072:])
    # with floor and ceiling, 0.6 to 2.2 covers seconds 0, 1 and 2, and 4 to 6.5 covers seconds 4, 5 and 6
    truth = truth_matrix(read_annotations(store, "crosstask")["23521", "w1"], 7, 3)
    assert np.argwhere(truth).tolist() == [[0, 0], [1, 0], [2, 0], [4, 2], [5, 2], [6, 2]]
    (nothing,) = read_annotations(store, "crosstask")["111", "w2"]
    assert nothing.step == NO_STEP and not truth_matrix([nothing], 5, 2).any()


def test_mining_youtube_as_published(tmp_path: Path) -> None:
    import_mining_youtube(write_mining(tmp_path / "r"), tmp_path / "s", WORDS)
    store = Store(tmp_path / "s")
    assert store.collections() == {("mining-youtube", "test"): 2, ("mining-youtube", "steps"): 2}
    assert steps_of(store, "mining-youtube")["m1"] == ["add salt", "stir", "add salt"]
    spans = read_annotations(store, "mining-youtube")["m1", "m1"]
    assert [(s.step, s.start_s, s.end_s) for s in spans] == [(0, 1, 4), (1, 4, 6), (2, 8, 11)]


def test_mining_youtube_original(tmp_path: Path) -> None:
    root = write_mining_original(tmp_path / "r")
    summary = import_mining_youtube(root, tmp_path / "s", WORDS, fps=2)
    store = Store(tmp_path / "s")
    assert store.collections() == {
        ("mining-youtube", "test"): 2, ("mining-youtube", "val"): 1, ("mining-youtube", "steps"): 3,
    }  # fmt: skip
    assert steps_of(store, "mining-youtube")["n1"] == ["add salt", "stir egg"]
    spans = read_annotations(store, "mining-youtube")
    assert [(s.step, s.start_s, s.end_s) for s in spans["n1", "n1"]] == [(0, 0.5, 2.0), (1, 3.0, 5.0)]
    # at 2 frames per second: 2 frames of background, 3 of stir_egg, 5 of add_salt
    assert [(s.text, s.start_s, s.end_s) for s in spans["n2", "n2"]] == [("stir egg", 1, 2.5), ("add salt", 2.5, 5)]
    assert "1 videos whose .grammar has another order" in str(summary)


def test_mining_youtube_original_without_times(tmp_path: Path) -> None:
    root = write_mining_original(tmp_path / "r")
    (root / "videos_test.txt").write_text("n1\nn2\nn7\n")
    import_mining_youtube(root, tmp_path / "s", WORDS)
    why = reasons(tmp_path / "s")
    assert "counts frames; pass the frames per second with --fps" in why["mining-youtube/n2"]
    assert "n7.srt: is missing, and so is the .gt file" in why["mining-youtube/n7"]
    assert set(read_annotations(Store(tmp_path / "s"), "mining-youtube")) == {("n1", "n1"), ("n3", "n3")}


def test_missing_data_is_the_reason_for_skipping(tmp_path: Path) -> None:
    root = write_crosstask(tmp_path / "r")
    (root / "features" / "v1" / "v1_2d.npy").unlink()
    (root / "annotations" / "111_v3.npy").unlink()
    with (root / "cvpr19_test.csv").open("a") as file:
        file.write("404,v4,x\n")
    import_crosstask(root, tmp_path / "s", WORDS)
    why = reasons(tmp_path / "s")
    assert why["crosstask/v1"].startswith("v1_2d.npy: is missing")
    assert why["crosstask/v3"].startswith("111_v3.npy: the annotation of v3 is missing")
    assert "has no steps for task '404'" in why["crosstask/v4"]
    assert Store(tmp_path / "s").collections()[("crosstask", "test")] == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("annotations/23521_w1.csv", "4,0,2\n", "line 1: is not a step from 1 to 3"),
        ("annotations/23521_w1.csv", "1,3,2\n", "line 1: is not a step"),
        ("annotations/23521_w1.csv", "1,2\n", "line 1: is not a step"),
        ("annotations/23521_w1.csv", "1,0,inf\n", "line 1: is not a step"),
    ],
)
def test_broken_spans_of_the_original_layout(tmp_path: Path, file: str, content: str, message: str) -> None:
    root = write_crosstask_original(tmp_path / "r")
    (root / file).write_text(content)
    import_crosstask(root, tmp_path / "s", WORDS)
    assert message in reasons(tmp_path / "s")["crosstask/w1"]


def test_a_matrix_of_another_width_and_objects_are_refused(tmp_path: Path) -> None:
    root = write_crosstask(tmp_path / "r")
    np.save(root / "annotations" / "23521_v1.npy", np.zeros((10, 4)))
    np.save(root / "annotations" / "111_v3.npy", np.array([{}], dtype=object), allow_pickle=True)
    import_crosstask(root, tmp_path / "s", WORDS)
    why = reasons(tmp_path / "s")
    assert "has shape (10, 4), expected (seconds, 3 steps of task '23521')" in why["crosstask/v1"]
    assert "refused" in why["crosstask/v3"]


def test_broken_lists_are_refused(tmp_path: Path) -> None:
    root = write_crosstask(tmp_path / "r")
    (root / "tasks_primary.txt").write_text("1\na\nb\n2\nstir\n\n")
    assert "choose with --layout" in refused(import_crosstask, root, tmp_path / "s")
    message = refused(import_crosstask, root, tmp_path / "s", layout="original")
    assert "tasks_primary.txt, line 1: is not a valid record of a task" in message
    assert "--cooking has no effect" in refused(import_crosstask, root, tmp_path / "s", layout="original", cooking=True)
    (root / "step.json").write_text('{"23521": "stir"}')
    assert "no list of step texts for '23521'" in refused(import_crosstask, root, tmp_path / "s", layout="mcn")
    (root / "cvpr19_test.csv").write_text("a,b\n")
    (root / "step.json").write_text(json.dumps(STEPS))
    assert "choose one with --videos" in refused(import_crosstask, root, tmp_path / "s", layout="mcn")
    empty = tmp_path / "e"
    empty.mkdir()
    assert "contains no step.json" in refused(import_crosstask, empty, tmp_path / "s")
    assert "contains no step.json" in refused(import_mining_youtube, empty, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_annotations_are_added_and_replaced_by_video(tmp_path: Path) -> None:
    def span(video: str, end_s: float, collection: str = "c") -> None:
        write_annotations(tmp_path, collection, [StepSpan(video, "t", 0, "stir", 0.0, end_s)])

    span("a", 1)
    span("b", 2)
    span("a", 3)
    span("a", 4, "other")
    table = pq.read_table(tmp_path / ANNOTATIONS).to_pylist()
    assert [(r["collection"], r["video_id"], r["end_s"]) for r in table] == [
        ("c", "b", 2),
        ("c", "a", 3),
        ("other", "a", 4),
    ]


def test_damaged_annotations_say_so(tmp_path: Path) -> None:
    import_crosstask(write_crosstask(tmp_path / "r"), tmp_path / "s", WORDS)
    store, path = Store(tmp_path / "s"), tmp_path / "s" / ANNOTATIONS
    whole = path.read_bytes()
    for damaged in (whole[:-9], b"", b"x" * 100):
        path.write_bytes(damaged)
        with pytest.raises(TrichordError, match="annotations.parquet: cannot be read .*delete it and import"):
            read_annotations(store, "crosstask")
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(TrichordError, match="its columns are not those of an annotations file"):
        read_annotations(store, "crosstask")
    path.unlink()
    assert read_annotations(store, "crosstask") == {}


def test_steps_beyond_the_features_are_reported(tmp_path: Path) -> None:
    root = write_crosstask_original(tmp_path / "r")
    (root / "annotations" / "23521_w1.csv").write_text("1,0.6,2.2\n2,15,19\n3,20,30\n")  # 7 s of features
    (root / "annotations" / "111_w2.csv").write_text("1,3.5,12\n")  # 5 s of features, and the step begins within them
    message = "1 video is shorter than its annotation: 2 annotated steps lie beyond the features"
    assert message in str(import_crosstask(root, tmp_path / "s", WORDS))
    subject = Subject("model", ("video",), store=Store(tmp_path / "s"))
    (note,) = store_notes(subject, "crosstask", "test")
    assert note.startswith(message)
    assert store_notes(subject, "crosstask", "train") == []
