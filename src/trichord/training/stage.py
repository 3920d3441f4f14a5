"""Stages as data: what trains, what is frozen, which pairs and terms count, where the weights come from.

The two-stage study: the first stage trains two modalities together; each later stage freezes all that came before and
trains the modality it adds against them. Joint training (`avt`) is an order of one stage. A later stage may also thaw what
came before: it trains on, at a rate of its own, and may replay the terms of the earlier pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trichord.errors import TrichordError
from trichord.modality import Order, Pair, in_order, known, letter_of, pairs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from trichord.nn import MCN


@dataclass(frozen=True)
class Stage:
    """One training phase.

    `pairs` hold at least one modality that trains; `reconstruct` and `cluster` name only such modalities. `order` is the
    order up to and including this stage (`av>t`); the weights of the frozen and the thawed modalities come from the stage
    before it. `thawed` came before, like `frozen`, and train on.
    """

    order: Order
    train: tuple[str, ...]
    frozen: tuple[str, ...]
    pairs: tuple[Pair, ...]
    reconstruct: tuple[str, ...]
    cluster: tuple[str, ...]
    thawed: tuple[str, ...] = ()

    @property
    def earlier(self) -> tuple[str, ...]:
        """What earlier stages trained."""
        return self.frozen + self.thawed

    @property
    def modalities(self) -> tuple[str, ...]:
        """All modalities that the stage reads: video, audio, text, then the others by name."""
        return in_order(self.train + self.earlier)

    @property
    def chain(self) -> str:
        """The code of `order`, as files and messages write it: `av>t`."""
        return self.order.code

    @property
    def slug(self) -> str:
        return self.order.slug

    def to_dict(self) -> dict[str, Any]:
        """Return the stage as plain values, for a JSON file."""
        return {"chain": self.chain, **{name: value for name, value in vars(self).items() if name != "order"}}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Stage:
        """Read what `to_dict` returned. Raises KeyError, TypeError or ValueError for anything else."""
        parts = {name: _tuples(value) for name, value in content.items() if name != "chain"}
        try:
            return cls(Order.parse(content["chain"]), **parts)
        except TrichordError as error:
            raise ValueError(str(error)) from None

    def __str__(self) -> str:
        trained = ", ".join(letter_of(m) for m in self.train)
        frozen = f", frozen {', '.join(letter_of(m) for m in self.frozen)}" if self.frozen else ""
        thawed = f", thawed {', '.join(letter_of(m) for m in self.thawed)}" if self.thawed else ""
        return f"{self.order} (trains {trained}{frozen}{thawed})"


def stages_of(order: Order, *, thaw: bool = False, replay: bool = False) -> tuple[Stage, ...]:
    """The stages of an order, first to last.

    Args:
        order: E.g. `av>t`.
        thaw: Later stages train on what came before, instead of freezing it.
        replay: Their terms between and of the earlier modalities count too (without effect when those are frozen).

    Raises TrichordError for a letter that stands for no modality.
    """
    if unknown := [m for m in order.modalities if m not in known()]:
        letters, letter = ", ".join(letter_of(m) for m in known()), unknown[0]
        raise TrichordError(
            f"order {order} needs modality '{letter.upper()}', which the model does not have; it has {letters}; "
            f"`trichord extract TABLE --modality NAME={letter}` makes a store with another one"
        )
    stages = []
    for index in range(len(order.stages)):
        train, before = order.added(index), order.before(index)
        frozen, thawed = ((), before) if thaw else (before, ())
        counted = train + thawed if replay else train
        pairs = tuple(pair for pair in pairs_of(train + before) if set(pair) & set(train) or set(pair) <= set(counted))
        upto = order.up_to(index)
        stages.append(Stage(upto, train, frozen, pairs, reconstruct=counted, cluster=counted, thawed=thawed))
    return tuple(stages)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def trainable_modules(model: MCN, stage: Stage, *, heads: bool) -> list[nn.Module]:
    """The modules that the stage trains: encoders of `stage.train` and `stage.thawed`, and the reconstruction heads of
    `stage.reconstruct` if `heads`."""
    return modules_of(model, stage, stage.train + stage.thawed, heads=heads)


def modules_of(model: MCN, stage: Stage, modalities: tuple[str, ...], *, heads: bool) -> list[nn.Module]:
    """Those of `modalities` alone."""
    modules: list[nn.Module] = []
    for modality in modalities:
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


def count_parameters(model: MCN, stage: Stage) -> dict[str, int]:
    """How many parameters train in a stage, and how many encoder parameters are frozen in it and take part.

    Args:
        model: As `prepare_model` left it: what has a gradient trains. Heads that do not train take no part.
        stage: Says what is frozen.
    """
    encoders = [encoder for m in stage.frozen if (encoder := model.parts(m)["encoder"]) is not None]
    return {
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "frozen": sum(p.numel() for encoder in encoders for p in encoder.parameters()),
    }


@contextmanager
def frozen_guard(model: MCN, stage: Stage) -> Iterator[None]:
    """Check that nothing outside the trained modules changed, weights and buffers bit for bit."""
    trained = {id(t) for part in trainable_modules(model, stage, heads=True) for t in _tensors(part)}
    frozen = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) not in trained}
    before = {name: tensor.detach().clone() for name, tensor in frozen.items()}
    yield
    changed = [name for name, tensor in frozen.items() if not _bits_equal(tensor.detach(), before[name])]
    if changed:
        raise RuntimeError(f"frozen tensors changed in stage {stage.chain}: {changed[:5]}")


def _tensors(module: nn.Module) -> Iterable[object]:
    return module.state_dict(keep_vars=True).values()


def _bits_equal(a: Tensor, b: Tensor) -> bool:
    import torch

    same = torch.equal(a, b)
    return same or bool(((a == b) | (a.isnan() & b.isnan())).all())
