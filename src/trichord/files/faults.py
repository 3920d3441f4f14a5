"""Detection of system faults: errors that stop the work on a file without saying anything about the file itself.

Examples are a read error of a network disk, exhausted memory, too many open files and a full disk. The same work succeeds at
another time. `fault_of` is the only place that distinguishes such a fault from a damaged file. A fault is never treated as
damage that a decoder may skip, never shortens an item, and never marks a file as unreadable.
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
# Errors that concern the path or the file there, not the machine.
_PATH_ERRORS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ}
_NAMED_IN_TEXT = (
    *_DISK, errno.ENOMEM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN,
)  # fmt: skip
_MEMORY_TEXTS = (
    "out of memory", "not enough memory", "could not allocate", "failed to allocate", "defaultcpuallocator", "bad_alloc",
    "alloc_failed",
)  # fmt: skip
_MAX_CAUSES = 32


class SystemFaultError(Unavailable):
    """Raised when a system fault stops the work; the same command succeeds at another time. A known cause is chained."""


def fault_of(error: BaseException | None) -> str:
    """Return the kind of system fault that caused an error: `out-of-memory`, `disk` or `system`.

    The causes that are chained to the error count too. PyAV errors are classified by their number, OSError by its errno, and
    RuntimeError (from torch, threads or torchcodec) by its text.

    Returns:
        The kind of fault, or '' if the error concerns the file itself.
    """
    causes = list(_causes(error))
    unknown = SYSTEM if any(isinstance(cause, Unavailable) for cause in causes) else ""
    return next(filter(None, map(_kind, causes)), unknown)


def raise_fault(path: str | Path, error: BaseException) -> None:
    """Raise SystemFaultError, which names the file, if the error was caused by a system fault; return otherwise."""
    if fault_of(error):
        fault = next(filter(_kind, _causes(error)), error)  # a library may have reported the fault as damage
        raise SystemFaultError(f"{path}: cannot be read now ({reason_of(fault)}); run the command again") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_MAX_CAUSES):  # a chain of causes may be circular
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _kind(error: BaseException) -> str:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return OUT_OF_MEMORY
    if isinstance(error, NotRegularFileError | FileTooLargeError):
        return ""
    if type(error).__module__.partition(".")[0] == "av":  # FFmpeg reports many kinds of damage as I/O errors
        return (
            SYSTEM if getattr(error, "errno", None) == errno.EAGAIN else ""
        )  # a thread of the decoder could not be started
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
    return "" if number in _PATH_ERRORS else SYSTEM


def _kind_of_text(text: str) -> str:
    if any(part in text for part in _MEMORY_TEXTS):
        return OUT_OF_MEMORY
    if "can't start new thread" in text:
        return SYSTEM
    return next((_kind_of_number(n) for n in _NAMED_IN_TEXT if os.strerror(n).lower() in text), "")
