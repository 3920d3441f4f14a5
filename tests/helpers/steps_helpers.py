"""Small releases with annotated steps, in each layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

STEPS = {"23521": ["stir the salt", "add butter", "pour water"], "111": ["add salt", "stir"]}


def matrix(num_seconds: int, num_steps: int, spans: list[tuple[int, int, int]]) -> np.ndarray:
    """Of spans (step, first second, end)."""
    out = np.zeros((num_seconds, num_steps))
    for step, begin, end in spans:
        out[begin:end, step] = 1
    return out


MATRICES = {
    ("23521", "v1"): matrix(10, 3, [(0, 1, 3), (2, 5, 9), (0, 9, 10)]),
    ("23521", "v2"): matrix(8, 3, [(1, 0, 2)]),
    ("111", "v3"): matrix(6, 2, [(0, 2, 4), (1, 3, 5)]),
}


def rows(seed: int, num_rows: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).random((num_rows, width)).astype(np.float32)


def write_features(
    root: Path, video: str, seed: int, num_seconds: int, *, audio: bool = True, npz: bool = False
) -> None:
    folder = root / "features" / video
    folder.mkdir(parents=True, exist_ok=True)
    for ending, count, width in (("2d", num_seconds, 6), ("3d", num_seconds * 3 // 2, 5)):
        array = rows(seed + width, count, width)
        if npz:
            np.savez(folder / f"{video}_{ending}.npz", features=array)
        else:
            np.save(folder / f"{video}_{ending}.npy", array)
    if audio:
        spectrogram = -80 * rows(seed, 40, num_seconds * 100).astype(np.float16)
        np.savez(folder / f"{video}.npz", spectrogram)


def write_crosstask(root: Path) -> Path:
    """MCN's layout: two tasks, three videos; v2 has .npz features and no sound."""
    (root / "annotations").mkdir(parents=True)
    lines = ["task,video_id,path"]
    for seed, ((task, video), truth) in enumerate(MATRICES.items()):
        lines.append(f"{task},{video},some/{video}")
        np.save(root / "annotations" / f"{task}_{video}.npy", truth)
        write_features(root, video, 10 * seed, len(truth), audio=video != "v2", npz=video == "v2")
    (root / "cvpr19_test.csv").write_text("\n".join(lines) + "\n")
    (root / "step.json").write_text(json.dumps(STEPS))
    (root / "cook.txt").write_text("23521\n")
    return root


def write_crosstask_original(root: Path) -> Path:
    """The original layout: two annotated tasks, a related one; w1 and w2 are evaluated, w3 is for training."""
    (root / "annotations").mkdir(parents=True)
    (root / "features").mkdir()
    tasks = []
    for task, steps in STEPS.items():
        tasks += [task, f"Make {task}", "https://example.org", str(len(steps)), ",".join(steps), ""]
    (root / "tasks_primary.txt").write_text("\n".join(tasks) + "\n")
    url = "https://example.org/w"
    (root / "videos.csv").write_text(f"23521,w1,{url}\n23521,w3,{url}\n111,w2,{url}\n999,w9,{url}\n")
    (root / "videos_val.csv").write_text(f"23521,w1,{url}\n111,w2,{url}\n")
    (root / "annotations" / "23521_w1.csv").write_text("1,0.6,2.2\n3,4,6.5\n")
    (root / "annotations" / "23521_w3.csv").write_text("2,1.0,3.0\n")
    (root / "annotations" / "111_w2.csv").write_text("")
    for seed, (video, count) in enumerate({"w1": 7, "w2": 5, "w3": 6}.items()):
        np.save(root / "features" / f"{video}.npy", rows(seed, count, 3200))
    return root


def write_mining(root: Path) -> Path:
    """MCN's layout of Mining YouTube."""
    (root / "annotations").mkdir(parents=True)
    truths = {"m1": matrix(12, 3, [(0, 1, 4), (1, 4, 6), (2, 8, 11)]), "m2": matrix(6, 2, [(0, 0, 3), (1, 3, 6)])}
    for seed, (video, truth) in enumerate(truths.items()):
        np.save(root / "annotations" / f"{video}.npy", truth)
        write_features(root, video, 100 + seed, len(truth))
    (root / "mining_test.csv").write_text("video_id\nm1\nm2\n")
    steps = {"m1": ["add salt", "stir", "add salt"], "m2": ["stir", "add the salt"]}
    (root / "step.json").write_text(json.dumps(steps))
    return root


def srt(spans: list[tuple[float, float, str]]) -> str:
    def stamp(seconds: float) -> str:
        ms = round(seconds * 1000)
        return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d},{ms % 1000:03d}"

    return "\n".join(f"{i}\n{stamp(b)} --> {stamp(e)}\n{text}\n" for i, (b, e, text) in enumerate(spans, 1))


def write_mining_original(root: Path) -> Path:
    """The original layout: n1 with .srt, n2 with .gt at 2 frames a second, n3 for validation."""
    root.mkdir(parents=True)
    (root / "weakYouTube_dict.txt").write_text("0 background\n1 add_salt\n2 stir_egg\n")
    (root / "videos_test.txt").write_text("n1\nn2\n")
    (root / "n1.srt").write_text(srt([(0.5, 2.0, "add_salt"), (2.0, 3.0, "background"), (3.0, 5.0, "stir_egg")]))
    (root / "n1.grammar").write_text("add_salt background stir_egg\n")
    labels = ["background"] * 2 + ["stir_egg"] * 3 + ["add_salt"] * 5
    (root / "n2.gt").write_text("\n".join(labels) + "\n")
    (root / "n2.grammar").write_text("background add_salt stir_egg\n")  # another order than in n2.gt
    (root / "n3.srt").write_text(srt([(0.0, 1.0, "stir_egg")]))
    for seed, (video, count) in enumerate({"n1": 6, "n2": 5, "n3": 4}.items()):
        write_features(root, video, 200 + seed, count)
    return root
