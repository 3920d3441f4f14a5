"""Faults of the system: what keeps work from being done and says nothing of the file that is worked on.

A read error of a network disk, exhausted memory, too many open files, a full disk: the same work succeeds at another time.
`fault_of` is the one place that tells such a fault from a damaged file. A fault is never part of the damage that decoders
skip, never shortens an item, and never marks a file as unreadable.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from trichord.errors import Unavailable
from trichord.files.reading import FileTooLargeError, NotRegularFileError, reason_of

OUT_OF_MEMORY, DISK, SYSTEM = FAULTS = ("out-of-memory", "disk", "system")

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
# Errors that say something of the path or of what lies there, not of the machine.
_OF_THE_PATH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ}
_NAMED_IN_TEXT = (
    *_DISK, errno.ENOMEM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN,
)  # fmt: skip
_MEMORY_TEXTS = (
    "out of memory", "not enough memory", "could not allocate", "failed to allocate", "defaultcpuallocator", "bad_alloc",
    "alloc_failed",
)  # fmt: skip
_MAX_CAUSES = 32


class SystemFaultError(Unavailable):
    """The system kept work from being done; the same command succeeds at another time. The cause, if known, is chained."""


def fault_of(error: BaseException | None) -> str:
    """Return the kind of fault that an error, or any of the errors that led to it, is: `out-of-memory`, `disk` or `system`.

    An error that says something of the file gives an empty text. PyAV's errors count by their number, OSError by its errno,
    RuntimeError (torch, threads, torchcodec) by its text.
    """
    causes = list(_causes(error))
    unknown = SYSTEM if any(isinstance(cause, Unavailable) for cause in causes) else ""
    return next(filter(None, map(_kind, causes)), unknown)


def raise_fault(path: str | Path, error: BaseException) -> None:
    """Raise SystemFaultError, naming the file, if the error is a fault of the system; return otherwise."""
    if fault_of(error):
        fault = next(filter(_kind, _causes(error)), error)  # a library may have taken it for damage
        raise SystemFaultError(f"{path}: cannot be read now ({reason_of(fault)}); run the command again") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_MAX_CAUSES):  # a chain may lead back to itself
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _kind(error: BaseException) -> str:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return OUT_OF_MEMORY
    if isinstance(error, NotRegularFileError | FileTooLargeError):
        return ""
    if type(error).__module__.partition(".")[0] == "av":  # FFmpeg calls much damage an I/O error
        return SYSTEM if getattr(error, "errno", None) == errno.EAGAIN else ""  # a decoder's thread did not start
    if isinstance(error, OSError) and error.errno is not None:
        return _kind_of_number(error.errno)
    if isinstance(error, RuntimeError | OSError) and not isinstance(error, RecursionError):
        return _kind_of_text(str(error).lower())
    return ""


def _kind_of_number(number: int) -> str:
    if number == errno.ENOMEM:
        return OUT_OF_MEMORY
    if number in _DISK:
        return DISK
    return "" if number in _OF_THE_PATH else SYSTEM


def _kind_of_text(text: str) -> str:
    if any(part in text for part in _MEMORY_TEXTS):
        return OUT_OF_MEMORY
    if "can't start new thread" in text:
        return SYSTEM
    return next((_kind_of_number(n) for n in _NAMED_IN_TEXT if os.strerror(n).lower() in text), "")
