"""A small store with a further modality: feature arrays carry the same words as the text, pictures and sound of `tiny`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from tiny import CLIP_S, CLIPS, NUM_WORDS, WORDS, tiny_item, word_vectors
from trichord import modality
from trichord.store import Item, StoreWriter

DEPTH_DIM = 7


@contextmanager
def declared(**modalities: str) -> Iterator[None]:
    """Declare these modalities only."""
    before = dict(modality._declared)
    modality._declared.clear()
    try:
        modality.declare(modalities)
        yield
    finally:
        modality._declared.clear()
        modality._declared.update(before)


def with_features(item: Item, index: int, name: str, dim: int, rate_hz: float = 1.0) -> Item:
    """Return the item with a stream of signed features that are computed from the words of its captions."""
    shapes = np.random.default_rng(5).standard_normal((NUM_WORDS, dim))
    word_indices = np.array([[WORDS.index(word) for word in text.split()] for text in item.captions.text])
    rows = shapes[word_indices].mean(1) + 0.02 * np.random.default_rng([6, index]).standard_normal((CLIPS, dim))
    rows = np.repeat(rows, int(CLIP_S * rate_hz), axis=0).astype(np.float16)
    return replace(item, streams={**item.streams, name: rows}, rates_hz={**item.rates_hz, name: rate_hz})


def write_store(
    path: Path,
    *,
    num_train: int = 12,
    num_test: int = 4,
    dims: dict[str, int] | None = None,
    letters: dict[str, str] | None = None,
    missing: tuple[int, ...] = (),
) -> Path:
    """Write a store of `tiny` items.

    Args:
        path: Folder of the store.
        num_train, num_test: Number of items of each split.
        dims: Width of each further modality, by name.
        letters: Its letter; by default, the first letter of its name.
        missing: Items that lack the further modalities.
    """
    dims = {"depth": DEPTH_DIM} if dims is None else dims
    with StoreWriter(path, word_vectors()) as writer:
        for index in range(num_train + num_test):
            item = tiny_item(index, "train" if index < num_train else "test")
            for name, dim in dims.items() if index not in missing else ():
                item = with_features(item, index, name, dim)
            writer.add(item)
    record = {
        name: {
            "name": "arrays",
            "digest": name,
            "parameters": {"modality": name, "letter": (letters or {}).get(name, name[0])},
        }
        for name in dims
    }
    (path / "encoders.json").write_text(json.dumps(record))
    return path
