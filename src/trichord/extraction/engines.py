"""The engines that run the work of an extraction: processes on this machine, or (`ray_engine`) the nodes of a Ray cluster.

The driver alone plans, leases and commits, and `work.run_task` does the work in every engine, so the store is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Protocol

from trichord.extraction.choice import EncoderChoice
from trichord.extraction.pool import Workers, first_done, outcome_of
from trichord.extraction.task import Outcome, Task


class Engine(Protocol):
    """The interface of an engine, which runs tasks."""

    @property
    def count(self) -> int:
        """The number of workers; 0 works in this process."""

    def outcomes(self, tasks: Iterator[Task]) -> Iterator[tuple[str, Outcome]]:
        """Yield the key and the outcome of each task in the order in which they finish. Tasks are drawn when there is room.

        Raises:
            TrichordError: No worker can work, for example because the encoders cannot be loaded.
        """

    def under_way(self) -> set[str]:
        """Return the keys of tasks that have begun and whose outcome was not yielded."""

    def close(self, *, now: bool) -> None:
        """Stop the workers; with `now`, without waiting for their tasks."""


class LocalEngine:
    """An engine of `count` processes on this machine, which start with the first task. See `Workers`.

    Args:
        choice: The encoders that each process loads.
        device: cpu or cuda.
        count: The number of processes; 0 works in this process.
        threads: The number of encoding threads per process.
        stall_s: Seconds without progress after which a decoder is stopped.
    """

    def __init__(self, choice: EncoderChoice, device: str, count: int, threads: int, stall_s: float) -> None:
        self.count = count
        self._choice, self._device, self._threads, self._stall_s = choice, device, threads, stall_s
        self._workers: Workers | None = None
        self._keys: dict[Future[Outcome], str] = {}

    def outcomes(self, tasks: Iterator[Task]) -> Iterator[tuple[str, Outcome]]:
        """See `Engine.outcomes`."""
        exhausted = False
        while not exhausted or self._keys:
            while not exhausted and (self._workers is None or len(self._keys) < self._workers.capacity):
                task = next(tasks, None)
                if task is None:
                    exhausted = True
                else:
                    self._workers = self._workers or Workers(self._choice, self._device, self.count, self._threads)
                    self._keys[self._workers.submit(task)] = task.key
            for future in first_done(self._keys):
                outcome = outcome_of(future, self._stall_s)
                yield self._keys.pop(future), outcome

    def under_way(self) -> set[str]:
        """See `Engine.under_way`."""
        return set(self._keys.values())

    def close(self, *, now: bool) -> None:
        """See `Engine.close`."""
        if self._workers is not None:
            self._workers.close(now=now)
