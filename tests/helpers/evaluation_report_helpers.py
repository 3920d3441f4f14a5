"""Folders of evaluations as `trichord evaluate` writes them, with artificial embeddings, for tests of the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trichord.evaluation.embedded import Embedded
from trichord.report.contents import build_evaluations
from trichord.report.markdown import to_markdown
from trichord.report.systems import read_systems
from trichord.study.evaluate import evaluate
from trichord.study.evaluation import write_evaluation
from trichord.tasks.protocol import Options

CLASSES = ("stir", "fry", "cut", "boil")
WIDTH = 12


def planted(
    noise: float, seed: int = 0, *, num: int = 60, silent: int = 0, captions: bool = True, ids: str = "clip{}"
) -> Embedded:
    """Return clips of four classes with one text each; the first four texts are the names of the classes.

    Args:
        noise: Noise around the common part of the modalities of a clip.
        seed: Seed of the noise; the planted part is the same for all seeds.
        num: Number of clips.
        silent: Number of clips at the end that have no audio.
        captions: Whether the texts are saved.
        ids: Ids of the clips, by number.
    """
    rng, own = np.random.default_rng(1), np.random.default_rng([2, seed])
    kind = np.arange(num) % len(CLASSES)
    common = 0.8 * rng.normal(size=(num, WIDTH)) + rng.normal(size=(len(CLASSES), WIDTH))[kind]
    rows = {m: (common + noise * own.normal(size=(num, WIDTH))).astype(np.float32) for m in ("video", "audio", "text")}
    texts = [CLASSES[i] if i < len(CLASSES) else f"{CLASSES[k]} the soup, number {i}" for i, k in enumerate(kind)]
    return Embedded.of(
        rows,
        valid={"audio": np.arange(num) < num - silent},
        ids=[ids.format(i) for i in range(num)],
        videos=[f"video{i // 3}" for i in range(num)],
        captions=texts if captions else None,
        labels={"class": [CLASSES[k] for k in kind]},
    )


def seconds(noise: float, seed: int = 0) -> Embedded:
    """Return seconds of 12 videos of two tasks with three steps each, as in files for benchmarks of steps."""
    rng, own = np.random.default_rng(3), np.random.default_rng([4, seed])
    steps = rng.normal(size=(2, 3, WIDTH))
    rows, tasks, labels, videos = [], [], [], []
    for video in range(12):
        task = video % 2
        for second in range(9):
            shown = second // 3 if second % 3 else None
            base = steps[task, second // 3] if shown is not None else np.zeros(WIDTH)
            rows.append(base + noise * own.normal(size=WIDTH))
            tasks.append(f"task{task}")
            labels.append("" if shown is None else str(shown + 1))
            videos.append(f"video{video}")
    first = [tasks.index(f"task{task}") for task in range(2)]
    return Embedded.of(
        {"video": np.array(rows, np.float32), "text": steps.reshape(6, WIDTH).astype(np.float32)},
        text_clip=np.repeat(first, 3),
        videos=videos,
        labels={"task": tasks, "step": labels},
    )


def write_folder(
    out: Path,
    embedded: Embedded,
    names: Sequence[str] = ("retrieval", "zero-shot-classification"),
    directions: Sequence[str] = ("t2v", "v2a"),
    **options: Any,
) -> Path:
    """Write the folder of one evaluation, and the file of embeddings next to it; `options` are those of `Options`."""
    path = out.with_name(f"{out.name}.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    embedded.save(path)
    write_evaluation(
        evaluate(None, None, names, embeddings=path, directions=directions, options=Options(**options)), out
    )
    return out


def write_orders(
    out: Path, noises: Mapping[str, float], seeds: Sequence[int] = (0, 1, 2), *, make: Callable[..., Embedded] = planted,
    entry: Mapping[str, Any] | None = None, **how: Any,
) -> Path:  # fmt: skip
    """Write the folder of an evaluation of several orders of a study, with a noise level for each order."""
    models = []
    for place, (order, noise) in enumerate(noises.items()):
        for seed in seeds:
            folder = f"{order.replace('>', '-')}/seed-{seed}"
            write_folder(out / folder, make(noise, 10 * place + seed), **how)
            models.append({"order": order, "seed": seed, "folder": folder, "stage": "s", "note": "", **(entry or {})})
    content = {"study": "my_study", "store": None, "models": models, "left_out": []}
    (out / "results.json").write_text(json.dumps(content))
    return out


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change results.json of a folder."""
    content = json.loads((folder / "results.json").read_text())
    change(content)
    (folder / "results.json").write_text(json.dumps(content))
    return folder


def edit_arrays(folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> Path:
    """Change queries.npz of a folder."""
    with np.load(folder / "queries.npz") as kept:
        arrays = {name: kept[name] for name in kept.files}
    change(arrays)
    np.savez(folder / "queries.npz", **arrays)  # type: ignore[arg-type]
    return folder


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "queries.npz") as kept:
        return {name: kept[name] for name in kept.files}


def weak_folder(root: Path) -> Path:
    """Write the evaluation of a model with low recall."""
    return write_folder(root / "weak", planted(1.6, 1, silent=6))


def strong_folder(root: Path) -> Path:
    """Write the evaluation of a model with higher recall, on the same clips."""
    return write_folder(root / "strong", planted(0.7, 2, silent=6))


def orders_folder(root: Path) -> Path:
    """Write the evaluation of two orders of a study, with their seeds."""
    return write_orders(root / "orders", {"av>t": 2.6, "vt>a": 0.6}, names=("retrieval",))


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def evaluation_text(folders: list[Path]) -> str:
    """Return the report of evaluations as Markdown."""
    return to_markdown(build_evaluations(read_systems(folders)))
