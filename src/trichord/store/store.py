"""The store's reader: one folder of streams and captions of any number of videos, read by random slice.

Opening reads the parts' Parquet rows into a few flat arrays (some 100 bytes per video); a part's tensors are mapped
when first asked for. Reading a slice is then pure indexing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from trichord.errors import TrichordError
from trichord.store.ledger import LEDGER, read_ledger
from trichord.store.manifest import Manifest, StreamInfo, check_size, part_paths, read_manifest
from trichord.store.shards import damaged, map_shard


@dataclass(frozen=True)
class _Column:
    begin: np.ndarray  # int64 (N,): first row of the item in its part's tensor
    end: np.ndarray
    rate_hz: np.ndarray  # float64 (N,), NaN where the item lacks the stream
    empty: np.ndarray  # (0, dim)


class Store:
    """A folder written by `StoreWriter`, read-only and memory-mapped. Items are numbered in the order of writing.

    Sizes are checked here, checksums by `trichord store verify`. Parts that a writer commits later are seen by a
    store opened later; numbers stay valid. Pickles as its path, so worker processes map the files themselves.

    Raises TrichordError when the folder is missing, holds no items yet or holds a damaged part.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        paths = part_paths(self.path)
        if not paths:
            raise self._nothing()
        parts = [_checked(path) for path in paths]
        sizes = [part.num_rows for part in parts]
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._part = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self._shards: list[dict[str, np.ndarray] | None] = [None] * len(sizes)
        self._ids = pa.concat_arrays([part.texts["video_id"] for part in parts])
        unknown = [pa.repeat(pa.scalar("", pa.large_string()), part.num_rows) for part in parts]
        self._sources = pa.concat_arrays([p.texts.get("source", u) for p, u in zip(parts, unknown, strict=True)])
        self._collections, self._collection = _coded([part.texts["collection"] for part in parts])
        self._splits, self._split = _coded([part.texts["split"] for part in parts])
        self._duration_s = np.concatenate([part.numbers["duration_s"] for part in parts])
        self._caption_begin = np.concatenate([part.numbers["caption_begin"] for part in parts])
        self._caption_end = np.concatenate([part.numbers["caption_end"] for part in parts])
        self.streams = _merged_streams(parts)
        self._columns = {name: _column(name, info, parts) for name, info in self.streams.items()}
        info = parts[0].info
        self.word_source, self.lowercase, self.word_dim = info.word_source, info.lowercase, info.word_dim
        self.fingerprint = _fingerprint(parts)
        self._infos = [part.info for part in parts]
        self._shard_paths = [part.shard_path for part in parts]

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return type(self), (self.path,)

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

    def shard_path(self, i: int) -> Path:
        """The file that holds the item's features and captions."""
        return self._shard_paths[self._part.item(i)]

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

    def durations_s(self, items: np.ndarray) -> np.ndarray:
        """Length in seconds of many items."""
        return self._duration_s[items]

    def part_tensor(self, part: int, name: str) -> np.ndarray:
        """A tensor of a part by its name in the file, mapped and read-only; positions are those of `located`."""
        return (self._shards[part] or self._open(part))[name]

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

    def _caption(self, i: int, c: int) -> tuple[dict[str, np.ndarray], int]:
        if not 0 <= c < self.num_captions(i):
            raise IndexError(f"item {i} has {self.num_captions(i)} captions, asked for number {c}")
        return self._shard_of(i), self._caption_begin.item(i) + int(c)

    # ---- words

    @cached_property
    def _words(self) -> tuple[list[str], np.ndarray]:
        size = max(info.first_word + info.num_new_words for info in self._infos)
        words, vectors = [""] * size, np.zeros((size, self.word_dim), dtype=np.float32)
        known = np.zeros(size, dtype=bool)

        def take(part: int, count: int) -> None:
            shard = self._shards[part] or self._open(part)
            ids = shard["word_table_ids"][:count]
            if count and not 0 <= ids.min() <= ids.max() < size:
                raise damaged(self._shard_paths[part], "its word ids are out of range")
            vectors[ids] = shard["word_vectors"][:count]
            known[ids] = True
            for word, spelling in zip(ids.tolist(), spellings(shard, count), strict=True):
                words[word] = spelling

        for part, info in enumerate(self._infos):
            if info.num_new_words:
                take(part, info.num_new_words)
        if not known.all():  # a part was deleted: the others carry what they use of its words
            for part, info in enumerate(self._infos):
                take(part, info.num_words)
        return words, vectors

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
        return read_ledger(self.path)

    def _nothing(self) -> TrichordError:
        if not self.path.exists():
            return TrichordError(f"{self.path}: no such store; make it with `trichord import` or `trichord extract`")
        if skipped := len(read_ledger(self.path)):
            return TrichordError(
                f"{self.path}: this store holds no items, {skipped} were skipped; {self.path / LEDGER} says why"
            )
        return TrichordError(f"{self.path}: holds no items; fill it with `trichord import` or `trichord extract`")

    def _shard_of(self, i: int) -> dict[str, np.ndarray]:
        part = self._part.item(i)
        return self._shards[part] or self._open(part)

    def _open(self, part: int) -> dict[str, np.ndarray]:
        path = self._shard_paths[part]
        shard = map_shard(path)
        items = slice(self._first[part], self._first[part + 1])
        info = self._infos[part]
        rows = {name: int(self._columns[name].end[items].max(initial=0)) for name in info.streams}
        captions = int(self._caption_end[items].max(initial=0))
        if problem := shard_problem(shard, info.streams, rows, captions, (info.num_words, info.word_dim)):
            raise damaged(path, problem)
        self._shards[part] = shard
        return shard


def shard_problem(
    shard: dict[str, np.ndarray],
    streams: dict[str, StreamInfo],
    rows: dict[str, int],
    captions: int,
    words: tuple[int, int],
) -> str:
    """What keeps the part's tensors from serving `rows` rows per stream, `captions` captions and `words` (n, W)."""
    for name, info in streams.items():
        tensor = shard.get(name)
        if tensor is None or tensor.dtype != info.dtype or tensor.ndim != 2 or tensor.shape[1] != info.dim:
            return f"its tensor {name} is not {info.dtype} of width {info.dim}"
        if rows[name] > len(tensor):
            return f"has {len(tensor)} rows of {name} where its Parquet file asks for {rows[name]}"
    text, word = shard.get("caption_text_offsets"), shard.get("word_offsets")
    expected: dict[str, tuple[str, tuple[int, ...] | None]] = {
        "caption_start_s": ("float64", (captions,)),
        "caption_end_s": ("float64", (captions,)),
        "caption_text_offsets": ("int64", (captions + 1,)),
        "word_offsets": ("int64", (captions + 1,)),
        "caption_text": ("uint8", None),
        "word_ids": ("int32", None),
        "word_table_ids": ("int32", (words[0],)),
        "word_vectors": ("float32", words),
        "word_spelling": ("uint8", None),
        "word_spelling_offsets": ("int64", (words[0] + 1,)),
    }
    for name, (dtype, shape) in expected.items():
        tensor = shard.get(name)
        if tensor is None or tensor.dtype != dtype or (tensor.ndim != 1 if shape is None else tensor.shape != shape):
            return f"its tensor {name} is missing or of another shape than its Parquet file says"
    assert text is not None and word is not None
    for offsets, data in (
        (text, "caption_text"),
        (word, "word_ids"),
        (shard["word_spelling_offsets"], "word_spelling"),
    ):
        if offsets[0] != 0 or offsets[-1] != len(shard[data]):
            return f"its {data} offsets do not fit"
    return ""


def spellings(shard: dict[str, np.ndarray], count: int) -> list[str]:
    """The first `count` words of a part."""
    text, offsets = shard["word_spelling"].tobytes(), shard["word_spelling_offsets"].tolist()
    return [text[offsets[k] : offsets[k + 1]].decode("utf-8", "replace") for k in range(count)]


def _checked(path: Path) -> Manifest:
    manifest = read_manifest(path)
    check_size(manifest)
    return manifest


def _coded(columns: list[pa.Array]) -> tuple[list[str], np.ndarray]:
    coded = pa.concat_arrays(columns).dictionary_encode()
    return coded.dictionary.to_pylist(), np.array(coded.indices)


def _merged_streams(parts: list[Manifest]) -> dict[str, StreamInfo]:
    """All streams, each as wide as in every part that has it; raises TrichordError when parts do not fit each other."""
    merged: dict[str, StreamInfo] = {}
    first = parts[0].info
    for part in parts:
        own = part.info
        if (own.word_source, own.lowercase, own.word_dim) != (first.word_source, first.lowercase, first.word_dim):
            raise damaged(part.path, f"its words are of {own.word_source}, earlier ones of {first.word_source}")
        for name, info in own.streams.items():
            known = merged.setdefault(name, info)
            if known.dim != info.dim:
                raise damaged(part.path, f"its stream {name} is {info.dim} wide, that of earlier parts {known.dim}")
            merged[name] = StreamInfo(known.dim, max(known.dtype, info.dtype, key=lambda d: np.dtype(d).itemsize))
    return merged


def _column(name: str, info: StreamInfo, parts: list[Manifest]) -> _Column:
    def gather(suffix: str, absent: float, dtype: type) -> np.ndarray:
        column = f"{name}_{suffix}"
        return np.concatenate(
            [p.numbers[column] if column in p.numbers else np.full(p.num_rows, absent, dtype) for p in parts]
        )

    return _Column(
        begin=gather("begin", 0, np.int64),
        end=gather("end", 0, np.int64),
        rate_hz=gather("rate_hz", np.nan, np.float64),
        empty=np.empty((0, info.dim), dtype=info.dtype),
    )


def _fingerprint(parts: list[Manifest]) -> str:
    lines = "".join(f"{part.info.sha256} {part.info.rows_sha256}\n" for part in parts)
    return hashlib.sha256(lines.encode()).hexdigest()
