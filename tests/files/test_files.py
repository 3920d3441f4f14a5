"""The package `files`: regular files only, bounded reading, permissions, links are refused, only own folders are removed."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from trichord.errors import TrichordError
from trichord.files import folders, reading, writing
from trichord.files.locks import FileLock, LockedByAnotherProcess, is_locked
from trichord.store.words import read_word_vectors


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
    for max_bytes in (15, 14):
        fifo = tmp_path / f"fifo-{max_bytes}"
        os.mkfifo(fifo)

        def write(fifo: Path = fifo) -> None:
            with suppress(BrokenPipeError):
                fifo.write_bytes(b"words" * 3)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            if max_bytes == 15:
                with reading.open_given(fifo, max_bytes=max_bytes) as file:
                    assert file.read(5) == b"words" and file.seek(0) == 0 and file.read() == b"words" * 3
                with reading.open_given(fifo) as again:  # the process has kept a copy
                    assert again.read() == b"words" * 3
            else:
                with pytest.raises(reading.FileTooLargeError, match="yields more than 14 bytes"):
                    reading.open_given(fifo, max_bytes=max_bytes)
        finally:
            writer.join()


def test_a_new_pipe_is_not_taken_for_a_deleted_one(tmp_path: Path) -> None:
    """File systems give the number of a deleted pipe to the next one."""
    for content in (b"first", b"second", b"third"):
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        writer = threading.Thread(target=fifo.write_bytes, args=(content,))
        writer.start()
        with reading.open_given(fifo) as file:
            assert file.read() == content
        writer.join()
        fifo.unlink()


def test_a_fifo_without_a_writer_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "WRITER_WAIT_S", 0.1)
    os.mkfifo(tmp_path / "words.bin")
    before = threading.active_count()
    with pytest.raises(reading.NotRegularFileError, match="a FIFO that no process writes to"):
        reading.open_given(tmp_path / "words.bin")
    with pytest.raises(TrichordError, match=r"words\.bin: cannot be read \(is a FIFO that no process writes to\)"):
        read_word_vectors(tmp_path / "words.bin", frozenset({"egg"}))
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before, "the waiting thread has been let go"


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


def test_a_link_in_place_of_a_partial_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".file.partial").symlink_to(tmp_path / "victim")
    writing.write_text(tmp_path / "file", "new")
    assert (tmp_path / "victim").read_text() == "mine" and (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("name", ["x" * 251 + ".txt", "é" * 127, "ab"])
def test_names_of_any_length_are_written_and_replaced(name: str, tmp_path: Path) -> None:
    for text in ("first", "second"):
        writing.write_text(tmp_path / name, text)
        writing.write_text(tmp_path / f"{name[:-1]}s", text, shared=True)
        assert (tmp_path / name).read_text() == text
    with writing.replacing_file(tmp_path / f"{name[:-1]}e", exclusive=True) as file:
        file.write(b"third")
    assert len(list(tmp_path.iterdir())) == 3
    for text in ("old", "new"):
        (partial := tmp_path / "partial").mkdir()
        (partial / "a.json").write_text(text)
        writing.replace_folder(partial, tmp_path / f"{name[:-1]}f", re.compile("a.json"))
    assert (tmp_path / f"{name[:-1]}f" / "a.json").read_text() == "new"
    assert folders.remove_folder(tmp_path / f"{name[:-1]}f", re.compile("a.json"))
    assert len(list(tmp_path.iterdir())) == 3


def test_hidden_names_differ_as_their_names_do(tmp_path: Path) -> None:
    names = ["x" * 254 + end for end in "ab"]
    assert len({folders.hidden_beside(tmp_path / name, ".partial") for name in names}) == 2
    assert folders.hidden_beside(tmp_path / "a.csv", ".partial") == tmp_path / ".a.csv.partial"


def test_a_failed_write_keeps_the_existing_file(tmp_path: Path) -> None:
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
        with pytest.raises(TrichordError, match=r"checkpoints: is a link to .*elsewhere; trichord does not write"):
            refuse()
    assert not list((tmp_path / "elsewhere").iterdir())
    folders.check_no_links(tmp_path / "missing")


def test_links_in_hidden_folders_are_ignored(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "lib").mkdir(parents=True)
    (tmp_path / ".venv" / "lib64").symlink_to("lib")
    folders.check_no_links(tmp_path)


def test_links_to_files_are_not_folder_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    folders.check_no_links(tmp_path)


OWN = re.compile(r"\d+\.rows|done/\d+")


def test_only_folders_of_own_files_are_removed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0.rows").write_text("not made here")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name, files in {"mixed": ["0.rows", "thesis.tex"], "deep": ["0.rows", "done/1", "done/notes"]}.items():
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(file)
    for name in ("link", "mixed", "deep"):
        assert not folders.remove_folder(tmp_path / name, OWN)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "elsewhere" / "0.rows").exists()
    assert (tmp_path / "mixed" / "0.rows").exists() and (tmp_path / "deep" / "done" / "1").exists()
    (tmp_path / "mixed" / "thesis.tex").unlink()
    (tmp_path / "deep" / "done" / "notes").unlink()
    (tmp_path / "mixed" / "1.rows").symlink_to(tmp_path / "elsewhere" / "0.rows")
    for name in ("mixed", "deep", "missing"):
        assert folders.remove_folder(tmp_path / name, OWN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "link"]
    assert (tmp_path / "elsewhere" / "0.rows").exists()


def test_a_folder_is_replaced_only_by_and_over_own_files(tmp_path: Path) -> None:
    for name, text in (("new", "new"), ("final", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.rows").write_text(text)
    (tmp_path / "final" / "mine").write_text("mine")
    with pytest.raises(TrichordError, match="contains files that trichord did not write"):
        writing.replace_folder(tmp_path / "new", tmp_path / "final", OWN)
    (tmp_path / "final" / "mine").unlink()
    writing.replace_folder(tmp_path / "new", tmp_path / "final", OWN)
    assert (tmp_path / "final" / "0.rows").read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["final"]


@pytest.mark.parametrize("links", [True, False])
def test_an_exclusive_write_never_replaces_a_file(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: object, **options: object) -> None:
        raise OSError(errno.EPERM, "the file system has no hard links")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with writing.replacing_file(tmp_path / "part", exclusive=True) as file:
        file.write(b"first")
    with pytest.raises(FileExistsError), writing.replacing_file(tmp_path / "part", exclusive=True) as file:
        file.write(b"second")
    assert (tmp_path / "part").read_bytes() == b"first" and [p.name for p in tmp_path.iterdir()] == ["part"]


def test_a_lock_counts_only_while_its_file_has_its_name(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path) as first:
        first.write(b"first")
        with pytest.raises(LockedByAnotherProcess) as refused:
            FileLock(path)
        assert refused.value.holder == b"first"
        first.check()
        path.unlink()
        with (
            FileLock(path) as second,
            pytest.raises(TrichordError, match="lock file was removed while this process held it"),
        ):
            first.check()
        second.release()
    with FileLock(path):
        pass


def test_whether_a_lock_is_held_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path) and not path.exists()
    with FileLock(path):
        assert is_locked(path)
        path.chmod(0o444)
        assert is_locked(path)
    assert not is_locked(path)

    def without_locks(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.lock_descriptor", without_locks)
    with FileLock(path) as lock:
        assert not lock.is_exclusive and not is_locked(path)


def test_a_line_is_added_behind_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert list(reading.json_lines(path)) == []
    writing.append_json_line(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"to')
    writing.append_json_line(path, [2, "\u2028"])
    assert list(reading.json_lines(path)) == [{"a": 1}, [2, "\u2028"]]
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic"):
        writing.append_json_line(tmp_path / "link", 3)


def test_who_waits_for_a_lock_whose_file_was_removed_locks_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = FileLock(path)
    got: list[FileLock] = []
    waiter = threading.Thread(target=lambda: got.append(FileLock(path, wait_s=None)))
    waiter.start()
    path.unlink()
    waiter.join()
    got[0].check()
    first.release()
    got[0].release()


def test_other_files_are_refused_as_lock_files(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("link", "fifo", "folder", "socket"):
            with pytest.raises(TrichordError, match=f"/{name}: cannot be read .*; move it away, then run"):
                FileLock(tmp_path / name)
    assert not (tmp_path / "victim").exists()
