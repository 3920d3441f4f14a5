"""Irregular media: the result of each, clips compared with decoding from the start, `published` compared with ffmpeg."""

from __future__ import annotations

import gc
import subprocess
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odd_media import OddFile, card_of, repeat_packets
from paths import FIXTURES
from trichord.errors import TrichordError
from trichord.media import FrameSpec, frames, pictures, probe, sound, subtitles, video, waveform

REAL = FIXTURES / "videos"
WITH_PICTURES = [
    *("variable_rate", "no_first_key", "no_duration", "truncated", "short", "late_video", "negative_times"),
    *("edit_list", "no_audio", "several_streams", "picture_and_cover", "resolution_change", "b_frames", "open_gop"),
    *("intra_refresh", "transport", "ten_bit", "hevc_open_gop", "vp9", "mpeg4", "full_range", "odd_size"),
    *("clockwise", "upside_down", "anticlockwise", "mirrored"),
]
WITHOUT = ["audio_only", "cover_art", "subtitles_only", "sound_change"]
REALS = ["bigbuckbunny.mp4", "flipping_a_pancake.mkv", "nasa_13013.mp4"]


def path_of(odd: dict[str, OddFile], name: str) -> Path:
    return odd[name].path if name in odd else REAL / name


def all_of(path: Path, specs: list[FrameSpec], start_s: float = 0.0, end_s: float | None = None) -> object:
    try:
        return list(pictures(path, specs, start_s=start_s, end_s=end_s, num_threads=1))
    except TrichordError as error:
        return str(error)


def are_same(some: object, others: object) -> bool:
    if isinstance(some, str) or isinstance(others, str):
        return some == others
    assert isinstance(some, list) and isinstance(others, list)
    pairs = list(zip(some, others, strict=False))
    return len(some) == len(others) and all(i == j and np.array_equal(x, y) for (i, x), (j, y) in pairs)


def test_every_odd_file_is_listed(odd: dict[str, OddFile]) -> None:
    assert sorted(odd) == sorted(WITH_PICTURES + WITHOUT)


@pytest.mark.parametrize("name", WITH_PICTURES + WITHOUT)
def test_irregular_media_give_their_expected_results(odd: dict[str, OddFile], name: str) -> None:
    file, notes = odd[name], list[str]()
    info = probe(file.path)
    assert (info.has_video, info.has_audio) == (bool(file.frames), file.sound_s > 0)
    assert info.has_subtitles == file.has_subtitles == (subtitles(file.path) is not None)
    if file.frames:
        width, height = file.size
        shown = list(pictures(file.path, [FrameSpec(short_side=min(file.size))], notes=notes))
        assert all(picture.dtype == np.uint8 and picture.shape == (height, width, 3) for _, picture in shown)
        assert [card_of(picture) for _, picture in shown] == list(file.frames)
    else:
        with pytest.raises(TrichordError, match=rf"{file.path.name}: has no video stream; remove it from the folder"):
            next(frames(file.path))
    samples = waveform(file.path, notes=notes)
    assert samples.size / 16000 == pytest.approx(file.sound_s, abs=0.15)  # encoders add some
    assert all(file.note in note for note in notes) and bool(notes) == bool(file.note)


def test_sound_that_changes_its_format_stays_in_time(odd: dict[str, OddFile]) -> None:
    samples = waveform(odd["sound_change"].path)
    for part in (samples[4000:20000], samples[28000:44000]):  # before and after the change: a tone of 440 Hz and more
        strongest = np.abs(np.fft.rfft(part * np.hanning(part.size))).argmax() * 16000 / part.size
        assert 440 < strongest < 600 and 0.2 < np.abs(part).max() < 0.6


def check_clip(odd: dict[str, OddFile], monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    """Compare a clip of any file with the clip that is decoded from the start of the file."""
    path = path_of(odd, data.draw(st.sampled_from(WITH_PICTURES + REALS)))
    length_s = probe(path).duration_s
    start_s = data.draw(st.one_of(st.floats(0, 1.05), st.integers(0, 30).map(lambda i: i / 30))) * length_s
    clip_s = data.draw(st.one_of(st.none(), st.floats(0.02, 0.5)))
    end_s = None if clip_s is None else start_s + clip_s * length_s
    sampling = data.draw(st.sampled_from(["shown", "published"]))
    specs = [
        FrameSpec(rate_hz=data.draw(st.sampled_from([0.7, 1, 3, 10, 24])), short_side=32, sampling=sampling),
        FrameSpec(rate_hz=2, short_side=24, crop=24),
    ]
    sought = all_of(path, specs, start_s, end_s)
    with monkeypatch.context() as patch:
        patch.setattr(video, "_BACK_S", ())
        assert are_same(sought, all_of(path, specs, start_s, end_s))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_clip_equals_decoding_from_the_start(
    odd: dict[str, OddFile], monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    check_clip(odd, monkeypatch, data)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_clip_equals_decoding_from_the_start(
    odd: dict[str, OddFile], monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    check_clip(odd, monkeypatch, data)


@pytest.mark.parametrize("name", ["b_frames", "open_gop", "hevc_open_gop", "vp9", "transport", "variable_rate"])
def test_a_clip_does_not_begin_at_the_start(
    odd: dict[str, OddFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = odd[name].path
    long = repeat_packets(path, tmp_path / f"long{path.suffix}", 20)
    decoded, num_decoded = video.decoded, 0

    def counting(*args: object, **options: object) -> object:
        nonlocal num_decoded
        for pair in decoded(*args, **options):  # type: ignore[arg-type]
            num_decoded += 1
            yield pair

    monkeypatch.setattr(video, "decoded", counting)
    length_s = probe(long).duration_s
    whole = [p for _, p in pictures(long, [FrameSpec(rate_hz=10, short_side=32)])]
    assert len(whole) == pytest.approx(10 * length_s, abs=3) and num_decoded == 600
    num_decoded = 0
    clip = list(pictures(long, [FrameSpec(rate_hz=10, short_side=32)], start_s=40.0, end_s=42.0))
    assert num_decoded < 130 and len(clip) == 20
    assert all(np.array_equal(picture, whole[400 + n]) for n, (_, picture) in enumerate(clip))


def ffmpeg_pictures(path: Path, spec: FrameSpec, size: tuple[int, int]) -> np.ndarray:
    with av.open(str(path)) as container:
        index = container.streams.best("video").index
    steps = [f"fps={spec.rate_hz}", f"scale={size[0]}:{size[1]}"]
    if spec.crop:
        left, top = (size[0] - spec.crop) // 2, (size[1] - spec.crop) // 2
        steps.append(f"crop={spec.crop}:{spec.crop}:{left}:{top}")
        size = spec.crop, spec.crop
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-i", str(path), "-map", f"0:{index}"]
    command += ["-vf", ",".join(steps), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, size[1], size[0], 3)


# transport: where it reads pictures alone, the tool counts from their own start; ours is the file's, sound included.
# resolution_change: the tool starts its filters anew and loses a frame. negative_times: it guesses other times.
COMPARED = [name for name in WITH_PICTURES if name not in ("transport", "resolution_change", "negative_times")]


@pytest.mark.parametrize("rate_hz", [1, 24])
@pytest.mark.parametrize("name", [*COMPARED, *REALS[1:], pytest.param(REALS[0], marks=pytest.mark.slow)])
def test_published_pictures_are_those_of_the_ffmpeg_tool(odd: dict[str, OddFile], name: str, rate_hz: int) -> None:
    path = path_of(odd, name)
    side, crop = (40, None) if rate_hz == 1 else (32, 32)
    spec = FrameSpec(rate_hz=rate_hz, short_side=side, crop=crop, sampling="published")
    info = probe(path)
    size = spec.size_of(*(odd[name].size if name in odd else (info.width, info.height)))
    expected = ffmpeg_pictures(path, spec, size)
    ours = np.stack([picture for _, picture in pictures(path, [spec])])
    if len(expected) == 0:  # 0.4 s at one per second: the filter gives none
        assert name == "short" and len(ours) == 1 and card_of(ours[0]) == 3
    else:
        assert ours.shape == expected.shape
        assert np.abs(ours.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("name", ["b_frames", "variable_rate", "clockwise", "late_video"])
def test_one_pass_for_several_specs_is_several_passes(odd: dict[str, OddFile], name: str) -> None:
    specs = [
        FrameSpec(rate_hz=1, short_side=48),
        FrameSpec(rate_hz=24, short_side=32, crop=32, sampling="published"),
        FrameSpec(rate_hz=7, width=30, height=20),
    ]
    path, rates = odd[name].path, [1, 24, 7]
    together = list(pictures(path, specs))
    for index, spec in enumerate(specs):
        alone = [picture for _, picture in pictures(path, [spec])]
        pictures_together = [picture for i, picture in together if i == index]
        assert len(pictures_together) == len(alone) and all(
            np.array_equal(x, y) for x, y in zip(pictures_together, alone, strict=True)
        )
    counts, times_s = [0, 0, 0], list[float]()
    for index, _ in together:
        times_s.append(counts[index] / rates[index])
        counts[index] += 1
    assert max(np.maximum.accumulate(times_s) - times_s) < 0.5 / 24 + 1 / 10  # in time order, as far as frames allow


@pytest.mark.parametrize("name", ["b_frames", "clockwise", "resolution_change"])
def test_frames_go_as_soon_as_they_are_seen(odd: dict[str, OddFile], name: str) -> None:
    """Frames must not be in reference cycles: ten-megabyte frames would accumulate until the garbage collector runs."""

    def num_frames() -> int:
        return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())

    gc.collect()
    before = num_frames()
    gc.disable()
    try:
        most = max(
            num_frames() for _ in pictures(odd[name].path, [FrameSpec(rate_hz=10, short_side=32)], num_threads=1)
        )
    finally:
        gc.enable()
    assert most - before <= 10  # of 30


@pytest.mark.parametrize("num_threads", [1, 2, None])
def test_threads_change_no_picture(odd: dict[str, OddFile], num_threads: int | None) -> None:
    specs = [FrameSpec(rate_hz=10, short_side=48)]
    for name in ("b_frames", "hevc_open_gop", "vp9"):
        path = odd[name].path
        assert are_same(all_of(path, specs), list(pictures(path, specs, num_threads=num_threads)))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_clip_of_sound_is_a_slice_of_all_of_it(odd: dict[str, OddFile], data: st.DataObject) -> None:
    path = odd[data.draw(st.sampled_from(["b_frames", "late_video", "sound_change", "audio_only", "no_audio"]))].path
    rate = data.draw(st.sampled_from([8000, 16000, 22050]))
    start_s = data.draw(st.floats(0, 4))
    end_s = data.draw(st.one_of(st.none(), st.floats(0, 5)))
    whole = waveform(path, sample_rate_hz=rate)
    clip = list(sound(path, sample_rate_hz=rate, start_s=start_s, end_s=end_s))
    expected = whole[round(start_s * rate) : None if end_s is None else round(end_s * rate)]
    assert all(block.dtype == np.float32 and 0 < block.size <= 10 * rate for block in clip)
    assert np.array_equal(np.concatenate([*clip, np.zeros(0, np.float32)]), expected)


def test_clips_that_cannot_be(odd: dict[str, OddFile]) -> None:
    path = odd["no_audio"].path
    with pytest.raises(
        TrichordError, match=r"no_audio.mp4: a clip from 2 s to 2 s is empty; correct its start and end"
    ):
        next(pictures(path, [FrameSpec()], start_s=2.0, end_s=2.0))
    with pytest.raises(
        TrichordError, match=r"the clip begins at 3.5 s, but the pictures end at 3.00 s; correct the start"
    ):
        next(pictures(path, [FrameSpec()], start_s=3.5))
    with pytest.raises(TrichordError, match=r"a crop of 64 does not fit into 48x32; increase short_side"):
        next(pictures(path, [FrameSpec(short_side=32, crop=64)]))
    with pytest.raises(
        TrichordError, match="96x64 becomes 15000x10000 at short side 10000, which is too large; crop it or remove it"
    ):
        next(pictures(path, [FrameSpec(short_side=10000)]))
    assert [card_of(p) for _, p in pictures(path, [FrameSpec()], start_s=0.5, end_s=99)] == [5, 15, 25]
    assert list(sound(odd["audio_only"].path, start_s=9.0)) == []


@pytest.mark.parametrize("end_s", [None, 2.5])
def test_damage_in_a_clip_is_noted(odd: dict[str, OddFile], tmp_path: Path, end_s: float | None) -> None:
    data = bytearray(odd["b_frames"].path.read_bytes())
    with av.open(str(odd["b_frames"].path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pts * p.time_base > 1.9]
    for pos, size in packets[1:3]:
        data[pos : pos + size] = b"\xff" * size
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    notes: list[str] = []
    shown = list(pictures(path, [FrameSpec()], start_s=1.1, end_s=end_s, notes=notes, num_threads=1))
    assert len(shown) == 2 and notes == [f"{path}: 2 damaged video packets skipped"]


def test_a_frame_that_claims_to_last_for_hours_ends_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flipped bit in a header gave a frame of 6,553 s, which took as many pictures and as long."""
    from trichord.media import FrameSpec, pictures, video, write_video

    write_video(tmp_path / "v.mkv", np.zeros((30, 64, 96, 3), np.uint8), 10)
    usual = len(list(pictures(tmp_path / "v.mkv", [FrameSpec(rate_hz=2)])))
    monkeypatch.setattr(video, "duration_s_of", lambda *_: 6553.6)
    assert usual == 6 and usual <= len(list(pictures(tmp_path / "v.mkv", [FrameSpec(rate_hz=2)]))) <= 8
