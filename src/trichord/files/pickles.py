"""A safe reader for pickles of published releases: arrays, tensors, lists, dicts, strings and numbers. No code is executed.

`ADMITTED` lists every name that a pickle may refer to. Files of torch.save, in the old and the new format, are read in the
same way: their structure is a pickle and their storages are bytes. (`torch.load(weights_only=True)` admits other types, does
not admit arrays, and allocates the memory that a file claims to need before it checks the claim.)
"""

from __future__ import annotations

import io
import mmap
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.files.arrays import load_npz_array
from trichord.files.faults import raise_fault
from trichord.files.lfs import refuse_lfs_pointer
from trichord.files.pickled import BUILDS, NAMED, Attributes, Storage, raw_bytes, storage_key
from trichord.files.reading import open_regular
from trichord.files.unpickle import UNREADABLE, Machine, Named, Py2Str, refused

__all__ = ["load_npz_array", "load_pickle"]

DEEPEST = 64  # the largest nesting depth of containers; releases have 4 levels
LEAVES = frozenset({str, Py2Str, int, float, complex, bool, bytes, bytearray, type(None), np.ndarray})
CONTAINERS = frozenset({list, tuple, set, frozenset, dict, OrderedDict, Attributes})
TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first bytes of files of torch.save before version 1.6


def load_pickle(path: str | Path) -> Any:
    """Read the object in a pickle or a file of torch.save without executing anything in the file.

    Arrays become NumPy arrays and tensors become torch tensors on the CPU. A namespace becomes a dict of its attributes, and a
    path becomes its text.

    Raises:
        TrichordError: The file is missing or damaged, claims more data than it contains, or contains anything other than
            arrays, tensors, lists, dicts, tuples, sets, strings, bytes, numbers and None.
    """
    path = Path(path)
    source = str(path)
    refuse_lfs_pointer(path)
    try:
        with open_regular(path) as file:
            if path.stat().st_size == 0:
                raise TrichordError(f"{path}: is empty; download or save it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if data[:4] == b"PK\x03\x04":
                    value = _load_torch_zip(file, path)
                elif data[: len(TORCH_LEGACY)] == TORCH_LEGACY:
                    value = _load_torch_legacy(data, source)
                else:
                    value, _ = Machine(data, source, ADMITTED, BUILDS).load()
    except OSError as error:
        raise TrichordError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    _check_plain(value, source)
    return value


def _load_torch_zip(file: io.BufferedReader, path: Path) -> Any:
    """Read a file that torch.save wrote since version 1.6: a zip file of data.pkl and one uncompressed member per storage."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {m.filename.partition("/")[2]: m for m in archive.infolist()}
            if "data.pkl" not in members:
                problem = "is a zip file without data.pkl, so torch.save did not write it"
                raise TrichordError(f"{path}: {problem}; check that it is the right file")
            packed = any(m.file_size != m.compress_size for m in members.values())
            if packed or sum(m.file_size for m in members.values()) > path.stat().st_size:
                raise TrichordError(f"{path}: refused: it claims more data than it contains; download or save it again")
            if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
                raise TrichordError(f"{path}: was saved on a big-endian machine; save it again on a little-endian one")
            storages: dict[str, Storage] = {}

            def storage_of(key: object) -> Storage:
                name, dtype, _, num_bytes = storage_key(machine, key)
                if name not in storages:
                    member = members.get(f"data/{name}")
                    if member is None or member.file_size != num_bytes:
                        machine.damaged(f"storage {name} of {num_bytes:,} bytes is missing")
                    storages[name] = Storage(dtype, bytearray(archive.read(member)))
                if storages[name].dtype != dtype:
                    machine.damaged(f"storage {name} has two types")
                return storages[name]

            machine = Machine(archive.read(members["data.pkl"]), str(path), ADMITTED, BUILDS, storage_of)
            return machine.load()[0]
    except (zipfile.BadZipFile, zlib.error, *UNREADABLE) as error:
        if isinstance(error, TrichordError):
            raise
        raise_fault(path, error)
        problem = f"is a broken zip file of torch.save ({one_line(error)[:200]})"
        raise TrichordError(f"{path}: {problem}; download or save it again") from None


def _load_torch_legacy(data: bytes | mmap.mmap, source: str) -> Any:
    """Read data that torch.save wrote before version 1.6. Tensors inside plain pickles have the same format.

    The data consist of five pickles (a magic number, the protocol, the machine, the object, and the names of its storages),
    followed by the storages.
    """
    storages: dict[str, tuple[Storage, int]] = {}

    def storage_of(key: object) -> Storage:
        name, dtype, count, num_bytes = storage_key(machine, key)
        if name not in storages:
            machine.spend(num_bytes)
            if num_bytes > len(data):
                machine.damaged(f"storage {name} claims {num_bytes:,} bytes of a file of {len(data):,}")
            storages[name] = Storage(dtype, bytearray(num_bytes)), count
        if storages[name][0].dtype != dtype:
            machine.damaged(f"storage {name} has two types")
        return storages[name][0]

    machine = Machine(data, source, NAMED, BUILDS, storage_of)
    position = 0
    parts = []
    for _ in range(5):
        part, position = machine.load(position)
        parts.append(part)
    _, _, system, value, names = parts
    if not isinstance(system, dict) or system.get("little_endian") is not True or not isinstance(names, list):
        machine.damaged("torch.save did not write its header")
    if not all(isinstance(name, str | int) for name in names) or sorted(map(str, names)) != sorted(storages):
        machine.damaged("its storages do not match its tensors")
    for name in names:
        storage, count = storages[str(name)]
        content = data[position + 8 : position + 8 + len(storage.data)]
        if int.from_bytes(data[position : position + 8], "little") != count or len(content) != len(storage.data):
            machine.damaged(f"storage {name} is incomplete")
        storage.data[:] = content
        position += 8 + len(content)
    return value


def _storage_of_bytes(machine: Machine, data: object) -> Any:
    """Read a storage inside a plain pickle, which is the bytes of a legacy file. Such a file refers to no further file."""
    raw = bytes(raw_bytes(machine, data))
    machine.spend(len(raw))
    return _load_torch_legacy(raw, machine.source)


ADMITTED = {**NAMED, "torch.storage._load_from_bytes": Named("torch.storage._load_from_bytes", _storage_of_bytes)}


def _check_plain(value: object, source: str) -> None:
    """Check that a value consists of plain data and containers, without bare names or storages, and is not nested too deeply."""
    seen: set[int] = set()
    todo: list[tuple[Any, int]] = [((value,), 0)]
    while todo:
        container, depth = todo.pop()
        if id(container) in seen:
            continue
        seen.add(id(container))
        if depth > DEEPEST:
            problem = f"its lists are nested more than {DEEPEST} levels deep"
            raise TrichordError(
                f"{source}: refused: {problem}, but releases have only a few levels; check that it is the right file"
            )
        values = container.values() if isinstance(container, dict) else container
        kinds = set(map(type, values))
        if kinds & CONTAINERS:
            todo.extend((v, depth + 1) for v in values if type(v) in CONTAINERS)
        for kind in kinds - LEAVES - CONTAINERS:
            is_tensor = (kind.__module__, kind.__name__) == ("torch", "Tensor")
            if not is_tensor and not issubclass(kind, np.generic | np.dtype):
                other = next(v for v in values if type(v) is kind)
                raise refused(source, other.name if isinstance(other, Named) else f"a bare {kind.__name__.lower()}")
