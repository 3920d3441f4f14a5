"""The inputs and weights behind `data/parity/mcn_outputs.npz`, which holds the outputs of the published MCN code for them.

Every value is determined by a name: crc32 of "<salt>:<name>" seeds a NumPy RandomState. `state_dict_shapes.json` lists the
published keys and shapes of the small network that was run: embedding 128, video input 256, words of 300, reconstruction width
64, and all other widths as published.
"""

from __future__ import annotations

import json
import zlib

import numpy as np

from paths import FIXTURES

DATA = FIXTURES / "parity"
SALT = "public"
CLIPS, FRAMES, WORDS, EMBED, VIDEO, WORD_DIM, CENTROIDS = 6, 320, 20, 128, 256, 300, 8
NUM_FRAMES = [320, 160, 17, 5, 317, 200]  # valid spectrogram frames of each clip, before padding


def shapes() -> dict[str, tuple[int, ...]]:
    text = (DATA / "state_dict_shapes.json").read_text(encoding="utf-8")
    return {key: tuple(shape) for key, shape in json.loads(text).items()}


def outputs() -> dict[str, np.ndarray]:
    with np.load(DATA / "mcn_outputs.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.RandomState(zlib.crc32(f"{SALT}:{name}".encode()) & 0x7FFFFFFF).standard_normal(shape)


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the value of one state-dict entry: `num_batches_tracked` is 0, everything else comes from the key's own seed."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    x = _draw(key, shape)
    x = x / np.sqrt(int(np.prod(shape[1:]))) if len(shape) > 1 else 0.1 * x
    x = x.astype(np.float32)
    if key.endswith("running_var"):
        return (1.0 + np.abs(x)).astype(np.float32)
    if len(shape) == 1 and key.endswith("weight"):
        return (1.0 + x).astype(np.float32)
    return x


def array(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return _draw(f"input:{name}", shape).astype(np.float32)


def inputs() -> dict[str, np.ndarray]:
    video = array("video", (CLIPS, VIDEO))
    return {
        "video": video / np.maximum(np.linalg.norm(video, axis=1, keepdims=True), 1e-12),
        "audio": array("audio", (CLIPS, 40, FRAMES)) * 10 - 40,
        "text": array("text", (CLIPS, WORDS, WORD_DIM)) * 0.2,
        "centroids": array("centroids", (CENTROIDS, EMBED)),
        "labels": np.arange(CLIPS) % CENTROIDS,
    }


def scores(n: int = 200) -> np.ndarray:
    s = array("scores", (n, n))
    s[np.arange(n), np.arange(n)] += 1.0
    return s


def waveform() -> np.ndarray:
    """Return three seconds at 16 kHz, noise and a rising tone: the source of `spectrogram`."""
    y = array("waveform", (16000 * 3,)) * np.float32(0.05)
    t = np.arange(y.size) / 16000
    return y + 0.3 * np.sin(2 * np.pi * (300 + 200 * t) * t).astype(np.float32)
