"""Tensor files of a store: safetensors, written atomically, checked against their size, memory-mapped.

The format is the public one (8 bytes header length, JSON header, data), so any safetensors reader opens a part.
Tensors lie in the order of their item size, so that each starts at a multiple of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from trichord.errors import TrichordError, one_line
from trichord.files.lfs import lfs_pointer_error
from trichord.files.reading import open_regular, parse_json, unreadable
from trichord.files.writing import replacing_file

MAX_HEADER_BYTES = 1 << 20  # a part has some 15 tensors; this bounds what a damaged length can make us read
_DTYPES = {"F64": "<f8", "I64": "<i8", "F32": "<f4", "I32": "<i4", "F16": "<f2", "U8": "|u1"}
_NAMES = {np.dtype(spec): name for name, spec in _DTYPES.items()}


def damaged(path: Path, what: str) -> TrichordError:
    """The error for a part that cannot be used: names the file, what is wrong and the way out."""
    if pointer := lfs_pointer_error(path):
        return pointer
    return TrichordError(one_line(f"{path}: {what}; run `trichord store verify {path.parent.parent}`, {mend_of(path)}"))


def unreadable_part(path: Path, error: Exception) -> TrichordError:
    """Return the error to raise for a file of a part that cannot be read: only a missing or damaged one is to be replaced."""
    return unreadable(path, error, mend=one_line(f"run `trichord store verify {path.parent.parent}`, {mend_of(path)}"))


def mend_of(path: Path) -> str:
    """What to do about a part whose file `path` is damaged; it is deleted only where there is no other copy."""
    both = f"{path.stem}.safetensors and {path.stem}.parquet"
    return (
        f"copy the part again if the store was copied or downloaded, else delete {both} in {path.parent}, import again"
    )


def write_shard(path: Path, tensors: Mapping[str, Sequence[np.ndarray]], *, exclusive: bool = False) -> tuple[int, str]:
    """Write each tensor as the concatenation of its pieces (at least one) along the first axis.

    Pieces of different precision are widened to the widest. Returns the file's size in bytes and its SHA-256. With
    `exclusive`, a file that is there already raises FileExistsError.
    """
    dtypes = {name: np.dtype(np.result_type(*pieces)).newbyteorder("<") for name, pieces in tensors.items()}
    header: dict[str, dict[str, object]] = {}
    end = 0
    names = sorted(tensors, key=lambda name: (-dtypes[name].itemsize, name))
    for name in names:
        pieces = tensors[name]
        begin, end = end, end + sum(piece.size for piece in pieces) * dtypes[name].itemsize
        shape = [sum(len(piece) for piece in pieces), *pieces[0].shape[1:]]
        header[name] = {"dtype": _NAMES[dtypes[name]], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with replacing_file(path, exclusive=exclusive) as file:
        for block in (len(text).to_bytes(8, "little"), text):
            file.write(block)
            digest.update(block)
        for name in names:
            for piece in tensors[name]:
                if piece.size:
                    data = np.ascontiguousarray(piece, dtype=dtypes[name]).reshape(-1).view(np.uint8).data
                    file.write(data)
                    digest.update(data)
    return 8 + len(text) + end, digest.hexdigest()


def read_header(path: Path) -> tuple[int, dict[str, tuple[np.dtype, tuple[int, ...], int]]]:
    """Where the data begins, and per tensor its dtype, shape and byte offset in the file.

    Raises TrichordError unless the tensors fill the file exactly, without hole or overlap.
    """
    try:
        size = path.stat().st_size
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise damaged(path, "not a safetensors file or cut short")
            text = file.read(length)
    except OSError as error:
        raise unreadable_part(path, error) from None
    return 8 + length, parse_header(path, text, size)


def parse_header(path: Path, text: bytes, size: int) -> dict[str, tuple[np.dtype, tuple[int, ...], int]]:
    """As `read_header`, of a file of `size` bytes whose header is `text`; `path` is for messages."""
    try:
        header = parse_json(text)
    except ValueError:
        raise damaged(path, "its header is not valid") from None
    tensors = {}
    spans = []
    try:
        header.pop("__metadata__", None)
        for name, entry in header.items():
            dtype = np.dtype(_DTYPES[entry["dtype"]])
            shape = tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
                raise ValueError(name)
            if end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError(name)
            spans.append((begin, end))
            tensors[name] = (dtype, shape, 8 + len(text) + begin)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise damaged(path, "its header is not valid") from None
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise damaged(path, "its tensors overlap or leave holes")
        position = end
    if 8 + len(text) + position != size:
        raise damaged(path, f"has {size} bytes where its header asks for {8 + len(text) + position}")
    return tensors


def map_shard(path: Path) -> dict[str, np.ndarray]:
    """Read-only, zero-copy views of all tensors of the file.

    The file's descriptor is closed at once (the mapping lives as long as a view does), so that a store of many
    thousand parts does not run into the limit of open files.
    """
    _, tensors = read_header(path)
    try:
        with pa.memory_map(str(path)) as file:
            data = file.read_buffer()
    except (OSError, MemoryError) as error:
        raise unreadable_part(path, error) from None
    return {
        name: np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape)
        for name, (dtype, shape, offset) in tensors.items()
    }
