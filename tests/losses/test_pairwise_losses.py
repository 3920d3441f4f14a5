"""Requirements of every pairwise loss. Losses come from the registry, so a new loss is tested once its file exists."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from paths import FIXTURES
from trichord.errors import TrichordError
from trichord.losses import pairwise
from trichord.losses.combined import CombinedLoss
from trichord.losses.pair import DividedLoss, PairBatch, PairwiseLoss
from trichord.losses.registry import Setting, own_settings, pairwise_loss, pairwise_losses, with_own_settings
from trichord.nn import MCN, Encoded
from trichord.recipes import LossSettings, load_recipe
from trichord.recipes.loss import CommonLossSettings
from trichord.settings import Bounds, bounded, descriptions_of
from trichord.study.run import train_order
from trichord.training.gradient_cache import GradientCache

ROWS, DIM = 9, 4
PAIRS = (("video", "text"), ("audio", "text"))
LOSSES = list(pairwise_losses())


def the_loss(name: str) -> PairwiseLoss:
    return pairwise_loss(name, LossSettings(temperature=0.5))


def example(dtype: torch.dtype = torch.float64) -> PairBatch:
    rng = torch.Generator().manual_seed(1)
    first, second = (torch.randn(ROWS, DIM, generator=rng, dtype=torch.float64).to(dtype) for _ in range(2))
    valid = torch.ones(ROWS, dtype=torch.bool)
    valid[[2, 5]] = False
    positives = torch.eye(ROWS, dtype=torch.bool) | torch.eye(ROWS, dtype=torch.bool).roll(1, 1)
    return PairBatch(first, second, valid, positives)


def with_gradient(loss: PairwiseLoss, pair: PairBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, and its gradients for both modalities."""
    first, second = (rows.clone().requires_grad_() for rows in (pair.first, pair.second))
    value = loss(replace(pair, first=first, second=second))
    assert value.ndim == 0
    return value.detach(), *torch.autograd.grad(value, (first, second))


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_the_loss(name: str) -> None:
    pair = example()

    def value(first: Tensor, second: Tensor) -> Tensor:
        return the_loss(name)(replace(pair, first=first, second=second))

    assert torch.autograd.gradcheck(value, (pair.first.requires_grad_(), pair.second.requires_grad_()))
    _, at_first, at_second = with_gradient(the_loss(name), pair)
    assert float(at_first.abs().max()) > 1e-4 and float(at_second.abs().max()) > 1e-4


@pytest.mark.parametrize("name", LOSSES)
def test_clips_that_lack_a_modality_have_no_part(name: str) -> None:
    pair = example()
    value, *gradients = with_gradient(the_loss(name), pair)
    other = replace(pair, first=pair.first.clone(), second=pair.second.clone())
    other.first[~pair.valid], other.second[~pair.valid] = 1e3, -1e4
    again, *others = with_gradient(the_loss(name), other)
    assert torch.equal(again, value)
    for gradient, same in zip(gradients, others, strict=True):
        assert torch.equal(gradient, same) and bool((gradient[~pair.valid] == 0).all())
    kept = pair.valid
    assert pair.positives is not None
    alone = PairBatch(pair.first[kept], pair.second[kept], kept[kept], pair.positives[kept][:, kept])
    assert torch.allclose(the_loss(name)(alone), value, rtol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("num_valid", [0, 1])
def test_batches_of_no_clip_or_one_have_finite_losses(name: str, num_valid: int) -> None:
    pair = replace(example(torch.float32), valid=torch.arange(ROWS) < num_valid)
    value, *gradients = with_gradient(the_loss(name), pair)
    assert bool(torch.isfinite(value)) and all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    if not num_valid:
        assert value == 0 and not any(bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize("name", LOSSES)
def test_collapsed_embeddings_have_finite_gradients(name: str) -> None:
    for rows in (torch.zeros(ROWS, DIM), torch.full((ROWS, DIM), 0.3)):
        value, *gradients = with_gradient(the_loss(name), replace(example(), first=rows, second=rows))
        assert bool(torch.isfinite(value)) and all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_clips_does_not_matter(name: str) -> None:
    pair, order = example(), torch.randperm(ROWS, generator=torch.Generator().manual_seed(3))
    assert pair.positives is not None
    turned = PairBatch(pair.first[order], pair.second[order], pair.valid[order], pair.positives[order][:, order])
    assert torch.allclose(the_loss(name)(turned), the_loss(name)(pair), rtol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_shares_of_clips_add_up_to_the_loss(name: str) -> None:
    loss, pair = the_loss(name), replace(example(), positives=None)
    if isinstance(loss, DividedLoss):
        for cuts in ([0, ROWS], [0, 3, ROWS], [0, 0, 1, 6, ROWS]):
            parts = [slice(a, b) for a, b in zip(cuts, cuts[1:], strict=False)]
            total = sum(loss.share(pair, part) for part in parts)
            assert isinstance(total, Tensor) and torch.allclose(total, loss(pair), rtol=1e-12)


def outputs(first: Tensor, second: Tensor) -> dict[str, Encoded]:
    return {"video": Encoded(first, first, None), "text": Encoded(second, second, None)}


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_frozen_side_takes_part_and_has_no_gradient(name: str, cosine: bool) -> None:
    pair = example()
    combined = CombinedLoss(pairs=[("video", "text")], contrast=the_loss(name), cosine=cosine)
    valid = {"video": pair.valid, "text": torch.ones(ROWS, dtype=torch.bool)}
    first, second = pair.first.clone().requires_grad_(), pair.second.clone().requires_grad_()
    both = combined(outputs(first, second), valid, pair.positives)["loss"]
    expected = torch.autograd.grad(both, first)[0]
    frozen = combined(outputs(first, pair.second), valid, pair.positives)["loss"]
    assert torch.equal(frozen, both) and torch.equal(torch.autograd.grad(frozen, first)[0], expected)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_in_float32_where_encoders_are_not(name: str) -> None:
    pair = example(torch.bfloat16)
    combined = CombinedLoss(pairs=[("video", "text")], contrast=the_loss(name))
    valid = dict.fromkeys(("video", "text"), pair.valid)
    with torch.autocast("cpu", torch.bfloat16):
        low = combined(outputs(pair.first, pair.second), valid, pair.positives)["loss"]
    high = combined(outputs(pair.first.float(), pair.second.float()), valid, pair.positives)["loss"]
    assert low.dtype == torch.float32 and torch.equal(low, high)


def gradients_of_a_network(name: str, chunk: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"video_dim": 6, "embed_dim": 8, "word_dim": 5, "reconstruction_dim": 4}
    network = MCN(**sizes, audio_channels=(4, 4, 6, 6)).double()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    rng = torch.Generator().manual_seed(2)
    inputs = {
        "video": torch.rand(ROWS, 6, generator=rng, dtype=torch.float64),
        "audio": torch.randn(ROWS, 40, 32, generator=rng, dtype=torch.float64),
        "audio_frames": torch.full((ROWS,), 32),
        "text": torch.randn(ROWS, 3, 5, generator=rng, dtype=torch.float64),
        "text_mask": torch.ones(ROWS, 3, dtype=torch.bool),
    }
    pair = example()
    combined = CombinedLoss(pairs=PAIRS, contrast=the_loss(name))
    cache = GradientCache(network, Accelerator(cpu=True), ("video", "audio", "text"), chunk=chunk) if chunk else None
    encoded = cache.encode(inputs) if cache else network(**inputs)
    valid = {"video": pair.valid, "audio": pair.valid.roll(1), "text": torch.ones(ROWS, dtype=torch.bool)}
    combined(encoded, valid, pair.positives)["loss"].backward()
    if cache:
        cache.backward(inputs)
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", LOSSES)
def test_chunks_give_the_gradient_of_the_whole_batch(name: str) -> None:
    whole, chunked = gradients_of_a_network(name, 0), gradients_of_a_network(name, 2)
    assert whole and whole.keys() == chunked.keys()
    for parameter, gradient in whole.items():
        torch.testing.assert_close(chunked[parameter], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_stage_trains_with_it(name: str, tiny_store: Path, tmp_path: Path) -> None:
    training = {"max_steps": 2, "tensorboard": False, "device": "cpu"}
    recipe = load_recipe("debug", loss={"contrast": name}, training=training)
    summary = train_order(tiny_store, tmp_path / "run", "vt", 0, recipe)
    assert summary.num_steps == 2


@pytest.mark.parametrize("name", LOSSES)
def test_every_setting_is_described(name: str) -> None:
    kind = pairwise_losses()[name]
    assert {entry.name for entry in fields(kind)} == set(descriptions_of(kind))
    documented = descriptions_of(LossSettings)
    assert all(f"{name}" in documented[entry.name] for entry in fields(kind)) and f"{name}: " in documented["contrast"]


def another_value(setting: Setting) -> Any:
    """Return a valid value of the setting that is not its default."""
    if choices := get_args(setting.kind):
        return next(choice for choice in choices if choice != setting.default)
    if isinstance(setting.default, bool | str):
        return not setting.default if isinstance(setting.default, bool) else f"{setting.default}x"
    bounds = setting.bounds
    ends = (setting.default + bounds.most) // 2, (setting.default + bounds.least) // 2
    return type(setting.default)(next(value for value in ends if value != setting.default))


def test_a_setting_that_the_chosen_loss_does_not_read_must_stay_at_its_default() -> None:
    for setting, readers in own_settings(CommonLossSettings).items():
        other = another_value(setting)
        for name in LOSSES:
            if name in readers:
                load_recipe("debug", loss={"contrast": name, setting.name: other})
                continue
            advice = f"loss.{setting.name} has no effect with loss.contrast {name}; use {' or '.join(readers)}, or leave loss"
            with pytest.raises(TrichordError, match=advice):
                load_recipe("debug", loss={"contrast": name, setting.name: other})


NEW = '''
"""A loss that somebody adds."""
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from trichord.losses.pair import PairBatch, PairwiseLoss
from trichord.settings import bounded
if TYPE_CHECKING:
    from torch import Tensor

@dataclass(frozen=True)
class Squares(PairwiseLoss):
    """The mean squared distance.

    Args:
        power: The power
            of the distance.
        over: What the mean is over.
        temperature: Distances are divided by it.
    """

    power: float = bounded(2.0, 1, 8)
    over: Literal["clips", "numbers"] = "clips"
    temperature: float = bounded(1.0, 1e-6, 1_000_000)

    def __call__(self, pair: PairBatch) -> Tensor:
        return (pair.first - pair.second)[pair.valid].abs().pow(self.power).sum() / self.temperature
'''
PROGRAM = """
import sys
from pathlib import Path
from trichord.losses import pairwise
pairwise.__path__.append(sys.argv[1])
from trichord.cli import main
try:
    main(["study", "--help"])
except SystemExit:
    assert "torch" not in sys.modules, "help imported torch"
try:
    main(["train", "--store", "s", "--out", "o", "--loss.contrast", "squares", "--loss.over", "numbers", "--print_config"])
except SystemExit:
    assert "torch" not in sys.modules, "--print_config imported torch"
from trichord.recipes import load_recipe
from trichord.modality import Order
from trichord.study.plan import plan_study
for changes in ({}, {"contrast": "squares"}, {"contrast": "squares", "power": 3.0}):
    print("key", plan_study([Order.parse("avt")], [0], load_recipe("debug", loss=changes), "store")[0].stages[-1].key)
"""


def test_a_loss_is_one_file(tmp_path: Path) -> None:
    """A file next to the others appears in help and recipes, imports no torch, and changes no key of other losses."""
    (tmp_path / "squares.py").write_text(NEW)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = " ".join(done.stdout.split())
    assert (
        "--loss.contrast {barlow_twins,info_nce,mil_nce,mms,squares}" in out
        and "squares: The mean squared distance." in out
    )
    assert "squares: The power of the distance. (type: float, default: 2.0)" in out
    assert "--loss.over {clips,numbers}" in out
    assert "info_nce, mil_nce: Temperature that divides the scores. squares: Distances are divided by it." in out
    assert "contrast: squares" in out and "power: 2.0" in out and "over: numbers" in out
    keys = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("key ")]
    golden = (FIXTURES / "golden_keys.json").read_text()
    assert keys[0] in golden and len(set(keys)) == 3 and not any(key in golden for key in keys[1:])


@pytest.mark.parametrize("bounds", [Bounds(0, 9), None])
def test_settings_of_one_name_are_one_setting(bounds: Bounds | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Other(PairwiseLoss):
        temperature: float = bounded(1.0, 0, 9) if bounds else 1.0

        def __call__(self, pair: PairBatch) -> Tensor:
            return pair.first.sum()

    others = {**pairwise_losses(), "other": Other}
    monkeypatch.setattr("trichord.losses.registry.pairwise_losses", lambda: others)
    own_settings.cache_clear()
    with pytest.raises(
        TypeError, match="loss other: the setting temperature already exists with another type, default or bounds"
    ):
        with_own_settings(CommonLossSettings, "LossSettings")
    own_settings.cache_clear()


@pytest.mark.parametrize(
    "text", ["", NEW.replace("@dataclass(frozen=True)", ""), NEW + NEW[NEW.index("@") :].replace("Squares", "Cubes")]
)
def test_a_file_that_is_not_one_loss_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mistaken.py").write_text(text)
    (tmp_path / "_shared.py").write_text("")  # no loss, as its name says
    monkeypatch.setattr(pairwise, "__path__", [*pairwise.__path__, str(tmp_path)])
    pairwise_losses.cache_clear()
    with pytest.raises(
        TypeError,
        match="pairwise.mistaken defines . subclasses of PairwiseLoss; define exactly one, and make it a dataclass",
    ):
        pairwise_losses()
    monkeypatch.undo()
    pairwise_losses.cache_clear()
    for name in [name for name in sys.modules if name.startswith("trichord.losses.pairwise.mistaken")]:
        del sys.modules[name]
