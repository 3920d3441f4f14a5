"""The store's reader: one folder of streams and captions of any number of videos, read by random slice.

Opening reads the parts' Parquet rows into a few flat arrays (some 100 bytes per video); a part's tensors are mapped
when first asked for. Reading a slice is then pure indexing. Of a store behind a URL, parts are fetched then (`mirror`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from trichord.errors import TrichordError, one_line
from trichord.store.columns import checked_parts, coded, column, fingerprint, merged_streams
from trichord.store.content import shard_problem, spellings, words_problem
from trichord.store.ledger import LEDGER, read_ledger
from trichord.store.location import Location, location
from trichord.store.manifest import part_paths
from trichord.store.mirror import MappedShards, RemoteStore
from trichord.store.reading import Reading
from trichord.store.shards import damaged, map_shard, unreadable_part


class Store:
    """A folder written by `StoreWriter`, or a copy of one behind a URL; read-only and memory-mapped. Items are numbered in
    the order of writing.

    Sizes are checked here, checksums by `trichord store verify`, those of remote parts also when they are fetched. Parts
    that a writer commits later are seen by a store opened later; numbers stay valid. Pickles as its path, so worker
    processes map the files themselves.

    Args:
        path: A folder, or a URL, such as `s3://bucket/store` (`store.location` has the schemes).
        cache_gb: Of a URL: most gigabytes of its parts that are kept on this machine; None takes TRICHORD_CACHE_GB, or 20.

    Attributes:
        path: The folder (Path) or the URL (text), as given.
        folder: Where files about the store can be kept on this machine: the folder itself, or that of the copies.
        remote: What fetches a remote store, or None.

    Raises TrichordError when the store is missing, holds no items yet, holds a damaged part or cannot be reached.
    """

    def __init__(self, path: str | Path, *, cache_gb: float | None = None):
        self.path = location(path)
        self._cache_gb = cache_gb
        if isinstance(self.path, str):
            self.remote: RemoteStore | None = RemoteStore(self.path, cache_gb)
            self.folder = self.remote.folder
        elif cache_gb is not None:
            raise TrichordError(f"{self.path}: a cache of {cache_gb} GB has no effect on a local store; leave it out")
        else:
            self.remote, self.folder = None, self.path
        paths = part_paths(self.folder)
        if not paths:
            raise self._nothing()
        try:
            parts = checked_parts(paths, self.remote)
            self.streams = merged_streams(parts)
        except TrichordError as error:
            raise self._told(error) from None
        sizes = [part.num_rows for part in parts]
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._part = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self._ids = pa.concat_arrays([part.texts["video_id"] for part in parts])
        unknown = [pa.repeat(pa.scalar("", pa.large_string()), part.num_rows) for part in parts]
        self._sources = pa.concat_arrays([p.texts.get("source", u) for p, u in zip(parts, unknown, strict=True)])
        self._collections, self._collection = coded([part.texts["collection"] for part in parts])
        self._splits, self._split = coded([part.texts["split"] for part in parts])
        self._duration_s = np.concatenate([part.numbers["duration_s"] for part in parts])
        self._caption_begin = np.concatenate([part.numbers["caption_begin"] for part in parts])
        self._caption_end = np.concatenate([part.numbers["caption_end"] for part in parts])
        self._columns = {name: column(name, info, parts) for name, info in self.streams.items()}
        info = parts[0].info
        self.word_source, self.lowercase, self.word_dim = info.word_source, info.lowercase, info.word_dim
        self.word_splitting = info.word_splitting
        self.reading = Reading()
        self.fingerprint = fingerprint(parts)
        self._infos = [part.info for part in parts]
        self._shard_paths = [part.shard_path for part in parts]
        self._opened_last = -1
        self._shards: list[dict[str, np.ndarray] | None] | MappedShards = [None] * len(sizes)
        if self.remote is not None:
            self._shards = MappedShards(self._infos, self.remote.cache)

    def __reduce__(self) -> tuple[Callable[[Location, float | None], Store], tuple[Location, float | None]]:
        return _reopened, (self.path, self._cache_gb)

    @property
    def address(self) -> str:
        """Where the store lies, whatever the folder one is in: an absolute path or the URL."""
        return str(self.path.resolve()) if isinstance(self.path, Path) else self.path

    def __len__(self) -> int:
        return len(self._part)

    # ---- items

    def video_id(self, i: int) -> str:
        return self._ids[int(i)].as_py()

    def collection(self, i: int) -> str:
        return self._collections[self._collection.item(i)]

    def split(self, i: int) -> str:
        return self._splits[self._split.item(i)]

    def source(self, i: int) -> str:
        """What the item was made from and by (`Item.source`); empty where unknown."""
        return self._sources[int(i)].as_py()

    def shard_path(self, i: int) -> Location:
        """The file, or its URL, that holds the item's features and captions."""
        return self._told_path(self._part.item(i))

    def _told_path(self, part: int) -> Location:
        path = self._shard_paths[part]
        return path if self.remote is None else self.remote.told(path)

    def duration_s(self, i: int) -> float:
        return self._duration_s.item(i)

    def collections(self) -> dict[tuple[str, str], int]:
        """Number of items per (collection, split), in order of first appearance of the collection."""
        pairs, counts = np.unique(np.stack([self._collection, self._split]), axis=1, return_counts=True)
        return {
            (self._collections[c], self._splits[s]): int(n) for (c, s), n in zip(pairs.T.tolist(), counts, strict=True)
        }

    def select(self, collection: str | None = None, split: str | None = None) -> np.ndarray:
        """Numbers (int64) of the items of that collection and split; None means any. Empty when there are none."""
        chosen = np.ones(len(self), dtype=bool)
        for wanted, names, codes in (
            (collection, self._collections, self._collection),
            (split, self._splits, self._split),
        ):
            if wanted is not None:
                chosen &= codes == (names.index(wanted) if wanted in names else -1)
        return np.flatnonzero(chosen).astype(np.int64)

    def sources(self, collection: str | None = None) -> dict[str, int]:
        """What the items of a collection were made from and by (`Item.source`) -> their numbers; unknown ones left out."""
        return {self._sources[i].as_py(): int(i) for i in self.select(collection) if len(self._sources[i].as_py())}

    # ---- streams

    def has(self, stream: str) -> np.ndarray:
        """(N,) bool: which items have rows of the stream. All False for a stream that the store does not know."""
        column = self._columns.get(stream)
        return np.zeros(len(self), dtype=bool) if column is None else column.end > column.begin

    def num_rows(self, stream: str, i: int) -> int:
        """Rows of the item's stream; 0 where it lacks the stream."""
        column = self._columns.get(stream)
        return 0 if column is None else column.end.item(i) - column.begin.item(i)

    def rate_hz(self, stream: str, i: int) -> float:
        """Rows per second; 0.0 where one row stands for the whole item, PER_CAPTION (-1.0) where each stands for a
        caption; NaN where the item lacks the stream."""
        column = self._columns.get(stream)
        return float("nan") if column is None else column.rate_hz.item(i)

    def rows(self, stream: str, i: int, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Rows [begin, end) of the item's stream, clamped to the item: a read-only, zero-copy view (n, dim).

        The dtype is that of the item's part: values are as written, but a part that mixed precisions was widened.
        """
        column = self._columns.get(stream)
        if column is None:
            raise TrichordError(f"{self.path}: has no stream '{stream}'; it has {', '.join(self.streams) or 'none'}")
        first, stop = column.begin.item(i), column.end.item(i)
        if end is not None and first + end < stop:
            stop = first + end
        if begin > 0:
            first += begin
        if first >= stop:
            return column.empty
        part = self._part.item(i)
        shard = self._shards[part]
        if shard is None:
            shard = self._open(part)
        return shard[stream][first:stop]

    # ---- many items at once

    def located(self, name: str, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Where the rows of a stream, or the captions (name "caption"), of many items lie: part, first row and end in
        the part's tensor, and rate_hz (NaN for captions); each as long as `items`. Raises TrichordError as `rows` does."""
        if name == "caption":
            begin, end = self._caption_begin[items], self._caption_end[items]
            return self._part[items], begin, end, np.full(len(items), np.nan)
        column = self._columns.get(name)
        if column is None:
            raise TrichordError(f"{self.path}: has no stream '{name}'; it has {', '.join(self.streams) or 'none'}")
        return self._part[items], column.begin[items], column.end[items], column.rate_hz[items]

    def now_reading(self) -> str:
        """The file that a thread is reading from this store, and for which videos."""
        file, items, at = self.reading.file, self.reading.items, self.reading.row
        if self.reading.stream and not file and at < len(items):
            video = one_line(self.video_id(items[at]))
            return f"{self.shard_path(items[at])} (stream {self.reading.stream}, video '{video}')"
        wanted = np.unique([i for i in items.tolist() if not file or str(self.shard_path(i)) == file])[:3]
        told = ", ".join(f"'{one_line(self.video_id(i))}'" for i in wanted)
        return (file or f"a file of {self.path}") + (f" (video {told})" if told else "")

    def durations_s(self, items: np.ndarray) -> np.ndarray:
        """Length in seconds of many items."""
        return self._duration_s[items]

    def part_tensor(self, part: int, name: str) -> np.ndarray:
        """A tensor of a part by its name in the file, mapped and read-only; positions are those of `located`."""
        return (self._shards[part] or self._open(part))[name]

    def bring(self, items: np.ndarray) -> None:
        """Make ready to read items: fetch remote parts, several at once, as far as they fit; compare the sizes of local ones.

        Raises TrichordError when the shard of a part has another size than when the store was opened. Reading beyond the end of a
        shard that was cut short would end the process (SIGBUS).
        """
        self.reading.begin("", items)
        parts = np.flatnonzero(np.bincount(self._part[items])).tolist()
        if self.remote is not None:
            self.remote.bring([self._infos[part] for part in parts if self._shards[part] is None])
            return
        for part in parts:
            if self._shards[part] is not None:
                self._check_size(part)

    @property
    def shard_bytes(self) -> int:
        """Bytes of all parts' tensor files."""
        return sum(info.num_bytes for info in self._infos)

    # ---- captions

    def num_captions(self, i: int) -> int:
        return self._caption_end.item(i) - self._caption_begin.item(i)

    def caption_spans(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Start and end in seconds of the item's captions: two float64 views."""
        shard = self._shard_of(i)
        span = slice(self._caption_begin.item(i), self._caption_end.item(i))
        return shard["caption_start_s"][span], shard["caption_end_s"][span]

    def caption_text(self, i: int, c: int) -> str:
        """Text of the item's caption number `c`. Raises IndexError when it has fewer."""
        shard, position = self._caption(i, c)
        offsets = shard["caption_text_offsets"]
        text = shard["caption_text"][offsets.item(position) : offsets.item(position + 1)]
        return text.tobytes().decode("utf-8", "replace")

    def word_ids(self, i: int, c: int) -> np.ndarray:
        """Ids (int32 view) of the known words of caption `c`, in order: rows of `word_vectors`."""
        shard, position = self._caption(i, c)
        offsets = shard["word_offsets"]
        return shard["word_ids"][offsets.item(position) : offsets.item(position + 1)]

    def num_known_words(self, i: int) -> int:
        """How many words of the item's captions have a vector."""
        begin, end = self._caption_begin.item(i), self._caption_end.item(i)
        if begin == end:
            return 0
        offsets = self._shard_of(i)["word_offsets"]
        return offsets.item(end) - offsets.item(begin)

    def _caption(self, i: int, c: int) -> tuple[dict[str, np.ndarray], int]:
        if not 0 <= c < self.num_captions(i):
            raise IndexError(f"item {i} has {self.num_captions(i)} captions, asked for number {c}")
        return self._shard_of(i), self._caption_begin.item(i) + int(c)

    # ---- words

    @cached_property
    def _num_words(self) -> int:
        return max(info.first_word + info.num_new_words for info in self._infos)

    @cached_property
    def _words(self) -> tuple[list[str], np.ndarray]:
        size = self._num_words
        words, vectors = [""] * size, np.zeros((size, self.word_dim), dtype=np.float32)
        known = np.zeros(size, dtype=bool)

        def take(part: int, count: int, shard: dict[str, np.ndarray]) -> None:
            ids = shard["word_table_ids"][:count]
            if count and not 0 <= ids.min() <= ids.max() < size:
                raise self._damaged(part, "its word ids are out of range")
            vectors[ids] = shard["word_vectors"][:count]
            known[ids] = True
            for word, spelling in zip(ids.tolist(), spellings(shard, count), strict=True):
                words[word] = spelling

        adding = [part for part, info in enumerate(self._infos) if info.num_new_words]
        for part, shard in zip(adding, self._word_shards(adding), strict=True):
            take(part, self._infos[part].num_new_words, shard)
        if not known.all():  # a part was deleted: the others carry what they use of its words
            every = list(range(len(self._infos)))
            for part, shard in zip(every, self._word_shards(every), strict=True):
                take(part, self._infos[part].num_words, shard)
        return words, vectors

    def _word_shards(self, parts: list[int]) -> Iterable[dict[str, np.ndarray]]:
        """Of each part its tensors, or of a remote one those of words alone."""
        if self.remote is None:
            return (self._shards[part] or self._open(part) for part in parts)
        try:
            return self.remote.words([self._infos[part] for part in parts])
        except TrichordError as error:
            raise self._told(error) from None

    @property
    def words(self) -> list[str]:
        """Spelling of each word id; empty where the part that brought the word was deleted and nothing else uses it."""
        return self._words[0]

    @property
    def word_vectors(self) -> np.ndarray:
        """(V, W) float32: the vector of each word id."""
        return self._words[1]

    # ---- the rest

    def skipped(self) -> list[dict[str, str]]:
        """The ledger: source and reason (and class and key, where known) of all that was to be stored but could not be."""
        return read_ledger(self.folder)

    def _nothing(self) -> TrichordError:
        if not self.folder.exists():
            return TrichordError(f"{self.path}: no such store; make it with `trichord import` or `trichord extract`")
        if skipped := len(read_ledger(self.folder)):
            return TrichordError(
                f"{self.path}: this store holds no items, {skipped} were skipped; {self.path}/{LEDGER} says why"
            )
        return TrichordError(f"{self.path}: holds no items; fill it with `trichord import` or `trichord extract`")

    def _shard_of(self, i: int) -> dict[str, np.ndarray]:
        part = self._part.item(i)
        return self._shards[part] or self._open(part)

    def _open(self, part: int) -> dict[str, np.ndarray]:
        info = self._infos[part]
        self.reading.open(self._told_path(part))
        shard = map_shard(self._shard_paths[part]) if self.remote is None else self.remote.mapped(info)
        self.reading.opened()
        items = slice(self._first[part], self._first[part + 1])
        rows = {name: int(self._columns[name].end[items].max(initial=0)) for name in info.streams}
        captions = int(self._caption_end[items].max(initial=0))
        problem = shard_problem(shard, info.streams, rows, captions, (info.num_words, info.word_dim))
        if problem := problem or words_problem(shard, self._num_words):
            raise self._damaged(part, problem)
        self._shards[part] = shard
        if self.remote is not None and self._opened_last == part - 1 and part + 1 < len(self._infos):
            self.remote.read_ahead(self._infos[part + 1])  # parts are read in turn
        self._opened_last = part
        return shard

    def _check_size(self, part: int) -> None:
        path, expected = self._shard_paths[part], self._infos[part].num_bytes
        try:
            size = os.stat(path).st_size
        except OSError as error:
            raise unreadable_part(path, error) from None
        if size != expected:
            raise TrichordError(
                f"{path}: was changed while it was used: it has {size:,} bytes, and had {expected:,}; restore the file, for "
                "example from the store that it was copied from, then run the same command again"
            )

    def _damaged(self, part: int, what: str) -> TrichordError:
        return self._told(damaged(self._shard_paths[part], what))

    def _told(self, error: TrichordError) -> TrichordError:
        """The error with the URL in it, where it speaks of the copy."""
        return error if self.remote is None else TrichordError(self.remote.told(error))


def _reopened(path: Location, cache_gb: float | None) -> Store:
    return Store(path, cache_gb=cache_gb)
