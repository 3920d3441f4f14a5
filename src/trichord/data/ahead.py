"""One thread that computes ahead, and a wait for it that ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

Made = TypeVar("Made")


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
