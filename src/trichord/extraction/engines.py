"""Who runs the work of an extraction: processes of this machine, or (`ray_engine`) the nodes of a Ray cluster.

The plan, the leases and the commits are the driver's alone, and `work.run_task` is the work, whoever runs it: so the store
is the same bits either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Protocol

from trichord.extraction.choice import EncoderChoice
from trichord.extraction.pool import Workers, first_done, outcome_of
from trichord.extraction.task import Outcome, Task


class Engine(Protocol):
    """Runs tasks."""

    @property
    def count(self) -> int:
        """Workers; 0: in this process."""

    def outcomes(self, tasks: Iterator[Task]) -> Iterator[tuple[str, Outcome]]:
        """The key and the outcome of each task, in the order in which they end; tasks are drawn as there is room.

        Raises TrichordError when no worker can work: the encoders cannot be loaded, say.
        """

    def under_way(self) -> set[str]:
        """Keys of the tasks that were begun and whose outcome was not told."""

    def close(self, *, now: bool) -> None:
        """End the workers; `now` without waiting for their tasks."""


class LocalEngine:
    """`count` processes of this machine, started with the first task: see `Workers`.

    Args:
        choice: What each process loads.
        device: cpu or cuda.
        count: Processes; 0 works in this one.
        threads: Encoding threads of each.
        stall_s: Patience with a decoder.
    """

    def __init__(self, choice: EncoderChoice, device: str, count: int, threads: int, stall_s: float) -> None:
        self.count = count
        self._choice, self._device, self._threads, self._stall_s = choice, device, threads, stall_s
        self._workers: Workers | None = None
        self._keys: dict[Future[Outcome], str] = {}

    def outcomes(self, tasks: Iterator[Task]) -> Iterator[tuple[str, Outcome]]:
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
        return set(self._keys.values())

    def close(self, *, now: bool) -> None:
        if self._workers is not None:
            self._workers.close(now=now)
