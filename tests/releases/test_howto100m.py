"""Import of HowTo100M: intact data is stored unchanged, and everything else is listed with a reason."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from release_helpers import ODD, SAMPLE, WORDS, item, reasons, refused, write
from trichord.errors import TrichordError
from trichord.logs import passing_messages
from trichord.releases import ImportSummary, common, import_howto100m
from trichord.store import Store

IDS = ["vid_a", "vid_b", "vid_c", "vid_d"]


def features(seed: int, seconds: int = 20, width: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "2d": rng.random((seconds, width)).astype(np.float32),
        "3d": rng.random((seconds * 3 // 2, 4)).astype(np.float32),
        "spec": (-80 * rng.random((40, 100 * seconds))).astype(np.float16),
    }


def captions() -> dict[str, list]:
    return {"start": [0.0, 6.0, 12.0], "end": [5.5, 12.5, 19.0], "text": ["add pepper", "flour, milk", "don't stir"]}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Four videos in the layout of AVLnet and MCN, with captions as JSON."""
    root = tmp_path / "release"
    for seed, video in enumerate(IDS):
        folder = root / "features" / "cooking" / video
        folder.mkdir(parents=True)
        arrays = features(seed)
        np.savez(folder / f"{video}_2d.npz", features=arrays["2d"])
        np.savez(folder / f"{video}_3d.npz", features=arrays["3d"])
        np.savez(folder / f"{video}_spec.npz", arrays["spec"])
    (root / "some_videopaths.txt").write_text("path\n" + "".join(f"cooking/{video}\n" for video in IDS))
    (root / "caption.json").write_text(json.dumps({video: captions() for video in IDS}))
    return root


def file_of(root: Path, video: str, kind: str) -> Path:
    return root / "features" / "cooking" / video / f"{video}_{kind}.npz"


def test_the_sample_is_imported_unchanged(tmp_path: Path) -> None:
    lines: list[str] = []
    with passing_messages(lines.append):
        summary = import_howto100m(SAMPLE, tmp_path / "store", WORDS)
    assert (summary.num_added, summary.num_present, summary.num_skipped, summary.skipped_path) == (5, 0, 0, None)
    assert (summary.num_captions, summary.num_captions_dropped) == (69, 0)
    assert summary.streams == {"visual_2d": 5, "visual_3d": 5, "spectrogram": 5}
    assert str(summary).startswith(f"howto100m -> {tmp_path / 'store'}: 5 added (5 with spectrogram, 5 with visual_2d")
    assert lines[0].startswith(
        f"howto100m: 5 videos of {SAMPLE / 'videopaths.txt'}, visual_2d + visual_3d + spectrogram"
    )
    store = Store(tmp_path / "store")
    paths = (SAMPLE / "videopaths.txt").read_text().split()[1:]
    table = json.loads((SAMPLE / "caption.json").read_text())
    assert [store.video_id(i) for i in range(5)] == [Path(p).name for p in paths]
    for i, path in enumerate(paths):
        video = store.video_id(i)
        assert (store.collection(i), store.split(i)) == ("howto100m", "train")
        for stream, kind, rate in (("visual_2d", "2d", 1.0), ("visual_3d", "3d", 1.5), ("spectrogram", "spec", 100.0)):
            with np.load(SAMPLE / "parsed_videos" / path / f"{video}_{kind}.npz") as arrays:
                array = arrays["arr_0"].T if kind == "spec" else arrays["features"]
            np.testing.assert_array_equal(store.rows(stream, i), array)
            assert store.rows(stream, i).dtype == array.dtype and store.rate_hz(stream, i) == rate
        assert store.duration_s(i) == store.num_rows("spectrogram", i) / 100
        assert [spans.tolist() for spans in store.caption_spans(i)] == [table[video]["start"], table[video]["end"]]
        assert [store.caption_text(i, c) for c in range(store.num_captions(i))] == table[video]["text"]


def test_caption_pickle_json_and_csv_folder_are_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "csvs"
    folder.mkdir()
    for video, table in json.loads((SAMPLE / "caption.json").read_text()).items():
        with (folder / f"{video}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["start", "end", "text"])
            rows.writerows(zip(table["start"], table["end"], table["text"], strict=True))
    prints = set()
    for name, source in (("a", Path("caption.pickle")), ("b", SAMPLE / "caption.json"), ("c", folder)):
        import_howto100m(SAMPLE, tmp_path / name, WORDS, captions=source)
        prints.add(Store(tmp_path / name).fingerprint)
    assert len(prints) == 1


def test_threads_do_not_change_the_store(release: Path, tmp_path: Path) -> None:
    for threads in (1, 3):
        import_howto100m(release, tmp_path / str(threads), WORDS, num_threads=threads)
    assert Store(tmp_path / "1").fingerprint == Store(tmp_path / "3").fingerprint


def test_a_second_import_continues(release: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    (release / "some_videopaths.txt").write_text("path\ncooking/vid_a\ncooking/vid_b\n")
    assert import_howto100m(release, store, WORDS).num_added == 2
    (release / "some_videopaths.txt").write_text("path\n" + "".join(f"cooking/{v}\n" for v in [*IDS, IDS[3]]))
    file_of(release, "vid_a", "2d").unlink()  # not read again
    summary = import_howto100m(release, store, WORDS)
    assert (summary.num_added, summary.num_present, summary.num_skipped) == (2, 3, 0)  # one is listed twice
    summary = import_howto100m(release, store, WORDS)
    assert (summary.num_added, summary.num_present) == (0, 5) and len(Store(store)) == 4


def test_an_interrupted_import_keeps_its_items(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = common._added

    def stop(writer: Any, converted: common.Made, summary: ImportSummary) -> str:
        if converted.item.video_id == "vid_c":
            raise KeyboardInterrupt
        return added(writer, converted, summary)

    monkeypatch.setattr(common, "_added", stop)
    with pytest.raises(KeyboardInterrupt):
        import_howto100m(release, tmp_path / "store", WORDS)
    monkeypatch.undo()
    assert len(Store(tmp_path / "store")) == 2
    summary = import_howto100m(release, tmp_path / "store", WORDS)
    assert (summary.num_added, summary.num_present) == (2, 2)


def broken(case: str, root: Path) -> None:
    path = file_of(root, "vid_b", {"spec missing": "spec", "spec turned": "spec", "spec huge": "spec"}.get(case, "2d"))
    table = json.loads((root / "caption.json").read_text())
    if case in ("missing", "spec missing"):
        path.unlink()
    elif case == "3d missing":
        file_of(root, "vid_b", "3d").unlink()
    elif case == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif case == "empty":
        np.savez(path, features=np.zeros((0, 6), np.float32))
    elif case == "nan":
        np.savez(path, features=np.full((20, 6), np.nan, np.float32))
    elif case == "width":
        np.savez(path, features=np.ones((20, 7), np.float32))
    elif case == "shape":
        np.savez(path, features=np.ones(20, np.float32))
    elif case == "text":
        np.savez(path, features=np.array(["a"]))
    elif case == "object":
        np.savez(path, features=np.array([{}], dtype=object))
    elif case == "spec turned":
        np.savez(path, np.zeros((2000, 40), np.float16))
    elif case == "spec huge":
        np.savez(path, np.full((40, 2000), 1e9, np.float32))
    elif case == "no captions":
        del table["vid_b"]
    elif case == "captions all dropped":
        table["vid_b"]["end"] = table["vid_b"]["start"]
    elif case == "captions of unequal length":
        table["vid_b"]["end"].pop()
    elif case == "captions of another form":
        table["vid_b"] = [1, 2]
    elif case == "caption times":
        table["vid_b"]["start"][0] = "soon"
    elif case == "outside":
        listed = root / "some_videopaths.txt"
        listed.write_text(listed.read_text().replace("cooking/vid_b", "cooking/../cooking/vid_b"))
    (root / "caption.json").write_text(json.dumps(table))


BROKEN = {
    "missing": "{2d}: is missing; download it",
    "spec missing": "{spec}: is missing; download it",
    "3d missing": "{3d}: is missing; download it",
    "cut": "{2d}: is broken (not a complete .npz file",
    "empty": "{2d}: is empty, (0, 6); download it again",
    "nan": "{2d}: howto100m/vid_b: visual_2d contains NaN or infinity",
    "width": "{2d}: has width 7, but the others have width 6; extract it again",
    "shape": "{2d}: has shape (20,), expected (rows, width)",
    "text": "{2d}: contains an array of <U1 where an array of numbers is expected",
    "object": "{2d}: refused: holds an array of type |O",
    "spec turned": "{spec}: its spectrogram has shape (2000, 40), expected (40, frames)",
    "spec huge": "{spec}: howto100m/vid_b: spectrogram contains NaN or infinity",
    "no captions": "caption.json: has no captions for vid_b",
    "captions all dropped": "caption.json: has no captions for vid_b",
    "captions of unequal length": "caption.json: vid_b: has 3 caption starts, 2 ends and 3 texts",
    "captions of another form": "caption.json: vid_b needs the lists start, end and text",
    "caption times": "caption.json: vid_b: has caption times that are not numbers",
    "outside": "cooking/../cooking/vid_b: leads out of the folder of the features",
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("place", ["second", "first"])
def test_a_broken_video_is_listed_and_the_others_arrive(case: str, place: str, release: Path, tmp_path: Path) -> None:
    broken(case, release)
    if place == "first":
        listed = (release / "some_videopaths.txt").read_text().split()
        (release / "some_videopaths.txt").write_text("\n".join([listed[0], listed[2], listed[1], *listed[3:]]) + "\n")
    store = tmp_path / "store"
    summary = import_howto100m(release, store, WORDS)
    assert (summary.num_added, summary.num_skipped) == (3, 1)
    assert summary.skipped_path is not None and str(summary.skipped_path) in str(summary)
    paths = {kind: str(file_of(release, "vid_b", kind)) for kind in ("2d", "3d", "spec")}
    expected = BROKEN[case].format(**paths)
    assert list(reasons(store)) == ["howto100m/vid_b"] and expected in reasons(store)["howto100m/vid_b"]
    again = import_howto100m(release, store, WORDS)
    assert (again.num_present, again.num_skipped) == (3, 1) and len(Store(store).skipped()) == 1


def test_widths_follow_the_store_that_is_there(release: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    import_howto100m(release, store, WORDS)
    for video in IDS:
        np.savez(file_of(release, video, "2d"), features=np.ones((20, 7), np.float32))
        file_of(release, video, "2d").parent.rename(release / "features" / "cooking" / f"new_{video}")
        for kind in ("2d", "3d", "spec"):
            folder = release / "features" / "cooking" / f"new_{video}"
            (folder / f"{video}_{kind}.npz").rename(folder / f"new_{video}_{kind}.npz")
    (release / "some_videopaths.txt").write_text("path\ncooking/new_vid_a\n")
    (release / "caption.json").write_text(json.dumps({"new_vid_a": captions()}))
    text = refused(import_howto100m, release, store)
    assert "nothing could be imported, because all 1 entries were skipped; the reason for the first:" in text
    assert "has width 7, but the others have width 6" in text and "skipped.jsonl" in text


def test_captions_with_invalid_times_are_left_out_and_counted(release: Path, tmp_path: Path) -> None:
    table = {video: captions() for video in IDS}
    table["vid_a"] = {
        "start": [6.0, 3.0, 3.0, float("nan"), 4.0, 0.0],
        "end": [9.0, 3.0, 2.0, 5.0, float("inf"), 5.0],
        "text": ["late add", "b", "c", "d", "e", None],
    }
    (release / "caption.json").write_text(json.dumps(table))
    summary = import_howto100m(release, tmp_path / "store", WORDS)
    assert (summary.num_added, summary.num_captions, summary.num_captions_dropped) == (4, 11, 4)
    store = Store(tmp_path / "store")
    i = item(store, "vid_a")
    assert [spans.tolist() for spans in store.caption_spans(i)] == [[6.0, 0.0], [9.0, 5.0]]  # in the release's order
    assert [store.caption_text(i, c) for c in range(2)] == ["late add", ""]


def test_none_in_a_path_and_a_list_with_more_columns(release: Path, tmp_path: Path) -> None:
    (release / "some_videopaths.txt").unlink()
    rows = "rank, path ,video_id\n1,cooking/None/vid_a,vid_a\n2,None/cooking/vid_b,vid_b\n\n3,,vid_c\n"
    (release / "my_paths.csv").write_text(rows)
    assert import_howto100m(release, tmp_path / "store", WORDS).num_added == 2


def test_without_3d_and_audio_files_there_are_none(release: Path, tmp_path: Path) -> None:
    for video in IDS:
        file_of(release, video, "3d").unlink()
        file_of(release, video, "spec").unlink()
    summary = import_howto100m(release, tmp_path / "store", WORDS)
    assert summary.streams == {"visual_2d": 4}
    assert "not imported, because the release lacks them or they were not requested: visual_3d, spectrogram" in str(
        summary
    )
    assert Store(tmp_path / "store").duration_s(0) == 20.0
    text = refused(import_howto100m, release, tmp_path / "other", use_3d="yes")
    assert text.endswith("contains no 3-D features of the listed videos; pass their folder with --features_3d")
    text = refused(import_howto100m, release, tmp_path / "other", use_audio="yes")
    assert text.endswith("contains no spectrograms of the listed videos; pass their folder with --audio")


def test_3d_features_can_be_left_out(release: Path, tmp_path: Path) -> None:
    file_of(release, "vid_b", "3d").unlink()
    summary = import_howto100m(release, tmp_path / "store", WORDS, use_3d="no")
    assert summary.streams == {"visual_2d": 4, "spectrogram": 4}


def test_flat_layout_and_spectrograms_in_a_folder_of_their_own(release: Path, tmp_path: Path) -> None:
    (release / "audio" / "cooking").mkdir(parents=True)
    for video in IDS:
        for kind in ("2d", "3d"):
            shutil.move(file_of(release, video, kind), release / "features" / "cooking" / f"{video}_{kind}.npz")
        shutil.move(file_of(release, video, "spec"), release / "audio" / "cooking" / f"{video}_spec.npz")
    for name, options in (("found", {}), ("named", {"features": Path("features"), "audio": release / "audio"})):
        summary = import_howto100m(release, tmp_path / name, WORDS, **options)
        assert summary.streams == {"visual_2d": 4, "visual_3d": 4, "spectrogram": 4}


def test_npy_files_with_2d_and_3d_in_separate_folders(release: Path, tmp_path: Path) -> None:
    for kind in ("2d", "3d"):
        (release / f"feats_{kind}" / "cooking").mkdir(parents=True)
        for video in IDS:
            with np.load(file_of(release, video, kind)) as arrays:
                half = arrays["features"].astype(np.float16)
            np.save(release / f"feats_{kind}" / "cooking" / f"{video}.npy", half)
    (release / "some_videopaths.txt").write_text("video_id,path\n" + "".join(f"{v},cooking/{v}.npy\n" for v in IDS))
    folders = {"features": Path("feats_2d"), "features_3d": Path("feats_3d")}
    summary = import_howto100m(release, tmp_path / "store", WORDS, use_audio="no", **folders)
    assert summary.streams == {"visual_2d": 4, "visual_3d": 4}
    store = Store(tmp_path / "store")
    assert store.streams["visual_2d"].dtype == "float16" and store.streams["visual_3d"].dim == 4


def test_an_incomplete_release_names_the_missing_part(release: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    listed = release / "some_videopaths.txt"
    assert "is not a folder; pass the folder of the release with --root" in refused(import_howto100m, listed, store)
    shutil.copy(listed, release / "other_paths.csv")
    text = refused(import_howto100m, release, store)
    assert "contains other_paths.csv, some_videopaths.txt; choose one path list with --paths" in text
    (release / "other_paths.csv").unlink()
    assert "none.txt: does not exist" in refused(import_howto100m, release, store, paths=Path("none.txt"))
    assert "correct --features" in refused(import_howto100m, release, store, features=Path("none"))
    listed.write_text("cooking/vid_a\n")
    assert f"{listed}: has no column 'path'; make it the first line" in refused(import_howto100m, release, store)
    listed.write_text("path\n\n")
    assert f"{listed}: lists no video" in refused(import_howto100m, release, store)
    listed.write_bytes(b"path\n\xff\xfe\n")
    assert f"{listed}: cannot be read as a path list" in refused(import_howto100m, release, store)
    listed.write_text("path\ncooking/vid_z\n")
    assert "none of its 1 ids occurs in" in refused(import_howto100m, release, store)
    table = release / "caption.json"
    table.write_text(json.dumps({"vid_z": captions()}))
    text = refused(import_howto100m, release, store)
    assert "no 2-D features, such as cooking/vid_z/vid_z_2d.npz, in" in text and "with --features" in text
    table.write_text("{")
    assert f"{table}: is not JSON" in refused(import_howto100m, release, store)
    table.write_text("[]")
    assert f"{table}: is not a table of captions by video id" in refused(import_howto100m, release, store)
    table.unlink()
    assert f"{release}: contains no captions (caption.pickle, caption.json or a folder" in refused(
        import_howto100m, release, store
    )
    (release / "captions").mkdir()
    assert "contains no CSV file; choose the captions with --captions" in refused(import_howto100m, release, store)
    (release / "captions" / "vid_z.csv").write_text("a,b\n1,2\n")
    listed.write_text("path\ncooking/vid_z\n")
    shutil.copytree(release / "features" / "cooking" / "vid_a", release / "features" / "cooking" / "vid_z")
    for kind in ("2d", "3d", "spec"):
        folder = release / "features" / "cooking" / "vid_z"
        (folder / f"vid_a_{kind}.npz").rename(folder / f"vid_z_{kind}.npz")
    text = refused(import_howto100m, release, store)
    assert "vid_z.csv: needs the columns start, end and text (see " in text
    listed.unlink()
    text = refused(import_howto100m, release, store)
    assert text == f"{release}: contains no path list (*paths*.txt or *paths*.csv); pass it with --paths"


def test_progress_reports_rate_and_remaining_time(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "REPORT_EVERY_S", 0.0)
    lines: list[str] = []
    with passing_messages(lines.append):
        import_howto100m(release, tmp_path / "store", WORDS)
    assert (
        len(lines) == 5 and lines[1].startswith("howto100m: 1 of 4, 0 skipped, ") and lines[4].endswith("0:00:00 left")
    )


def test_videos_wait_in_memory_only_a_few_at_a_time(release: Path, tmp_path: Path) -> None:
    reading = []

    def make(entry: int) -> common.Made:
        reading.append(entry)
        raise TrichordError("x")

    results = common._read(iter(range(1000)), make, 2)
    next(results)
    assert len(reading) <= common.READ_AHEAD * 2
    results.close()


def test_odd_caption_tables_never_end_the_import(release: Path, tmp_path: Path) -> None:
    for key in ("start", "end", "text"):
        for value in ODD:
            table = {video: captions() for video in IDS}
            table["vid_a"][key] = value  # type: ignore[assignment]
            write(release / "caption.pickle", table)
            store = tmp_path / f"store{key}{ODD.index(value) if value is None else id(value)}"
            assert import_howto100m(release, store, WORDS, num_threads=1).num_added >= 3
