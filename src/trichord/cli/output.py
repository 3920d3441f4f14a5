"""Standard output and error that keep working when the pipe, terminal or descriptor behind them is gone.

A long command often prints to something that ends first: `| head`, a pager, a terminal that is closed, `>&-`. A failed write is
recorded and the output is discarded, for all users of `sys.stdout` and `sys.stderr`: `print`, progress bars, warnings and logging.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ECONNRESET, errno.ESHUTDOWN, errno.ENOTCONN)
NAMES = {"stdout": "standard output", "stderr": "standard error"}


class _Output(io.FileIO):
    """Descriptor whose failed writes are recorded instead of raised; `failure` is the first one not caused by a lost reader."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure: OSError | None = None

    def write(self, data: object) -> int:
        try:
            written = super().write(data)  # type: ignore[arg-type]
            return written if written is not None else 0
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in GONE and self.failure is None:
                self.failure = error
            return memoryview(data).nbytes  # type: ignore[arg-type]


@contextmanager
def lasting_output(*, until_exit: bool) -> Iterator[Callable[[], str]]:
    """Replace `sys.stdout` and `sys.stderr` by streams whose writes do not fail.

    Args:
        until_exit: Whether to keep the streams after the block, so that the interpreter can flush them at exit.

    Yields:
        A function that flushes both streams and returns why output was lost, except for lost readers; '' if no output was lost.
    """
    _open_standard_descriptors()
    originals = {name: getattr(sys, name) for name in NAMES}
    outputs: dict[str, _Output] = {}
    for name, stream in originals.items():
        replacement, output = _lasting(stream)
        setattr(sys, name, replacement)
        if output is not None:
            outputs[name] = output

    def lost_output() -> str:
        _flush()
        failures = ((NAMES[name], output.failure) for name, output in outputs.items())
        return "; ".join(f"{name} cannot be written ({error.strerror})" for name, error in failures if error)

    try:
        yield lost_output
    finally:
        _flush()
        if not until_exit:
            for name, stream in originals.items():
                if stream is None or stream.closed:
                    getattr(sys, name).close()
                setattr(sys, name, stream)


def _lasting(stream: IO[str] | None) -> tuple[IO[str], _Output | None]:
    """Return a stream for the same descriptor, and its lowest layer. A stream without a descriptor is returned unchanged."""
    if stream is None or stream.closed:
        return open(os.devnull, "w", encoding="utf-8"), None  # noqa: SIM115 - stays open until the process ends
    if not isinstance(stream, io.TextIOWrapper):
        return stream, None
    with suppress(OSError, ValueError):
        stream.flush()
    try:
        output = _Output(stream.fileno())
    except (OSError, ValueError):
        stream.reconfigure(errors="backslashreplace")
        return stream, None
    lasting = io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=stream.encoding,
        errors="backslashreplace",  # file names need not be UTF-8
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    return lasting, output


def _open_standard_descriptors() -> None:
    """Open /dev/null in place of closed standard descriptors, because the next file to be opened would get their number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is used


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
