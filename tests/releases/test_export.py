"""Exports: an exported store is imported unchanged, and other readers find what the layout specifies."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from export_helpers import LAYOUTS, ODD_IDS, content_of, digests, same, some_items, stores, texts, write_store
from process_helpers import FORKSERVER
from release_helpers import SAMPLE, WORDS
from trichord.errors import TrichordError
from trichord.files.pickles import load_pickle
from trichord.logs import passing_messages
from trichord.releases import IMPORTERS, export_files, export_packs, export_store, import_howto100m, import_youcook2
from trichord.releases.plain_pickle import APPEND, EMPTY_LIST, START, STOP, Tensor, encoded
from trichord.releases.records import component, record_of
from trichord.store import Item, Store
from trichord.store.inspect import verify


def there_and_back(layout: str, content: list[Item], items_per_part: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = write_store(root / "store", content, items_per_part=items_per_part)
        summary = export_store(root / "store", root / "out", layout=layout)  # type: ignore[arg-type]
        assert summary.num_items == len(content)
        assert not [p for p in (root / "out").rglob("*") if p.name.endswith(".partial")]
        back = IMPORTERS[layout](root / "out", root / "back")
        assert (back.num_added, back.num_skipped, back.num_captions_dropped) == (len(content), 0, 0)
        same(store, Store(root / "back"))
        assert verify(root / "back") == []


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=stores, items_per_part=st.integers(1, 3))
def test_any_store_is_restored(layout: str, content: list[Item], items_per_part: int) -> None:
    there_and_back(layout, content, items_per_part)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=stores, items_per_part=st.integers(1, 3))
def test_any_store_is_restored_many_examples(layout: str, content: list[Item], items_per_part: int) -> None:
    there_and_back(layout, content, items_per_part)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_odd_ids_at_once(layout: str) -> None:
    content = []
    for video_id in ODD_IDS:
        for collection in ("howto100m", "b", "b-howto100m"):
            item = some_items(1)[0]
            item.video_id, item.collection = video_id, collection
            content.append(item)
    there_and_back(layout, content, 100)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_of_maximal_length(layout: Any, tmp_path: Path) -> None:
    item = some_items(1)[0]
    content = [replace(item, video_id=f"{'i' * 254}{end}", collection="c" * 128) for end in "ab"]
    store = write_store(tmp_path / ("s" * 255), content)
    export_store(store.folder, tmp_path / ("o" * 255), layout=layout)
    IMPORTERS[layout](tmp_path / ("o" * 255), tmp_path / ("b" * 255))
    same(store, Store(tmp_path / ("b" * 255)))


@pytest.mark.parametrize("words", [WORDS, None])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_release_sample_there_and_back(layout: str, words: Path | None, tmp_path: Path) -> None:
    for name in ("howto100m", "youcook2", "msrvtt"):
        IMPORTERS[name](SAMPLE, tmp_path / "store", words)
    summary = export_store(tmp_path / "store", tmp_path / "out", layout=layout)  # type: ignore[arg-type]
    assert (summary.num_items, summary.num_captions) == (29, 93)
    IMPORTERS[layout](tmp_path / "out", tmp_path / "back")
    same(Store(tmp_path / "store"), Store(tmp_path / "back"))
    IMPORTERS[layout](tmp_path / "out", tmp_path / "store")  # the words are equal, so items can be added
    assert len(Store(tmp_path / "store")) == 29
    if words:
        IMPORTERS[layout](tmp_path / "out", tmp_path / "named", words)
        same(Store(tmp_path / "store"), Store(tmp_path / "named"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_collection_or_split_and_the_same_bytes_again(layout: Any, tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", some_items())
    lines: list[str] = []
    with passing_messages(lines.append):
        whole = export_store(tmp_path / "store", tmp_path / "a", layout=layout)
    export_store(tmp_path / "store", tmp_path / "b", layout=layout)
    before = digests(tmp_path / "a")
    assert before == digests(tmp_path / "b")
    export_store(tmp_path / "store", tmp_path / "a", layout=layout)  # run again
    assert digests(tmp_path / "a") == before
    assert whole.streams == {"visual_2d": 6, "visual_3d": 6, "spectrogram": 6, "audio": 7, "text": 4}
    assert str(whole).startswith("7 items (7 with audio, 6 with spectrogram") and f"import {layout} --root" in str(
        whole
    )
    export_store(tmp_path / "store", tmp_path / "cooking", layout=layout, collection="cooking", split="val")
    IMPORTERS[layout](tmp_path / "cooking", tmp_path / "back")
    wanted = {key: value for key, value in content_of(store).items() if key[0] == "cooking"}
    assert content_of(Store(tmp_path / "back")) == wanted and len(wanted) == 3


# ---- other readers


def test_howto100m_as_published_readers_see_it(tmp_path: Path) -> None:
    import_howto100m(SAMPLE, tmp_path / "store", WORDS)
    out = tmp_path / "out"
    export_store(tmp_path / "store", out)
    store, listed = Store(tmp_path / "store"), (out / "videopaths.txt").read_text().splitlines()
    assert listed[0] == "path" and listed[1] == "howto100m/video_i/iiZFLMTbFjz" and len(listed) == 6
    published = pickle.loads((SAMPLE / "caption.pickle").read_bytes())
    assert pickle.loads((out / "caption.pickle").read_bytes()) == published
    assert json.loads((out / "caption.json").read_text()) == published
    for i, path in enumerate(listed[1:]):
        video = path.rpartition("/")[2]
        with np.load(out / path / f"{video}_spec.npz") as spec, np.load(out / path / f"{video}_2d.npz") as features:
            assert spec["arr_0"].dtype == np.float16 and spec["arr_0"].shape[0] == 40
            np.testing.assert_array_equal(spec["arr_0"].T, store.rows("spectrogram", i))
            np.testing.assert_array_equal(features["features"], store.rows("visual_2d", i))
    (out / "trichord.json").unlink()  # now read as an ordinary release
    import_howto100m(out, tmp_path / "plain", WORDS)
    same(store, Store(tmp_path / "plain"))
    export_store(tmp_path / "store", tmp_path / "json", captions="json")
    assert not (tmp_path / "json" / "caption.pickle").exists()
    summary = import_howto100m(tmp_path / "json", tmp_path / "less", use_3d="no", use_audio="no")
    assert summary.streams == {"visual_2d": 5}


def test_howto100m_lists_only_clips_that_published_loaders_can_draw(tmp_path: Path) -> None:
    content = some_items()
    content[5].streams["spectrogram"] = np.full((9, 40), -1e9, np.float32)  # outside the range of float16
    write_store(tmp_path / "store", content, items_per_part=1)
    out = tmp_path / "out"
    summary = export_store(tmp_path / "store", out)
    assert (out / "videopaths.txt").read_text() == "path\n" + "".join(
        f"howto100m/video_{letter}/howto100m+{name}\n" for letter, name in (("_", "%2E"), ("_", "%2E."), ("x", "x.npy"))
    )
    assert (out / "videopaths_val.txt").read_text() == "path\ncooking/video_a/a%20b\n"
    assert "3 items are in no path list, because they lack captions or a stream that others have" in summary.notes
    assert "1 spectrograms are rounded to float16 in _spec.npz; the exact ones are next to them" in summary.notes
    with np.load(out / "howto100m/video_x/howto100m+x.npy/howto100m+x.npy_spec.npz") as spec:
        assert spec["arr_0"].dtype == np.float16 and (spec["arr_0"] == -65504).all()
    assert set(pickle.loads((out / "caption.pickle").read_bytes())) == set(
        json.loads((out / "caption.json").read_text())
    )


def test_youcook2_as_published_readers_see_it(tmp_path: Path) -> None:
    import_youcook2(SAMPLE, tmp_path / "store", WORDS)
    out = tmp_path / "out"
    assert export_store(tmp_path / "store", out, layout="youcook2").notes == []
    entries = pickle.loads((out / "youcook_val_audio.pkl").read_bytes())
    published = pickle.loads((SAMPLE / "youcook_val.pkl").read_bytes())
    assert len(entries) == 12
    for entry, other in zip(entries, published, strict=True):
        assert (entry["id"], entry["caption"]) == (other["id"], other["caption"])
        assert isinstance(entry["audio"], torch.Tensor) and entry["audio"].dtype == torch.float32
        np.testing.assert_array_equal(entry["audio"].numpy(), np.asarray(other["audio"]))
        for key in ("2d", "3d"):
            assert entry[key].ndim == 1
            np.testing.assert_array_equal(entry[key], other[key])
    for path in (out / "youcook_val_audio.pkl",):
        plain = load_pickle(path)  # without running any code
        assert plain[0].keys() == entries[0].keys()
    (out / "trichord.json").unlink()
    import_youcook2(out, tmp_path / "plain", WORDS)
    same(Store(tmp_path / "store"), Store(tmp_path / "plain"))


def test_youcook2_pools_over_time_and_lists_missing_data(tmp_path: Path) -> None:
    write_store(tmp_path / "store", some_items(), items_per_part=1)
    summary = export_store(tmp_path / "store", tmp_path / "out", layout="youcook2")
    entries = pickle.loads((tmp_path / "out" / "youcook_train_audio.pkl").read_bytes())
    item = some_items()[1]
    np.testing.assert_array_equal(entries[0]["2d"], item.streams["visual_2d"].max(axis=0))
    np.testing.assert_array_equal(entries[0]["2d_full"], item.streams["visual_2d"])
    assert entries[0]["audio"].shape == (40, 70) and entries[0]["audio"].dtype == torch.float16
    assert (entries[0]["start"], entries[0]["end"], entries[0]["caption"]) == (0.0, 6.3, "add the salt")
    lacks = pickle.loads((tmp_path / "out" / "youcook_val_audio.pkl").read_bytes())[1]
    assert lacks["has_audio"] is False and not lacks["audio"].any() and lacks["2d"].tolist() == [0, 0, 0]
    assert lacks["caption"] == 'add the salt  a,"b"\n"'
    assert "1 items lack visual_3d, so readers of the published layout get zeros" in summary.notes
    assert "7 items have audio, which published readers do not support" in summary.notes


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset closes its files late
def test_the_webdataset_library_reads_the_shards(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    content = some_items()
    write_store(tmp_path / "store", content, items_per_part=1)
    export_store(tmp_path / "store", tmp_path / "out", layout="webdataset", shard_items=2)
    shards = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    assert [Path(p).name for p in shards] == [
        "train-000000.tar", "train-000001.tar", "val-000000.tar", "val-000001.tar"
    ]  # fmt: skip
    samples = {}
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():
        samples[sample["json"]["collection"], sample["json"]["id"]] = sample
    assert len(samples) == 7
    for item in content:
        sample = samples[item.collection, item.video_id]
        for name, rows in item.streams.items():
            if len(rows):
                assert sample[f"{name}.npy"].dtype == rows.dtype
                np.testing.assert_array_equal(sample[f"{name}.npy"], rows)
        assert sample["json"]["split"] == item.split and sample["json"]["duration_s"] == item.duration_s
        assert tuple(sample["json"]["captions"]["text"]) == item.captions.text


def test_webdataset_shards_by_size(tmp_path: Path) -> None:
    write_store(tmp_path / "store", some_items(), items_per_part=1)
    export_store(tmp_path / "store", tmp_path / "out", layout="webdataset", shard_bytes=1)
    assert len(list((tmp_path / "out").glob("*.tar"))) == 7
    IMPORTERS["webdataset"](tmp_path / "out", tmp_path / "back")
    same(Store(tmp_path / "store"), Store(tmp_path / "back"))


def test_npy_has_the_same_path_under_each_root(tmp_path: Path) -> None:
    import_howto100m(SAMPLE, tmp_path / "store", WORDS)
    out = tmp_path / "out"
    export_store(tmp_path / "store", out, layout="npy")
    array = np.load(out / "visual_3d" / "howto100m" / "iiZFLMTbFjz.npy")
    np.testing.assert_array_equal(array, Store(tmp_path / "store").rows("visual_3d", 0))
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["captions", "spectrogram", "visual_2d", "visual_3d"]
    captions = json.loads((out / "captions" / "howto100m" / "iiZFLMTbFjz.json").read_text())
    assert captions == json.loads((SAMPLE / "caption.json").read_text())["iiZFLMTbFjz"]
    features = {"features": out / "visual_2d", "features_3d": out / "visual_3d", "paths": out / "index.csv"}
    table = {"captions": SAMPLE / "caption.json", "use_audio": "no"}
    assert import_howto100m(out, tmp_path / "plain", WORDS, **features, **table).num_added == 5  # type: ignore[arg-type]


# ---- killed, run again, refused


def export_and_die(store: Path, out: Path, layout: Any) -> None:
    """Run in a process: export four items, and exit during the fifth without cleaning up."""
    num_calls = 0

    def record(opened: Store, i: int) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 5:
            os._exit(9)
        return record_of(opened, i)

    export_files.record_of = export_packs.record_of = record
    export_store(store, out, layout=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_killed_export_is_incomplete_until_it_is_repeated(layout: Any, tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", some_items())
    export_store(tmp_path / "store", tmp_path / "whole", layout=layout)
    whole, out = digests(tmp_path / "whole"), tmp_path / "out"
    process = FORKSERVER.Process(target=export_and_die, args=(tmp_path / "store", out, layout))
    process.start()
    process.join()
    assert process.exitcode == 9
    for name, digest in digests(out).items():
        if not name.endswith(".partial") and name != "trichord.json":
            assert whole[name] == digest, name
    with pytest.raises(TrichordError, match="contains an incomplete export; run `trichord store export` again"):
        IMPORTERS[layout](out, tmp_path / "back")
    export_store(tmp_path / "store", out, layout=layout)
    assert digests(out) == whole
    IMPORTERS[layout](out, tmp_path / "back")
    same(store, Store(tmp_path / "back"))


def test_an_interruption_or_a_full_disk_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trichord.releases import export_files

    write_store(tmp_path / "store", some_items())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_files.np, "savez", full)
    with pytest.raises(
        TrichordError, match="No space left on device.*check the disk and the path, then run the command again"
    ):
        export_store(tmp_path / "store", tmp_path / "out")
    assert sorted(digests(tmp_path / "out")) == ["trichord.json", "word2vec.bin"]


def test_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "store", some_items())
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("years of work")

    def refusal(**options: Any) -> str:
        with pytest.raises(TrichordError) as caught:
            export_store(tmp_path / "store", **{"out": tmp_path / "out", **options})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert refusal(out=taken) == f"{taken}: contains other files; choose a new or empty folder with --out"
    assert "contains other files" in refusal(out=tmp_path / "store")
    assert "is not a folder" in refusal(out=taken / "thesis.txt")
    assert "cannot be written (Not a directory)" in refusal(out=taken / "thesis.txt" / "x")
    assert "unknown layout 'zip'; expected one of: howto100m" in refusal(layout="zip")
    assert "has no items of pets; expected one of: cooking val, howto100m train" in refusal(collection="pets")
    assert "--captions has no effect in layout npy" in refusal(layout="npy", captions="json")
    assert "--shard_items and --shard_bytes have no effect" in refusal(shard_items=3)
    assert "shards of 0 items" in refusal(layout="webdataset", shard_items=0)
    assert "does not exist" in str(pytest.raises(TrichordError, export_store, tmp_path / "no", tmp_path / "out").value)
    assert not (tmp_path / "out").exists()
    export_store(tmp_path / "store", tmp_path / "out", layout="npy")
    assert "contains another export (see trichord.json)" in refusal(layout="npy", split="val")
    other = some_items(2)
    for item in other:
        item.streams = {name: item.streams["audio"] for name in ("A", "a")}
        item.rates_hz = dict.fromkeys("aA", 1.0)
    write_store(tmp_path / "capitals", other)
    with pytest.raises(TrichordError, match="differ only in case"):
        export_store(tmp_path / "capitals", tmp_path / "caps", layout="webdataset")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_holds_one_item_however_many_there_are(layout: Any, tmp_path: Path) -> None:
    content = []
    for n in range(24):
        rows = np.full((20_000, 40), -n, np.float16)  # 1.6 MB
        item = some_items(1)[0]
        item.video_id, item.streams, item.rates_hz = f"v{n}", {"spectrogram": rows}, {"spectrogram": 100.0}
        content.append(item)
    write_store(tmp_path / "store", content, items_per_part=8)
    del content
    tracemalloc.start()
    try:
        export_store(tmp_path / "store", tmp_path / "out", layout=layout)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16e6  # of 38 MB


# ---- pieces


@settings(max_examples=200, deadline=None)
@given(a=texts, b=texts)
def test_different_ids_have_different_file_names(a: str, b: str) -> None:
    a, b = f"v{a}", f"v{b}"
    for dots in (True, False):
        assert (component(a, dots=dots) == component(b, dots=dots)) == (a == b)
        name = component(a, dots=dots)
        assert name.isascii() and "/" not in name and len(name) <= 100 and (dots or "." not in name)
    assert component("8N4mGHod-_s") == "8N4mGHod-_s" and component("..") == "%2E."
    assert component("é" * 50) != component("é" * 51) and len(component("x" * 5000)) == 100


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@settings(max_examples=40, deadline=None)
@given(values=st.lists(plain, max_size=4), array=arrays(st.sampled_from([np.float16, np.float32]), (3, 2)))
def test_pickles_written_in_pieces_are_pickles(values: list[Any], array: np.ndarray, tmp_path_factory: Any) -> None:
    for one in (array, array.T, array[:0]):
        pieces = [encoded(value) + APPEND for value in [*values, one, {"t": Tensor(one)}]]
        data = START + EMPTY_LIST + b"".join(pieces) + STOP
        path = tmp_path_factory.mktemp("p") / "a.pkl"
        path.write_bytes(data)
        for *loaded_values, rows, tensor in (pickle.loads(data), load_pickle(path)):
            assert loaded_values == values
            assert (rows.dtype, rows.shape, rows.tobytes()) == (one.dtype, one.shape, one.tobytes())
            copy = tensor["t"].numpy()
            assert (copy.dtype, copy.shape, copy.tobytes()) == (one.dtype, one.shape, one.tobytes())
