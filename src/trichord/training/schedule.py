"""The learning rate over the steps of a stage."""

from __future__ import annotations

import math
from collections.abc import Callable


def used_warmup_steps(warmup_steps: int, num_steps: int) -> int:
    """At most a tenth of the run: the published 5,000 steps would keep a short run from ever reaching its rate."""
    return min(warmup_steps, num_steps // 10)


def rate_factor(schedule: str, *, warmup_steps: int, num_steps: int) -> Callable[[int], float]:
    """Factor on the learning rate at each step (0-based).

    Linear warm-up over `warmup_steps` (factor (step + 1) / warmup), then `constant` at 1 or `cosine` from 1 to 0 at
    `num_steps`. Past `num_steps` the cosine stays at 0: it never rises again.
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
