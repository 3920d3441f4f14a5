"""Extraction of a folder of videos: irregular videos, resuming, no duplicate work, one encoder per store."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from extract_helpers import (
    SMALL,
    VTT,
    ids_of,
    ledger,
    load_once,
    many,
    pictures,
    quick_processes,
    run,
    sound,
)
from trichord.errors import TrichordError
from trichord.extraction import pool
from trichord.extraction.choice import EncoderChoice
from trichord.extraction.extract import ExtractSummary, extract, extract_sources
from trichord.extraction.sources import Source
from trichord.features.spectrogram import log_mel
from trichord.features.visual import load_visual_encoder
from trichord.logs import passing_messages
from trichord.media import pictures as decoded
from trichord.media import waveform, write_video
from trichord.store import Store
from trichord.store.inspect import verify
from trichord.store.ledger import read_ledger
from trichord.store.spool import FOLDER, spooled

pytestmark = pytest.mark.usefixtures("encoders_once")


@pytest.fixture(scope="module")
def stored(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExtractSummary, list[str]]:
    store = tmp_path_factory.mktemp("store") / "s"
    lines: list[str] = []
    with passing_messages(lines.append):
        summary = run(folder, store)
    return store, summary, lines


def test_a_folder_becomes_a_store(folder: Path, stored: tuple[Path, ExtractSummary, list[str]]) -> None:
    path, summary, lines = stored
    assert (summary.num_videos, summary.num_added, summary.num_skipped, summary.num_present) == (7, 5, 2, 0)
    store = Store(path)
    assert ids_of(path) == ["egg/a", "egg/b", "mute", "short", "tea/c"]
    assert {store.collection(i) for i in range(5)} == {"videos"}
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
    assert lines[0].startswith("1/7 badtext.mp4: skipped: ")
    assert lines[2].startswith("3/7 egg/a.mp4: 3.0 s, 2 captions, train | ")
    assert re.search(r" \| [\d.e-]+ videos/s, \d+ h of video per h, \d:\d\d:\d\d left$", lines[2])
    assert not spooled(path) and verify(path) == []


def test_streams_are_those_of_the_parts(folder: Path, stored: tuple[Path, ExtractSummary, list[str]]) -> None:
    store, video = Store(stored[0]), folder / "tea" / "c.mp4"
    encoder = load_visual_encoder(SMALL)
    visual = encoder.encode(np.stack([picture for _, picture in decoded(video, [encoder.frames])]))
    assert np.array_equal(store.rows("visual_2d", 4), visual)
    spectrogram = log_mel(waveform(video)).T.astype(np.float16)
    difference = np.abs(store.rows("spectrogram", 4).astype(np.float32) - spectrogram.astype(np.float32))
    assert difference.max() <= 0.07  # one step of float16 at -80 dB


def test_odd_videos_are_noted_and_unreadable_ones_listed_with_a_class(
    stored: tuple[Path, ExtractSummary, list[str]],
) -> None:
    path, summary, _ = stored
    skipped = {entry["source"]: entry["reason"] for entry in Store(path).skipped()}
    assert ledger(path) == {"broken.mp4": "unreadable", "badtext.mp4": "captions"}
    assert summary.failures == {"unreadable": 1, "captions": 1}
    assert skipped["broken.mp4"].startswith("cannot be opened as a video (") and "\n" not in skipped["broken.mp4"]
    assert "badtext.vtt, line 3: 'soon' is not a time" in skipped["badtext.mp4"]
    notes = "\n".join(summary.notes)
    assert "mute.mkv: has no sound; stored without spectrogram" in notes
    assert "mute.mkv: 1 of 2 captions end at or before their start; dropped" in notes
    assert "short.mp4: has no captions, so text cannot be trained or evaluated with it" in notes
    assert "egg/a.mp4: 1 of 2 captions run past the video's end (3." in notes
    assert "5 videos (12 s) were extracted in " in str(summary) and "efficientnet-lite0-64, log-mel" in str(summary)
    assert f"reasons for skipping (1 captions, 1 unreadable): {path / 'skipped.jsonl'}" in str(summary)


def test_workers_give_the_same_store(
    folder: Path, tmp_path: Path, stored: tuple[Path, ExtractSummary, list[str]]
) -> None:
    with quick_processes():
        summary = run(folder, tmp_path / "s", workers=2)
    assert summary.num_added == 5 and sorted(summary.notes) == sorted(stored[1].notes)
    assert Store(tmp_path / "s").fingerprint == Store(stored[0]).fingerprint


def test_stored_videos_are_recognised_by_content(
    folder: Path, tmp_path: Path, stored: tuple[Path, ExtractSummary, list[str]]
) -> None:
    store = tmp_path / "s"
    shutil.copytree(stored[0], store)
    before = {p.name: p.read_bytes() for p in (store / "parts").iterdir()}
    videos = tmp_path / "videos"
    shutil.copytree(folder, videos)
    summary = run(videos, store)
    assert (summary.num_added, summary.num_present, summary.num_skipped) == (0, 5, 2)
    # another name, the same content: known; another file with the same captions: nothing to be done
    (videos / "egg" / "a.mp4").rename(videos / "renamed.mp4")
    (videos / "egg" / "a.vtt").rename(videos / "renamed.vtt")
    (videos / "tea" / "c.vtt").write_text(VTT + "\n")
    shutil.copy(videos / "short.mp4", videos / "new.mp4")
    (videos / "new.srt").write_text("1\n00:00:00,000 --> 00:00:00,300\npour honey\n")
    (videos / "broken.mp4").unlink()
    summary = run(videos, store)
    assert (summary.num_added, summary.num_present, summary.num_skipped) == (1, 4, 2)
    assert len(Store(store)) == 6 and sum(summary.splits.values()) == 6 and not summary.num_renewed
    assert {k: v for k, v in ledger(store).items() if v not in ("unreadable", "captions")} == {
        "renamed.mp4": "duplicate",
    }
    assert any("renamed.mp4: has the same content as egg/a, which is in the store" in n for n in summary.notes)
    assert all((store / "parts" / name).read_bytes() == data for name, data in before.items())
    num_lines = len((store / "skipped.jsonl").read_text().splitlines())
    run(videos, store)
    assert len((store / "skipped.jsonl").read_text().splitlines()) == num_lines  # nothing is noted twice


def test_a_failure_is_retried_on_request_or_after_a_change(folder: Path, tmp_path: Path) -> None:
    videos = tmp_path / "v"
    videos.mkdir()
    shutil.copy(folder / "short.mp4", videos / "good.mp4")
    (videos / "bad.mp4").write_bytes(b"no video")
    store = tmp_path / "s"
    assert run(videos, store).failures == {"unreadable": 1}
    lines: list[str] = []
    with passing_messages(lines.append):
        summary = run(videos, store)
    assert lines == [] and (summary.num_present, summary.num_skipped, summary.failures) == (1, 1, {"unreadable": 1})
    with passing_messages(lines.append):
        run(videos, store, retry="hung,crashed")
    assert lines == []
    with passing_messages(lines.append):
        run(videos, store, retry="unreadable")
    assert len(lines) == 1 and lines[0].startswith("1/2 bad.mp4: skipped: cannot be opened")
    assert ledger(store) == {"bad.mp4": "unreadable"}
    shutil.copy(folder / "mute.mkv", videos / "bad.mp4")
    assert run(videos, store).num_added == 1 and ledger(store) == {}
    with pytest.raises(TrichordError, match="--retry: unknown name 'broken'; expected one of: all, unreadable, "):
        run(videos, store, retry="broken")


def test_repaired_videos_are_removed_from_the_ledger(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trichord.extraction.work as work

    videos, store = tmp_path / "v", tmp_path / "s"
    videos.mkdir()
    shutil.copy(folder / "short.mp4", videos / "a.mp4")
    shutil.copy(folder / "mute.mkv", videos / "b.mkv")
    original = work.pictures

    def failing(path: Path, *args: object, **options: object) -> object:
        if path.name == "a.mp4":
            raise MemoryError
        return original(path, *args, **options)

    monkeypatch.setattr(work, "pictures", failing)
    run(videos, store)
    assert ledger(store) == {"a.mp4": "out-of-memory"}
    monkeypatch.setattr(work, "pictures", original)
    assert run(videos, store).num_added == 1  # without --retry: memory says nothing of the file
    assert ledger(store) == {} and verify(store) == []


def test_an_interruption_keeps_finished_videos(
    folder: Path, tmp_path: Path, stored: tuple[Path, ExtractSummary, list[str]]
) -> None:
    def stop(line: str) -> None:
        if line.startswith("4/7"):
            raise KeyboardInterrupt

    with passing_messages(stop):
        summary = run(folder, tmp_path / "s")
    assert summary.interrupted and "interrupted; finished items are stored" in str(summary)
    assert len(Store(tmp_path / "s")) == 2
    summary = run(folder, tmp_path / "s")
    assert (summary.num_added, summary.num_present) == (3, 2)
    whole, parts = Store(stored[0]), Store(tmp_path / "s")
    assert ids_of(tmp_path / "s") == ids_of(stored[0])
    assert all(np.array_equal(parts.rows("visual_2d", i), whole.rows("visual_2d", i)) for i in range(5))


def test_finished_videos_of_a_killed_run_are_committed(
    folder: Path, tmp_path: Path, stored: tuple[Path, ExtractSummary, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import trichord.extraction.driver as module

    def killed(*args: object, **options: object) -> None:
        raise OSError("as if the process ended here")

    with monkeypatch.context() as patch:
        patch.setattr(module, "StoreWriter", killed)
        with pytest.raises(OSError, match="as if"):
            run(folder, tmp_path / "s")
    assert len(spooled(tmp_path / "s")) == 5 and not list((tmp_path / "s").glob("parts/*.parquet"))
    half = tmp_path / "s" / FOLDER / f".{spooled(tmp_path / 's')[0].name[:-8]}00000000.999999999-0123abcd.tmp"
    half.mkdir()
    (tmp_path / "s" / FOLDER / "my_backup").mkdir()
    (tmp_path / "s" / FOLDER / "my_backup" / "thesis.tex").write_text("mine")
    with pytest.raises(TrichordError, match="its visual_2d features were computed by efficientnet-lite0-64"):
        run(folder, tmp_path / "s", visual_2d="efficientnet-lite0-96")  # the spool counts as well
    (spooled(tmp_path / "s")[0] / "item.json").write_text("{")  # torn by a power cut
    lines: list[str] = []
    with passing_messages(lines.append):
        summary = run(folder, tmp_path / "s")
    assert "4 videos finished by an earlier run are now in the store" in summary.notes
    assert sorted(ids_of(tmp_path / "s")) == sorted(ids_of(stored[0]))
    assert (tmp_path / "s" / FOLDER / "my_backup" / "thesis.tex").read_text() == "mine"
    assert not half.exists() and not spooled(tmp_path / "s") and verify(tmp_path / "s") == []
    assert sum(" captions, " in line for line in lines) == 1  # the torn one alone was extracted again


def test_a_run_killed_before_its_cleanup_records_no_failure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trichord.extraction.driver as module

    def killed(path: Path) -> None:
        raise OSError("as if the process ended here")

    with monkeypatch.context() as patch:
        patch.setattr(module.spool, "remove_spooled", killed)
        with pytest.raises(OSError, match="as if"):
            run(folder, tmp_path / "s", collection="a")
    assert len(spooled(tmp_path / "s")) == 5 == len(Store(tmp_path / "s"))
    summary = run(folder, tmp_path / "s", collection="b")  # the same content once more, for another collection
    assert summary.num_added == 5 and not spooled(tmp_path / "s")
    assert set(ledger(tmp_path / "s").values()) == {"unreadable", "captions"} and verify(tmp_path / "s") == []
    assert Store(tmp_path / "s").collections() == {(c, k): n for c in "ab" for k, n in (("test", 1), ("train", 4))}


def test_unprintable_names(folder: Path, tmp_path: Path) -> None:
    import os

    (tmp_path / "v").mkdir()
    shutil.copy(folder / "short.mp4", tmp_path / "v" / "good.mp4")
    for name in (b"caf\xe9.mp4", b"two\nlines.mp4"):
        Path(os.fsdecode(os.fsencode(tmp_path / "v") + b"/" + name)).write_bytes(name)
    summary = run(tmp_path / "v", tmp_path / "s")
    assert ids_of(tmp_path / "s") == ["good"] and summary.failures == {"name": 2}
    assert extract(tmp_path / "v", tmp_path / "t", visual_2d=SMALL, workers=0, dry_run=True)


def test_words_of_another_table_are_refused_before_the_work(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "s", shard="1/3")
    (tmp_path / "w.vec").write_text("1 2\negg 0.5 0.25\n")
    lines: list[str] = []
    refused = pytest.raises(TrichordError, match="contains words from GloVe 6B 50-d .*, not from word2vec 2-d")
    with refused, passing_messages(lines.append):
        run(folder, tmp_path / "s", words=tmp_path / "w.vec")
    assert lines == []


def test_an_encoder_that_fails_ends_the_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = many(tmp_path / "v", 7)
    encoders = load_once(EncoderChoice(visual_2d=SMALL))
    monkeypatch.setattr(type(encoders.visual[0]), "encode", lambda *_: [][0])
    with pytest.raises(TrichordError, match=r"v04.mp4: .*IndexError.*; this happened 5 times in a row"):
        run(videos, tmp_path / "s")
    assert list(ledger(tmp_path / "s").values()) == ["encoder"] * 5
    monkeypatch.undo()
    assert run(videos, tmp_path / "s").num_added == 7 and ledger(tmp_path / "s") == {}


def test_a_file_that_crashes_the_probe_is_just_not_tested(tmp_path: Path) -> None:
    probes = pool.Probes(needs_captions=True, in_process=False)
    with quick_processes(), closing(probes):
        assert not probes(Source("a", "a", video=tmp_path / "gone.mp4"))
        assert not probes(None)  # type: ignore[arg-type]  # whatever it raises there


def test_one_encoder_per_store(folder: Path, tmp_path: Path, stored: tuple[Path, ExtractSummary, list[str]]) -> None:
    store = tmp_path / "s"
    shutil.copytree(stored[0], store)
    recorded = json.loads((store / "encoders.json").read_text())
    assert recorded["visual_2d"]["name"] == SMALL and recorded["spectrogram"]["name"] == "log-mel"
    assert len(recorded["visual_2d"]["weights"]) == 64 and recorded["visual_2d"]["parameters"]
    with pytest.raises(TrichordError) as caught:
        run(folder, store, visual_2d="efficientnet-lite0-96")
    assert f"{store}: its visual_2d features were computed by efficientnet-lite0-64 (" in str(caught.value)
    assert str(caught.value).endswith("use the same encoder and weights, or another store")
    (store / "encoders.json").unlink()
    summary = run(folder, store)
    assert "the encoder of its visual_2d features is not recorded, so only their width is compared" in " ".join(
        summary.notes
    )
    assert json.loads((store / "encoders.json").read_text()) == recorded
    (store / "encoders.json").write_text("{")
    with pytest.raises(TrichordError, match=r"encoders\.json: cannot be read"):
        run(folder, store)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "gone", r"gone: does not exist; pass the folder of the videos"),
        (lambda root: root, r"contains no videos \(\.mp4, \.mkv, .+; choose another folder"),
        (lambda root: (root / "a.mp4").write_bytes(b"") or root / "a.mp4", r"a\.mp4: is not a folder; pass the folder"),
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
        run(make(tmp_path / "v"), tmp_path / "s")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("workers", -1, "workers is -1; it must be"),
        ("test_fraction", 1.5, "test_fraction is 1.5; it must be"),
        ("shard", "3/2", "--shard is '3/2'; it must be the part and the number of parts, such as 2/8"),
        ("require", "smell", "--require: unknown name 'smell'; expected one of: video, audio, text"),
        ("audio", "none,none", "every encoder is none"),
        ("audio", "clap", "unknown audio encoder 'clap'; expected log-mel, hf:MODEL"),
        ("stall_s", -1.0, "stall_s is -1.0; it must be a number of seconds"),
        ("words", Path("gone.vec"), "gone.vec: cannot be read"),
    ],
)
def test_settings_out_of_range(folder: Path, tmp_path: Path, option: str, value: object, message: str) -> None:
    with pytest.raises(TrichordError, match=message):
        run(folder, tmp_path / "s", **{"visual_2d": "none" if option == "audio" else SMALL, option: value})
    assert not (tmp_path / "s").exists()


def test_two_files_with_one_name(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mkv", pictures(3), 10)
    write_video(tmp_path / "v" / "a.mp4", pictures(3, 1), 10)
    summary = run(tmp_path / "v", tmp_path / "s")
    assert summary.num_added == summary.num_skipped == 1 and ledger(tmp_path / "s") == {"a.mp4": "name"}
    assert "a.mp4: has the same name as a.mkv; rename one of them" in summary.notes


def test_required_modalities(folder: Path, tmp_path: Path) -> None:
    summary = run(folder, tmp_path / "s", require="audio, text")
    assert ids_of(tmp_path / "s") == ["egg/a", "egg/b", "tea/c"] and summary.num_skipped == 4
    assert ledger(tmp_path / "s") == {
        "badtext.mp4": "no-audio",
        "broken.mp4": "unreadable",
        "mute.mkv": "no-audio",
        "short.mp4": "no-captions",
    }


def test_the_duration_of_a_truncated_video_is_its_decoded_part(tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v/a.mp4", rng.randint(0, 255, (60, 64, 96, 3), np.uint8), 10, sound(6))
    data = (tmp_path / "v/a.mp4").read_bytes()
    (tmp_path / "v/a.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "v/a.srt").write_text("1\n00:00:00,500 --> 00:00:05,500\nstir\n")
    summary = run(tmp_path / "v", tmp_path / "s")
    store = Store(tmp_path / "s")
    assert 2 <= store.duration_s(0) <= 4 and store.caption_spans(0)[1][0] == store.duration_s(0)
    assert any(note.startswith("a.mp4: the video ends at") for note in summary.notes)


def test_the_parts_of_a_shard_make_the_whole(folder: Path, tmp_path: Path) -> None:
    added = [run(folder, tmp_path / "s", shard=f"{k}/3").num_added for k in (1, 2, 3)]
    assert sum(added) == 5 and max(added) < 5
    assert sorted(ids_of(tmp_path / "s")) == ["egg/a", "egg/b", "mute", "short", "tea/c"]
    store = Store(tmp_path / "s")
    assert {store.video_id(i) for i in range(5) if store.split(i) == "test"} == {"tea/c"}


def test_a_dry_run_lists_the_work_and_writes_nothing(
    folder: Path, tmp_path: Path, stored: tuple[Path, ExtractSummary, list[str]]
) -> None:
    with quick_processes():
        text = extract(folder, tmp_path / "s", visual_2d=SMALL, dry_run=True)
    assert isinstance(text, str) and not (tmp_path / "s").exists()
    assert text.startswith(f"7 of 7 items to extract into {tmp_path / 's'} (encoders: {SMALL}, log-mel)")
    assert "hours of video, about 0:0" in text and "on cpu (measured on 2 samples)" in text
    shutil.copytree(stored[0], tmp_path / "s")
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "s").rglob("*"))
    with quick_processes():
        text = extract(folder, tmp_path / "s", visual_2d=SMALL, dry_run=True)
    assert isinstance(text, str) and text.startswith("0 of 7 items to extract")
    assert "5 are in the store" in text and "2 failed before; use --retry CLASS to try them again" in text
    assert before == sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "s").rglob("*"))


# ---- other sources than folders of videos


def test_pictures_sounds_and_words_of_a_table(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(pictures(1)[0]).save(tmp_path / "p.png")
    shutil.copy(folder / "short.mp4", tmp_path / "s.mp4")
    shutil.copy(folder / "egg" / "a.mp4", tmp_path / "v.mp4")
    rows = ["id,image,audio,text,split", "x,p.png,s.mp4,a red egg,train", "y,p.png,,pour tea,test", "z,,v.mp4,,train"]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    summary = run(tmp_path / "t.csv", tmp_path / "s")
    store = Store(tmp_path / "s")
    assert summary.num_added == 3 and ids_of(tmp_path / "s") == ["x", "y", "z"]
    assert [store.num_rows("visual_2d", i) for i in range(3)] == [1, 1, 0] and store.rate_hz("visual_2d", 0) == 0.0
    assert store.has("spectrogram").tolist() == [True, False, True]
    assert [store.split(i) for i in range(3)] == ["train", "test", "train"]
    assert store.caption_text(0, 0) == "a red egg" and store.num_captions(2) == 0
    starts, ends = store.caption_spans(0)
    assert (starts[0], ends[0]) == (0.0, store.duration_s(0)) and 0.3 < ends[0] < 0.6
    assert store.duration_s(1) == 1.0


def test_clips_of_one_video(folder: Path, tmp_path: Path) -> None:
    rows = ["id,video,start,end,text,split"]
    rows += [f"c{k},egg/a.mp4,{k * 0.5},{k * 0.5 + 1.5},clip {k},train" for k in range(4)] + [
        "late,egg/a.mp4,9,10,no,train"
    ]
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    try:
        run(folder / "clips.csv", tmp_path / "s")
    finally:
        (folder / "clips.csv").unlink()
    store = Store(tmp_path / "s")
    assert ids_of(tmp_path / "s") == [f"c{k}" for k in range(4)] and ledger(tmp_path / "s") == {
        next(e["source"] for e in read_ledger(tmp_path / "s")): "unreadable"
    }
    whole = log_mel(waveform(folder / "egg" / "a.mp4")).T
    for k in range(4):
        assert store.num_rows("visual_2d", k) == 2 and store.duration_s(k) == pytest.approx(1.5, abs=0.02)
        rows_of_clip = store.rows("spectrogram", k)
        begin = 50 * k
        expected = whole[begin : begin + len(rows_of_clip)]  # of the file's own level, then sliced
        assert 148 <= len(rows_of_clip) <= 151 and np.abs(rows_of_clip - expected).max() <= 0.07


def test_files_that_are_not_there_are_ledger_lines(folder: Path, tmp_path: Path) -> None:
    sources = [
        Source("gone", "row 1", video=tmp_path / "gone.mp4"),
        Source("mute", "row 2", audio=folder / "mute.mkv"),
        Source("short", "row 3", video=folder / "short.mp4", captions=tmp_path / "gone.vtt"),
        Source("good", "row 4", video=folder / "short.mp4", text=("stir",)),
    ]
    choice = EncoderChoice(visual_2d=SMALL)
    summary = extract_sources(sources, tmp_path / "s", collection="c", choice=choice, workers=0)
    assert isinstance(summary, ExtractSummary) and ids_of(tmp_path / "s") == ["good"]
    assert ledger(tmp_path / "s") == {"row 1": "missing", "row 2": "no-audio", "row 3": "missing"}
