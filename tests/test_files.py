"""The files room: regular files only, bounded reading, modes of the umask, links refused, only own folders removed."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from trichord.errors import TrichordError
from trichord.files import folders, reading, writing


@pytest.fixture
def odd_paths(tmp_path: Path) -> dict[str, Path]:
    fifo, folder, device = tmp_path / "fifo", tmp_path / "folder", tmp_path / "device"
    os.mkfifo(fifo)
    folder.mkdir()
    device.symlink_to("/dev/zero")
    (tmp_path / "link-to-fifo").symlink_to(fifo)
    return {"a FIFO": fifo, "directory": folder, "a device": device, " a FIFO": tmp_path / "link-to-fifo"}


def test_only_regular_files_are_opened(odd_paths: dict[str, Path]) -> None:
    for kind, path in odd_paths.items():
        for read in (reading.open_regular, reading.check_regular, reading.read_bytes, reading.read_text):
            with pytest.raises(reading.NotRegularFileError, match=kind.strip()):
                read(path)


def test_a_link_to_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\r\nb\rc\n")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert reading.read_bytes(tmp_path / "link") == b"a\r\nb\rc\n"
    assert reading.read_text(tmp_path / "link") == "a\nb\nc\n"


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert reading.read_bytes(path, max_bytes=5) == b"12345"
    with pytest.raises(reading.FileTooLargeError, match="more than 4 bytes"):
        reading.read_bytes(path, max_bytes=4)


def test_a_pipe_that_the_user_names_is_read_up_to_a_bound(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        with suppress(BrokenPipeError):
            fifo.write_bytes(b"words" * 3)

    for max_bytes in (15, 14):
        writer = threading.Thread(target=write)
        writer.start()
        try:
            if max_bytes == 15:
                with reading.open_given(fifo, max_bytes=max_bytes) as file:
                    assert file.read(5) == b"words" and file.seek(0) == 0 and file.read() == b"words" * 3
            else:
                with pytest.raises(reading.FileTooLargeError, match="gives more than 14 bytes"):
                    reading.open_given(fifo, max_bytes=max_bytes)
        finally:
            writer.join()


def test_deep_json_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        reading.parse_json("[" * 100_000)


def test_files_have_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with writing.replacing(tmp_path / "file") as partial:
            partial.unlink()
            os.close(os.open(partial, os.O_CREAT, 0o600))  # as the safetensors library creates it
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_nothing_is_written_through_a_link_in_the_place_of_a_partial_file(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".file.partial").symlink_to(tmp_path / "victim")
    writing.write_text(tmp_path / "file", "new")
    assert (tmp_path / "victim").read_text() == "mine" and (tmp_path / "file").read_text() == "new"


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(ZeroDivisionError), writing.replacing(tmp_path / "file") as partial:
        partial.write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "file").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_output_folder_may_be_a_link_and_folders_below_it_may_not(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "real")
    assert folders.make_folder(out, "stages", "avt") == out / "stages" / "avt"
    folders.check_no_links(out)
    (out / "stages" / "avt" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    for refuse in (
        lambda: folders.check_no_links(out),
        lambda: folders.make_folder(out, "stages", "avt", "checkpoints"),
        lambda: folders.make_folder(out, "stages", "avt", "checkpoints", "step-1"),
    ):
        with pytest.raises(TrichordError, match=r"checkpoints: is a link to .*elsewhere; nothing is written"):
            refuse()
    assert not list((tmp_path / "elsewhere").iterdir())
    folders.check_no_links(tmp_path / "missing")


def test_links_to_files_are_no_folder_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    folders.check_no_links(tmp_path)


def test_removing_a_link_to_a_folder_keeps_the_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("mine")
    for remove in (folders.remove_tree, writing.remove_folder):
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        remove(tmp_path / "link")
        assert not (tmp_path / "link").exists() and (tmp_path / "elsewhere" / "file").read_text() == "mine"
