"""The clock of a file: frames without presentation times, and clocks that restart, jump, overlap or are wrong."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

import fake_torchcodec
from clock_files import (
    FFMPEG,
    H264,
    join,
    join_fragments,
    remux,
    restamp_flv,
    seconds_played,
    seconds_shown,
    shift_fragments,
    sound_of,
    state_length,
    write_seconds,
)
from odd_media import card_of, write
from paths import FIXTURES
from trichord.media import CLOCK_RULES, FrameSpec, choose_decoder, clock_can_differ, pictures, probe, subtitles
from trichord.media.decode import decoded, opened
from trichord.media.streams import stream_of
from trichord.media.timeline import FrameTimes

B_FRAMES = {"preset": "medium", "crf": "12", "x264-params": "keyint=12:bframes=3:scenecut=0"}


# ---- frames without presentation times


def cards_at_10_hz(path: Path, **options: object) -> list[int]:
    return [card_of(p) for _, p in pictures(path, [FrameSpec(rate_hz=10, short_side=48)], **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.avi", "annexb.mp4", "annexb.avi"])
def test_every_frame_of_files_without_presentation_times_is_seen_in_order(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.mp4", codec_options=B_FRAMES)
    target = tmp_path / name
    raw = ["-bsf:v", "h264_mp4toannexb", "-f", "h264"] if name.startswith("annexb") else []
    target.unlink(missing_ok=True)
    if name != "a.mp4":
        subprocess.run([FFMPEG, "-v", "error", "-i", path, "-map", "0:v", "-c", "copy", *raw, "-y", target], check=True)
    cards, notes = cards_at_10_hz(target), list[str]()
    assert cards == sorted(cards) and set(cards) == set(range(30)) and len(cards) <= 33
    list(pictures(target, [FrameSpec()], notes=notes))
    assert notes == [] and 3.0 <= probe(target).duration_s <= 3.2


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mpg", "mpeg2video"), (".avi", "libx264"), (".ts", "libx264"), (".mp4", "libx264")]
)
def test_frame_times_are_those_of_the_ffmpeg_tool(tmp_path: Path, suffix: str, codec: str) -> None:
    options = B_FRAMES if codec == "libx264" else {"bf": "2", "g": "12"}
    source = write(tmp_path / "source.mp4", codec_options=B_FRAMES)
    path = tmp_path / f"a{suffix}"
    rate = ["-r", "25"] if codec == "mpeg2video" else []
    coded = ["-c:v", codec, *rate] if codec == "mpeg2video" else ["-c", "copy"]
    arguments = [word for pair in options.items() for word in (f"-{pair[0]}", pair[1])] if codec == "mpeg2video" else []
    subprocess.run([FFMPEG, "-v", "error", "-i", source, *coded, *arguments, "-y", path], check=True)
    show = [FFMPEG, "-nostdin", "-copyts", "-i", path, "-vf", "showinfo", "-fps_mode", "passthrough", "-f", "null", "-"]
    log = subprocess.run(show, capture_output=True, text=True, check=True).stderr
    theirs = [float(line.split("pts_time:")[1].split()[0]) for line in log.splitlines() if "pts_time:" in line]
    with opened(path) as container:
        start_s = (container.start_time or 0) / 1e6
        ours = [time_s + start_s for time_s, _ in decoded(path, container, stream_of(container, "video"), None)]
    assert len(ours) == len(theirs) and ours == sorted(set(ours))
    in_order = [
        t for t, before in zip(theirs[1:], theirs, strict=False) if t > before
    ]  # the tool's own steps back apart
    assert len(in_order) >= 0.95 * len(ours) - 1
    agree = [abs(x - y) < 0.0011 for x, y in zip(ours, theirs, strict=True)]  # of AVI the tool moves the first frames
    assert sum(agree) >= len(ours) - 4


def test_the_guess_is_ffmpegs() -> None:
    def times(stamps: list[tuple[int | None, int | None]], in_order: bool = True, first: int | None = 0) -> list[float]:
        guess = FrameTimes(in_order, first)
        return [guess.ticks_of(SimpleNamespace(pts=pts, dts=dts), 4.0, Fraction(1)) for pts, dts in stamps]

    assert times([(0, 8), (4, 12), (8, None)]) == [0, 4, 8]
    assert times([(0, 4), (12, 8), (8, 12), (20, 16), (16, None)]) == [0, 12, 14, 16, 20]  # faulty pts: dts, at last on
    assert times([(None, None)] * 3, first=None) == [0, 4, 8]
    assert times([(None, None), (None, None), (0, 0), (4, 4)]) == [0, 0, 0, 4]
    assert times([(0, 0), (None, None), (8, 8)]) == [0, 4, 8]
    assert times([(0, 0), (8, 8), (4, 4)], in_order=False) == [0, 8, 4]


def test_files_without_plain_times_are_read_by_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_torchcodec.install(monkeypatch).calls
    path = write(tmp_path / "a.mp4", codec_options=B_FRAMES)
    subprocess.run([FFMPEG, "-v", "error", "-i", path, "-c", "copy", tmp_path / "a.avi"], check=True)
    joined = join(tmp_path / "a.ts", [write_seconds(tmp_path / f"{k}.ts", [k, k]) for k in (0, 1)])
    decoder = choose_decoder("torchcodec")
    assert cards_at_10_hz(tmp_path / "a.avi", decoder=decoder) == cards_at_10_hz(tmp_path / "a.avi") and not calls
    assert seconds_shown(joined, decoder=decoder) == [0, 0, 1, 1] and not calls
    assert cards_at_10_hz(path, decoder=decoder) == list(range(30)) and calls


# ---- clocks that restart or leap


@pytest.mark.parametrize("starts_s", [(0, 0, 0), (50, 0, 2000), (0, 90000, 12), (95000, 40, 95002.5), (0, 0.9, 1.8)])
def test_time_continues_across_joined_transport_streams(tmp_path: Path, starts_s: tuple[float, ...]) -> None:
    parts = []
    for n, start_s in enumerate(starts_s):
        whole = write_seconds(tmp_path / f"{n}.ts", range(3 * n, 3 * n + 3))
        parts.append(tmp_path / f"part{n}.ts")
        shift = ["-c", "copy", "-output_ts_offset", str(start_s), "-muxdelay", "0"]
        subprocess.run([FFMPEG, "-v", "error", "-i", whole, *shift, parts[-1]], check=True)
    path, notes = join(tmp_path / "a.ts", parts), list[str]()
    assert seconds_shown(path, notes=notes) == list(range(9)) and seconds_played(path, notes) == list(range(9))
    assert probe(path).duration_s == pytest.approx(9.1, abs=0.25)
    assert len(notes) == 1 and "time continues without a gap" in notes[0]
    assert seconds_shown(path, start_s=4.0) == [4, 5, 6, 7, 8]  # no seek by stamps that are there twice
    assert clock_can_differ(path)


def test_many_short_parts_are_all_seen(tmp_path: Path) -> None:
    parts = [write_seconds(tmp_path / f"{k}.ts", [k]) for k in range(6)]
    path = join(tmp_path / "a.ts", parts)
    assert seconds_shown(path) == seconds_played(path) == list(range(6))


def test_sound_alone_is_joined(tmp_path: Path) -> None:
    for k in range(3):
        whole = write_seconds(tmp_path / f"{k}.ts", [2 * k, 2 * k + 1])
        subprocess.run([FFMPEG, "-v", "error", "-i", whole, "-vn", "-c", "copy", tmp_path / f"s{k}.ts"], check=True)
    assert seconds_played(join(tmp_path / "a.ts", [tmp_path / f"s{k}.ts" for k in range(3)])) == list(range(6))


FLV_CLOCKS = {
    "last": lambda kind, n, ms: 2147483630 if (kind, n) in (("video", 59), ("audio", 94)) else ms,
    "last video": lambda kind, n, ms: 2147483630 if (kind, n) == ("video", 59) else ms,
    "leap": lambda kind, n, ms: ms + 20_000_000 if ms >= 3000 else ms,
    "leap of pictures": lambda kind, n, ms: ms + 20_000_000 if ms >= 3000 and kind == "video" else ms,
    "restart": lambda kind, n, ms: ms - 3000 if ms >= 3000 else ms,
    "restart of pictures": lambda kind, n, ms: ms - 3000 if ms >= 3000 and kind == "video" else ms,
    "one tag": lambda kind, n, ms: 2147483630 if (kind, n) == ("audio", 40) else ms,
    "one tag of pictures": lambda kind, n, ms: 1_000_000_000 if (kind, n) == ("video", 25) else ms,
    "one tag at zero": lambda kind, n, ms: 0 if (kind, n) == ("audio", 40) else ms,
    "leap and return": lambda kind, n, ms: ms + 9_000_000 if 2000 <= ms < 4000 else ms,
    "far from zero": lambda kind, n, ms: ms + 1_700_000_000,
}


@pytest.mark.parametrize("name", FLV_CLOCKS)
def test_the_duration_of_an_flv_is_that_of_its_frames(tmp_path: Path, name: str) -> None:
    path = write_seconds(tmp_path / "a.flv", range(6), flvflags="no_duration_filesize")
    restamp_flv(path, FLV_CLOCKS[name])
    notes: list[str] = []
    assert seconds_shown(path, notes=notes)[:6] == list(range(6)) and seconds_played(path, notes)[:6] == list(range(6))
    assert probe(path).duration_s == pytest.approx(6.1, abs=0.4)
    assert all("time continues without a gap" in note for note in notes) and bool(notes) == (name != "far from zero")


def test_many_holes_are_bounded(tmp_path: Path) -> None:
    path = write_seconds(tmp_path / "a.flv", range(12))
    restamp_flv(path, lambda kind, n, ms: ms + ms // 100 * 3_000_000)  # 50 minutes after every tenth of a second
    path.write_bytes(path.read_bytes() + bytes(1 << 20))  # a file of that size could last for a day
    with opened(path) as container:
        times_s = [time_s for time_s, _ in decoded(path, container, stream_of(container, "audio"), None)]
    assert max(times_s) < 7 * 3600 and 3000 < probe(path).duration_s < 7 * 3600


def test_every_stamp_at_random_ends(tmp_path: Path) -> None:
    path, random = write_seconds(tmp_path / "a.flv", range(6)), np.random.RandomState(0)
    restamp_flv(path, lambda kind, n, ms: int(random.randint(0, 2**31)))
    assert len(seconds_shown(path)) < 3700 and len(seconds_played(path)) < 3700


# ---- lengths that are stated wrongly


@pytest.mark.parametrize("suffix", [".flv", ".mkv"])
@pytest.mark.parametrize("stated_s", [0.5, 3.0, 5000.0])
def test_a_stated_length_that_is_wrong_cuts_nothing(tmp_path: Path, suffix: str, stated_s: float) -> None:
    path = state_length(write_seconds(tmp_path / f"a{suffix}", range(8)), stated_s)
    notes: list[str] = []
    assert seconds_shown(path, notes=notes) == seconds_played(path, notes) == list(range(8))
    assert not any("damaged" in note for note in notes)
    if stated_s < 8:
        assert probe(path).duration_s == pytest.approx(8.05, abs=0.15) and notes == [] and clock_can_differ(path)
        assert seconds_shown(path, start_s=5.0) == [5, 6, 7]


def test_an_impossible_duration_is_ignored(tmp_path: Path) -> None:
    path = state_length(write_seconds(tmp_path / "a.mkv", range(4)), 1e9)
    notes: list[str] = []
    assert seconds_shown(path, notes=notes) == seconds_played(path, notes) == list(range(4)) and notes == []
    assert probe(path).duration_s == pytest.approx(4.0, abs=0.15)


@pytest.mark.parametrize(("num_parts", "stated_s"), [(1, 1), (1, 0), (2, 3), (1, 3)])
def test_the_duration_of_a_flac_is_that_of_its_frames(tmp_path: Path, num_parts: int, stated_s: int) -> None:
    path = tmp_path / "a.flac"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("flac", rate=16000, layout="mono")
        wave = (sound_of(range(3)) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        fifo = av.AudioFifo()
        fifo.write(frame)
        blocks = [block for block in iter(lambda: fifo.read(1600), None) if block is not None]
        for packet in [packet for block in [*blocks, None] for packet in stream.encode(block)]:
            out.mux(packet)
    data = bytearray(path.read_bytes())
    data[21:26] = bytes([data[21] & 0xF0]) + (stated_s * 16000).to_bytes(4, "big")  # samples that the head states
    path.write_bytes(data * num_parts)
    assert seconds_played(path)[:5] == ([*range(3)] * num_parts)[:5]  # FFmpeg's reader loses a little sound at a joint
    assert probe(path).duration_s == pytest.approx(3.0 * num_parts, abs=0.4)


FRAGMENTS = {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}


@pytest.mark.parametrize("offset_s", [30.0, 5000.0, 1e6])
@pytest.mark.parametrize("name", ["a.mkv", "fragments.mp4"])
def test_the_length_counts_from_the_start_of_a_clock_that_does_not_begin_at_zero(
    tmp_path: Path, name: str, offset_s: float
) -> None:
    path = write_seconds(tmp_path / name, range(6), **(FRAGMENTS if name == "fragments.mp4" else {}))
    if name == "a.mkv":
        path = remux(path, tmp_path / "late.mkv", lambda kind, time_s: time_s + offset_s)
    else:
        shift_fragments(path, offset_s)
    notes: list[str] = []
    assert seconds_shown(path, notes=notes) == list(range(6)) and seconds_played(path, notes)[:6] == list(range(6))
    assert probe(path).duration_s == pytest.approx(6.0, abs=0.3) and notes == []
    assert seconds_shown(path, start_s=3.0) == [3, 4, 5] and clock_can_differ(path)


def test_time_continues_across_joined_fragments_of_mp4(tmp_path: Path) -> None:
    parts = [write_seconds(tmp_path / f"{i}.mp4", range(3 * i, 3 * i + 3), **FRAGMENTS) for i in range(3)]
    path, notes = join_fragments(tmp_path / "joined.mp4", parts), list[str]()
    assert seconds_shown(path, notes=notes) == list(range(9)) and seconds_played(path)[:9] == list(range(9))
    assert probe(path).duration_s == pytest.approx(9.0, abs=0.3)
    assert len(notes) == 1 and "time continues without a gap" in notes[0]


def test_a_hole_of_hours_that_the_header_states_is_kept(tmp_path: Path) -> None:
    source = write_seconds(tmp_path / "a.mkv", range(6), sound_codec="pcm_s16le")
    path = remux(source, tmp_path / "b.mkv", lambda kind, s: s if s < 3 else s + 4000)
    assert path.stat().st_size > 10 * 500
    notes = list[str]()
    shown, sounds = seconds_shown(path, notes=notes), seconds_played(path)
    assert shown[:3] == [0, 1, 2] and shown[4003:] == [3, 4, 5] and set(shown[3:4003]) == {2}
    assert sounds[:3] == [0, 1, 2] and sounds[4003:4006] == [3, 4, 5] and set(sounds[4:4002]) == {-1}
    assert notes == []


# ---- sound that overlaps


@pytest.mark.parametrize("factor", [0.8, 0.97])
def test_sound_whose_stamps_are_too_close_stays_in_time(tmp_path: Path, factor: float) -> None:
    """20 s of sound have stamps for 16 s: the sound in each second is that of its stamps."""
    source = write_seconds(tmp_path / "a.mkv", range(20), sound_codec="pcm_s16le")
    path = remux(source, tmp_path / "b.mkv", lambda kind, s: s * factor if kind == "audio" else s)
    expected = [int((k + 0.5) / factor) for k in range(int(20 * factor))]
    assert seconds_played(path)[: len(expected)] == expected


def test_sound_alone_that_steps_back_overlaps(tmp_path: Path) -> None:
    """Its stamps are 0.8 s early from 3 s on, and the pictures continue: the sound is at its stamps."""
    path = write_seconds(tmp_path / "a.flv", range(8))
    restamp_flv(path, lambda kind, n, ms: ms - 800 if kind == "audio" and ms >= 3000 else ms)
    assert seconds_shown(path)[:8] == list(range(8))
    sounds = seconds_played(path)
    assert sounds[:3] == [0, 1, 2] and sounds[3:7] in ([4, 5, 6, 7], [3, 5, 6, 7])


def test_captions_inside_joined_files_are_on_the_same_clock(tmp_path: Path) -> None:
    parts = []
    for k in range(2):
        (tmp_path / "a.srt").write_text(f"1\n00:00:00,500 --> 00:00:01,500\ncaption {k}\n")
        whole = write_seconds(tmp_path / f"{k}.mkv", range(3 * k, 3 * k + 3))
        parts.append(tmp_path / f"part{k}.mkv")
        subprocess.run(
            [FFMPEG, "-v", "error", "-i", whole, "-i", tmp_path / "a.srt", "-c", "copy", parts[-1]], check=True
        )
    path = join(tmp_path / "a.mkv", parts)
    captions = subtitles(path)
    assert seconds_shown(path) == seconds_played(path) == list(range(6))
    assert captions is not None and captions.text == ("caption 0", "caption 1")
    assert captions.start_s == pytest.approx([0.5, 3.5], abs=0.15)


def test_the_rules_have_a_version() -> None:
    assert CLOCK_RULES == 2


@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "flipping_a_pancake.mkv", "nasa_13013.mp4"])
def test_usual_files_cannot_differ(name: str) -> None:
    assert not clock_can_differ(FIXTURES / "videos" / name)


def test_joined_b_frames_are_in_order(tmp_path: Path) -> None:
    options = {**H264, "x264-params": "keyint=10:bframes=3:scenecut=0"}
    parts = [write_seconds(tmp_path / f"{k}.ts", [2 * k, 2 * k + 1], codec_options=options) for k in range(3)]
    path = join(tmp_path / "a.ts", parts)
    assert seconds_shown(path) == seconds_played(path) == list(range(6))
