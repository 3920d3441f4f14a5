"""What the committed parts of a store hold, as those need it who commit or look again and again: kept in memory, and renewed
by the parts that have come since.

Parts are never changed, only added (and deleted by hand). So the names of the parts tell what is new; where a part is gone,
or another process has added words, everything is read again.
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
    """The parts that are not among those `seen`, in order, and whether one of these is gone, when all parts are given.

    Raises TrichordError when a new part is damaged.
    """
    paths = part_paths(store)
    gone = [path.name for path in paths[: len(seen)]] != seen
    return checked_parts(paths if gone else paths[len(seen) :], None), gone


class Committed:
    """Keys, widths and words of a store's committed items, for its writers (`StoreWriter`).

    Attributes:
        splits: Split of each item by its `item_key`.
        dims: Width of each stream.
        word_table: (source, lowercase, width, splitting) of the words; None while the store is empty.
        words, vectors: By word id.
        word_ids: Id of each word.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything, so that the next look reads it again."""
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
        """Number of the part that comes next."""
        return int(Path(self._parts[-1]).stem) + 1 if self._parts else 0

    def renew(self, store: Path) -> None:
        """Read what other processes committed. Raises TrichordError when the store is damaged."""
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
        """Note a part that was just committed: (collection, source, rules) of its items; the rest is there already."""
        self._parts.append(name)
        self._sources |= {_digest(*row) for row in rows if row[1]}
        self.word_table = word_table

    def has_source(self, collection: str, source: str, rules: str = "") -> bool:
        """Whether a committed item of the collection was made from and by just that (`Item.source`, `Item.rules`)."""
        return _digest(collection, source, rules) in self._sources


def item_key(collection: str, video_id: str) -> str:
    """What an item is known by in a store."""
    return f"{collection}\n{video_id}"


def _digest(collection: str, source: str, rules: str) -> bytes:
    text = f"{item_key(collection, source)}\n{rules}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
