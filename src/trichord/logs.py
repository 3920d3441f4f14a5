"""Messages of the library: modules log to their own logger below `trichord`, the command line prints what is logged there.

Progress has the level INFO; what is left out, damaged or slower than it could be has WARNING. A program that uses the library
sees the messages once it configures logging, e.g. `logging.basicConfig(level=logging.INFO)`.
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
_ON_STDERR = ("trichord.store.remote",)  # troubles of connections; all other messages belong to the output of a command


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, whose messages are lines that any handler can write.

    Names of files may contain control characters and bytes that are not UTF-8, which are escaped.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_make_printable)
    return logger


def main_process_logger(name: str) -> logging.Logger:
    """Return the logger of a module whose messages only the main process of a launch emits."""
    logger = get_logger(name)
    logger.addFilter(lambda record: _is_main_process())
    return logger


def _is_main_process() -> bool:
    distributed: Any = sys.modules.get("torch.distributed")  # this module does not import torch
    is_launched = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return not is_launched or distributed.get_rank() == 0


def _make_printable(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage()), None
    return True


class ConsoleHandler(logging.Handler):
    """Prints each message as one line.

    The streams are looked up for each message, as `print` does, and errors of writing are raised.
    """

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.name in _ON_STDERR else sys.stdout
        print(record.getMessage(), file=stream, flush=True)


class _CallbackHandler(logging.Handler):
    """Passes each message of the thread that created the handler to a function. Errors of the function are raised."""

    def __init__(self, callback: Callable[[str], object]) -> None:
        super().__init__()
        self._callback, self._thread = callback, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._callback(record.getMessage())


@contextmanager
def _handled_by(handler: logging.Handler, *, alone: bool = False) -> Iterator[None]:
    """Pass messages from INFO upwards to `handler` in the block; with `alone`, to no handler of the root logger."""
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
    """Print messages in the block: progress to standard output, troubles of connections to standard error.

    Nothing else prints them, whatever handlers a library adds to the root logger.
    """
    return _handled_by(ConsoleHandler(), alone=True)


def passing_messages(callback: Callable[[str], object]) -> AbstractContextManager[None]:
    """Call `callback` with the text of each message that this thread logs in the block."""
    return _handled_by(_CallbackHandler(callback))


def on_terminal() -> bool:
    """Return whether messages are printed to a terminal, so that a progress bar may take their place."""
    return sys.stdout.isatty() and any(isinstance(handler, ConsoleHandler) for handler in ROOT.handlers)


def deprecated_callback(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take the keyword `name`, a function that is called with each message, for one more release."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def with_callback(*args: P.args, **kwargs: P.kwargs) -> R:
            if name not in kwargs:
                return function(*args, **kwargs)
            callback: Any = kwargs.pop(name)
            warnings.warn(
                f"{function.__name__}: the argument '{name}' is deprecated and will be removed in the next release; "
                "messages go to the logger 'trichord', so configure logging, such as logging.basicConfig(level=logging.INFO)",
                DeprecationWarning,
                stacklevel=2,
            )
            with nullcontext() if callback is None else passing_messages(callback):
                return function(*args, **kwargs)

        return with_callback

    return decorate
