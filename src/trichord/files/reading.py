"""Opening and reading files without blocking forever and without reading an unlimited amount of data.

A file that is found in a folder, or that another file names, must be a regular file: a FIFO may wait for a writer that never
comes, and a device such as `/dev/zero` never ends. A file that the user names on the command line may also be a pipe
(`--words <(zcat table.gz)`). A pipe is copied to a temporary file of limited size.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import io
import json
import mmap
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, TextIO, cast

from trichord.errors import TrichordError, Unavailable, error_number, memory_error, one_line
from trichord.files.lfs import lfs_pointer_error
from trichord.threads import NotInTimeError, within

MAX_BYTES = 1 << 30  # default limit for files that are read into memory completely
MAX_PIPED_BYTES = 16 << 30  # limit for pipes that the user names
WRITER_WAIT_S = 10.0  # how long to wait for a process to open a FIFO that the user names
_BLOCK_BYTES = 1 << 20
_PIPES: dict[tuple[int, int], IO[bytes]] = {}  # device and inode of a pipe -> its copy
# Flag that opens a pipe neither for reading nor for writing. While a deleted pipe is open, no new pipe gets its inode.
_WITHOUT_READING = getattr(os, "O_PATH", 0)
_SPARE_BYTES = 64 << 20


class NotRegularFileError(OSError):
    """Raised when a path leads to a folder, a FIFO, a socket or a device where a regular file is expected."""


class FileTooLargeError(OSError):
    """Raised when a file has more bytes than its format allows."""


_WRONG_KINDS = (NotRegularFileError, FileTooLargeError)
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_WRONG_CONTENT = (errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EFBIG, errno.EOVERFLOW)
_ADVICE = {
    errno.EACCES: "ask its owner for permission to read it",
    errno.EPERM: "ask its owner for permission to read it",
    errno.EMFILE: "raise the limit of open files (ulimit -n), then run the command again",
    errno.ENFILE: "close other programs, then run the command again",
    errno.ENOMEM: "close other programs or raise the memory limit, then run the command again",
}


def check_regular(path: str | Path) -> os.stat_result:
    """Check that a file which another library is about to open by its path is regular, and return its status.

    Raises:
        OSError: The file does not exist or cannot be reached.
        NotRegularFileError: The path does not lead to a regular file, directly or through a link.
    """
    status = os.stat(path)
    _refuse_irregular(status.st_mode, path)
    return status


def open_descriptor(path: str | Path, flags: int) -> int:
    """Open a regular file, or create one with `os.O_CREAT`, and return its descriptor. Usable as an `opener` of `open`.

    Raises:
        OSError: The file cannot be opened or created.
        NotRegularFileError: The path does not lead to a regular file, directly or through a link.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    try:
        _refuse_irregular(os.fstat(descriptor).st_mode, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a regular file for reading in binary mode. This never blocks, whatever the path leads to.

    Raises:
        OSError: The file does not exist or cannot be opened.
        NotRegularFileError: The path does not lead to a regular file, directly or through a link.
    """
    return open(path, "rb", opener=open_descriptor)


def open_regular_text(
    path: str | Path, *, encoding: str = "utf-8", errors: str | None = None, newline: str | None = None
) -> TextIO:
    """Open a regular file for reading as text. See `open_regular` for errors and `open` for the arguments."""
    return cast(TextIO, open(path, encoding=encoding, errors=errors, newline=newline, opener=open_descriptor))


def open_given(path: str | Path, *, max_bytes: int = MAX_PIPED_BYTES) -> BinaryIO:
    """Open a file that the user named. A regular file is opened directly, a pipe as a seekable temporary copy.

    A pipe can be read only once. The process keeps the copy, so that the same path can be opened again.

    Args:
        path: A path as the user typed it, for example `/dev/fd/63` from `<(zcat table.gz)`.
        max_bytes: The largest number of bytes to read from a pipe.

    Raises:
        OSError: The file does not exist or cannot be opened.
        NotRegularFileError: The path leads to a folder, a socket or a device, or to a FIFO that no process opens for writing.
        FileTooLargeError: The pipe yields more than `max_bytes`.
    """
    status = os.stat(path)
    if not stat.S_ISFIFO(status.st_mode):
        return open_regular(path)
    pipe_id = (status.st_dev, status.st_ino)
    if pipe_id not in _PIPES:
        held = os.open(path, _WITHOUT_READING | os.O_CLOEXEC) if _WITHOUT_READING else -1
        try:
            _PIPES[pipe_id] = _copy_of_pipe(path, max_bytes)
        except BaseException:
            if held >= 0:
                os.close(held)
            raise
    file = open(f"/dev/fd/{_PIPES[pipe_id].fileno()}", "rb")  # noqa: SIM115 - the caller closes it
    file.seek(0)
    return file


def _copy_of_pipe(path: str | Path, max_bytes: int) -> IO[bytes]:
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed at exit
    try:
        with open(_open_pipe(path), "rb") as pipe:
            while block := pipe.read(_BLOCK_BYTES):
                if copy.tell() + len(block) > max_bytes:
                    raise FileTooLargeError(errno.EFBIG, f"yields more than {max_bytes:,} bytes", str(path))
                copy.write(block)
        copy.flush()
        atexit.register(copy.close)
    except BaseException:
        copy.close()
        raise
    return copy


def _open_pipe(path: str | Path) -> int:
    """Return a descriptor for reading from a pipe. A FIFO without a writer is given up after `WRITER_WAIT_S`."""
    try:
        return within(WRITER_WAIT_S, lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except NotInTimeError:
        with suppress(OSError):  # opened for writing, so that the waiting thread returns
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        raise NotRegularFileError(errno.ENXIO, "is a FIFO that no process writes to", str(path)) from None


def open_given_text(path: str | Path, *, encoding: str = "utf-8", newline: str | None = None) -> TextIO:
    """Open a file or pipe that the user named for reading as text. See `open_given` for errors."""
    binary = open_given(path, max_bytes=MAX_BYTES)
    return io.TextIOWrapper(cast(IO[bytes], binary), encoding=encoding, newline=newline)


def read_bytes(path: str | Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a regular file.

    Raises:
        OSError: See `open_regular`.
        FileTooLargeError: The file has more than `max_bytes`.
    """
    with open_regular(path) as file:
        return _read_bounded(file, path, max_bytes)


def read_text(path: str | Path, *, encoding: str = "utf-8", errors: str = "strict", max_bytes: int = MAX_BYTES) -> str:
    r"""Read a regular text file and replace every line break with `\n`.

    Raises:
        OSError: See `open_regular`.
        FileTooLargeError: The file has more than `max_bytes`.
        UnicodeError: The file does not have the given encoding.
    """
    text = read_bytes(path, max_bytes=max_bytes).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_given_text(path: str | Path) -> str:
    """Read a UTF-8 text file or pipe that the user named. See `open_given` and `read_text` for errors."""
    with open_given(path, max_bytes=MAX_BYTES) as file:
        text = _read_bounded(file, path, MAX_BYTES).decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json_value(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read the value of a JSON file.

    Raises:
        OSError: See `read_bytes`.
        ValueError: The file is not JSON, or its values are nested too deeply.
    """
    return parse_json(read_bytes(path, max_bytes=max_bytes))


def parse_json(text: str | bytes, *, unique_keys: bool = False) -> Any:
    """Parse a JSON text.

    Args:
        text: The text.
        unique_keys: Whether a repeated key of an object is an error; otherwise its last value is used.

    Raises:
        ValueError: The text is not JSON, its values are nested too deeply, a number has thousands of digits, or a key is
            repeated although `unique_keys` is true.
    """
    try:
        return json.loads(text, object_pairs_hook=_object_of_unique_keys if unique_keys else None)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    except ValueError as error:
        if "integer string conversion" not in str(error):
            raise
        raise ValueError("a number in it has too many digits") from None


def json_lines(path: str | Path) -> Iterator[Any]:
    """Yield the values of a JSON Lines file that serves as a cache. Incomplete lines and unreadable files are skipped."""
    try:
        lines = read_text(path, errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        with suppress(ValueError):
            yield parse_json(line)


def parse_json_row(text: str) -> Any:
    """Parse one line of a JSON table.

    Raises:
        ValueError: See `parse_json`, and for strings that are not valid Unicode.
    """
    value = parse_json(text)
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a string in it contains an unpaired surrogate, which is not a valid character") from None
    return value


def _object_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the key '{one_line(repeated)[:80]}' twice")
    return values


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal. See `open_regular` for errors."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason_of(error: BaseException) -> str:
    """Return the reason for an error in one line: the message of the operating system if it has one, else that of the error."""
    number = error_number(error)
    if number is not None and not isinstance(error, _WRONG_KINDS):
        return os.strerror(number)
    return (getattr(error, "strerror", None) or one_line(error) or type(error).__name__)[:200]


def unreadable(path: str | Path, error: Exception, *, mend: str = "") -> TrichordError:
    """Return the error to raise for a file that cannot be read. Its advice depends on the cause.

    Args:
        path: The file.
        error: The error that Python or a library raised. If a library hides the error of the operating system, the file is
            opened again to find it.
        mend: What to do about a file that is missing or whose content is wrong, such as to delete and recreate it.

    Returns:
        `Unavailable` if the content could not be examined because of missing permissions, a disk fault or too little memory;
        it does not use `mend`. TrichordError for a file that is missing, of the wrong kind or damaged.
    """
    if pointer := lfs_pointer_error(path):
        return pointer
    if (known := memory_error(error)) and not (isinstance(error, MemoryError) and _fits_into_memory(path)):
        return Unavailable(f"{path}: cannot be read: {known}")
    error = _cause_of(path, error)
    number = None if isinstance(error, _WRONG_KINDS) else error_number(error)
    if number in _MISSING and not mend:
        return TrichordError(f"{path}: does not exist; check the path")
    if number in (None, *_MISSING, *_WRONG_CONTENT):
        return TrichordError(f"{path}: cannot be read ({reason_of(error)}); {mend or 'check the path'}")
    advice = _ADVICE.get(number, "check the disk or the network, then run the command again")
    return Unavailable(f"{path}: cannot be read ({reason_of(error)}); {advice}")


def missing(path: str | Path, kind: Literal["file", "folder"], *, mend: str) -> TrichordError:
    """Return the error for a path at which there is no file or no folder.

    Args:
        path: The path.
        kind: What is expected at the path.
        mend: What the user should do.
    """
    problem = f"is not a {kind}" if os.path.exists(path) else "does not exist"
    return TrichordError(f"{path}: {problem}; {mend}")


def reraise_unavailable(path: str | Path, error: Exception) -> None:
    """Raise `Unavailable` for an error that says nothing about the content of the file; return for any other error."""
    readable_error = unreadable(path, error)
    if isinstance(readable_error, Unavailable):
        raise readable_error from None


def _fits_into_memory(path: str | Path) -> bool:
    """Return whether the file fits into memory. If it does, a reader that ran out of memory was misled by sizes in the file."""
    try:
        mmap.mmap(-1, os.stat(path).st_size + _SPARE_BYTES).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _cause_of(path: str | Path, error: Exception) -> Exception:
    """Return the error of the operating system if a library hides it: safetensors reports an unreadable file as missing."""
    if not isinstance(error, OSError) or error.errno is not None:
        return error
    try:
        open_regular(path).close()
    except OSError as cause:
        return cause
    if isinstance(error, FileNotFoundError):  # the file exists now, so the cause was temporary
        return OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
    return error


def _read_bounded(file: BinaryIO, path: str | Path, max_bytes: int) -> bytes:
    size = os.fstat(file.fileno()).st_size  # reading more would allocate all of `max_bytes`
    content = file.read(min(size, max_bytes) + 1)
    while size < len(content) <= max_bytes and (more := file.read(_BLOCK_BYTES)):  # the file has grown since
        content += more
    if len(content) > max_bytes:
        raise FileTooLargeError(errno.EFBIG, f"has more than {max_bytes:,} bytes", str(path))
    return content


def _refuse_irregular(mode: int, path: str | Path) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise NotRegularFileError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kinds = (
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
    )
    kind = next((name for is_kind, name in kinds if is_kind(mode)), "something else")
    raise NotRegularFileError(errno.EINVAL, f"is {kind}, not a regular file", str(path))
