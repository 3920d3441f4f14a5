"""The centroids of a trained model: the assignment to the nearest one, and the file that stores them next to the weights."""

from __future__ import annotations

import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from trichord.errors import TrichordError
from trichord.files.reading import file_sha256
from trichord.losses.centroids import Centroids
from trichord.losses.clustering import ClusterMemory
from trichord.losses.combined import CombinedLoss
from trichord.losses.pairwise.info_nce import InfoNCE
from trichord.nn import MCN, Encoded
from trichord.recipes import Recipe, load_recipe
from trichord.study import run
from trichord.training.checkpoint import checkpoints_of
from trichord.training.loop import train_stage
from trichord.training.models import load_model, save_model
from trichord.training.seals import sealed

SMALL: dict[str, Any] = {
    "video_dim": 6, "embed_dim": 4, "word_dim": 5, "reconstruction_dim": None, "audio_channels": (4, 4, 4, 4)
}  # fmt: skip


def debug(loss: dict[str, Any] | None = None, **training: Any) -> Recipe:
    training = {"tensorboard": False, "device": "cpu", "max_steps": 6, **training}
    return load_recipe("debug", training=training, loss=loss or {})


# ---- the nearest centroid


def slow_cosines(rows: list[list[list[float]]], centroids: list[list[float]], cosine: bool) -> list[list[float]]:
    """Return the cosine of each clip with each centroid.

    Args:
        rows: Embeddings per modality and clip.
    """

    def unit(row: list[float]) -> list[float]:
        length = math.sqrt(sum(x * x for x in row))
        return [x / length for x in row] if length > 0 else row

    out = []
    for clip in zip(*rows, strict=True):
        taken = [unit(row) if cosine else row for row in clip]
        mean = unit([sum(column) / len(taken) for column in zip(*taken, strict=True)])
        out.append([sum(a * b for a, b in zip(mean, unit(c), strict=True)) for c in centroids])
    return out


@given(st.integers(0, 2**31), st.integers(1, 3), st.booleans())
@settings(deadline=None, max_examples=60)
def test_the_nearest_centroid_is_that_of_the_definition(seed: int, modalities: int, cosine: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator)
    rows = {m: draw(7, 4) * 10 ** draw(7, 1) for m in ("video", "audio", "text")[:modalities]}
    centroids = draw(5, 4) * 10 ** draw(5, 1)
    nearest = Centroids(centroids, cosine).nearest(rows).tolist()
    for clip, scores in enumerate(slow_cosines([r.tolist() for r in rows.values()], centroids.tolist(), cosine)):
        assert scores[nearest[clip]] >= max(scores) - 1e-5
    # the length of the centroids does not matter
    assert Centroids(centroids * 7, cosine).nearest(rows).tolist() == nearest


def test_ties_go_to_the_first_and_lengths_weigh_where_the_loss_lets_them() -> None:
    axes = torch.eye(2)
    assert Centroids(axes).nearest({"video": torch.ones(1, 2)}).tolist() == [0]
    long = {"video": torch.tensor([[1.0, 0.9]]), "audio": torch.tensor([[0.0, 9.0]])}
    assert Centroids(axes, cosine=False).nearest(long).tolist() == [1]
    turned = {"video": torch.tensor([[3.0, 0.0]]), "audio": torch.tensor([[0.0, 9.0]])}
    assert (Centroids(axes).nearest(turned).tolist(), Centroids(axes, False).nearest(turned).tolist()) == ([0], [1])


@pytest.mark.parametrize("cosine", [True, False])
def test_clips_are_assigned_as_training_does_it(cosine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = ClusterMemory(4, 64, refit_every=1, normalize=cosine)
    loss = CombinedLoss(
        pairs=[("video", "audio")], contrast=InfoNCE(0.07),
        cluster=("video", "audio"), cluster_cosine=cosine, memory=memory,
    )  # fmt: skip
    labelled: list[torch.Tensor] = []
    update = memory.update

    def kept(*args: Any, **kwargs: Any) -> Any:
        fit = update(*args, **kwargs)
        assert fit is not None
        labelled.append(fit[1])
        return fit

    monkeypatch.setattr(memory, "update", kept)
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        rows = {
            m: torch.randn(20, 6, generator=generator) * 4 ** torch.randn(20, 1, generator=generator)
            for m in ("video", "audio")
        }
        outputs = {m: Encoded(r, r, None) for m, r in rows.items()}
        loss(outputs, {m: torch.ones(20, dtype=torch.bool) for m in rows})
        assert memory.centroids is not None
        assigned = Centroids(memory.centroids, cosine).nearest(rows)
        assert assigned.tolist() == labelled[-1].tolist() and len(set(assigned.tolist())) > 1


# ---- the file


@pytest.fixture(scope="module")
def trained(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    summary = run.train_order(tiny_store, tmp_path_factory.mktemp("run") / "run", "av>t", 0, debug())
    return summary.model_folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "stage"))


def described_as(folder: Path, **changes: Any) -> None:
    """Change and seal the description; None removes an entry."""
    described = {k: v for k, v in json.loads((folder / "model.json").read_text()).items() if k != "sha256"} | changes
    (folder / "model.json").write_text(json.dumps(sealed({k: v for k, v in described.items() if v is not None})))


def test_a_stage_saves_the_centroids_of_its_memory(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[torch.Tensor | None] = []

    def watched(model: Any, stage: Any, loss: CombinedLoss, *args: Any, **kwargs: Any) -> int:
        steps = train_stage(model, stage, loss, *args, **kwargs)
        assert loss.memory is not None
        held.append(loss.memory.centroids)
        return steps

    monkeypatch.setattr(run, "train_stage", watched)
    recipe = debug({"cluster_cosine": False})
    summary = run.train_order(tiny_store, tmp_path / "run", "av>t", 0, recipe)
    for stage, centroids in zip(summary.stage_folders, held, strict=True):
        saved = load_model(stage).centroids
        assert saved is not None and centroids is not None and not saved.cosine
        assert torch.equal(saved.rows, centroids) and saved.rows.shape == (8, recipe.model.embed_dim)
    assert not torch.equal(held[0], held[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("stop_at", [4, 6])
def test_a_resumed_stage_keeps_the_same_ones(
    stop_at: int, trained: Path, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def stop(step: int) -> None:
        if step == stop_at:
            raise Stopped

    recipe = debug(checkpoint_every_steps=3)
    monkeypatch.setattr(run, "train_stage", partial(train_stage, after_step=stop))
    with pytest.raises(Stopped):
        run.train_order(tiny_store, tmp_path / "run", "av>t", 0, recipe)
    monkeypatch.setattr(run, "train_stage", train_stage)
    again = run.train_order(tiny_store, tmp_path / "run", "av>t", 0, recipe, resume=True)
    for file in ("centroids.safetensors", "model.safetensors"):
        for one, two in zip(
            sorted(trained.parent.glob("av*")), sorted(again.model_folder.parent.glob("av*")), strict=True
        ):
            assert (one / file).read_bytes() == (two / file).read_bytes()


def test_a_stage_without_clustering_has_no_centroids(tiny_store: Path, tmp_path: Path) -> None:
    recipe = debug({"cluster_weight": 0.0}, max_steps=1)
    summary = run.train_order(tiny_store, tmp_path / "run", "vt", 0, recipe)
    assert load_model(summary.model_folder).centroids is None
    assert not (summary.model_folder / "centroids.safetensors").exists()
    assert "centroids_sha256" not in json.loads((summary.model_folder / "model.json").read_text())


def test_a_stage_of_before_is_read_and_not_trained_again(trained: Path, tiny_store: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(trained.parent.parent, tmp_path / "run"))
    stages = sorted((out / "stages").iterdir())
    assert len(stages) == 2
    for stage in stages:
        (stage / "centroids.safetensors").unlink()
        described_as(stage, centroids_sha256=None)
        assert load_model(stage).centroids is None
    before = {stage: (stage / "model.safetensors").stat().st_mtime_ns for stage in stages}
    summary = run.train_order(tiny_store, out, "av>t", 0, debug(), resume=True)
    assert summary.num_steps == 0 and sorted(summary.stage_folders) == stages
    assert before == {stage: (stage / "model.safetensors").stat().st_mtime_ns for stage in stages}


def test_a_checkpoint_has_those_of_its_step(tiny_store: Path, tmp_path: Path) -> None:
    recipe = debug(checkpoint_every_steps=1, keep_best=6)
    summary = run.train_order(tiny_store, tmp_path / "run", "vt", 0, recipe)
    checkpoints = checkpoints_of(summary.model_folder / "checkpoints")
    assert len(checkpoints) == 6
    for checkpoint in checkpoints:
        kept = load_file(checkpoint / "clusters.safetensors")["centroids"]
        centroids = load_model(checkpoint).centroids
        assert (centroids is None) == (len(kept) == 0) and (centroids is None or torch.equal(centroids.rows, kept))
    last, final = load_model(checkpoints[-1]).centroids, load_model(summary.model_folder).centroids
    assert last is not None and final is not None and torch.equal(last.rows, final.rows)


def test_saving_without_centroids_removes_existing_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save = partial(save_model, tmp_path, MCN(**SMALL), trained=("video",), visual_streams=("visual_2d",), extra={})
    rows = torch.randn(3, 4)
    save(settings={"loss": {"cluster_cosine": False}}, centroids=rows)
    loaded = load_model(tmp_path / "centroids.safetensors").centroids
    assert loaded is not None and torch.equal(loaded.rows, rows) and not loaded.cosine
    save(settings={}, centroids=rows)
    loaded = load_model(tmp_path).centroids
    assert loaded is not None and loaded.cosine
    save(settings={})
    assert load_model(tmp_path).centroids is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    save_file({"centroids": rows}, tmp_path / "centroids.safetensors")  # the description does not mention it
    assert load_model(tmp_path).centroids is None


def test_changed_ones_are_refused_byte_by_byte(folder: Path) -> None:
    path = folder / "centroids.safetensors"
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 23)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(
            TrichordError, match=r"centroids.safetensors: the centroids have changed since .*train the stage"
        ):
            load_model(folder)
    for content in (b"", whole[:-1], whole + b"\0"):
        path.write_bytes(content)
        with pytest.raises(TrichordError, match="the centroids have changed"):
            load_model(folder)
    path.unlink()
    with pytest.raises(TrichordError, match="centroids.safetensors: cannot be read .*; train the stage again"):
        load_model(folder)
    path.mkdir()
    with pytest.raises(TrichordError, match="cannot be read"):
        load_model(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"centroids": torch.zeros(3, 5)}, r"the centroids have shape \(3, 5\) and type torch.float32"),
        ({"centroids": torch.zeros(0, 32)}, r"the centroids have shape \(0, 32\)"),
        ({"centroids": torch.zeros(32)}, r"the centroids have shape \(32,\)"),
        ({"centroids": torch.zeros((), dtype=torch.int8)}, r"the centroids have shape \(\) and type torch.int8"),
        ({"centroids": torch.zeros(3, 32, dtype=torch.float64)}, "the centroids have shape .*float64"),
        ({"centroids": torch.full((3, 32), math.nan)}, "the centroids are not finite, so the model has diverged"),
        ({"other": torch.zeros(3, 32)}, "cannot be read"),
    ],
)
def test_a_sealed_file_without_centroids_is_refused(
    content: dict[str, torch.Tensor], message: str, folder: Path
) -> None:
    save_file(content, folder / "centroids.safetensors")
    described_as(folder, centroids_sha256=file_sha256(folder / "centroids.safetensors"))
    with pytest.raises(TrichordError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
