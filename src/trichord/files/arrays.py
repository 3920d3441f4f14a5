"""Arrays from .npy and .npz files of others: nothing is unpickled, nothing is allocated that the file does not hold.

A bound holds for all that is unpacked from one file together: `FREE_BYTES`, or `LARGEST_RATIO` times the file's size.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.files.faults import raise_fault
from trichord.files.lfs import lfs_pointer_error
from trichord.files.reading import open_regular, unreadable

FREE_BYTES = 256 << 20  # what is unpacked from a file may have this size whatever its ratio
LARGEST_RATIO = 200  # above that size: bytes unpacked per byte in the file
LONGEST_HEADER = 10_000
_PLAIN = re.compile(r"[|<>=]?(?:[biufc]\d{1,2}|[SU]\d{1,9})")
_HEADER = re.compile(
    r"\s*\{\s*'descr':\s*'(?P<descr>[^']*)',\s*'fortran_order':\s*(?P<fortran>True|False),"
    r"\s*'shape':\s*\((?P<shape>(?:\d{1,18}L?(?:,\s*\d{1,18}L?)*,?)?)\s*\),?\s*\}\s*"
)


def load_npz_array(path: Path, key: str = "") -> np.ndarray:
    """The array `key` of an .npz file, read-only, in its own dtype; without a key, the only array of the file.

    Raises TrichordError naming the file when it is missing, broken, lacks the key, holds Python objects, or unpacks to
    far more than it could hold.
    """
    path = Path(path)
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if not key and len(members) != 1:
                names = ", ".join(m.filename.removesuffix(".npy") for m in members[:5]) or "none"
                raise TrichordError(
                    f"{path}: holds {len(members)} arrays ({one_line(names)}), expected one; save the array by itself"
                )
            member = next((m for m in members if not key or m.filename in (f"{key}.npy", key)), None)
            if member is None:
                found = ", ".join(m.filename.removesuffix(".npy") for m in members[:5]) or "nothing"
                raise TrichordError(
                    f"{path}: has no array '{key}' (it holds {one_line(found)}); check that it is the right file"
                )
            check_member(member, path)
            with archive.open(member) as stream:
                return _read_npy(stream, member.file_size, path)
    except zipfile.BadZipFile as error:
        raise_fault(path, error)  # which zipfile takes for a file that is no zip file
        raise _broken(path, f"not a whole .npz file: {error}") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (EOFError, NotImplementedError, RuntimeError, ValueError, struct.error, zlib.error) as error:
        if isinstance(error, TrichordError):
            raise
        raise _broken(path, str(error)) from None


def load_npy(path: Path) -> np.ndarray:
    """The array of an .npy file, read-only, in its own dtype. Raises TrichordError as `load_npz_array`."""
    path = Path(path)
    try:
        with open_regular(path) as stream:
            return read_npy(stream, path.stat().st_size, path)
    except OSError as error:
        raise unreadable(path, error) from None


def load_array(path: Path) -> np.ndarray:
    """The array of an .npy file, or the only array of an .npz file, as `load_npz_array`."""
    return load_npz_array(path) if path.suffix.lower() == ".npz" else load_npy(path)


def read_npy(stream: IO[bytes], size: int, path: Path) -> np.ndarray:
    """The .npy array at the position of `stream`, which has `size` bytes there, as `load_npy`. path: for messages."""
    try:
        return _read_npy(stream, size, path)
    except OSError as error:
        raise unreadable(path, error) from None
    except (EOFError, ValueError, struct.error) as error:
        if isinstance(error, TrichordError):
            raise
        raise _broken(path, str(error)) from None


def most_unpacked(packed_bytes: int) -> int:
    """Return how many bytes may be unpacked from a file, or a part of a file, of `packed_bytes`."""
    return max(FREE_BYTES, LARGEST_RATIO * packed_bytes)


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Check the members of a zip file before they are read, each by itself and all of them together.

    Raises:
        TrichordError: They unpack to more than the file can explain, or two have the same name.
    """
    members = archive.infolist()
    for member in members:
        check_member(member, path)
    unpacked, packed = sum(member.file_size for member in members), path.stat().st_size
    if unpacked > most_unpacked(packed):
        raise TrichordError(
            f"{path}: refused: its {len(members):,} members unpack from {packed:,} to {unpacked:,} bytes; "
            "take the file from its publisher or save it again"
        )
    if len(members) != len({member.filename for member in members}):
        raise TrichordError(f"{path}: refused: two of its members have the same name; save the file again")


def check_member(member: zipfile.ZipInfo, path: Path) -> None:
    """Refuse a member of an archive whose declared size its packed bytes cannot explain."""
    if member.file_size > most_unpacked(member.compress_size):
        raise TrichordError(
            f"{path}: refused: {one_line(member.filename)[:80]} unpacks from {member.compress_size:,} to "
            f"{member.file_size:,} bytes; take the file from its publisher or save it again"
        )


def text_array(texts: Sequence[str], source: str) -> np.ndarray:
    """Return texts as an array of strings of one width, that of the longest.

    Raises:
        TrichordError: One text is so much longer than the others that the array has far more bytes than the texts.
    """
    longest = max(map(len, texts), default=0)
    num_bytes = 4 * longest * len(texts)  # an array takes four bytes for each letter of its width
    if num_bytes > most_unpacked(sum(map(len, texts))):
        raise TrichordError(
            f"{source}: one of its {len(texts):,} texts has {longest:,} letters, so that all of them as an array would take "
            f"{num_bytes:,} bytes; shorten it"
        )
    return np.array(texts, np.str_) if len(texts) else np.empty(0, np.str_)


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
