"""The files that the examples of the documentation read: a store, a run, models, a published checkpoint, videos and arrays.

| name | content |
|---|---|
| `a.mp4`, `b.mp4` | two seconds of video with sound |
| `silent.mp4` | a second of video without sound |
| `a.npy`, `b.npy` | feature arrays of depth |
| `my_store` | two training and two test videos with four clips each |
| `my_run` | a run of the order `avt` on `my_store`, with random weights |
| `my_model` | the model of `my_run` as a folder of `trichord export-model` |
| `my_depth_model` | a model of video and depth with random weights |
| `e29.pth` | a published checkpoint with random weights and small widths |
| `GoogleNews-vectors-negative300.bin` | a word table of the width that `e29.pth` reads |
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from modality_helpers import declared
from trichord.captions import Captions
from trichord.embedder import Embedder
from trichord.embedder.folder import Parts, write_folder
from trichord.features.visual import visual_encoder_info
from trichord.media import write_video
from trichord.modality import MODALITIES
from trichord.nn import MCN
from trichord.recipes import load_recipe
from trichord.store import Item, StoreWriter, WordVectors
from trichord.tasks.benchmarks import ScoringSettings
from trichord.training.models import TrainedModel, save_model

ENCODER = "efficientnet-lite0-64"
VIDEO_DIM, WORD_DIM, DEPTH_DIM = 1280, 6, 7
CAPTIONS = ("stir the soup", "cut the bread", "pour the milk", "fry an egg")
WORDS = sorted({word for caption in CAPTIONS for word in caption.split()})


def write_example_files(folder: Path) -> Path:
    """Write all files of the table above to a new folder."""
    folder.mkdir(parents=True)
    for seed, name in enumerate(("a", "b")):
        rng = np.random.default_rng(seed)
        pictures, sound = rng.integers(0, 255, (20, 32, 48, 3), np.uint8), 0.1 * rng.standard_normal(32_000)
        write_video(folder / f"{name}.mp4", pictures, 10, sound.astype(np.float32))
        np.save(folder / f"{name}.npy", rng.random((5, DEPTH_DIM), np.float32))
    write_video(folder / "silent.mp4", np.zeros((10, 32, 48, 3), np.uint8), 10)
    write_store(folder / "my_store")
    write_run(folder / "my_run")
    Embedder.from_run(folder / "my_run", folder / "my_store").save_pretrained(folder / "my_model")
    write_depth_model(folder / "my_depth_model")
    write_published(folder)
    return folder


def word_vectors() -> WordVectors:
    vectors = np.random.default_rng(0).standard_normal((len(WORDS), WORD_DIM), dtype=np.float32)
    return WordVectors(WORDS, vectors, "examples", lowercase=True)


def write_store(path: Path) -> None:
    starts = 4.0 * np.arange(len(CAPTIONS))
    with StoreWriter(path, word_vectors()) as writer:
        for index, split in enumerate(("train", "train", "test", "test")):
            rng = np.random.default_rng(index)
            streams = {
                "visual_2d": rng.random((16, VIDEO_DIM)).astype(np.float16),
                "spectrogram": (-80 * rng.random((1600, 40))).astype(np.float16),
            }
            spoken = Captions(starts, starts + 4.0, CAPTIONS)
            rates_hz = {"visual_2d": 1.0, "spectrogram": 100.0}
            writer.add(Item(f"video{index}", "my_videos", split, 16.0, streams, rates_hz, spoken))
    (path / "encoders.json").write_text(json.dumps({"visual_2d": visual_encoder_info(ENCODER)[2].to_dict()}))


def write_run(folder: Path) -> None:
    torch.manual_seed(0)
    widths = {"audio_channels": (8, 8, 16, 16), "reconstruction_dim": 8}
    network = MCN(VIDEO_DIM, 8, WORD_DIM, **widths)  # type: ignore[arg-type]
    stage = {"stage": "avt", "seed": 0}
    streams, settings = ("visual_2d",), load_recipe("debug").to_dict()
    save_model(
        folder / "stages" / "avt", network, trained=MODALITIES, visual_streams=streams, settings=settings, extra=stage
    )


def write_depth_model(folder: Path) -> None:
    torch.manual_seed(0)
    with declared(depth="d"):
        network = MCN(
            modalities=("video",),
            video_dim=VIDEO_DIM,
            embed_dim=8,
            reconstruction_dim=None,
            feature_dims={"depth": DEPTH_DIM},
        )
        scoring = ScoringSettings(("visual_2d",), min_clip_s=0.0, audio_frames=100, max_words=6, cosine=True)
        encoders = {"visual_2d": visual_encoder_info(ENCODER)[2].to_dict()}
        write_folder(folder, Parts(TrainedModel(network, ("video", "depth")), scoring, encoders))


def write_published(folder: Path) -> None:
    torch.manual_seed(0)
    network = MCN(12, 10, WORD_DIM, reconstruction_dim=7, audio_channels=(8, 16, 16, 32))
    torch.save(network.to_published(), folder / "e29.pth")
    with (folder / "GoogleNews-vectors-negative300.bin").open("wb") as file:
        file.write(f"{len(WORDS)} {WORD_DIM}\n".encode())
        for word, vector in zip(WORDS, word_vectors().vectors, strict=True):
            file.write(word.encode() + b" " + vector.tobytes() + b"\n")
