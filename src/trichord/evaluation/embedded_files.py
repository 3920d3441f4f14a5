"""Read the two formats of files of embeddings that `evaluation.embedded` describes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.files.arrays import check_archive
from trichord.files.reading import check_regular, open_regular

WRITE_ONE = "write a file with np.savez('x.npz', video=..., text=...) and give its path"
LABELS, CLASSES = "labels/", "classes/"
_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")  # safetensors types that are supported
FURTHER = "modalities"  # name of the list of modalities beyond video, audio and text


def read_npz(path: Path) -> dict[str, Any]:
    """Return all arrays of an .npz file by name, without unpickling.

    Raises:
        TrichordError: The file contains pickled objects, or arrays that are too large for its size.

    Example:
        >>> np.savez("theirs.npz", video=np.eye(2, 3), ids=["a", "b"])
        >>> arrays = read_npz(Path("theirs.npz"))
        >>> arrays["video"].shape, arrays["ids"]
        ((2, 3), array(['a', 'b'], dtype='<U1'))
    """
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        check_archive(archive, path)
    with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
        if any(name.endswith("data.pkl") for name in arrays.files):
            raise TrichordError(f"{path}: the file was written by torch.save and is not unpickled; {WRITE_ONE}")
        values = {}
        for name in arrays.files:
            try:
                values[name] = arrays[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                raise TrichordError(
                    f"{path}: the array '{one_line(name)}' contains Python objects, which are not unpickled; write it as an array "
                    "of strings (np.array(..., dtype=str)) or numbers"
                ) from None
        return values


def read_safetensors(path: Path) -> dict[str, Any]:
    """Return all arrays of a .safetensors file, and the lists of strings in its metadata, by name.

    Raises:
        TrichordError: An array has an unsupported type, or the metadata are not lists of strings.

    Example:
        >>> from safetensors.numpy import save_file
        >>> save_file({"video": np.eye(2, 3, dtype=np.float32)}, "theirs.safetensors", {"ids": '["a", "b"]'})
        >>> arrays = read_safetensors(Path("theirs.safetensors"))
        >>> arrays["video"].shape, arrays["ids"]
        ((2, 3), ['a', 'b'])
    """
    from safetensors import safe_open

    check_regular(path)
    values: dict[str, Any] = {}
    with safe_open(path, framework="pt") as tensors:  # NumPy does not support bfloat16
        for name in tensors.keys():  # noqa: SIM118 - `tensors` is not a mapping
            if (dtype := tensors.get_slice(name).get_dtype()) not in _DTYPES:
                raise TrichordError(
                    f"{path}: the array '{one_line(name)}' has the unsupported type {dtype}; write it as float16 or float32"
                )
            tensor = tensors.get_tensor(name)
            values[name] = (
                tensor.float() if tensor.dtype.itemsize == 2 and tensor.is_floating_point() else tensor
            ).numpy()
        metadata = tensors.metadata() or {}
    strings = {
        n: v
        for n, v in metadata.items()
        if n in ("ids", "videos", "captions", FURTHER) or n.startswith((LABELS, CLASSES))
    }
    for name, text in sorted(strings.items()):  # the order of metadata is not defined
        try:
            values[name] = json.loads(text)
        except (ValueError, RecursionError):
            raise TrichordError(
                f"{path}: the metadata entry {one_line(name)} is not a JSON list of strings; write it with json.dumps"
            ) from None
    return values
