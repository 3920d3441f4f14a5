"""Threads that compute results ahead of their use, and calls with a time limit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class NotInTimeError(TimeoutError):
    """Raised when a call does not return within its time limit."""


class Ahead:
    """A single daemon thread that runs submitted calls in order.

    Unlike the threads of `concurrent.futures`, it does not keep the process from exiting. A thread that reads from a disk
    that does not respond would otherwise keep the process alive forever.

    Args:
        name: The name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Schedule `function(*arguments)` to run after all calls that were submitted before."""
        future: Future[Result] = Future()
        self._tasks.put((future, function, arguments))
        return future

    def close(self, *, wait: bool) -> None:
        """Stop the thread after all submitted calls have run.

        Args:
            wait: Whether to block until the thread has stopped.
        """
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
            except BaseException as error:  # the caller that waits for the result receives it
                future.set_exception(error)
            del task, future


def within(seconds: float, action: Callable[[], Result]) -> Result:
    """Call `action` in a daemon thread and return its result.

    Args:
        seconds: The time limit in seconds.
        action: The function to call.

    Raises:
        NotInTimeError: `action` did not return within the time limit. The thread keeps running.
    """
    thread = Ahead("waiting")
    future = thread.submit(action)
    thread.close(wait=False)
    if not wait([future], seconds).done:
        raise NotInTimeError(f"no complete response within {seconds:.0f} s")
    return future.result()


def in_order(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], most: int
) -> Generator[tuple[Item, Result]]:
    """Yield each item together with `function(item)`, in the order of the items.

    Args:
        pool: The executor that computes the results.
        function: The function to apply to each item.
        items: The items. They are consumed only as far as results are computed ahead.
        most: The number of items to compute ahead.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
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
