"""Selection of the weights of a stage by validation clips, once an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trichord.logs import main_process_logger
from trichord.losses.precision import at_least_float32
from trichord.modality import Pair
from trichord.nn import MCN
from trichord.training.stage import Stage, trainable_modules

logger = main_process_logger(__name__)

_BLOCK = 1024  # rows of scores that are computed at a time


def log_likelihood(
    first: Tensor, second: Tensor, valid: Tensor, *, temperature: float = 1.0, cosine: bool = True
) -> float:
    """Return the mean log-likelihood of the true partner of each clip among all clips, over both directions.

    This is the negative of the symmetric InfoNCE loss over all clips (`trichord.losses.info_nce`).

    Args:
        first: Embeddings of N clips in one modality, of shape (N, D).
        second: Embeddings of the same clips in another modality.
        valid: Mask of the clips that have both modalities, of shape (N,), bool.
        temperature: Temperature that divides the scores.
        cosine: Whether scores are cosines instead of dot products.

    Returns:
        The mean in nats, which is at most 0, or 0 if no clip is valid.

    Example:
        >>> import torch
        >>> from trichord.training.selection import log_likelihood
        >>> round(log_likelihood(torch.ones(4, 3), torch.ones(4, 3), torch.ones(4, dtype=torch.bool)), 4)  # -ln 4
        -1.3863
    """
    sides = [at_least_float32(rows[valid]) for rows in (first, second)]
    if cosine:
        sides = [torch.nn.functional.normalize(rows, dim=1) for rows in sides]
    total = torch.zeros((), dtype=torch.float64)
    for queries, candidates in (sides, sides[::-1]):
        for begin in range(0, len(queries), _BLOCK):
            scores = queries[begin : begin + _BLOCK] @ candidates.T / temperature
            places = torch.arange(begin, begin + len(scores), device=scores.device)
            truth = scores.gather(1, places[:, None])[:, 0]
            total += (truth - scores.logsumexp(1)).double().sum().cpu()
    return float(total) / max(1, 2 * len(sides[0]))


class Selection:
    """The best weights of a stage so far.

    Args:
        model: Network that is trained.
        stage: Stage that lists the trained modalities.
        score: Function that returns the score of the network, which is the larger the better. It may set the network to eval
            mode.
        heads: Whether the reconstruction heads are trained.
    """

    def __init__(self, model: MCN, stage: Stage, score: Callable[[], float], *, heads: bool) -> None:
        self.model, self.score = model, score
        self.modules = trainable_modules(model, stage, heads=heads)
        kept = {id(t) for module in self.modules for t in module.state_dict(keep_vars=True).values()}
        self.names = [name for name, t in model.state_dict(keep_vars=True).items() if id(t) in kept]
        self.scores: list[float] = []
        self.best: dict[str, Tensor] = {}

    def look(self) -> None:
        """Score the network at the end of an epoch, and copy its trained weights if none before was better."""
        score = self.score()
        for module in self.modules:
            module.train()
        self.scores.append(score)
        if score > max(self.scores[:-1], default=-float("inf")) or not self.best:
            state = self.model.state_dict()
            self.best = {name: state[name].detach().clone() for name in self.names}
        logger.info(f"epoch {len(self.scores)}  validation log-likelihood {score:.4f}")

    def restore(self) -> None:
        """Set the trained weights of the network to the best ones."""
        if self.best:
            self.model.load_state_dict({**self.model.state_dict(), **self.best})

    def described(self) -> dict[str, Any]:
        """Return the epoch whose weights are the best, counted from 1, and the scores of all epochs."""
        return {"epoch": self.scores.index(max(self.scores)) + 1 if self.scores else 0, "log_likelihood": self.scores}

    def tensors(self) -> dict[str, Tensor]:
        """Return the scores and the best weights, for a checkpoint."""
        scores = torch.tensor(self.scores, dtype=torch.float64)
        return {"scores": scores, **{f"best/{name}": tensor for name, tensor in self.best.items()}}

    def fault(self, tensors: Mapping[str, Tensor]) -> str:
        """Return why the tensors of a checkpoint do not fit, or ''."""
        scores, state = tensors.get("scores"), self.model.state_dict()
        if scores is None or scores.ndim != 1 or not scores.is_floating_point():
            return "its validation scores are invalid"
        wanted = {f"best/{name}": state[name].shape for name in self.names} if len(scores) else {}
        given = {name: tensor.shape for name, tensor in tensors.items() if name != "scores"}
        return "" if given == wanted else "the best weights of its validation are those of another model"

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the scores and the best weights to those of a checkpoint."""
        state = self.model.state_dict()
        self.scores = tensors["scores"].tolist()
        best = {name.removeprefix("best/"): tensor for name, tensor in tensors.items() if name != "scores"}
        self.best = {name: tensor.to(state[name]) for name, tensor in best.items()}


def mean_log_likelihood(
    embeddings: Mapping[str, Tensor],
    valid: Mapping[str, Tensor],
    pairs: Sequence[Pair],
    temperatures: Mapping[Pair, float],
    *,
    cosine: bool,
) -> float:
    """Return the mean of `log_likelihood` over pairs of modalities.

    Args:
        embeddings: By modality, embeddings of shape (N, D).
        valid: By modality, mask of shape (N,), bool, of the clips that have it.
        pairs: Pairs of modality names.
        temperatures: Temperature of each pair.
        cosine: Whether scores are cosines.
    """
    values = [
        log_likelihood(
            embeddings[a], embeddings[b], valid[a] & valid[b], temperature=temperatures[(a, b)], cosine=cosine
        )
        for a, b in pairs
    ]
    return sum(values) / len(values)
