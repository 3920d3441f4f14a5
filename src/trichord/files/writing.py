"""Writing files and folders completely or not at all, even if the process is killed or the machine stops.

New content is written next to its final place and renamed once it is on disk. A killed process leaves at most a hidden
`.NAME.partial` or `.NAME.old` (with a hash instead of a long NAME), which the next writer of the same name replaces. New files
have the mode that the umask gives, even if a library such as safetensors would make them readable only by their owner.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from trichord.errors import TrichordError, disk_error
from trichord.files.folders import hidden_beside, remove_folder
from trichord.files.reading import open_descriptor, reason_of

_NO_HARD_LINKS = (
    errno.EPERM,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
)  # errors of file systems without hard links


@contextmanager
def replacing(path: Path, *, exclusive: bool = False, shared: bool = False) -> Iterator[Path]:
    """Yield a path to write to. At the end of the block, the file there is synced to disk and replaces `path`.

    If the block raises an error, `path` keeps its old content.

    Args:
        path: The final path of the file.
        exclusive: Whether to raise FileExistsError instead of replacing a file that exists at the end.
        shared: Whether several processes may write the file at the same time; the last one wins.

    Raises:
        TrichordError: `path` is a folder.
    """
    partial = hidden_beside(path, f".{os.getpid()}.partial" if shared else ".partial")
    if path.is_dir():
        raise TrichordError(f"{path}: is a folder where a file is expected; move it away, then run the command again")
    try:
        mode = new_file(partial)
        yield partial
        give_mode(partial, mode)
        sync(partial)
        _publish(partial, path, exclusive)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def new_file(path: Path) -> int:
    """Create an empty file, which replaces a file or link of that name, and return the mode that the umask gave it."""
    path.unlink(missing_ok=True)  # a link is removed, never written through
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def give_mode(path: Path, mode: int) -> None:
    """Set the mode of a file unless it has that mode already. File systems without modes are ignored."""
    if stat.S_IMODE(os.lstat(path).st_mode) != mode:
        with suppress(PermissionError, NotImplementedError):
            os.chmod(path, mode)


def open_itself(path: str, flags: int) -> int:
    """Open a regular file for appending, but never the target of a link. Usable as an `opener` of `open`."""
    return open_descriptor(path, flags | os.O_NOFOLLOW)


def write_text(path: Path, text: str, *, shared: bool = False) -> None:
    """Write a UTF-8 text file completely or not at all. See `replacing` for the arguments."""
    with replacing(path, shared=shared) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: object, *, shared: bool = False) -> None:
    """Write a JSON file completely or not at all. See `replacing` for the arguments."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n", shared=shared)


def append_json_line(path: Path, values: object) -> None:
    """Append a line of JSON to a file in a single write, so that several processes can append at the same time."""
    line = json.dumps(values) + "\n"
    with open(path, "a+b", buffering=0, opener=open_itself) as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line  # a killed process left an incomplete line
        file.write(line.encode())


def refuse_foreign(paths: Iterable[Path], is_own: Callable[[Path], bool], kind: str) -> None:
    """Check that files about to be replaced were written by trichord. Empty files and links may always be replaced.

    Args:
        paths: The files that are about to be written.
        is_own: Returns whether an existing file is of the same kind. An error while reading it means that it is not.
        kind: What the files contain, for the error message.

    Raises:
        TrichordError: A file was not written by trichord. The message names the first one.
    """
    for path in paths:
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISLNK(status.st_mode) or (stat.S_ISREG(status.st_mode) and not status.st_size):
            continue
        with suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):
            if stat.S_ISREG(status.st_mode) and is_own(path):
                continue
        raise TrichordError(
            f"{path}: is not {kind} that trichord wrote, so it is not replaced; move it away, or choose another path"
        )


def replace_folder(partial: Path, final: Path, own: re.Pattern[str]) -> None:
    """Sync a folder of files to disk and let it replace the folder `final`.

    `final` never contains only some of the files. If it replaces a folder, `final` does not exist for a moment.

    Args:
        partial: The new folder, which contains only files.
        final: The final path of the folder. A folder there is removed if it contains only files that `own` matches.
        own: A pattern that matches the files that trichord created, see `folders.holds_only`.

    Raises:
        TrichordError: `final` is a link or contains files that trichord did not create.
    """
    for file in partial.iterdir():
        sync(file)
    sync(partial)
    if not remove_folder(final, own):
        raise TrichordError(
            f"{final}: is a link, or contains files that trichord did not write; move it away, then run the command again"
        )
    os.rename(partial, final)
    sync(final.parent)


@contextmanager
def replacing_file(path: Path, *, exclusive: bool = False) -> Iterator[BinaryIO]:
    """Yield a new binary file, which replaces `path` at the end of the block. See `replacing`."""
    with replacing(path, exclusive=exclusive) as partial, partial.open("wb") as file:
        yield file


@contextmanager
def writing_to(place: object, advice: str = "", what: str = "cannot be written to") -> Iterator[None]:
    """Turn an OSError of the block into a TrichordError that names the place and says what to do.

    Args:
        place: The file or folder that the block writes.
        advice: What the user should do. By default, it follows from the cause, the file that the error names is named, and errors
            that do not concern the disk are raised unchanged.
        what: What went wrong, for the error message if `advice` is given.
    """
    try:
        yield
    except Exception as error:
        if advice and isinstance(error, OSError):
            raise TrichordError(f"{place}: {what} ({reason_of(error)}); {advice}") from error
        if not advice and (known := disk_error(error, place)):
            raise known from error
        raise


@contextmanager
def umask_mode(path: Path) -> Iterator[None]:
    """Give the file that the block writes at `path` the mode of the umask, whatever mode its writer chooses."""
    mode = new_file(path)
    yield
    give_mode(path, mode)


def sync(path: Path) -> None:
    """Sync a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some file systems cannot fsync a folder
            raise
    finally:
        os.close(descriptor)


def _publish(partial: Path, path: Path, exclusive: bool) -> None:
    if not exclusive:
        os.replace(partial, path)
        return
    try:
        os.link(partial, path, follow_symlinks=False)  # unlike a rename, it never replaces anything
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.rename(partial, path)
    else:
        partial.unlink()
