"""Arrays from .npy and .npz files of others: nothing is unpickled, nothing is allocated that the file does not hold."""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.files.lfs import lfs_pointer_error

FREE_BYTES = 256 << 20  # a compressed array may be this large whatever its ratio
LARGEST_RATIO = 200  # above that size: bytes of the array per byte in the file
LONGEST_HEADER = 10_000
_PLAIN = re.compile(r"[|<>=]?(?:[biufc]\d{1,2}|[SU]\d{1,9})")
_HEADER = re.compile(
    r"\s*\{\s*'descr':\s*'(?P<descr>[^']*)',\s*'fortran_order':\s*(?P<fortran>True|False),"
    r"\s*'shape':\s*\((?P<shape>(?:\d{1,18}L?(?:,\s*\d{1,18}L?)*,?)?)\s*\),?\s*\}\s*"
)


def load_npz_array(path: Path, key: str) -> np.ndarray:
    """The array `key` of an .npz file, read-only, in its own dtype.

    Raises TrichordError naming the file when it is missing, broken, lacks the key, holds Python objects, or unpacks to
    far more than it could hold.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            member = next((m for m in archive.infolist() if m.filename in (f"{key}.npy", key)), None)
            if member is None:
                found = ", ".join(m.filename.removesuffix(".npy") for m in archive.infolist()[:5]) or "nothing"
                raise TrichordError(
                    f"{path}: has no array '{key}' (it holds {one_line(found)}); check that it is the right file"
                )
            check_member(member, path)
            with archive.open(member) as stream:
                return _read_npy(stream, member.file_size, path)
    except zipfile.BadZipFile as error:
        raise _broken(path, f"not a whole .npz file: {error}") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except (EOFError, NotImplementedError, RuntimeError, ValueError, struct.error, zlib.error) as error:
        if isinstance(error, TrichordError):
            raise
        raise _broken(path, str(error)) from None


def load_npy(path: Path) -> np.ndarray:
    """The array of an .npy file, read-only, in its own dtype. Raises TrichordError as `load_npz_array`."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return read_npy(stream, path.stat().st_size, path)
    except OSError as error:
        raise _unreadable(path, error) from None


def read_npy(stream: IO[bytes], size: int, path: Path) -> np.ndarray:
    """The .npy array at the position of `stream`, which has `size` bytes there, as `load_npy`. path: for messages."""
    try:
        return _read_npy(stream, size, path)
    except OSError as error:
        raise _unreadable(path, error) from None
    except (EOFError, ValueError, struct.error) as error:
        if isinstance(error, TrichordError):
            raise
        raise _broken(path, str(error)) from None


def check_member(member: zipfile.ZipInfo, path: Path) -> None:
    """Refuse a member of an archive whose declared size its packed bytes cannot explain."""
    if member.file_size > max(FREE_BYTES, LARGEST_RATIO * member.compress_size):
        raise TrichordError(
            f"{path}: refused: {one_line(member.filename)[:80]} unpacks from {member.compress_size:,} to "
            f"{member.file_size:,} bytes; take the file from its publisher or save it again"
        )


def plain_dtype(name: object) -> np.dtype | None:
    """A new dtype of that name (`<f4`, `|S3`), or None unless it stands for numbers or text of fixed width."""
    if not isinstance(name, str) or not _PLAIN.fullmatch(name):
        return None
    try:
        return np.dtype(name, align=False, copy=True)
    except TypeError:  # a width that no number has
        return None


def _read_npy(stream: IO[bytes], size: int, path: Path) -> np.ndarray:
    """Array of a stream of `size` bytes; its header is compared with the size before anything is read."""
    head = stream.read(8)
    lengths = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}
    if head not in lengths:
        raise _broken(path, "it does not begin as an array of format 1 or 2 does")
    length = int.from_bytes(stream.read(lengths[head]), "little")
    if length > LONGEST_HEADER:
        raise _broken(path, "its header is not that of an array of numbers")
    # Not ast.literal_eval: in CPython 3.11 two threads in it at once may end in a SystemError.
    header = _HEADER.fullmatch(stream.read(length).decode("latin-1"))
    if header is None:
        raise _broken(path, "its header is not that of an array of numbers")
    descr, fortran = header["descr"], header["fortran"] == "True"
    shape = tuple(int(size) for size in re.findall(r"\d+", header["shape"]))
    dtype = plain_dtype(descr)
    if dtype is None:
        what = f"an array of type {one_line(descr)[:80]}"
        raise TrichordError(f"{path}: refused: holds {what}; only plain numbers are read: save it again as such")
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes > size:
        raise _broken(path, f"an array of shape {shape} does not fit in its {size:,} bytes")
    data = stream.read(num_bytes)
    stream.read(1)  # the end of a zip member is where its checksum is compared
    if len(data) != num_bytes:
        raise _broken(path, f"ends after {len(data):,} of {num_bytes:,} bytes")
    return (
        np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
        if num_bytes
        else np.empty(shape, dtype)
    )


def _broken(path: Path, why: str) -> TrichordError:
    return lfs_pointer_error(path) or TrichordError(
        f"{path}: is broken ({one_line(why)[:200]}); download or save it again"
    )


def _unreadable(path: Path, error: OSError) -> TrichordError:
    return TrichordError(f"{path}: cannot be read ({error.strerror or one_line(error)}); check the path")
