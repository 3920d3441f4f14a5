"""Output folders. Everything below them lies in real folders, and only files that trichord created are removed.

A study, a store or a model may come from somebody else. A link to a folder inside it would redirect writes and deletions to a
place outside, so such a link is refused before the first write. The output folder itself and its parents may be links.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from trichord.errors import TrichordError

LONGEST_NAME = 255  # the limit of common file systems for a file name, in bytes


def check_no_links(root: Path) -> None:
    """Check that an output folder contains no link to a folder at any depth. A missing folder passes.

    Hidden folders, such as a virtual environment next to the results, are not searched. The hidden folders that trichord itself
    uses are checked when they are created or removed.

    Raises:
        TrichordError: The folder contains a link to a folder. The message names the link and its target.
    """
    for entry in _entries_below(root, hidden=False):
        if entry.is_symlink() and entry.is_dir():
            raise link_error(Path(entry.path))


def make_folder(root: Path, *names: str) -> Path:
    """Create the folder `root/names[0]/names[1]/...` if it is missing, and return it.

    `root` and its parents may be links; the folders below it may not.

    Raises:
        TrichordError: A folder below `root` is a link, or a file has its name.
        OSError: A folder cannot be created.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = root
    for name in names:
        folder = folder / name
        with suppress(FileExistsError):
            folder.mkdir()
        if folder.is_symlink():
            raise link_error(folder)
        if not folder.is_dir():
            raise TrichordError(
                f"{folder}: is a file where a folder is expected; move it away, then run the command again"
            )
    return folder


def folder_in(root: Path, name: str) -> Path:
    """Return `root/name` without creating it.

    Raises:
        TrichordError: The path is a link.
    """
    folder = root / name
    if folder.is_symlink():
        raise link_error(folder)
    return folder


def hidden_beside(path: Path, suffix: str) -> Path:
    """Return the hidden path `.NAME` + `suffix` next to a path. A NAME that is too long is replaced by a hash."""
    name = f".{path.name}{suffix}"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}{suffix}"
    return path.with_name(name)


def is_real_folder(path: str | Path) -> bool:
    """Return whether the path is a folder and not a link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def holds_only(folder: Path, own: re.Pattern[str]) -> bool:
    """Return whether a path is a real folder that contains only files that trichord created there.

    Args:
        folder: The folder.
        own: A pattern that matches the complete name of such a file, relative to `folder` and with slashes.
    """
    if not is_real_folder(folder):
        return False
    for entry in _entries_below(folder):
        if entry.is_dir(follow_symlinks=False):
            continue
        name = Path(entry.path).relative_to(folder).as_posix()
        if not own.fullmatch(name) or not (entry.is_symlink() or entry.is_file(follow_symlinks=False)):
            return False
    return True


def remove_folder(folder: Path, own: re.Pattern[str]) -> bool:
    """Remove a folder that trichord created. It is renamed first, so that it disappears at once, and then deleted.

    Links, files and folders that contain any other files are left unchanged. So are folders that the system refuses to remove.

    Args:
        folder: The folder.
        own: A pattern that matches the files that trichord created, see `holds_only`.

    Returns:
        Whether nothing exists under the name of the folder any more.
    """
    if folder.name.startswith(".") and folder.name.endswith(".old"):
        return _remove_own(folder, own)
    old = hidden_beside(folder, ".old")
    if not os.path.lexists(folder):
        _remove_own(old, own)
        return True
    if not holds_only(folder, own) or (os.path.lexists(old) and not _remove_own(old, own)):
        return False
    try:
        os.rename(folder, old)
    except FileNotFoundError:  # another process removed it
        return True
    except OSError:
        return False
    _remove_own(old, own)
    return True


def _remove_own(folder: Path, own: re.Pattern[str]) -> bool:
    if not holds_only(folder, own):
        return not os.path.lexists(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return not os.path.lexists(folder)


def link_error(link: Path) -> TrichordError:
    """Return the error to raise for a link to a folder inside an output folder."""
    return TrichordError(
        f"{link}: is a link to {os.readlink(link)}; trichord does not write or delete through links inside an output folder. "
        "Replace it with a real folder, or make the output folder itself the link"
    )


def _entries_below(root: Path, *, hidden: bool = True) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False) and (hidden or not entry.name.startswith(".")):
                    yield from _entries_below(Path(entry.path), hidden=hidden)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
