"""Published checkpoints: layouts of keys, wrappers, missing and unknown keys, and files that are not executed."""

from __future__ import annotations

import argparse
import os
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from parity_recipe import shapes
from trichord.errors import TrichordError
from trichord.nn import MCN

SMALL: dict[str, Any] = {
    "video_dim": 12, "embed_dim": 10, "word_dim": 6, "reconstruction_dim": 7, "audio_channels": (8, 16, 16, 32),
}  # fmt: skip


def small(**changes: Any) -> MCN:
    torch.manual_seed(0)
    model = MCN(**{**SMALL, "mask_padding": False, **changes})
    for buffer in model.buffers():
        buffer.data = buffer.data + 1
    return model


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def howto100m() -> dict[str, torch.Tensor]:
    """Return a state dict like HowTo100M's: text and video, each unit with an unused batch norm."""
    torch.manual_seed(3)
    state = {"text_pooling.fc.weight": torch.randn(10, 6), "text_pooling.fc.bias": torch.randn(10)}
    for unit, width in (("GU_text", 10), ("GU_video", 12)):
        state |= {f"{unit}.fc.weight": torch.randn(10, width), f"{unit}.fc.bias": torch.randn(10)}
        state |= {f"{unit}.cg.fc.weight": torch.randn(10, 10), f"{unit}.cg.fc.bias": torch.randn(10)}
        norm = torch.nn.BatchNorm1d(10).state_dict()
        state |= {f"{unit}.cg.batch_norm.{k}": v + 1 for k, v in norm.items()}
    return state


def test_keys_shapes_and_order_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = MCN(256, 128, 300, 64)
    expected = shapes()
    ours = {theirs: tuple(model.state_dict()[key].shape) for theirs, key in _key_map(model).items()}
    batchnorm1 = [key for key in expected if key.startswith("DAVEnet.batchnorm1.")]
    assert len(batchnorm1) == 5 and list(expected)[:5] == batchnorm1
    assert list(expected)[5:] == list(ours) and all(expected[key] == ours[key] for key in ours)
    written = small().to_published()
    assert list(written) == list(expected)
    values = [written[key].item() for key in batchnorm1]
    assert values == [1.0, 0.0, 0.0, 1.0, 0]


def _key_map(model: MCN) -> dict[str, str]:
    from trichord.nn.published import _published_keys

    return _published_keys(model, "mcn")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reconstruction_dim": None},
        {"modalities": ("video", "text")},
        {"modalities": ("video", "audio"), "reconstruction_dim": None},
        {"modalities": ("audio", "text")},
        {"mel_bins": 20},
    ],
)
def test_round_trip(changes: dict[str, Any]) -> None:
    model = small(**changes)
    state = model.to_published()
    again = MCN.from_published(state)
    assert again.modalities == model.modalities
    absent = {"video": "video_dim", "audio": "audio_channels", "text": "word_dim"}
    skip = {absent[m] for m in absent if m not in model.modalities}
    assert {k: v for k, v in again.arguments.items() if k not in skip} == {
        k: v for k, v in model.arguments.items() if k not in skip
    }
    ours, theirs = model.state_dict(), again.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert same(again.to_published(), state)
    assert not again.load_report.missing and not again.load_report.unexpected


def test_wrappers_prefixes_and_files(tmp_path: Path) -> None:
    state = small().to_published()
    prefixed = {f"module.{key}": value for key, value in state.items()}
    for source in ({"state_dict": state}, {"net": state, "epoch": 3}, prefixed, {"net": {"state_dict": prefixed}}):
        assert same(MCN.from_published(source).to_published(), state)
        torch.save(source, tmp_path / "a.pth")
        assert same(MCN.from_published(tmp_path / "a.pth").to_published(), state)
    save_file(state, tmp_path / "a.safetensors")
    read = MCN.from_published(str(tmp_path / "a.safetensors")).to_published()
    assert set(read) == set(state) and all(torch.equal(read[key], state[key]) for key in state)


def test_the_unused_keys_are_named_and_kept() -> None:
    state = small().to_published()
    state["DAVEnet.batchnorm1.running_mean"] += 5
    model = MCN.from_published(state)
    assert model.load_report.ignored == tuple(key for key in state if "batchnorm1" in key)
    assert "5 ignored (DAVEnet.batchnorm1.weight" in str(model.load_report)
    assert same(model.to_published(), state)
    bare = {key: value for key, value in state.items() if "batchnorm1" not in key}
    assert MCN.from_published(bare).load_report.ignored == ()
    assert str(small().load_report) == "no checkpoint was loaded"


def test_howto100m() -> None:
    state = howto100m()
    model = MCN.from_published(state).eval()
    assert model.load_report.layout == "howto100m" and model.modalities == ("video", "text")
    assert len(model.load_report.ignored) == 10
    assert same(model.to_published(), state)
    out = model.embed(video=torch.randn(3, 12), text=torch.randn(3, 4, 6))
    assert all(torch.allclose(e.norm(dim=1), torch.ones(3)) for e in out.values())
    assert not MCN.from_published(state, normalize=False).normalize


def test_published_behaviour_is_the_default() -> None:
    state = small().to_published()
    assert not MCN.from_published(state).arguments["mask_padding"]
    assert MCN.from_published(state, mask_padding=True).arguments["mask_padding"]
    assert len(MCN.from_published(state, reconstruction_relu=False).heads["video"]) == 3


def test_half_precision_weights_become_float32() -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in small().to_published().items()}
    model = MCN.from_published(state)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_missing_and_unknown_keys() -> None:
    state = small().to_published()
    changed = {k: v for k, v in state.items() if k not in ("GU_audio.cg.fc.bias", "recon_t.2.bias")}
    changed["projection_head.0.weight"] = torch.zeros(2, 2)
    changed["GU_video.cg.fc.weight"] = torch.zeros(10, 9)
    with pytest.raises(TrichordError) as error:
        MCN.from_published(changed)
    text = str(error.value)
    assert "\n" not in text and text.startswith("the state dict: does not fit the published mcn network; missing keys:")
    assert "missing keys: GU_audio.cg.fc.bias, recon_t.2.bias;" in text
    assert "unknown keys: projection_head.0.weight;" in text
    assert "different shapes: GU_video.cg.fc.weight (10, 9) instead of (10, 10);" in text and "allow=[...]" in text
    changed["GU_video.cg.fc.weight"] = state["GU_video.cg.fc.weight"]
    model = MCN.from_published(changed, allow=["*.bias", "projection_head.*"])
    assert model.load_report.missing == ("GU_audio.cg.fc.bias", "recon_t.2.bias")
    assert model.load_report.unexpected == ("projection_head.0.weight",)
    with pytest.raises(TrichordError, match="unknown keys: GU_audio_text.cg.fc.weight"):
        MCN.from_published({**state, "GU_audio_text.cg.fc.weight": torch.zeros(1)})
    with pytest.raises(TrichordError, match="missing keys: DAVEnet.layer4.1.bn2.bias"):
        MCN.from_published({k: v for k, v in state.items() if k != "DAVEnet.layer4.1.bn2.bias"})
    with pytest.raises(TrichordError, match="key DAVEnet.conv1.weight is missing; the checkpoint is incomplete"):
        MCN.from_published({k: v for k, v in state.items() if k != "DAVEnet.conv1.weight"})
    with pytest.raises(
        TrichordError, match="recon_v.0.weight has the unexpected shape \\(\\); the file is not a checkpoint"
    ):
        MCN.from_published({**state, "recon_v.0.weight": torch.tensor(1.0)})
    with pytest.raises(TrichordError, match="the keys of all encoders are missing"):
        MCN.from_published({k: v for k, v in state.items() if k.startswith("recon_")})
    many = {k: v for k, v in state.items() if not k.startswith("DAVEnet.layer1.1.")}
    with pytest.raises(TrichordError, match="bn2.weight and 4 more;"):
        MCN.from_published(many)


@pytest.mark.parametrize(
    "wrapped", ["net", "state_dict", "model", "model_state_dict", "model/state_dict", "checkpoint/model"]
)
@pytest.mark.parametrize("new_zip", [True, False])
def test_checkpoints_as_training_code_writes_them(wrapped: str, new_zip: bool, tmp_path: Path) -> None:
    network = small()
    state: Any = network.to_published()
    module = torch.nn.Module()
    for key, value in state.items():
        module.register_parameter(key.replace(".", "|"), torch.nn.Parameter(value, requires_grad=False))
    kept = module.state_dict(keep_vars=True)  # an OrderedDict with _metadata, of Parameters
    held: Any = type(kept)((key.replace("|", "."), value) for key, value in kept.items())
    held._metadata = kept._metadata
    for wrapper in reversed(wrapped.split("/")):
        held = {wrapper: held}
    more = {
        "epoch": 3,
        "best": np.float64(0.5),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "loss": [np.float32(1)],
        "args": argparse.Namespace(lr=0.1, root=Path("/data/x"), names=["a"], more=SimpleNamespace(depth=2)),
        "counts": Counter("ab"),
        "meters": defaultdict(list, loss=[1.0]),
    }
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))]).state_dict()
    torch.save({**held, **more, "optimizer": optimizer}, tmp_path / "x.pth", _use_new_zipfile_serialization=new_zip)
    read = MCN.from_published(tmp_path / "x.pth").to_published()
    assert all(torch.equal(read[key], value) for key, value in state.items())


@pytest.mark.parametrize("prefix", ["module.module.", "_orig_mod.", "model.", "module._orig_mod.net."])
def test_the_prefixes_of_wrapped_networks_are_removed(prefix: str, tmp_path: Path) -> None:
    state: Any = small().to_published()
    torch.save({"state_dict": {prefix + key: value for key, value in state.items()}}, tmp_path / "x.ckpt")
    read = MCN.from_published(tmp_path / "x.ckpt").to_published()
    assert all(torch.equal(read[key], value) for key, value in state.items())


class Tripwire:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_files_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = small().to_published()
    torch.save({"state_dict": state, "config": Tripwire()}, "evil.pth")
    Path("torn.pth").write_bytes(Path("evil.pth").read_bytes()[:5000])
    Path("text.pth").write_text("not a checkpoint")
    Path("torn.safetensors").write_bytes(b"\x00" * 20)
    Path("empty.pth").write_bytes(b"")
    torch.save([1, 2], "list.pth")
    torch.save({}, "none.pth")
    torch.save({"weight": torch.zeros(2)}, "other.pth")
    torch.save({**state, "epoch": 3}, "mixed.pth")
    expected = {
        "evil.pth": "evil.pth: refused: holds posix.mkdir, which is not an array, tensor, list",
        "torn.pth": "torn.pth: is a broken zip file of torch.save (",
        "text.pth": "text.pth: ",
        "torn.safetensors": "torn.safetensors: cannot be read as a checkpoint (",
        "empty.pth": "empty.pth: is empty; download or save it again",
        "list.pth": "list.pth: does not contain a state dict (a mapping of names to tensors)",
        "none.pth": "none.pth: does not contain a state dict",
        "other.pth": "other.pth: none of the keys belongs to MCN, AVLnet or HowTo100M (the keys are weight)",
        "mixed.pth": "mixed.pth: does not contain a state dict, because these entries are not tensors: epoch;",
        "absent.pth": "absent.pth: does not exist; give a .pth, .pt or .safetensors file",
    }
    for name, message in expected.items():
        with pytest.raises(TrichordError) as error:
            MCN.from_published(name)
        assert message in str(error.value) and "\n" not in str(error.value), str(error.value)
    assert not Path("executed").exists()
