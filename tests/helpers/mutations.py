"""Damage to files: bytes flipped, cut off or inserted, files exchanged or deleted, and changed content of JSON, YAML and
arrays.

A mutation is identified by its kind. `resealed` mutations have correct checksums: they are not damage but edits, which must
either be refused with an error of one line or read with their new content.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import yaml

from trichord.training.seals import sealed

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../../x",
    "/etc/passwd",
    [],
    {},
]
ODD += ["\x1b[2J", "a\nb", "\0", "<script>", [[[[]]]], {"a": {"b": 1}}, "9" * 5000, ["x", 1], [1.5], 2**63, "av>t", 7]
TEXTS = (".json", ".jsonl", ".yaml", ".csv", ".txt")
REPEATED = b"9" * 5000


class Payload:
    """What a pickle would execute: creates the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def mutate(path: Path, files: list[Path], rng: random.Random, marker: Path) -> str:
    """Change a file; return the kind of change, `resealed ...` for content that was changed with its checksums."""
    kinds: list[Callable[[], str]] = [lambda: _bytes(path, rng)] * 4 + [lambda: _file(path, files, rng)]
    structured = {
        ".json": lambda: _json(path, rng),
        ".jsonl": lambda: _lines(path, rng),
        ".yaml": lambda: _yaml(path, rng, marker),
        ".npz": lambda: _npz(path, rng, marker),
        ".npy": lambda: _npy(path, rng, marker),
        ".safetensors": lambda: _tensors(path, rng),
        ".pkl": lambda: _pickle(path, rng, marker),
        ".pickle": lambda: _pickle(path, rng, marker),
        ".parquet": lambda: _parquet(path, rng),
        ".csv": lambda: _cells(path, rng),
    }.get(path.suffix)
    if structured is not None:
        kinds += [structured] * 4
    return rng.choice(kinds)()


def _bytes(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "head", "cut", "hole", "put in", "noise", "more"])
    at = rng.randrange(max(1, len(data)))
    if kind in ("flip", "head"):
        for _ in range(rng.choice([1, 1, 3, 20]) if data else 0):
            data[rng.randrange(min(len(data), 256 if kind == "head" else len(data)))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[at:]
    elif kind == "hole":
        del data[at : at + rng.choice([1, 1, 8, 300])]
    elif kind == "put in":
        data[at:at] = rng.choice([b"\0", b"\xff", b"[" * 3000, REPEATED, data[at : at + 100], b"\n", b'"', b"{", b" "])
    elif kind == "noise":
        data[at : at + 16] = rng.randbytes(16)
    else:
        data += rng.choice([b"\0", b"x", bytes(data), b"\n"])
    path.write_bytes(bytes(data))
    return kind


def _file(path: Path, files: list[Path], rng: random.Random) -> str:
    kind = rng.choice(
        ["gone", "empty", "swapped", "copied", "a folder", "a link", "a fifo", "a pointer", "a folder link"]
    )
    others = [other for other in files if other != path and other.suffix == path.suffix] or [path]
    other = rng.choice(others)
    content, other_content = path.read_bytes(), other.read_bytes()
    if kind == "swapped":
        path.write_bytes(other_content)
        other.write_bytes(content)
    elif kind == "copied":
        path.write_bytes(other_content)
    else:
        path.unlink()
        if kind == "empty":
            path.touch()
        elif kind == "a folder":
            path.mkdir()
        elif kind == "a link":
            path.symlink_to(
                rng.choice(["/etc/passwd", "nowhere", str(path.name), "/dev/zero", "/dev/null", "/dev/tty"])
            )
        elif kind == "a fifo":
            os.mkfifo(path)
        elif kind == "a pointer":
            path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize {len(content)}\n")
        elif kind == "a folder link":
            path.symlink_to(rng.choice([".", "..", "/usr"]))
    return kind


# ---- JSON, YAML, CSV


def changed(content: Any, rng: random.Random) -> Any:
    """Return the content with one value or key changed."""
    places: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            if isinstance(value[key], dict | list):
                collect(value[key])

    collect(content)
    if not places:
        return rng.choice(ODD)
    holder, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(["x", "sha256", "format", ""])] = holder.pop(key)
    elif kind == 2 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = rng.choice([holder[key] + 1, -holder[key], holder[key] * 1e12, str(holder[key])])
    elif kind == 3:
        other, place = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[place], default=str)) if place in _keys(other) else 0
    else:
        holder[key] = rng.choice(ODD)
    return content


def _keys(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else range(len(holder))


def _json(path: Path, rng: random.Random) -> str:
    content = json.loads(path.read_bytes())
    has_digest = isinstance(content, dict) and "sha256" in content
    new = changed(content, rng)
    if has_digest and isinstance(new, dict) and rng.random() < 0.5:
        path.write_text(json.dumps(sealed({k: v for k, v in new.items() if k != "sha256"})))
        return "resealed JSON"
    path.write_text(json.dumps(new))
    return "JSON"


def _lines(path: Path, rng: random.Random) -> str:
    lines = path.read_text().splitlines()
    at = rng.randrange(len(lines))
    lines[at] = json.dumps(changed(json.loads(lines[at]), rng))
    path.write_text("\n".join(lines) + "\n")
    return "JSON line"


def _yaml(path: Path, rng: random.Random, marker: Path) -> str:
    if rng.random() < 0.2:
        bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20))
        extra = [
            f"x: !!python/object/apply:os.mkfifo ['{marker}']",
            bomb,
            "[" * 5000,
            f"training: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]",
            "x: 2020-99-99",
            f"x: {'9' * 5000}",
            f"training: {{class_path: os.mkfifo, init_args: {{path: {marker}}}}}",
            "training: /etc/passwd",
            "extends: ../../../../etc/passwd",
        ]
        path.write_text(path.read_text() + "\n" + rng.choice(extra) + "\n")
        return "YAML payload"
    path.write_text(yaml.safe_dump(changed(yaml.safe_load(path.read_text()), rng)))
    return "YAML"


def _cells(path: Path, rng: random.Random) -> str:
    rows = [line.split(",") for line in path.read_text().splitlines()]
    row = rng.choice(rows)
    row[rng.randrange(len(row))] = rng.choice([str(value) for value in ODD if "\n" not in str(value)])
    path.write_text("\n".join(map(",".join, rows)) + "\n")
    return "cell"


# ---- arrays, tensors, pickles, Parquet


def _odd_array(array: np.ndarray, rng: random.Random, marker: Path) -> np.ndarray:
    kind = rng.randrange(7)
    if kind == 0:
        odd = np.empty(2, object)
        odd[:] = [Payload(marker), 1]
        return odd
    with np.errstate(all="ignore"):
        return [
            array[:-1] if array.ndim and len(array) else array[None],
            array[None],
            array.astype("S8") if array.dtype.kind == "U" else array.astype(np.float64),
            np.array(["x"]),
            np.zeros((3, 0), np.float32),
            array.astype(np.int8) if array.dtype.kind in "fiub" else array[:0],
        ][kind - 1]


def _npz(path: Path, rng: random.Random, marker: Path) -> str:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    name = rng.choice(sorted(arrays))
    kind = rng.randrange(4)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        return _lying_npz(path, name)
    else:
        arrays[name] = _odd_array(arrays[name], rng, marker)
    np.savez(path, **arrays)
    return "array"


def _lying_npz(path: Path, name: str) -> str:
    """Return a header that claims 10^15 elements over a few bytes, in an archive with correct checksums."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000), }"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            f"{name}.npy", b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(118) + b"1234"
        )
    return "lying array"


def _npy(path: Path, rng: random.Random, marker: Path) -> str:
    np.save(path, _odd_array(np.load(path), rng, marker), allow_pickle=True)
    return "array"


def _tensors(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.5:
        header = changed(json.loads(data[8 : 8 + length]), rng)
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
        return "header"
    tensors = safetensors.numpy.load(data)
    name = rng.choice(sorted(tensors))
    tensor = tensors.pop(name)
    if rng.random() < 0.8:
        tensors[name if rng.random() < 0.8 else "other"] = np.ascontiguousarray(
            rng.choice([tensor[None], tensor + tensor.dtype.type(1), tensor.ravel()[:-1], tensor.astype(np.float64)])
        )
    path.write_bytes(safetensors.numpy.save(tensors))
    return "tensor"


def _pickle(path: Path, rng: random.Random, marker: Path) -> str:
    content = pickle.loads(path.read_bytes())  # our own file
    if rng.random() < 0.5:
        holder = content if isinstance(content, dict) else content[rng.randrange(len(content))]
        holder[rng.choice(sorted(holder, key=str))] = rng.choice([Payload(marker), print, object(), *ODD])
        path.write_bytes(pickle.dumps(content, protocol=rng.randrange(6)))
    else:
        path.write_bytes(pickle.dumps(rng.choice([Payload(marker), [Payload(marker)], *ODD]), rng.randrange(6)))
    return "pickle"


def _parquet(path: Path, rng: random.Random) -> str:
    """Change the rows or the description of a part of a store, with a matching checksum."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    info = json.loads(table.schema.metadata[b"trichord"])
    if rng.random() < 0.5:
        info = changed(info, rng)
    else:
        at = rng.randrange(table.num_columns)
        values = table.column(at).to_pylist()
        row, kind = rng.randrange(len(values)), table.schema.field(at).type
        odd = [v for v in ODD if type(v) is {"string": str, "double": float}.get(str(kind), int)]
        values[row] = rng.choice([v for v in odd if not isinstance(v, int) or abs(v) < 2**62])
        table = table.set_column(at, table.schema.field(at), pa.array(values, kind))
        columns = table.to_pydict()
        info["rows_sha256"] = hashlib.sha256(json.dumps(columns, sort_keys=True).encode()).hexdigest()
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({b"trichord": json.dumps(info).encode()}), buffer, compression="none")
    path.write_bytes(buffer.getvalue())
    return "resealed rows"
