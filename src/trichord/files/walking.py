"""Listing the files below a folder. A folder that cannot be listed is reported or raises an error; it is never ignored."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from trichord.errors import TrichordError


def files_below(root: Path, unlisted: list[OSError] | None = None) -> Iterator[Path]:
    """Yield the paths of all files below a folder, sorted within each folder.

    Everything that is not a folder counts as a file. Links to folders are followed, and a folder that several links lead to is
    listed once. Names that begin with a dot are skipped.

    Args:
        root: The folder.
        unlisted: A list that receives an error for each folder whose listing is incomplete; its `filename` is the folder.

    Raises:
        TrichordError: A folder cannot be listed completely and `unlisted` is None.
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
    """Yield the paths of all files below a folder, including hidden ones, without following links to folders.

    Raises:
        TrichordError: A folder cannot be listed.
    """
    for folder, _, names in os.walk(root, onerror=raise_unlisted):
        yield from (Path(folder, name) for name in names)


def raise_unlisted(error: OSError) -> NoReturn:
    """Raise TrichordError for a folder that cannot be listed. Usable as `onerror` of `os.walk`, which would skip the folder."""
    raise TrichordError(
        f"{error.filename}: cannot be listed ({error.strerror}); fix the cause, or move the folder away"
    ) from error


def _entries(folder: str) -> tuple[list[os.DirEntry[str]], OSError | None]:
    """Return the entries of a folder that could be listed, and the error that ended the listing early."""
    entries: list[os.DirEntry[str]] = []
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                if not entry.name.startswith("."):
                    entries.append(entry)  # noqa: PERF401 - entries listed before an error are kept
    except OSError as error:
        return entries, error
    return entries, None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one. A link whose target cannot be reached counts as a folder."""
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno not in (errno.ELOOP, errno.ENAMETOOLONG)
