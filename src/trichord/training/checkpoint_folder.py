"""A checkpoint as a folder: files, and `checkpoint.json`, written last, with the size and SHA-256 of each of them and of
itself. Nothing is pickled, so reading runs no code; what is read is bounded by the files' sizes.

A changed byte, a missing file, a file that is no plain file: `Damaged`, with the reason. A file that could not be looked at, for
want of rights or a fault of the disk, is `errors.Unavailable`: its checkpoint may be whole and is not set aside.
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
MOST_JSON = 64 << 20  # bytes of a JSON file; that of a model with thousands of parameters has some hundred thousand


class Damaged(Exception):
    """Why a checkpoint cannot be used."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file."""
    from safetensors.torch import save_file

    with umask_mode(path):
        save_file(dict(tensors), path)


def write_numbers(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `checkpoint.json` of all files that are there, with `facts` beside."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    write_numbers(folder / MANIFEST, sealed({"format": FORMAT, **facts, "files": files}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `checkpoint.json` says, itself unchanged. The files are not looked at."""
    if not (folder / MANIFEST).exists() and (folder / "progress.json").exists():
        raise Damaged("it is of an earlier version of trichord, in pickles, which are not read")
    content = read_numbers(folder / MANIFEST)
    if "sha256" not in content or was_changed(content):
        raise Damaged(f"{MANIFEST} was changed")
    if content.get("format") != FORMAT:
        raise Damaged(f"its format is {content.get('format')}, this version of trichord reads {FORMAT}")
    if not isinstance(content.get("files"), dict):
        raise Damaged(f"{MANIFEST} names no files")
    return content


def check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise Damaged unless every file of the manifest is there, as it was written."""
    for name, record in manifest["files"].items():
        if not isinstance(record, dict) or Path(name).name != name or name in ("", ".", ".."):
            raise Damaged(f"{MANIFEST} names a file {name!r}")
        size = _size(folder / name)
        if size != record.get("bytes"):
            raise Damaged(f"{name} has {size} bytes instead of {record.get('bytes')}")
        if _sha256(folder / name) != record.get("sha256"):
            raise Damaged(f"{name} was changed")


def read_numbers(path: Path) -> dict[str, Any]:
    """A JSON object. Raises Damaged for anything else, and for more than `MOST_JSON` bytes."""
    if (size := _size(path)) > MOST_JSON:
        raise Damaged(f"{path.name} has {size} bytes")
    try:
        content = read_json_value(path)
    except (OSError, ValueError, MemoryError) as error:
        reraise_unavailable(path, error)
        raise Damaged(f"{path.name} cannot be read: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise Damaged(f"{path.name} holds no object")
    return content


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whose header is held against the file's size before anything is allocated."""
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
        raise Damaged(f"{path.name} is not there ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise Damaged(f"{path.name} is no plain file")
    return status.st_size


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        reraise_unavailable(path, error)
        raise Damaged(f"{path.name} cannot be read ({error.strerror})") from None
