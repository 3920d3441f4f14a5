"""The schedule of the learning rate in a stage."""

from __future__ import annotations

import math
from collections.abc import Callable


def used_warmup_steps(warmup_steps: int, num_steps: int) -> int:
    """Return the number of warm-up steps, limited to a tenth of the stage.

    A short stage would not reach its learning rate with the 5,000 warm-up steps of the published model.
    """
    return min(warmup_steps, num_steps // 10)


def rate_factor(schedule: str, *, warmup_steps: int, num_steps: int) -> Callable[[int], float]:
    """Return the factor of the learning rate as a function of the step, which starts at 0.

    The factor is (step + 1) / `warmup_steps` during the warm-up. Afterwards it is 1, or falls from 1 to 0 at `num_steps` along a
    cosine and stays there.

    Args:
        schedule: `constant` or `cosine`.
        warmup_steps: Number of warm-up steps.
        num_steps: Number of steps of the stage.

    Raises:
        ValueError: The schedule is unknown.
    """
    if schedule not in ("cosine", "constant"):
        raise ValueError(f"unknown schedule '{schedule}'; expected cosine or constant")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if schedule == "constant":
            return 1.0
        progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return factor
