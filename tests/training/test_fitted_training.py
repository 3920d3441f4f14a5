"""Weight decay, dropout, masks, learned temperatures and pair weights in whole trainings: processes, chunks, stages and keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from split_training import run_processes
from trichord.errors import TrichordError
from trichord.losses.combined import CombinedLoss
from trichord.modality import Order
from trichord.nn import MCN
from trichord.recipes import Recipe, load_recipe
from trichord.study import run
from trichord.study.plan import plan_order
from trichord.study.run import train_order
from trichord.training.models import load_model

LOSS = {"contrast": "info_nce", "cosine": True, "temperature": 0.1, "learn_temperature": True, "cluster_weight": 0}
WAYS: dict[str, dict[str, Any]] = {"none": {}, "full": {"shard": "full"}, "chunks": {"chunk_clips": 3}}


def recipe_of(model: dict[str, Any] | None = None, loss: dict[str, Any] | None = None, **training: Any) -> Recipe:
    settings = {
        "tensorboard": False,
        "device": "cpu",
        "max_steps": 4,
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        **training,
    }
    data = {"videos_per_batch": 3, "clips_per_video": 2, "audio_frames": 100}
    model = {"dropout": {"video": 0.3, "text": 0.2}, **(model or {})}
    return load_recipe("debug", training=settings, data=data, loss=LOSS | (loss or {}), model=model)


def train(store: Path, out: Path, order: str = "vt", **settings: Any) -> list[Path]:
    return list(train_order(store, out, order, 0, recipe_of(**settings)).stage_folders)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def temperatures(folder: Path) -> dict[str, float]:
    return {name[6:-16]: float(value.exp()) for name, value in weights(folder).items() if name.startswith("pairs.")}


def work(rank: int, store: str, folder: str) -> None:
    for name, settings in WAYS.items():
        torch.distributed.barrier()
        train(Path(store), Path(folder) / name, **settings)


@pytest.fixture(scope="module")
def alone(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_store, tmp_path_factory.mktemp("alone") / "run")[0]


@pytest.fixture(scope="module")
def two(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run_processes(2, work, folder, str(tiny_store), str(folder))
    return folder


def check_close(folder: Path, expected: Path) -> None:
    one, other = weights(folder), weights(expected)
    assert one.keys() == other.keys() and "pairs.video-text.log_temperature" in one
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_as_one(way: str, two: Path, alone: Path) -> None:
    """Noise, temperatures and their gradients do not depend on the number of processes, on shards or on chunks."""
    (folder,) = (two / way / "stages").iterdir()
    check_close(folder, alone)


def test_chunks_see_the_same_noise_as_the_whole_batch(alone: Path, tiny_store: Path, tmp_path: Path) -> None:
    check_close(train(tiny_store, tmp_path / "run", chunk_clips=4)[0], alone)


def test_temperatures_are_learned_logged_and_kept_in_their_range(alone: Path, tiny_store: Path, tmp_path: Path) -> None:
    learned = temperatures(alone)
    assert learned["video-text"] != pytest.approx(0.1) and learned["audio-text"] == pytest.approx(0.1)
    lines = [json.loads(line) for line in (alone / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["temperature_VT"] == pytest.approx(learned["video-text"]) and "temperature_AT" not in lines[-1]
    limits = {"least_temperature": 0.0999, "most_temperature": 0.1001}
    (folder,) = train(tiny_store, tmp_path / "run", loss=limits)
    assert 0.0999 <= temperatures(folder)["video-text"] <= 0.1001 + 1e-6
    assert load_model(folder).model.temperatures([("video", "text")])[("video", "text")] > 0.0998


def test_a_later_stage_keeps_the_temperature_of_the_earlier_pair(tiny_store: Path, tmp_path: Path) -> None:
    first, last = map(temperatures, train(tiny_store, tmp_path / "run", "vt>a"))
    assert last["video-text"] == first["video-text"] != pytest.approx(0.1)
    assert first["video-audio"] == first["audio-text"] == pytest.approx(0.1)
    assert last["video-audio"] != pytest.approx(0.1) and last["audio-text"] != pytest.approx(0.1)


def test_a_replayed_pair_continues_from_its_learned_temperature() -> None:
    """Added pairs have the initial temperature of the seed, and replayed ones that of the preceding stage."""
    recipe = load_recipe("debug", later_stages={"thaw": 0.5, "replay": True})
    planned = plan_order(Order.parse("vt>a"), 0, recipe, "f" * 64).stages[-1]
    learned, fresh = (
        MCN(video_dim=3, embed_dim=2, word_dim=3, audio_channels=(2, 2, 2, 2), pair_temperature=t) for t in (0.2, 0.1)
    )
    model = run._with_fresh(learned, fresh, planned)
    assert {pair: round(float(t.detach()), 4) for pair, t in model.temperatures(planned.stage.pairs).items()} == {
        ("video", "text"): 0.2, ("video", "audio"): 0.1, ("audio", "text"): 0.1,
    }  # fmt: skip


def test_reconstruction_targets_are_inputs_without_noise(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features of the store are above 0, so that a zero is a dropped feature."""
    plain, targets = CombinedLoss.__call__, []

    def watched(self: CombinedLoss, outputs: Any, *arguments: Any) -> dict[str, Tensor]:
        targets.append(outputs["video"].target)
        return plain(self, outputs, *arguments)

    monkeypatch.setattr(CombinedLoss, "__call__", watched)
    train(tiny_store, tmp_path / "run", max_steps=1)
    assert len(targets) == 1 and bool((targets[0] > 0).all())


def test_a_pair_of_weight_zero_is_not_trained(tiny_store: Path, tmp_path: Path) -> None:
    learned = temperatures(train(tiny_store, tmp_path / "run", "avt", loss={"pair_weights": {"ta": 0, "av": 2}})[0])
    assert learned["audio-text"] == pytest.approx(0.1) and learned["video-audio"] != pytest.approx(0.1)


def keys(order: str, **settings: Any) -> list[str]:
    return [stage.key for stage in plan_order(Order.parse(order), 0, recipe_of(**settings), "f" * 64).stages]


def test_keys_depend_on_the_settings_of_the_modalities_and_pairs_of_the_stage() -> None:
    plain = keys("av>t", model={"dropout": 0.0}, weight_decay=0.0)
    assert keys("av>t", model={"dropout": {"text": 0.0}}, weight_decay={"audio": 0}) == plain
    text = keys(
        "av>t", model={"dropout": {"text": 0.2}}, weight_decay={"text": 0.1}, loss={"pair_weights": {"vt": 0.5}}
    )
    assert text[0] == plain[0] and text[1] != plain[1], "the first stage has no text"
    masks = {"dropout": 0.0, "time_mask": 5}
    assert keys("vt>a", model=masks, weight_decay=0.0)[0] == keys("vt>a", model={"dropout": 0.0}, weight_decay=0.0)[0]
    assert keys("av>t", model=masks, weight_decay=0.0)[0] != plain[0]
    by_name = {m: 0.1 for m in ("video", "audio", "text", "depth")}
    assert keys("av>t", weight_decay=0.1) == keys("av>t", weight_decay=by_name) != plain
    weighted = [keys("avt", loss={"pair_weights": given}) for given in ({"vt": 2, "at": 1}, {"tv": 2}, {"tv": 3}, 1.0)]
    assert weighted[0] == weighted[1] and len({tuple(k) for k in weighted}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_decay": {"smell": 0.1}}, r"training\.weight_decay names 'smell'; expected one of video, audio, text"),
        ({"model": {"dropout": {"vt": 0.1}}}, r"model\.dropout names 'vt'; expected one of video"),
        ({"loss": {"pair_weights": {"video": 1}}}, r"loss\.pair_weights names 'video'; expected one of av, tv, at"),
        (
            {"model": {"dropout": {"text": 1}}},
            r"model\.dropout\.text is 1\.0; it must be at least 0, and at most 0\.95",
        ),
        ({"model": {"dropout": "much"}}, r"model\.dropout is much; it must be a number, or numbers by name"),
        ({"weight_decay": {"text": "x"}}, r"training\.weight_decay is \{'text': 'x'\}; give a number, or a mapping"),
        ({"weight_decay": {"text": float("nan")}}, r"training\.weight_decay\.text is nan; it must be a finite number"),
        ({"loss": {"contrast": "mms", "temperature": 1}}, r"learn_temperature has no effect with loss\.contrast mms"),
        ({"loss": {"temperature": 0.5}}, r"must lie between loss\.least_temperature \(0\.01\) and"),
        ({"loss": {"least_temperature": 0.2}}, r"must lie between loss\.least_temperature \(0\.2\) and"),
    ],
)
def test_mistakes_name_the_setting(settings: dict[str, Any], message: str, tiny_store: Path, tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match=message):
        train(tiny_store, tmp_path / "run", **settings)
