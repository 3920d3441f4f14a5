"""What is left to do: every source against the store, by content and fingerprint, never by name."""

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
    medias: dict[str, str] = field(
        default_factory=dict
    )  # video_id -> hash of its media files and span, where it is known
    rules: dict[str, str] = field(default_factory=dict)  # video_id -> rules by which it was made, where they are known
    split_of: dict[str, str] = field(default_factory=dict)  # video_id -> split
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    settled: Settled | None = None
    _opened: tuple[str, Store, dict[str, int]] | None = None
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
        """Whether the store holds a video to test with."""
        return "test" in self.split_of.values()

    def version(self, video_id: str) -> tuple[str, str]:
        """What the stored item was made from, and by which rules: another version of it has others."""
        return self.recorded.get(video_id, ""), self.rules.get(video_id, "")

    def stored(self, video_id: str) -> tuple[Store, int]:
        """The store, opened as it is known here, and the number of an item that it holds."""
        if self._opened is None or self._opened[0] != self._parts[-1]:
            opened = Store(self.store, last_part=self._parts[-1])
            numbers = {opened.video_id(i): i for i in opened.select(self.collection).tolist()}
            self._opened = self._parts[-1], opened, numbers
        return self._opened[1], self._opened[2][video_id]

    def settle(self, video_id: str, key: str) -> None:
        """Note that the work `key` gives what the store holds of the item already."""
        self.settled = self.settled or Settled(self.store)
        self.settled.add(self.recorded.get(video_id, ""), key)

    def is_settled(self, video_id: str, key: str) -> bool:
        """Whether the work `key` was seen to give what the store holds of the item already."""
        self.settled = self.settled or Settled(self.store)
        return self.settled.has(self.recorded.get(video_id, ""), key)

    def conflict(self, source: Source, key: str, media: str = "") -> tuple[str, str]:
        """Class and reason why the store cannot take `source`, besides that it holds it already; empty if it can.

        Args:
            source: What is to be stored.
            key: What identifies the work.
            media: Hash of its media files and span, where it is known.
        """
        stored = self.sources.get(key, source.video_id)
        if stored != source.video_id:
            return "duplicate", f"has the same content as {stored}, which is in the store; remove one"
        recorded = self.recorded.get(source.video_id, key)
        if recorded == key:
            return "", ""
        if recorded.partition(":")[0] == key.partition(":")[0] or (media and self.medias.get(source.video_id) == media):
            what = "is in the store, made by other encoders or settings; use those"
        elif self.medias.get(source.video_id):
            what = "is in the store, made from other content; rename it"
        else:
            what = (
                "is in the store, made from other content, which may be other captions: the version that extracted it did not tell "
                "these apart. If only captions are new, put the earlier caption file back, run this command, put the new file "
                "there and run it again; else rename the video"
            )
        return "changed", f"{what}, or name another collection or store"


@dataclass(frozen=True)
class Job:
    """A source and what is to be done with it.

    Attributes:
        source: The source.
        status: `todo`, `renew` (in the store, and made anew if it comes out otherwise), `present`, `failed` (earlier, and not to be
            tried again) or a class of failure that shows without opening the file.
        key: What identifies the work.
        reason: Why it is not done, or a note on what is there.
        num_bytes: Of its files.
        states: Of its files when they were hashed.
        media: Hash of its media files and span.
        replaces: Of an item that is made anew, the version that the store holds (`Known.version`).
    """

    source: Source
    status: str
    key: str = ""
    reason: str = ""
    num_bytes: int = 0
    states: Mapping[Path, FileState] | None = None
    media: str = ""
    replaces: tuple[str, str] | None = None


def content_of(source: Source, hashes: FileHashes) -> str:
    """SHA-256 of all that the item follows from: the content of its files, its span, its texts. Names do not count."""
    digests = {name: hashes.sha256(path) for name, path in content_files(source).items()}
    return content_hash(digests, source.text, source.start_s, source.end_s)


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
        elif known.sources.get(key, source.video_id) == source.video_id and source.video_id in known.ids:
            job = _known_job(source, key, by_name, hashed, known, hashes)
            if job.replaces is not None and key in known.failed and known.failed[key].get("class") not in again:
                job = Job(source, "failed", key, known.failed[key]["reason"], num_bytes)
            yield job
        elif known.conflict(source, key)[0]:
            yield Job(source, known.conflict(source, key)[0], by_name, known.conflict(source, key)[1], num_bytes)
        elif seen_keys.setdefault(key, source.name) != source.name:
            yield Job(source, "duplicate", by_name, f"has the same content as {seen_keys[key]}; remove one", num_bytes)
        elif key in known.failed and known.failed[key].get("class") not in again:
            yield Job(source, "failed", key, known.failed[key]["reason"], num_bytes)
        else:
            yield Job(source, "todo", key, "", num_bytes, hashed.states, hashed.media)


def _known_job(source: Source, key: str, by_name: str, hashed: _Hashed, known: Known, hashes: FileHashes) -> Job:
    """The job of a source whose id the store holds: nothing to do, to be looked at again, or a conflict."""
    recorded, num_bytes = known.recorded.get(source.video_id, ""), hashed.num_bytes
    present = Job(source, "present", key, "", num_bytes, hashed.states, hashed.media)
    if not recorded or known.is_settled(source.video_id, key):
        return present
    if recorded != key:
        content, _, made_by = recorded.partition(":")
        if made_by != key.partition(":")[2] or not _has_same_media(source, content, hashed, known, hashes):
            kind, reason = known.conflict(source, key, hashed.media)
            return Job(source, kind, by_name, reason, num_bytes)
        if "captions" not in hashed.digests and not source.text and not _has_arrays(source, known):
            return replace(present, reason="its captions are not there any more; the store keeps those that it has")
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
    """Hashes, size and state of a source's files, or the class and the reason why there are none. digests: of each file."""

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
        states = {path: state_of(path) for path in files.values()}  # before hashing: what is written meanwhile shows
        digests = {name: hashes.sha256(path) for name, path in files.items()}
        content = content_hash(digests, source.text, source.start_s, source.end_s)
        num_bytes = sum(states[path].size for path in source.files)
        return _Hashed(content, num_bytes, states, media_hash(digests, source), digests)
    except OSError as error:
        problem = f"{error.filename or source.name}: cannot be read ({reason_of(error)}); check the path"
        return _Hashed(kind=fault_of(error) or "missing", problem=problem)
    except MemoryError:
        return _Hashed(kind="out-of-memory", problem="no memory is left to read it; use fewer workers")


def _hashed(sources: Sequence[Source], hashes: FileHashes, trust_names: bool) -> Iterator[tuple[Source, _Hashed]]:
    """Each source with its hash, a few ahead, in threads."""
    with ThreadPoolExecutor(2, thread_name_prefix="hash") as pool:
        hashed = in_order(pool, lambda source: _hash(source, hashes, trust_names), sources, _READ_AHEAD + 1)
        try:
            yield from hashed
        finally:
            hashes.stop()
            hashed.close()
