"""Saved embeddings of a benchmark give the figures of the benchmark: labels, folds, classes, seconds and steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_protocols_labels import CLASSES, action_store, subject_of
from test_step_scores import SETTINGS, Linear

from release_helpers import WORDS
from steps_helpers import write_crosstask, write_mining
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.releases import import_crosstask, import_mining_youtube
from trichord.store import Store
from trichord.study.evaluate import evaluate, save_embeddings
from trichord.study.evaluation import Evaluated, Evaluation
from trichord.tasks.protocol import Options, Row
from trichord.tasks.registry import find_protocol
from trichord.tasks.subject import Subject


def evaluated(subject: Subject, names: list[str], options: Options, on: str = "") -> Evaluation:
    done = Evaluation(subject)
    for name in names:
        protocol, own_options = find_protocol(name), replace(options, on="" if find_protocol(name).clips else on)
        done.benchmarks.append(Evaluated(name, protocol, own_options, protocol.run(subject, own_options)))
    return done


def rows_of(evaluation: Evaluation) -> list[Row]:
    """Return rows without the names of protocols, which contain the source of the clips, and without the model's own
    centroids.
    """
    rows = [row for done in evaluation.benchmarks for row in done.outcome.rows if "own centroids" not in row.of]
    return [replace(row, protocol=row.protocol.partition(":")[0], each_of="") for row in rows]


def in_order(evaluation: Evaluation) -> list[Row]:
    return sorted(rows_of(evaluation), key=lambda row: (row.protocol, row.of, row.measure))


def same_from_file(embedded: Evaluation, path: Path, options: Options) -> Embedded:
    """Save embeddings, score the file, and compare every row."""
    save_embeddings(embedded, path)
    fusion = embedded.subject.fusion if options.fusion == "auto" else options.fusion
    plain = replace(options, labels="", text_encoder="", fusion=fusion)
    again = evaluate(None, None, [done.name for done in embedded.benchmarks], embeddings=path,
                     directions=options.directions, options=plain)  # fmt: skip
    rows, rows_again = in_order(embedded), in_order(again)
    if path.suffix == ".npz":  # has the labels in their order
        assert [(r.of, r.measure) for r in rows_of(embedded)] == [(r.of, r.measure) for r in rows_of(again)]
    assert [(r.of, r.measure, r.num) for r in rows] == [(r.of, r.measure, r.num) for r in rows_again]
    for a, b in zip(rows, rows_again, strict=True):
        assert (a.value, a.chance, a.low, a.high) == pytest.approx((b.value, b.chance, b.low, b.high)), (
            a.of,
            a.measure,
        )
    return Embedded.load(path)


def table(path: Path, store: Store) -> Path:
    """Return two labellings with gaps, two folds with different test clips, and a class without clips."""
    rows: list[dict[str, str]] = []
    for i in range(18):
        rows.append({"id": store.video_id(i), "kind": CLASSES[i % 3], "half": ["", "Left", "Right"][(i // 2) % 3]})
        rows[-1] |= {"fold-1": ["train", "test"][i // 9], "fold-2": ["test", "train", ""][(i // 3) % 3]}
    rows.append({"id": "nowhere", "kind": "Zzz", "half": "Left", "fold-1": "test", "fold-2": "test"})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_labels_and_folds_of_a_table(tmp_path: Path, suffix: str) -> None:
    store = action_store(tmp_path / "store")
    options = Options(labels=str(table(tmp_path / "labels.jsonl", store)))
    names = ["linear-probe", "knn", "clustering"]
    evaluation = evaluated(subject_of(store), names, options, "acts")
    file = same_from_file(evaluation, tmp_path / f"e{suffix}", options)
    assert set(file.labels) == {"visual", "split", "kind", "half", "fold-1", "fold-2"} and file.num_clips == 18
    assert file.classes["kind"].tolist() == sorted([*CLASSES, "Zzz"]) and "half" not in file.classes
    # and from the file with the table once more
    again = evaluate(None, None, names, embeddings=tmp_path / f"e{suffix}", options=options)
    assert [row.value for row in in_order(again)] == pytest.approx([row.value for row in in_order(evaluation)])


def test_classes_by_name_come_with_their_prompts(tmp_path: Path) -> None:
    store = action_store(tmp_path / "store")
    templates = ("{}", f"{CLASSES[0]} {{}}")
    options = Options(labels=str(table(tmp_path / "labels.jsonl", store)), templates=templates)
    evaluation = evaluated(subject_of(store), ["zero-shot-classification", "knn"], options, "acts")
    file = same_from_file(evaluation, tmp_path / "e.npz", options)
    assert file.captions is not None and file.num_texts == 2 * (4 + 2)  # the classes of kind and half
    cosine = replace(options, fusion="mean_normalized", missing="miss")
    same_from_file(
        evaluated(subject_of(store), ["zero-shot-classification"], cosine, "acts"), tmp_path / "c.npz", cosine
    )


def test_folders_and_splits_of_the_store(tmp_path: Path) -> None:
    subject = subject_of(action_store(tmp_path / "store"))
    file = same_from_file(evaluated(subject, ["linear-probe", "knn"], Options()), tmp_path / "e.npz", Options())
    assert set(file.labels) == {"visual", "class", "split"}
    with pytest.raises(
        TrichordError,
        match="the benchmarks use 2 sets of clips, but a file can contain only one; evaluate one benchmark at a time",
    ):
        save_embeddings(evaluated(subject, ["linear-probe", "clustering"], Options()), tmp_path / "x.npz")
    with pytest.raises(TrichordError, match="sets of clips, but"):
        save_embeddings(
            evaluated(subject, ["linear-probe", "retrieval"], Options(directions=("t2v",)), "acts"), tmp_path / "x.npz"
        )


def test_a_file_with_a_table_is_saved_with_its_labels(tmp_path: Path) -> None:
    store = action_store(tmp_path / "store")
    subject = subject_of(store)
    clips = subject.embedded(subject.clip_set("acts/test", "all"), ("video",))
    labels = tmp_path / "labels.jsonl"
    rows = [{"id": v, "kind": CLASSES[i % 2], "fold": ["train", "test"][i // 6]} for i, v in enumerate(clips.videos)]
    labels.write_text("\n".join(map(json.dumps, rows)))
    options = Options(labels=str(labels))
    evaluation = evaluated(Subject.of_embeddings(clips), ["knn"], options)
    assert {"kind", "fold"} <= set(same_from_file(evaluation, tmp_path / "e.npz", options).labels)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("steps")
    import_crosstask(write_crosstask(folder / "r"), folder / "s", WORDS)
    import_mining_youtube(write_mining(folder / "m"), folder / "s", WORDS)
    store = Store(folder / "s")
    model: Any = Linear(store.word_dim)
    return Subject.of_model("linear", model, store, SETTINGS)


@pytest.mark.parametrize(("suffix", "fusion"), [(".npz", "sum"), (".safetensors", "mean_normalized")])
def test_seconds_and_steps(steps: Subject, tmp_path: Path, suffix: str, fusion: str) -> None:
    options = Options(fusion=fusion, audio_window_s=3.0)
    evaluation = evaluated(steps, ["crosstask", "crosstask-original"], options)
    file = same_from_file(evaluation, tmp_path / f"e{suffix}", Options(fusion=fusion))  # the sound is in the embeddings
    assert file.num_clips == 10 + 8 + 6 and file.num_texts == 5 and file.captions is not None
    assert file.captions.tolist() == ["stir the salt", "add butter", "pour water", "add salt", "stir"]
    assert set(file.labels) == {"task", "step"} and file.labels["step"][:4].tolist() == ["", "1", "1", ""]
    assert not file.valid["audio"][10:18].any() and file.valid["video"].all()  # v2 is silent
    assert file.start_s[:3].tolist() == [0, 1, 2] and file.end_s[2] == 3 and set(file.videos) == {"v1", "v2", "v3"}


def test_directions_and_missing_arrays(steps: Subject, tmp_path: Path) -> None:
    options = Options(directions=("t2a",), missing="miss")
    file = same_from_file(evaluated(steps, ["crosstask"], options), tmp_path / "e.npz", options)
    assert set(file.embeddings) == {"audio", "text"}
    mining = Options(directions=("t2v", "t2va"))
    same_from_file(evaluated(steps, ["mining-youtube"], mining), tmp_path / "m.npz", mining)


def test_blocks_of_a_long_video(steps: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trichord.tasks.steps.scores.BLOCK_S", 3)
    options = Options(directions=("t2v",))
    same_from_file(evaluated(steps, ["crosstask"], options), tmp_path / "e.npz", options)


def test_given_seconds_are_saved_as_they_are(steps: Subject, tmp_path: Path) -> None:
    save_embeddings(evaluated(steps, ["crosstask"], Options()), tmp_path / "e.npz")
    again = evaluate(None, None, ["crosstask"], embeddings=tmp_path / "e.npz")
    save_embeddings(again, tmp_path / "again.npz")
    one, two = (Embedded.load(tmp_path / name) for name in ("e.npz", "again.npz"))
    assert np.array_equal(one.ids, two.ids) and np.array_equal(one.embeddings["video"], two.embeddings["video"])
    assert one.captions is not None and two.captions is not None and np.array_equal(one.captions, two.captions)
