"""Stores to export, and a comparison of two stores bit by bit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from store_helpers import VOCABULARY, word_vectors
from trichord.captions import Captions
from trichord.store import Item, Store, StoreWriter
from trichord.store.items import PER_CAPTION

LAYOUTS = ["howto100m", "youcook2", "webdataset", "npy"]
DIMS = {"visual_2d": 3, "visual_3d": 2, "spectrogram": 40, "audio": 4, "text": 2, "own.Stream-1": 1}
ODD_IDS = ["train/egg/a", ".", "..", "../x", "None/", "x.npy", "a b", 'q"uo,te', "#2", "100", "+", "~", "%2F", "a\rb"]
ODD_IDS += ["é", "e\u0301", "\u2028", "x" * 300, "y" * 299 + "/", "CON", "\0", "=1+1", "-rf"]
ODD_TEXTS = [
    "add the salt",
    "",
    'a,"b"\n"',
    "Um\r\nstir",
    "crème it's\u2028now",
    "\0",
    "\ufeffadd",
    " now ",
    "'",
    "NaN",
]

line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1, max_size=8)
ids = st.sampled_from(ODD_IDS) | line
times = st.floats(allow_nan=False, allow_infinity=False)
texts = st.sampled_from(ODD_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def items(draw: st.DrawFn) -> Item:
    spoken = draw(st.lists(texts, max_size=3))
    start_s, end_s = (draw(st.lists(times, min_size=len(spoken), max_size=len(spoken))) for _ in range(2))
    streams: dict[str, np.ndarray] = {}
    rates: dict[str, float] = {}
    for name in draw(st.lists(st.sampled_from(list(DIMS)), unique=True)):
        rate_hz = PER_CAPTION if name == "text" else draw(st.sampled_from([1.0, 1.5, 100.0, 0.0, 29.97, 1e-9]))
        num_rows = len(spoken) if rate_hz == PER_CAPTION else 1 if rate_hz == 0 else draw(st.integers(1, 4))
        if num_rows:
            dtype = draw(st.sampled_from([np.float16, np.float32]))
            width = 8 * np.dtype(dtype).itemsize
            values = st.floats(allow_nan=False, allow_infinity=False, width=width)
            streams[name], rates[name] = draw(arrays(dtype, (num_rows, DIMS[name]), elements=values)), rate_hz
    return Item(
        video_id=draw(ids),
        collection=draw(st.sampled_from(["howto100m", "a b", "None", ".", "é"])),
        split=draw(st.sampled_from(["", "train", "val", "test", "odd/split.1"])),
        duration_s=draw(st.floats(0, 1e300)),
        streams=streams,
        rates_hz=rates,
        captions=Captions(np.array(start_s, np.float64), np.array(end_s, np.float64), tuple(spoken)),
        source=draw(st.sampled_from(["", "abc:def"])),
    )


stores = st.lists(items(), min_size=1, max_size=5, unique_by=lambda item: (item.collection, item.video_id))


def write_store(path: Path, content: list[Item], *, items_per_part: int = 2) -> Store:
    with StoreWriter(path, word_vectors(words=VOCABULARY)) as writer:
        for number, one in enumerate(content, 1):
            writer.add(one)
            if number % items_per_part == 0:
                writer.flush()
    return Store(path)


def some_items(count: int = 7) -> list[Item]:
    """Return items of two splits and two collections: one lacks streams, one has no caption, and ids are unusual."""
    rng = np.random.default_rng(0)
    result = []
    for n in range(count):
        spoken = tuple(ODD_TEXTS[: n % 4])
        streams = {
            "visual_2d": rng.random((n + 2, 3)).astype(np.float16),
            "visual_3d": rng.random((2 * n + 1, 2)).astype(np.float32),
            "spectrogram": (-80 * rng.random((50 * n + 20, 40))).astype(np.float16),
            "audio": rng.random((n + 1, 4)).astype(np.float32),
            "text": rng.random((len(spoken), 2)).astype(np.float32),
        }
        if n == 3:
            streams = {"audio": streams["audio"]}
        rates = {"visual_2d": 1.0, "visual_3d": 1.5, "spectrogram": 100.0, "audio": 2.0, "text": PER_CAPTION}
        start_s = np.arange(len(spoken)) * 2.1
        captions = Captions(start_s, start_s + 1.7, spoken)
        collection, split = ("howto100m", "train") if n % 3 else ("cooking", "val")
        result.append(Item(ODD_IDS[n], collection, split, 5.3 + n, streams, rates, captions, f"{n}:x"))
    return result


def content_of(store: Store) -> dict[tuple[str, str], Any]:
    """Return everything that a store holds for each item, with arrays as dtype, shape and bytes."""
    content = {}
    for i in range(len(store)):
        streams = {
            name: (str(rows.dtype), rows.shape, rows.tobytes(), store.rate_hz(name, i))
            for name in store.streams
            if len(rows := store.rows(name, i))
        }
        captions = [
            (
                store.caption_text(i, c),
                [(store.words[w], store.word_vectors[w].tobytes()) for w in store.word_ids(i, c)],
            )
            for c in range(store.num_captions(i))
        ]
        spans = [times.tobytes() for times in store.caption_spans(i)]
        key = store.collection(i), store.video_id(i)
        assert key not in content
        content[key] = store.split(i), store.duration_s(i).hex(), store.source(i), streams, captions, spans
    return content


def same(a: Store, b: Store) -> None:
    first, second = content_of(a), content_of(b)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert value == second[key], key
    assert (a.word_source, a.lowercase, a.word_dim) == (b.word_source, b.lowercase, b.word_dim)


def digests(folder: Path) -> dict[str, str]:
    """Return the hash of every file in a folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
