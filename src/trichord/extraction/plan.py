"""What is left to do: every source against the store, by content and fingerprint, never by name."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from trichord.captions import find_sidecar
from trichord.errors import TrichordError, one_line
from trichord.extraction.choice import Described
from trichord.extraction.sources import Source
from trichord.features.hashes import FileHashes
from trichord.store import Store
from trichord.store.ledger import read_ledger

_READ_AHEAD = 8
ALWAYS_AGAIN = ("interrupted",)


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count` of the work; all clips of a file are in one part."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/8`. Raises TrichordError for anything else."""
        index, _, count = text.partition("/")
        if not (index.strip().isdecimal() and count.strip().isdecimal() and 1 <= int(index) <= int(count)):
            raise TrichordError(f"--shard is '{text}'; give the part and the number of parts, such as 2/8")
        return cls(int(index), int(count))

    def has(self, source: Source) -> bool:
        name = source.files[0].name if source.files else source.video_id
        return zlib.crc32(name.encode()) % self.count == self.index - 1


@dataclass
class Known:
    """What the store holds of a collection, and what failed before. Renewed when other processes commit."""

    store: Path
    collection: str
    sources: dict[str, str] = field(default_factory=dict)  # key -> video_id
    ids: set[str] = field(default_factory=set)
    recorded: set[str] = field(default_factory=set)  # ids whose content is known
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    num_parts: int = -1

    def failures_of(self, name: str, key: str) -> set[str]:
        """Keys of the failures that are settled when the work `key` of the source `name` is done."""
        return {k for k, entry in self.failed.items() if k == key or entry["source"] == name} if self.failed else set()

    def renew(self) -> None:
        """Read the store again if parts were added. Raises TrichordError when it is damaged."""
        parts = list((self.store / "parts").glob("*.parquet"))
        if len(parts) == self.num_parts:
            return
        self.num_parts = len(parts)
        self.failed = {e["key"]: e for e in read_ledger(self.store) if e.get("key")}
        if not parts:
            return
        opened = Store(self.store)
        self.sources = {key: opened.video_id(i) for key, i in opened.sources(self.collection).items()}
        self.recorded = set(self.sources.values())
        self.ids = {opened.video_id(int(i)) for i in opened.select(self.collection)}
        self.splits = {s: n for (name, s), n in opened.collections().items() if name == self.collection}


@dataclass(frozen=True)
class Job:
    """A source and what is to be done with it: `status` is `todo`, `present`, `failed` (earlier, and not to be tried
    again) or a class of failure that shows without opening the file."""

    source: Source
    status: str
    key: str = ""
    reason: str = ""
    num_bytes: int = 0


def content_of(source: Source, hashes: FileHashes) -> str:
    """SHA-256 of all that the item follows from: the content of its files, its span, its texts. Names do not count."""
    captions = source.captions
    if captions is None and not source.text:
        beside = [path for path in (source.video, source.audio) if path is not None]
        captions = next((found for path in beside if (found := find_sidecar(path)) is not None), None)
    files = {"video": source.video, "image": source.image, "audio": source.audio, "captions": captions}
    values = {
        **{name: hashes.sha256(path) for name, path in files.items() if path is not None},
        "text": list(source.text),
        "span": [source.start_s, source.end_s],
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def name_key(source: Source, described: Described) -> str:
    """Key of failures that lie in a source's name, not in its content."""
    return f"{hashlib.sha256(source.name.encode()).hexdigest()}:{described.digest}"


def jobs(
    sources: Sequence[Source], described: Described, known: Known, hashes: FileHashes, retry: frozenset[str]
) -> Iterator[Job]:
    """A job for each source, in order; files are hashed a few ahead, in threads."""
    seen_ids: dict[str, str] = {}
    seen_keys: dict[str, str] = {}
    for source, content, num_bytes, problem in _hashed(sources, hashes):
        key = f"{content}:{described.digest}"
        by_name = name_key(source, described)
        if problem:
            yield Job(source, "missing", by_name, problem, num_bytes)
            continue
        first = seen_ids.setdefault(source.video_id, source.name)
        if first != source.name:
            yield Job(source, "name", by_name, f"has the same name as {first}; rename one", num_bytes)
            continue
        if key in known.sources:
            stored = known.sources[key]
            if stored == source.video_id:
                yield Job(source, "present", key, "", num_bytes)
            else:
                reason = f"has the same content as {stored}, which is in the store; remove one"
                yield Job(source, "duplicate", by_name, reason, num_bytes)
            continue
        if source.video_id in known.ids:
            if source.video_id in known.recorded:
                reason = "is in the store, made from other content or captions; name another collection or store"
                yield Job(source, "changed", by_name, reason, num_bytes)
            else:  # what it was made from is not recorded
                yield Job(source, "present", key, "", num_bytes)
            continue
        first = seen_keys.setdefault(key, source.name)
        if first != source.name:
            yield Job(source, "duplicate", by_name, f"has the same content as {first}; remove one", num_bytes)
            continue
        failed = known.failed.get(key)
        if failed and failed.get("class") not in (*ALWAYS_AGAIN, *retry):
            yield Job(source, "failed", key, failed["reason"], num_bytes)
            continue
        yield Job(source, "todo", key, "", num_bytes)


def _hashed(sources: Sequence[Source], hashes: FileHashes) -> Iterator[tuple[Source, str, int, str]]:
    """Each source with its content hash and size, or why it has none."""

    def one(source: Source) -> tuple[str, int, str]:
        try:
            return content_of(source, hashes), sum(p.stat().st_size for p in source.files), ""
        except OSError as error:
            return "", 0, f"{error.filename}: cannot be read ({one_line(error.strerror)}); check the path"

    waiting: deque[tuple[Source, Future[tuple[str, int, str]]]] = deque()
    with ThreadPoolExecutor(2, thread_name_prefix="hash") as pool:
        try:
            for source in sources:
                waiting.append((source, pool.submit(one, source)))
                if len(waiting) > _READ_AHEAD:
                    done, future = waiting.popleft()
                    yield done, *future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, *future.result()
        finally:
            for _, future in waiting:
                future.cancel()
