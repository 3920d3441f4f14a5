"""Output folders: everything below them lies in real folders, and only what trichord made is removed.

A study, a store or a model may come from somebody else. A link to a folder inside it would lead writes and deletions out of
it, so it is refused before the first write. The output folder itself, and its parents, may be links.
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

LONGEST_NAME = 255  # bytes of a file name on the usual file systems


def check_no_links(root: Path) -> None:
    """Refuse an output folder in which a link to a folder lies, at any depth. A missing folder is fine.

    Hidden folders, such as a virtual environment beside the results, are not searched: those that trichord makes are refused
    as links where they are made and removed.

    Raises TrichordError naming the link and where it leads.
    """
    for entry in _entries_below(root, hidden=False):
        if entry.is_symlink() and entry.is_dir():
            raise link_error(Path(entry.path))


def make_folder(root: Path, *names: str) -> Path:
    """Create the folder `root/names[0]/names[1]/...` where it is missing, and return it.

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
            raise TrichordError(f"{folder}: is a file where a folder belongs; move it away, then run the command again")
    return folder


def folder_in(root: Path, name: str) -> Path:
    """Return `root/name` without creating it. Raises TrichordError when it is a link."""
    folder = root / name
    if folder.is_symlink():
        raise link_error(folder)
    return folder


def hidden_beside(path: Path, suffix: str) -> Path:
    """The hidden path `.NAME` + `suffix` beside `path`, with a hash in place of a NAME that is too long for that."""
    name = f".{path.name}{suffix}"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}{suffix}"
    return path.with_name(name)


def is_real_folder(path: str | Path) -> bool:
    """Return whether the path is a folder itself, not a link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def holds_only(folder: Path, own: re.Pattern[str]) -> bool:
    """Return whether a folder is a real one and holds only files that trichord made there.

    Args:
        folder: The folder.
        own: Matches the whole name of such a file, relative to `folder` with slashes.
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
    """Remove a folder that trichord made: first its name, at once, then its files.

    A link, a file, and a folder that holds anything else than files of trichord are left as they are. So are folders whose
    removal the system refuses.

    Args:
        folder: The folder.
        own: As of `holds_only`.

    Returns:
        Whether nothing is left under that name.
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
    """Return the error to raise for a link to a folder that lies inside an output folder."""
    return TrichordError(
        f"{link}: is a link to {os.readlink(link)}; nothing is written or deleted through links inside an output folder. "
        "Replace it by a real folder, or make the output folder itself the link"
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
