"""Write one small artefact of each kind with the current version, and the figures that this version reads from them.

Run it with the version that is to be pinned: `python tests/helpers/make_earlier.py FOLDER`, then pack the folder as
`tests/fixtures/earlier.tar.xz`. `test_earlier.py` reads all artefacts with every later version and expects the same figures.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tiny import NUM_WORDS, VIDEO_DIM, WORDS, word_vectors
from trichord.captions import Captions
from trichord.cli import main
from trichord.recipes import load_recipe
from trichord.store import Item, StoreWriter
from trichord.study import run
from trichord.training import checkpoint, loop

CLIPS, CLIP_S = 3, 2
RECIPE = """\
extends: debug
model: {embed_dim: 8, audio_channels: [2, 2, 2, 2], reconstruction_dim: 8}
data: {videos_per_batch: 2, clips_per_video: 2}
loss: {num_clusters: 2, cluster_rows: 8}
training: {epochs: 2, tensorboard: false, device: cpu, checkpoint_every_steps: 2}
"""


def small_item(index: int, split: str) -> Item:
    """Return an item like `tiny.tiny_item`, of a few kilobytes."""
    shared = np.random.default_rng(1)
    looks, sounds = np.abs(shared.standard_normal((NUM_WORDS, VIDEO_DIM))), shared.integers(-60, -20, (NUM_WORDS, 40))
    word_indices = np.random.default_rng([2, index]).integers(0, NUM_WORDS, (CLIPS, 3))
    duration_s = CLIPS * CLIP_S
    rows = np.repeat(looks[word_indices].sum(1), CLIP_S, axis=0).astype(np.float16)
    frames = np.repeat(sounds[word_indices].mean(1).round(), CLIP_S * 100, axis=0).astype(np.float16)
    start_s = np.arange(CLIPS, dtype=np.float64) * CLIP_S
    captions = Captions(start_s, start_s + CLIP_S, tuple(" ".join(WORDS[w] for w in words) for words in word_indices))
    streams, rates = {"visual_2d": rows, "spectrogram": frames}, {"visual_2d": 1.0, "spectrogram": 100.0}
    return Item(
        f"video{index}", "small", split, float(duration_s), streams, rates, captions, source=f"{index:064x}:made"
    )


def table(store: Path, out: Path, *words: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*words, "--store", str(store), "--out", str(out)]) == 0


def make(folder: Path) -> None:
    store = folder / "store"
    with StoreWriter(store, word_vectors()) as writer:
        for index in range(4):
            writer.add(small_item(index, "train"))
        writer.flush()
        for index in range(4, 8):
            writer.add(small_item(index, "test"))
    (folder / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe(folder / "recipe.yaml")
    run.run_study(store, folder / "study", ["av>t", "avt"], [0], recipe)

    class Stopped(Exception):
        pass

    def save_and_stop(*arguments: object, **options: object) -> None:
        checkpoint.save_checkpoint(*arguments, **options)
        raise Stopped

    with contextlib.suppress(Stopped), pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save_and_stop)
        run.train_order(store, folder / "stopped", "vt", 0, recipe)
    stage = next((folder / "study" / "stages").glob("avt.seed0.*"))
    table(store, folder / "model", "export-model", str(stage))
    table(store, folder / "evaluation", "evaluate", str(stage), "--benchmark", "small/test", "--directions", "t2v,v2t",
          "--save-embeddings", str(folder / "embeddings.npz"))  # fmt: skip
    figures = {
        "study": json.loads((folder / "study" / "study.json").read_text())["results"],
        "table": (folder / "study" / "table.csv").read_text(),
        "evaluation": json.loads((folder / "evaluation" / "results.json").read_text())["benchmarks"][0]["rows"],
        "keys": sorted(path.name for path in (folder / "study" / "stages").iterdir()),
    }
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    for lock in folder.rglob(".lock"):
        lock.unlink()


if __name__ == "__main__":
    make(Path(sys.argv[1]))
