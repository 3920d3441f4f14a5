"""A summary of the committed parts of a store for its writers, kept in memory and updated with the parts added since.

Parts are never changed, only added (or deleted by hand), so the names of the parts tell what is new. If a part is gone, or
another process has added words, everything is read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trichord.store.columns import checked_parts
from trichord.store.manifest import Manifest, part_paths
from trichord.store.store import Store

WordTable = tuple[str, bool, int, str]


def new_parts(store: Path, seen: list[str]) -> tuple[list[Manifest], bool]:
    """Read the parts that were added to a store.

    Args:
        store: The folder of the store.
        seen: The names of the parts that are known already, in order.

    Returns:
        The parts that are not among `seen`, in order, and whether a part of `seen` is gone. In that case all parts are returned.

    Raises:
        TrichordError: A new part is damaged.
    """
    paths = part_paths(store)
    gone = [path.name for path in paths[: len(seen)]] != seen
    return checked_parts(paths if gone else paths[len(seen) :], None), gone


class Committed:
    """Keys, widths and words of the committed items of a store, for its writers (`StoreWriter`).

    Attributes:
        splits: The split of each item, by its `item_key`.
        dims: The width of each stream.
        word_table: (source, lowercase, width, splitting) of the words; None while the store is empty.
        words: The spelling of each word id.
        vectors: The vector of each word id.
        word_ids: The id of each word.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Discard everything, so that the next `renew` reads the store again."""
        self.splits: dict[str, str] = {}
        self.dims: dict[str, int] = {}
        self.word_table: WordTable | None = None
        self.words: list[str] = []
        self.vectors: list[np.ndarray] = []
        self.word_ids: dict[str, int] = {}
        self._sources: set[bytes] = set()
        self._parts: list[str] = []

    @property
    def next_part(self) -> int:
        """The number of the next part."""
        return int(Path(self._parts[-1]).stem) + 1 if self._parts else 0

    def renew(self, store: Path) -> None:
        """Read the parts that other processes committed.

        Raises:
            TrichordError: The store is damaged.
        """
        names = [path.name for path in part_paths(store)]
        if names == self._parts:
            return
        self.clear()
        if not names:
            return
        opened = Store(store)
        rows = range(len(opened))
        self.splits = {item_key(opened.collection(i), opened.video_id(i)): opened.split(i) for i in rows}
        self._sources = {
            _digest(opened.collection(i), source, opened.rules(i)) for i in rows if (source := opened.source(i))
        }
        self.dims = {name: info.dim for name, info in opened.streams.items()}
        self.word_table = (opened.word_source, opened.lowercase, opened.word_dim, opened.word_splitting)
        self.words, self.vectors = list(opened.words), list(opened.word_vectors)
        self.word_ids = {word: i for i, word in enumerate(self.words) if word}
        self._parts = names

    def add_part(self, name: str, rows: Iterator[tuple[str, str, str]], word_table: WordTable) -> None:
        """Record a part that was just committed.

        Args:
            name: The name of the part's Parquet file.
            rows: (collection, source, rules) of its items. The other attributes contain the items already.
            word_table: The word table of the part.
        """
        self._parts.append(name)
        self._sources |= {_digest(*row) for row in rows if row[1]}
        self.word_table = word_table

    def has_source(self, collection: str, source: str, rules: str = "") -> bool:
        """Return whether a committed item of the collection has exactly this `Item.source` and `Item.rules`."""
        return _digest(collection, source, rules) in self._sources


def item_key(collection: str, video_id: str) -> str:
    """Return the key that identifies an item in a store."""
    return f"{collection}\n{video_id}"


def _digest(collection: str, source: str, rules: str) -> bytes:
    text = f"{item_key(collection, source)}\n{rules}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
