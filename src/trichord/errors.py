"""Errors that a user can act on: each message is one line that says what is wrong, where, and what to do next."""

from __future__ import annotations

import errno
import os
import re

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "the file exceeds a size limit (ulimit -f, or the limit of the file system); raise the limit",
    errno.EROFS: "choose a folder that is writable",
    errno.EACCES: "check the permissions, or choose another folder",
    errno.EPERM: "check the permissions, or choose another folder",
    errno.EIO: "check the disk",
    errno.EEXIST: "a file exists where a folder is expected; move the file away, or choose another folder",
    errno.ENOTDIR: "a file exists where a folder is expected; move the file away, or choose another folder",
    errno.ELOOP: "it is a link, and trichord does not write through links; remove the link",
}
_UNUSABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.EEXIST, errno.ENOTDIR)

# torch and the C++ code of Arrow raise RuntimeError or OSError. dlopen and thread creation also fail when memory runs out.
_NO_MEMORY = re.compile(
    r"(?i)can(no|')t allocate memory|not enough memory|out of memory|failed to allocate|unable to allocate|std::bad_alloc|"
    r"failed to map segment|insufficient memory|can't start new thread"
)


class TrichordError(ValueError):
    """A mistake of the user or a problem in the user's data.

    The command line prints the message on one line and exits with code 2. Because the message may quote the content of a
    file, control characters that a terminal would interpret are escaped.

    Example:
        >>> from trichord import Order, TrichordError
        >>> try:
        ...     Order.parse("a>vt")
        ... except TrichordError as error:
        ...     print(str(error).split("; ")[0])
        order 'a>vt' starts with A alone
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))


class Unavailable(TrichordError):
    """A file that could not be examined because of missing permissions, a system fault or too little memory.

    The file itself may be intact, so it is neither deleted nor recreated because of this error.
    """


class Diverged(TrichordError):
    """A training run whose loss or gradient is no longer finite."""


def one_line(text: object) -> str:
    """Return the text with each run of white space replaced by a single space."""
    return " ".join(str(text).split())


def printable(text: object) -> str:
    r"""Return the text as a terminal can show it: line breaks and tabs become spaces, other control characters `\x1b`."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


def disk_error(error: BaseException, where: object = None) -> TrichordError | None:
    """Return the error to raise when a disk is full, fails or is not writable.

    Args:
        error: The error as Python, NumPy, Arrow or safetensors raises it.
        where: The folder that is written to. It is named if the error names no file.

    Returns:
        A TrichordError that tells the user what to do, or None if the error has another cause.
    """
    number = error_number(error)
    if number not in _ADVICE:
        return None
    path = getattr(error, "filename", None) or where
    return TrichordError(
        f"{path or 'the disk'}: cannot be {'used' if number in _UNUSABLE else 'written'} "
        f"({os.strerror(number)}): {_ADVICE[number]}, then run the command again (train: with --resume)"
    )


def memory_error(error: BaseException) -> TrichordError | None:
    """Return the error to raise when memory ran out in Python, NumPy, Arrow or torch; None for any other error."""
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return TrichordError(
            f"not enough memory ({one_line(error)[:200] or type(error).__name__}); close other programs, raise the limit "
            "(ulimit -v, a container's or a batch system's), or choose smaller batches"
        )
    return None


def error_number(error: BaseException) -> int | None:
    """Return the errno of an error of Python, NumPy, Arrow or safetensors; None if the error has none."""
    if match := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors
        return int(match[1])
    if not isinstance(error, OSError):
        return None
    if error.errno is None and re.search(r"(?<!\d)\d++ requested and \d+ written", str(error)):
        return errno.ENOSPC  # numpy does not say why
    return error.errno
