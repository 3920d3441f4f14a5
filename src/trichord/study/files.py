"""Files of a study folder. Errors of reading name the damaged file and say what to do.

A file may have been truncated by a full disk or an interrupted copy, or may not be readable.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError, Unavailable, one_line
from trichord.files.arrays import check_archive
from trichord.files.reading import (
    file_sha256,
    open_regular,
    read_json_value,
    reraise_unavailable,
    unreadable,
)
from trichord.files.writing import replacing
from trichord.modality import declare_recorded
from trichord.training.seals import was_changed

RUN_AGAIN = "run the study again, which trains nothing twice"
KINDS = {dict: "an object", list: "a list"}


def is_there(path: Path) -> bool:
    """Return whether a path is a file, or a link to a file.

    Raises:
        Unavailable: This cannot be determined, for example because of the permissions of a folder. The file must not be created
            again in this case.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except ValueError:  # the name contains a null character
        return False
    except OSError as error:
        reraise_unavailable(path, error)
        return False


def read_json(path: Path, kind: type[dict[str, Any]] | type[list[Any]] = dict, *, mend: str = RUN_AGAIN) -> Any:
    """Read a JSON file. Modalities that it records are declared.

    Args:
        path: File.
        kind: Type of the content: `dict` or `list`.
        mend: Advice for the case that the file is damaged, which is the end of the error message.

    Returns:
        The content.

    Raises:
        TrichordError: The file is missing, cannot be read, has content of another type, was changed (`training.seals`), or uses
            a letter that denotes another modality.
    """
    try:
        content = read_json_value(path)
    except (OSError, ValueError, MemoryError) as error:
        raise unreadable(path, error, mend=mend) from None
    if not isinstance(content, kind):
        raise damaged(path, f"its content is not {KINDS[kind]}", mend)
    if isinstance(content, dict) and was_changed(content):
        raise damaged(path, "it has changed since it was written", mend)
    if isinstance(content, dict):
        declare_recorded(content.get("modalities", {}), path)
    return content


def check_sha256(path: Path, recorded: object, *, mend: str = RUN_AGAIN) -> None:
    """Compare a file with its recorded digest.

    Args:
        path: File.
        recorded: SHA-256 of the file. None, as in files of early versions, skips the check.
        mend: Advice for the case that the file is damaged.

    Raises:
        TrichordError: The digest differs, or the file cannot be read.
    """
    try:
        if recorded is not None and file_sha256(path) != recorded:
            raise damaged(path, "it has changed since it was written", mend)
    except OSError as error:
        raise unreadable(path, error, mend=mend) from None


def read_arrays(
    path: Path, wanted: Callable[[str], bool] | None = None, *, mend: str = RUN_AGAIN
) -> dict[str, np.ndarray]:
    """Read arrays of an .npz file.

    Args:
        path: File.
        wanted: Function that returns whether to read the array with a name. None reads all arrays.
        mend: Advice for the case that the file is damaged.

    Returns:
        The arrays by name.

    Raises:
        TrichordError: The file is missing, cannot be read, or is not an .npz file.
    """
    with _opened(path, mend) as arrays:
        contents = {name: arrays[name] for name in arrays.files if wanted is None or wanted(name)}
        if odd := [name for name, array in contents.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{odd[0]} is not an array")
        return contents


def array_names(path: Path, *, mend: str = RUN_AGAIN) -> list[str]:
    """Return the sorted names of the arrays of an .npz file.

    Raises:
        TrichordError: The file is missing, cannot be read, or is not an .npz file.
    """
    with _opened(path, mend) as arrays:
        return sorted(arrays.files)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz file. An existing file is replaced when the new one is complete."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


@contextmanager
def _opened(path: Path, mend: str) -> Iterator[Any]:
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            check_archive(archive, path)
        with (
            open_regular(path) as file,
            np.load(file, allow_pickle=False) as arrays,
        ):  # np.load does not close a damaged file that it opened itself
            yield arrays
    except Exception as error:  # errors of zip, zlib, headers and memory: damage can cause any exception
        reraise_unavailable(path, error)
        raise damaged(path, _reason(error), mend) from None


def damaged(path: Path, reason: str, mend: str) -> TrichordError:
    """Return the error for a damaged file."""
    return TrichordError(f"{path}: cannot be read ({reason}); {mend}")


@contextmanager
def mended_by_deleting(folder: Path) -> Iterator[None]:
    """Add the advice to delete a damaged stage to the errors in the block, since a second run trains missing stages.

    Errors of a stage that cannot be accessed are not changed, since it may be intact.
    """
    try:
        yield
    except Unavailable:
        raise
    except TrichordError as error:
        raise TrichordError(f"{error}: {deleting(folder)}") from None


def deleting(folder: Path) -> str:
    """Return the advice for a stage with a damaged model."""
    return f"delete the folder {folder} and run the same command again to train this stage again"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    reason = one_line(error)
    if isinstance(error, ValueError) and reason and "pickle" not in reason.lower():
        return reason
    return "it is damaged, or not an .npz file"  # NumPy suggests to load unknown files as pickles, which is unsafe
