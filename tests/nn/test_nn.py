"""The encoders: shapes, arithmetic properties, padding, parts, precision."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.layers.davenet import output_steps
from trichord.nn import MCN, DAVEnet, GatedUnit

SMALL: dict[str, Any] = {
    "video_dim": 12, "embed_dim": 10, "word_dim": 6, "reconstruction_dim": 7, "audio_channels": (8, 16, 16, 32),
}  # fmt: skip


def small(**changes: Any) -> MCN:
    torch.manual_seed(0)
    return MCN(**{**SMALL, **changes})


def batch(num_clips: int = 5, num_frames: int = 80, num_words: int = 6, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    frames = torch.randint(1, num_frames + 1, (num_clips,), generator=generator)
    audio = draw(num_clips, 40, num_frames) * 10 - 40
    words = torch.randint(1, num_words + 1, (num_clips,), generator=generator)
    text = draw(num_clips, num_words, 6) * (torch.arange(num_words) < words[:, None])[:, :, None]
    return {"video": draw(num_clips, 12), "audio": audio, "audio_frames": frames, "text": text}


@pytest.mark.parametrize("frames,steps", [(800, 50), (1000, 63), (1024, 64), (3072, 192), (5120, 320), (1, 1), (17, 2)])
def test_davenet_length(frames: int, steps: int) -> None:
    with torch.device("meta"):
        net = DAVEnet()
        assert net(torch.empty(2, 40, frames)).shape == (2, 1024, steps)
    assert output_steps(frames) == steps


def test_parameter_totals() -> None:
    def total(model: torch.nn.Module) -> int:
        return sum(p.numel() for p in model.parameters())

    with torch.device("meta"):
        assert round(total(DAVEnet()) / 1e6, 2) == 44.67
        assert round(total(MCN()) / 1e6, 2) == 223.78
        assert round(total(MCN(reconstruction_dim=None)) / 1e6, 2) == 193.35
        assert (
            round(total(MCN(embed_dim=4096, reconstruction_dim=None, modalities=("video", "audio"))) / 1e6, 1) == 84.5
        )


def test_convolution_init() -> None:
    torch.manual_seed(0)
    net = DAVEnet(channels=(64, 64, 64, 64))
    for name, weight in net.named_parameters():
        if weight.ndim == 4:
            outputs, _, height, width = weight.shape
            spread = math.sqrt(2 / (height * width * outputs))
            assert weight.std().item() == pytest.approx(spread, rel=0.1), name
            assert not torch.equal(weight, torch.zeros_like(weight))


def test_gated_unit_oracle() -> None:
    torch.manual_seed(0)
    unit = GatedUnit(3, 4).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    w1, b1, w2, b2 = (p.detach().numpy() for p in (unit.fc.weight, unit.fc.bias, unit.gate.weight, unit.gate.bias))
    for row, got in zip(x.numpy(), unit(x).detach().numpy(), strict=True):
        z = [sum(w1[i][j] * row[j] for j in range(3)) + b1[i] for i in range(4)]
        gate = [1 / (1 + math.exp(-(sum(w2[i][j] * z[j] for j in range(4)) + b2[i]))) for i in range(4)]
        np.testing.assert_allclose(got, [a * g for a, g in zip(z, gate, strict=True)], rtol=1e-12)


def test_any_subset_of_modalities() -> None:
    model, data = small().eval(), batch()
    whole = model.embed(**data)
    assert {m: tuple(e.shape) for m, e in whole.items()} == {m: (5, 10) for m in ("video", "audio", "text")}
    assert torch.equal(model.embed(text=data["text"])["text"], whole["text"])
    assert torch.equal(model.embed(audio=data["audio"], audio_frames=data["audio_frames"])["audio"], whole["audio"])
    assert model.embed() == {}
    out = model(**data)
    assert {m: tuple(e.target.shape) for m, e in out.items()} == {"video": (5, 12), "audio": (5, 32), "text": (5, 10)}
    assert all(e.reconstruction.shape == e.target.shape and (e.reconstruction >= 0).all() for e in out.values())
    bare = small(reconstruction_dim=None)(**data)
    assert all(e.reconstruction is None for e in bare.values())
    assert (small(reconstruction_relu=False)(**data)["video"].reconstruction < 0).any()


def test_pooled_audio_in_place_of_audio() -> None:
    model, data = small().eval(), batch()
    whole = model(audio=data["audio"], audio_frames=data["audio_frames"])["audio"]
    again = model(audio_pooled=whole.target)["audio"]
    assert torch.equal(again.embedding, whole.embedding) and torch.equal(again.reconstruction, whole.reconstruction)


def test_parts_divide_the_network() -> None:
    model = small()
    ids: list[int] = []
    for modality in model.modalities:
        parts = model.parts(modality)
        assert list(parts) == ["encoder", "reconstruction"]
        for module in parts.values():
            ids += [id(t) for t in (*module.parameters(), *module.buffers())]
    whole = [id(t) for t in (*model.parameters(), *model.buffers())]
    assert len(set(ids)) == len(ids) and sorted(ids) == sorted(whole)
    assert small(reconstruction_dim=None).parts("audio")["reconstruction"] is None


def test_frozen_part_keeps_its_weights_and_buffers() -> None:
    model, data = small().train(), batch()
    frozen = model.parts("audio")["encoder"].eval().requires_grad_(False)
    before = copy.deepcopy(frozen.state_dict())
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        out = model(**data)
        loss = sum(e.embedding.square().mean() + (e.reconstruction - e.target).square().mean() for e in out.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = frozen.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not torch.equal(small().encoders["text"].word.weight, model.encoders["text"].word.weight)


@settings(max_examples=15, deadline=None)
@given(
    frames=st.lists(st.integers(0, 70), min_size=1, max_size=4).filter(lambda f: sum(f) > 40),
    more=st.integers(1, 60),
    training=st.booleans(),
)
def test_audio_padding_changes_nothing(frames: list[int], more: int, training: bool) -> None:
    """Neither content nor length of the padding matters: the embedding is that of the valid frames, in both modes."""
    length = max(frames)
    generator = torch.Generator().manual_seed(sum(frames))
    audio = torch.randn(len(frames), 40, length, generator=generator, dtype=torch.float64)
    other = torch.cat([audio, torch.full((len(frames), 40, more), 7.0, dtype=torch.float64)], -1)
    for i, n in enumerate(frames):
        other[i, :, n:] = 100.0
    counts = torch.tensor(frames)
    a, b = small().double().train(training), small().double().train(training)
    x = a.embed(audio=audio, audio_frames=counts)["audio"]
    y = b.embed(audio=other, audio_frames=counts)["audio"]
    torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)
    for name, buffer in a.named_buffers():
        torch.testing.assert_close(buffer, dict(b.named_buffers())[name], rtol=1e-9, atol=1e-9)
    if not training:
        for i, n in enumerate(frames):
            if n:
                alone = a.embed(audio=audio[i : i + 1, :, :n])["audio"]
                torch.testing.assert_close(x[i : i + 1], alone, rtol=1e-9, atol=1e-9)


def test_no_frame_and_no_word_pool_to_zeros() -> None:
    model, data = small().train(), batch()
    data["audio_frames"][1] = 0
    data["text"][2] = 0
    out = model(**data)
    assert not out["audio"].target[1].any() and not out["text"].target[2].any()
    assert out["audio"].target[0].any() and out["text"].target[0].any()
    nothing = model(audio=data["audio"], audio_frames=torch.zeros(5, dtype=torch.int64), text=data["text"][:, :0])
    assert not nothing["audio"].target.any() and not nothing["text"].target.any()
    sum(e.embedding.sum() for e in nothing.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    single = small().train()(audio=data["audio"], audio_frames=torch.tensor([1, 0, 0, 0, 0]))["audio"]
    assert single.embedding.isfinite().all()


def test_more_frames_than_there_are() -> None:
    model, data = small().eval(), batch()
    whole = model.embed(audio=data["audio"])["audio"]
    assert torch.equal(model.embed(audio=data["audio"], audio_frames=torch.full((5,), 9999))["audio"], whole)
    published = small(mask_padding=False).eval()
    torch.testing.assert_close(
        published.embed(audio=data["audio"], audio_frames=torch.full((5,), 9999))["audio"], whole, rtol=1e-5, atol=1e-5
    )


def test_text_padding() -> None:
    model, data = small().eval(), batch()
    text = data["text"]
    whole = model.embed(text=text)["text"]
    longer = torch.cat([text, torch.zeros(5, 4, 6)], 1)
    torch.testing.assert_close(model.embed(text=longer)["text"], whole)
    garbage = torch.cat([text, torch.full((5, 4, 6), 9.0)], 1)
    mask = torch.cat([(text != 0).any(-1), torch.zeros(5, 4, dtype=torch.bool)], 1)
    torch.testing.assert_close(model.embed(text=garbage, text_mask=mask)["text"], whole)
    # An oracle in loops: the maximum over the words that are there.
    encoder = model.encoders["text"]
    for i in range(5):
        rows = [encoder.word(row).relu() for row in text[i] if row.any()]
        pooled = torch.stack(rows).max(0).values
        torch.testing.assert_close(encoder.pool(text, None)[i], pooled)


def test_published_padding_is_an_option() -> None:
    model, data = small(mask_padding=False), batch()
    with torch.no_grad():
        model.encoders["text"].word.bias.fill_(5.0)
    model.eval()
    padded = torch.cat([data["text"] - 50.0, torch.zeros(5, 1, 6)], 1)
    pooled = model(text=padded)["text"].target
    assert (pooled >= 5.0).all()  # the padding row's bias wins
    audio, frames = data["audio"], data["audio_frames"]
    encoder = model.encoders["audio"]
    features = encoder.davenet(audio)
    for i, n in enumerate(frames.tolist()):
        expected = features[i, :, : max(1, n // round(80 / 5))].mean(-1)
        torch.testing.assert_close(encoder.pool(audio, frames)[i], expected)
    model.train()
    torch.testing.assert_close(encoder.pool(audio, frames), encoder.davenet(audio).mean(-1))


def test_inputs_are_unchanged_and_their_order_does_not_matter() -> None:
    model, data = small().eval(), batch()
    before = {k: v.clone() for k, v in data.items()}
    out = model.embed(**data)
    assert all(torch.equal(before[k], data[k]) for k in data)
    order = torch.tensor([3, 0, 4, 2, 1])
    moved = model.embed(**{k: v[order] for k, v in data.items()})
    for m in out:
        torch.testing.assert_close(moved[m], out[m][order])


def test_normalize() -> None:
    unit, data = small(normalize=True).eval(), batch()
    plain = small().eval()
    for m, e in unit.embed(**data).items():
        torch.testing.assert_close(e.norm(dim=1), torch.ones(5))
        torch.testing.assert_close(e, torch.nn.functional.normalize(plain.embed(**data)[m], dim=1))
    assert torch.equal(unit(**data)["text"].reconstruction, plain(**data)["text"].reconstruction)


@pytest.mark.parametrize("training", [True, False])
def test_autocast(training: bool) -> None:
    model, data = small().train(training), batch()
    exact = small().train(training).embed(**data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(**data)
    loss = sum(e.embedding.float().square().mean() + e.reconstruction.float().mean() for e in out.values())
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    for m in exact:
        torch.testing.assert_close(out[m].embedding.float(), exact[m], rtol=0.1, atol=0.1)


def test_half_precision_audio_under_autocast() -> None:
    data = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = small().eval().embed(audio=data["audio"].half(), audio_frames=data["audio_frames"])
    assert out["audio"].isfinite().all()


def test_rebuild_from_its_arguments() -> None:
    model = small(modalities=("text", "video"), mask_padding=False)
    assert model.modalities == ("video", "text")
    again = MCN(**model.arguments)
    again.load_state_dict(model.state_dict())
    assert again.arguments == model.arguments


@pytest.mark.parametrize(
    "shapes, message",
    [
        (
            {"video": torch.zeros(2, 13)},
            "video has the shape (2, 13), but this network expects 2 axes and a size of 12 on axis 1",
        ),
        (
            {"text": torch.zeros(2, 4, 5)},
            "text has the shape (2, 4, 5), but this network expects 3 axes and a size of 6",
        ),
        (
            {"audio": torch.zeros(2, 39, 9)},
            "audio has the shape (2, 39, 9), but this network expects 3 axes and a size of 40",
        ),
        ({"audio_pooled": torch.zeros(2, 5)}, "audio_pooled has the shape (2, 5)"),
        ({"audio": torch.zeros(2, 40, 9), "audio_pooled": torch.zeros(2, 32)}, "give only one of them"),
    ],
)
def test_wrong_shapes(shapes: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(TrichordError) as error:
        small().embed(**shapes)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_wrong_modalities() -> None:
    with pytest.raises(
        TrichordError, match="does not support the modalities .*; give one or more of video, audio, text"
    ):
        MCN(modalities=("video", "smell"))
    with pytest.raises(TrichordError, match="no encoder for audio; it has encoders for video, text"):
        small(modalities=("video", "text")).embed(audio=torch.zeros(1, 40, 16))
    with pytest.raises(TrichordError, match="no encoder for audio"):
        small(modalities=("video", "text")).parts("audio")
