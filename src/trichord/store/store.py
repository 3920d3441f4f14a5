"""The reader of stores: streams and captions of any number of videos in one folder, read by random slice.

Opening a store reads the Parquet rows of its parts into a few flat arrays (about 100 bytes per video). The tensors of a part are
mapped at their first use; reading a slice is then pure indexing. The parts of a remote store are downloaded at that time
(`trichord.store.mirror`).
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
    """A read-only, memory-mapped store: a folder written by `StoreWriter`, or a remote copy of one.

    Items are numbered in the order of writing. Of an item that was superseded only the newest version is visible, under the
    number of the first one. Sizes are checked when the store is opened, checksums by `trichord store verify` and when remote parts
    are downloaded. Parts that a writer commits later are visible to stores opened later; item numbers stay valid. A store is
    pickled as its path and its last part, so that worker processes map the same files themselves.

    Args:
        path: A folder, or a URL such as `s3://bucket/store` (see `store.location` for the schemes).
        cache_gb: The size limit in gigabytes of the local cache of a remote store; None means TRICHORD_CACHE_GB, or 20.
        last_part: The name of the last part to read; None reads all parts.

    Attributes:
        path: The folder (Path) or the URL (str), as passed.
        folder: A local folder for files about the store: the store itself, or the copies of a remote store.
        remote: Gives access to a remote store; None for a local store.
        num_superseded: The number of rows that hold an earlier version of an item.
        modalities: The letter of each modality beyond video, audio and text. Opening a store declares them (`modality.declare`).

    Raises:
        TrichordError: The store does not exist, is empty, contains a damaged part or cannot be reached.
    """

    def __init__(self, path: str | Path, *, cache_gb: float | None = None, last_part: str | None = None):
        self.path = location(path)
        self._cache_gb = cache_gb
        if isinstance(self.path, str):
            self.remote: RemoteStore | None = RemoteStore(self.path, cache_gb)
            self.folder = self.remote.folder
        elif cache_gb is not None:
            raise TrichordError(f"{self.path}: cache_gb={cache_gb} has no effect on a local store; leave it out")
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
            raise self._with_url(error) from None
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
        """The location of the store, independent of the working directory: an absolute path or the URL."""
        return str(self.path.resolve()) if isinstance(self.path, Path) else self.path

    def __len__(self) -> int:
        return len(self._part)

    # ---- items

    def video_id(self, i: int) -> str:
        """Return the id of item `i` in its collection."""
        return self._ids[int(i)].as_py()

    def collection(self, i: int) -> str:
        """Return the collection of item `i`."""
        return self._collections[self._collection.item(i)]

    def split(self, i: int) -> str:
        """Return the split of item `i`."""
        return self._splits[self._split.item(i)]

    def source(self, i: int) -> str:
        """Return the hashes of the inputs and encoders of item `i` (`Item.source`); '' if unknown."""
        return self._sources[int(i)].as_py()

    def media(self, i: int) -> str:
        """Return the hash of the media files and the span of item `i` (`Item.media`); '' if unknown."""
        return "" if self._medias is None else self._medias[int(i)].as_py()

    def rules(self, i: int) -> str:
        """Return the versions of the rules by which item `i` was made (`Item.rules`); '' if unknown."""
        return "" if self._rules is None else self._rules[int(i)].as_py()

    def texts(self, name: str) -> pa.Array:
        """Return a text of every item as an Arrow array: "video_id", "source", "media" or "rules"."""
        column = {"video_id": self._ids, "source": self._sources, "media": self._medias, "rules": self._rules}[name]
        column = pa.repeat(pa.scalar("", pa.large_string()), len(self)) if column is None else column
        return column.cast(pa.large_string())

    def shard_path(self, i: int) -> Location:
        """Return the path or URL of the file that holds the features and captions of item `i`."""
        return self._shown_path(self._part.item(i))

    def _shown_path(self, part: int) -> Location:
        path = self._shard_paths[part]
        return path if self.remote is None else self.remote.with_url(path)

    def duration_s(self, i: int) -> float:
        """Return the duration of item `i` in seconds."""
        return self._duration_s.item(i)

    def collections(self) -> dict[tuple[str, str], int]:
        """Return the number of items per (collection, split), in order of the collections' first appearance."""
        pairs, counts = np.unique(np.stack([self._collection, self._split]), axis=1, return_counts=True)
        return {
            (self._collections[c], self._splits[s]): int(n) for (c, s), n in zip(pairs.T.tolist(), counts, strict=True)
        }

    def select(self, collection: str | None = None, split: str | None = None) -> np.ndarray:
        """Return the numbers (int64) of the items of a collection and split; None stands for any."""
        is_selected = np.ones(len(self), dtype=bool)
        for name, names, codes in (
            (collection, self._collections, self._collection),
            (split, self._splits, self._split),
        ):
            if name is not None:
                is_selected &= codes == (names.index(name) if name in names else -1)
        return np.flatnonzero(is_selected).astype(np.int64)

    def numbered(self, collection: str, video_ids: Iterable[str]) -> dict[str, int]:
        """Return the number of each of these videos of a collection. Videos that the store lacks are left out."""
        items = self.select(collection)
        names = pa.array(list(dict.fromkeys(video_ids)), pa.large_string())
        places = np.array(pc.fill_null(pc.index_in(names, self._ids.take(pa.array(items))), -1))
        return {name: int(items[at]) for name, at in zip(names.to_pylist(), places.tolist(), strict=True) if at >= 0}

    def sources(self, collection: str | None = None) -> dict[str, int]:
        """Return the number of each item of a collection by its `Item.source`. Items without one are left out."""
        return {self._sources[i].as_py(): int(i) for i in self.select(collection) if len(self._sources[i].as_py())}

    # ---- streams

    def has(self, stream: str) -> np.ndarray:
        """Return (N,) bool, which items have rows of the stream; all False for an unknown stream."""
        column = self._columns.get(stream)
        return np.zeros(len(self), dtype=bool) if column is None else column.end > column.begin

    def num_rows(self, stream: str, i: int) -> int:
        """Return the number of rows of the stream of item `i`; 0 if the item lacks the stream."""
        column = self._columns.get(stream)
        return 0 if column is None else column.end.item(i) - column.begin.item(i)

    def rate_hz(self, stream: str, i: int) -> float:
        """Return the rows per second of the stream of item `i`.

        The rate is 0.0 if one row describes the whole item, PER_CAPTION (-1.0) if each row describes a caption, and NaN if the
        item lacks the stream.
        """
        column = self._columns.get(stream)
        return float("nan") if column is None else column.rate_hz.item(i)

    def rows(self, stream: str, i: int, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Return the rows [begin, end) of the stream of item `i`, clamped to the item, as a read-only, zero-copy view (n, dim).

        The dtype is that of the item's part. Values are as written, but a part of mixed precision was widened.

        Raises:
            TrichordError: The store has no such stream, or the part is damaged.
        """
        column = self._columns.get(stream)
        if column is None:
            raise TrichordError(
                f"{self.path}: has no stream '{stream}'; expected one of: {', '.join(self.streams) or 'none'}"
            )
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
        """Return the positions of the rows of a stream, or of the captions, of many items.

        Args:
            name: The name of a stream, or "caption".
            items: (B,) the numbers of the items.

        Returns:
            The part, the first row and the end row in the part's tensor, and the rate in Hz (NaN for captions), each of shape (B,).

        Raises:
            TrichordError: The store has no such stream.
        """
        if name == "caption":
            begin, end = self._caption_begin[items], self._caption_end[items]
            return self._part[items], begin, end, np.full(len(items), np.nan)
        column = self._columns.get(name)
        if column is None:
            raise TrichordError(
                f"{self.path}: has no stream '{name}'; expected one of: {', '.join(self.streams) or 'none'}"
            )
        return self._part[items], column.begin[items], column.end[items], column.rate_hz[items]

    def now_reading(self) -> str:
        """Return the file that a thread is currently reading from this store, and for which videos."""
        file, items, row = self.reading.file, self.reading.items, self.reading.row
        if self.reading.stream and not file and row < len(items):
            video = one_line(self.video_id(items[row]))
            return f"{self.shard_path(items[row])} (stream {self.reading.stream}, video '{video}')"
        waiting = np.unique([i for i in items.tolist() if not file or str(self.shard_path(i)) == file])[:3]
        videos = ", ".join(f"'{one_line(self.video_id(i))}'" for i in waiting)
        return (file or f"a file of {self.path}") + (f" (video {videos})" if videos else "")

    def durations_s(self, items: np.ndarray) -> np.ndarray:
        """Return the durations in seconds of many items."""
        return self._duration_s[items]

    def part_tensor(self, part: int, name: str) -> np.ndarray:
        """Return a tensor of a part by its name in the file, memory-mapped and read-only. `located` returns positions in it."""
        return (self._shards[part] or self._open(part))[name]

    def bring(self, items: np.ndarray) -> None:
        """Prepare for reading items: download remote parts in parallel, as far as they fit, and check the sizes of local ones.

        Reading beyond the end of a truncated shard would kill the process (SIGBUS).

        Raises:
            TrichordError: The size of a shard has changed since the store was opened.
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
        """The total size of the tensor files of all parts in bytes."""
        return sum(info.num_bytes for info in self._infos)

    # ---- captions

    def num_captions(self, i: int) -> int:
        """Return the number of captions of item `i`."""
        return self._caption_end.item(i) - self._caption_begin.item(i)

    def caption_spans(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the start and end of each caption of item `i` in seconds, as two float64 views."""
        shard = self._shard_of(i)
        span = slice(self._caption_begin.item(i), self._caption_end.item(i))
        return shard["caption_start_s"][span], shard["caption_end_s"][span]

    def caption_text(self, i: int, c: int) -> str:
        """Return the text of caption `c` of item `i`.

        Raises:
            IndexError: The item has fewer captions.
        """
        shard, position = self._caption(i, c)
        offsets = shard["caption_text_offsets"]
        text = shard["caption_text"][offsets.item(position) : offsets.item(position + 1)]
        return text.tobytes().decode("utf-8", "replace")

    def word_ids(self, i: int, c: int) -> np.ndarray:
        """Return the ids of the known words of caption `c`, in order, as an int32 view. They index the rows of `word_vectors`."""
        shard, position = self._caption(i, c)
        offsets = shard["word_offsets"]
        return shard["word_ids"][offsets.item(position) : offsets.item(position + 1)]

    def num_known_words(self, i: int) -> int:
        """Return how many words in the captions of item `i` have a vector."""
        begin, end = self._caption_begin.item(i), self._caption_end.item(i)
        if begin == end:
            return 0
        offsets = self._shard_of(i)["word_offsets"]
        return offsets.item(end) - offsets.item(begin)

    def _caption(self, i: int, c: int) -> tuple[dict[str, np.ndarray], int]:
        if not 0 <= c < self.num_captions(i):
            raise IndexError(f"item {i} has {self.num_captions(i)} captions, so there is no caption {c}")
        return self._shard_of(i), self._caption_begin.item(i) + int(c)

    # ---- words

    @cached_property
    def _words(self) -> tuple[list[str], np.ndarray]:
        return gathered_words(self._infos, self._word_shards, self._damaged)

    def _word_shards(self, parts: list[int]) -> Iterable[dict[str, np.ndarray]]:
        """Return the tensors of each part; for a remote store only the word tensors."""
        if self.remote is None:
            return (self._shards[part] or self._open(part) for part in parts)
        try:
            return self.remote.words([self._infos[part] for part in parts])
        except TrichordError as error:
            raise self._with_url(error) from None

    @property
    def words(self) -> list[str]:
        """The spelling of each word id; '' for a word whose part was deleted and that no other part uses."""
        return self._words[0]

    @property
    def word_vectors(self) -> np.ndarray:
        """(V, W) float32, the vector of each word id."""
        return self._words[1]

    # ---- ledger and parts

    def skipped(self) -> list[dict[str, str]]:
        """Return the entries of the ledger: the source and reason (and class and key, if known) of items that were not stored."""
        return read_ledger(self.folder)

    def _shard_of(self, i: int) -> dict[str, np.ndarray]:
        part = self._part.item(i)
        return self._shards[part] or self._open(part)

    def _open(self, part: int) -> dict[str, np.ndarray]:
        info = self._infos[part]
        self.reading.open(self._shown_path(part))
        shard = map_shard(self._shard_paths[part]) if self.remote is None else self.remote.mapped(info)
        self.reading.opened()
        rows, captions = self._extents[part]
        problem = shard_problem(shard, info.streams, rows, captions, (info.num_words, info.word_dim))
        if problem := problem or words_problem(shard, num_words_of(self._infos)):
            raise self._damaged(part, problem)
        self._shards[part] = shard
        if self.remote is not None and self._opened_last == part - 1 and part + 1 < len(self._infos):
            self.remote.read_ahead(self._infos[part + 1], info)  # parts are being read in order
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
                f"{path}: changed while it was in use: it had {expected:,} bytes and now has {size:,}; restore the file, for "
                "example from the store that it was copied from, then run the same command again"
            )

    def _damaged(self, part: int, what: str) -> TrichordError:
        return self._with_url(damaged(self._shard_paths[part], what))

    def _with_url(self, error: TrichordError) -> TrichordError:
        """Return the error with the URL of a remote store in place of the folder of its copies."""
        return error if self.remote is None else TrichordError(self.remote.with_url(error))


def _reopened(path: Location, cache_gb: float | None, last_part: str) -> Store:
    return Store(path, cache_gb=cache_gb, last_part=last_part)
