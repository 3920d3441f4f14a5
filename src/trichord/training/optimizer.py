"""The optimizer of a stage: Adam, or AdamW with weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trichord.nn import MCN
from trichord.settings import TrainingSettings, number_for
from trichord.training.stage import Stage, modules_of


def build_optimizer(
    model: MCN, stage: Stage, training: TrainingSettings, *, heads: bool, thaw: float, fused: bool | None
) -> torch.optim.Optimizer:
    """Build the optimizer of the trained modalities.

    Added modalities have the full learning rate, and thawed modalities a part of it. With weight decay, the optimizer is AdamW
    (Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2), and otherwise Adam. Biases and the
    weights of norms and parameters of pairs are not decayed.

    Args:
        model: The network.
        stage: Stage that lists the added and the thawed modalities.
        training: Learning rate and weight decay.
        heads: Whether the reconstruction heads are trained.
        thaw: Factor of the learning rate for thawed modalities.
        fused: Whether to update all weights in a single pass. None selects the default of torch.

    Example:
        >>> from trichord.modality import Order
        >>> from trichord.nn import MCN
        >>> from trichord.settings import TrainingSettings
        >>> from trichord.training.optimizer import build_optimizer
        >>> from trichord.training.stage import stages_of
        >>> network = MCN(video_dim=6, embed_dim=4, word_dim=5, modalities=("video", "text"))
        >>> (stage,) = stages_of(Order.parse("vt"))
        >>> training = TrainingSettings(weight_decay={"video": 0.1})
        >>> optimizer = build_optimizer(network, stage, training, heads=False, thaw=0.0, fused=None)
        >>> [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
        [(0.1, 2), (0.0, 2), (0.0, 6)]
    """
    rates = {stage.train: training.learning_rate, stage.thawed: training.learning_rate * thaw}
    decays = {m: number_for(training.weight_decay, m) for m in stage.train + stage.thawed}
    groups: list[dict[str, Any]] = []
    for modalities, rate in rates.items():
        if not any(decays.values()):
            if modalities:
                groups.append(
                    {"params": list(_parameters(modules_of(model, stage, modalities, heads=heads))), "lr": rate}
                )
            continue
        for modality in modalities:
            parameters = list(_parameters(modules_of(model, stage, (modality,), heads=heads)))
            decayed = [p for p in parameters if p.ndim > 1 and decays[modality] > 0]
            others = [p for p in parameters if not (p.ndim > 1 and decays[modality] > 0)]
            groups.append({"params": decayed, "lr": rate, "weight_decay": decays[modality]})
            groups.append({"params": others, "lr": rate, "weight_decay": 0.0})
    pairs = list(_parameters(model.pair_parts(stage.pairs).values()))
    groups.append({"params": pairs, "lr": training.learning_rate, "weight_decay": 0.0})
    groups = [group for group in groups if group["params"]]
    kind = torch.optim.AdamW if any(decays.values()) else torch.optim.Adam
    return kind(groups, lr=training.learning_rate, fused=fused)


def _parameters(modules: Iterable[nn.Module]) -> Iterable[nn.Parameter]:
    return (parameter for module in modules for parameter in module.parameters())
