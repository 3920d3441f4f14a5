"""Pickles of plain data, written piece by piece: the same data give the same bytes, and only one piece is in memory.

`pickle.dumps` would need the whole release at once, refers to internal modules of NumPy 2 (which NumPy 1 lacks) and, for a torch
tensor, writes a memory address into the file. The pickles written here have no memo, so pieces can be concatenated. Any Python with
NumPy and torch opens them with `pickle.load`, and `trichord.files.pickles` reads them without executing them.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

START, STOP = b"\x80\x04", b"."
EMPTY_LIST, APPEND = b"]", b"a"
EMPTY_DICT, SET_ITEM = b"}", b"s"
_TORCH_MAGIC, _TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # as written by torch.save before torch 1.6
_TORCH_SYSTEM = {
    "protocol_version": _TORCH_PROTOCOL,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}
_STORAGES = {np.dtype(np.float16): "HalfStorage", np.dtype(np.float32): "FloatStorage"}


@dataclass(frozen=True)
class Tensor:
    """An array (float16 or float32) that is read as a torch tensor."""

    array: np.ndarray


def encoded(value: Any) -> bytes:
    """Return the instructions that put a value on the stack: a string, number, None, list, dict, array or `Tensor` of these.

    Raises:
        TypeError: The value is not plain data.
    """
    kind = type(value)
    if value is None:
        return b"N"
    if kind is bool:
        return b"\x88" if value else b"\x89"
    if kind is int:
        data = pickle.encode_long(value)
        return b"J" + struct.pack("<i", value) if -(1 << 31) <= value < 1 << 31 else b"\x8a" + bytes([len(data)]) + data
    if kind is float:
        return b"G" + struct.pack(">d", value)
    if kind is str:
        data = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(data)) + data
    if kind is list:
        return EMPTY_LIST + b"(" + b"".join(map(encoded, value)) + b"e"
    if kind is dict:
        return EMPTY_DICT + b"(" + b"".join(encoded(k) + encoded(v) for k, v in value.items()) + b"u"
    if kind is Tensor:
        return _tensor(value.array)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{kind} is not plain data")
    return _array(value)


def _bytes(data: bytes) -> bytes:
    return b"\x8e" + struct.pack("<Q", len(data)) + data


def _named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _sizes(numbers: tuple[int, ...]) -> bytes:
    return _tuple(*map(encoded, numbers))


def _array(array: np.ndarray) -> bytes:
    """Pickle an array as NumPy does in protocols 2 to 4, with module names that all versions of NumPy support."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    dtype = _named("numpy", "dtype") + _tuple(encoded(little.dtype.str[1:]), encoded(False), encoded(True)) + b"R"
    order = [encoded(3), encoded("<"), *[encoded(None)] * 3, encoded(-1), encoded(-1), encoded(0)]
    dtype += _tuple(*order) + b"b"
    empty = _named("numpy.core.multiarray", "_reconstruct")
    empty += _tuple(_named("numpy", "ndarray"), _sizes((0,)), _bytes(b"b")) + b"R"
    return empty + _tuple(encoded(1), _sizes(array.shape), dtype, encoded(False), _bytes(little.tobytes())) + b"b"


def _tensor(array: np.ndarray) -> bytes:
    """Pickle a tensor as torch does: its storage is a legacy file of torch.save, here with a fixed name for the storage."""
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    kind = _named("torch", _STORAGES[array.dtype])
    key = _tuple(encoded("storage"), kind, encoded("0"), encoded("cpu"), encoded(data.size), encoded(None))
    head = b"".join(pickle.dumps(part, 2) for part in (_TORCH_MAGIC, _TORCH_PROTOCOL, _TORCH_SYSTEM))
    old_file = head + b"\x80\x02" + key + b"Q." + pickle.dumps(["0"], 2) + struct.pack("<q", data.size) + data.tobytes()
    storage = _named("torch.storage", "_load_from_bytes") + _tuple(_bytes(old_file)) + b"R"
    strides = tuple(step // data.itemsize for step in data.strides)
    hooks = _named("collections", "OrderedDict") + _tuple() + b"R"
    arguments = (storage, encoded(0), _sizes(data.shape), _sizes(strides), encoded(False), hooks)
    return _named("torch._utils", "_rebuild_tensor_v2") + _tuple(*arguments) + b"R"
