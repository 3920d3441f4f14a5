"""The files below a folder. A folder that cannot be listed is told or is an error; it is never left out silently."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from trichord.errors import TrichordError


def files_below(root: Path, unlisted: list[OSError] | None = None) -> Iterator[Path]:
    """Yield the paths of everything below a folder that is not a folder itself, sorted within each folder.

    Links to folders are followed; a folder that several links lead to is listed once. Names that begin with a dot are
    passed over.

    Args:
        root: The folder.
        unlisted: Takes an error for each folder whose list is not complete; its `filename` is the folder.

    Raises TrichordError for such a folder where `unlisted` is None.
    """
    folders, listed = [str(root)], set()
    while folders:
        folder = folders.pop()
        if (real := os.path.realpath(folder)) in listed:
            continue
        listed.add(real)
        entries, error = _entries(folder)
        if error is not None:
            error.filename = folder
            if unlisted is None:
                raise_unlisted(error)
            unlisted.append(error)
        below = []
        for entry in sorted(entries, key=lambda entry: entry.name):
            if _is_folder(entry):
                below.append(entry.path)
            else:
                yield Path(entry.path)
        folders += reversed(below)


def own_files_below(root: Path) -> Iterator[Path]:
    """Yield the paths of all files below a folder, hidden ones too, without following links to folders.

    Raises TrichordError for a folder that cannot be listed.
    """
    for folder, _, names in os.walk(root, onerror=raise_unlisted):
        yield from (Path(folder, name) for name in names)


def raise_unlisted(error: OSError) -> NoReturn:
    """Raise TrichordError for a folder that cannot be listed; an `onerror` for `os.walk`, which would pass it over."""
    raise TrichordError(
        f"{error.filename}: cannot be listed ({error.strerror}); mend that, or move the folder away"
    ) from error


def _entries(folder: str) -> tuple[list[os.DirEntry[str]], OSError | None]:
    """What could be listed of a folder, and the error that ended the list early."""
    entries: list[os.DirEntry[str]] = []
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                if not entry.name.startswith("."):
                    entries.append(entry)  # noqa: PERF401 - what was listed before an error counts
    except OSError as error:
        return entries, error
    return entries, None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one. Where a link leads out of reach, it may be one: then it is to be listed."""
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno not in (errno.ELOOP, errno.ENAMETOOLONG)
