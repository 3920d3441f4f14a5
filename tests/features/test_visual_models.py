"""Image models of transformers and timm: tiny random models, saved like real ones, compared with direct use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trichord.errors import TrichordError
from trichord.features import huggingface, timm_models
from trichord.features.model_files import import_transformers
from trichord.features.visual import load_visual_encoder, visual_encoder_info, visual_info
from trichord.media.sampling import FrameSpec


def hf(name: str) -> Any:
    """Return a class of the transformers library, which takes seconds to import, so it is imported only when a test uses it."""
    return getattr(import_transformers("tests"), name)


SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
TEXT = {
    **{k: SMALL[k] for k in list(SMALL)[:4]},
    "vocab_size": 50,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
SQUARE = {"height": 32, "width": 32}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    torch.manual_seed(0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))


def clip() -> tuple[Any, Any]:
    config = hf("CLIPConfig")(text_config=TEXT, vision_config=SMALL, projection_dim=16)
    return hf("CLIPModel")(config), hf("CLIPImageProcessor")(size={"shortest_edge": 32}, crop_size=SQUARE)


def siglip() -> tuple[Any, Any]:
    return hf("SiglipModel")(hf("SiglipConfig")(text_config=TEXT, vision_config=SMALL)), hf("SiglipImageProcessor")(
        size=SQUARE
    )


def dinov2() -> tuple[Any, Any]:
    config = hf("Dinov2Config")(**{k: v for k, v in SMALL.items() if k != "intermediate_size"})
    return hf("Dinov2Model")(config), hf("BitImageProcessor")(size={"shortest_edge": 36}, crop_size=SQUARE)


def vit() -> tuple[Any, Any]:
    """A classifier: its file has no pooler, but the model that transformers loads from it has one."""
    return hf("ViTForImageClassification")(hf("ViTConfig")(**SMALL)), hf("ViTImageProcessor")(size=SQUARE)


def vit_with_pooler() -> tuple[Any, Any]:
    return hf("ViTModel")(hf("ViTConfig")(**SMALL)), hf("ViTImageProcessor")(size=SQUARE)


def convnext() -> tuple[Any, Any]:
    config = hf("ConvNextConfig")(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1])
    return hf("ConvNextModel")(config), hf("ConvNextImageProcessor")(size={"shortest_edge": 56}, crop_pct=0.875)


def saved(folder: Path, make: Callable[[], tuple[Any, Any]]) -> tuple[Path, Any, Any]:
    model, processor = make()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, model.eval(), processor


POOLED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "clip": lambda m, x: m.visual_projection(m.vision_model(pixel_values=x).pooler_output),
    "siglip": lambda m, x: m.vision_model(pixel_values=x).pooler_output,
    "dinov2": lambda m, x: m(pixel_values=x).last_hidden_state[:, 0],
    "vit": lambda m, x: m.vit(pixel_values=x).last_hidden_state[:, 0],
    "vit_with_pooler": lambda m, x: m(pixel_values=x).pooler_output,
    "convnext": lambda m, x: m.layernorm(m(pixel_values=x).last_hidden_state.mean((2, 3))),
}
FRAMES = {
    "clip": FrameSpec(short_side=32),
    "dinov2": FrameSpec(short_side=36),
    "convnext": FrameSpec(short_side=64),
}


@pytest.mark.parametrize("make", [clip, siglip, dinov2, vit, vit_with_pooler, convnext], ids=lambda make: make.__name__)
def test_a_transformers_model_returns_its_own_features(make: Callable[[], tuple[Any, Any]], tmp_path: Path) -> None:
    folder, model, processor = saved(tmp_path / "model", make)
    encoder = load_visual_encoder(f"hf:{folder}")
    assert encoder.frames == FRAMES.get(make.__name__, FrameSpec(width=32, height=32))
    assert (encoder.stream, encoder.window, encoder.rate_hz) == ("visual_2d", 1, 1.0)
    width, height = encoder.frames.size_of(640, 360)
    pictures = np.random.RandomState(0).randint(0, 256, (5, height, width, 3)).astype(np.uint8)
    pictures.flags.writeable = False
    rows = encoder.encode(pictures)
    with torch.inference_mode():
        inputs = processor(images=[p.copy() for p in pictures], return_tensors="pt")["pixel_values"]
        expected = F.normalize(POOLED[make.__name__](model, inputs), dim=1).numpy()
    assert rows.dtype == np.float16 and rows.shape == expected.shape == (5, encoder.dim)
    assert np.abs(rows - expected).max() < 1e-3
    assert np.abs(np.linalg.norm(rows.astype(np.float64), axis=1) - 1).max() < 1e-3
    parts = [encoder.encode(pictures[:2]), encoder.encode(pictures[2:3]), encoder.encode(pictures[3:])]
    assert np.array_equal(np.concatenate(parts), rows)
    assert encoder.encode(pictures[:0]).shape == (0, encoder.dim)
    assert encoder.encode(np.zeros((1, 90, 50, 3), np.uint8)).shape == (1, encoder.dim)  # the processor scales


def test_the_pictures_that_a_processor_wants_need_no_scaling_by_it(tmp_path: Path) -> None:
    for make in (clip, siglip, dinov2, convnext):
        folder, _, processor = saved(tmp_path / make.__name__, make)
        frames = huggingface.frames_of(json.loads((folder / "preprocessor_config.json").read_text()))
        width, height = frames.size_of(641, 359)
        picture = np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)
        ours = processor(images=[picture], return_tensors="pt", do_rescale=False, do_normalize=False)["pixel_values"][0]
        side = ours.shape[-1]
        top, left = (height - side) // 2, (width - side) // 2
        near = [picture[top : top + side, x : x + side] for x in (left, left + 1)]  # which half of an odd pixel
        assert any(np.array_equal(ours.permute(1, 2, 0).numpy().astype(np.uint8), cut) for cut in near)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({}, FrameSpec()),
        ({"size": 224}, FrameSpec(width=224, height=224)),
        ({"size": 224, "do_center_crop": True}, FrameSpec(short_side=224)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, FrameSpec(width=384, height=384)),
        ({"size": {"shortest_edge": 224}, "image_processor_type": "ConvNextImageProcessor"}, FrameSpec(short_side=256)),
        ({"size": {"shortest_edge": 224, "longest_edge": 500}}, FrameSpec()),
        ({"size": {"height": 384, "width": 256}}, FrameSpec(width=256, height=384)),
        ({"size": {"height": 384, "width": 256}, "do_resize": False}, FrameSpec()),
    ],
)
def test_sizes_of_processors(processor: dict[str, Any], expected: FrameSpec) -> None:
    assert huggingface.frames_of(processor) == expected


def test_the_fingerprint_follows_weights_and_settings_not_the_place(tmp_path: Path) -> None:
    folder, model, _ = saved(tmp_path / "a" / "small-clip", clip)
    stream, dim, fingerprint = visual_encoder_info(f"hf:{folder}")
    assert (stream, dim, fingerprint.name) == ("visual_2d", None, "hf:small-clip")
    assert fingerprint.parameters["pooling"] == "image features, else pooler, else CLS, else mean"
    assert load_visual_encoder(f"hf:{folder}").fingerprint == fingerprint
    moved = folder.rename(tmp_path / "small-clip")
    assert visual_encoder_info(f"hf:{moved}")[2] == fingerprint
    hub_fingerprint = visual_encoder_info("hf:org/name", moved)[2]
    assert hub_fingerprint.name == "hf:org/name" and hub_fingerprint.weights == fingerprint.weights
    (moved / "preprocessor_config.json").write_text('{"size": 64, "image_processor_type": "CLIPImageProcessor"}')
    changed = visual_encoder_info(f"hf:{moved}")[2]
    assert changed.digest != fingerprint.digest and changed.weights == fingerprint.weights


def test_transformers_models_that_cannot_be_used(tmp_path: Path) -> None:
    def expect(folder: Path, text: str) -> None:
        with pytest.raises(TrichordError, match=text) as caught:
            load_visual_encoder(f"hf:{folder}")
        assert "\n" not in str(caught.value)

    mae = saved(
        tmp_path / "mae",
        lambda: (
            hf("ViTMAEModel")(hf("ViTMAEConfig")(**SMALL)),
            hf("ViTImageProcessor")(size=SQUARE),
        ),
    )[0]
    expect(mae, r"^hf:mae: returns different features for the same picture each time; choose another model$")
    bert = saved(
        tmp_path / "bert",
        lambda: (
            hf("BertModel")(hf("BertConfig")(**TEXT)),
            hf("ViTImageProcessor")(size=SQUARE),
        ),
    )[0]
    expect(bert, r"bert: BertModel returned no features for a picture \(.+\); choose an image model$")
    folder, model, _ = saved(tmp_path / "lacking", vit)
    state = {
        k: v for k, v in model.state_dict().items() if not k.startswith("vit.encoder.layer.1.") and "layers.1." not in k
    }
    model.save_pretrained(folder, state_dict=state)
    expect(folder, r"lacking: the file lacks \d+ parameters of ViTModel, such as .+; download it again")
    (folder / "preprocessor_config.json").unlink()
    saved_again = saved(tmp_path / "bare", dinov2)[0]
    (saved_again / "preprocessor_config.json").unlink()
    expect(
        saved_again,
        r"bare: has no usable image processor \(.+\); add the preprocessor_config\.json of the model to the folder$",
    )
    (saved_again / "config.json").write_text('{"architecture": "resnet18"}')
    expect(saved_again, r"bare: is a timm model; use timm:resnet18$")
    (saved_again / "config.json").write_text("{")
    expect(saved_again, r"config\.json: is not readable JSON \(.+\); replace the file$")
    with pytest.raises(
        TrichordError, match=r"^hf:: the model is missing; use hf:ORGANIZATION/NAME or hf:/path/to/folder$"
    ):
        visual_info("hf:")
    with pytest.raises(
        TrichordError, match=r"^/nowhere: does not exist; with hf:MODEL, --weights_2d must be the folder"
    ):
        visual_info("hf:org/name", Path("/nowhere"))
    with pytest.raises(
        TrichordError, match=r"models--org--name: the model is missing and .+ run `hf download org/name`"
    ):
        visual_info("hf:org/name")


def test_code_of_a_repository_is_never_run(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", dinov2)[0]
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    config = json.loads((folder / "config.json").read_text())
    config.update(model_type="evil", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TrichordError, match="model"):
        load_visual_encoder(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


# ---- timm


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224.augreg_in21k"])
@pytest.mark.parametrize("with_classifier", [True, False])
def test_a_timm_model_returns_its_own_features(name: str, with_classifier: bool, tmp_path: Path) -> None:
    timm = timm_models._timm()
    model = timm.create_model(name, pretrained=False, **({} if with_classifier else {"num_classes": 0})).eval()
    for key, value in model.state_dict().items():  # a new ResNet's blocks add nothing, its norms are as they begin
        if "bn" in key and key.endswith(("weight", "running_var")):
            value.uniform_(0.5, 1.5)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "w.pth")
    encoder = load_visual_encoder(f"timm:{name}", tmp_path / "w.pth")
    assert visual_encoder_info(f"timm:{name}", tmp_path / "w.pth") == ("visual_2d", None, encoder.fingerprint)
    assert encoder.fingerprint.name in ("timm:resnet10t.c3_in1k", "timm:vit_tiny_patch16_224.augreg_in21k")
    data = timm.data.resolve_model_data_config(model)
    pictures = np.random.RandomState(0).randint(0, 256, (3, *data["input_size"][1:], 3)).astype(np.uint8)
    rows = encoder.encode(pictures)
    mean, std = torch.tensor(data["mean"])[:, None, None], torch.tensor(data["std"])[:, None, None]
    with torch.inference_mode():
        x = (torch.tensor(pictures).permute(0, 3, 1, 2) / 255 - mean) / std
        expected = F.normalize(model.forward_head(model.forward_features(x), pre_logits=True), dim=1)
    assert rows.shape == expected.shape == (3, encoder.dim) and np.abs(rows - expected.numpy()).max() < 1e-3
    assert np.array_equal(np.concatenate([encoder.encode(pictures[:1]), encoder.encode(pictures[1:])]), rows)


def test_timms_evaluation_transform(tmp_path: Path) -> None:
    """Compares size and crop with timm's own transform, on a picture of another shape."""
    timm = timm_models._timm()
    torch.save(timm.create_model("resnet10t", pretrained=False).state_dict(), tmp_path / "w.pth")
    encoder = load_visual_encoder("timm:resnet10t", tmp_path / "w.pth")
    data = timm.data.resolve_model_data_config(timm.create_model("resnet10t"))
    assert encoder.frames == FrameSpec(short_side=int(176 / data["crop_pct"]), crop=176)
    from PIL import Image
    from sklearn.datasets import load_sample_image

    picture = load_sample_image("china.jpg")
    own = timm.data.create_transform(**data, is_training=False)(Image.fromarray(picture))
    ours = encoder.prepare(picture[None])[0]  # type: ignore[attr-defined]
    assert own.shape == ours.shape == (3, 176, 176) and (own - ours).abs().mean() < 0.02
    assert timm_models.frames_of({"input_size": (3, 224, 224), "crop_pct": 1.0, "crop_mode": "squash"}) == FrameSpec(
        width=224, height=224, crop=224
    )
    assert timm_models.frames_of({"input_size": (3, 240, 320), "crop_pct": 1.0}) == FrameSpec(width=320, height=240)


def test_timm_models_that_cannot_be_used(tmp_path: Path) -> None:
    for name, near in (
        ("resnet18.nosuch", "similar names: .+resnet18"),
        ("nosuch", "`timm.list_models"),
        ("", "`timm.list_mod"),
    ):
        with pytest.raises(TrichordError, match=rf"^timm:{name}: timm [\d.]+ has no such model; {near}"):
            visual_info(f"timm:{name}")
    expected = (
        rf"^{tmp_path}/cache/hub: the weights of timm:resnet18\.a1_in1k are missing and HF_HUB_OFFLINE .+--weights_2d$"
    )
    with pytest.raises(TrichordError, match=expected):
        visual_info("timm:resnet18")
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    (tmp_path / "damaged.pth").write_bytes(b"not weights")
    for file in ("w.pth", "damaged.pth"):
        with pytest.raises(
            TrichordError, match=rf"^{tmp_path}/{file}: these are not the weights of timm:resnet10t\.c3"
        ):
            load_visual_encoder("timm:resnet10t", tmp_path / file)


def test_timm_weights_from_the_cache_of_the_hub(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    root = tmp_path / "cache" / "hub" / "models--timm--resnet10t.c3_in1k"
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    save_file(
        timm_models._timm().create_model("resnet10t", pretrained=False).state_dict(), snapshot / "model.safetensors"
    )
    assert visual_info("timm:resnet10t").files == (snapshot / "model.safetensors",)
    assert load_visual_encoder("timm:resnet10t").encode(np.zeros((1, 176, 176, 3), np.uint8)).shape == (1, 512)
