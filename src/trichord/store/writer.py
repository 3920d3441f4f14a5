"""The writer of stores: append-only, one part after another, each committed completely or not at all.

The shard of a part is written first and its Parquet file last. A shard without a Parquet file, which a killed writer may leave, is
not a part; the next writer removes it. Only one writer can be active at a time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trichord.captions import tokenize
from trichord.errors import TrichordError, one_line
from trichord.files.folders import make_folder
from trichord.files.locks import FileLock, LockedByAnotherProcess
from trichord.files.reading import unreadable
from trichord.files.writing import sync
from trichord.store.committed import Committed, WordTable, item_key
from trichord.store.items import Item, checked_streams
from trichord.store.ledger import note, read_ledger
from trichord.store.location import local_folder
from trichord.store.manifest import MAX_ROWS, MAX_WORDS, PartInfo, StreamInfo, format_of, schema_for, write_manifest
from trichord.store.shards import write_shard
from trichord.store.words import WordVectors

SHARD_BYTES = 256 << 20
_SHARD = re.compile(r"\d{5,}\.safetensors")
_UNFINISHED = re.compile(r"\.\d{5,}\.(?:safetensors|parquet)\.(?:partial|tmp)")  # earlier versions wrote `tmp`


@dataclass
class _Buffer:
    """Items that wait to be written as a part."""

    rows: list[dict[str, object]] = field(default_factory=list)
    streams: dict[str, list[np.ndarray]] = field(default_factory=dict)
    num_rows: dict[str, int] = field(default_factory=dict)
    start_s: list[np.ndarray] = field(default_factory=list)
    end_s: list[np.ndarray] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    word_ids: list[list[int]] = field(default_factory=list)
    num_bytes: int = 0
    supersedes: int = 0


class StoreWriter:
    """Appends items to a store, which is created if it does not exist. Use it in a `with` block.

    Added items are committed when `shard_bytes` have accumulated, by `flush`, and at the end of the block, even if an exception
    ends it. Word ids are assigned by first use and never change.

    Args:
        path: The folder of the store.
        words: The word vectors of the captions.
        shard_bytes: The size in bytes at which added items are committed.
        wait_s: How long to wait for another writer to finish, in seconds.
        committed: A summary of the store, for callers that open writers repeatedly: only new parts are read.

    Raises:
        TrichordError: `path` is a URL, another writer is active, a part is damaged, or the words are from another table.
    """

    def __init__(
        self, path: str | Path, words: WordVectors, *, shard_bytes: int = SHARD_BYTES, wait_s: float = 0.0,
        committed: Committed | None = None,
    ):  # fmt: skip
        self.path = local_folder(path)
        self.num_added = 0
        self.num_skipped = 0
        self._shard_bytes = shard_bytes
        self._parts = self.path / "parts"
        self._lock: FileLock | None = None
        self._buffer = _Buffer()
        self._ledger: set[tuple[str, str]] | None = None
        self._known = Committed() if committed is None else committed
        self._committed_words = 0
        vectors = words.vectors
        if vectors.ndim != 2 or len(vectors) != len(words.words) or not np.isfinite(vectors).all():
            raise TrichordError(
                f"word vectors {words.source}: expected one row of finite numbers per word; choose another file"
            )
        try:
            make_folder(self.path, "parts")
            self._lock = _locked(self.path, wait_s)
            self._words = words
            self._word_rows = {word: row for row, word in reversed(list(enumerate(words.words)))}
            self._remove_leftovers()
            self._load()
        except BaseException as error:
            self._known.clear()
            self._unlock()
            if isinstance(error, OSError):
                raise self._failed("cannot be opened for writing", error) from error
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit the added items and release the lock for other writers."""
        try:
            if self._lock is not None:
                self.flush()
        finally:
            if self._buffer.rows or self._committed_words != len(self._known.words):
                self._known.clear()  # it includes items or words that are not in the store
            self._unlock()

    def contains(self, collection: str, video_id: str) -> bool:
        """Return whether the store contains the item, including items that are not committed yet."""
        return item_key(collection, video_id) in self._known.splits

    def has_source(self, collection: str, source: str, rules: str = "") -> bool:
        """Return whether a committed item of the collection has exactly this `Item.source` and `Item.rules`."""
        return self._known.has_source(collection, source, rules)

    def skip(self, source: str, reason: str, kind: str = "") -> None:
        """Record in the ledger of the store that `source` could not be stored. An entry is written only once.

        Args:
            source: The item that could not be stored.
            reason: Why it could not be stored.
            kind: The class of the reason (`ledger.CLASSES`), if it has one.
        """
        self.num_skipped += 1
        entry = (one_line(source), one_line(reason))
        if self._ledger is None:
            self._ledger = {(entry["source"], entry["reason"]) for entry in read_ledger(self.path)}
        if entry not in self._ledger:
            self._ledger.add(entry)
            note(self.path, *entry, kind)

    def add(self, item: Item, *, copy: bool = True, supersede: bool = False) -> None:
        """Add an item.

        Args:
            item: The item.
            copy: Whether to copy its arrays. Without copying, they must not change before `flush`.
            supersede: Whether the item replaces an existing item of the same collection and id, under the same number. Its split
                must be the same, so that no video moves from testing into training.

        Raises:
            TrichordError: The item exists already or its data cannot be stored; nothing of it is added. The message names the
                video and the stream.
        """
        exists = self.contains(item.collection, item.video_id)
        if exists:
            self._check_supersedes(item, supersede)
        streams = checked_streams(item, self._known.dims, copy=copy)
        texts = [text.encode("utf-8", "replace") for text in item.captions.text]
        word_ids = [self._ids_of(text) for text in item.captions.text]
        buffer, begin = self._buffer, len(self._buffer.texts)
        row: dict[str, object] = {
            "video_id": item.video_id,
            "collection": item.collection,
            "split": item.split,
            "source": item.source,
            "media": item.media,
            "rules": item.rules,
            "duration_s": float(item.duration_s),
            "caption_begin": begin,
            "caption_end": begin + len(texts),
        }
        for name, array in streams.items():
            self._known.dims[name] = array.shape[1]
            first = buffer.num_rows.get(name, 0)
            buffer.num_rows[name] = first + len(array)
            buffer.streams.setdefault(name, []).append(array)
            row[f"{name}_begin"], row[f"{name}_end"] = first, first + len(array)
            row[f"{name}_rate_hz"] = float(item.rates_hz[name])
        buffer.rows.append(row)
        buffer.start_s.append(np.array(item.captions.start_s, np.float64))
        buffer.end_s.append(np.array(item.captions.end_s, np.float64))
        buffer.texts += texts
        buffer.word_ids += word_ids
        buffer.num_bytes += sum(array.nbytes for array in streams.values())
        buffer.num_bytes += sum(map(len, texts)) + sum(4 * len(ids) + 32 for ids in word_ids)
        buffer.supersedes += exists
        self._known.splits[item_key(item.collection, item.video_id)] = item.split
        self.num_added += 1
        if buffer.num_bytes >= self._shard_bytes or len(buffer.rows) >= MAX_ROWS:
            self.flush()

    def _check_supersedes(self, item: Item, supersede: bool) -> None:
        where, split = (
            f"{item.collection}/{item.video_id}",
            self._known.splits[item_key(item.collection, item.video_id)],
        )
        if not supersede:
            raise TrichordError(f"{where}: is in {self.path} already; skip it or choose another collection")
        if item.split != split:
            raise TrichordError(
                f"{where}: is in split '{split}' of {self.path} and cannot move to '{item.split}'; choose another collection"
            )
        if any((row["collection"], row["video_id"]) == (item.collection, item.video_id) for row in self._buffer.rows):
            self.flush()  # a part contains an item only once

    def flush(self) -> None:
        """Commit the added items as one part."""
        buffer = self._buffer
        if not buffer.rows:
            return
        if self._lock is None:
            raise ValueError("the writer is closed")
        known = self._known
        stem = f"{known.next_part:05d}"
        used = {word for ids in buffer.word_ids for word in ids}
        new = range(self._committed_words, len(known.words))
        table = [
            *new,
            *sorted(used.difference(new)),
        ]  # words that the part adds, then words of earlier parts that it uses
        try:
            self._lock.check()
            num_bytes, sha256 = write_shard(self._parts / f"{stem}.safetensors", self._tensors(table), exclusive=True)
            info = PartInfo(
                shard=f"{stem}.safetensors",
                num_bytes=num_bytes,
                sha256=sha256,
                rows_sha256="",
                streams={
                    name: StreamInfo(known.dims[name], str(np.result_type(*arrays)))
                    for name, arrays in sorted(buffer.streams.items())
                },
                word_source=self._words.source,
                lowercase=self._words.lowercase,
                word_dim=self._words.vectors.shape[1],
                first_word=self._committed_words,
                num_new_words=len(new),
                num_words=len(table),
                word_splitting=self._words.splitting,
                supersedes=buffer.supersedes,
            )
            names = [field.name for field in schema_for(list(info.streams), format_of(info, buffer.rows))]
            absent = {name: float("nan") if name.endswith("_rate_hz") else 0 for name in names}
            columns = {name: [row.get(name, absent[name]) for row in buffer.rows] for name in names}
            self._lock.check()
            write_manifest(self._parts / f"{stem}.parquet", columns, info)
        except FileExistsError:
            raise TrichordError(
                f"{self.path}: another process has written part {stem} in the meantime, which is kept; run the command again"
            ) from None
        except OSError as error:
            raise self._failed(f"cannot write part {stem}", error) from error
        self._committed_words = len(known.words)
        rows = ((str(row["collection"]), str(row["source"]), str(row["rules"])) for row in buffer.rows)
        known.add_part(f"{stem}.parquet", rows, self._word_table)
        self._buffer = _Buffer()

    def _tensors(self, table: list[int]) -> dict[str, list[np.ndarray]]:
        buffer = self._buffer
        spellings = [self._known.words[word].encode("utf-8", "replace") for word in table]
        width = self._words.vectors.shape[1]
        return {
            **buffer.streams,
            "caption_start_s": buffer.start_s,
            "caption_end_s": buffer.end_s,
            "caption_text": [_bytes(buffer.texts)],
            "caption_text_offsets": [_offsets(buffer.texts)],
            "word_ids": [np.array([word for ids in buffer.word_ids for word in ids], dtype=np.int32)],
            "word_offsets": [_offsets(buffer.word_ids)],
            "word_table_ids": [np.array(table, dtype=np.int32)],
            "word_vectors": [
                np.array([self._known.vectors[word] for word in table], dtype=np.float32).reshape(-1, width)
            ],
            "word_spelling": [_bytes(spellings)],
            "word_spelling_offsets": [_offsets(spellings)],
        }

    def _ids_of(self, text: str) -> list[int]:
        """Return the ids of the known words of a text. A new word gets the next id."""
        ids, known = [], self._known
        for token in tokenize(text, self._words.splitting):
            word = token.lower() if self._words.lowercase else token
            number = known.word_ids.get(word)
            if number is None:
                row = self._word_rows.get(word)
                if row is None:
                    continue
                number = len(known.words)
                if number >= MAX_WORDS:
                    raise TrichordError(
                        f"{self.path}: contains {MAX_WORDS} words already, the largest possible number; start another store"
                    )
                known.word_ids[word] = number
                known.words.append(word)
                known.vectors.append(self._words.vectors[row])
            ids.append(number)
        return ids

    @property
    def _word_table(self) -> WordTable:
        words = self._words
        return words.source, words.lowercase, words.vectors.shape[1], words.splitting

    def _load(self) -> None:
        """Read what earlier sessions committed: keys, widths and words."""
        self._known.renew(self.path)
        stored, requested = self._known.word_table, self._word_table
        if stored not in (None, requested):
            assert stored is not None
            if stored[:3] == requested[:3]:
                raise TrichordError(
                    f"{self.path}: its words are split as '{stored[3]}', not as '{requested[3]}'; "
                    f"use --word_splitting {stored[3]}, or another store"
                )
            raise TrichordError(
                f"{self.path}: contains words from {stored[0]}, not from {requested[0]}; use the same word vectors or another store"
            )
        self._committed_words = len(self._known.words)

    def _remove_leftovers(self) -> None:
        for path in leftovers(self.path):
            path.unlink()
        sync(self._parts)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _failed(self, what: str, error: OSError) -> TrichordError:
        return TrichordError(
            f"{self.path}: {what} ({error.strerror}); check the disk, then run the command again; committed items are safe"
        )


def leftovers(store: Path) -> list[Path]:
    """Return files that a killed writer left: unfinished files, and shards without a Parquet file."""
    parts = store / "parts"
    try:
        names = set(os.listdir(parts))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(parts, error) from None
    unfinished = [name for name in names if _UNFINISHED.fullmatch(name)]
    shards = [name for name in names if _SHARD.fullmatch(name) and f"{name.partition('.')[0]}.parquet" not in names]
    return [parts / name for name in [*sorted(unfinished), *sorted(shards)]]


def _bytes(texts: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(texts), dtype=np.uint8)


def _offsets(sequences: Sequence[Sized]) -> np.ndarray:
    return np.cumsum([0, *map(len, sequences)], dtype=np.int64)


def _locked(store: Path, wait_s: float) -> FileLock:
    try:
        return FileLock(store / "lock", wait_s=wait_s)
    except LockedByAnotherProcess:
        raise TrichordError(
            f"{store}: another process is writing to it; wait until it ends or use another store"
        ) from None
