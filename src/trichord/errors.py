"""Errors that a user can act on: one line that says what, where and the next action."""

from __future__ import annotations

import errno
import os
import re

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "files may not be so large here (ulimit -f, or the file system's limit)",
    errno.EROFS: "name a folder that can be written to",
    errno.EACCES: "check the rights, or name another folder",
    errno.EPERM: "check the rights, or name another folder",
    errno.EIO: "check the disk",
    errno.EEXIST: "a file lies where a folder belongs; move it away, or name another folder",
    errno.ENOTDIR: "a file lies where a folder belongs; move it away, or name another folder",
    errno.ELOOP: "it is a link, which is not written through; remove the link",
}
_NOT_ONLY_WRITTEN = (errno.EACCES, errno.EPERM, errno.EIO, errno.EEXIST, errno.ENOTDIR)

# torch and Arrow's C++ raise RuntimeError or OSError; dlopen and thread creation fail too where no memory is left
_NO_MEMORY = re.compile(
    r"(?i)can(no|')t allocate memory|not enough memory|out of memory|failed to allocate|unable to allocate|std::bad_alloc|"
    r"failed to map segment|insufficient memory|can't start new thread"
)


class TrichordError(ValueError):
    """A user's mistake or a user's data. The command line prints its message in one line and exits with 2.

    What a file says may stand in the message: characters that a terminal would obey are escaped.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))


class Unavailable(TrichordError):
    """A file that could not be looked at: no right to, a fault of the system, too little memory. It may be whole: nothing is
    deleted or made anew because of it."""


class Diverged(TrichordError):
    """A training whose loss or gradient is no longer finite."""


def one_line(text: object) -> str:
    """`text` with all runs of white space folded into single spaces."""
    return " ".join(str(text).split())


def printable(text: object) -> str:
    """`text` as a terminal can show it: line breaks and tabs become spaces, other control characters `\\x1b`."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


def disk_error(error: BaseException, where: object = None) -> TrichordError | None:
    """What a disk that is full, failing or not to be written to means to the user; None for any other error.

    Args:
        error: As Python, numpy, Arrow or safetensors raise it.
        where: The folder that is written to, named where the error names no file.
    """
    number = error_number(error)
    if number not in _ADVICE:
        return None
    path = getattr(error, "filename", None) or where
    return TrichordError(
        f"{path or 'the disk'}: cannot be {'used' if number in _NOT_ONLY_WRITTEN else 'written'} "
        f"({os.strerror(number)}): {_ADVICE[number]}, then run the command again (train: with --resume)"
    )


def memory_error(error: BaseException) -> TrichordError | None:
    """Return the error to raise where memory could not be had, as Python, NumPy, Arrow and torch tell it; None for any other."""
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return TrichordError(
            f"not enough memory ({one_line(error)[:200] or type(error).__name__}); close other programs, raise the limit "
            "(ulimit -v, a container's or a batch system's), or choose smaller batches"
        )
    return None


def error_number(error: BaseException) -> int | None:
    """Return the system's number of an error, as Python, NumPy, Arrow or safetensors raise it; None where there is none."""
    if found := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors
        return int(found[1])
    if not isinstance(error, OSError):
        return None
    if error.errno is None and re.search(r"(?<!\d)\d++ requested and \d+ written", str(error)):
        return errno.ENOSPC  # numpy does not say why
    return error.errno
