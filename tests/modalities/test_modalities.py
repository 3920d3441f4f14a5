"""Modalities as objects: the registry, feature arrays without their own file, and their place in the network."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from modality_helpers import DEPTH_DIM, declared, write_store
from network_widths import WIDTHS
from trichord import modality
from trichord.captions import Captions
from trichord.data.reader import ClipReader, Clips, require_modalities
from trichord.errors import TrichordError
from trichord.modalities import registry
from trichord.modalities.base import Modality
from trichord.modalities.features import Features
from trichord.modalities.registry import modality_of_tensor, own_modalities, specification
from trichord.nn import MCN
from trichord.recipes import load_recipe
from trichord.store import Item, Store, StoreWriter, WordVectors
from trichord.store.items import PER_CAPTION
from trichord.store.names import ENCODERS
from trichord.study import factories

NO_WORDS = WordVectors([], np.zeros((0, 5), np.float32), "none", False)


@pytest.fixture(autouse=True)
def _depth_and_bones() -> Iterator[None]:
    with declared(depth="d", bones="b"):
        yield


def network(seed: int = 0, **feature_dims: int) -> MCN:
    torch.manual_seed(seed)
    return MCN(**WIDTHS, feature_dims=feature_dims)


def weights(model: MCN, *modalities: str) -> dict[str, torch.Tensor]:
    return {name: t for name, t in model.state_dict().items() if name.split(".")[1] in modalities}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    assert a and a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


# ---- the registry


def test_the_registry_finds_the_files_of_modalities_without_torch() -> None:
    code = (
        "import sys\nfrom trichord.modalities.registry import own_modalities\n"
        "assert list(own_modalities()) == ['audio', 'text', 'video'], own_modalities()\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_modality_without_a_file_is_feature_arrays() -> None:
    depth = specification("depth")
    assert isinstance(depth, Features) and (depth.name, depth.letter, depth.inputs) == ("depth", "d", ("depth",))
    assert specification("video") is own_modalities()["video"]
    assert modality_of_tensor("word_ids") == "text" and modality_of_tensor("depth") == "depth"
    with pytest.raises(
        TrichordError, match="unknown modality 'smell'; expected one of video, audio, text, bones, depth"
    ):
        specification("smell")


def test_a_file_that_defines_no_modality_is_refused() -> None:
    module = ModuleType("trichord.modalities.smell")
    with pytest.raises(TypeError, match="smell defines 0 subclasses of Modality; define exactly one"):
        registry._modality_of(module)
    module.Smell = type("Smell", (Modality,), {"__module__": module.__name__})  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="define exactly one, and implement all abstract methods"):
        registry._modality_of(module)


# ---- reading


def written(path: Path, items: list[Item]) -> Store:
    with StoreWriter(path, NO_WORDS) as writer:
        for item in items:
            writer.add(item)
    return Store(path)


def test_features_are_pooled_over_time_or_captions_or_are_one_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    captions = Captions(np.array([0.0, 4.0]), np.array([4.0, 8.0]), ("a", "b"))
    rows = {
        rate: rng.standard_normal((num, 5)).astype(np.float32) for rate, num in ((2.0, 16), (0.0, 1), (PER_CAPTION, 2))
    }
    items = [
        Item(f"v{i}", "c", "train", 8.0, {"depth": array}, {"depth": rate}, captions)
        for i, (rate, array) in enumerate(rows.items())
    ]
    store = written(tmp_path / "s", [*items, Item("v3", "c", "train", 8.0, {}, {}, captions)])
    spoken = [np.array([1])] * 4
    expected = np.stack([rows[2.0][8:16].max(0), rows[0.0][0], rows[PER_CAPTION][1], np.zeros(5)]).astype(np.float32)
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    for chosen in ([0, 1, 3], [0, 1, 2, 3]):
        clips = Clips(np.array(chosen), np.full(len(chosen), 4.0), np.full(len(chosen), 7.9), spoken[: len(chosen)])
        batch = ClipReader(store, ("depth",)).read(clips)
        assert batch.valid["depth"].tolist() == [item != 3 for item in chosen] and set(batch.inputs) == {"depth"}
        np.testing.assert_allclose(batch.inputs["depth"], (expected / np.maximum(lengths, 1e-12))[chosen], rtol=1e-6)
        assert batch.model_inputs(torch.zeros(0, 1)) == batch.inputs


def test_a_store_without_the_features_is_refused(tiny_store: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrichordError, match="order vd>t needs depth, which the store lacks; it has video, audio, text;"
    ):
        require_modalities(Store(tiny_store), ("video", "depth"), "order vd>t")
    require_modalities(Store(write_store(tmp_path / "s", num_train=2, num_test=1)), ("video", "depth"), "order vd>t")


# ---- the network


def test_initial_weights_do_not_depend_on_further_modalities() -> None:
    plain, fourth, fifth = network(), network(depth=7), network(bones=3, depth=7)
    for other in (fourth, fifth):
        assert equal(weights(plain, "video", "audio", "text"), weights(other, "video", "audio", "text"))
    assert equal(weights(fourth, "depth"), weights(fifth, "depth"))
    assert not equal(weights(fourth, "depth"), weights(network(1, depth=7), "depth"))
    assert not torch.equal(fifth.heads["depth"][0].weight, fifth.heads["bones"][0].weight)  # type: ignore[index]
    assert fifth.modalities == ("video", "audio", "text", "bones", "depth")


def test_a_modality_may_have_the_name_of_a_method(tmp_path: Path) -> None:
    with declared(items="i", forward="f", type="y"):
        model = network(items=3, forward=4, type=5)
        inputs = {"items": torch.randn(2, 3), "forward": torch.randn(2, 4), "type": torch.randn(2, 5)}
        out = model(**inputs)
        sum(o.embedding.sum() for o in out.values()).backward()
        assert all(p.grad is not None for m in inputs for p in model.encoders[m].parameters())
        assert {name.split(".")[1] for name in model.state_dict()} == set(model.modalities)
        again = copy.deepcopy(model.eval())
        again.load_state_dict(model.state_dict())
        assert not again.encoders["items"].training and set(again.modalities) == set(dict(again.encoders.items()))
        assert torch.equal(again.embed(**inputs)["type"], model.embed(**inputs)["type"])


def test_no_modality_has_the_name_of_a_tensor_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {name for modality in own_modalities().values() for name in modality.tensors} - set(own_modalities())
    assert taken == {"audio_frames", "audio_pooled", "text_mask", "word_ids"}
    for name in (*taken, "self", "training"):
        with pytest.raises(TrichordError, match=f"'{name}' cannot be the name of a modality"):
            modality.declare({name: "z"})
    monkeypatch.setattr(registry, "modality_of_tensor", {"depth": "pose"}.get)
    with pytest.raises(TrichordError, match="a modality cannot be named depth, because a tensor of pose has this name"):
        specification("depth")


def test_networks_that_are_made_in_turn_differ() -> None:
    torch.manual_seed(0)
    first, second = (MCN(**WIDTHS, feature_dims={"depth": 7}) for _ in range(2))
    assert not equal(weights(first, "depth"), weights(second, "depth"))


def test_the_arguments_name_further_modalities_only_where_there_are_some() -> None:
    assert "feature_dims" not in network().arguments
    model = network(depth=7)
    assert model.arguments["feature_dims"] == {"depth": 7} and model.arguments["modalities"] == (
        "video",
        "audio",
        "text",
    )
    again = MCN(**model.arguments)
    again.load_state_dict(model.state_dict())
    only = MCN(**WIDTHS | {"modalities": ()}, feature_dims={"depth": 7})
    assert only.modalities == ("depth",) and set(only.encoders) == {"depth"}


def test_features_are_encoded_by_a_gated_unit_and_reconstructed() -> None:
    model, x = network(depth=7), torch.randn(3, 7)
    out = model(depth=x, video=torch.randn(3, 6))
    gated = model.encoders["depth"].gated
    z = x @ gated.fc.weight.T + gated.fc.bias
    torch.testing.assert_close(out["depth"].embedding, z * torch.sigmoid(z @ gated.gate.weight.T + gated.gate.bias))
    assert torch.equal(out["depth"].target, x) and list(out) == ["video", "depth"]
    assert out["depth"].reconstruction is not None and (out["depth"].reconstruction < 0).any(), "no relu at the end"
    assert torch.equal(model.embed(depth=x)["depth"], out["depth"].embedding)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: network(depth=7)(depth=torch.zeros(2, 3)),
            "depth has the shape .2, 3., but this network expects 2 axes and a size of 7",
        ),
        (
            lambda: network(depth=7)(bones=torch.zeros(2, 3)),
            "this network has no encoder for bones; it has encoders for video, audio, text, depth",
        ),
        (lambda: network(depth=7)(vidoe=torch.zeros(2, 6)), "this network has no encoder for vidoe"),
        (lambda: network(smell=7), "unknown modality 'smell'"),
        (lambda: network(video=7), "feature_dims contains video, which is not a further modality"),
        (lambda: network(depth=7).to_published(), "there is no published checkpoint format for a network with depth"),
    ],
)
def test_mistakes_are_reported(call: Any, message: str) -> None:
    with pytest.raises(TrichordError, match=message):
        call()


def test_a_model_has_the_further_modalities_of_its_store(tiny_store: Path, tmp_path: Path) -> None:
    recipe = load_recipe("debug")
    plain = factories.build_model(recipe, Store(tiny_store), 3)
    model = factories.build_model(recipe, Store(write_store(tmp_path / "s", num_train=2, num_test=1)), 3)
    assert model.arguments == {**plain.arguments, "feature_dims": {"depth": DEPTH_DIM}}
    assert equal(weights(plain, "video", "audio", "text"), weights(model, "video", "audio", "text"))


def test_a_stream_with_the_name_of_another_stores_modality_is_none(tmp_path: Path) -> None:
    path = write_store(tmp_path / "s", num_train=2, num_test=1)
    (path / ENCODERS).unlink()  # the stream is of an encoder, not of arrays of a modality
    with declared(depth="d"):
        model = factories.build_model(load_recipe("debug"), Store(path), 0)
    assert not model.arguments.get("feature_dims")
