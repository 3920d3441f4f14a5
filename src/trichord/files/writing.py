"""Files and folders that are written whole or not at all, whenever the process is killed or the machine stops.

New content lies beside its place until it is on the disk; then it is renamed. A killed process leaves at most a hidden
`.NAME.partial` or `.NAME.old` (with a hash in place of a long NAME); the next writer of the same name replaces it. A new file
has the mode that the umask asks for, also when a library such as safetensors writes it for its owner alone.
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

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # of some file systems


@contextmanager
def replacing(path: Path, *, exclusive: bool = False, shared: bool = False) -> Iterator[Path]:
    """Yield a path to write a file to. At the end the file is brought to the disk and replaces `path`; after an error `path`
    is as it was.

    Args:
        path: Where the file is to be.
        exclusive: Raise FileExistsError in place of replacing a file that is there at the end.
        shared: Several processes may write the file at the same time; the last one wins.
    """
    partial = hidden_beside(path, f".{os.getpid()}.partial" if shared else ".partial")
    if path.is_dir():
        raise TrichordError(f"{path}: is a folder where a file belongs; move it away, then run the command again")
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
    """Create an empty file, in the place of a file or link of that name, and return the mode that the umask gave it."""
    path.unlink(missing_ok=True)  # a link is removed, never written through
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def give_mode(path: Path, mode: int) -> None:
    """Set the mode of a file, unless it has that mode. A file system that knows no modes is no error."""
    if stat.S_IMODE(os.lstat(path).st_mode) != mode:
        with suppress(PermissionError, NotImplementedError):
            os.chmod(path, mode)


def open_itself(path: str, flags: int) -> int:
    """An `opener` of `open` for appending to a regular file of that name, never through a link to another one."""
    return open_descriptor(path, flags | os.O_NOFOLLOW)


def write_text(path: Path, text: str, *, shared: bool = False) -> None:
    """Write a UTF-8 file whole or not at all. Arguments as of `replacing`."""
    with replacing(path, shared=shared) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: object, *, shared: bool = False) -> None:
    """Write a JSON file whole or not at all. Arguments as of `replacing`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n", shared=shared)


def append_json_line(path: Path, values: object) -> None:
    """Append a line of JSON to a file in a single write, so that several processes can append at the same time."""
    line = json.dumps(values) + "\n"
    with open(path, "a+b", buffering=0, opener=open_itself) as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line  # a killed process left its line torn
        file.write(line.encode())


def refuse_foreign(paths: Iterable[Path], is_own: Callable[[Path], bool], kind: str) -> None:
    """Refuse to replace files that trichord did not write. Empty files and links hold nothing and may be replaced.

    Args:
        paths: The files that are about to be written.
        is_own: Returns whether a file is an earlier one of the same kind; an error of reading it means that it is not.
        kind: What the files hold, for the message.

    Raises TrichordError naming the first file that is not.
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
            f"{path}: is not {kind} that trichord wrote, and is not replaced; move it away, or name another place"
        )


def replace_folder(partial: Path, final: Path, own: re.Pattern[str]) -> None:
    """Bring a folder of files to the disk and let it replace the folder `final`.

    At no moment does `final` hold only part of the files. When it replaces a folder, there is a moment without `final`.

    Args:
        partial: The new folder, with files only.
        final: Its name. A folder there is removed if it holds only files that `own` matches (`folders.holds_only`).

    Raises TrichordError when `final` is a link or holds files that trichord did not make.
    """
    for file in partial.iterdir():
        sync(file)
    sync(partial)
    if not remove_folder(final, own):
        raise TrichordError(
            f"{final}: is a link, or holds files that trichord did not write; move it away, then run the command again"
        )
    os.rename(partial, final)
    sync(final.parent)


@contextmanager
def replacing_file(path: Path, *, exclusive: bool = False) -> Iterator[BinaryIO]:
    """Yield a new binary file, which replaces `path` as `replacing` does."""
    with replacing(path, exclusive=exclusive) as partial, partial.open("wb") as file:
        yield file


@contextmanager
def writing_to(place: object, advice: str = "", what: str = "cannot be written to") -> Iterator[None]:
    """Raise TrichordError, which names the place and says what to do, if the block cannot write.

    Args:
        place: The file or folder that the block writes.
        advice: What to do. By default it follows from the cause, the file that the error names is named, and errors that are not
            of the disk pass unchanged.
        what: What cannot be done, where there is advice.
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
    """Give the file that the block writes at `path` the mode that the umask asks for, whatever mode its writer chooses."""
    mode = new_file(path)
    yield
    give_mode(path, mode)


def sync(path: Path) -> None:
    """Bring a file, or the entries of a folder, to the disk."""
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
