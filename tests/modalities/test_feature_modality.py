"""Feature arrays from the table of clips to the embeddings of an exported model, with the command line only."""

from __future__ import annotations

import csv
import json
import wave
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from extract_helpers import SMALL, load_once, pictures
from trichord import modality
from trichord.cli import main
from trichord.embedder import Embedder
from trichord.embedder.files import embed_file, embed_files
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.extraction import pool
from trichord.logs import passing_messages
from trichord.media import write_video
from trichord.modality import declared

SAID = ("crack the egg", "stir the soup", "hit with the hammer", "sing a song")
NUM_TRAIN, NUM_TEST, WIDTH = 24, 16, 12
SETTINGS = ["--recipe", "debug", "--training.max_steps", "20", "--training.epochs", "20", "--training.learning_rate", "0.01",
            "--data.audio_frames", "64", "--loss.cluster_weight", "0", "--loss.reconstruction_weight", "0",
            "--evaluation.directions", "[t2v,d2t,t2d]"]  # fmt: skip


@pytest.fixture(autouse=True)
def no_declared_modalities(monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Iterator[None]:
    monkeypatch.setattr(modality, "_declared", {})
    monkeypatch.setattr("trichord.embedder.worker.Worker", worker)
    yield


def worker(load: Callable[[], Embedder]) -> AbstractContextManager[Callable[..., Any]]:
    """Embed files in this process, with a model that is loaded once."""
    return nullcontext(partial(embed_file, load()))


def trichord(*words: str | Path) -> None:
    """Run a command as a process without declared modalities."""
    modality._declared.clear()
    assert main([str(word) for word in words]) == 0


def write_clips(folder: Path) -> Path:
    """Write clips whose text and depth identify one of four classes; pictures and sound are noise. Clip 5 has no depth."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(len(SAID), WIDTH))
    folder.mkdir()
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "audio", "text", "depth", "split"])
        for i in range(NUM_TRAIN + NUM_TEST):
            kind = i % len(SAID)
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
            with wave.open(str(folder / f"{i}.wav"), "wb") as sound:
                sound.setparams((1, 2, 16000, 0, "NONE", ""))
                sound.writeframes((rng.normal(size=8000) * 3000).astype("<i2").tobytes())
            rows = centres[kind] + 0.3 * rng.normal(size=(3, WIDTH))
            np.save(folder / f"{i}.npy", rows.astype(np.float32 if i % 2 else np.float64))
            split = "train" if i < NUM_TRAIN else "test"
            depth = "" if i == 5 else f"{i}.npy"
            writer.writerow([f"{'abcd'[kind]}/{i}", f"{i}.png", f"{i}.wav", SAID[kind], depth, split])
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def folder(without_chart: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `clips`, the `store` and the `study` of the order vt>a>d."""
    root = tmp_path_factory.mktemp("feature_modality")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modality, "_declared", {})
        patch.setattr(pool, "load", load_once)
        table = write_clips(root / "clips")
        trichord(
            "extract", table, "--modality", "depth=d", "--store", root / "store", "--visual_2d", SMALL, "--workers", "0"
        )
        trichord(
            "study",
            "--store",
            root / "store",
            "--out",
            root / "study",
            "--orders",
            "[vt>a>d]",
            "--seeds",
            "[0]",
            *SETTINGS,
        )
    return root


def stage(root: Path) -> Path:
    (folder,) = (root / "study" / "stages").glob("vt-a-d.*")
    return folder


def figures(path: Path) -> dict[str, float]:
    (benchmark,) = json.loads(path.read_text())["benchmarks"]
    return {row["direction"]: row["r5"] for row in benchmark["results"]}


def test_a_study_trains_on_the_arrays_and_records_their_letter(folder: Path) -> None:
    content = json.loads((folder / "study" / "study.json").read_text())
    assert content["modalities"] == {"depth": "d"}
    recalls = {row["direction"]: row["r5"] for row in content["results"]}
    assert recalls["d2t"] > 60 and recalls["t2d"] > 60 and recalls["t2v"] < 60  # chance is 31
    trichord("report", folder / "study", "--direction", "d2t")
    assert "D→T" in (folder / "study" / "report" / "report.md").read_text()


def test_evaluate_scores_every_single_modality_against_every_other(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    trichord("evaluate", stage(folder), "--store", folder / "store", "--directions", "all", "--out", out,
             "--save-embeddings", tmp_path / "e.npz")  # fmt: skip
    recalls = figures(out / "results.json")
    assert len(recalls) == 12 and {"d2t", "t2d", "d2v", "v2d", "d2a", "a2d"} <= set(recalls)
    assert recalls["d2t"] > 60 and json.loads((out / "results.json").read_text())["modalities"] == {"depth": "d"}
    trichord("report", out)
    assert "| d2t |" in (out / "report" / "report.md").read_text()
    trichord("evaluate", "--embeddings", tmp_path / "e.npz", "--directions", "all", "--out", tmp_path / "again")
    assert figures(tmp_path / "again" / "results.json") == pytest.approx(recalls)


def test_evaluate_scores_a_whole_study(folder: Path, tmp_path: Path) -> None:
    trichord("evaluate", folder / "study", "--store", folder / "store", "--orders", "vt>a>d", "--directions", "d2t,t2d",
             "--out", tmp_path / "out")  # fmt: skip
    assert json.loads((tmp_path / "out" / "results.json").read_text())["modalities"] == {"depth": "d"}
    trichord("report", tmp_path / "out")
    assert declared() == {"depth": "d"}


def test_an_exported_model_embeds_arrays_as_evaluate_does(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trichord("export-model", stage(folder), "--out", tmp_path / "model")
    assert "model: video, audio, text, depth into 32 dimensions" in capsys.readouterr().out
    card = (tmp_path / "model" / "README.md").read_text()
    assert 'model.encode_features("depth", ["clip.npy"])' in card and "modality:depth" in card and "VT→A→D" in card
    rows = (folder / "clips" / "clips.csv").read_text().splitlines()
    table = folder / "clips" / "some.csv"
    table.write_text("\n".join([rows[0], rows[6], *rows[-NUM_TEST:]]))
    trichord("embed", tmp_path / "model", table, "--out", tmp_path / "e.safetensors")
    assert "(17 of video, 17 of audio, 17 of text, 16 of depth)" in capsys.readouterr().out
    modality._declared.clear()
    embedded = Embedded.load(tmp_path / "e.safetensors")
    assert declared() == {"depth": "d"} and not embedded.valid["depth"][0]
    trichord(
        "evaluate",
        stage(folder),
        "--store",
        folder / "store",
        "--directions",
        "all",
        "--save-embeddings",
        tmp_path / "e.npz",
    )
    scored = Embedded.load(tmp_path / "e.npz")
    assert embedded.ids[1:].tolist() == scored.ids.tolist()
    for name in ("video", "audio", "text", "depth"):
        np.testing.assert_allclose(embedded.embeddings[name][1:], scored.embeddings[name], atol=1e-5)
    trichord("evaluate", "--embeddings", tmp_path / "e.safetensors", "--directions", "d2t,t2d")


def test_encode_features(folder: Path, tmp_path: Path) -> None:
    model = Embedder.from_run(stage(folder), folder / "store")
    assert model.modalities == ("video", "audio", "text", "depth")
    path = folder / "clips" / "30.npy"
    rows = np.load(path)
    from_file, from_rows = (
        model.encode_features("depth", path),
        model.encode_features("depth", [rows, rows.max(axis=0)]),
    )
    assert from_file.shape == (1, 32) and np.allclose(from_rows, from_file, atol=1e-6)
    np.save(tmp_path / "wide.npy", np.ones((2, WIDTH + 1)))
    for value, message in (
        (np.ones(3), "depth: the array: has width 3, expected 12 as in the model"),
        (np.full((2, WIDTH), np.nan), "depth: the array: contains NaN or infinity"),
        (tmp_path / "wide.npy", r"depth: .*wide\.npy: has width 13, expected 12"),
        (np.array("x"), "depth: the array: has shape ()"),
    ):
        with pytest.raises(TrichordError, match=message):
            model.encode_features("depth", [value])
    with pytest.raises(TrichordError, match="video is not read as a feature vector per clip; use encode_video"):
        model.encode_features("video", rows)
    with pytest.raises(TrichordError, match="this model was not trained on pose"):
        model.encode_features("pose", rows)


def test_rows_of_a_table_are_cut_out_of_their_files(folder: Path, tmp_path: Path) -> None:
    model = Embedder.from_run(stage(folder), folder / "store")
    write_video(
        tmp_path / "v.mp4", pictures(30), 10, np.random.default_rng(0).normal(size=48_000).astype(np.float32) / 9
    )
    (tmp_path / "v.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\negg\n\n00:01.500 --> 00:02.000\nsoup\n")
    np.save(tmp_path / "d.npy", np.ones(WIDTH))
    (tmp_path / "t.csv").write_text("id,video,start,end,depth\nx,v.mp4,1.2,2.2,d.npy\ny,v.mp4,,,\nz,gone.mp4,,,\n")
    lines: list[str] = []
    with passing_messages(lines.append):
        embedded = embed_files(model, [tmp_path / "t.csv"])
    (line,) = [line for line in lines if line.startswith("left out")]
    assert line.startswith("left out: t.csv row 3 (z): ") and "gone.mp4" in line
    span = {"start_s": 1.2, "end_s": 2.2}
    expected = {"video": model.encode_video(tmp_path / "v.mp4", **span), "audio": model.encode_audio(tmp_path / "v.mp4", **span),
                "text": model.encode_text("soup"), "depth": model.encode_features("depth", np.ones(WIDTH))}  # fmt: skip
    assert (
        embedded.ids.tolist() == ["x", "y"]
        and embedded.captions is not None
        and embedded.captions.tolist() == ["soup", "egg soup"]
    )
    for name, rows in expected.items():
        assert np.array_equal(embedded.embeddings[name][0], rows[0]), name
    assert (embedded.start_s[0], embedded.end_s[0]) == (1.2, 2.2) and embedded.valid["depth"].tolist() == [True, False]
    assert np.array_equal(embedded.embeddings["video"][1], model.encode_video(tmp_path / "v.mp4")[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["embed", "MODEL", "a.npy"], "a.npy: the file is a feature array; "),
        (["embed", "MODEL", "TABLE", "--window_s", "2"], "the rows of a table are clips and are not cut"),
        (["study", "--orders", "[vt>a>p]"], "order VT→A→P needs modality 'P', which the model does not have; it has V, A, T, D;"),
        (["evaluate", "STAGE", "--directions", "p2t"], "direction 'p2t' contains the unknown letter 'p'; expected v, a, t and d"),
    ],
)  # fmt: skip
def test_mistakes_are_errors_of_one_line(
    folder: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0] == "embed":
        trichord("export-model", stage(folder), "--out", tmp_path / "model")
    places = {"MODEL": tmp_path / "model", "TABLE": folder / "clips" / "clips.csv", "STAGE": stage(folder)}
    arguments = [str(places.get(word, word)) for word in words]
    arguments += ["--out", str(tmp_path / ("out.npz" if words[0] == "embed" else "out"))]
    arguments += [] if words[0] == "embed" else ["--store", str(folder / "store")]
    modality._declared.clear()
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
