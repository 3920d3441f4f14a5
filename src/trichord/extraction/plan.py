"""The plan of an extraction: it compares every source with the store by content and fingerprint, never by name."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from trichord.errors import TrichordError
from trichord.extraction.choice import Described
from trichord.extraction.folder import content_files, name_crc32
from trichord.extraction.renewal import (
    content_hash,
    had_same_media,
    has_stored_arrays,
    media_hash,
    stored_captions,
)
from trichord.extraction.sources import Source
from trichord.features.hashes import FileHashes, FileState, state_of
from trichord.files.faults import fault_of, reason_of
from trichord.files.reading import check_regular
from trichord.store import Store
from trichord.store.committed import new_parts
from trichord.store.ledger import LEDGER, read_ledger
from trichord.store.manifest import TEXTS, Manifest
from trichord.store.rules import Settled, is_older
from trichord.threads import in_order

_READ_AHEAD = 8
POSTPONED = (
    "system",
    "out-of-memory",
    "disk",
    "modified",
)  # classes that say nothing about the file; the next run tries again
ALWAYS_AGAIN = ("interrupted", "missing", "encoder", *POSTPONED)


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count` parts of the work. All clips of a file belong to one part."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse text such as `2/8`.

        Raises:
            TrichordError: The text has another form.
        """
        index, _, count = text.partition("/")
        if not (index.strip().isdecimal() and count.strip().isdecimal() and 1 <= int(index) <= int(count)):
            raise TrichordError(f"--shard is '{text}'; it must be the part and the number of parts, such as 2/8")
        return cls(int(index), int(count))

    def has(self, source: Source) -> bool:
        """Return whether a source belongs to this part."""
        return name_crc32(source.file_name or source.video_id) % self.count == self.index - 1


@dataclass
class Known:
    """The items of a collection in the store, and earlier failures. Updated when other processes commit."""

    store: Path
    collection: str
    sources: dict[str, str] = field(default_factory=dict)  # video id by key
    ids: set[str] = field(default_factory=set)
    recorded: dict[str, str] = field(default_factory=dict)  # key by video id, if known
    medias: dict[str, str] = field(default_factory=dict)  # hash of media files and span by video id, if known
    rules: dict[str, str] = field(default_factory=dict)  # rules by video id, if known
    split_of: dict[str, str] = field(default_factory=dict)  # split by video id
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    settled: Settled | None = None
    _opened: tuple[str, Store, dict[str, int]] | None = None
    _ledger_size: int = -1
    _parts: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there are neither items nor failures."""
        return not self.ids and not self.failed

    def failures_of(self, name: str, key: str) -> set[str]:
        """Return the keys of the failures that are resolved once the work `key` of the source `name` is done."""
        return {k for k, entry in self.failed.items() if k == key or entry["source"] == name}

    def renew(self) -> None:
        """Read changes of the store.

        Raises:
            TrichordError: The store is damaged.
        """
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
            self.sources, self.ids, self.recorded, self._parts = {}, set(), {}, []
            self.medias, self.rules, self.split_of = {}, {}, {}
        for part in parts:
            self._take(part)

    def _take(self, part: Manifest) -> None:
        unknown = [""] * part.num_rows
        texts = [part.texts[name].to_pylist() if name in part.texts else unknown for name in TEXTS]
        for video_id, collection, split, key, media, rules in zip(*texts, strict=True):
            if collection == self.collection:
                if self.sources.get(superseded := self.recorded.pop(video_id, "")) == video_id:
                    del self.sources[superseded]
                self.ids.add(video_id)
                self.split_of[video_id] = sys.intern(split)
                if key:
                    self.sources[key] = video_id
                    self.recorded[video_id] = key
                if media or rules:
                    self.medias[video_id], self.rules[video_id] = media, sys.intern(rules)
        self._parts.append(part.path.name)

    @property
    def has_test(self) -> bool:
        """Whether the store contains a test video."""
        return "test" in self.split_of.values()

    def version(self, video_id: str) -> tuple[str, str]:
        """Return the inputs and the rules of the stored item, which identify its version."""
        return self.recorded.get(video_id, ""), self.rules.get(video_id, "")

    def stored(self, video_id: str) -> tuple[Store, int]:
        """Return the store, opened at its known state, and the number of an item in it."""
        if self._opened is None or self._opened[0] != self._parts[-1]:
            opened = Store(self.store, last_part=self._parts[-1])
            numbers = {opened.video_id(i): i for i in opened.select(self.collection).tolist()}
            self._opened = self._parts[-1], opened, numbers
        return self._opened[1], self._opened[2][video_id]

    def settle(self, video_id: str, key: str) -> None:
        """Record that the work `key` reproduces the stored item."""
        self.settled = self.settled or Settled(self.store)
        self.settled.add(self.recorded.get(video_id, ""), key)

    def is_settled(self, video_id: str, key: str) -> bool:
        """Return whether the work `key` is known to reproduce the stored item."""
        self.settled = self.settled or Settled(self.store)
        return self.settled.has(self.recorded.get(video_id, ""), key)

    def conflict(self, source: Source, key: str, media: str = "") -> tuple[str, str]:
        """Return the class and reason why the store cannot accept a source, other than that it exists; empty if it can.

        Args:
            source: The item to store.
            key: The key of the work.
            media: The hash of its media files and span, if known.
        """
        stored = self.sources.get(key, source.video_id)
        if stored != source.video_id:
            return "duplicate", f"has the same content as {stored}, which is in the store; remove one of them"
        recorded = self.recorded.get(source.video_id, key)
        if recorded == key:
            return "", ""
        if recorded.partition(":")[0] == key.partition(":")[0] or (media and self.medias.get(source.video_id) == media):
            problem = "is in the store, computed by other encoders or settings; use those"
        elif self.medias.get(source.video_id):
            problem = "is in the store with other content; rename it"
        else:
            problem = (
                "is in the store with other content; the version that extracted it did not record whether only its captions "
                "differ. If only captions are new, restore the earlier caption file, run this command, put the new file in "
                "place and run the command again; otherwise rename the video"
            )
        return "changed", f"{problem}, or use another collection or store"


@dataclass(frozen=True)
class Job:
    """A source and what is to be done with it.

    Attributes:
        source: The source.
        status: `todo`, `renew` (in the store, to be updated if the result differs), `present`, `failed` (earlier, and not to be
            tried again), or a class of failure that is known without opening the file.
        key: The key of the work.
        reason: Why it is not done, or a note on the stored item.
        num_bytes: The size of its files.
        states: The states of its files when they were hashed.
        media: The hash of its media files and span.
        replaces: The version of the stored item that is to be updated (`Known.version`).
    """

    source: Source
    status: str
    key: str = ""
    reason: str = ""
    num_bytes: int = 0
    states: Mapping[Path, FileState] | None = None
    media: str = ""
    replaces: tuple[str, str] | None = None


def name_key(source: Source, described: Described) -> str:
    """Return the key of failures that concern the name of a source, not its content."""
    return f"{hashlib.sha256(repr(source.name).encode()).hexdigest()}:{described.digest}"


def first_names(sources: Iterable[Source]) -> dict[str, str]:
    """Return the name of the first source of each video id. Later sources are refused, in whichever shard they are."""
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
    """Yield a job for each source, in order. Threads hash a few files ahead.

    Args:
        sources: The sources of this shard.
        described: The encoders.
        known: The content of the store.
        hashes: The digests of files.
        names: `first_names` of all sources, including those of other shards.
        retry: Classes of earlier failures to try again, in addition to `ALWAYS_AGAIN`.
        require: The required modalities. Earlier failures because of other modalities no longer count.
        trust_names: Whether to assume that all files differ without reading them, for a dry run on an empty store.
    """
    retried = {*ALWAYS_AGAIN, *retry, *({"no-audio"} - {f"no-{m}" for m in require})}
    retried |= set() if "text" in require else {"no-captions"}
    seen_keys: dict[str, str] = {}
    for source, hashed in _hashed(sources, hashes, trust_names):
        key, by_name, num_bytes = f"{hashed.content}:{described.digest}", name_key(source, described), hashed.num_bytes
        if "\n" in source.video_id or not _is_unicode(source.video_id):
            yield Job(source, "name", by_name, "its name is not one line of UTF-8; rename it", num_bytes)
        elif names[source.video_id] != source.name:
            reason = f"has the same name as {names[source.video_id]}; rename one of them"
            yield Job(source, "name", by_name, reason, num_bytes)
        elif hashed.problem:
            yield Job(source, hashed.kind, by_name, hashed.problem, num_bytes)
        elif known.sources.get(key, source.video_id) == source.video_id and source.video_id in known.ids:
            job = _known_job(source, key, by_name, hashed, known, hashes)
            if job.replaces is not None and key in known.failed and known.failed[key].get("class") not in retried:
                job = Job(source, "failed", key, known.failed[key]["reason"], num_bytes)
            yield job
        elif known.conflict(source, key)[0]:
            yield Job(source, known.conflict(source, key)[0], by_name, known.conflict(source, key)[1], num_bytes)
        elif seen_keys.setdefault(key, source.name) != source.name:
            yield Job(
                source, "duplicate", by_name, f"has the same content as {seen_keys[key]}; remove one of them", num_bytes
            )
        elif key in known.failed and known.failed[key].get("class") not in retried:
            yield Job(source, "failed", key, known.failed[key]["reason"], num_bytes)
        else:
            yield Job(source, "todo", key, "", num_bytes, hashed.states, hashed.media)


def _known_job(source: Source, key: str, by_name: str, hashed: _Hashed, known: Known, hashes: FileHashes) -> Job:
    """Return the job of a source whose id is in the store: nothing to do, an update, or a conflict."""
    recorded, num_bytes = known.recorded.get(source.video_id, ""), hashed.num_bytes
    present = Job(source, "present", key, "", num_bytes, hashed.states, hashed.media)
    if not recorded or known.is_settled(source.video_id, key):
        return present
    if recorded != key:
        content, _, encoders = recorded.partition(":")
        if encoders != key.partition(":")[2] or not _has_same_media(source, content, hashed, known, hashes):
            kind, reason = known.conflict(source, key, hashed.media)
            return Job(source, kind, by_name, reason, num_bytes)
        if "captions" not in hashed.digests and not source.text and not _has_arrays(source, known):
            return replace(present, reason="its captions no longer exist; the store keeps the stored ones")
    elif not any(is_older(known.rules.get(source.video_id, ""))):
        return present
    return replace(present, status="renew", replaces=known.version(source.video_id))


def _has_arrays(source: Source, known: Known) -> bool:
    return bool(source.arrays) or has_stored_arrays(*known.stored(source.video_id))


def _has_same_media(source: Source, content: str, hashed: _Hashed, known: Known, hashes: FileHashes) -> bool:
    if media := known.medias.get(source.video_id):
        return media == hashed.media
    store, i = known.stored(source.video_id)
    return had_same_media(content, source, hashed.digests, hashes, stored_captions(store, i).text)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class _Hashed:
    """The hashes, sizes and states of a source's files, or the class and reason of a failure to hash them."""

    content: str = ""
    num_bytes: int = 0
    states: Mapping[Path, FileState] | None = None
    media: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    kind: str = ""
    problem: str = ""


def _hash(source: Source, hashes: FileHashes, trust_names: bool) -> _Hashed:
    try:
        if trust_names:
            content = source.video_id.encode("utf-8", "replace").hex()
            return _Hashed(content, sum(check_regular(path).st_size for path in source.files))
        files = content_files(source)
        states = {path: state_of(path) for path in files.values()}  # before hashing, so that later changes are detected
        digests = {name: hashes.sha256(path) for name, path in files.items()}
        content = content_hash(digests, source.text, source.start_s, source.end_s)
        num_bytes = sum(states[path].size for path in source.files)
        return _Hashed(content, num_bytes, states, media_hash(digests, source), digests)
    except OSError as error:
        problem = f"{error.filename or source.name}: cannot be read ({reason_of(error)}); check the path"
        return _Hashed(kind=fault_of(error) or "missing", problem=problem)
    except MemoryError:
        return _Hashed(kind="out-of-memory", problem="not enough memory to read it; use fewer workers")


def _hashed(sources: Sequence[Source], hashes: FileHashes, trust_names: bool) -> Iterator[tuple[Source, _Hashed]]:
    """Yield each source with its hashes. Threads hash a few sources ahead."""
    with ThreadPoolExecutor(2, thread_name_prefix="hash") as pool:
        hashed = in_order(pool, lambda source: _hash(source, hashes, trust_names), sources, _READ_AHEAD + 1)
        try:
            yield from hashed
        finally:
            hashes.stop()
            hashed.close()
