"""Write a study and evaluations whose figures differ by order with the current version, and the figures that it reads from
them.

`python tests/helpers/make_golden_figures.py FOLDER` writes the sample to FOLDER, packs it as
`tests/fixtures/earlier-figures.tar.xz` and writes `tests/fixtures/golden_figures.json`, which
`test_golden_figures.py` compares with what every later version reads. Run it again only for a version whose formats are to be
pinned as well.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
from test_golden_figures import DIRECTIONS, FIGURES, SAMPLE, figures_of

from make_earlier import small_item
from tiny import word_vectors
from trichord.cli import main
from trichord.evaluation.embedded import Embedded
from trichord.recipes import load_recipe
from trichord.store import StoreWriter
from trichord.study.run import run_study

RECIPE = """\
extends: small
model: {embed_dim: 16, audio_channels: [4, 4, 4, 8], reconstruction_dim: 8}
data: {videos_per_batch: 8, clips_per_video: 2, min_clip_s: 2.0, audio_frames: 200}
loss: {num_clusters: 2, cluster_rows: 16}
training: {epochs: 15, learning_rate: 0.01, tensorboard: false, device: cpu, frozen_cache: "off"}
"""
NUM_TRAIN, NUM_TEST, NUM_CLIPS = 16, 24, 40


def quietly(*words: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(list(words)) == 0


def embedded(noise: float) -> Embedded:
    """Return clips whose modalities agree up to noise; some have no sound, and two have the same picture."""
    rng = np.random.default_rng(7)
    truth = rng.standard_normal((NUM_CLIPS, 6))
    names = ("video", "audio", "text")
    embeddings = {name: (truth + noise * rng.standard_normal(truth.shape)).astype(np.float32) for name in names}
    embeddings["video"][1] = embeddings["video"][0]
    embeddings["audio"][::9] = np.nan
    ids = [f"clip{number}" for number in range(NUM_CLIPS)]
    captions = [f"caption {number}" for number in range(NUM_CLIPS)]
    labels = {"class": np.array([f"class{number % 4}" for number in range(NUM_CLIPS)])}
    return Embedded.of(embeddings, ids=ids, captions=captions, labels=labels)


def make(folder: Path) -> None:
    store = folder.with_name(folder.name + "-store")
    with StoreWriter(store, word_vectors()) as writer:
        for index in range(NUM_TRAIN + NUM_TEST):
            writer.add(small_item(index, "train" if index < NUM_TRAIN else "test"))
    (folder / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe(folder / "recipe.yaml")
    run_study(store, folder / "study", ["vt>a", "avt"], [0, 1], recipe)
    quietly("evaluate", str(folder / "study"), "--store", str(store), "--benchmark", "small/test", "--directions", "t2v,v2t",
            "--out", str(folder / "orders"))  # fmt: skip
    for name, noise in (("near", 0.6), ("far", 1.4)):
        embedded(noise).save(folder / f"{name}.npz")
        quietly("evaluate", "--embeddings", str(folder / f"{name}.npz"), "--benchmark", "retrieval", "--directions", DIRECTIONS,
                "--out", str(folder / name))  # fmt: skip
    for path in [*folder.rglob(".lock"), *folder.rglob("*.png"), *folder.rglob("*.safetensors")]:
        path.unlink()


def pack(folder: Path) -> None:
    with tarfile.open(SAMPLE, "w:xz") as archive:
        archive.add(folder, arcname=".")


if __name__ == "__main__":
    root = Path(sys.argv[1])
    root.mkdir(parents=True)
    make(root)
    pack(root)
    figures = figures_of(root, root.with_name(root.name + "-out"))
    FIGURES.write_text(json.dumps(figures, separators=(",", ":")) + "\n")
