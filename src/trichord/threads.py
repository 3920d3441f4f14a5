"""Threads that compute ahead, and calls with a time limit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


class NotInTimeError(TimeoutError):
    """Raised when a call does not return in time."""


class Ahead:
    """One daemon thread that does what it is given, in turn.

    Unlike a thread of `concurrent.futures` it does not keep the process from ending: one that reads from a disk that does
    not answer would, for ever.
    """

    def __init__(self, name: str) -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Made], *arguments: Any) -> Future[Made]:
        """Do `function(*arguments)` after what was submitted before."""
        future: Future[Made] = Future()
        self._tasks.put((future, function, arguments))
        return future

    def close(self, *, wait: bool) -> None:
        """End the thread after what it was given, and with `wait` not return before it has."""
        self._tasks.put(None)
        if wait:
            self._thread.join()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, function, arguments = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # raised where the result is waited for
                future.set_exception(error)
            del task, future


def within(seconds: float, action: Callable[[], Made]) -> Made:
    """Call `action` in a daemon thread and return its result.

    Raises:
        NotInTimeError: `action` has not returned after `seconds`. The thread keeps running.
    """
    thread = Ahead("waiting")
    future = thread.submit(action)
    thread.close(wait=False)
    if not wait([future], seconds).done:
        raise NotInTimeError(f"no complete answer within {seconds:.0f} s")
    return future.result()


def in_order(
    pool: Executor, function: Callable[[Given], Made], items: Iterable[Given], most: int
) -> Generator[tuple[Given, Made]]:
    """Yield each item with `function(item)`, in order, computed in the pool for up to `most` items ahead."""
    waiting: deque[tuple[Given, Future[Made]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) >= most:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()
