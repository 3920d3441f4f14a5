"""Messages of the library, which the command line prints. Each module logs to its own logger below the logger `trichord`.

Progress has the level INFO. Inputs that are skipped or damaged, and avoidable slowness, have the level WARNING. A program that
uses the library sees the messages once it configures logging, such as with `logging.basicConfig(level=logging.INFO)`.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from trichord.errors import printable

P = ParamSpec("P")
R = TypeVar("R")
ROOT = logging.getLogger("trichord")
ROOT.addHandler(logging.NullHandler())  # silent until a program configures logging
_ON_STDERR = ("trichord.store.remote",)  # connection problems; all other messages are part of the output of a command


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module.

    Names of files may contain control characters and bytes that are not UTF-8. The logger escapes them, so that any handler can
    write its messages.

    Args:
        name: Name of the module.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_make_printable)
    return logger


def main_process_logger(name: str) -> logging.Logger:
    """Return a logger like `get_logger`, of which only the main process of a launch emits messages."""
    logger = get_logger(name)
    logger.addFilter(lambda record: is_main_process())
    return logger


def is_main_process() -> bool:
    """Return whether this is the main process of a launch, which prints and writes."""
    distributed: Any = sys.modules.get("torch.distributed")  # this module does not import torch
    is_launched = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return not is_launched or distributed.get_rank() == 0


def _make_printable(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage()), None
    return True


class ConsoleHandler(logging.Handler):
    """Handler that prints each message as a line.

    As with `print`, the stream is looked up for each message, and errors in writing are raised.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        stream = sys.stderr if record.name in _ON_STDERR else sys.stdout
        print(record.getMessage(), file=stream, flush=True)


class _CallbackHandler(logging.Handler):
    """Handler that passes each message of the current thread to a function. Errors of the function are raised."""

    def __init__(self, callback: Callable[[str], object]) -> None:
        super().__init__()
        self._callback, self._thread = callback, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._callback(record.getMessage())


@contextmanager
def _handled_by(handler: logging.Handler, *, alone: bool = False) -> Iterator[None]:
    """Pass messages of level INFO or higher to `handler` in the block. With `alone`, handlers of the root logger get none."""
    level, propagate = ROOT.level, ROOT.propagate
    ROOT.propagate = propagate and not alone
    if not ROOT.isEnabledFor(logging.INFO):
        ROOT.setLevel(logging.INFO)
    ROOT.addHandler(handler)
    try:
        yield
    finally:
        ROOT.removeHandler(handler)
        ROOT.setLevel(level)
        ROOT.propagate = propagate


def printing_messages() -> AbstractContextManager[None]:
    """Print messages in the block: connection problems to standard error, and all others to standard output.

    Each message is printed once, even if a library adds handlers to the root logger.
    """
    return _handled_by(ConsoleHandler(), alone=True)


def passing_messages(callback: Callable[[str], object]) -> AbstractContextManager[None]:
    """Call `callback` with the text of each message that the current thread logs in the block."""
    return _handled_by(_CallbackHandler(callback))


def on_terminal() -> bool:
    """Return whether messages are printed to a terminal, where a progress bar can replace them."""
    return sys.stdout.isatty() and any(isinstance(handler, ConsoleHandler) for handler in ROOT.handlers)


def deprecated_callback(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that adds a deprecated keyword argument: a function that is called with each message.

    Args:
        name: Name of the keyword argument.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def with_callback(*args: P.args, **kwargs: P.kwargs) -> R:
            if name not in kwargs:
                return function(*args, **kwargs)
            callback: Any = kwargs.pop(name)
            warnings.warn(
                f"{function.__name__}: the argument '{name}' is deprecated and will be removed in the next release; "
                "configure the logger 'trichord' to receive messages, such as with logging.basicConfig(level=logging.INFO)",
                DeprecationWarning,
                stacklevel=2,
            )
            with nullcontext() if callback is None else passing_messages(callback):
                return function(*args, **kwargs)

        return with_callback

    return decorate
