"""Training with a modality of feature arrays: stages, chunks, frozen caches, missing clips, resuming, divergence, learning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modality_helpers import declared, write_store
from process_helpers import FORKSERVER
from scoring_helpers import evaluate_retrieval
from trichord.data.frozen import FrozenRows
from trichord.errors import Diverged, TrichordError
from trichord.logs import passing_messages
from trichord.modality import Direction, Order, known
from trichord.modality import declared as declared_now
from trichord.nn import MCN
from trichord.recipes import Recipe, load_recipe
from trichord.store import Store
from trichord.store.shards import read_header
from trichord.study import factories, run
from trichord.study.freeze import freeze
from trichord.study.reproduce import reproduce
from trichord.tasks.benchmarks import find_benchmark
from trichord.training.loop import train_stage
from trichord.training.models import load_model, save_model
from trichord.training.seals import sealed
from trichord.training.stage import stages_of


@pytest.fixture(autouse=True)
def _depth() -> Iterator[None]:
    with declared(depth="d"):
        yield


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which one of the six training videos has no depth."""
    return write_store(tmp_path_factory.mktemp("depth") / "store", num_train=6, num_test=2, missing=(1,))


def recipe_of(**training: Any) -> Recipe:
    options = {"tensorboard": False, "device": "cpu", "max_steps": 2, **training}
    # more draws than clips, so caches save work
    data = {"videos_per_batch": 6, "clips_per_video": 8, "audio_frames": 32}
    return load_recipe("debug", training=options, data=data, loss={"reconstruction_weight": 1.0})


def trained(store: Path, out: Path, order: str, **training: Any) -> run.TrainSummary:
    return run.train_order(store, out, order, 0, recipe_of(**training))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def changed(before: Path, after: Path) -> set[str]:
    one, two = weights(before), weights(after)
    return {name.split(".")[1] for name in one if not torch.equal(one[name], two[name])}


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_depth_joins_the_frozen_three(store_path: Path, tmp_path: Path) -> None:
    summary = trained(store_path, tmp_path / "run", "vt>a>d")
    _, second, third = summary.stage_folders
    assert changed(second, third) == {"depth"}
    assert {"contrast_VD", "contrast_AD", "contrast_TD", "reconstruction_D"} <= rows(third)[0].keys()
    kept = {path.name.split("-")[0] for path in (store_path / "frozen").iterdir() if path.is_dir()}
    assert {"video", "audio", "text"} <= kept
    described = json.loads((third / "model.json").read_text())
    assert described["modalities"] == {"depth": "d"} and described["trained"] == ["video", "text", "audio", "depth"]
    model = load_model(third)
    assert model.model.modalities == ("video", "audio", "text", "depth")
    assert {name: t.tolist() for name, t in model.model.state_dict().items()} == {
        name: t.tolist() for name, t in weights(third).items()
    }


def test_embeddings_of_frozen_depth_are_cached(store_path: Path, tmp_path: Path) -> None:
    one, two = (
        trained(store_path, tmp_path / cache, "vd>t", frozen_cache=cache).model_folder for cache in ("auto", "off")
    )
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(two)[name], rtol=1e-3, atol=1e-5)
    caches = [path for path in (store_path / "frozen").glob("depth-*") if (path / "index.json").is_file()]
    assert caches and not FrozenRows.open(caches[0]).valid.all(), "a clip without depth is not valid"


def test_chunks_give_the_weights_of_the_whole_batch(store_path: Path, tmp_path: Path) -> None:
    whole, chunked = (
        trained(store_path, tmp_path / str(chunk), "vd>t", chunk_clips=chunk).model_folder for chunk in (0, 5)
    )
    assert rows(whole)[0]["loss"] == pytest.approx(rows(chunked)[0]["loss"], rel=1e-5)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(tensor, weights(chunked)[name], rtol=1e-3, atol=2e-4)


def test_clips_without_depth_teach_nothing(tmp_path: Path) -> None:
    nothing = write_store(tmp_path / "store", num_train=6, num_test=1, missing=tuple(range(1, 7)))
    summary = trained(nothing, tmp_path / "run", "vt>d", max_steps=3)
    assert all(np.isfinite(row["loss"]) for row in rows(summary.model_folder))
    with pytest.raises(TrichordError, match="needs depth, which the store lacks"):
        trained(write_store(tmp_path / "none", num_train=6, num_test=1, dims={}), tmp_path / "no", "vt>d")


class Stopped(Exception):
    pass


def test_resumed_training_equals_uninterrupted(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(max_steps=4, checkpoint_every_steps=1)
    whole = run.train_order(store_path, tmp_path / "whole", "vd>t", 0, recipe)

    def stop(step: int) -> None:
        if step == 2:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(run, "train_stage", partial(train_stage, after_step=stop))
        with pytest.raises(Stopped):
            run.train_order(store_path, tmp_path / "cut", "vd>t", 0, recipe)
    cut = run.train_order(store_path, tmp_path / "cut", "vd>t", 0, recipe, resume=True)
    for a, b in zip(whole.stage_folders, cut.stage_folders, strict=True):
        assert rows(a) == rows(b) and all(torch.equal(tensor, weights(b)[name]) for name, tensor in weights(a).items())


def test_depth_that_is_not_finite_is_named_and_the_step_is_seen_again(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", num_train=8, num_test=1)
    opened = Store(store)
    _, begin, end, _ = opened.located("depth", np.array([3]))
    dtype, shape, offset = read_header(opened.shard_path(3))[1]["depth"]  # type: ignore[arg-type]
    with Path(opened.shard_path(3)).open("r+b") as file:
        file.seek(offset + int(begin[0]) * shape[1] * dtype.itemsize)
        file.write(np.full((int(end[0] - begin[0]), shape[1]), np.nan, dtype).tobytes())
    with pytest.raises(Diverged, match=f"video '{opened.video_id(3)}' .stream depth, "):
        trained(store, tmp_path / "run", "vd")
    (dump,) = (tmp_path / "run").glob("stages/*/divergence")
    with declared():
        reproduction = reproduce(dump)
        assert declared_now() == {"depth": "d"}, "the dump declares its modalities"
    assert reproduction.same and "first module whose output is not finite: encoders.depth" in reproduction.where[0]


def read_model(folder: Path) -> None:
    """Run in a process in which no modality is declared."""
    assert declared_now() == {}
    model = load_model(folder).model
    assert known() == model.modalities == ("video", "audio", "text", "depth")
    assert Order.parse("vd").modalities == ("video", "depth")


def test_a_model_declares_its_modalities_where_it_is_read(store_path: Path, tmp_path: Path) -> None:
    folder = trained(store_path, tmp_path / "run", "vd", max_steps=1).model_folder
    process = FORKSERVER.Process(target=read_model, args=(folder,))
    process.start()
    process.join()
    assert process.exitcode == 0
    with (
        declared(dance="d"),
        pytest.raises(TrichordError, match="model.json: modality depth: the letter d already stands"),
    ):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": ["depth"]}, "model.json: its modalities are not names with letters"),
        ({"modalities": {"../depth": "d"}}, "model.json: '../depth' cannot be the name of a modality"),
        ({"modalities": {"depth": "v"}}, "model.json: modality depth: the letter v already stands for video"),
        ({"modalities": {}}, "model.safetensors: unknown modality 'depth'"),
        ({"feature_dims": {"depth": 10**9}}, "the weights do not fit the model: encoders.depth"),
        ({"feature_dims": {"depth": -1}}, "model.safetensors: feature_dims: the width of depth is -1"),
        (
            {"feature_dims": {"depth": "7"}},
            "model.safetensors: feature_dims: the width of depth is 7; it must be an integer",
        ),
        ({"feature_dims": {"video": 7}}, "model.safetensors: feature_dims contains video"),
        ({"feature_dims": [7]}, "model.json: not a model description"),
        ({"feature_dims": 7}, "model.json: not a model description"),
    ],
)
def test_a_hostile_record_of_modalities_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MCN(6, 8, 5, None, audio_channels=(4,) * 4, feature_dims={"depth": 7})
    save_model(tmp_path, model, trained=("video", "depth"), visual_streams=("visual_2d",), settings={}, extra={})
    path = tmp_path / "model.json"
    described = json.loads(path.read_text())
    described["arguments"] |= {name: value for name, value in changes.items() if name == "feature_dims"}
    described |= {name: value for name, value in changes.items() if name == "modalities"}
    path.write_text(json.dumps(sealed({name: value for name, value in described.items() if name != "sha256"})))
    with declared(), pytest.raises(TrichordError, match=message):
        load_model(tmp_path)


def test_passes_of_orders_with_depth_are_computed_ahead(store_path: Path, tmp_path: Path) -> None:
    trained(store_path, tmp_path / "run", "avt", max_steps=2)
    before = set((store_path / "frozen").glob("*"))
    with declared():
        ready = freeze(tmp_path / "run", store_path, device="cpu")
    assert {path.name.split("-")[0] for path in ready} == {"video", "audio", "text"} and not before & set(ready)
    lines: list[str] = []
    with passing_messages(lines.append):
        run.train_order(store_path, tmp_path / "run", "avt>d", 0, recipe_of(), resume=True)
    assert not [line for line in lines if line.startswith("frozen")], "nothing was left to make"


def test_informative_depth_is_retrieved_by_words(tmp_path: Path) -> None:
    store = Store(write_store(tmp_path / "store", num_train=24, num_test=4))
    recipe = load_recipe(
        "small",
        training={"tensorboard": False, "device": "cpu", "epochs": 8},
        model={"embed_dim": 64, "reconstruction_dim": 0, "audio_channels": [4, 4, 4, 4]},
        loss={"cluster_weight": 0.0, "reconstruction_weight": 0.0},
        data={"min_clip_s": 4.0, "videos_per_batch": 8, "clips_per_video": 8},
    )
    summary = run.train_order(store.path, tmp_path / "run", "td", 0, recipe)
    trained_model = load_model(summary.model_folder)
    settings = factories.scoring_settings(recipe, trained_model.visual_streams)
    directions = [Direction.parse("t2d"), Direction.parse("d2t")]
    results = evaluate_retrieval(trained_model.model, store, find_benchmark(store, "tiny"), directions, settings)
    for result in results:
        assert result.num_queries == 32 and result.r1 > 3 * result.chance_r1, result


def test_stages_accept_only_declared_letters() -> None:
    assert stages_of(Order.parse("vt>d"))[1].modalities == ("video", "text", "depth")
    with pytest.raises(TrichordError, match="needs modality 'P', which the model does not have; it has V, A, T, D"):
        stages_of(Order.parse("vt>p"))
