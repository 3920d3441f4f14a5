"""Import of YouCook2 and MSR-VTT: intact data is stored unchanged, and everything else is listed with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from release_helpers import ODD, SAMPLE, WORDS, item, reasons, refused, write
from trichord.logs import passing_messages
from trichord.releases import IMPORTERS, ImportSummary, import_msrvtt, import_youcook2
from trichord.store import Store


def clip(name: str, seed: int, **more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    entry = {
        "id": name,
        "2d": rng.random(6).astype(np.float32),
        "3d": rng.random(4).astype(np.float32),
        "audio": torch.tensor(-80 * rng.random((40, 250)), dtype=torch.float32),
        "caption": "add the flour",
    }
    return entry | more


def test_youcook2_sample(tmp_path: Path) -> None:
    lines: list[str] = []
    with passing_messages(lines.append):
        summary = import_youcook2(SAMPLE, tmp_path / "store", WORDS)
    assert (summary.num_added, summary.num_captions) == (12, 12) and lines == [f"youcook2: 12 clips in {SAMPLE}"]
    store = Store(tmp_path / "store")
    assert store.collections() == {("youcook2", "val"): 12}
    assert store.rate_hz("visual_2d", 0) == store.rate_hz("visual_3d", 0) == 0.0
    assert store.num_rows("visual_2d", 0) == 1 and store.num_rows("spectrogram", 0) == 290
    assert store.duration_s(0) == 2.9 and [s.tolist() for s in store.caption_spans(0)] == [[0.0], [2.9]]
    assert store.streams["spectrogram"].dtype == "float32"  # the type in the release
    assert import_youcook2(SAMPLE, tmp_path / "store", WORDS).num_present == 12


def test_youcook2_splits_durations_and_clips_that_lack_something(tmp_path: Path) -> None:
    nan = np.full(6, np.nan, np.float32)
    val = [
        clip("whole", 0, start=10, end=25.5),
        clip("silent", 1, audio=None),
        clip("deaf", 2, audio=torch.zeros(40, 1), has_audio=False),
        clip("again", 3),
        clip("again", 4),
        clip("no caption", 5, caption=None),
        clip("nan", 6, **{"2d": nan}),
        clip("flat audio", 7, audio=torch.zeros(7)),
        clip("words", 8, **{"2d": "none"}),
        clip("brain", 9, **{"2d": torch.ones(6, dtype=torch.bfloat16), "3d": None}),
    ]
    write(tmp_path / "data" / "youcook_val.pkl", val)
    write(tmp_path / "data" / "youcook_train_audio.pkl", [clip("train", 10)])
    write(tmp_path / "data" / "youcook_train.pkl", [])  # the file with audio takes precedence
    store_path = tmp_path / "store"
    summary = import_youcook2(tmp_path, store_path, WORDS)
    assert (summary.num_added, summary.num_skipped) == (7, 4)
    assert summary.streams == {"visual_2d": 7, "visual_3d": 6, "spectrogram": 5}
    store = Store(store_path)
    assert store.collections() == {("youcook2", "train"): 1, ("youcook2", "val"): 6}
    durations = {store.video_id(i): store.duration_s(i) for i in range(len(store))}
    assert durations == {
        "train": 2.5, "whole": 15.5, "silent": 1.0, "deaf": 1.0, "again": 2.5, "again#2": 2.5, "brain": 2.5
    }  # fmt: skip
    pickle_path = tmp_path / "data" / "youcook_val.pkl"
    reason_of = reasons(store_path)
    assert reason_of["youcook2/no caption"] == f"{pickle_path}: entry 5 (no caption): has no caption"
    assert "youcook2/nan: visual_2d contains NaN" in reason_of["youcook2/nan"]
    assert f"{pickle_path}: entry 7 (flat audio): its spectrogram has shape (7,)" in reason_of["youcook2/flat audio"]
    assert "entry 8 (words): contains a str where an array of numbers is expected" in reason_of["youcook2/words"]


@pytest.mark.parametrize("importer", [import_youcook2, import_msrvtt])
@pytest.mark.parametrize("key", ["2d", "3d", "audio", "caption", "start", "has_audio", "2d_full"])
def test_odd_values_never_end_the_import(importer: Callable[..., ImportSummary], key: str, tmp_path: Path) -> None:
    entries = [clip("good", 0)] + [clip(f"odd {n}", n, end=3, **{key: value}) for n, value in enumerate(ODD)]
    write(tmp_path / ("youcook_val.pkl" if importer is import_youcook2 else "msrvtt_train.pkl"), entries)
    summary = importer(tmp_path, tmp_path / "store", WORDS)
    assert summary.num_added + summary.num_skipped == len(entries) and summary.num_added >= 1
    assert "good" in {Store(tmp_path / "store").video_id(i) for i in range(summary.num_added)}


def test_youcook2_full_resolution(tmp_path: Path) -> None:
    rows = {"2d_full": np.ones((9, 6), np.float32), "3d_full": np.ones((13, 4), np.float32)}
    write(tmp_path / "youcook_val.pkl", [clip("full", 0, audio=None, **rows), clip("pooled only", 1)])
    import_youcook2(tmp_path, tmp_path / "store", WORDS, full_resolution=True)
    store = Store(tmp_path / "store")
    assert [(store.num_rows("visual_2d", i), store.rate_hz("visual_2d", i)) for i in range(2)] == [(9, 1.0), (1, 0.0)]
    assert [(store.num_rows("visual_3d", i), store.rate_hz("visual_3d", i)) for i in range(2)] == [(13, 1.5), (1, 0.0)]
    assert store.duration_s(0) == 9.0


class Evil:
    def __reduce__(self) -> tuple:
        return open, ("ran", "w")


def test_youcook2_invalid_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "store"
    assert "no YouCook2 pickle (youcook_train_audio.pkl" in refused(import_youcook2, tmp_path, store)
    path = write(tmp_path / "youcook_val.pkl", [])
    assert refused(import_youcook2, tmp_path, store) == f"{path}: contains no clips; download it again"
    write(path, [1, 2])
    assert f"{path}: is not a list of clips with an id each" in refused(import_youcook2, tmp_path, store)
    write(path, [clip("a", 0, caption=Evil())])
    assert f"{path}: refused: holds io.open, which is not an array" in refused(import_youcook2, tmp_path, store)
    assert not (tmp_path / "ran").exists()
    path.write_bytes(path.read_bytes()[:200])
    assert f"{path}: is damaged or not a pickle" in refused(import_youcook2, tmp_path, store)
    write(path, [clip("a", 0, caption=None)])
    text = refused(import_youcook2, tmp_path, store)
    assert "nothing could be imported, because all 1 entries were skipped; the reason for the first:" in text


# ---- MSR-VTT


def test_msrvtt_sample(tmp_path: Path) -> None:
    summary = import_msrvtt(SAMPLE, tmp_path / "store", WORDS)
    assert (summary.num_added, summary.num_captions) == (12, 12)
    store = Store(tmp_path / "store")
    assert store.collections() == {("msrvtt", "test"): 12}
    assert store.rate_hz("visual_2d", 0) == 0.0
    assert store.caption_text(0, 0) == "two fold it's you until stir milk until simmer next serve"
    import_msrvtt(SAMPLE, tmp_path / "full", WORDS, full_resolution=True)
    full = Store(tmp_path / "full")
    assert (full.num_rows("visual_2d", 0), full.rate_hz("visual_2d", 0)) == (10, 1.0)
    assert (full.num_rows("visual_3d", 0), full.rate_hz("visual_3d", 0)) == (15, 1.5)


def test_msrvtt_clips_without_features_are_items_without_streams(tmp_path: Path) -> None:
    root = tmp_path / "release"
    root.mkdir()
    shutil.copy(SAMPLE / "msrvtt_test.pkl", root)
    rows = "key,vid_key,video_id,sentence\nret0,msr1,video7000,a b\nret1,msr2,video1,stir milk\nret2,msr3,video2,boil\n"
    (root / "msrvtt_test.csv").write_text(rows)
    text = refused(import_msrvtt, root, tmp_path / "store")
    assert "2 of its 3 ids are not in" in text and "'video1', 'video2'; " in text and "'video7001', 'video7002'" in text
    summary = import_msrvtt(root, tmp_path / "store", WORDS, allow_missing=True)
    assert summary.num_added == 14 and summary.streams["visual_2d"] == 12
    assert "2 of the 3 test clips of" in str(summary) and "evaluation can count them as missed" in str(summary)
    store = Store(tmp_path / "store")
    assert store.collections() == {("msrvtt", "test"): 14}
    assert (~store.has("visual_2d")).sum() == (~store.has("spectrogram")).sum() == 2
    i = item(store, "video1")
    assert store.caption_text(i, 0) == "stir milk" and len(store.word_ids(i, 0)) == 2


def msrvtt_lists(root: Path, listed: str, features: str, num: int = 6) -> None:
    rows = "".join(f"a,b,{listed.format(i)},stir milk {i}\n" for i in range(num))
    root.mkdir()
    (root / "MSRVTT_JSFUSION_test.csv").write_text(f"key,vid_key,video_id,sentence\n{rows}")
    write(root / "msrvtt_jsfusion_test.pkl", [clip(features.format(i), i) for i in range(num - 1)])


@pytest.mark.parametrize(
    ("listed", "features"), [("video{}.mp4", "video{}"), ("video{}", "video{}.MP4"), ("v{}", "v{}")]
)
def test_msrvtt_ids_with_and_without_a_suffix_are_the_same_clips(listed: str, features: str, tmp_path: Path) -> None:
    root = tmp_path / "release"
    msrvtt_lists(root, listed, features)
    summary = import_msrvtt(root, tmp_path / "store", WORDS)
    assert summary.num_added == 6 and "1 of the 6 test clips" in str(summary)
    store = Store(tmp_path / "store")
    assert sorted(store.video_id(i) for i in range(6)) == sorted(
        [*(features.format(i) for i in range(5)), listed.format(5)]
    )


def test_msrvtt_lists_that_do_not_fit_or_name_a_clip_twice(tmp_path: Path) -> None:
    msrvtt_lists(tmp_path / "other", "msr{}", "video{}")
    text = refused(import_msrvtt, tmp_path / "other", tmp_path / "store")
    assert "none of its 6 ids occurs in" in text and "'msr0', 'msr1', 'msr2'" in text and "'video0', 'video1'" in text
    assert "none of its 6 ids" in refused(import_msrvtt, tmp_path / "other", tmp_path / "store", allow_missing=True)
    root = tmp_path / "twice"
    msrvtt_lists(root, "video{}", "video{}")
    path = root / "MSRVTT_JSFUSION_test.csv"
    whole = path.read_text()
    path.write_text(whole + "a,b,video3,stir milk 3\n")  # a repeated line
    assert import_msrvtt(root, tmp_path / "same", WORDS).num_added == 6
    path.write_text(whole + "a,b,video3,boil\n")
    assert "row 7 has another sentence for clip 'video3'" in refused(import_msrvtt, root, tmp_path / "store")
    path.write_text(whole + "a,b,video3.mp4,boil\n")
    assert "'video3' and 'video3.mp4' both refer to the clip 'video3'" in refused(
        import_msrvtt, root, tmp_path / "store"
    )
    path.write_text(whole)
    write(root / "msrvtt_jsfusion_test.pkl", [clip("video1.mp4", 0), clip("video1.avi", 1), clip("video2", 2)])
    assert "'video1' may refer to 'video1.mp4' or 'video1.avi'" in refused(import_msrvtt, root, tmp_path / "store")
    path.unlink()
    write(root / "msrvtt_jsfusion_test.pkl", [clip("a", 0), clip("b", 1), clip("a", 0)])
    assert import_msrvtt(root, tmp_path / "again", WORDS).num_added == 2
    write(root / "msrvtt_jsfusion_test.pkl", [clip("a", 0), clip("b", 1), clip("a", 0, caption="boil")])
    assert "entry 2 (a#2): has another caption for clip 'a'" in refused(import_msrvtt, root, tmp_path / "store")


def test_msrvtt_training_clips_have_several_captions(tmp_path: Path) -> None:
    entry = clip("video5", 0, caption=["stir milk", "add flour", "boil"])
    entry |= {"2d_pooled": entry.pop("2d"), "2d": np.ones((3, 6), np.float32)}
    write(tmp_path / "msrvtt_1k-A_train.pkl", [entry, clip("video6", 1)])
    summary = import_msrvtt(tmp_path, tmp_path / "store", WORDS)
    assert (summary.num_added, summary.num_captions) == (2, 4)
    store = Store(tmp_path / "store")
    assert store.collections() == {("msrvtt", "train"): 2} and store.num_rows("visual_2d", 0) == 1
    assert [store.caption_text(0, c) for c in range(3)] == ["stir milk", "add flour", "boil"]
    assert store.caption_spans(0)[1].tolist() == [2.5] * 3
    write(tmp_path / "msrvtt_train.pkl", [clip("video7", 1)])
    text = refused(import_msrvtt, tmp_path, tmp_path / "other")
    assert "contains msrvtt_train.pkl and msrvtt_1k-A_train.pkl; choose one of them with --train" in text
    imported = import_msrvtt(tmp_path, tmp_path / "other", WORDS, train=Path("msrvtt_train.pkl"))
    assert imported.num_added == 1


def test_msrvtt_of_the_original_release(tmp_path: Path) -> None:
    root = tmp_path / "release"
    root.mkdir()
    text = refused(import_msrvtt, root, tmp_path / "store")
    assert "no MSR-VTT file (msrvtt_jsfusion_test.pkl" in text and "--root" in text
    tables = {"2d": {"video1": torch.ones(6), "video2": torch.ones(6)}, "3d": {"video1": torch.ones(4)}}
    torch.save(tables, root / "MSRVTT_JSFUSION_test.pth")
    text = refused(import_msrvtt, root, tmp_path / "store")
    assert f"needs MSRVTT_JSFUSION_test.csv with the captions next to it; add it to {root}" in text
    rows = "key,vid_key,video_id,sentence\na,b,video1,stir milk\na,b,video2,boil\na,b,video3,bake\n"
    (root / "MSRVTT_JSFUSION_test.csv").write_text(rows)
    torch.save(tables, root / "MSRVTT_train.pth", _use_new_zipfile_serialization=False)
    assert "needs MSRVTT_data.json with the captions" in refused(import_msrvtt, root, tmp_path / "store")
    sentences = [{"video_id": "video1", "caption": "stir"}, {"video_id": "video1", "caption": "bake"}]
    (root / "MSRVTT_data.json").write_text(json.dumps({"sentences": sentences}))
    tables["2d"] = {"video1": torch.ones(6) * 2}
    summary = import_msrvtt(root, tmp_path / "store", WORDS)
    assert (summary.num_added, summary.num_present, summary.num_skipped) == (3, 1, 1)  # the test clips come first
    (root / "MSRVTT_data.json").write_text("{}")
    assert "has no sentences with video_id and caption" in refused(import_msrvtt, root, tmp_path / "store")
    (root / "MSRVTT_JSFUSION_test.csv").write_text("a,b\n1,2\n")
    assert "has no column video_id, sentence" in refused(import_msrvtt, root, tmp_path / "store")


RELEASES = ["howto100m", "youcook2", "msrvtt"]


@pytest.mark.parametrize("name", RELEASES)
def test_all_importers_share_one_store_and_the_default_words(name: str, tmp_path: Path) -> None:
    IMPORTERS[name](SAMPLE, tmp_path / "store")
    other = next(n for n in RELEASES if n != name)
    IMPORTERS[other](SAMPLE, tmp_path / "store")
    assert {c for c, _ in Store(tmp_path / "store").collections()} == {name, other}
    text = refused(IMPORTERS[name], SAMPLE, tmp_path / "store")
    assert "contains words from GloVe" in text
