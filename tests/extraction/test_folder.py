"""Sources in a folder, their splits, and the captions of an item in the time of the item."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trichord.captions import clean_captions
from trichord.errors import TrichordError
from trichord.extraction.folder import can_be_tested, captions_of, sources_of_folder, split_of
from trichord.extraction.sources import Source
from trichord.media import write_video

CSV = "start,end,text\n0,2,one\n2,5,two\n5,9,three\n"


def tiny_video(path: Path, *, sound: bool = True) -> Path:
    frames = np.random.RandomState(0).randint(0, 255, (10, 32, 48, 3), np.uint8)
    write_video(path, frames, 10, np.zeros(16000, np.float32) if sound else None)
    return path


def test_sources_of_a_folder(tmp_path: Path) -> None:
    for name in ("b/z.MKV", "a.mp4", "a.webm", ".hidden/x.mp4", ".y.mp4", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    sources = sources_of_folder(tmp_path)
    assert [(s.name, s.video_id) for s in sources] == [("a.mp4", "a"), ("a.webm", "a"), ("b/z.MKV", "b/z")]
    assert all(s == Source(s.video_id, s.name, video=tmp_path / s.name, file_name=s.name) for s in sources)


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone", "gone: does not exist; pass the folder"), ("", r"contains no videos \(\.mp4, \.mkv, .+; choose another"),
     ("f.mp4", r"f\.mp4: is not a folder; pass the folder")],
)  # fmt: skip
def test_folders_that_give_nothing(tmp_path: Path, name: str, message: str) -> None:
    if name.endswith(".mp4"):
        (tmp_path / name).touch()
    with pytest.raises(TrichordError, match=message):
        sources_of_folder(tmp_path / name)


def test_videos_of_every_container_are_read_and_other_files_are_counted(tmp_path: Path) -> None:
    videos = ("a.MTS", "b.m2ts", "c.vob", "d.gif", "e.wmv", "f.mxf", "g.3g2", "h.ogv", "i.rmvb", "j.h264")
    captions = ("a.srt", "b.VTT")
    others = ("k", "l.wav", "m.WAV", "n.txt", *(f"{i}.s{i:02}" for i in range(9)))
    for name in (*videos, *captions, *others, ".x.txt"):
        (tmp_path / name).touch()
    notes: list[str] = []
    assert [source.name for source in sources_of_folder(tmp_path, notes=notes)] == sorted(videos)
    assert notes == [
        f"{tmp_path}: ignored files whose suffixes are neither those of videos nor of captions: "
        "2 .wav, 1 without a suffix, 1 .s00, 1 .s01, 1 .s02, 1 .s03, 1 .s04, 1 .s05, 4 with other suffixes"
    ]
    for name in videos:
        (tmp_path / name).unlink()
    with pytest.raises(
        TrichordError, match=r"contains no videos .+; it contains 2 \.wav, .+, which a table of clips can refer to"
    ):
        sources_of_folder(tmp_path)


def sources_named(*ids: str, split: str = "") -> list[Source]:
    return [Source(i, f"{i}.mp4", video=Path(i), split=split) for i in ids]


def yes(source: Source) -> bool:
    return True


def test_split_folders_and_the_one_test_video() -> None:
    splits = split_of(sources_named("train/a", "val/b", "test/c", "training/d", "test"), 0.0)
    assert splits == {"train/a": "train", "val/b": "val", "test/c": "test", "training/d": "train", "test": "train"}
    lowest = min("abc", key=lambda i: zlib.crc32(i.encode()))
    assert [i for i, s in split_of(sources_named(*"abc"), 1e-9, usable=yes).items() if s == "test"] == [lowest]
    only_b = split_of(sources_named(*"abc"), 1e-9, usable=lambda source: source.video_id == "b")
    assert [i for i, s in only_b.items() if s == "test"] == ["b"]
    assert set(split_of(sources_named(*"abc"), 1e-9).values()) == {"train"}  # no video can be read
    assert set(split_of(sources_named(*"abc"), 1e-9, has_test=True).values()) == {"train"}
    assert set(split_of(sources_named(*"abc"), 0.0).values()) == {"train"}
    assert split_of(sources_named("a"), 1e-9) == {"a": "train"}
    assert split_of(sources_named("train/a", "train/b"), 0.5) == {"train/a": "train", "train/b": "train"}
    with pytest.raises(TrichordError, match=r"test_fraction is 1\.5; it must be a fraction"):
        split_of(sources_named("a"), 1.5)


def test_a_stated_split_wins() -> None:
    stated = [*sources_named("train/a", split="val"), *sources_named("b", split="train"), *sources_named("c", "d")]
    splits = split_of(stated, 1e-9, usable=yes)
    assert (splits["train/a"], splits["b"]) == ("val", "train")
    lowest = min("cd", key=lambda i: zlib.crc32(i.encode()))  # b already has a split
    assert [i for i, s in splits.items() if s == "test"] == [lowest]


@given(st.sets(st.text("abc/", min_size=1, max_size=6), max_size=30), st.floats(0.01, 1))
def test_splits_follow_the_hash_and_never_change_when_videos_are_added(ids: set[str], fraction: float) -> None:
    ordered = sorted(ids)
    few = split_of(sources_named(*ordered[::2]), fraction, has_test=True)
    many = split_of(sources_named(*ordered), fraction, has_test=True)
    assert all(many[video_id] == split for video_id, split in few.items())
    expected = {i: "test" if zlib.crc32(i.encode()) / 2**32 < fraction else "train" for i in ids}
    assert many == expected


@given(st.integers(2, 8), st.floats(0.05, 0.9))
def test_clips_of_one_video_are_on_one_side(num_videos: int, fraction: float) -> None:
    clips = [
        Source(f"v{v}_{c}", "row", video=Path(f"/x/v{v}.mp4"), start_s=c, end_s=c + 1.0)
        for v in range(num_videos)
        for c in range(5)
    ]
    splits = split_of(clips, fraction, usable=yes)
    for v in range(num_videos):
        assert len({splits[f"v{v}_{c}"] for c in range(5)}) == 1
    assert "test" in splits.values()
    assert set(split_of(clips[:5], 1e-9, usable=yes).values()) == {"train"}  # a single video cannot be held out


def test_videos_that_can_be_held_out(tmp_path: Path) -> None:
    video = tiny_video(tmp_path / "v.mp4")
    source = Source("v", "v.mp4", video=video)
    assert not can_be_tested(source)
    (tmp_path / "v.csv").write_text(CSV)
    assert can_be_tested(source)
    assert can_be_tested(Source("i", "i", image=video, text=("a",)))
    assert not can_be_tested(Source("i", "i", image=tmp_path / "gone.png", text=("a",)))
    assert can_be_tested(Source("s", "s", audio=video, text=("a",)))
    assert not can_be_tested(Source("s", "s", audio=tiny_video(tmp_path / "mute.mp4", sound=False), text=("a",)))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    assert not can_be_tested(Source("b", "b", video=tmp_path / "bad.mp4", text=("a",)))


def rows(source: Source, duration_s: float = 10.0) -> list[tuple[float, float, str]]:
    captions = captions_of(source, duration_s)
    return list(zip(captions.start_s.tolist(), captions.end_s.tolist(), captions.text, strict=True))


def test_where_captions_come_from(tmp_path: Path) -> None:
    video, audio = tiny_video(tmp_path / "v.mp4"), tmp_path / "speech.ogg"
    own, beside, spoken = tmp_path / "own.csv", tmp_path / "v.csv", tmp_path / "speech.csv"
    assert rows(Source("v", "v", video=video, audio=audio)) == []
    for path, text in ((spoken, "spoken"), (beside, "beside"), (own, "own")):
        path.write_text(f"start,end,text\n0,1,{text}\n")
        sources = {
            "spoken": Source("v", "v", video=video, audio=audio),
            "beside": Source("v", "v", video=video, audio=audio),
            "own": Source("v", "v", video=video, audio=audio, captions=own),
        }
        assert rows(sources[text]) == [(0, 1, text)]
    assert rows(Source("v", "v", video=video, captions=own, text=("a", "b")), 4.5) == [(0, 4.5, "a"), (0, 4.5, "b")]
    assert rows(Source("v", "v", image=video)) == []


def test_the_subtitle_track_comes_before_the_file_beside_the_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trichord.captions import Captions
    from trichord.extraction import folder

    track = Captions.from_rows([(1, 3, "track")])
    monkeypatch.setattr(folder, "subtitles", lambda path: track)
    (tmp_path / "a.csv").write_text(CSV)
    source = Source("v", "v", video=tmp_path / "v.mp4", audio=tmp_path / "a.ogg", start_s=2.0)
    assert rows(source) == [(0, 1, "track")]
    (tmp_path / "v.csv").write_text("start,end,text\n0,4,beside\n")
    assert rows(source) == [(0, 2, "beside")]


def test_captions_are_cut_to_the_clip(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(CSV)

    def clip(start_s: float, end_s: float | None) -> list[tuple[float, float, str]]:
        return rows(
            Source("v", "v", audio=tmp_path / "a.ogg", captions=tmp_path / "c.csv", start_s=start_s, end_s=end_s)
        )

    assert clip(0, None) == [(0, 2, "one"), (2, 5, "two"), (5, 9, "three")]
    assert clip(2, 5) == [(0, 3, "two")]  # captions that only touch the clip are left out
    assert clip(1, 6) == [(0, 1, "one"), (1, 4, "two"), (4, 5, "three")]
    assert clip(4, None) == [(0, 1, "two"), (1, 5, "three")]
    assert clip(9, 12) == []


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), max_size=12), st.integers(0, 40), st.integers(1, 20))
def test_cutting_against_a_slow_oracle(spans: list[tuple[int, int]], start: int, length: int) -> None:
    from trichord.captions import Captions
    from trichord.extraction.folder import _cut

    captions = Captions.from_rows((s / 4, (s + n) / 4, str(i)) for i, (s, n) in enumerate(spans))
    cut = _cut(captions, start / 4, (start + length) / 4)
    expected = {  # texts by quarter second of the clip
        q: {str(i) for i, (s, n) in enumerate(spans) if s <= start + q < s + n} for q in range(length)
    }
    for q in range(length):
        at = (q + 0.5) / 4
        assert {t for s, e, t in zip(cut.start_s, cut.end_s, cut.text, strict=True) if s <= at < e} == expected[q]
    assert clean_captions(cut, duration_s=length / 4, source="x")[0].text.__len__() == len(cut)  # nothing to repair


def test_unreadable_captions_name_their_file(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("start,end,text\nsoon,2,one\n")
    with pytest.raises(TrichordError, match=r"c\.csv, line 2"):
        captions_of(Source("v", "v", audio=tmp_path / "a.ogg", captions=tmp_path / "c.csv"), 3.0)


def test_equal_file_names_are_distinguished_by_folders() -> None:
    clips = [
        Source(
            f"{k}-{n}",
            f"row {k}",
            video=Path(f"/v/id{k}/video.mp4"),
            start_s=n,
            end_s=n + 1,
            file_name=f"id{k}/video.mp4",
        )
        for k in range(40)
        for n in range(3)
    ]
    splits = split_of(clips, 0.3, has_test=True)
    tested = {video_id.partition("-")[0] for video_id, split in splits.items() if split == "test"}
    assert 4 <= len(tested) <= 20  # neither none nor all
    assert all(len({splits[f"{k}-{n}"] for n in range(3)}) == 1 for k in range(40))


def test_the_search_for_a_test_video_opens_few_files() -> None:
    asked: list[str] = []

    def never(source: Source) -> bool:
        asked.append(source.video_id)
        return False

    split_of([Source(str(k), str(k)) for k in range(1000)], 0.2, usable=never)
    assert len(asked) <= 100
