"""The modality of docs/add-a-modality.md, a single file with its own encoder, can be trained."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modality_helpers import declared, write_store
from network_widths import WIDTHS
from paths import ROOT
from trichord import modalities, modality
from trichord.data.reader import ClipReader, Clips
from trichord.errors import TrichordError
from trichord.modalities import registry
from trichord.modalities.registry import modality_of_tensor, specification
from trichord.nn import MCN
from trichord.recipes import load_recipe
from trichord.store import Store
from trichord.study import run
from trichord.training.models import load_model

PAGE = ROOT / "docs" / "add-a-modality.md"
POSE_DIM = 5


def forget() -> None:
    registry.own_modalities.cache_clear()
    registry._owners.cache_clear()
    sys.modules.pop("trichord.modalities.pose", None)
    vars(modalities).pop("pose", None)


@pytest.fixture(autouse=True)
def _pose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add the file of the page to the package of modalities."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "pose.py").write_text(code)
    with declared():
        monkeypatch.setattr(modalities, "__path__", [*modalities.__path__, str(tmp_path / "added")])
        forget()
        registry.own_modalities()  # as when the registry is imported
        yield
        forget()


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    """A store in which one of the six training videos has no poses."""
    return write_store(tmp_path / "store", num_train=6, num_test=2, dims={"pose": POSE_DIM}, missing=(1,))


def test_the_file_is_found_and_declared(store_path: Path) -> None:
    assert specification("pose").inputs == ("pose", "pose_rows") and modality_of_tensor("pose_rows") == "pose"
    assert modality.declared() == {"pose": "p"} and specification("video").letter == "v"
    with pytest.raises(TrichordError, match="modality posture: the letter p already stands for pose"):
        modality.declare({"posture": "p"})


def test_poses_are_read_and_encoded(store_path: Path) -> None:
    store = Store(store_path)
    clips = Clips(np.array([0, 1, 2]), np.array([5.0, 0.0, 3.0]), np.array([7.9, 4.9, 30.0]), [np.array([0])] * 3)
    batch = ClipReader(store, ("pose",)).read(clips)
    assert batch.valid["pose"].tolist() == [True, False, True] and batch.inputs["pose_rows"].tolist() == [3, 0, 16]
    assert (
        np.array_equal(batch.inputs["pose"][0, :3], store.rows("pose", 0, 5, 8))
        and not batch.inputs["pose"][0, 3:].any()
    )
    torch.manual_seed(0)
    model = MCN(**WIDTHS, feature_dims={"pose": POSE_DIM})
    out = model(**batch.model_inputs(torch.zeros(0, 5)))["pose"]
    recurrent = model.encoders["pose"].recurrent
    states, _ = recurrent(batch.inputs["pose"][:1, :3])
    torch.testing.assert_close(out.embedding[0], states[0, -1])
    torch.testing.assert_close(out.target[0], batch.inputs["pose"][0, :3].mean(0))
    assert out.reconstruction is not None and out.reconstruction.shape == (3, POSE_DIM)
    with pytest.raises(
        TrichordError, match="pose has the shape .3, 16, 4., but this network expects 3 axes and a size of 5"
    ):
        model(pose=torch.zeros(3, 16, 4), pose_rows=torch.ones(3, dtype=torch.int64))


@pytest.mark.parametrize(("order", "chunk"), [("vt>p", 0), ("vp>t", 5)])
def test_it_trains_in_stages_frozen_and_in_chunks(order: str, chunk: int, store_path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(
        "debug",
        training={"tensorboard": False, "device": "cpu", "max_steps": 2, "chunk_clips": chunk},
        data={"videos_per_batch": 6, "clips_per_video": 8, "audio_frames": 100},
    )
    summary = run.train_order(store_path, tmp_path / "run", order, 0, recipe)
    first, second = (load_file(folder / "model.safetensors") for folder in summary.stage_folders)
    changed = {name.split(".")[1] for name in first if not torch.equal(first[name], second[name])}
    assert changed == {modality.name_of(order[-1])}
    assert (order == "vp>t") == bool(list((store_path / "frozen").glob("pose-*/index.json")))
    weights = load_model(summary.model_folder).model.state_dict()
    assert torch.equal(weights["encoders.pose.recurrent.weight_hh_l0"], second["encoders.pose.recurrent.weight_hh_l0"])
