"""Safe replacements for the functions and classes that pickles of published releases name.

Each function receives the machine that reads the file and the pickled arguments, and trusts neither. It creates an array, a
tensor, a container, a string or a number that is never larger than the bytes in the file allow.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.files.arrays import plain_dtype
from trichord.files.unpickle import PLAIN_OBJECTS, Machine, Named, Py2Str

if TYPE_CHECKING:
    import torch

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}

_TORCH_DTYPES = (*dict.fromkeys(STORAGES.values()), "complex64", "complex128", "float8_e4m3fn", "float8_e5m2")


# ---- numpy


def raw_bytes(machine: Machine, data: object) -> bytes | bytearray:
    """Return the bytes of an array, which Python 2 pickles as a string.

    Raises:
        TrichordError: The data are neither bytes nor a string.
    """
    if isinstance(data, bytes | bytearray):
        return data
    if isinstance(data, Py2Str):
        return data.raw
    if isinstance(data, str):
        return data.encode("latin-1")
    machine.refuse(f"an array of Python objects (its data have type {type(data).__name__})")


def _shaped(machine: Machine, shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple | list) or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 32:
        machine.damaged("an array has no valid shape")
    return tuple(shape)


def _fits(machine: Machine, dtype: object, shape: tuple[int, ...], raw: bytes | bytearray) -> np.dtype:
    if not isinstance(dtype, np.dtype):
        machine.refuse(f"an array of {dtype}")
    if math.prod(shape) * dtype.itemsize != len(raw):
        machine.damaged(f"an array of shape {shape} and {dtype} has {len(raw):,} bytes")
    machine.spend(len(raw))
    return dtype


def _dtype(machine: Machine, name: object, align: object = False, copy: object = True) -> np.dtype:
    text = name.decode("latin-1") if isinstance(name, bytes) else str(name)
    dtype = plain_dtype(text)  # a new object, because its byte order is set later
    if dtype is None:
        machine.refuse(f"the numpy type {text}")
    return dtype


def _set_dtype(machine: Machine, dtype: np.dtype, state: Any) -> None:
    _, order, *fields = state
    order = order.decode("latin-1") if isinstance(order, bytes) else str(order)
    if order not in ("<", ">", "=", "|") or any(field is not None for field in fields[:3]):
        machine.refuse("a numpy type with fields")
    sizes = (dtype.itemsize, dtype.alignment, dtype.flags) if dtype.kind in "SU" else (-1, -1, 0)
    dtype.__setstate__((3, order, None, None, None, *sizes))  # type: ignore[attr-defined]


def _array(machine: Machine, kind: object, shape: object, typecode: object) -> np.ndarray:
    if not isinstance(kind, Named) or kind.name != "numpy.ndarray":
        machine.refuse("an array of a class other than numpy.ndarray")
    return np.empty(0, np.int8)


def _set_array(machine: Machine, array: np.ndarray, state: Any) -> None:
    *_, shape, dtype, fortran, data = state
    raw, shape = raw_bytes(machine, data), _shaped(machine, shape)
    dtype = _fits(machine, dtype, shape, raw)
    array.__setstate__((1, shape, dtype, bool(fortran), bytes(raw)))  # type: ignore[arg-type]


def _array_of_buffer(machine: Machine, data: object, dtype: object, shape: object, order: object) -> np.ndarray:
    raw, sizes = raw_bytes(machine, data), _shaped(machine, shape)
    return np.frombuffer(raw, _fits(machine, dtype, sizes, raw)).reshape(sizes, order="F" if order == "F" else "C")


def _scalar(machine: Machine, dtype: object, data: object) -> Any:
    raw = raw_bytes(machine, data)
    return np.frombuffer(raw, _fits(machine, dtype, (1,), raw))[0]


# ---- Python's own types


def _items(machine: Machine, items: object = ()) -> list[Any]:
    if not isinstance(items, list | tuple | set | frozenset):
        machine.refuse(f"a container created from a {type(items).__name__}")
    machine.spend(8 * len(items))
    return list(items)


def _mapping(machine: Machine, pairs: object = (), *, kind: type[dict] = dict) -> dict:
    items = _items(machine, pairs)
    machine.checked_keys([key for key, _ in items])
    return kind(items)


def _number(kind: type) -> Any:
    def make(machine: Machine, *values: object) -> object:
        if len(values) > 2 or not all(isinstance(value, int | float | str) for value in values):
            machine.refuse(f"a {kind.__name__} created from values other than numbers")
        return kind(*values)

    return make


def _string(machine: Machine, text: object = "") -> str:
    if not isinstance(text, str):
        machine.refuse(f"a string created from a {type(text).__name__}")
    return text


def _encoded(machine: Machine, text: object = b"", encoding: object = "latin1") -> bytes:
    if isinstance(text, list):
        text = bytes(_items(machine, text))
    if str(encoding).replace("-", "").lower() != "latin1" or not isinstance(text, str | bytes):
        machine.refuse(f"bytes created from a {type(text).__name__} in {encoding}")
    machine.spend(len(text))
    return text if isinstance(text, bytes) else bytes(raw_bytes(machine, text))


class Attributes(dict):
    """The attributes of an object without other state, such as the parsed arguments of a command, by name."""


def _no_attributes(machine: Machine, *arguments: object) -> Attributes:
    if arguments:
        machine.refuse("a namespace with positional arguments")
    return Attributes()


def _set_attributes(machine: Machine, attributes: Attributes, state: object) -> None:
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        machine.refuse("a namespace whose attributes have no names")
    attributes.update(state)


def _path(machine: Machine, *parts: object) -> str:
    texts = [_string(machine, part) for part in parts]
    machine.spend(sum(len(text) + 1 for text in texts))
    return texts[0] + "/".join(texts[1:]) if texts[:1] == ["/"] else "/".join(texts)


def _counts(machine: Machine, counts: object = ()) -> dict:
    return _mapping(machine, list(counts.items()) if isinstance(counts, dict) else counts)


# ---- torch


class Storage:
    """The bytes of a torch storage and the name of its dtype."""

    def __init__(self, dtype: str, data: bytearray) -> None:
        self.dtype, self.data = dtype, data

    def flat(self) -> torch.Tensor:
        """Return all elements of the storage as a 1-D tensor that shares its memory."""
        import torch

        dtype = getattr(torch, self.dtype)
        return torch.frombuffer(self.data, dtype=dtype) if self.data else torch.empty(0, dtype=dtype)


def _tensor(
    machine: Machine, storage: object, offset: object, size: object, stride: object, *rest: object
) -> torch.Tensor:
    if not isinstance(storage, Storage):
        machine.refuse("a tensor whose storage is not in the file")
    flat = storage.flat()
    shape, steps = _shaped(machine, size), _shaped(machine, stride)
    if type(offset) is not int or offset < 0 or len(shape) != len(steps):
        machine.damaged("a tensor has no valid shape")
    if 0 in shape:
        return flat[:0].reshape(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    if last >= len(flat) or math.prod(shape) > len(flat):
        machine.damaged(f"a tensor of shape {shape} needs more than the {len(flat):,} numbers of its storage")
    return flat.as_strided(shape, steps, offset)


def _parameter(machine: Machine, tensor: object, *rest: object) -> torch.Tensor:
    if (type(tensor).__module__, type(tensor).__name__) != ("torch", "Tensor"):
        machine.refuse(f"a parameter created from a {type(tensor).__name__}")
    return tensor  # type: ignore[return-value]


def _device(machine: Machine, *parts: object) -> str:
    if not 1 <= len(parts) <= 2 or not all(isinstance(part, str | int) for part in parts):
        machine.refuse("a device without a name")
    return ":".join(str(part)[:20] for part in parts)


def _ignore_state(machine: Machine, _state_dict: OrderedDict, state: object) -> None:
    """Ignore the module versions that the state dict of a module carries next to its items. Any other state is refused."""
    if not isinstance(state, dict) or set(state) != {"_metadata"}:
        machine.refuse("the state of an OrderedDict")


def storage_key(machine: Machine, key: Any) -> tuple[str, str, int, int]:
    """Return the name, dtype, number of elements and number of bytes of the storage that a persistent id refers to.

    Raises:
        TrichordError: The persistent id does not describe a storage of a known type.
    """
    if type(key) is not tuple or len(key) < 5 or str(key[0]) != "storage" or any(view is not None for view in key[5:]):
        machine.refuse(f"the persistent id {key!r:.80}")
    _, kind, name, _, count = key[:5]
    dtype = STORAGES.get(kind.name.rpartition(".")[2]) if isinstance(kind, Named) else None
    if dtype is None or type(count) is not int or count < 0:
        machine.refuse("a storage of an unknown type")
    width = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
    return str(name), dtype, count, count * width


# ---- the table


def _table() -> dict[str, Named]:
    calls: dict[str, Any] = {
        "numpy.dtype": _dtype,
        "numpy.ndarray": None,
        "_codecs.encode": _encoded,
        "collections.OrderedDict": lambda m, *a: _mapping(m, *a, kind=OrderedDict),
        "collections.defaultdict": lambda m, factory=None: {},
        "collections.Counter": _counts,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        "torch.device": _device,
        "torch.Size": lambda m, *a: tuple(_items(m, *a)),
        **{f"torch.{name}": None for name in STORAGES},
    }
    for name in PLAIN_OBJECTS:
        calls[name] = _no_attributes
    for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
        calls[f"pathlib.{name}"] = calls[f"pathlib._local.{name}"] = _path
    for core in ("numpy.core", "numpy._core"):
        calls[f"{core}.multiarray._reconstruct"] = _array
        calls[f"{core}.multiarray.scalar"] = _scalar
        calls[f"{core}.numeric._frombuffer"] = _array_of_buffer
    for builtins in ("builtins", "__builtin__"):
        calls[f"{builtins}.list"] = _items
        calls[f"{builtins}.tuple"] = lambda m, *a: tuple(_items(m, *a))
        calls[f"{builtins}.set"] = lambda m, *a: set(m.checked_keys(_items(m, *a)))
        calls[f"{builtins}.frozenset"] = lambda m, *a: frozenset(m.checked_keys(_items(m, *a)))
        calls[f"{builtins}.dict"] = _mapping
        calls[f"{builtins}.str"] = calls[f"{builtins}.unicode"] = _string
        calls[f"{builtins}.bytes"] = _encoded
        calls[f"{builtins}.bytearray"] = lambda m, *a: bytearray(_encoded(m, *a))
        for kind in (int, float, bool, complex):
            calls[f"{builtins}.{kind.__name__}"] = _number(kind)
        calls[f"{builtins}.long"] = _number(int)
    texts = {name: Named(name, text=name) for name in (f"torch.{dtype}" for dtype in _TORCH_DTYPES)}
    return texts | {name: Named(name, call) for name, call in calls.items()}


NAMED: Mapping[str, Named] = _table()
BUILDS: Mapping[type, Any] = {
    np.ndarray: _set_array,
    np.dtype: _set_dtype,
    OrderedDict: _ignore_state,
    Attributes: _set_attributes,
}
