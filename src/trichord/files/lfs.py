"""Detection of git-lfs pointers, which a clone without git-lfs contains in place of large files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from trichord.errors import TrichordError

_HEADS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_MOST_BYTES = 1024  # the specification limits pointers to this size


def lfs_pointer_error(path: str | Path) -> TrichordError | None:
    """Return the error to raise for a git-lfs pointer; None for any other file and for a missing file."""
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
        f"{path}: is a git-lfs pointer in place of the file, left by a clone without git-lfs; fetch the file with "
        "`git lfs pull` in the clone, or download it with `hf download`"
    )


def refuse_lfs_pointer(path: str | Path) -> None:
    """Check that a file is not a git-lfs pointer.

    Raises:
        TrichordError: The file is a git-lfs pointer.
    """
    if error := lfs_pointer_error(path):
        raise error
