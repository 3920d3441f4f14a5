"""Readers of study files return the content of any file, or give an error of one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.study.files import array_names, read_arrays, read_json


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe\x00", "decode"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", "its content is not an object"),
        (b"null", "its content is not an object"),
    ],
)
def test_damaged_json_is_an_error_of_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(TrichordError, match=reason) as caught:
        read_json(path, mend="do this")
    assert str(caught.value).startswith(f"{path}: cannot be read (") and str(caught.value).endswith("); do this")
    with pytest.raises(TrichordError, match="Is a directory"):
        read_json(tmp_path)
    with pytest.raises(TrichordError, match="No such file"):
        read_json(tmp_path / "none.json")


ARRAYS = {"a/video_id": np.array(["x", "yy"]), "a/t2v/clip": np.arange(40), "a/num": np.array(7)}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_arrays_are_intact_or_errors_of_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    np.savez_compressed(path, **ARRAYS)  # type: ignore[arg-type]
    content = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content[: data.draw(st.sampled_from([None, 0, 3, 40, 200, 500, len(content) - 1]))]))
    try:
        arrays = read_arrays(path)
    except TrichordError as error:
        assert str(error).startswith(f"{path}: cannot be read (") and "\n" not in str(error)
        assert "pickle" not in str(error).lower()
    else:
        assert all(np.array_equal(array, ARRAYS[name]) for name, array in arrays.items())


def test_invalid_arrays(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with path.open("wb") as file:
        np.savez(file, a=np.array([{}], dtype=object))
    for message, content in (("damaged", None), ("damaged", b"\x80\x04N."), ("damaged", b"")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(TrichordError, match=message) as caught:
            read_arrays(path)
        assert "pickle" not in str(caught.value)
    with path.open("wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(TrichordError, match="it is damaged, or not an .npz file"):
        array_names(path)
