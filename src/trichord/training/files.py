"""Files and folders that are there whole or not at all, whenever the process is killed or the machine stops.

What is written lies beside its place until it is on the disk, then it is renamed. A killed process leaves at most a hidden
`.NAME.partial` or `.NAME.old`; the next writer of the same name writes over it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trichord.errors import TrichordError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file to. On leaving, the file is brought to the disk and takes the place of `path`; after an error
    `path` is as it was."""
    partial = path.with_name(f".{path.name}.partial")
    if path.is_dir():
        raise TrichordError(f"{path}: is a folder where a file belongs; move it away, then run the command again")
    if partial.is_symlink():
        partial.unlink()  # never written through
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all, so that a reader never sees half of it."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def replace_folder(partial: Path, final: Path) -> None:
    """Bring a folder of files to the disk and let it take the place of `final`. There is no moment at which a part of it is
    there under that name; if a folder is replaced, there is one at which it is not there."""
    for file in partial.iterdir():
        sync(file)
    sync(partial)
    remove_folder(final)
    os.replace(partial, final)
    sync(final.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it is there: away under its name at once, then its files."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.replace(folder, old)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Bring a file or the entries of a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some file systems know no fsync of folders
            raise
    finally:
        os.close(descriptor)
