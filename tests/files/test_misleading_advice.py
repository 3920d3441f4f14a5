"""Errors that name the cause and an effective action: pointers instead of files, numbers beyond floats, settings."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from release_helpers import WORDS, reasons, write
from steps_helpers import write_crosstask
from tiny import write_tiny_store
from trichord.captions import read_captions
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.extraction.table import read_table
from trichord.files.arrays import load_npy, load_npz_array
from trichord.files.lfs import lfs_pointer_error
from trichord.files.pickles import load_pickle
from trichord.files.reading import unreadable
from trichord.logs import passing_messages
from trichord.nn import MCN
from trichord.recipes import load_recipe
from trichord.releases import import_youcook2
from trichord.report.document import Cell, Column, Document, Section, Table
from trichord.report.exports import to_csv, to_latex
from trichord.store import Store
from trichord.store.inspect import verify
from trichord.study.evaluation_files import read_gallery
from trichord.study.run import train_order
from trichord.study.table import inert
from trichord.tasks.labels.tables import read_labels
from trichord.tasks.protocol import Options
from trichord.tasks.registry import find_protocol
from trichord.tasks.subject import Subject
from trichord.training.models import load_model

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 234446\n"
POINTER_MESSAGE = "is a git-lfs pointer in place of the file"


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("x.safetensors", Embedded.load), ("x.npz", Embedded.load), ("x.pkl", load_pickle), ("x.pth", MCN.from_published),
        ("x.safetensors", MCN.from_published), ("x.npy", load_npy), ("x.npz", lambda path: load_npz_array(path, "a")),
        ("x.csv", read_labels), ("x.txt", read_gallery), ("x.vtt", read_captions), ("x.csv", read_captions),
        ("x.csv", read_table), ("x.parquet", read_table),
    ],
)  # fmt: skip
def test_a_git_lfs_pointer_is_reported_as_such(name: str, read: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(TrichordError, match=POINTER_MESSAGE) as caught:
        read(tmp_path / name)
    assert "git lfs pull" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_not_pointers(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"", POINTER[:20], b"version https://example.org", POINTER + bytes(2000)):
        path.write_bytes(content)
        assert lfs_pointer_error(path) is None
    assert lfs_pointer_error(tmp_path) is None and lfs_pointer_error(tmp_path / "none") is None
    path.write_bytes(POINTER)
    assert POINTER_MESSAGE in str(unreadable(path, OSError("what a library said")))


def test_a_downloaded_model_is_to_be_downloaded_again(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"format": 1}))
    (tmp_path / "model.safetensors").write_bytes(b"half a download")
    with pytest.raises(TrichordError, match="train the stage again"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TrichordError, match="get the model again, or export it again"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_bytes(POINTER)
    with pytest.raises(TrichordError, match=POINTER_MESSAGE):
        load_model(tmp_path)


def test_a_part_of_a_store_is_copied_again_before_it_is_deleted(tmp_path: Path) -> None:
    store = write_tiny_store(tmp_path / "store", num_train=2)
    part = Store(store).shard_path(0)
    whole = part.read_bytes()
    part.write_bytes(POINTER)
    assert all(POINTER_MESSAGE in problem for problem in verify(store)) and verify(store)
    with pytest.raises(TrichordError, match=POINTER_MESSAGE):
        Store(store)
    part.write_bytes(whole[:-8])
    (problem, *_) = verify(store)
    assert "if the store was copied or downloaded, copy the part again; otherwise delete" in problem


def test_types_that_are_not_read_and_numbers_that_no_float_holds(tmp_path: Path) -> None:
    save_file({"video": torch.ones(2, 3).to(torch.float8_e4m3fn)}, tmp_path / "x.safetensors")
    with pytest.raises(TrichordError, match="the array 'video' has the unsupported type F8_E4M3; write it as float16"):
        Embedded.load(tmp_path / "x.safetensors")
    entries = [
        {"id": f"v{i}", "2d": np.full(4, value), "caption": "stir"} for i, value in enumerate([1.0, 1e300, np.nan])
    ]
    write(tmp_path / "r" / "youcook_val.pkl", entries)
    import_youcook2(tmp_path / "r", tmp_path / "s", WORDS)
    messages = reasons(tmp_path / "s")
    assert "visual_2d contains numbers outside the range of float32 (first in row 0)" in messages["youcook2/v1"]
    assert "visual_2d contains NaN or infinity (first in row 0)" in messages["youcook2/v2"]


def test_the_first_caption_with_words_is_used(tmp_path: Path) -> None:
    write(
        tmp_path / "youcook_val.pkl",
        [{"id": "a", "2d": np.ones(4, np.float32), "caption": ["", " ", "add salt", "stir"]}],
    )
    import_youcook2(tmp_path, tmp_path / "s", WORDS)
    assert Store(tmp_path / "s").caption_text(0, 0) == "add salt"


def debug(**more: Any) -> Any:
    training = {"tensorboard": False, "device": "cpu", "max_steps": 1} | more.pop("training", {})
    return load_recipe("debug", training=training, **more)


def test_fp16_on_a_cpu_is_refused(tiny_store: Path, tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match="training.precision fp16 needs a GPU"):
        train_order(tiny_store, tmp_path / "run", "vt", 0, debug(training={"precision": "fp16"}))
    assert not (tmp_path / "run" / "stages").exists()


@pytest.mark.parametrize(("videos", "clips", "noted"), [(1, 1, True), (2, 1, False), (1, 2, False)])
def test_a_batch_of_one_clip_is_noted(videos: int, clips: int, noted: bool, tiny_store: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = debug(data={"videos_per_batch": videos, "clips_per_video": clips})
    with passing_messages(lines.append):
        train_order(tiny_store, tmp_path / "run", "vt", 0, recipe)
    assert any("a batch of a single clip has no negatives" in line for line in lines) == noted


def test_the_command_notes_a_batch_of_one_clip(
    tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--store", str(tiny_store), "--out", str(tmp_path / "run"), "--order", "vt", "--recipe", "debug"]
    words += ["--data.videos_per_batch", "1", "--data.clips_per_video", "1", "--training.max_steps", "1"]
    assert main([*words, "--training.tensorboard", "false", "--training.device", "cpu"]) == 0
    assert "a batch of a single clip has no negatives" in capsys.readouterr().out


def test_a_temperature_near_zero_is_the_cause(tiny_store: Path, tmp_path: Path) -> None:
    recipe = debug(loss={"contrast": "info_nce", "temperature": 1e-6}, training={"learning_rate": 1e6, "max_steps": 9})
    with pytest.raises(TrichordError, match="raise loss.temperature, by which scores are divided: it is 1e-06"):
        train_order(tiny_store, tmp_path / "run", "vt", 0, recipe)


def test_ids_in_csv_can_still_be_joined() -> None:
    table = Table("t", "t", (Column("id"), Column("caption")), ((Cell("-abc_d%&#", "-abc_d%&#"), Cell("- stir")),))
    assert list(csv.reader(io.StringIO(to_csv(table))))[1] == ["-abc_d%&#", "'- stir"]
    for text in ("-1+cmd|' /C calc'!A0", "-A1(B2)", "=a", "@a", "+abc", "-a!b", "-a b", "-2+3+x"):
        assert inert(text) == f"'{text}"


def test_latex_names_the_engine_for_other_scripts() -> None:
    text = to_latex(Document("t", "", (Section("s", ("x",), ""),), ()))
    assert "xelatex or lualatex" in text.splitlines()[0]


def test_youcook2_full_counts_clips_without_full_features_as_errors() -> None:
    rows = np.eye(12, dtype=np.float32)
    embedded = Embedded.of({"video": rows, "text": rows}, labels={"visual": ["rows"] * 10 + ["pooled"] * 2})
    scored = {}
    for missing in ("auto", "miss"):
        options = Options(directions=("t2v", "v2t"), missing=missing)
        outcome = find_protocol("youcook2-full").run(Subject.of_embeddings(embedded), options)
        scored[missing] = [
            (r["r1"], r["num_queries"], r["num_gallery"], r["num_missing"]) for r in outcome.details["results"]
        ]
        assert not any("12 clips here" in note for note in outcome.notes)
    assert scored["auto"] == [(100.0, 10, 10, 0)] * 2
    assert scored["miss"] == [(pytest.approx(1000 / 12), 12, 10, 2)] * 2
    paragraph = find_protocol("youcook2-full").explanation()
    assert "counts the 11 as errors" in paragraph and "--missing miss" in paragraph and "3,350" in paragraph


def test_a_missing_side_does_not_affect_other_directions() -> None:
    rng = np.random.default_rng(0)
    kind = np.arange(40) % 2
    rows = (kind[:, None] + 0.1 * rng.normal(size=(40, 4))).astype(np.float32)
    labels = {"class": [f"c{k}" for k in kind], "split": ["train"] * 28 + ["test"] * 12}
    embedded = Embedded.of({"video": rows, "audio": rows}, valid={"audio": np.arange(40) < 28}, labels=labels)
    outcome = find_protocol("knn").run(Subject.of_embeddings(embedded), Options())
    assert {row.of.partition(",")[0] for row in outcome.rows} == {"video"}
    assert "knn: no test clip with a label of class has audio, so this row is left out" in outcome.notes
    outcome = find_protocol("clustering").run(Subject.of_embeddings(embedded), Options())
    assert {row.of.partition(",")[0] for row in outcome.rows} == {"video", "audio", "video+audio"}


def test_directions_without_clips_are_left_out_unless_requested() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    embedded = Embedded.of({"video": rows, "audio": rows, "text": rows}, valid={"audio": [False] * 6})
    outcome = find_protocol("retrieval").run(Subject.of_embeddings(embedded), Options())
    assert [row["direction"] for row in outcome.details["results"]] == ["t2v", "v2t"]
    assert any(
        "t2a, t2va, " in note and "left out, since no clip has all their modalities" in note for note in outcome.notes
    )
    with pytest.raises(TrichordError, match="no clip has text and audio; direction t2a cannot be scored"):
        find_protocol("retrieval").run(Subject.of_embeddings(embedded), Options(directions=("t2a",)))


def test_a_pointer_among_the_features_of_a_release(tmp_path: Path) -> None:
    from trichord.releases import import_crosstask

    root = write_crosstask(tmp_path / "r")
    next(root.rglob("v1_2d.npy")).write_bytes(POINTER)
    import_crosstask(root, tmp_path / "s", WORDS)
    assert any(POINTER_MESSAGE in reason for reason in reasons(tmp_path / "s").values())


def test_pointers_among_videos_pictures_words_and_models_are_named(tmp_path: Path) -> None:
    from trichord.features.network_size import WeightsSize
    from trichord.media import FrameSpec, image, probe
    from trichord.store.words import read_word_vectors

    for name, read in (
        ("a.mp4", probe),
        ("a.png", lambda path: image(path, FrameSpec(width=8, height=8))),
        ("words.txt", lambda path: read_word_vectors(path, {"salt"})),
        ("model.safetensors", lambda path: WeightsSize.of([path])),
    ):
        path = tmp_path / name
        path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n")
        with pytest.raises(TrichordError, match=f"{name}: is a git-lfs pointer in place of the file"):
            read(path)
