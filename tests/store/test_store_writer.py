"""Writing of stores: sessions, interruptions, full disks."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from paths import HELPERS
from store_helpers import build, captions, item, word_vectors
from trichord.captions import Captions, tokenize
from trichord.errors import TrichordError
from trichord.store import Item, Store, StoreWriter, StreamInfo, WordVectors
from trichord.store import writer as writer_module
from trichord.store.inspect import verify

DIMS = {"visual_2d": 5, "visual_3d": 3, "spectrogram": 40, "depth.v2": 1}
WORDS = st.sampled_from(["add", "the", "Um", "crème", "xyz", "塩", "🧂", "it's", "ADD"])
TEXTS = st.lists(WORDS | st.text(), max_size=6)
IDS = st.text(st.characters(exclude_characters="\n", codec="utf-8"), min_size=1)


@st.composite
def random_items(draw: st.DrawFn) -> list[Item]:
    ids = draw(st.lists(IDS, unique=True, max_size=7))
    items = []
    for video_id in ids:
        streams, rates_hz = {}, {}
        for name in draw(st.sets(st.sampled_from(sorted(DIMS)))):
            num_rows = draw(st.integers(1, 9))
            dtype = draw(st.sampled_from([np.float16, np.float32]))
            seed = draw(st.integers(0, 2**32 - 1))
            streams[name] = np.random.default_rng(seed).standard_normal((num_rows, DIMS[name])).astype(dtype)
            rates_hz[name] = draw(st.sampled_from([1.0, 1.5, 100.0] + [0.0] * (num_rows == 1)))
        texts = tuple(" ".join(words) for words in draw(st.lists(TEXTS, max_size=4)))
        times = np.sort(np.random.default_rng(len(texts)).uniform(0, 60, (2, len(texts))), axis=0)
        items.append(
            Item(
                video_id,
                draw(st.sampled_from(["howto100m", "mine"])),
                draw(st.sampled_from(["train", "test", ""])),
                draw(st.floats(0, 1e5)),
                streams,
                rates_hz,
                Captions(times[0], times[1], texts),
            )
        )
    return items


def check_against(store: Store, items: list[Item], words: WordVectors) -> None:
    """Compare every accessor with the items, and slices with loops over rows."""
    assert len(store) == len(items)
    for i, one in enumerate(items):
        assert (store.video_id(i), store.collection(i), store.split(i)) == (one.video_id, one.collection, one.split)
        assert store.duration_s(i) == one.duration_s
        for name in store.streams:
            assert bool(store.has(name)[i]) == (name in one.streams)
            if name not in one.streams:
                assert store.num_rows(name, i) == 0 and np.isnan(store.rate_hz(name, i))
                assert store.rows(name, i).shape == (0, DIMS[name])
                continue
            assert store.rate_hz(name, i) == one.rates_hz[name]
            assert store.num_rows(name, i) == len(one.streams[name])
            for begin, end in ((0, None), (1, 3), (2, None), (-4, 2), (3, 99), (7, 5), (0, -1), (50, None)):
                rows = store.rows(name, i, begin, end)
                last = len(one.streams[name]) if end is None else end
                expected = [row for t, row in enumerate(one.streams[name]) if begin <= t < last]
                assert rows.shape == (len(expected), DIMS[name])
                for row, other in zip(rows, expected, strict=True):
                    assert (row == other).all()
        assert store.num_captions(i) == len(one.captions)
        np.testing.assert_array_equal(store.caption_spans(i)[0], one.captions.start_s)
        np.testing.assert_array_equal(store.caption_spans(i)[1], one.captions.end_s)
        vectors = dict(zip(words.words, words.vectors, strict=True))
        for c, text in enumerate(one.captions.text):
            assert store.caption_text(i, c) == text
            tokens = [token.lower() if words.lowercase else token for token in tokenize(text)]
            known = [token for token in tokens if token in vectors]
            ids = store.word_ids(i, c)
            assert ids.dtype == np.int32 and [store.words[k] for k in ids] == known
            for k, token in zip(ids, known, strict=True):
                assert (store.word_vectors[k] == vectors[token]).all()


@settings(max_examples=25, deadline=None)
@given(random_items(), st.integers(1, 3000), st.booleans(), st.integers(0, 7))
def test_items_are_read_as_written_in_one_session_or_two(
    items: list[Item], shard_bytes: int, lowercase: bool, cut: int
) -> None:
    words = word_vectors(lowercase=lowercase)
    with tempfile.TemporaryDirectory() as folder:
        for session in (items[:cut], items[cut:]):
            with StoreWriter(folder, words, shard_bytes=shard_bytes) as writer:
                for one in session:
                    writer.add(one)
            assert writer.num_added == len(session)
        if not items:
            with pytest.raises(TrichordError, match="contains no items; fill it with `trichord import`"):
                Store(folder)
            return
        store = Store(folder)
        assert verify(Path(folder)) == []
        check_against(store, items, words)
        pairs = [(one.collection, one.split) for one in items]
        assert store.collections() == {pair: pairs.count(pair) for pair in pairs}


def test_parts_are_safetensors_for_any_reader_and_aligned(tmp_path: Path) -> None:
    path = build(tmp_path / "s", [item("a", 3), item("b", 2)])
    tensors = load_file(path / "parts" / "00000.safetensors")
    expected = np.concatenate([item("a", 3).streams["visual_2d"], item("b", 2).streams["visual_2d"]])
    assert tensors["visual_2d"].dtype == np.float32 and (tensors["visual_2d"] == expected).all()
    assert tensors["caption_text"].tobytes() == b"add the saltadd the salt"
    assert tensors["word_ids"].tolist() == [0, 1, 2, 0, 1, 2] and tensors["word_offsets"].tolist() == [0, 3, 6]
    rows = Store(path).rows("visual_2d", 1)
    assert rows.flags.aligned and rows.flags.c_contiguous and not rows.flags.writeable


def test_word_ids_are_given_by_first_use_and_never_change(tmp_path: Path) -> None:
    path = build(tmp_path / "s", [item("a", texts=("salt the", "")), item("b", texts=("Um salt",))], items_per_part=1)
    first = Store(path)
    assert first.words == ["salt", "the", "Um"]
    later = word_vectors(words=["stir", "salt", "now"])  # another session wants other words of the same table
    build(path, [item("c", texts=("now the salt stir",))], words=later)
    second = Store(path)
    assert second.words == ["salt", "the", "Um", "now", "stir"]
    assert second.word_ids(2, 0).tolist() == [3, 1, 0, 4]
    for i, c in ((0, 0), (0, 1), (1, 0)):
        assert second.word_ids(i, c).tolist() == first.word_ids(i, c).tolist()
    assert (second.word_vectors[:3] == first.word_vectors).all()


def test_a_deleted_part_takes_no_words_from_the_others(tmp_path: Path) -> None:
    texts = ["salt the", "stir now", "now salt", "it's the salt"]
    items = [item(f"v{k}", texts=(text,)) for k, text in enumerate(texts)]
    path = build(tmp_path / "s", items, items_per_part=1)
    for suffix in ("safetensors", "parquet"):
        (path / "parts" / f"00001.{suffix}").unlink()
    assert verify(path) == []
    store = Store(path)
    assert store.words == ["salt", "the", "", "now", "it's"]
    read = [" ".join(store.words[k] for k in store.word_ids(i, 0)) for i in range(3)]
    assert read == [texts[0], *texts[2:]]
    build(path, [items[1]])
    assert sorted(p.name for p in (path / "parts").glob("*.parquet")) == [f"0000{k}.parquet" for k in (0, 2, 3, 4)]
    assert verify(path) == []
    store = Store(path)
    vectors = dict(zip(word_vectors().words, word_vectors().vectors, strict=True))
    for i, text in enumerate([texts[0], *texts[2:], texts[1]]):
        tokens = text.split()
        assert (store.word_vectors[store.word_ids(i, 0)] == np.array([vectors[token] for token in tokens])).all()


def test_an_exception_keeps_added_items(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path / "s", word_vectors()) as writer:
        writer.add(item("a"))
        writer.add(item("b"))
        raise KeyboardInterrupt
    assert [Store(tmp_path / "s").video_id(i) for i in range(2)] == ["a", "b"]


def test_a_part_is_committed_when_its_bytes_have_gathered(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", word_vectors(), shard_bytes=3000) as writer:
        for k in range(5):
            writer.add(item(f"v{k}", 6))  # 6 * 4 * 4 + 18 * 40 * 2 = 1,536 bytes and its caption
        assert len(Store(tmp_path / "s")) == 4
        writer.flush()
        assert len(Store(tmp_path / "s")) == 5
        writer.flush()
    assert len(list((tmp_path / "s" / "parts").glob("*.parquet"))) == 3


def test_arrays_are_copied_when_they_are_added(tmp_path: Path) -> None:
    one = item("a")
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        writer.add(one)
        one.streams["visual_2d"][:] = -1
    assert (Store(tmp_path / "s").rows("visual_2d", 0) == item("a").streams["visual_2d"]).all()


def test_precision_is_kept_and_a_mix_is_widened(tmp_path: Path) -> None:
    def one(video_id: str, dtype: str) -> Item:
        return replace(item(video_id), streams={"x": np.full((2, 3), 1 / 3, dtype)}, rates_hz={"x": 1.0})

    build(tmp_path / "half", [one("a", "float16")])
    assert Store(tmp_path / "half").streams == {"x": StreamInfo(3, "float16")}
    build(tmp_path / "mixed", [one("a", "float16"), one("b", "float64"), one("c", "float16")])
    store = Store(tmp_path / "mixed")
    assert store.streams == {"x": StreamInfo(3, "float32")}
    assert store.rows("x", 0).dtype == np.float32 and (store.rows("x", 0) == np.float16(1 / 3)).all()
    assert (store.rows("x", 1) == np.float32(1 / 3)).all()
    assert store.rows("x", 2).dtype == np.float16
    build(tmp_path / "swapped", [one("a", ">f4")])
    assert (Store(tmp_path / "swapped").rows("x", 0) == np.float32(1 / 3)).all()


def test_a_stream_without_rows_counts_as_missing(tmp_path: Path) -> None:
    one = replace(item("a"), streams={"visual_2d": np.empty((0, 4), np.float32)}, rates_hz={})
    store = Store(build(tmp_path / "s", [one, item("b")]))
    assert store.has("visual_2d").tolist() == [False, True] and store.has("nothing").tolist() == [False, False]


GRID = np.ones((4, 4), np.float32)
NAN_ROW = np.where(np.arange(4)[:, None] == 2, np.nan, GRID)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"streams": {"visual_2d": NAN_ROW}}, "howto/v: visual_2d contains NaN or infinity (first in row 2); extract"),
        ({"streams": {"visual_2d": GRID * np.inf}}, "howto/v: visual_2d contains NaN or infinity (first in row 0)"),
        (
            {"streams": {"visual_2d": GRID.astype(np.float64) * 1e300}},
            "howto/v: visual_2d contains numbers outside the range of float32",
        ),
        (
            {"streams": {"visual_2d": np.ones((4, 5), np.float32)}},
            "howto/v: visual_2d has width 5, but 4 in this store",
        ),
        ({"streams": {"visual_2d": np.ones(4, np.float32)}}, "shape (4,), expected (time steps, width); extract"),
        ({"streams": {"visual_2d": np.ones((4, 4), int)}}, "visual_2d has dtype int64, expected float16 or float32"),
        ({"streams": {"spectrogram": np.ones((40, 7), np.float16)}}, "expected time first, (frames, 40); extract"),
        ({"streams": {"caption": GRID}, "rates_hz": {"caption": 1.0}}, "howto/v: 'caption' is not a valid stream name"),
        ({"streams": {"a/b": GRID}, "rates_hz": {"a/b": 1.0}}, "howto/v: 'a/b' is not a valid stream name"),
        ({"rates_hz": {"spectrogram": 1.0}}, "howto/v: visual_2d has a rate of None Hz, expected 0 or more"),
        ({"rates_hz": {"visual_2d": -2.0, "spectrogram": 1.0}}, "howto/v: visual_2d has a rate of -2.0 Hz"),
        ({"rates_hz": {"visual_2d": -1.0, "spectrogram": 1.0}}, "howto/v: visual_2d has 6 rows for 1 captions"),
        ({"source": "a\nb"}, "its source is not a single line of text"),
        ({"rates_hz": {"visual_2d": 0.0, "spectrogram": 1.0}}, "is pooled (rate 0) but has 6 rows, expected 1"),
        ({"duration_s": float("nan")}, "howto/v: its duration is nan s; check the source"),
        ({"duration_s": -1.0}, "howto/v: its duration is -1.0 s"),
        ({"video_id": ""}, "item 'howto/': its video_id is not a single line of text; correct it"),
        ({"video_id": "\ud800"}, "its video_id is not a single line of text"),
        ({"split": "a\nb"}, "its split is not a single line of text"),
        ({"captions": Captions(np.zeros(1), np.full(1, np.nan), ("a",))}, "captions have times that are not finite"),
        ({"video_id": "first"}, "howto/first: is in "),
    ],
)
def test_an_invalid_item_is_refused_completely(tmp_path: Path, change: dict[str, object], text: str) -> None:
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        writer.add(item("first"))
        with pytest.raises(TrichordError) as caught:
            writer.add(replace(item("v"), **change))
        assert text in str(caught.value) and "\n" not in str(caught.value) and ";" in str(caught.value)
        assert not writer.contains("howto", "v") and writer.num_added == 1
        writer.add(item("v"))
    assert len(Store(tmp_path / "s")) == 2 and verify(tmp_path / "s") == []


def test_an_item_is_there_once_across_sessions_and_may_be_in_two_collections(tmp_path: Path) -> None:
    build(tmp_path / "s", [item("a")])
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        assert writer.contains("howto", "a") and not writer.contains("mine", "a") and not writer.contains("howto", "b")
        with pytest.raises(TrichordError, match="howto/a: is in .* already; skip it or choose another collection"):
            writer.add(item("a"))
        writer.add(replace(item("a"), collection="mine"))
        assert writer.contains("mine", "a")
    assert Store(tmp_path / "s").collections() == {("howto", "train"): 1, ("mine", "train"): 1}


def test_text_that_is_not_unicode_is_stored_as_a_question_mark(tmp_path: Path) -> None:
    store = Store(build(tmp_path / "s", [replace(item("a"), captions=captions("add \ud800 salt"))]))
    assert store.caption_text(0, 0) == "add ? salt" and store.word_ids(0, 0).tolist() == [0, 1]


def test_the_ledger_keeps_each_note_once_in_one_line(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        writer.skip("v/a_2d.npz", "is cut\n short")
        writer.skip("v/a_2d.npz", "is cut short")
        writer.skip("b", "Ü")
        assert writer.num_skipped == 3
    ledger = tmp_path / "s" / "skipped.jsonl"
    with ledger.open("a") as file:
        file.write('{"source": "torn')
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        writer.skip("b", "Ü")
        writer.skip("c", "new")
        writer.add(item("v"))
    entries = [("v/a_2d.npz", "is cut short"), ("b", "Ü"), ("c", "new")]
    store = Store(tmp_path / "s")
    assert store.skipped() == [{"source": source, "reason": reason} for source, reason in entries]
    assert [json.loads(line)["source"] for line in ledger.read_text().splitlines() if line.endswith("}")] == [
        source for source, _ in entries
    ]
    assert verify(tmp_path / "s") == [f"{ledger}: line 3 is not a valid entry and is ignored; delete the line"]


def test_two_writers_in_one_folder_are_refused(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        with pytest.raises(
            TrichordError, match="s: another process is writing to it; wait until it ends or use another"
        ):
            StoreWriter(tmp_path / "s", word_vectors())
        writer.add(item("a"))
    build(tmp_path / "s", [item("b")])
    with pytest.raises(TrichordError, match="contains words from test 3-d, not from other"):
        StoreWriter(tmp_path / "s", word_vectors("other"))
    build(tmp_path / "s", [item("c")])  # the refused one let go of the lock
    assert len(Store(tmp_path / "s")) == 3


@pytest.mark.parametrize(
    "words",
    [
        word_vectors("other 3-d"),
        word_vectors(lowercase=True),
        WordVectors(["add"], np.ones((1, 4), np.float32), "test 3-d"),
    ],
)
def test_one_store_holds_words_of_one_table(tmp_path: Path, words: WordVectors) -> None:
    build(tmp_path / "s", [item("a")])
    with pytest.raises(TrichordError, match="contains words from test 3-d.*use the same word vectors or another store"):
        StoreWriter(tmp_path / "s", words)


@pytest.mark.parametrize("vectors", [np.ones((2, 3)), np.ones(1), np.full((1, 3), np.nan)])
def test_broken_word_vectors_are_refused(tmp_path: Path, vectors: np.ndarray) -> None:
    with pytest.raises(
        TrichordError, match="word vectors x: expected one row of finite numbers per word; choose another file"
    ):
        StoreWriter(tmp_path / "s", WordVectors(["add"], vectors.astype(np.float32), "x"))


def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrichordError, match="file: cannot be opened for writing .*check the disk"):
        StoreWriter(tmp_path / "file", word_vectors())


def test_a_full_disk_is_an_error_and_leaves_no_partial_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        writer.add(item("a"))
        writer.flush()
        writer.add(item("b"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(TrichordError, match="s: cannot write part 00001 .No space left.*; check the disk"):
                writer.flush()
        assert sorted(p.name for p in (tmp_path / "s" / "parts").iterdir()) == ["00000.parquet", "00000.safetensors"]
        assert len(Store(tmp_path / "s")) == 1
    assert len(Store(tmp_path / "s")) == 2  # once there is room again, nothing was lost


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from store_helpers import item, word_vectors
from trichord.store import StoreWriter, writer
with StoreWriter(sys.argv[1], word_vectors()) as store:
    store.add(item("a"))
    store.flush()
    store.add(item("b", texts=("stir now",)))
    writer.write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    store.flush()
"""


def test_a_killed_writer_leaves_an_orphan_that_the_next_one_removes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    source = Path(writer_module.__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(HELPERS)],
        env={**os.environ, "PYTHONPATH": str(source)},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    orphan = path / "parts" / "00001.safetensors"
    assert orphan.exists()
    torn = path / "parts" / ".00001.parquet.tmp"
    torn.write_bytes(b"PAR1")
    assert len(Store(path)) == 1 and Store(path).words == ["add", "the", "salt"]
    left = "was left by a writer that did not finish; it is ignored, and removed the next time the store is written"
    assert verify(path) == [f"{torn}: {left}", f"{orphan}: {left}"]
    with StoreWriter(path, word_vectors()) as writer:
        assert not orphan.exists() and not torn.exists()
        assert not writer.contains("howto", "b")
        writer.add(item("b", texts=("now stir",)))
    assert Store(path).words == ["add", "the", "salt", "now", "stir"] and verify(path) == []
