"""Import of LSMDC and of the full test set of MSR-VTT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from release_helpers import WORDS, item, refused, write
from trichord.releases import import_lsmdc, import_msrvtt
from trichord.store import Store


def lsmdc_entry(name: str, seed: int, **more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    entry = {
        "id": name,
        "2d_pooled": torch.from_numpy(rng.random(6).astype(np.float32)),
        "3d_pooled": torch.from_numpy(rng.random(4).astype(np.float32)),
        "audio": torch.from_numpy(-80 * rng.random((40, 250)).astype(np.float32)),
        "caption": "SOMEONE stir milk.",
    }
    return entry | more


def test_lsmdc_splits_follow_the_names_of_the_pickles(tmp_path: Path) -> None:
    test = [lsmdc_entry("movie_1", 0), lsmdc_entry("movie_2", 1, audio=None), lsmdc_entry("movie_1", 2)]
    write(tmp_path / "data" / "lsmdc_test.pkl", test)
    write(tmp_path / "lsmdc_train.pkl", [lsmdc_entry("movie_9", 3)])
    write(tmp_path / "other.pkl", [])
    summary = import_lsmdc(tmp_path, tmp_path / "store", WORDS)
    assert (summary.collection, summary.num_added, summary.num_captions) == ("lsmdc", 4, 4)
    store = Store(tmp_path / "store")
    assert store.collections() == {("lsmdc", "test"): 3, ("lsmdc", "train"): 1}
    first = item(store, "movie_1")
    assert np.array_equal(store.rows("visual_2d", first)[0], test[0]["2d_pooled"].numpy())
    assert np.array_equal(store.rows("spectrogram", first), test[0]["audio"].numpy().T)
    assert store.rate_hz("visual_3d", first) == 0 and store.caption_text(first, 0) == "SOMEONE stir milk."
    assert store.num_rows("spectrogram", item(store, "movie_2")) == 0
    assert np.array_equal(store.rows("visual_2d", item(store, "movie_1#2"))[0], test[2]["2d_pooled"].numpy())
    assert import_lsmdc(tmp_path, tmp_path / "store", WORDS).num_present == 4


def test_lsmdc_mistakes_are_one_line(tmp_path: Path) -> None:
    assert "contains no LSMDC pickle (*lsmdc*.pkl); pass the folder" in refused(import_lsmdc, tmp_path, tmp_path / "s")
    write(tmp_path / "lsmdc_test.pkl", [])
    assert "contains no clips; download it again" in refused(import_lsmdc, tmp_path, tmp_path / "s")
    write(tmp_path / "LSMDC16_test.pkl", [lsmdc_entry("a", 0)])
    assert "LSMDC16_test.pkl and lsmdc_test.pkl, both of split test" in refused(import_lsmdc, tmp_path, tmp_path / "s")


def release(root: Path) -> Path:
    """Four test clips: one of JSFusion, one of the 1k-A training set, one in a table of tensors, and one without features."""
    rng = np.random.default_rng(0)
    videos = [{"video_id": f"video{i}", "split": "test" if i >= 7010 else "train"} for i in (1, 7010, 7011, 7012, 7013)]
    sentences = [
        {"video_id": v["video_id"], "caption": f"stir milk {n}", "sen_id": n} for n in range(3) for v in videos
    ]
    root.mkdir()
    (root / "test_videodatainfo.json").write_text(json.dumps({"info": {}, "videos": videos, "sentences": sentences}))
    write(root / "msrvtt_jsfusion_test.pkl", [lsmdc_entry("video7010", 1, eval_caption="boil")])
    train = [lsmdc_entry("video7011", 2, caption=["a", "b"]), lsmdc_entry("video1", 3)]
    write(root / "msrvtt_1k-A_train.pkl", train)
    tables = {
        key: {"video7012": torch.from_numpy(rng.random(n).astype(np.float32))} for key, n in (("2d", 6), ("3d", 4))
    }
    torch.save(tables, root / "MSRVTT_train.pth")
    return root


def test_msrvtt_full_has_every_caption_of_every_test_clip(tmp_path: Path) -> None:
    root = release(tmp_path / "release")
    summary = import_msrvtt(root, tmp_path / "store", WORDS, full=Path("test_videodatainfo.json"))
    assert (summary.collection, summary.num_added, summary.num_captions) == ("msrvtt-full", 4, 12)
    assert "1 of the 4 clips have no features in the release" in str(summary)
    store = Store(tmp_path / "store")
    assert store.collections() == {("msrvtt-full", "test"): 4}
    have = {store.video_id(i): (store.num_rows("visual_2d", i), store.num_rows("spectrogram", i)) for i in range(4)}
    assert have == {"video7010": (1, 250), "video7011": (1, 250), "video7012": (1, 0), "video7013": (0, 0)}
    first = item(store, "video7010")
    assert [store.caption_text(first, c) for c in range(3)] == [f"stir milk {n}" for n in range(3)]
    import_msrvtt(root, tmp_path / "store", WORDS)  # the clips of JSFusion form another collection of the same store
    assert Store(tmp_path / "store").collections()["msrvtt", "test"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "has no sentences with video_id and caption"),
        ("[]", "has no sentences with video_id and caption"),
        ('{"sentences": [{"caption": "x"}]}', "has no sentences with video_id and caption"),
        ('{"sentences": []}', "has no sentences of split test"),
        (
            '{"sentences": [{"video_id": "a", "caption": "x"}], "videos": []}',
            "none of its 1 ids occurs in the features",
        ),
    ],
)
def test_msrvtt_full_mistakes_are_errors_of_one_line(content: str, message: str, tmp_path: Path) -> None:
    root = release(tmp_path / "release")
    (root / "odd.json").write_text(content)
    assert message in refused(import_msrvtt, root, tmp_path / "store", full=Path("odd.json"))
    assert "--train has no effect with --full" in refused(
        import_msrvtt, root, tmp_path / "store", full=Path("odd.json"), train=Path("x")
    )
