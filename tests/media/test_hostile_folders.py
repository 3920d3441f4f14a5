"""Folders with entries that are not videos, names with a meaning for FFmpeg, and files with excessive claims."""

from __future__ import annotations

import ast
import os
import shutil
import stat
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import trichord
from extract_helpers import ids_of, ledger, pictures, run, sound
from fake_torchcodec import VideoDecoder
from trichord.captions import Captions
from trichord.errors import TrichordError
from trichord.extraction.table import read_table
from trichord.media import FrameSpec, probe, waveform, write_video
from trichord.media import frames as frames_of
from trichord.media.clock import longest_s
from trichord.media.torchcodec import pictures as torchcodec_pictures
from trichord.releases.common import Request, import_entries
from trichord.store import Store
from trichord.store.items import check_collection
from trichord.store.spool import SpoolWriter, read_spooled, spooled

SOURCE = Path(trichord.__file__).parent


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four short videos with different pictures."""
    root = tmp_path_factory.mktemp("videos")
    for n in range(4):
        write_video(root / f"{n}.mp4", pictures(4 + n, n), 10, sound(0.4 + 0.1 * n))
    return sorted(root.iterdir())


# ---- no regular files


def irregular(path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_special_files_are_skipped_without_waiting(tmp_path: Path, videos: list[Path], kind: str) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    shutil.copy(videos[0], folder / "good.mp4")
    irregular(folder / "x.mp4", kind)
    irregular(folder / "good.vtt", kind)  # beside a video: there are no captions
    summary = run(folder, tmp_path / "s", visual_2d="none")
    assert (summary.num_added, ledger(tmp_path / "s")) == (1, {"x.mp4": "missing"})
    assert any("x.mp4: cannot be read (is a" in note and "not a regular file)" in note for note in summary.notes)


@pytest.mark.parametrize("column", ["video", "image", "audio", "captions"])
def test_a_table_that_names_a_fifo(tmp_path: Path, videos: list[Path], column: str) -> None:
    shutil.copy(videos[0], tmp_path / "good.mp4")
    os.mkfifo(tmp_path / "x.svg")
    other = "good.mp4" if column == "captions" else ""
    (tmp_path / "t.csv").write_text(
        f"id,video,{'other' if column == 'video' else column}\na,good.mp4,\nb,{other},x.svg\n"
    )
    if column == "video":
        (tmp_path / "t.csv").write_text("id,video\na,good.mp4\nb,x.svg\n")
    summary = run(tmp_path / "t.csv", tmp_path / "s", visual_2d="none")
    assert (summary.num_added, list(ledger(tmp_path / "s").values())) == (1, ["missing"])


@pytest.mark.parametrize("name", ["hashes.jsonl", "skipped.jsonl"])
@pytest.mark.parametrize("kind", ["fifo", "device", "link"])
def test_files_of_a_store_that_lines_are_appended_to(tmp_path: Path, videos: list[Path], name: str, kind: str) -> None:
    """In an untrusted store, nothing waits for a FIFO, and nothing is appended through a link."""
    folder, store = tmp_path / "v", tmp_path / "s"
    folder.mkdir()
    store.mkdir()
    shutil.copy(videos[0], folder / "good.mp4")
    (folder / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "profile").write_text("mine\n")
    if kind == "link":
        (store / name).symlink_to(tmp_path / "profile")
    else:
        irregular(store / name, kind)
    if name == "hashes.jsonl":  # it only saves time
        assert run(folder, store, visual_2d="none").num_added == 1
    else:
        with pytest.raises(TrichordError, match=r"skipped\.jsonl"):
            run(folder, store, visual_2d="none")
    assert (tmp_path / "profile").read_text() == "mine\n"


def test_a_table_may_be_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    (tmp_path / "a.png").write_bytes(b"")
    writer = threading.Thread(target=lambda: (tmp_path / "t.csv").write_text("image,text\na.png,hi\n"))
    writer.start()
    assert [source.text for source in read_table(tmp_path / "t.csv")] == [("hi",)]
    writer.join()
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    with pytest.raises(TrichordError, match="is a device, not a regular file"):
        read_table(tmp_path / "zero.csv")


# ---- names


COLONS = [
    "Talk:part1.mp4",
    "http:x.mp4",
    "file:other.mp4",
    "concat:a.mp4|b.mp4",
    "pipe:0.mp4",
    "data:,x.mp4",
    "subfile,,:x.mp4",
]


def test_names_with_a_colon_are_names(tmp_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    for name in COLONS:
        shutil.copy(videos[1], folder / name)
    shutil.copy(videos[0], folder / "other.mp4")
    monkeypatch.chdir(folder)
    for name in COLONS:
        assert probe(name).duration_s == probe(videos[1]).duration_s
        assert len(list(frames_of(Path(name), rate_hz=10))) == 5
    (folder / "http:x.mp4").unlink()
    for number, name in enumerate(("http:x.mp4", "Talk:x.mkv")):
        write_video(name, pictures(4, 9), 10)
        assert probe(folder / name).has_video and sorted(os.listdir()).count(name) == 1, number
    assert run(Path(), tmp_path / "s", visual_2d="none", retry="all").num_added >= 2
    store = Store(tmp_path / "s")
    lengths = {store.video_id(i): store.num_rows("spectrogram", i) for i in range(len(store))}
    assert lengths["Talk:part1"] != lengths["other"]  # of the same content: one of them is stored


def test_torchcodec_is_given_a_path_and_not_an_address(videos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from types import ModuleType

    sources: list[str] = []

    class Recording(VideoDecoder):
        def __init__(self, source: str, **options: Any) -> None:
            sources.append(source)
            super().__init__(source, **options)

    module = ModuleType("torchcodec.decoders")
    module.VideoDecoder = Recording  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    monkeypatch.chdir(videos[0].parent)
    list(torchcodec_pictures(videos[0].name, [FrameSpec(short_side=16)]))
    assert sources == [str(videos[0])]


@pytest.mark.parametrize("length", [239, 248, 255])
def test_long_names(tmp_path: Path, videos: list[Path], length: int) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    name = "a" * (length - 4)
    shutil.copy(videos[0], folder / f"{name}.mp4")
    assert run(folder, tmp_path / "s", visual_2d="none").num_added == 1 and ids_of(tmp_path / "s") == [name]
    write_video(tmp_path / f"{name}.mp4", pictures(4), 10)
    assert probe(tmp_path / f"{name}.mp4").has_video


# ---- files that claim to last


def write_frames(path: Path, times_s: list[float], **options: str) -> Path:
    with av.open(str(path), "w", options=options) as out:
        stream: Any = out.add_stream("mjpeg", rate=1)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.codec_context.time_base = "yuvj420p", Fraction(1, 1000)
        for n, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 60 * n % 255, np.uint8), format="rgb24")
            frame = frame.reformat(format="yuvj420p")
            frame.pts, frame.time_base = int(time_s * 1000), Fraction(1, 1000)
            for packet in stream.encode(frame):
                out.mux(packet)
    return path


def write_sound(path: Path, times_s: list[float]) -> Path:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("pcm_s16le", rate=16000, layout="mono")
        for time_s in times_s:
            frame = av.AudioFrame.from_ndarray(np.full((1, 64), 99, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, int(time_s * 16000), Fraction(1, 16000)
            for packet in stream.encode(frame):
                out.mux(packet)
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
@pytest.mark.parametrize("times_s", [[0, 20_000_000], [0, 1, 9000, 18000], [float(n) for n in range(0, 400_000, 3000)]])
def test_pictures_are_bounded_by_the_size_of_the_file(tmp_path: Path, suffix: str, times_s: list[float]) -> None:
    path = write_frames(tmp_path / f"a{suffix}", times_s)
    notes: list[str] = []
    num_pictures = sum(1 for _ in frames_of(path, width=16, height=16, notes=notes))
    assert num_pictures <= longest_s(path.stat().st_size) + 2 and num_pictures < 40_000
    assert len(notes) == len(set(notes)) <= 2 and all(note.startswith(f"{path}: ") for note in notes)
    assert notes or num_pictures < 3  # MP4 has no number for the longest of these times: its file lasts for a second


def test_a_frame_that_lasts_for_years(tmp_path: Path) -> None:
    """A container of ten seconds, whose last frame and header claim an enormous duration."""
    path = write_frames(tmp_path / "a.mkv", [0, 1, 2])
    data = path.read_bytes()
    at = data.index(b"\x44\x89\x88") + 3  # the duration of the segment, in milliseconds
    path.write_bytes(data[:at] + np.array(2e10, ">f8").tobytes() + data[at + 8 :])
    with av.open(str(path)) as container:
        assert container.duration > 1e13, "microseconds: the header is believed by FFmpeg"
    assert probe(path).duration_s == 3
    assert sum(1 for _ in frames_of(path, width=16, height=16)) <= 3


@pytest.mark.parametrize("times_s", [[0, 200_000], [200_000], [float(n) for n in range(0, 200_000, 3000)]])
def test_silence_is_bounded_by_the_size_of_the_file(tmp_path: Path, times_s: list[float]) -> None:
    path = write_sound(tmp_path / "a.mkv", times_s)
    with av.open(str(path)) as container:
        assert container.duration > 1000 or times_s == [200_000]
    notes: list[str] = []
    assert waveform(path, notes=notes).size <= 16000 * (longest_s(path.stat().st_size) + 1)
    assert len(notes) == len(set(notes)) <= 2  # that the clock jumps, and that packets are skipped


def test_a_file_with_a_huge_gap_does_not_affect_others(tmp_path: Path, videos: list[Path]) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    shutil.copy(videos[0], folder / "b.mp4")
    write_sound(folder / "a.mkv", [0, 200_000])
    summary = run(folder, tmp_path / "s", visual_2d="none")
    assert (summary.num_added, summary.num_postponed) == (2, 0)
    assert any("a.mkv: " in note and "damage" in note for note in summary.notes), summary.notes


def test_long_recordings_are_whole(tmp_path: Path) -> None:
    """Gaps of less than an hour in a recording of ordinary size are not damage."""
    assert longest_s(2_000_000) > 48 * 3600
    path = write_sound(tmp_path / "a.mkv", [0, 1800, 3300])
    assert waveform(path).size == pytest.approx(3300 * 16000 + 64, abs=200)


# ---- collections


@pytest.mark.parametrize(
    "name", ["", " ", "team/videos", "/", "a,b", "two\nlines", "x ", "bell\a", "\udce9", "x" * 300]
)
def test_collections_that_later_commands_could_not_name(tmp_path: Path, videos: list[Path], name: str) -> None:
    with pytest.raises(TrichordError, match="collection"):
        run(videos[0].parent, tmp_path / "s", collection=name)
    assert not (tmp_path / "s").exists()
    with pytest.raises(TrichordError, match="collection"):
        import_entries(
            [1], Request(tmp_path, tmp_path / "s"), collection=name, video_id=str,
            make=lambda entry: pytest.fail("was read"), texts=(),
        )  # fmt: skip
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["videos", "my videos", "stamps-es", "Köche", "x $\\foo$", "a.b_c+d"])
def test_collections_that_they_can(name: str) -> None:
    check_collection(name)


# ---- python -O


DAMAGED = """
import sys
from pathlib import Path
from trichord.store.spool import read_spooled, spooled
print(__debug__, [read_spooled(path) for path in spooled(Path(sys.argv[1]))])
"""


@pytest.mark.parametrize("option", [[], ["-O"]])
def test_a_damaged_item_is_dropped_with_and_without_assertions(tmp_path: Path, option: list[str]) -> None:
    writer = SpoolWriter(tmp_path, "a" * 64 + ":" + "b" * 16, "videos")
    writer.append("spectrogram", np.zeros((100, 40), np.float16))
    with pytest.raises(ValueError, match="the same width and dtype"):
        writer.append("spectrogram", np.zeros((100, 41), np.float16))
    writer.commit(
        video_id="x", split="train", duration_s=1.0, rates_hz={"spectrogram": 100.0},
        captions=Captions(np.array([0.0, 0.5]), np.array([0.5, 1.0]), ("a", "b")),
    )  # fmt: skip
    (folder,) = spooled(tmp_path)
    assert read_spooled(folder) is not None
    path = folder / "item.json"
    path.write_text(path.read_text().replace('"text": ["a", "b"]', '"text": ["a", "b", "c"]'))
    ended = subprocess.run([sys.executable, *option, "-c", DAMAGED, str(tmp_path)], capture_output=True, text=True)
    assert ended.stdout == f"{not option} [None]\n", ended.stderr


def test_assertions_do_not_check_data() -> None:
    """`python -O` removes assertions: they may only narrow a type, or state what preceding lines ensure."""
    allowed = {"packed_conv.py", "audio_windows.py"}
    judging = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Assert) and path.name not in allowed and not narrows(node.test):
                judging.append(f"{path.name}:{node.lineno}: {ast.unparse(node.test)}")
    assert judging == []


def narrows(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return all(map(narrows, test.values))
    if isinstance(test, ast.Compare):
        return isinstance(test.ops[0], ast.IsNot) and ast.unparse(test.comparators[0]) == "None"
    return isinstance(test, ast.Call) and ast.unparse(test.func) == "isinstance"
