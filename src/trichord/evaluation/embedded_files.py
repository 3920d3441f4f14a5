"""Reading of the two kinds of files that hold embeddings: see `evaluation.embedded`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.files.arrays import check_archive
from trichord.files.reading import check_regular, open_regular

WRITE_ONE = "write one with np.savez('x.npz', video=..., text=...) and name it"
LABELS, CLASSES = "labels/", "classes/"
_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")  # of safetensors
FURTHER = "modalities"  # name of the list of modalities beyond video, audio and text


def read_npz(path: Path) -> dict[str, Any]:
    """All arrays of the file by name."""
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        check_archive(archive, path)
    with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
        if any(name.endswith("data.pkl") for name in arrays.files):
            raise TrichordError(f"{path}: is a file of torch.save, which is not unpickled; {WRITE_ONE}")
        found = {}
        for name in arrays.files:
            try:
                found[name] = arrays[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                raise TrichordError(
                    f"{path}: '{one_line(name)}' holds Python objects, which are not unpickled; write it as an array of strings "
                    "(np.array(..., dtype=str)) or of numbers"
                ) from None
        return found


def read_safetensors(path: Path) -> dict[str, Any]:
    """All arrays, and the lists of strings in the metadata, by name."""
    from safetensors import safe_open

    check_regular(path)
    found: dict[str, Any] = {}
    with safe_open(path, framework="pt") as tensors:  # numpy has no bfloat16
        for name in tensors.keys():  # noqa: SIM118 - no mapping
            if (kind := tensors.get_slice(name).get_dtype()) not in _DTYPES:
                raise TrichordError(
                    f"{path}: '{one_line(name)}' is of type {kind}, which is not read here; write it as float16 or float32"
                )
            tensor = tensors.get_tensor(name)
            found[name] = (
                tensor.float() if tensor.dtype.itemsize == 2 and tensor.is_floating_point() else tensor
            ).numpy()
        told = tensors.metadata() or {}
    strings = {
        n: v for n, v in told.items() if n in ("ids", "videos", "captions", FURTHER) or n.startswith((LABELS, CLASSES))
    }
    for name, text in sorted(strings.items()):  # metadata has no order
        try:
            found[name] = json.loads(text)
        except (ValueError, RecursionError):
            raise TrichordError(
                f"{path}: {one_line(name)} in its metadata is no JSON list of strings; mend it"
            ) from None
    return found
