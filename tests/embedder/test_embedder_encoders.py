"""Parts of files and frames in memory compared with whole files; models with encoders of the transformers library."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_transformers
from doc_examples import run_examples
from extract_helpers import pictures, run, sound
from trichord import Embedder
from trichord.embedder.encoders import FeatureEncoders
from trichord.errors import TrichordError
from trichord.features.encoders import Fingerprint
from trichord.media import FrameSpec, write_video
from trichord.media.arrays import pictures_of
from trichord.recipes import load_recipe
from trichord.study.loading import load_for_scoring
from trichord.study.run import train_order
from trichord.tasks.subject import ClipSet, Subject


@dataclass
class Means:
    """A visual encoder whose rows are the mean colours of its pictures, one after the other."""

    frames: FrameSpec
    window: int
    stream: str = "visual_3d"
    batch_size: int = 2
    fingerprint: Fingerprint = field(default_factory=lambda: Fingerprint("means", "1"))
    dim: int = 3

    @property
    def rate_hz(self) -> float:
        return self.frames.rate_hz / self.window

    def encode(self, images: np.ndarray) -> np.ndarray:
        assert images.ndim == 4 + (self.window > 1) and images.dtype == np.uint8
        return images.mean(axis=tuple(range(1, images.ndim - 1))).astype(np.float16)


def encoders_of(encoder: Means) -> FeatureEncoders:
    encoders = FeatureEncoders({})
    encoders._loaded[encoder.stream] = encoder
    return encoders


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    write_video(path, pictures(95), 10, sound(9.5))
    return path


@settings(max_examples=12, deadline=None)
@given(
    start_s=st.floats(0, 9), length_s=st.floats(0.01, 9), window=st.sampled_from([1, 4]),
    sampling=st.sampled_from(["shown", "published"]), to_end=st.booleans(),
)  # fmt: skip
def test_rows_of_a_part_equal_those_of_the_whole_file(
    video: Path, start_s: float, length_s: float, window: int, sampling: Any, to_end: bool
) -> None:
    encoder = Means(FrameSpec(4.0, short_side=16, sampling=sampling), window)
    encoders, end_s = encoders_of(encoder), None if to_end else start_s + length_s
    whole = encoders.video_rows("visual_3d", video, 0.0, None)
    first = int(start_s * encoder.rate_hz)
    wanted = whole[first : None if end_s is None else int(end_s * encoder.rate_hz) + 1]
    if first * window / 4.0 >= 9.5 or not len(wanted):
        return
    assert np.array_equal(encoders.video_rows("visual_3d", video, start_s, end_s), wanted)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 40),
    rate_hz=st.sampled_from([1.0, 7.5, 24.0, 25.0, 30000 / 1001]),
    wanted_hz=st.sampled_from([1.0, 3.0, 24.0]),
)
def test_pictures_of_frames_are_those_that_are_seen_at_each_time(count: int, rate_hz: float, wanted_hz: float) -> None:
    """The oracle determines which frame is visible at each time; frames are identified by their grey level."""
    grey = np.arange(count, dtype=np.uint8) * 6
    frames = np.broadcast_to(grey[:, None, None, None], (count, 16, 16, 3))
    chosen = [
        int(round(float(p.mean()) / 6)) for p in pictures_of(frames, rate_hz, FrameSpec(wanted_hz, short_side=16))
    ]
    expected, n = [], 0
    while n == 0 or n / wanted_hz < count / rate_hz - 6e-4:
        expected.append(max(i for i in range(count) if i / rate_hz <= n / wanted_hz + 6e-4))
        n += 1
    assert chosen == expected


def test_frames_of_another_form_are_refused() -> None:
    for frames, rate_hz in (
        (np.zeros((2, 8, 8), np.uint8), 1.0),
        (np.zeros((0, 8, 8, 3), np.uint8), 1.0),
        (np.zeros((2, 8, 8, 3), np.uint8), 0.0),
    ):
        with pytest.raises(TrichordError):
            list(pictures_of(frames, rate_hz, FrameSpec()))


def test_a_still_picture_is_one_row(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "a.png")
    one = encoders_of(Means(FrameSpec(1.0, short_side=16), 1)).video_rows("visual_3d", tmp_path / "a.png", 0.0, None)
    assert one.tolist() == [[90.0, 90.0, 90.0]]
    with pytest.raises(
        TrichordError, match="the file is a still picture, but the stream visual_3d is computed from videos"
    ):
        encoders_of(Means(FrameSpec(4.0, short_side=16), 4)).video_rows("visual_3d", tmp_path / "a.png", 0.0, None)


@pytest.fixture(scope="module")
def behind_transformers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, Path]:
    """Videos, their store with embeddings of sound and captions by small random models, a run on it, and the models."""
    root = tmp_path_factory.mktemp("transformers")
    sounds, texts = tiny_transformers.clap(root / "clap"), tiny_transformers.bert(root / "bert")
    for index in range(4):
        path = root / "videos" / ("train" if index < 2 else "test") / f"v{index}.mp4"
        write_video(path, pictures(80, index), 10, sound(8.0) * (1 + index))
        path.with_suffix(".vtt").write_text(
            "WEBVTT\n\n00:00.000 --> 00:02.000\nthe red dog\n\n00:02.000 --> 00:04.500\na cat barks\n\n"
            "00:04.500 --> 00:08.000\nthe ball rolls\n"
        )
    run(root / "videos", root / "store", audio=f"hf:{sounds}", text=f"hf:{texts}")
    recipe = load_recipe(
        "debug",
        training={"tensorboard": False, "max_steps": 1, "device": "cpu"},
        model={"audio": "embeddings", "text": "embeddings"},
        data={"min_clip_s": 3.0},
        loss={"cosine": True, "contrast": "info_nce"},
    )
    train_order(root / "store", root / "run", "avt", 0, recipe)
    return root / "videos", root / "store", sounds, texts


def test_embeddings_of_sound_and_captions_equal_evaluation(
    behind_transformers: tuple[Path, Path, Path, Path],
) -> None:
    videos, at, sounds, texts = behind_transformers
    run_folder = at.parent / "run"
    store, trained, _, scoring = load_for_scoring(run_folder, at)
    subject = Subject.of_model("run", trained.model, store, scoring, trained.trained)
    wanted = subject.embedded(ClipSet("videos", "test"), ("video", "audio", "text"))
    model = Embedder.from_run(run_folder, encoders={"audio": f"hf:{sounds}", "text": f"hf:{texts}"})
    files = [videos / f"{video}.mp4" for video in wanted.videos]
    span = {"start_s": wanted.start_s.tolist(), "end_s": wanted.end_s.tolist()}
    assert model.parts.scoring.audio == model.parts.scoring.text == "embeddings" and wanted.start_s.max() > 0
    assert np.array_equal(model.encode_video(files, **span), wanted.embeddings["video"])
    assert np.array_equal(model.encode_audio(files, **span), wanted.embeddings["audio"])
    captions_of_clips = [("the red dog", "a cat barks"), ("the ball rolls",)]
    spoken = [" ".join(captions) for captions in captions_of_clips]
    assert wanted.captions is not None and set(wanted.captions) <= {*spoken, "the red dog a cat barks the ball rolls"}
    given_text = [
        next((c for c in captions_of_clips if " ".join(c) == text), (*captions_of_clips[0], *captions_of_clips[1]))
        for text in wanted.captions
    ]
    assert np.array_equal(model.encode_text(given_text), wanted.embeddings["text"])
    scores = model.similarity(wanted.embeddings["text"], wanted.embeddings["video"])
    assert np.abs(scores).max() <= 1 + 1e-5
    fused = model.fuse(wanted.embeddings["video"], wanted.embeddings["audio"])
    assert fused.shape == wanted.embeddings["video"].shape and np.linalg.norm(fused, axis=1).max() <= 1 + 1e-5


def test_an_encoder_in_another_place_must_be_named(behind_transformers: tuple[Path, Path, Path, Path]) -> None:
    videos, at, sounds, texts = behind_transformers
    model = Embedder.from_run(at.parent / "run")
    with pytest.raises(
        TrichordError, match=r"encoder hf:clap of the stream audio cannot be loaded.*encoders=\{'audio': NAME\}"
    ):
        model.encode_audio(videos / "test" / "v2.mp4")
    wrong = Embedder.from_run(at.parent / "run", encoders={"text": f"hf:{sounds}"})
    with pytest.raises(TrichordError, match="were computed by hf:bert .* use the same encoder, version and weights"):
        wrong.encode_text("the red dog")
    rows = np.abs(np.random.default_rng(0).standard_normal((3, 32))).astype(np.float32)
    assert model.encode_audio(rows).shape == (1, model.dim)
    with pytest.raises(TrichordError, match=r"audio embeddings \(T, C\) of width 32"):
        model.encode_audio(rows[:, :7])


def test_importing_trichord_stays_cheap() -> None:
    code = (
        "import sys, trichord, trichord.cli; "
        "sys.exit(bool({'torch', 'huggingface_hub', 'av', 'trichord.embedder'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert "Embedder" in __import__("trichord").__all__


def test_examples_run(example_files: Path) -> None:
    tiny_transformers.bert(example_files / "my_text_encoder")
    run_examples("trichord.embedder.encoders", example_files)
