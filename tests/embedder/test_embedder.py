"""Embedding of strings, files and arrays: bit-equal to extraction into a store followed by an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import trichord
from extract_helpers import SMALL
from trichord import Embedder
from trichord.embedder import batches
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.extraction.extract import extract
from trichord.features.spectrogram import log_mel
from trichord.media import frames, waveform, write_video
from trichord.recipes import load_recipe
from trichord.store import Store
from trichord.study.loading import load_for_scoring
from trichord.study.run import run_study
from trichord.tasks.subject import ClipSet, Subject
from trichord.world import write_world

pytestmark = pytest.mark.usefixtures("without_chart")

MODALITIES = ("video", "audio", "text")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of one training and two test videos, its store, and a study of one order."""
    root = tmp_path_factory.mktemp("embedder")
    write_world(
        root / "world",
        num_train=1,
        num_test=2,
        steps_per_video=4,
        step_s=3.0,
        width=96,
        height=64,
        frame_rate_hz=5.0,
        workers=1,
    )
    extract(root / "world", root / "store", visual_2d=SMALL, workers=0)
    recipe = load_recipe(
        "debug",
        training={"tensorboard": False, "max_steps": 2, "device": "cpu"},
        evaluation={"directions": ["t2v", "t2va"]},
    )
    run_study(root / "store", root / "study", ["av>t"], [0], recipe)
    return root


@pytest.fixture(scope="module")
def model(root: Path) -> Embedder:
    return Embedder.from_run(root / "study")


@pytest.fixture(scope="module")
def evaluated(root: Path) -> Embedded:
    """The test clips as `trichord evaluate` embeds them."""
    store, trained, _, settings = load_for_scoring(root / "study", root / "store")
    subject = Subject.of_model("study", trained.model, store, settings, trained.trained)
    return subject.embedded(ClipSet(store.collection(0), "test"), MODALITIES)


def files_of(root: Path, embedded: Embedded) -> list[Path]:
    return [root / "world" / f"{video}.mp4" for video in embedded.videos]


def test_clips_of_files_equal_extraction_and_evaluation(root: Path, model: Embedder, evaluated: Embedded) -> None:
    files = files_of(root, evaluated)
    span = {"start_s": evaluated.start_s.tolist(), "end_s": evaluated.end_s.tolist()}
    assert evaluated.num_clips >= 4 and evaluated.start_s.max() > 0, "clips that do not begin with their file"
    assert np.array_equal(model.encode_video(files, **span), evaluated.embeddings["video"])
    assert np.array_equal(model.encode_audio(files, **span), evaluated.embeddings["audio"])
    assert evaluated.captions is not None
    assert np.array_equal(model.encode_text(evaluated.captions.tolist()), evaluated.embeddings["text"])


def test_one_at_a_time_is_the_same_up_to_rounding(root: Path, model: Embedder, evaluated: Embedded) -> None:
    file = files_of(root, evaluated)[1]
    span = {"start_s": float(evaluated.start_s[1]), "end_s": float(evaluated.end_s[1])}
    for modality, encode in (("video", model.encode_video), ("audio", model.encode_audio)):
        alone = encode(file, **span)
        assert alone.shape == (1, model.dim) and alone.dtype == np.float32
        np.testing.assert_allclose(alone[0], evaluated.embeddings[modality][1], rtol=1e-5, atol=1e-6)


def test_whole_files_are_all_rows_of_the_store(root: Path, model: Embedder) -> None:
    """Compares with the rows of the store, pooled by hand in float64."""
    store = Store(root / "store")
    item = int(store.select(None, "test")[0])
    file = root / "world" / f"{store.video_id(item)}.mp4"
    pooled = store.rows("visual_2d", item).astype(np.float64).max(0)
    import torch

    by_hand = model.model.embed(video=torch.tensor(pooled / np.linalg.norm(pooled), dtype=torch.float32)[None])["video"]
    np.testing.assert_allclose(model.encode_video(file)[0], by_hand[0].detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        model.encode_audio(file), model.encode_audio(store.rows("spectrogram", item).T.astype(np.float32))
    )


def test_waveforms_and_spectrograms_equal_their_file(root: Path, model: Embedder, evaluated: Embedded) -> None:
    file = files_of(root, evaluated)[0]
    samples, span = waveform(file), {"start_s": 1.0, "end_s": 4.0}
    of_file = model.encode_audio(file, **span)
    assert np.array_equal(model.encode_audio(samples, rate_hz=16000, **span), of_file)
    of_mel = model.encode_audio(log_mel(samples).astype(np.float16).astype(np.float32), **span)
    np.testing.assert_allclose(of_mel, of_file, rtol=1e-2, atol=1e-3)  # a rounding of its mean apart
    whole = np.round(samples * 32767).astype(np.int16)
    np.testing.assert_allclose(model.encode_audio(whole, rate_hz=16000, **span), of_file, rtol=0.05, atol=0.02)
    assert not np.allclose(model.encode_audio(samples, rate_hz=16000, start_s=5.0, end_s=8.0), of_file, atol=1e-4)


def test_frames_equal_their_file_up_to_colours(tmp_path: Path, model: Embedder) -> None:
    shown = np.random.default_rng(0).integers(0, 255, (12, 8, 12, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    write_video(tmp_path / "a.mp4", shown.repeat(5, 0), 10, crf=1)
    decoded = np.stack(list(frames(tmp_path / "a.mp4", rate_hz=2.0, width=96, height=64)))
    of_file = model.encode_video(tmp_path / "a.mp4")
    of_frames = model.encode_video(decoded, rate_hz=2.0)
    other = model.encode_video(decoded[::-1].copy()[:6], rate_hz=2.0)
    assert np.abs(of_frames - of_file).max() < 0.2 * np.abs(other - of_file).max()
    assert np.array_equal(
        model.encode_video([decoded, decoded], rate_hz=2.0)[1], model.encode_video([decoded] * 2, rate_hz=2.0)[0]
    )
    part = model.encode_video(decoded, rate_hz=2.0, start_s=2.0, end_s=3.0)
    np.testing.assert_allclose(part, model.encode_video(decoded[4:8], rate_hz=2.0), rtol=1e-5, atol=1e-6)


def test_features_in_place_of_files(model: Embedder) -> None:
    rows = np.abs(np.random.default_rng(1).standard_normal((3, 1280))).astype(np.float32)
    again = model.encode_video([rows, rows[::-1].copy(), {"visual_2d": rows}])
    assert np.array_equal(again[0], again[1]) and np.array_equal(again[0], again[2]), "a maximum over time has no order"


def test_words_that_the_store_lacks_are_found_in_the_table(model: Embedder) -> None:
    assert "xylophone" not in {word for word in model.parts.vocabulary.words().words}  # type: ignore[union-attr]
    one, two = model.encode_text(["xylophone"]), model.encode_text("xylophone zzqqxxy")
    assert one.shape == (1, model.dim) and np.array_equal(one, two), "an unknown word counts for nothing"
    assert not np.allclose(one, model.encode_text("violin"))
    parts = [("a red", "violin"), "a red violin"]
    assert np.array_equal(*model.encode_text(parts)), "captions of a clip are read one after the other"


def test_similarity_and_fusion_are_those_of_the_recipe(model: Embedder) -> None:
    a, b = np.random.default_rng(2).standard_normal((2, 3, model.dim)).astype(np.float32)
    np.testing.assert_allclose(
        model.similarity(a, b), a.astype(np.float64) @ b.T.astype(np.float64), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(model.fuse(a, b), a + b)
    from dataclasses import replace

    cosine = Embedder(replace(model.parts, scoring=replace(model.parts.scoring, cosine=True)))
    np.testing.assert_allclose(np.diag(cosine.similarity(a, a)), 1.0, rtol=1e-5)
    with pytest.raises(TrichordError, match="the widths 5 and 32"):
        model.similarity(a[:, :5], b)


def test_empty_input_returns_no_rows(model: Embedder) -> None:
    for encode in (model.encode_text, model.encode_video, model.encode_audio):
        assert encode([]).shape == (0, model.dim)


def test_many_items_are_read_and_embedded_a_batch_at_a_time(model: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    read, embed = model.inputs.video, model.model.embed
    monkeypatch.setattr(batches, "CLIPS_PER_BATCH", 2)
    monkeypatch.setattr(model.inputs, "video", lambda *item: (events.append("read"), read(*item))[1])
    monkeypatch.setattr(model.model, "embed", lambda **rows: (events.append("embed"), embed(**rows))[1])
    items = list(np.random.default_rng(0).normal(size=(5, 3, 1280)).astype(np.float32))
    together = model.encode_video(items)
    assert events == ["read", "read", "embed"] * 2 + ["read", "embed"]
    assert np.array_equal(together, np.concatenate([model.encode_video(items[i : i + 2]) for i in (0, 2, 4)]))


def test_wrong_input_is_an_error_of_one_line(tmp_path: Path, root: Path, model: Embedder, evaluated: Embedded) -> None:
    file = files_of(root, evaluated)[0]
    pictures = np.zeros((4, 8, 8, 3), np.uint8)
    write_video(tmp_path / "mute.mp4", np.zeros((10, 64, 64, 3), np.uint8), 10)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    cases = [
        (lambda: model.encode_text("  "), "a text is empty"),
        (lambda: model.encode_text("zzqqxxy"), "does not know any word of 'zzqqxxy'"),
        (lambda: model.encode_text([3]), "a text must be a string"),
        (lambda: model.encode_text("the " * 30, truncate=False), "has 30 words, but the model reads at most 20"),
        (lambda: model.encode_audio(file, truncate=False), "s, but the model reads at most 4.0 s"),
        (lambda: model.encode_video(file, start_s=3.0, end_s=3.0), "is empty"),
        (lambda: model.encode_video(file, start_s=[1.0, 2.0]), "2 start times and 1 end times for 1 items"),
        (lambda: model.encode_video(file, start_s=900.0), "correct the start of the clip"),
        (lambda: model.encode_audio(file, start_s=900.0), "there is no sound in this span"),
        (lambda: model.encode_video(tmp_path / "none.mp4"), "does not exist"),
        (lambda: model.encode_audio(tmp_path / "none.mp4"), "does not exist"),
        (lambda: model.encode_video(tmp_path / "broken.mp4"), "cannot be opened"),
        (lambda: model.encode_audio(tmp_path / "mute.mp4"), "has no sound"),
        (lambda: model.encode_video(pictures), "frames per second as rate_hz"),
        (lambda: model.encode_video(pictures.astype(np.float32), rate_hz=1.0), "must be a uint8 RGB array of shape"),
        (lambda: model.encode_video(np.ones((2, 7), np.float32)), "has width 7, but the model reads width 1280"),
        (lambda: model.encode_video(np.full((2, 1280), np.nan, np.float32)), "not finite"),
        (lambda: model.encode_video({"visual_3d": np.ones((2, 7))}), "features of visual_3d were given"),
        (lambda: model.encode_video(3), "an object of type int cannot be encoded"),
        (lambda: model.encode_audio(np.zeros(16000, np.float32)), "samples per second as rate_hz"),
        (lambda: model.encode_audio(np.zeros(0, np.float32), rate_hz=16000), "the waveform is empty"),
        (lambda: model.encode_audio(np.zeros((2, 16000), np.float32)), r"a log-mel spectrogram \(40, T\)"),
        (lambda: model.encode_audio(np.full(9, np.inf, np.float32), rate_hz=16000), "not finite"),
    ]
    for call, message in cases:
        with pytest.raises(TrichordError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_encoders_that_are_not_the_models_are_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = root / "world" / "test" / "test-0000.mp4"
    other = Embedder.from_run(root / "study", encoders={"visual_2d": "efficientnet-lite0-96"})
    with pytest.raises(
        TrichordError,
        match="were computed by efficientnet-lite0-64 .*efficientnet-lite0-96 .* computes different features",
    ):
        other.encode_video(video)
    lost = Embedder.from_run(root / "study", weights={"visual_2d": tmp_path / "lost.pth"})
    with pytest.raises(
        TrichordError, match="the encoder efficientnet-lite0-64 of the stream visual_2d cannot be loaded: .*lost.pth"
    ):
        lost.encode_video(video)
    unknown = Embedder.from_run(root / "study")
    del unknown.encoders.recorded["visual_2d"]
    with pytest.raises(TrichordError, match="does not record the encoder of its visual_2d features"):
        unknown.encode_video(video)


def test_an_untrained_modality_is_refused(root: Path) -> None:
    first = next(path for path in (root / "study" / "stages").iterdir() if path.name.startswith("av."))
    pair = trichord.Embedder.from_run(first)
    assert pair.modalities == ("video", "audio")
    with pytest.raises(TrichordError, match="not trained on text; its modalities are video, audio"):
        pair.encode_text("a word")
