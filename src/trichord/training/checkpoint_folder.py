"""The folder of a checkpoint: safetensors and JSON files, and `checkpoint.json` with the size and SHA-256 of each of them.

`checkpoint.json` is written last and also contains its own digest. Nothing is pickled, so reading executes no code, and memory
is bounded by the sizes of the files.

A changed, missing or irregular file raises `Damaged` with the reason. A file that cannot be accessed, because of permissions
or a failing disk, raises `errors.Unavailable`: its checkpoint may be intact and is not set aside.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trichord.errors import one_line
from trichord.files.reading import file_sha256, read_json_value, reraise_unavailable
from trichord.files.writing import umask_mode
from trichord.training.seals import sealed, was_changed

MANIFEST, FORMAT = "checkpoint.json", 1
MOST_JSON = 64 << 20  # largest JSON file, in bytes; a model with thousands of parameter tensors needs some 100 kB


class Damaged(Exception):
    """A checkpoint cannot be used. The message states why."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file."""
    from safetensors.torch import save_file

    with umask_mode(path):
        save_file(dict(tensors), path)


def write_numbers(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `checkpoint.json` with the sizes and digests of all files of the folder, and with `facts`."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    write_numbers(folder / MANIFEST, sealed({"format": FORMAT, **facts, "files": files}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read `checkpoint.json`. The files that it lists are not checked.

    Raises:
        Damaged: The file cannot be read, or it was changed.
    """
    if not (folder / MANIFEST).exists() and (folder / "progress.json").exists():
        raise Damaged("an early version of trichord wrote it as pickle files, which are not read")
    content = read_numbers(folder / MANIFEST)
    if "sha256" not in content or was_changed(content):
        raise Damaged(f"{MANIFEST} was changed")
    if content.get("format") != FORMAT:
        raise Damaged(f"it has format {content.get('format')}, but this version of trichord reads format {FORMAT}")
    if not isinstance(content.get("files"), dict):
        raise Damaged(f"{MANIFEST} lists no files")
    return content


def check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Check that every file of the manifest exists and is unchanged.

    Raises:
        Damaged: A file is missing or was changed, or the manifest is invalid.
    """
    for name, record in manifest["files"].items():
        if not isinstance(record, dict) or Path(name).name != name or name in ("", ".", ".."):
            raise Damaged(f"{MANIFEST} has an invalid entry {name!r}")
        size = _size(folder / name)
        if size != record.get("bytes"):
            raise Damaged(f"{name} has {size} bytes instead of {record.get('bytes')}")
        if _sha256(folder / name) != record.get("sha256"):
            raise Damaged(f"{name} was changed")


def read_numbers(path: Path) -> dict[str, Any]:
    """Read a file with a JSON object.

    Raises:
        Damaged: The file does not contain a JSON object, or it is larger than `MOST_JSON`.
    """
    if (size := _size(path)) > MOST_JSON:
        raise Damaged(f"{path.name} has {size} bytes, more than {MOST_JSON}")
    try:
        content = read_json_value(path)
    except (OSError, ValueError, MemoryError) as error:
        reraise_unavailable(path, error)
        raise Damaged(f"{path.name} cannot be read: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise Damaged(f"{path.name} does not contain a JSON object")
    return content


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file. The header is compared with the size of the file before memory is allocated.

    Raises:
        Damaged: The file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _size(path)
    try:
        return load_file(path)
    except (OSError, ValueError, KeyError, SafetensorError, MemoryError) as error:
        reraise_unavailable(path, error)
        raise Damaged(f"{path.name} cannot be read: {one_line(error)}") from None


def _size(path: Path) -> int:
    try:
        status = os.lstat(path)
    except OSError as error:
        reraise_unavailable(path, error)
        raise Damaged(f"{path.name} is missing ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise Damaged(f"{path.name} is not a regular file")
    return status.st_size


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        reraise_unavailable(path, error)
        raise Damaged(f"{path.name} cannot be read ({error.strerror})") from None
