"""The tensor files of a store: safetensors files that are written atomically, checked against their size and memory-mapped.

The format is the public one (8 bytes header length, JSON header, data), so any safetensors reader can open a part. Tensors are
ordered by decreasing item size, so that each begins at a multiple of its item size.
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

MAX_HEADER_BYTES = 1 << 20  # a part has about 15 tensors; limits what a damaged length can claim
_DTYPES = {"F64": "<f8", "I64": "<i8", "F32": "<f4", "I32": "<i4", "F16": "<f2", "U8": "|u1"}
_NAMES = {np.dtype(spec): name for name, spec in _DTYPES.items()}


def damaged(path: Path, what: str) -> TrichordError:
    """Return the error to raise for a damaged part. It names the file, the problem and what to do."""
    if pointer := lfs_pointer_error(path):
        return pointer
    return TrichordError(
        one_line(f"{path}: {what}; run `trichord store verify {path.parent.parent}`, {advice_for(path)}")
    )


def unreadable_part(path: Path, error: Exception) -> TrichordError:
    """Return the error to raise for a part's file that cannot be read. Only missing and damaged files are to be replaced."""
    return unreadable(
        path, error, mend=one_line(f"run `trichord store verify {path.parent.parent}`, {advice_for(path)}")
    )


def advice_for(path: Path) -> str:
    """Return what to do about a damaged file of a part. The part should only be deleted if there is no other copy."""
    both = f"{path.stem}.safetensors and {path.stem}.parquet"
    return f"if the store was copied or downloaded, copy the part again; otherwise delete {both} in {path.parent} and import again"


def write_shard(path: Path, tensors: Mapping[str, Sequence[np.ndarray]], *, exclusive: bool = False) -> tuple[int, str]:
    """Write each tensor as the concatenation of its pieces along the first axis.

    Args:
        path: The file to write.
        tensors: One or more pieces of each tensor, by name. Pieces of different precision are widened to the widest.
        exclusive: Whether to raise an error if the file exists already.

    Returns:
        The size of the file in bytes and its SHA-256.

    Raises:
        FileExistsError: The file exists and `exclusive` is true.
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
    """Read the header of a safetensors file.

    Returns:
        The offset at which the data begin, and for each tensor its dtype, its shape and its byte offset in the file.

    Raises:
        TrichordError: The file is damaged, or its tensors do not fill it exactly, without gaps or overlaps.
    """
    try:
        size = path.stat().st_size
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise damaged(path, "not a safetensors file, or truncated")
            text = file.read(length)
    except OSError as error:
        raise unreadable_part(path, error) from None
    return 8 + length, parse_header(path, text, size)


def parse_header(path: Path, text: bytes, size: int) -> dict[str, tuple[np.dtype, tuple[int, ...], int]]:
    """Parse the header of a safetensors file.

    Args:
        path: The file, for error messages.
        text: The JSON header.
        size: The size of the file in bytes.

    Returns:
        For each tensor its dtype, its shape and its byte offset in the file.

    Raises:
        TrichordError: See `read_header`.
    """
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
            raise damaged(path, "its tensors overlap or leave gaps")
        position = end
    if 8 + len(text) + position != size:
        raise damaged(path, f"has {size} bytes, but its header describes {8 + len(text) + position}")
    return tensors


def map_shard(path: Path) -> dict[str, np.ndarray]:
    """Return read-only, zero-copy views of all tensors of a file.

    The descriptor of the file is closed immediately (the mapping lives as long as a view does), so that a store with many
    thousands of parts does not reach the limit of open files.
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
