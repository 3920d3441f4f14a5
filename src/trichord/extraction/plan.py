"""What is left to do: every source against the store, by content and fingerprint, never by name."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from trichord.errors import TrichordError
from trichord.extraction.choice import Described
from trichord.extraction.folder import content_files, name_crc32
from trichord.extraction.sources import Source
from trichord.faults import fault_of, reason_of
from trichord.features.hashes import FileHashes, FileState, state_of
from trichord.files.reading import check_regular
from trichord.store.committed import new_parts
from trichord.store.ledger import LEDGER, read_ledger
from trichord.store.manifest import Manifest

_READ_AHEAD = 8
POSTPONED = (
    "system",
    "out-of-memory",
    "disk",
    "modified",
)  # classes that say nothing of the file: the next run tries again
ALWAYS_AGAIN = ("interrupted", "missing", "encoder", *POSTPONED)


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
        return name_crc32(source.file_name or source.video_id) % self.count == self.index - 1


@dataclass
class Known:
    """What the store holds of a collection, and what failed before. Renewed when other processes commit."""

    store: Path
    collection: str
    sources: dict[str, str] = field(default_factory=dict)  # key -> video_id
    ids: set[str] = field(default_factory=set)
    recorded: dict[str, str] = field(default_factory=dict)  # video_id -> key, where it is known
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    _ledger_size: int = -1
    _parts: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not self.ids and not self.failed

    def failures_of(self, name: str, key: str) -> set[str]:
        """Keys of the failures that are settled when the work `key` of the source `name` is done."""
        return {k for k, entry in self.failed.items() if k == key or entry["source"] == name}

    def renew(self) -> None:
        """Read again what changed in the store. Raises TrichordError when it is damaged."""
        ledger = self.store / LEDGER
        size = ledger.stat().st_size if ledger.exists() else 0
        if size != self._ledger_size:
            entries = read_ledger(self.store)
            self.failed = {
                e["key"]: e for e in entries if e.get("key") and e.get("collection", self.collection) == self.collection
            }
            self._ledger_size = size
        parts, gone = new_parts(self.store, self._parts)
        if gone:
            self.sources, self.ids, self.recorded, self.splits, self._parts = {}, set(), {}, {}, []
        for part in parts:
            self._take(part)

    def _take(self, part: Manifest) -> None:
        texts = [part.texts[name].to_pylist() for name in ("collection", "split", "video_id")]
        made_from = part.texts["source"].to_pylist() if "source" in part.texts else [""] * part.num_rows
        for collection, split, video_id, key in zip(*texts, made_from, strict=True):
            if collection == self.collection:
                self.ids.add(video_id)
                self.splits[split] = self.splits.get(split, 0) + 1
                if key:
                    self.sources[key] = video_id
                    self.recorded[video_id] = key
        self._parts.append(part.path.name)

    def conflict(self, source: Source, key: str) -> tuple[str, str]:
        """Class and reason why the store cannot take `source`, besides that it holds it already; empty if it can."""
        stored = self.sources.get(key, source.video_id)
        if stored != source.video_id:
            return "duplicate", f"has the same content as {stored}, which is in the store; remove one"
        recorded = self.recorded.get(source.video_id, key)
        if recorded == key:
            return "", ""
        if recorded.partition(":")[0] == key.partition(":")[0]:
            what = "is in the store, made by other encoders or settings; use those"
        else:
            what = "is in the store, made from other content or captions; rename it"
        return "changed", f"{what}, or name another collection or store"


@dataclass(frozen=True)
class Job:
    """A source and what is to be done with it: `status` is `todo`, `present`, `failed` (earlier, and not to be tried
    again) or a class of failure that shows without opening the file. `states`: of its files when they were hashed."""

    source: Source
    status: str
    key: str = ""
    reason: str = ""
    num_bytes: int = 0
    states: Mapping[Path, FileState] | None = None


def content_of(source: Source, hashes: FileHashes, files: Mapping[str, Path] | None = None) -> str:
    """SHA-256 of all that the item follows from: the content of its files, its span, its texts. Names do not count."""
    values = {
        **{name: hashes.sha256(path) for name, path in (content_files(source) if files is None else files).items()},
        "text": list(source.text),
        "span": [source.start_s, source.end_s],
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def name_key(source: Source, described: Described) -> str:
    """Key of failures that lie in a source's name, not in its content."""
    return f"{hashlib.sha256(repr(source.name).encode()).hexdigest()}:{described.digest}"


def first_names(sources: Iterable[Source]) -> dict[str, str]:
    """video_id -> name of the first source that has it; later ones are refused, in whichever shard they are."""
    names: dict[str, str] = {}
    for source in sources:
        names.setdefault(source.video_id, source.name)
    return names


def jobs(
    sources: Sequence[Source],
    described: Described,
    known: Known,
    hashes: FileHashes,
    *,
    names: Mapping[str, str],
    retry: frozenset[str] = frozenset(),
    require: Sequence[str] = (),
    trust_names: bool = False,
) -> Iterator[Job]:
    """A job for each source, in order; files are hashed a few ahead, in threads.

    Args:
        names: `first_names` of all sources, those of other shards too.
        retry: Classes of earlier failures that are to be tried again, besides `ALWAYS_AGAIN`.
        require: Modalities that are required now: a failure for want of another one counts no longer.
        trust_names: Take every file's content for different, unread: for a dry run on an empty store.
    """
    again = {*ALWAYS_AGAIN, *retry, *({"no-audio"} - {f"no-{m}" for m in require})}
    again |= set() if "text" in require else {"no-captions"}
    seen_keys: dict[str, str] = {}
    for source, hashed in _hashed(sources, hashes, trust_names):
        key, by_name, num_bytes = f"{hashed.content}:{described.digest}", name_key(source, described), hashed.num_bytes
        if "\n" in source.video_id or not _is_unicode(source.video_id):
            yield Job(source, "name", by_name, "its name is not one line of UTF-8; rename it", num_bytes)
        elif names[source.video_id] != source.name:
            reason = f"has the same name as {names[source.video_id]}; rename one"
            yield Job(source, "name", by_name, reason, num_bytes)
        elif hashed.problem:
            yield Job(source, hashed.kind, by_name, hashed.problem, num_bytes)
        elif known.conflict(source, key)[0]:
            yield Job(source, known.conflict(source, key)[0], by_name, known.conflict(source, key)[1], num_bytes)
        elif source.video_id in known.ids:
            yield Job(source, "present", key, "", num_bytes)
        elif seen_keys.setdefault(key, source.name) != source.name:
            yield Job(source, "duplicate", by_name, f"has the same content as {seen_keys[key]}; remove one", num_bytes)
        elif key in known.failed and known.failed[key].get("class") not in again:
            yield Job(source, "failed", key, known.failed[key]["reason"], num_bytes)
        else:
            yield Job(source, "todo", key, "", num_bytes, hashed.states)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class _Hashed:
    """The content hash, size and state of a source's files, or the class and the reason why there is none."""

    content: str = ""
    num_bytes: int = 0
    states: Mapping[Path, FileState] | None = None
    kind: str = ""
    problem: str = ""


def _hash(source: Source, hashes: FileHashes, trust_names: bool) -> _Hashed:
    try:
        if trust_names:
            content = source.video_id.encode("utf-8", "replace").hex()
            return _Hashed(content, sum(check_regular(path).st_size for path in source.files))
        files = content_files(source)
        states = {path: state_of(path) for path in files.values()}  # before hashing: what is written meanwhile shows
        return _Hashed(content_of(source, hashes, files), sum(states[path].size for path in source.files), states)
    except OSError as error:
        problem = f"{error.filename or source.name}: cannot be read ({reason_of(error)}); check the path"
        return _Hashed(kind=fault_of(error) or "missing", problem=problem)
    except MemoryError:
        return _Hashed(kind="out-of-memory", problem="no memory is left to read it; use fewer workers")


def _hashed(sources: Sequence[Source], hashes: FileHashes, trust_names: bool) -> Iterator[tuple[Source, _Hashed]]:
    """Each source with its hash, a few ahead, in threads."""
    waiting: deque[tuple[Source, Future[_Hashed]]] = deque()
    with ThreadPoolExecutor(2, thread_name_prefix="hash") as pool:
        try:
            for source in sources:
                waiting.append((source, pool.submit(_hash, source, hashes, trust_names)))
                if len(waiting) > _READ_AHEAD:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            hashes.stop()
            for _, future in waiting:
                future.cancel()
