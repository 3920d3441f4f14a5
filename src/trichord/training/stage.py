"""Stages as data: what trains, what is frozen, which pairs and terms count, where the weights come from.

The two-stage study: the first stage trains two modalities together; each later stage freezes all that came before and
trains the modality it adds against them. Joint training (`avt`) is an order of one stage.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trichord.errors import TrichordError
from trichord.modality import NAMES, Order, Pair, letter_of, pairs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from trichord.nn import MCN


@dataclass(frozen=True)
class Stage:
    """One training phase.

    `pairs` hold at least one modality that trains; `reconstruct` and `cluster` name only such modalities. `chain` is the
    order up to and including this stage (`av>t`); weights of the frozen modalities come from the stage of its head.
    """

    chain: str
    train: tuple[str, ...]
    frozen: tuple[str, ...]
    pairs: tuple[Pair, ...]
    reconstruct: tuple[str, ...]
    cluster: tuple[str, ...]

    @property
    def modalities(self) -> tuple[str, ...]:
        """All modalities that the stage reads, in the order video, audio, text."""
        return tuple(m for m in NAMES.values() if m in self.train + self.frozen)

    @property
    def slug(self) -> str:
        return self.chain.replace(">", "-")

    def __str__(self) -> str:
        trained = ", ".join(letter_of(m) for m in self.train)
        frozen = f", frozen {', '.join(letter_of(m) for m in self.frozen)}" if self.frozen else ""
        return f"{Order.parse(self.chain)} (trains {trained}{frozen})"


def stages_of(order: Order) -> tuple[Stage, ...]:
    """The stages of an order, first to last.

    Raises TrichordError for a modality that the model does not have (only video, audio and text are built).
    """
    if unknown := [m for m in order.modalities if m not in NAMES.values()]:
        raise TrichordError(
            f"order {order} needs modality '{unknown[0].upper()}', which the model does not have; use V, A and T, e.g. av>t"
        )
    stages = []
    for index in range(len(order.stages)):
        train, frozen = order.added(index), order.before(index)
        pairs = tuple(pair for pair in pairs_of(train + frozen) if set(pair) & set(train))
        chain = ">".join("".join(part).lower() for part in order.stages[: index + 1])
        stages.append(Stage(chain, train, frozen, pairs, reconstruct=train, cluster=train))
    return tuple(stages)


def trainable_modules(model: MCN, stage: Stage, *, heads: bool) -> list[nn.Module]:
    """The modules that the stage trains: encoders of `stage.train`, and their reconstruction heads if `heads`."""
    modules: list[nn.Module] = []
    for modality in stage.train:
        parts = model.parts(modality)
        wanted = [parts["encoder"]]
        if heads and modality in stage.reconstruct:
            wanted.append(parts["reconstruction"])
        modules += [module for module in wanted if module is not None]
    return modules


def prepare_model(model: MCN, stage: Stage, *, heads: bool) -> None:
    """Put the model into the state that the stage asks for: all frozen and in eval mode, but what trains.

    Args:
        model: Changed in place: `requires_grad` and train or eval mode of every module.
        stage: Says what trains.
        heads: Whether a reconstruction term is on; without it the heads stay frozen too.
    """
    model.requires_grad_(False)
    model.eval()
    for module in trainable_modules(model, stage, heads=heads):
        module.requires_grad_(True)
        module.train()


@contextmanager
def frozen_guard(model: MCN, stage: Stage) -> Iterator[None]:
    """Check that nothing outside the trained modules changed, weights and buffers bit for bit."""
    trained = {id(t) for part in trainable_modules(model, stage, heads=True) for t in _tensors(part)}
    frozen = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) not in trained}
    before = {name: tensor.detach().clone() for name, tensor in frozen.items()}
    yield
    changed = [name for name, tensor in frozen.items() if not _bits_equal(tensor.detach(), before[name])]
    assert not changed, f"frozen tensors changed in stage {stage.chain}: {changed[:5]}"


def _tensors(module: nn.Module) -> Iterable[object]:
    return module.state_dict(keep_vars=True).values()


def _bits_equal(a: Tensor, b: Tensor) -> bool:
    import torch

    same = torch.equal(a, b)
    return same or bool(((a == b) | (a.isnan() & b.isnan())).all())
