"""Arrays in .npz and .npy files: read as numpy reads them, never unpickled, never larger than the file allows."""

from __future__ import annotations

import struct
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from trichord.errors import TrichordError
from trichord.files import arrays
from trichord.files.arrays import load_npy
from trichord.files.pickles import load_npz_array


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the working folder that is created if anything in a file is executed."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "ran"


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b" " * 20 + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "i8", "?"])
def test_npz_and_npy_as_numpy_reads_them(dtype: str, tmp_path: Path) -> None:
    values = np.arange(12).reshape(3, 4).astype(dtype)
    np.savez(tmp_path / "a.npz", values, features=values.T, empty=values[:0])
    np.savez_compressed(tmp_path / "b.npz", features=values.T)
    np.save(tmp_path / "c.npy", values)
    assert same(load_npz_array(tmp_path / "a.npz", "arr_0"), values)
    assert same(load_npz_array(tmp_path / "a.npz", "features"), values.T)
    assert same(load_npz_array(tmp_path / "a.npz", "empty"), values[:0])
    assert same(load_npz_array(tmp_path / "b.npz", "features"), values.T)
    assert same(load_npy(tmp_path / "c.npy"), values)


def test_header_of_python_2_is_read(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "a.npz", features=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2L,), }", bytes(8))
    )
    assert load_npz_array(path, "features").tolist() == [0.0, 0.0]


def broken_npz(case: str, path: Path) -> None:
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }"
    np.savez(path, features=np.arange(500.0))
    whole = path.read_bytes()
    if case == "cut":
        path.write_bytes(whole[:-100])
    elif case == "flipped":
        path.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    elif case == "text":
        path.write_text("<html>404</html>")
    elif case == "empty":
        path.write_bytes(b"")
    elif case == "missing":
        path.unlink()
    elif case == "key":
        np.savez(path, other=np.ones(3))
    elif case == "object":
        np.savez(path, features=np.array([{}, None], dtype=object))
    elif case == "claims":
        zipped(path, features=npy(head % 10**12, bytes(8)))
    elif case == "negative":
        zipped(path, features=npy(head % -2, bytes(8)))
    elif case == "header":
        zipped(path, features=npy("__import__('os').system('touch ran')"))
    elif case == "long":
        zipped(path, features=npy(head % "1" + " " * 60_000))
    elif case == "deep":
        zipped(path, features=npy("-" * 9_000 + "1"))
    elif case == "version":
        zipped(path, features=b"\x93NUMPY\x09\x00" + bytes(40))
    elif case == "magic":
        zipped(path, features=bytes(40))


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("cut", "is broken (not a complete .npz file"),
        ("flipped", "is broken (not a complete .npz file: Bad CRC"),
        ("text", "is broken (not a complete .npz file"),
        ("empty", "is broken (not a complete .npz file"),
        ("missing", "does not exist; check the path"),
        ("key", "has no array 'features' (it contains other); check that it is the right file"),
        ("object", "refused: holds an array of type |O"),
        ("claims", "an array of shape (1000000000000,) does not fit in its"),
        ("negative", "is broken (its header does not describe an array of numbers)"),
        ("header", "is broken (its header does not describe an array of numbers)"),
        ("long", "is broken (its header does not describe an array of numbers)"),
        ("deep", "is broken (its header does not describe an array of numbers)"),
        ("version", "is broken (it does not begin with the header of .npy"),
        ("magic", "is broken (it does not begin with the header of .npy"),
    ],
)
def test_a_broken_npz_is_an_error_of_one_line(case: str, text: str, tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "v_2d.npz"
    broken_npz(case, path)
    with pytest.raises(TrichordError) as caught:
        load_npz_array(path, "features")
    assert str(caught.value).startswith(f"{path}: ") and text in str(caught.value) and "\n" not in str(caught.value)
    assert not marker.exists()


def test_npz_that_unpacks_to_far_more_than_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v_spec.npz"
    np.savez_compressed(path, np.zeros(10**6, np.float16))
    assert load_npz_array(path, "arr_0").shape == (10**6,)
    monkeypatch.setattr(arrays, "FREE_BYTES", 10**6)
    with pytest.raises(TrichordError, match=r"refused: arr_0\.npy unpacks from .* to 2,000,128 bytes"):
        load_npz_array(path, "arr_0")


def test_a_broken_npy_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.arange(100.0))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(TrichordError, match="ends after|does not fit"):
        load_npy(path)
    with pytest.raises(TrichordError, match="does not exist"):
        load_npy(tmp_path / "none.npy")


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    """With ast.literal_eval, reading the header could fail with 'SystemError: AST constructor recursion depth mismatch'."""
    path = tmp_path / "v_2d.npz"
    np.savez(path, features=np.ones((3, 4), np.float16))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            shapes = list(pool.map(lambda _: load_npz_array(path, "features").shape, range(3000)))
    finally:
        sys.setswitchinterval(interval)
    assert set(shapes) == {(3, 4)}
