"""Compare the frozen pass, which computes the embeddings of a frozen DAVEnet for every clip, with the encoder alone.

The encoder alone runs on tensors in memory.

python benchmarks/bench_frozen.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from results import record

from trichord.captions import Captions
from trichord.data.batches import TrainingClips
from trichord.data.frozen_parts import BLOCK
from trichord.data.listing import list_clips
from trichord.data.reader import ClipReader
from trichord.modalities.base import ReadingSettings
from trichord.modality import Order
from trichord.nn import MCN
from trichord.store import Item, Store, StoreWriter, WordVectors
from trichord.training.frozen import FrozenSettings, frozen_inputs
from trichord.training.stage import stages_of

VIDEOS, CLIPS, CLIP_S, FRAMES, ROUNDS = 24, 32, 10, 1000, 3


def write_store(path: Path) -> Store:
    rng = np.random.default_rng(0)
    words = WordVectors(["word"], rng.standard_normal((1, 50)).astype(np.float32), "one")
    seconds = CLIPS * CLIP_S
    start_s = np.arange(CLIPS, dtype=np.float64) * CLIP_S
    with StoreWriter(path, words) as writer:
        for i in range(VIDEOS):
            streams = {
                "visual_2d": rng.random((seconds, 64)).astype(np.float16),
                "spectrogram": (rng.standard_normal((seconds * 100, 40)) * 10 - 40).astype(np.float16),
            }
            captions = Captions(start_s, start_s + CLIP_S, ("word",) * CLIPS)
            rates_hz = {"visual_2d": 1.0, "spectrogram": 100.0}
            writer.add(Item(f"v{i}", "bench", "train", float(seconds), streams, rates_hz, captions))
    return Store(path)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.manual_seed(0)
    model = MCN(video_dim=64, embed_dim=1024, word_dim=50, reconstruction_dim=None).eval()
    stage = stages_of(Order.parse("at>v"))[1]
    accelerator = Accelerator(cpu=True)
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "store")
        source = TrainingClips(
            store, store.select(), seed=0, videos_per_batch=VIDEOS, clips_per_video=CLIPS, min_clip_s=1.0
        )
        reader = ClipReader(store, ("video", "audio", "text"), ReadingSettings(audio_frames=FRAMES))
        num_clips = list_clips(source).num_clips
        batch = ClipReader(store, ("audio",), ReadingSettings(audio_frames=FRAMES)).read(source.draw(0, 0))
        assert num_clips == len(batch.valid["audio"])
        inputs = batch.model_inputs(torch.from_numpy(store.word_vectors))
        plain, passes = [], []
        for i in range(ROUNDS):
            begin = time.perf_counter()
            with torch.no_grad():
                blocks = [{k: v[at : at + BLOCK] for k, v in inputs.items()} for at in range(0, num_clips, BLOCK)]
                expected = torch.cat([model.embed(**block)["audio"] for block in blocks])
            plain.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            settings = FrozenSettings(True, 10**12, 10**9, f"no{'' if i == 0 else i}")  # a different key in each round
            found = frozen_inputs(model, stage, source, reader, settings, accelerator)
            passes.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        values, _ = found["audio"].read(source.draw(0, 0))
        lookup_s = time.perf_counter() - begin
        apart = float((torch.from_numpy(values) - expected).abs().max())
    ratios = [p / q for p, q in zip(passes, plain, strict=True)]
    rows = [
        ("forward pass alone, clips/s", f"{num_clips / statistics.median(plain):.1f}", ""),
        ("frozen pass of audio and text, clips/s", f"{num_clips / statistics.median(passes):.1f}", ""),
        ("frozen pass / forward pass, median of pairs", f"{statistics.median(ratios):.3f}", "1.10"),
        ("reading the saved embeddings, clips/s", f"{num_clips / lookup_s:,.0f}", ""),
        ("largest difference from the forward pass", f"{apart:.1e}", "0"),
    ]
    remarks = (
        f"DAVEnet at full width, {num_clips} clips of {FRAMES} frames, float32, {torch.get_num_threads()} threads, "
        f"{ROUNDS} pairs, measured in turn. The pass lists the clips, reads their spectrograms, encodes audio and text, and writes "
        "and maps the result."
    )
    record("bench_frozen.py", "Embeddings of a frozen DAVEnet, computed once", rows, remarks)


if __name__ == "__main__":
    main()
