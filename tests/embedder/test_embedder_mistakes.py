"""Mistakes of callers give errors of one line with advice, before anything is loaded, computed or written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import VIDEO_DIM, write_tiny_store
from trichord import Embedder
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.recipes import load_recipe
from trichord.study.run import train_order


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a run on it, and its exported model."""
    root = tmp_path_factory.mktemp("mistakes")
    write_tiny_store(root / "store", num_train=4, num_test=1)
    recipe = load_recipe("debug", training={"tensorboard": False, "max_steps": 1, "device": "cpu"})
    train_order(root / "store", root / "run", "avt", 0, recipe)
    Embedder.from_run(root / "run").save_pretrained(root / "model")
    return root


@pytest.fixture(scope="module")
def model(root: Path) -> Embedder:
    return Embedder.from_pretrained(root / "model")


def error_of(call: Callable[[], Any]) -> str:
    with pytest.raises(TrichordError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "meta", "xpu", 3, None])
def test_missing_devices(root: Path, device: Any) -> None:
    for call in (
        lambda: Embedder.from_pretrained(root / "model", device=device),
        lambda: Embedder.from_run(root / "run", device=device),
        lambda: Embedder(Embedder.from_pretrained(root / "model").parts, device=device),
    ):
        line = error_of(call)
        assert line.startswith(f"device '{device}' cannot be used (") and "; use cpu" in line


def test_available_devices(root: Path) -> None:
    for device in ("cpu", torch.device("cpu"), "cpu:0"):
        assert Embedder.from_pretrained(root / "model", device=device).encode_text("worda").shape == (1, 32)


def test_the_device_of_a_command_and_of_a_recipe(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not torch.cuda.is_available():
        words = ["embed", str(root / "model"), "a.mp4", "--out", str(tmp_path / "a.npz"), "--device", "cuda"]
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "device 'cuda' cannot be used (" in error and "; use cpu" in error and "defect" not in error
    (tmp_path / "recipe.yaml").write_text("training:\n  device: cuda\n")
    run, store, recipe = (str(path) for path in (root / "run", root / "store", tmp_path / "recipe.yaml"))
    assert main(["evaluate", run, "--store", store, "--recipe", recipe]) == 2
    error = capsys.readouterr().err
    assert "training.device" in error and "it must be one of auto, cpu" in error and error.count("\n") == 1


def test_invalid_texts(model: Embedder) -> None:
    for texts in (None, 3, {"worda": 1}, {"worda"}, b"worda", np.array("worda")):
        assert "texts must be a string or a list of strings" in error_of(lambda texts=texts: model.encode_text(texts))
    for text in (None, {"worda": 1}, 3.0, [["worda"]], {"worda"}):
        assert "a text must be a string or a sequence of strings" in error_of(
            lambda text=text: model.encode_text([text])
        )
    one = model.encode_text(["worda", ("wordb", "wordc")])
    assert np.array_equal(one, model.encode_text(t for t in np.array(["worda", "wordb wordc"])))


def test_invalid_rates(model: Embedder) -> None:
    frames, samples = np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1600, np.float32)
    for rate_hz in (0, -1.0, float("nan"), float("inf"), "25", True, [25]):
        line = error_of(lambda rate_hz=rate_hz: model.encode_video(frames, rate_hz=rate_hz))
        assert line.startswith("rate_hz is ") and "the number of frames per second, greater than 0" in line
        line = error_of(lambda rate_hz=rate_hz: model.encode_audio(samples, rate_hz=rate_hz))
        assert line.startswith("rate_hz is ") and "the number of samples per second, greater than 0" in line
    assert model.encode_audio(samples, rate_hz=np.float32(16000)).shape == (1, model.dim)


def test_invalid_spans_and_items(model: Embedder) -> None:
    rows = np.ones((2, VIDEO_DIM), np.float32)
    for start_s in ("1", [None, "a"], True):
        assert "start_s and end_s must be numbers of seconds" in error_of(
            lambda s=start_s: model.encode_video([rows, rows], start_s=s)
        )
    for items in (None, b"a", {"a.mp4"}):
        assert "cannot be encoded" in error_of(lambda items=items: model.encode_video(items))


def test_options_that_there_are_not(root: Path, model: Embedder) -> None:
    for name, call in (
        ("from_pretrained", lambda: Embedder.from_pretrained(root / "model", foo=1)),
        ("from_run", lambda: Embedder.from_run(root / "run", foo=1)),
        ("from_published", lambda: Embedder.from_published(root / "e1.pth", foo=1)),
    ):
        assert error_of(call) == f"{name} has no option 'foo'; its options are encoders, weights, device"
    assert "a model card has no option 'foo'; its options are name, license, language" in error_of(
        lambda: model.generate_model_card(foo=1)
    )
    assert "must be keyword arguments" in error_of(lambda: model.generate_model_card("model"))


def test_encoders_and_weights_without_effect(root: Path, tmp_path: Path) -> None:
    def load(**options: Any) -> Callable[[], Any]:
        return lambda: Embedder.from_pretrained(root / "model", **options)

    line = error_of(load(encoders={"foo": "resnet152"}))
    assert line == "encoders of 'foo' have no effect on this model; it uses encoders of visual_2d, spectrogram"
    assert "encoders of 'text' have no effect" in error_of(load(encoders={"text": "st:x"})), "it reads words"
    assert "it uses weights of visual_2d" in error_of(load(weights={"spectrogram": "a.pth"}))
    assert "must be a mapping of streams" in error_of(
        load(encoders="resnet152")
    ) and "must be a mapping of streams" in error_of(load(weights={"visual_2d": 3}))
    other = Embedder.from_pretrained(root / "model", encoders={"spectrogram": "hf:clap"})
    samples = np.zeros(1600, np.float32)
    assert "the only encoder of spectrograms is log-mel" in error_of(lambda: other.encode_audio(samples, rate_hz=16000))
    same = Embedder.from_pretrained(root / "model", encoders={"spectrogram": "log-mel"})
    assert same.encode_audio(samples, rate_hz=16000).shape == (1, same.dim)


def test_paths_that_are_not_folders(root: Path, model: Embedder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert error_of(lambda place=place: model.save_pretrained(place)) == (
            f"{tmp_path / 'file'}: the path is a file, but a model is saved as a folder; give another path"
        )
    assert (tmp_path / "file").read_text() == "mine"
    for options, line in (
        ({"model_card_kwargs": {"foo": 1}}, "a model card has no option 'foo'"),
        ({"foo": 1}, "save_pretrained has no option 'foo'; its options are commit_message, private, token"),
        ({"push_to_hub": True, "foo": 1}, "save_pretrained has no option 'foo'"),
        ({"private": True}, "private has no effect without push_to_hub=True"),
        ({"repo_id": "me/model"}, "repo_id has no effect without push_to_hub=True"),
    ):
        assert line in error_of(lambda options=options: model.save_pretrained(tmp_path / "new", **options))
    assert not (tmp_path / "new").exists(), "nothing is written by halves"
    os.mkfifo(tmp_path / "pipe")
    for path in (root / "model" / "config.json", tmp_path / "pipe"):
        assert f"{path}: is not a folder; give the folder" in error_of(lambda path=path: Embedder.from_pretrained(path))
    for name in (None, 3):
        assert "a model must be a folder, or OWNER/NAME" in error_of(lambda name=name: Embedder.from_pretrained(name))


def test_folders_and_urls_in_place_of_files(
    root: Path, model: Embedder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "https://example.org/a/b.mp4"
    for encode in (model.encode_video, model.encode_audio):
        assert (
            error_of(lambda encode=encode: encode(tmp_path))
            == f"{tmp_path}: the path is a folder; give the files in it"
        )
        for source in (url, Path(url)):
            line = error_of(lambda encode=encode, source=source: encode(source))
            assert line == f"{url}: URLs are not supported; download the file first"
    assert main(["embed", str(root / "model"), url, "--out", str(tmp_path / "a.npz")]) == 2
    assert f"{url}: URLs are not supported" in capsys.readouterr().err
    assert f"{url}: does not exist" in error_of(lambda: Embedder.from_pretrained(url))
