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
import pyarrow.compute as pc

from trichord.errors import TrichordError, one_line
from trichord.store import columns
from trichord.store.content import gathered_words, num_words_of, shard_problem, words_problem
from trichord.store.encoders import declare_modalities
from trichord.store.ledger import no_items, read_ledger
from trichord.store.location import Location, location
from trichord.store.manifest import part_paths
from trichord.store.mirror import MappedShards, RemoteStore
from trichord.store.reading import Reading
from trichord.store.shards import damaged, map_shard, unreadable_part


class Store:
    """A folder written by `StoreWriter`, or a copy of one behind a URL; read-only and memory-mapped. Items are numbered in
    the order of writing. Of an item that was superseded only the newest version is seen, under the number of the first.

    Sizes are checked here, checksums by `trichord store verify`, those of remote parts also when they are fetched. Parts
    that a writer commits later are seen by a store opened later; numbers stay valid. Pickles as its path and its last part, so
    that worker processes map the same files themselves.

    Args:
        path: A folder, or a URL, such as `s3://bucket/store` (`store.location` has the schemes).
        cache_gb: Of a URL: most gigabytes of its parts that are kept on this machine; None takes TRICHORD_CACHE_GB, or 20.
        last_part: Name of the last part to read; None reads all.

    Attributes:
        path: The folder (Path) or the URL (text), as given.
        folder: Where files about the store can be kept on this machine: the folder itself, or that of the copies.
        remote: What fetches a remote store, or None.
        num_superseded: Rows of parts that hold an earlier version of an item.
        modalities: Name -> letter of those beyond video, audio and text; opening a store declares them (`modality.declare`).

    Raises TrichordError when the store is missing, holds no items yet, holds a damaged part or cannot be reached.
    """

    def __init__(self, path: str | Path, *, cache_gb: float | None = None, last_part: str | None = None):
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
        if last_part is not None:
            paths = [path for path in paths if int(path.stem) <= int(Path(last_part).stem)]
        if not paths:
            raise no_items(self.path, self.folder)
        try:
            parts = columns.checked_parts(paths, self.remote)
            self.streams = columns.merged_streams(parts)
            declared = declare_modalities(self.folder).items()
        except TrichordError as error:
            raise self._told(error) from None
        self.modalities = {name: letter for name, letter in declared if name in self.streams}
        rows = columns.newest_rows(parts)

        def number(name: str) -> np.ndarray:
            values = np.concatenate([part.numbers[name] for part in parts])
            return values if rows is None else values[rows]

        def text(name: str) -> pa.Array:
            values = columns.texts_in(parts, name)
            return values if rows is None else values.take(pa.array(rows))

        sizes = [part.num_rows for part in parts]
        self._part = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self._part = self._part if rows is None else self._part[rows]
        self.num_superseded = sum(sizes) - len(self._part)
        self._ids, self._sources = text("video_id"), text("source")
        self._medias = self._rules = None
        if any("media" in part.texts for part in parts):
            self._medias, self._rules = text("media"), text("rules").dictionary_encode()
        self._collections, self._collection = columns.coded(text("collection"))
        self._splits, self._split = columns.coded(text("split"))
        self._duration_s = number("duration_s")
        self._caption_begin, self._caption_end = number("caption_begin"), number("caption_end")
        self._columns = {name: columns.column(name, info, parts, rows) for name, info in self.streams.items()}
        self._extents = [columns.extent(part) for part in parts]
        info = parts[0].info
        self.word_source, self.lowercase, self.word_dim = info.word_source, info.lowercase, info.word_dim
        self.word_splitting = info.word_splitting
        self.reading = Reading()
        self.fingerprint = columns.fingerprint(parts)
        self._infos = [part.info for part in parts]
        self._last_part = parts[-1].path.name
        self._shard_paths = [part.shard_path for part in parts]
        self._opened_last = -1
        self._shards: list[dict[str, np.ndarray] | None] | MappedShards = [None] * len(sizes)
        if self.remote is not None:
            self._shards = MappedShards(self._infos, self.remote.cache)

    def __reduce__(self) -> tuple[Callable[[Location, float | None, str], Store], tuple[Location, float | None, str]]:
        return _reopened, (self.path, self._cache_gb, self._last_part)

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

    def media(self, i: int) -> str:
        """Hash of the media files and the span that the item was made from (`Item.media`); empty where unknown."""
        return "" if self._medias is None else self._medias[int(i)].as_py()

    def rules(self, i: int) -> str:
        """Versions of the rules by which the item was made (`Item.rules`); empty where unknown."""
        return "" if self._rules is None else self._rules[int(i)].as_py()

    def texts(self, name: str) -> pa.Array:
        """A text of every item, "video_id", "source", "media" or "rules", as an Arrow array."""
        known = {"video_id": self._ids, "source": self._sources, "media": self._medias, "rules": self._rules}[name]
        known = pa.repeat(pa.scalar("", pa.large_string()), len(self)) if known is None else known
        return known.cast(pa.large_string())

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

    def numbered(self, collection: str, video_ids: Iterable[str]) -> dict[str, int]:
        """Number of each of these videos of a collection; those that the store does not hold are left out."""
        items = self.select(collection)
        wanted = pa.array(list(dict.fromkeys(video_ids)), pa.large_string())
        places = np.array(pc.fill_null(pc.index_in(wanted, self._ids.take(pa.array(items))), -1))
        return {name: int(items[at]) for name, at in zip(wanted.to_pylist(), places.tolist(), strict=True) if at >= 0}

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
    def _words(self) -> tuple[list[str], np.ndarray]:
        return gathered_words(self._infos, self._word_shards, self._damaged)

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

    def _shard_of(self, i: int) -> dict[str, np.ndarray]:
        part = self._part.item(i)
        return self._shards[part] or self._open(part)

    def _open(self, part: int) -> dict[str, np.ndarray]:
        info = self._infos[part]
        self.reading.open(self._told_path(part))
        shard = map_shard(self._shard_paths[part]) if self.remote is None else self.remote.mapped(info)
        self.reading.opened()
        rows, captions = self._extents[part]
        problem = shard_problem(shard, info.streams, rows, captions, (info.num_words, info.word_dim))
        if problem := problem or words_problem(shard, num_words_of(self._infos)):
            raise self._damaged(part, problem)
        self._shards[part] = shard
        if self.remote is not None and self._opened_last == part - 1 and part + 1 < len(self._infos):
            self.remote.read_ahead(self._infos[part + 1], info)  # parts are read in turn
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


def _reopened(path: Location, cache_gb: float | None, last_part: str) -> Store:
    return Store(path, cache_gb=cache_gb, last_part=last_part)
