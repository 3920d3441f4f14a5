"""A folder of videos into a store: odd videos, splits, going on after an interruption, one encoder per store."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.features import extract as module
from trichord.features.extract import extract, extract_video
from trichord.features.folder import VideoFile, captions_of, find_videos, split_of
from trichord.features.spectrogram import log_mel
from trichord.features.visual import load_visual_encoder
from trichord.media import frames, waveform, write_video
from trichord.store import Store

SMALL = "efficientnet-lite0-64"
VTT = "WEBVTT\n\n00:00.000 --> 00:01.500\nCrack the egg\n\n00:01.500 --> 00:09.000\nstir it zzqqxx\n"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def pictures(num_frames: int, seed: int = 0) -> np.ndarray:
    small = np.random.RandomState(seed).randint(0, 255, (num_frames, 8, 12, 3), np.uint8)
    return small.repeat(8, 1).repeat(8, 2)


def sound(seconds: float) -> np.ndarray:
    return (0.2 * np.random.RandomState(0).randn(int(seconds * 16000))).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good videos and every kind of odd one."""
    root = tmp_path_factory.mktemp("videos")
    for i, name in enumerate(("egg/a", "egg/b", "tea/c")):
        write_video(root / f"{name}.mp4", pictures(30, i), 10, sound(3.0))
        (root / f"{name}.vtt").write_text(VTT)
    write_video(root / "mute.mkv", pictures(25), 10)
    (root / "mute.csv").write_text("start,end,text\n0,2,no sound\n2,1,wrong\n")
    write_video(root / "short.mp4", pictures(4), 10, sound(0.4))
    (root / "broken.mp4").write_bytes(b"this is no video")
    write_video(root / "badtext.mp4", pictures(4), 10)
    (root / "badtext.vtt").write_text("WEBVTT\n\n00:01.000 --> soon\nhi\n")
    (root / ".hidden.mp4").write_bytes(b"")
    (root / "notes.txt").write_text("not a video")
    return root


@pytest.fixture(scope="module")
def stored(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, module.ExtractSummary, list[str]]:
    store = tmp_path_factory.mktemp("store") / "s"
    lines: list[str] = []
    summary = extract(folder, store, encoder=SMALL, workers=1, progress=lines.append)
    return store, summary, lines


def test_what_a_folder_gives(folder: Path, stored: tuple[Path, module.ExtractSummary, list[str]]) -> None:
    path, summary, lines = stored
    assert (summary.num_videos, summary.num_added, summary.num_skipped, summary.num_present) == (7, 5, 2, 0)
    store = Store(path)
    ids = [store.video_id(i) for i in range(len(store))]
    assert ids == ["egg/a", "egg/b", "mute", "short", "tea/c"]
    for i in range(5):
        assert store.collection(i) == "videos"
    # no hash is below 0.2; badtext has the lowest but its captions cannot be read, tea/c comes next
    assert [store.split(i) for i in range(5)] == ["train"] * 4 + ["test"]
    assert summary.splits == {"train": 4, "test": 1}
    assert store.streams["visual_2d"].dim == 1280 and store.streams["spectrogram"].dim == 40
    assert [store.num_rows("visual_2d", i) for i in range(5)] == [3, 3, 3, 1, 3]
    assert store.has("spectrogram").tolist() == [True, True, False, True, True]
    assert store.rate_hz("visual_2d", 0) == 1 and store.rate_hz("spectrogram", 0) == 100
    assert [round(store.duration_s(i), 1) for i in range(5)] == pytest.approx([3, 3, 2.5, 0.4, 3], abs=0.11)
    assert [store.caption_text(0, c) for c in range(store.num_captions(0))] == ["Crack the egg", "stir it zzqqxx"]
    starts, ends = store.caption_spans(0)
    assert starts.tolist() == [0, 1.5] and ends[1] == pytest.approx(3.0, abs=0.07)
    assert [store.words[w] for w in store.word_ids(0, 0)] == ["crack", "the", "egg"]
    assert [store.words[w] for w in store.word_ids(0, 1)] == ["stir", "it"]
    assert lines[0].startswith("1/7 badtext.mp4: skipped: ") and lines[2].startswith(
        "3/7 egg/a.mp4: 3.0 s, 2 captions, "
    )


def test_streams_are_those_of_the_parts(folder: Path, stored: tuple[Path, module.ExtractSummary, list[str]]) -> None:
    store, video = Store(stored[0]), folder / "tea" / "c.mp4"
    visual = load_visual_encoder(SMALL).encode(np.stack(list(frames(video))))
    spectrogram = log_mel(waveform(video)).T.astype(np.float16)
    assert np.array_equal(store.rows("visual_2d", 4), visual)
    assert np.array_equal(store.rows("spectrogram", 4), spectrogram)


def test_odd_videos_are_noted_and_unreadable_ones_listed(
    stored: tuple[Path, module.ExtractSummary, list[str]],
) -> None:
    path, summary, _ = stored
    skipped = {entry["source"]: entry["reason"] for entry in Store(path).skipped()}
    assert set(skipped) == {"broken.mp4", "badtext.mp4"}
    assert skipped["broken.mp4"].startswith("cannot be opened as a video (") and "\n" not in skipped["broken.mp4"]
    assert "badtext.vtt, line 3: 'soon' is not a time" in skipped["badtext.mp4"]
    notes = "\n".join(summary.notes)
    assert "mute.mkv: has no sound; stored without a spectrogram" in notes
    assert "mute.mkv: 1 of 2 captions end at or before their start; dropped" in notes
    assert "short.mp4: has no captions; text cannot be learnt or tested with it" in notes
    assert "egg/a.mp4: 1 of 2 captions run past the video's end (3." in notes
    assert "5 videos (12 s) extracted with efficientnet-lite0-64" in str(summary)
    assert f"why they were skipped: {path / 'skipped.jsonl'}" in str(summary)


def test_workers_give_the_same_store(
    folder: Path, tmp_path: Path, stored: tuple[Path, module.ExtractSummary, list[str]]
) -> None:
    summary = extract(folder, tmp_path / "s", encoder=SMALL, workers=2)
    assert summary.num_added == 5 and summary.notes == stored[1].notes
    assert Store(tmp_path / "s").fingerprint == Store(stored[0]).fingerprint


def test_what_is_there_is_left_alone_and_new_videos_are_added(
    folder: Path, tmp_path: Path, stored: tuple[Path, module.ExtractSummary, list[str]]
) -> None:
    store = tmp_path / "s"
    shutil.copytree(stored[0], store)
    before = {p.name: p.read_bytes() for p in (store / "parts").iterdir()}
    videos = tmp_path / "videos"
    shutil.copytree(folder, videos)
    summary = extract(videos, store, encoder=SMALL, workers=1)
    assert (summary.num_added, summary.num_present, summary.num_skipped) == (0, 5, 2)
    shutil.copy(videos / "short.mp4", videos / "new.mp4")
    (videos / "new.srt").write_text("1\n00:00:00,000 --> 00:00:00,300\npour honey\n")
    (videos / "broken.mp4").unlink()
    summary = extract(videos, store, encoder=SMALL, workers=1)
    assert (summary.num_added, summary.num_present, summary.num_skipped) == (1, 5, 1)
    assert len(Store(store)) == 6 and sum(summary.splits.values()) == 6
    assert all((store / "parts" / name).read_bytes() == data for name, data in before.items())


def test_an_interruption_loses_nothing_that_was_added(
    folder: Path, tmp_path: Path, stored: tuple[Path, module.ExtractSummary, list[str]]
) -> None:
    def stop(line: str) -> None:
        if line.startswith("4/7"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(folder, tmp_path / "s", encoder=SMALL, workers=1, progress=stop)
    assert len(Store(tmp_path / "s")) == 2
    summary = extract(folder, tmp_path / "s", encoder=SMALL, workers=1)
    assert (summary.num_added, summary.num_present) == (3, 2)
    whole, parts = Store(stored[0]), Store(tmp_path / "s")
    assert [parts.video_id(i) for i in range(5)] == [whole.video_id(i) for i in range(5)]
    assert all(np.array_equal(parts.rows("visual_2d", i), whole.rows("visual_2d", i)) for i in range(5))


def test_one_encoder_per_store(
    folder: Path, tmp_path: Path, stored: tuple[Path, module.ExtractSummary, list[str]]
) -> None:
    store = tmp_path / "s"
    shutil.copytree(stored[0], store)
    recorded = json.loads((store / "encoders.json").read_text())
    assert recorded["visual_2d"].startswith("efficientnet-lite0-64/v1/") and recorded["spectrogram"] == "log-mel-40/v1"
    with pytest.raises(TrichordError) as caught:
        extract(folder, store, encoder="efficientnet-lite0-96", workers=1)
    assert f"{store}: its visual_2d features were made by efficientnet-lite0-64/v1/" in str(caught.value)
    assert str(caught.value).endswith("use the same encoder and weights, or another store")
    (store / "encoders.json").unlink()
    summary = extract(folder, store, encoder=SMALL, workers=1)
    assert "what made its visual_2d features is not recorded; only their width was compared" in summary.notes[0]
    assert json.loads((store / "encoders.json").read_text()) == recorded
    (store / "encoders.json").write_text("{")
    with pytest.raises(TrichordError, match=r"encoders\.json: cannot be read"):
        extract(folder, store, encoder=SMALL, workers=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "gone", r"gone: no such folder; name the folder that holds the videos"),
        (lambda root: root, r"no videos there \(\.mp4, \.mkv, .+; name another folder"),
        (lambda root: (root / "a.mp4").write_bytes(b"") or root / "a.mp4", r"a\.mp4: is a file; name the folder"),
        (
            lambda root: (root / "a.mp4").write_bytes(b"x") and root,
            r"none of 1 videos could be stored \(a\.mp4: cannot",
        ),
    ],
)
def test_folders_that_give_nothing(tmp_path: Path, make: object, message: str) -> None:
    (tmp_path / "v").mkdir()
    assert callable(make)
    with pytest.raises(TrichordError, match=message):
        extract(make(tmp_path / "v"), tmp_path / "s", encoder=SMALL, workers=1)


@pytest.mark.parametrize(("name", "value"), [("workers", 0), ("test_fraction", 1.5)])
def test_settings_out_of_range(folder: Path, tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(TrichordError, match=f"{name} is {value}; give "):
        extract(folder, tmp_path / "s", encoder=SMALL, **{name: value})
    assert not (tmp_path / "s").exists()


def test_two_files_with_one_name(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mkv", pictures(3), 10)
    write_video(tmp_path / "v" / "a.mp4", pictures(3), 10)
    summary = extract(tmp_path / "v", tmp_path / "s", encoder=SMALL, workers=1)
    assert summary.num_added == summary.num_skipped == 1
    assert "a.mp4: has the same name as a.mkv; rename one" in summary.notes


def test_a_truncated_video_lasts_as_long_as_it_decodes(tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    write_video(tmp_path / "a.mp4", rng.randint(0, 255, (60, 64, 96, 3), np.uint8), 10, sound(6))
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "a.srt").write_text("1\n00:00:00,500 --> 00:00:05,500\nstir\n")
    result = extract_video(VideoFile(tmp_path / "a.mp4", "a.mp4", "a"), load_visual_encoder(SMALL))
    assert result.failure == "" and 2 <= result.duration_s <= 4
    assert result.captions.end_s[0] == result.duration_s
    assert any(note.startswith("a.mp4: the video ends at") for note in result.notes)


def test_captions_beside_the_video_come_first(folder: Path) -> None:
    assert captions_of(folder / "egg" / "a.mp4").text[0] == "Crack the egg"
    assert len(captions_of(folder / "short.mp4")) == 0


def test_links_back_up_are_not_followed_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.MP4").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert [video.video_id for video in find_videos(tmp_path)] == ["a/x"]


def named(*ids: str) -> list[VideoFile]:
    return [VideoFile(Path(i), f"{i}.mp4", i) for i in ids]


def test_split_folders_and_the_one_test_video() -> None:
    splits = split_of(named("train/a", "val/b", "test/c", "training/d", "test"), 0.0)
    assert splits == {"train/a": "train", "val/b": "val", "test/c": "test", "training/d": "train", "test": "train"}
    lowest = min("abc", key=lambda i: zlib.crc32(i.encode()))
    yes = lambda video: True  # noqa: E731
    assert [i for i, s in split_of(named(*"abc"), 1e-9, usable=yes).items() if s == "test"] == [lowest]
    only_b = split_of(named(*"abc"), 1e-9, usable=lambda video: video.video_id == "b")
    assert [i for i, s in only_b.items() if s == "test"] == ["b"]
    assert set(split_of(named(*"abc"), 1e-9).values()) == {"train"}  # none of them can be read
    assert set(split_of(named(*"abc"), 1e-9, has_test=True).values()) == {"train"}
    assert set(split_of(named(*"abc"), 0.0).values()) == {"train"}
    assert split_of(named("a"), 1e-9) == {"a": "train"}
    assert split_of(named("train/a", "train/b"), 0.5) == {"train/a": "train", "train/b": "train"}


@given(st.sets(st.text("abc/", min_size=1, max_size=6), max_size=30), st.floats(0.01, 1))
def test_splits_never_change_when_videos_are_added(ids: set[str], fraction: float) -> None:
    ordered = sorted(ids)
    few = split_of(named(*ordered[::2]), fraction, has_test=True)
    many = split_of(named(*ordered), fraction, has_test=True)
    assert all(many[video_id] == split for video_id, split in few.items())
