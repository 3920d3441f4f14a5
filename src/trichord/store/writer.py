"""The store's writer: append-only, one part after the other, each committed whole or not at all.

A part's shard is written first, its Parquet file last; whatever a killed writer leaves in between is no part, and the
next writer removes it. One writer at a time.
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
_UNFINISHED = re.compile(r"\.\d{5,}\.(?:safetensors|parquet)\.(?:partial|tmp)")  # `tmp` by earlier versions


@dataclass
class _Buffer:
    """Items that wait for their part."""

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
    """Appends items to the store at `path`, which is made when it is not there. Use it in a `with` block.

    What was added is committed when `shard_bytes` have gathered, by `flush`, and at the end of the block, also when an
    exception ends it. Word ids are given by first use and never change.

    wait_s: how long to wait for another writer to end.
    committed: what the store is known to hold, for one who opens a writer again and again: only what is new is read.

    Raises TrichordError when `path` is a URL, another writer is at work, a part is damaged or the words are another table's.
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
            raise TrichordError(f"word vectors {words.source}: not a row of finite numbers per word; name another file")
        try:
            make_folder(self.path, "parts")
            self._lock = _locked(self.path, wait_s)
            self._given = words
            self._given_rows = {word: row for row, word in reversed(list(enumerate(words.words)))}
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
        """Commit what was added and let other writers in."""
        try:
            if self._lock is not None:
                self.flush()
        finally:
            if self._buffer.rows or self._committed_words != len(self._known.words):
                self._known.clear()  # it tells of items or words that are not in the store
            self._unlock()

    def contains(self, collection: str, video_id: str) -> bool:
        """Whether the store holds the item, committed or not yet."""
        return item_key(collection, video_id) in self._known.splits

    def has_source(self, collection: str, source: str, rules: str = "") -> bool:
        """Whether a committed item of the collection was made from and by just that (`Item.source`, `Item.rules`)."""
        return self._known.has_source(collection, source, rules)

    def skip(self, source: str, reason: str, kind: str = "") -> None:
        """Note in the store's ledger that `source` could not be stored. No note is written twice.

        Args:
            source: What could not be stored.
            reason: Why.
            kind: The class of the reason (`ledger.CLASSES`), where it has one.
        """
        self.num_skipped += 1
        entry = (one_line(source), one_line(reason))
        if self._ledger is None:
            self._ledger = {(entry["source"], entry["reason"]) for entry in read_ledger(self.path)}
        if entry not in self._ledger:
            self._ledger.add(entry)
            note(self.path, *entry, kind)

    def add(self, item: Item, *, copy: bool = True, supersede: bool = False) -> None:
        """Take in one item; its arrays are copied, unless `copy` is False: then they must not change before `flush`.

        supersede: Where the store has an item of that collection and id, readers find this one in its place, under the
            same number. Its split must be the same, so that no video moves from testing into training.

        Raises TrichordError, and takes in nothing of the item, when it is there already or its data cannot be stored:
        names the video and the stream.
        """
        is_there = self.contains(item.collection, item.video_id)
        if is_there:
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
        buffer.supersedes += is_there
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
            raise TrichordError(f"{where}: is in {self.path} already; skip it or name another collection")
        if item.split != split:
            raise TrichordError(
                f"{where}: is in split '{split}' of {self.path} and cannot move to '{item.split}'; name another collection"
            )
        if any((row["collection"], row["video_id"]) == (item.collection, item.video_id) for row in self._buffer.rows):
            self.flush()  # a part holds an item once

    def flush(self) -> None:
        """Commit what was added as one part, now."""
        buffer = self._buffer
        if not buffer.rows:
            return
        if self._lock is None:
            raise ValueError("the writer is closed")
        known = self._known
        stem = f"{known.next_part:05d}"
        used = {word for ids in buffer.word_ids for word in ids}
        new = range(self._committed_words, len(known.words))
        table = [*new, *sorted(used.difference(new))]  # what the part adds, then what it uses of earlier parts
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
                word_source=self._given.source,
                lowercase=self._given.lowercase,
                word_dim=self._given.vectors.shape[1],
                first_word=self._committed_words,
                num_new_words=len(new),
                num_words=len(table),
                word_splitting=self._given.splitting,
                supersedes=buffer.supersedes,
            )
            names = [field.name for field in schema_for(list(info.streams), format_of(info, buffer.rows))]
            absent = {name: float("nan") if name.endswith("_rate_hz") else 0 for name in names}
            columns = {name: [row.get(name, absent[name]) for row in buffer.rows] for name in names}
            self._lock.check()
            write_manifest(self._parts / f"{stem}.parquet", columns, info)
        except FileExistsError:
            raise TrichordError(
                f"{self.path}: another process has written part {stem} meanwhile, which is kept; run the command again"
            ) from None
        except OSError as error:
            raise self._failed(f"cannot write part {stem}", error) from error
        self._committed_words = len(known.words)
        rows = ((str(row["collection"]), str(row["source"]), str(row["rules"])) for row in buffer.rows)
        known.add_part(f"{stem}.parquet", rows, self._given_table)
        self._buffer = _Buffer()

    def _tensors(self, table: list[int]) -> dict[str, list[np.ndarray]]:
        buffer = self._buffer
        spellings = [self._known.words[word].encode("utf-8", "replace") for word in table]
        width = self._given.vectors.shape[1]
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
        """Ids of the text's known words; a word met for the first time gets the next id."""
        ids, known = [], self._known
        for token in tokenize(text, self._given.splitting):
            word = token.lower() if self._given.lowercase else token
            number = known.word_ids.get(word)
            if number is None:
                row = self._given_rows.get(word)
                if row is None:
                    continue
                number = len(known.words)
                if number >= MAX_WORDS:
                    raise TrichordError(f"{self.path}: holds {MAX_WORDS} words already; start another store")
                known.word_ids[word] = number
                known.words.append(word)
                known.vectors.append(self._given.vectors[row])
            ids.append(number)
        return ids

    @property
    def _given_table(self) -> WordTable:
        given = self._given
        return given.source, given.lowercase, given.vectors.shape[1], given.splitting

    def _load(self) -> None:
        """What earlier sessions committed: keys, widths, words."""
        self._known.renew(self.path)
        own, given = self._known.word_table, self._given_table
        if own not in (None, given):
            assert own is not None
            if own[:3] == given[:3]:
                raise TrichordError(
                    f"{self.path}: has its words split as '{own[3]}', not as '{given[3]}'; name that, or another store"
                )
            raise TrichordError(
                f"{self.path}: holds words of {own[0]}, not of {given[0]}; name the same word vectors or another store"
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
            f"{self.path}: {what} ({error.strerror}); check the disk, then run again: what was committed is safe"
        )


def leftovers(store: Path) -> list[Path]:
    """Files that a killed writer left: unfinished ones, and shards without their Parquet file."""
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
        raise TrichordError(f"{store}: another process writes to it; wait for its end or name another store") from None
