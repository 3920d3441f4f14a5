"""Files of a study folder, read with care: what is damaged ends as one line that says what, where and what to do.

Anything may have happened to a file since it was written: torn by a full disk, cut by a copy, without the right to read it.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

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
from trichord.modality import declare_recorded
from trichord.training.seals import was_changed

RUN_AGAIN = "run the study again, which trains nothing twice"
KINDS = {dict: "an object", list: "a list"}


def is_there(path: Path) -> bool:
    """Return whether there is such a file, or a link to one.

    Raises Unavailable when that cannot be known, as in a folder without the right to look into it: what is there must not be
    made a second time.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except ValueError:  # no path has such a name
        return False
    except OSError as error:
        reraise_unavailable(path, error)
        return False


def read_json(path: Path, kind: type[dict[str, Any]] | type[list[Any]] = dict, *, mend: str = RUN_AGAIN) -> Any:
    """The content of a JSON file: an object, or with `kind` list a list. Modalities that an object records are declared.

    Args:
        path: The file.
        kind: `dict` or `list`.
        mend: What the user can do about a damaged file; ends the message.

    Raises TrichordError when it is not there, cannot be read, holds something else, was changed (`training.seals`), or has a
    letter that stands for another modality.
    """
    try:
        content = read_json_value(path)
    except (OSError, ValueError, MemoryError) as error:
        raise unreadable(path, error, mend=mend) from None
    if not isinstance(content, kind):
        raise damaged(path, f"what it holds is not {KINDS[kind]}", mend)
    if isinstance(content, dict) and was_changed(content):
        raise damaged(path, "it was changed since it was written", mend)
    if isinstance(content, dict):
        declare_recorded(content.get("modalities", {}), path)
    return content


def check_sha256(path: Path, recorded: object, *, mend: str = RUN_AGAIN) -> None:
    """Raise TrichordError when the file's SHA-256 is not what was told; None tells nothing, as older versions."""
    try:
        if recorded is not None and file_sha256(path) != recorded:
            raise damaged(path, "it is not the file that was written", mend)
    except OSError as error:
        raise unreadable(path, error, mend=mend) from None


def read_arrays(
    path: Path, wanted: Callable[[str], bool] | None = None, *, mend: str = RUN_AGAIN
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name: all, or those whose names are `wanted`.

    Raises TrichordError when the file is not there, cannot be read, or is none.
    """
    with _opened(path, mend) as arrays:
        contents = {name: arrays[name] for name in arrays.files if wanted is None or wanted(name)}
        if odd := [name for name, array in contents.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{odd[0]} is not an array")
        return contents


def array_names(path: Path, *, mend: str = RUN_AGAIN) -> list[str]:
    """The names in an .npz file, sorted. Raises as `read_arrays`."""
    with _opened(path, mend) as arrays:
        return sorted(arrays.files)


@contextmanager
def _opened(path: Path, mend: str) -> Iterator[Any]:
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            check_archive(archive, path)
        with (
            open_regular(path) as file,
            np.load(file, allow_pickle=False) as arrays,
        ):  # given a path, it leaks torn files
            yield arrays
    except Exception as error:  # zip, zlib, header and memory errors: whatever flipped bits make the readers raise
        reraise_unavailable(path, error)
        raise damaged(path, _reason(error), mend) from None


def queries_path(out: Path, benchmark: str) -> Path:
    """Where the clips and captions of a benchmark lie. Different benchmarks have different files: `a/b` is `a%2Fb.json`."""
    return out / "queries" / f"{quote(benchmark, safe='')}.json"


def read_queries(out: Path, benchmark: str, num_clips: int, *, mend: str = "") -> list[str]:
    """The captions of a benchmark's clips, in the order in which the ranks number them.

    Raises TrichordError when the file cannot be read or is not of `num_clips` clips.
    """
    path, mend = queries_path(out, benchmark), mend or f"run the study again on {benchmark}, which trains nothing twice"
    queries = read_json(path, list, mend=mend)
    captions = [q["caption"] for q in queries if isinstance(q, dict) and isinstance(q.get("caption"), str)]
    if not len(queries) == len(captions) == num_clips:
        raise damaged(path, f"it has {len(captions)} captions for {num_clips} clips", mend)
    return captions


def damaged(path: Path, reason: str, mend: str) -> TrichordError:
    """What to raise for a damaged file."""
    return TrichordError(f"{path}: cannot be read ({reason}); {mend}")


@contextmanager
def mended_by_deleting(folder: Path) -> Iterator[None]:
    """Errors of reading a trained stage end with the folder to delete: a second run trains what is not there.

    A stage that could not be looked at may be whole: its error stays as it is.
    """
    try:
        yield
    except Unavailable:
        raise
    except TrichordError as error:
        raise TrichordError(f"{error}: {deleting(folder)}") from None


def deleting(folder: Path) -> str:
    """What to do about a stage whose model is damaged."""
    return f"delete the folder {folder} and run the same command again, which trains that stage anew"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    reason = one_line(error)
    if isinstance(error, ValueError) and reason and "pickle" not in reason.lower():
        return reason
    return "damaged, or not what its name says"  # numpy takes what it does not know for a pickle, and advises to run it
