"""Recognise the pointers that a clone without git-lfs leaves in place of large files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from trichord.errors import TrichordError

_HEADS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_MOST_BYTES = 1024  # of a pointer, by its specification


def lfs_pointer_error(path: str | Path) -> TrichordError | None:
    """Return the error to raise for a file that is a git-lfs pointer; None for any other file, and where there is none."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            return None
        with open(path, "rb") as file:
            if not file.read(len(max(_HEADS, key=len))).startswith(_HEADS):
                return None
    except (OSError, ValueError):
        return None
    return TrichordError(
        f"{path}: is a git-lfs pointer in place of the file, as a clone without git-lfs leaves it; get the file with "
        "`git lfs pull` in the clone, or download it with `hf download`"
    )


def refuse_lfs_pointer(path: str | Path) -> None:
    """Raise TrichordError when the file is a git-lfs pointer."""
    if error := lfs_pointer_error(path):
        raise error
