"""Output folders: everything below them lies in real folders, and only what trichord made is removed.

A study, a store or a model may come from somebody else. A link to a folder inside it would lead writes and deletions out of
it, so it is refused before the first write. The output folder itself, and its parents, may be links.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from trichord.errors import TrichordError


def check_no_links(root: Path) -> None:
    """Refuse an output folder in which a link to a folder lies, at any depth. A missing folder is fine.

    Raises TrichordError naming the link and where it leads.
    """
    for entry in _entries_below(root):
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


def is_real_folder(path: str | Path) -> bool:
    """Return whether the path is a folder itself, not a link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all that it holds, if it exists. Of a link, only the link is removed; errors are ignored."""
    if folder.is_symlink():
        with suppress(OSError):
            folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def link_error(link: Path) -> TrichordError:
    """Return the error to raise for a link to a folder that lies inside an output folder."""
    return TrichordError(
        f"{link}: is a link to {os.readlink(link)}; nothing is written or deleted through links inside an output folder. "
        "Replace it by a real folder, or make the output folder itself the link"
    )


def _entries_below(root: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    yield from _entries_below(Path(entry.path))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
