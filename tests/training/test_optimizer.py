"""The optimizer of a stage: which weights decay, and at which rate which modality trains."""

from __future__ import annotations

import pytest
import torch

from trichord.modality import Order
from trichord.nn import MCN
from trichord.settings import TrainingSettings
from trichord.training.optimizer import build_optimizer
from trichord.training.stage import prepare_model, stages_of

RATE = 0.1


def network(**arguments: float) -> MCN:
    torch.manual_seed(0)
    return MCN(video_dim=6, embed_dim=4, word_dim=5, reconstruction_dim=3, audio_channels=(2, 2, 2, 2), **arguments)


def step_without_gradient(model: MCN, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the factor by which each trained weight changes in a step with gradients of zero."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimizer.step()
    factors = {}
    for name, p in model.named_parameters():
        ratio = (p.detach() / before[name])[before[name] != 0]
        assert torch.allclose(ratio, ratio[:1].expand_as(ratio))
        factors[name] = float(ratio[0]) if len(ratio) else 1.0
    return factors


def test_without_weight_decay_it_is_adam() -> None:
    model, (stage,) = network(), stages_of(Order.parse("avt"))
    optimizer = build_optimizer(model, stage, TrainingSettings(), heads=True, thaw=0.0, fused=None)
    assert type(optimizer) is torch.optim.Adam and len(optimizer.param_groups) == 1


@pytest.mark.parametrize("decay", [0.5, {"video": 0.5}, {"audio": 0.25, "text": 0.5}])
def test_matrices_of_the_given_modalities_decay(decay: float | dict[str, float]) -> None:
    model, (stage,) = network(pair_temperature=0.5), stages_of(Order.parse("avt"))
    prepare_model(model, stage, heads=True)
    training = TrainingSettings(learning_rate=RATE, weight_decay=decay)
    optimizer = build_optimizer(model, stage, training, heads=True, thaw=0.0, fused=None)
    assert type(optimizer) is torch.optim.AdamW
    num_parameters = sum(len(group["params"]) for group in optimizer.param_groups)
    assert num_parameters == len(list(model.parameters()))
    for name, factor in step_without_gradient(model, optimizer).items():
        modality, shape = name.split(".")[1], dict(model.named_parameters())[name].shape
        strength = decay if isinstance(decay, float) else decay.get(modality, 0.0)
        expected = 1 - RATE * strength if len(shape) > 1 and not name.startswith("pairs") else 1.0
        assert factor == pytest.approx(expected), name


def test_thawed_modalities_have_a_part_of_the_rate_and_their_own_decay() -> None:
    model, stage = network(), stages_of(Order.parse("av>t"), thaw=True)[-1]
    training = TrainingSettings(learning_rate=RATE, weight_decay={"video": 0.5, "text": 0.25})
    optimizer = build_optimizer(model, stage, training, heads=False, thaw=0.1, fused=None)
    rates = {(round(group["lr"], 6), group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {(0.1, 0.25), (0.1, 0.0), (0.01, 0.5), (0.01, 0.0)}
    video = set(model.parts("video")["encoder"].parameters())  # type: ignore[union-attr]
    decayed = next(group["params"] for group in optimizer.param_groups if group["weight_decay"] == 0.5)
    assert set(decayed) == {p for p in video if p.ndim > 1}
