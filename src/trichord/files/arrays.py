"""Arrays from .npy and .npz files of unknown origin. Nothing is unpickled, and memory is allocated only for data in the file.

The total size unpacked from one file is limited to `FREE_BYTES` or `LARGEST_RATIO` times the size of the file, whichever is
larger.
"""

from __future__ import annotations

import math
import re
import statistics
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

FREE_BYTES = 256 << 20  # unpacked data up to this size is allowed at any compression ratio
LARGEST_RATIO = 200  # largest allowed ratio of unpacked to packed bytes above that size
LONGEST_HEADER = 10_000
_PLAIN = re.compile(r"[|<>=]?(?:[biufc]\d{1,2}|[SU]\d{1,9})")
_HEADER = re.compile(
    r"\s*\{\s*'descr':\s*'(?P<descr>[^']*)',\s*'fortran_order':\s*(?P<fortran>True|False),"
    r"\s*'shape':\s*\((?P<shape>(?:\d{1,18}L?(?:,\s*\d{1,18}L?)*,?)?)\s*\),?\s*\}\s*"
)


def load_npz_array(path: Path, key: str = "") -> np.ndarray:
    """Read one array of an .npz file as a read-only array of its own dtype.

    Args:
        path: The .npz file.
        key: The name of the array. Without a key, the file must contain exactly one array.

    Raises:
        TrichordError: The file is missing or broken, lacks the key, contains Python objects, or unpacks to far more than its
            size can explain.
    """
    path = Path(path)
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if not key and len(members) != 1:
                names = ", ".join(m.filename.removesuffix(".npy") for m in members[:5]) or "none"
                raise TrichordError(
                    f"{path}: contains {len(members)} arrays ({one_line(names)}), expected one; save the array in a file of its own"
                )
            member = next((m for m in members if not key or m.filename in (f"{key}.npy", key)), None)
            if member is None:
                names = ", ".join(m.filename.removesuffix(".npy") for m in members[:5]) or "nothing"
                raise TrichordError(
                    f"{path}: has no array '{key}' (it contains {one_line(names)}); check that it is the right file"
                )
            check_member(member, path)
            with archive.open(member) as stream:
                return _read_npy(stream, member.file_size, path)
    except zipfile.BadZipFile as error:
        raise_fault(path, error)  # zipfile reports a system fault as a bad zip file
        raise _broken(path, f"not a complete .npz file: {error}") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (EOFError, NotImplementedError, RuntimeError, ValueError, struct.error, zlib.error) as error:
        if isinstance(error, TrichordError):
            raise
        raise _broken(path, str(error)) from None


def load_npy(path: Path) -> np.ndarray:
    """Read an .npy file as a read-only array of its own dtype.

    Raises:
        TrichordError: The file is missing or broken, or contains Python objects.
    """
    path = Path(path)
    try:
        with open_regular(path) as stream:
            return read_npy(stream, path.stat().st_size, path)
    except OSError as error:
        raise unreadable(path, error) from None


def load_array(path: Path) -> np.ndarray:
    """Read the array of an .npy file, or the only array of an .npz file. See `load_npz_array` for errors."""
    return load_npz_array(path) if path.suffix.lower() == ".npz" else load_npy(path)


def read_npy(stream: IO[bytes], size: int, path: Path) -> np.ndarray:
    """Read the .npy array that begins at the position of a stream.

    Args:
        stream: The open file.
        size: The number of bytes that the array occupies in the stream.
        path: The file that the stream reads, for error messages.

    Raises:
        TrichordError: The array is broken or contains Python objects.
    """
    try:
        return _read_npy(stream, size, path)
    except OSError as error:
        raise unreadable(path, error) from None
    except (EOFError, ValueError, struct.error) as error:
        if isinstance(error, TrichordError):
            raise
        raise _broken(path, str(error)) from None


def most_unpacked(packed_bytes: int) -> int:
    """Return how many bytes may be unpacked from `packed_bytes` bytes of a file."""
    return max(FREE_BYTES, LARGEST_RATIO * packed_bytes)


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Check the declared sizes of the members of a zip file, separately and in total, before they are read.

    Raises:
        TrichordError: The members unpack to more than the size of the file can explain, or two have the same name.
    """
    members = archive.infolist()
    for member in members:
        check_member(member, path)
    unpacked, packed = sum(member.file_size for member in members), path.stat().st_size
    if unpacked > most_unpacked(packed):
        raise TrichordError(
            f"{path}: refused: its {len(members):,} members unpack from {packed:,} to {unpacked:,} bytes; "
            "download it from its publisher or save it again"
        )
    if len(members) != len({member.filename for member in members}):
        raise TrichordError(f"{path}: refused: two of its members have the same name; save the file again")


def check_member(member: zipfile.ZipInfo, path: Path) -> None:
    """Check the declared size of a member of a zip file.

    Raises:
        TrichordError: The member unpacks to more than its packed bytes can explain.
    """
    if member.file_size > most_unpacked(member.compress_size):
        raise TrichordError(
            f"{path}: refused: {one_line(member.filename)[:80]} unpacks from {member.compress_size:,} to "
            f"{member.file_size:,} bytes; download it from its publisher or save it again"
        )


def text_array(texts: Sequence[str], source: str) -> np.ndarray:
    """Return texts as an array of fixed-width strings.

    Args:
        texts: The texts.
        source: Where the texts come from, for the error message.

    Raises:
        TrichordError: One text is so much longer than the others that the array would be far larger than the texts.
    """
    longest = max(map(len, texts), default=0)
    num_bytes = 4 * longest * len(texts)  # NumPy stores each character in four bytes
    if num_bytes > most_unpacked(sum(map(len, texts))):
        raise TrichordError(
            f"{source}: one of its {len(texts):,} texts has {longest:,} characters, so an array of all texts would take "
            f"{num_bytes:,} bytes; shorten that text"
        )
    return np.array(texts, np.str_) if len(texts) else np.empty(0, np.str_)


def shortened(texts: Sequence[str]) -> list[str]:
    """Return texts that `text_array` accepts. Texts that are far longer than most others are cut.

    Args:
        texts: The texts.
    """
    length = statistics.median_low(map(len, texts)) if texts else 0
    most = max(FREE_BYTES // (4 * max(len(texts), 1)), LARGEST_RATIO // 8 * length)
    return [text[:most] for text in texts]


def plain_dtype(name: object) -> np.dtype | None:
    """Return a new dtype for a name such as `<f4` or `|S3`; None unless it describes numbers or fixed-width text."""
    if not isinstance(name, str) or not _PLAIN.fullmatch(name):
        return None
    try:
        return np.dtype(name, align=False, copy=True)
    except TypeError:  # no number has this width
        return None


def _read_npy(stream: IO[bytes], size: int, path: Path) -> np.ndarray:
    """Read an array from a stream of `size` bytes. The header is checked against the size before any data is read."""
    head = stream.read(8)
    lengths = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}
    if head not in lengths:
        raise _broken(path, "it does not begin with the header of .npy format 1 or 2")
    length = int.from_bytes(stream.read(lengths[head]), "little")
    if length > LONGEST_HEADER:
        raise _broken(path, "its header does not describe an array of numbers")
    # ast.literal_eval is not used, because two concurrent calls may raise SystemError in CPython 3.11.
    header = _HEADER.fullmatch(stream.read(length).decode("latin-1"))
    if header is None:
        raise _broken(path, "its header does not describe an array of numbers")
    descr, fortran = header["descr"], header["fortran"] == "True"
    shape = tuple(int(size) for size in re.findall(r"\d+", header["shape"]))
    dtype = plain_dtype(descr)
    if dtype is None:
        description = f"an array of type {one_line(descr)[:80]}"
        raise TrichordError(
            f"{path}: refused: holds {description}; only plain numbers are read; save it again as numbers"
        )
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes > size:
        raise _broken(path, f"an array of shape {shape} does not fit in its {size:,} bytes")
    data = stream.read(num_bytes)
    stream.read(1)  # zipfile compares the checksum at the end of the member
    if len(data) != num_bytes:
        raise _broken(path, f"it ends after {len(data):,} of {num_bytes:,} bytes")
    return (
        np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
        if num_bytes
        else np.empty(shape, dtype)
    )


def _broken(path: Path, reason: str) -> TrichordError:
    return lfs_pointer_error(path) or TrichordError(
        f"{path}: is broken ({one_line(reason)[:200]}); download or save it again"
    )
