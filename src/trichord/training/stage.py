"""Stages as data: the trained and the frozen modalities, the pairs and terms of the loss, and the origin of the weights.

In the study, the first stage trains two modalities together. Each later stage freezes the earlier modalities and trains the
modality that it adds against them. Joint training (`avt`) is an order with a single stage. A later stage may also thaw the
earlier modalities, which are then trained at a rate of their own, and replay the loss terms of the earlier pairs.
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

    The weights of the frozen and the thawed modalities are taken from the preceding stage.

    Attributes:
        order: The order up to and including this stage, such as `av>t`.
        train: Modalities that are added and trained.
        frozen: Earlier modalities that are not trained.
        pairs: Pairs that the contrastive loss compares. Each contains a modality that is trained.
        reconstruct: Trained modalities with a reconstruction term.
        cluster: Trained modalities with a clustering term.
        thawed: Earlier modalities that continue to be trained.
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
        """Modalities of earlier stages, frozen or thawed."""
        return self.frozen + self.thawed

    @property
    def modalities(self) -> tuple[str, ...]:
        """All modalities that the stage reads: video, audio, text, then the others by name."""
        return in_order(self.train + self.earlier)

    @property
    def chain(self) -> str:
        """Code of the order, as written in files and messages: `av>t`."""
        return self.order.code

    @property
    def slug(self) -> str:
        """Name of the order in names of folders: `av-t`."""
        return self.order.slug

    def to_dict(self) -> dict[str, Any]:
        """Return the stage as plain values, for a JSON file."""
        return {"chain": self.chain, **{name: value for name, value in vars(self).items() if name != "order"}}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Stage:
        """Read a stage from the values that `to_dict` returns.

        Raises:
            KeyError: A value is missing.
            TypeError: There is a value too many.
            ValueError: The order is invalid.
        """
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
    """Return the stages of an order.

    Args:
        order: Order of modalities, such as `av>t`.
        thaw: Whether later stages continue to train the earlier modalities instead of freezing them.
        replay: Whether later stages include the loss terms of the earlier modalities. No effect if these are frozen.

    Returns:
        The stages, starting with the first.

    Raises:
        TrichordError: A modality of the order is not declared.
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
    """Return the modules that a stage trains.

    These are the encoders of `stage.train` and `stage.thawed`, the parameters of `stage.pairs` and, with `heads`, the
    reconstruction heads of `stage.reconstruct`.
    """
    modules = modules_of(model, stage, stage.train + stage.thawed, heads=heads)
    return [*modules, *model.pair_parts(stage.pairs).values()]


def modules_of(model: MCN, stage: Stage, modalities: tuple[str, ...], *, heads: bool) -> list[nn.Module]:
    """Return the trained modules of the given modalities."""
    modules: list[nn.Module] = []
    for modality in modalities:
        parts = model.parts(modality)
        trained = [parts["encoder"]]
        if heads and modality in stage.reconstruct:
            trained.append(parts["reconstruction"])
        modules += [module for module in trained if module is not None]
    return modules


def prepare_model(model: MCN, stage: Stage, *, heads: bool) -> None:
    """Set trained modules to train mode, and freeze all others in eval mode.

    Args:
        model: The network. `requires_grad` and the mode of its modules are changed in place.
        stage: Stage that lists the trained modalities.
        heads: Whether the loss has a reconstruction term. If not, the reconstruction heads are frozen.
    """
    model.requires_grad_(False)
    model.eval()
    for module in trainable_modules(model, stage, heads=heads):
        module.requires_grad_(True)
        module.train()


def count_parameters(model: MCN, stage: Stage) -> dict[str, int]:
    """Return the number of trained parameters, and of parameters of frozen encoders.

    Args:
        model: The network after `prepare_model`. Parameters with `requires_grad` are trained.
        stage: Stage that lists the frozen modalities.
    """
    encoders = [encoder for m in stage.frozen if (encoder := model.parts(m)["encoder"]) is not None]
    return {
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "frozen": sum(p.numel() for encoder in encoders for p in encoder.parameters()),
    }


@contextmanager
def frozen_guard(model: MCN, stage: Stage) -> Iterator[None]:
    """Check that the block leaves all weights and buffers outside the trained modules bit-identical.

    Raises:
        RuntimeError: A frozen tensor has changed.
    """
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
