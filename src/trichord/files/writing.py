"""Files and folders that are written whole or not at all, whenever the process is killed or the machine stops.

New content lies beside its place until it is on the disk; then it is renamed. A killed process leaves at most a hidden
`.NAME.partial` or `.NAME.old`; the next writer of the same name replaces it. A new file has the mode that the umask asks
for, also when a library such as safetensors writes it for its owner alone.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trichord.errors import TrichordError
from trichord.files.folders import remove_tree


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write a file to. At the end the file is brought to the disk and replaces `path`; after an error `path`
    is as it was."""
    partial = path.with_name(f".{path.name}.partial")
    if path.is_dir():
        raise TrichordError(f"{path}: is a folder where a file belongs; move it away, then run the command again")
    try:
        mode = new_file(partial)
        yield partial
        give_mode(partial, mode)
        sync(partial)
        os.replace(partial, path)
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


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def replace_folder(partial: Path, final: Path) -> None:
    """Bring a folder of files to the disk and let it replace the folder `final`.

    At no moment does `final` hold only part of the files. When it replaces a folder, there is a moment without `final`.
    """
    for file in partial.iterdir():
        sync(file)
    sync(partial)
    remove_folder(final)
    os.replace(partial, final)
    sync(final.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder if it exists: first its name, at once, then its files. A link to a folder is removed as a link."""
    old = folder.with_name(f".{folder.name}.old")
    remove_tree(old)
    with suppress(FileNotFoundError):
        os.replace(folder, old)
    remove_tree(old)


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
