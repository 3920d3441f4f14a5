"""Faults of the system are distinguished from damaged files, do not shorten items, and are tried again by the next run."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import av.error
import numpy as np
import pytest
import torch

from extract_helpers import VTT, ids_of, ledger, pictures, run, sound
from trichord.cli.data import extract as extract_command
from trichord.errors import TrichordError
from trichord.extraction import work
from trichord.extraction.folder import can_be_tested
from trichord.extraction.sources import Source
from trichord.files.faults import SystemFaultError, fault_of
from trichord.files.reading import FileTooLargeError, NotRegularFileError
from trichord.media import FrameSpec, image, media_file, probe, subtitles, write_video
from trichord.media import pictures as pictures_of
from trichord.media import sound as sound_of
from trichord.media.decode import decoded
from trichord.store import Store
from trichord.store.inspect import verify


def chained(error: BaseException, context: BaseException, *, cause: bool) -> BaseException:
    setattr(error, "__cause__" if cause else "__context__", context)
    return error


FAULTS = [
    *((OSError(number, os.strerror(number)), "system") for number in (
        errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EACCES, errno.ENOTCONN,
        errno.EREMOTEIO, errno.EBADMSG, errno.ENODATA, errno.ENETDOWN,
    )),
    *((OSError(number, os.strerror(number)), "disk") for number in (
        errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG,
    )),
    (OSError(errno.ENOMEM, "x"), "out-of-memory"),
    (MemoryError(), "out-of-memory"),
    (av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory"), "out-of-memory"),
    (av.error.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "system"),
    (RuntimeError("can't start new thread"), "system"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"), "out-of-memory"),
    (RuntimeError("Could not allocate AVFilterContext"), "out-of-memory"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out-of-memory"),
    (RuntimeError("Could not open input file: /v/a.mp4 Input/output error"), "system"),
    (chained(TrichordError("a.mp4: x"), OSError(errno.EIO, "x"), cause=True), "system"),
    (chained(TrichordError("a.mp4: x"), MemoryError(), cause=False), "out-of-memory"),
    (FileNotFoundError(errno.ENOENT, "x"), ""),
    (OSError(errno.ENAMETOOLONG, "x"), ""),
    (OSError(errno.EINVAL, "x"), ""),
    (OSError("image file is truncated"), ""),
    (av.error.OSError(errno.EIO, "Input/output error"), ""),  # FFmpeg's word for much damage; reads are ours
    (av.error.InvalidDataError(-1094995529, "Invalid data"), ""),
    (NotRegularFileError(errno.EINVAL, "is a FIFO"), ""),
    (FileTooLargeError(errno.EFBIG, "has more than 5 bytes"), ""),
    (RecursionError("too deep"), ""),
    (TrichordError("a.mp4: cannot be opened as a video (Input/output error)"), ""),
    (None, ""),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind"), FAULTS)
def test_faults_of_the_system_are_distinguished_from_damage(error: BaseException | None, kind: str) -> None:
    assert fault_of(error) == kind


def test_a_chain_of_errors_that_leads_back_to_itself_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__context__, second.__context__ = second, first
    assert fault_of(first) == ""


# ---- reading


def remux(path: Path, to: Path, **options: str) -> Path:
    with av.open(str(path)) as source, av.open(str(to), "w", options=options) as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return to


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same pictures and sound in several containers, each larger than the first reads of FFmpeg."""
    root = tmp_path_factory.mktemp("containers")
    noise = np.random.RandomState(0).randint(0, 255, (60, 96, 128, 3), np.uint8)
    for suffix in (".mp4", ".mkv"):
        write_video(root / f"a{suffix}", noise, 10, sound(6.0))
    for name in ("a.ts", "a.flv"):
        remux(root / "a.mp4", root / name)
    return {path.suffix: path for path in root.iterdir()}


def fail_reads(monkeypatch: pytest.MonkeyPatch, number: int, *, after: int, times: int = 1) -> list[int]:
    """Let `times` reads of media files fail with an error number, after `after` successful ones; return the failed reads."""
    failed: list[int] = []
    num_reads = 0

    def pread(descriptor: int, count: int, position: int) -> bytes:
        nonlocal num_reads
        num_reads += 1
        if num_reads > after and len(failed) < times:
            failed.append(num_reads)
            raise OSError(number, os.strerror(number))
        return real(descriptor, count, position)

    real = os.pread
    monkeypatch.setattr(media_file.os, "pread", pread)
    return failed


@pytest.mark.parametrize("after", [0, 2, 7])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv"])
def test_one_failed_read_is_never_the_end_of_a_video(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch, suffix: str, after: int
) -> None:
    """FFmpeg treats it as the end of the file in Matroska, and as damage elsewhere."""
    path = videos[suffix]
    whole = len(list(pictures_of(path, [FrameSpec(short_side=16)])))
    for read in (
        lambda notes: list(pictures_of(path, [FrameSpec(short_side=16)], notes=notes)),
        lambda notes: list(sound_of(path, notes=notes)),
    ):
        with monkeypatch.context() as patch:
            failed, notes = fail_reads(patch, errno.EIO, after=after), []
            with pytest.raises((SystemFaultError, OSError)) as caught:
                read(notes)
            assert failed and fault_of(caught.value) == "system" and notes == []
    assert len(list(pictures_of(path, [FrameSpec(short_side=16)]))) == whole


def test_the_length_of_a_file_that_states_none_is_not_cut_by_a_failed_read(
    videos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = remux(videos[".mp4"], tmp_path / "live.mkv", live="1")
    with av.open(str(path)) as container:
        assert not container.duration
    assert probe(path).duration_s == pytest.approx(6.0, abs=0.1)
    os.utime(path, ns=(1, 1))  # the length of a file that has not changed is remembered
    failed = fail_reads(monkeypatch, errno.ESTALE, after=8)
    with pytest.raises((SystemFaultError, OSError)) as caught:
        probe(path)
    assert failed and fault_of(caught.value) == "system"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_file_that_the_system_does_not_open_is_not_unreadable(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(path: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(media_file, "open_regular", refused)
    for read in (probe, subtitles):
        with pytest.raises(SystemFaultError, match=r"a\.mp4: cannot be read now"):
            read(videos[".mp4"])


class Packets:
    """A container whose packets or decoder raise an error in the middle."""

    start_time, duration, size, name = 0, 4_000_000, 1 << 20, "a.mp4"
    format = SimpleNamespace(name="mov,mp4")

    def __init__(self, demux_error: Exception | None = None, decode_error: Exception | None = None) -> None:
        self.demux_error, self.decode_error = demux_error, decode_error

    @property
    def streams(self) -> Any:
        class Streams(list[Any]):
            video = (VIDEO,)

            def best(self, kind: str, related: object = None) -> Any:
                return VIDEO if kind == "video" else None

        return Streams([VIDEO])

    def demux(self, streams: object) -> Iterator[Any]:
        for n in range(4):
            if n == 2 and self.demux_error is not None:
                raise self.demux_error
            times = {"pts": n, "dts": n, "duration": 1, "time_base": 1, "is_discard": False}
            yield SimpleNamespace(
                stream=VIDEO, size=1, decode=lambda n=n: self.decode(n), has_sidedata=lambda kind: False, **times
            )

    def decode(self, n: int) -> list[Any]:
        if n == 2 and self.decode_error is not None:
            raise self.decode_error
        return [SimpleNamespace(pts=n, dts=n, time_base=1, duration=1)]


VIDEO = SimpleNamespace(
    type="video", index=0, time_base=1, start_time=0, duration=4, thread_type="", average_rate=1, disposition=(), frames=0,
    codec_context=SimpleNamespace(),
)  # fmt: skip
NO_MEMORY = av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")
DAMAGE = av.error.InvalidDataError(-1094995529, "Invalid data found when processing input")


@pytest.mark.parametrize(
    ("container", "kind"),
    [
        (Packets(demux_error=NO_MEMORY), "out-of-memory"),
        (Packets(decode_error=NO_MEMORY), "out-of-memory"),
        (Packets(decode_error=av.error.BlockingIOError(errno.EAGAIN, "try again")), "system"),  # a thread of FFmpeg
    ],
)
def test_a_failed_allocation_is_not_damage(container: Packets, kind: str) -> None:
    notes: list[str] = []
    with pytest.raises(SystemFaultError, match=r"a\.mp4: cannot be read now") as caught:
        list(decoded("a.mp4", container, VIDEO, notes))  # type: ignore[arg-type]
    assert fault_of(caught.value) == kind and notes == []


def test_damage_is_skipped_and_noted_as_before() -> None:
    notes: list[str] = []
    container: Any = Packets(decode_error=DAMAGE)
    assert [time_s for time_s, _ in decoded("a.mp4", container, VIDEO, notes)] == [0, 1, 3]
    container = Packets(demux_error=DAMAGE)
    assert [time_s for time_s, _ in decoded("a.mp4", container, VIDEO, notes)] == [0, 1]
    assert notes == [
        "a.mp4: 1 damaged video packets skipped",
        "a.mp4: the video ends at 2.0 s of 4.0 s (Invalid data found when processing input); the rest is missing from the file",
    ]


def test_a_picture_that_the_system_does_not_read_is_not_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)

    def failing(*args: object, **options: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Image, "open", failing)
    with pytest.raises(SystemFaultError, match="cannot be read now"):
        image(path, FrameSpec())


# ---- extraction


def test_a_fault_is_tried_again_by_the_next_run_and_sets_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, store = tmp_path / "v", tmp_path / "s"
    for name, seed in (("a", 0), ("b", 1)):
        write_video(folder / f"{name}.mp4", pictures(30, seed), 10, sound(3.0))
        (folder / f"{name}.vtt").write_text(VTT)
    (folder / "bad.mp4").write_bytes(b"no video")
    words = [str(folder), "--store", str(store), "--workers", "0", "--visual_2d", "none"]
    opened = media_file.open_regular
    with monkeypatch.context() as patch:

        def refused(path: Path) -> Any:
            if Path(path).name == "a.mp4":
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
            return opened(path)

        patch.setattr(media_file, "open_regular", refused)
        assert extract_command(words) == 75
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == ("1 was not done because of a system fault; fix the cause, then run the same command again")
    assert ledger(store) == {"a.mp4": "system", "bad.mp4": "unreadable"} and ids_of(store) == ["b"]
    assert extract_command(words) == 0  # without --retry; what is damaged sets no exit code
    assert ledger(store) == {"bad.mp4": "unreadable"} and ids_of(store) == ["b", "a"] and verify(store) == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("can't start new thread"), "system"),
        (OSError(errno.EFBIG, "File too large"), "disk"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (MemoryError(), "out-of-memory"),
    ],
)
def test_a_fault_of_one_video_does_not_affect_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str
) -> None:
    folder, store = tmp_path / "v", tmp_path / "s"
    for name in "ab":
        write_video(folder / f"{name}.mp4", pictures(10, ord(name)), 10, sound(1.0 + (name == "a")))
    original = work.sound

    def failing(path: Path, *args: object, **options: object) -> object:
        if path.name == "a.mp4":
            raise error
        return original(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(work, "sound", failing)
    summary = run(folder, store, visual_2d="none")
    assert (summary.num_added, summary.num_postponed, ledger(store)) == (1, 1, {"a.mp4": kind})
    monkeypatch.setattr(work, "sound", original)
    summary = run(folder, store, visual_2d="none")
    assert (summary.num_added, summary.num_postponed, ledger(store)) == (1, 0, {})


def test_a_store_without_room_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trichord.extraction import driver

    write_video(tmp_path / "v" / "a.mp4", pictures(10), 10, sound(1.0))

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(work, "sound", full)
    monkeypatch.setattr(driver.tempfile, "TemporaryFile", full)
    with pytest.raises(TrichordError, match="is not writable .No space left on device.; fix the cause, then run"):
        run(tmp_path / "v", tmp_path / "s", visual_2d="none")


def test_an_item_of_the_spool_is_not_given_up_for_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trichord.extraction import driver

    write_video(tmp_path / "v" / "a.mp4", pictures(10), 10, sound(1.0))

    def failing(self: object, *args: object, **options: object) -> None:
        raise TrichordError("the disk is full") from OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(driver.StoreWriter, "add", failing)
        with pytest.raises(TrichordError, match="the disk is full"):
            run(tmp_path / "v", tmp_path / "s", visual_2d="none")
    assert ledger(tmp_path / "s") == {}
    run(tmp_path / "v", tmp_path / "s", visual_2d="none")
    assert ids_of(tmp_path / "s") == ["a"]


def test_the_split_does_not_depend_on_a_fault(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    fail_reads(monkeypatch, errno.EIO, after=0)
    assert can_be_tested(Source("a", "a.mp4", video=videos[".mp4"]), needs_captions=False)
    monkeypatch.undo()
    assert not can_be_tested(Source("a", "a.mp4", video=videos[".mp4"].with_name("gone.mp4")), needs_captions=False)


# ---- files that change


def replace(path: Path, other: Path) -> None:
    shutil.copyfile(other, path.with_name(".new"))
    os.replace(path.with_name(".new"), path)


def append(path: Path, other: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def same_size_and_time(path: Path, other: Path) -> None:
    status = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def new_captions(path: Path, other: Path) -> None:
    path.with_suffix(".srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nnew\n")


@pytest.mark.parametrize("change", [replace, append, same_size_and_time, new_captions])
def test_a_video_that_changes_while_it_is_extracted_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, Path], None]
) -> None:
    folder, store = tmp_path / "v", tmp_path / "s"
    write_video(folder / "a.mp4", pictures(10), 10, sound(1.0))
    write_video(tmp_path / "other.mp4", pictures(20), 10, sound(2.0))
    original = work.sound

    def changing(path: Path, *args: object, **options: object) -> object:
        change(path, tmp_path / "other.mp4")
        return original(path, *args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(work, "sound", changing)
        with pytest.raises(TrichordError, match="changed while it was being extracted"):
            run(folder, store, visual_2d="none")
    assert ledger(store) == {"a.mp4": "modified"}
    summary = run(folder, store, visual_2d="none")
    assert (summary.num_added, ledger(store)) == (1, {})
    assert len(Store(store)) == 1


# ---- folders that cannot be listed


def test_a_folder_that_cannot_be_listed_is_reported_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = tmp_path / "v", tmp_path / "s"
    for name in ("a", "sub/b"):
        write_video(folder / f"{name}.mp4", pictures(10, len(name)), 10, sound(1.0))
    scandir = os.scandir

    def failing(path: str) -> Any:
        if str(path).endswith("sub"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", failing)
        summary = run(folder, store, visual_2d="none")
        run(folder, store, visual_2d="none")
    assert (summary.num_added, summary.num_postponed) == (1, 1)
    assert "sub/: cannot be listed (Input/output error); its videos are left out" in summary.notes
    assert ledger(store) == {"sub/": "system"}
    assert len((store / "skipped.jsonl").read_text().splitlines()) == 1  # once, not by every run
    summary = run(folder, store, visual_2d="none")
    assert (summary.num_added, summary.num_postponed, ledger(store)) == (1, 0, {})


def test_other_folders_of_files_are_not_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trichord.files.walking import own_files_below
    from trichord.releases.steps import Files

    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.csv").write_text("")
    assert Files([tmp_path]).find("a.csv") and [p.name for p in own_files_below(tmp_path)] == ["a.csv"]
    scandir = os.scandir

    def failing(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    for read in (lambda: Files([tmp_path]), lambda: list(own_files_below(tmp_path))):
        with pytest.raises(TrichordError, match=r"sub: cannot be listed .Permission denied.; fix the cause"):
            read()
