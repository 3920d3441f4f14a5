"""One run of an extraction: lease jobs, pass them to workers, and commit the results in the order of the plan."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from trichord.captions import tokenize
from trichord.errors import TrichordError
from trichord.extraction.arrays import Width
from trichord.extraction.choice import Described, EncoderChoice
from trichord.extraction.engines import Engine
from trichord.extraction.plan import POSTPONED, Job, Known
from trichord.extraction.progress import Meter
from trichord.extraction.renewal import is_same, merged, stored_part
from trichord.extraction.summary import ExtractSummary
from trichord.extraction.task import Outcome, Task
from trichord.files.faults import DISK, fault_of, reason_of
from trichord.media import Decoder
from trichord.store import Item, Store, StoreWriter, spool
from trichord.store.committed import Committed, item_key
from trichord.store.leases import Leases
from trichord.store.ledger import CLASSES, RESOLVED, note
from trichord.store.manifest import part_paths
from trichord.store.words import WordVectors, few_words, word_vectors_for
from trichord.store.writer import SHARD_BYTES

_FEW_WORDS = 0.5  # an item is noted if fewer than this fraction of its words are known
_WAIT_FOR_WRITER_S = 3600.0
_MOST_AT_ONCE = 4096  # items committed from the spool at once
_ROOM_BYTES = 1 << 20
_MOST_ENCODER_FAILURES = 5  # consecutive failures after which the videos are not to blame


def check_room(store: Path) -> None:
    """Check that at least one megabyte can be written to the store; otherwise no item can be stored.

    Raises:
        TrichordError: The store is full or not writable.
    """
    folder = store / spool.FOLDER
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if fault_of(error) and error.errno != errno.EFBIG:  # a smaller item may still be stored
            raise TrichordError(
                f"{store}: is not writable ({reason_of(error)}); fix the cause, then run the command again; "
                "committed items are safe"
            ) from error


def _folder_key(name: str) -> str:
    """Return the key in the ledger of a folder that cannot be listed."""
    return f"folder:{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()}"


class Run:
    """The state of a run: jobs in progress, and finished jobs that are not committed yet.

    Args:
        store: The folder of the store.
        collection: The collection of the items.
        words: The file of word vectors, or None for the default ones.
        word_splitting: How captions are split into words.
        splits: The split of each video id.
        known: The content of the store.
        described: The encoders.
        summary: The summary, which is filled in.
        require: The modalities without which an item is skipped.
        choice: The names of the encoders.
        decoder: The decoder of pictures.
        stall_s: Seconds without progress after which a decoder is stopped.
        widths: The width of the feature arrays of each modality.
        leases: The leases of this process on the store.
        meter: Receives the progress.
    """

    def __init__(
        self, store: Path, *, collection: str, words: Path | None, word_splitting: str, splits: dict[str, str], known: Known,
        described: Described, summary: ExtractSummary, require: tuple[str, ...], choice: EncoderChoice,
        decoder: Decoder, stall_s: float, widths: Mapping[str, Width], leases: Leases, meter: Meter,
    ) -> None:  # fmt: skip
        self.store, self.collection, self.words, self.splits = store, collection, words, splits
        self.word_splitting = word_splitting
        self.known, self.described, self.summary = known, described, summary
        self.require, self.choice, self.decoder, self.stall_s = require, choice, decoder, stall_s
        self.widths, self.leases, self.meter = widths, leases, meter
        self.reasons: list[str] = []
        self._jobs: dict[str, Job] = {}  # in progress, by key
        self._order: deque[Job] = deque()  # in progress or finished, in the order of the plan
        self._finished: dict[str, Outcome] = {}
        self._ready: list[Job] = []  # finished together with all jobs before them
        self._ready_bytes = 0
        self._encoder_failures = 0  # consecutive
        self._committed = Committed()

    def work(self, plan: Iterator[Job], engine: Engine) -> None:
        """Do all jobs of the plan. Finished items are committed even if the run is interrupted."""
        try:
            for key, outcome in engine.outcomes(self._tasks(plan)):
                self._done(self._jobs.pop(key), outcome)
                self._commit_when_full()
        except KeyboardInterrupt as error:
            self.summary.interruption = error
            in_progress = engine.under_way()
            engine.close(now=True)
            for job in self._order:
                if job.key not in self._finished and (self.store / spool.FOLDER / self._name(job)).exists():
                    self._finished[job.key] = Outcome()  # finished, but not reported yet
                elif job.key not in self._finished and job.key in in_progress:
                    self._note(job, "interrupted", "was in progress when the run was stopped")
        except BaseException:  # finished items stay in the spool, where the next run finds them
            engine.close(now=True)
            raise
        else:
            engine.close(now=False)
        self._remove_unfinished()
        self._commit([*self._ready, *(job for job in self._order if job.key in self._finished)])

    def adopt(self) -> None:
        """Commit items that an earlier run had finished but not committed, and remove its unfinished items."""
        self._remove_unfinished()
        free = [path for path in spool.spooled(self.store) if self.leases.acquire(path.name)]
        added = self._write(free)
        if added:
            self.summary.notes.append(f"{added} videos finished by an earlier run are now in the store")
            self.summary.num_added -= added  # the plan counts them as present
        self.known.renew()

    def _remove_unfinished(self) -> None:
        """Remove unfinished folders that no other process is working on."""
        for path, name in spool.begun(self.store):
            held = self.leases.holds(name)
            if self.leases.acquire(name):
                spool.remove_spooled(path)
                if not held:
                    self.leases.release(name)

    # ---- one job

    def _tasks(self, plan: Iterator[Job]) -> Iterator[Task]:
        """Yield the tasks to work on. Each is leased when it is yielded."""
        for job in plan:
            if self._is_to_do(job):
                self._jobs[job.key] = job
                self._order.append(job)
                yield self._task(job)

    def _name(self, job: Job) -> str:
        return spool.spool_name(job.key, self.collection)

    def _is_to_do(self, job: Job) -> bool:
        """Return whether the job is to be done. If so, its lease is acquired."""
        if job.status in ("todo", "renew"):
            return self._lease(job)
        if job.status == "present":
            self.summary.num_present += 1
            if job.reason:
                self.summary.notes.append(f"{job.source.name}: {job.reason}")
            self._resolve(job)
        elif job.status == "failed":
            self._count(job, self.known.failed[job.key].get("class", "other"), job.reason)
        else:
            self._failed(job, job.status, job.reason)
            self.meter.done(job.source.name, f"skipped: {job.reason}", job.num_bytes, 0.0, failed=True)
            return False
        self.meter.passed(job.num_bytes)
        return False

    def _lease(self, job: Job) -> bool:
        if not self.leases.acquire(self._name(job)):
            self.summary.num_leased += 1
            self.meter.passed(job.num_bytes)
            return False
        self.known.renew()  # another process may have changed the store since the plan was made
        if (self.store / spool.FOLDER / self._name(job)).exists():  # finished by a process that has died
            self._order.append(job)
            self._finished[job.key] = Outcome(
                num_bytes=spool.spooled_bytes(self.store / spool.FOLDER / self._name(job))
            )
            self.meter.passed(job.num_bytes)
            return False
        video_id = job.source.video_id
        kind, reason = ("", "") if job.replaces is not None else self.known.conflict(job.source, job.key)
        if not kind and (video_id not in self.known.ids or job.replaces == self.known.version(video_id)):
            return True
        self.leases.release(self._name(job))
        return self._is_to_do(replace(job, status=kind or "present", reason=reason))

    def _split(self, job: Job) -> str:
        """Return the split of a job's item. An existing item keeps its split, so that a video never moves."""
        return self.known.split_of.get(job.source.video_id, self.splits[job.source.video_id])

    def _task(self, job: Job) -> Task:
        stored = None
        if job.status == "renew":
            store, i = self.known.stored(job.source.video_id)
            stored = stored_part(store, i, is_asked=job.replaces is None or job.replaces[0] != job.key)
        return Task(
            source=job.source,
            split=self._split(job),
            key=job.key,
            collection=self.collection,
            store=self.store,
            require=self.require,
            captions=self.choice.captions,
            decoder=self.decoder,
            stall_s=self.stall_s,
            states=job.states,
            media=job.media,
            stored=stored,
            widths=self.widths,
        )

    def _done(self, job: Job, outcome: Outcome) -> None:
        self.summary.decode_s += outcome.decode_s
        self.summary.encode_s += outcome.encode_s
        if outcome.kind:
            self._order.remove(job)
            self.leases.release(self._name(job))
            self._failed(job, outcome.kind, outcome.reason)
            line = f"skipped: {outcome.reason}"
        elif outcome.is_unchanged:
            self._order.remove(job)
            self.leases.release(self._name(job))
            self.summary.notes += outcome.notes
            self.known.settle(job.source.video_id, job.key)
            self.summary.num_present += 1
            self._resolve(job)
            line = "unchanged"
        else:
            self._finished[job.key] = outcome
            self.summary.video_s += outcome.duration_s if job.replaces is None else 0.0
            self.summary.notes += outcome.notes
            line = f"{outcome.duration_s:.1f} s, {outcome.num_captions} captions, {self._split(job)}"
        self.meter.done(job.source.name, line, job.num_bytes, outcome.duration_s, failed=bool(outcome.kind))
        if outcome.kind == DISK:
            check_room(self.store)
        self._encoder_failures = self._encoder_failures + 1 if outcome.kind == "encoder" else 0
        if self._encoder_failures >= _MOST_ENCODER_FAILURES:
            raise TrichordError(
                f"{job.source.name}: {outcome.reason}; this happened {_MOST_ENCODER_FAILURES} times in a row, "
                "so the run was stopped; fix the cause"
            )

    # ---- the ledger

    def note_unlisted(self, root: Path, errors: Sequence[OSError]) -> None:
        """Record which folders below `root` cannot be listed, and which earlier ones can be listed now."""
        names = {f"{os.path.relpath(error.filename, root)}/": error for error in errors}
        for name, error in names.items():
            reason = f"cannot be listed ({reason_of(error)}); its videos are left out"
            self.summary.num_postponed += 1
            self.summary.notes.append(f"{name}: {reason}")
            self.reasons.append(f"{name}: {reason}")
            key = _folder_key(name)
            if self.known.failed.get(key, {}).get("reason") != reason:
                note(self.store, name, reason, "system", key, self.collection)
        for key, entry in list(self.known.failed.items()):
            if key == _folder_key(entry["source"]) and entry["source"] not in names:
                del self.known.failed[key]
                note(self.store, entry["source"], "can be listed now", RESOLVED, key, self.collection)

    def _note(self, job: Job, kind: str, reason: str) -> None:
        """Append an entry to the ledger unless it has the same entry already."""
        previous = self.known.failed.get(job.key, {})
        if (previous.get("class"), previous.get("source")) != (kind, job.source.name):
            note(self.store, job.source.name, reason, kind, job.key, self.collection)

    def _count(self, job: Job, kind: str, reason: str) -> None:
        self.summary.num_skipped += 1
        self.summary.failures[kind] = self.summary.failures.get(kind, 0) + 1
        self.summary.num_postponed += kind in POSTPONED
        self.reasons.append(f"{job.source.name}: {reason}")

    def _failed(self, job: Job, kind: str, reason: str) -> None:
        kind = kind if kind in CLASSES else "other"
        self._count(job, kind, reason)
        self.summary.notes.append(f"{job.source.name}: {reason}")
        self._note(job, kind, reason)

    def _resolve(self, job: Job) -> None:
        for key in self.known.failures_of(job.source.name, job.key):
            collection = self.known.failed.pop(key).get("collection", "")
            note(self.store, job.source.name, "is in the store now", RESOLVED, key, collection)

    # ---- committing

    def _commit_when_full(self) -> None:
        """Commit the finished items before the first job in progress once they fill a part.

        A part never receives more, so that the boundaries of parts follow from the plan and not from the speed of workers.
        """
        while self._order and self._order[0].key in self._finished:
            job = self._order.popleft()
            self._ready.append(job)
            self._ready_bytes += self._finished[job.key].num_bytes
            if self._ready_bytes >= SHARD_BYTES or len(self._ready) >= _MOST_AT_ONCE:
                self._commit(self._ready)
                self._ready, self._ready_bytes = [], 0

    def _commit(self, jobs: list[Job]) -> None:
        self._write([self.store / spool.FOLDER / self._name(job) for job in jobs])
        for job in jobs:
            self._resolve(job)
            self._finished.pop(job.key, None)

    def _write(self, folders: list[Path]) -> int:
        """Move items from the spool into the parts of the store; return how many of them were new."""
        added = 0
        for begin in range(0, len(folders), _MOST_AT_ONCE):
            group = folders[begin : begin + _MOST_AT_ONCE]
            items = {path: item for path in group if (item := spool.read_spooled(path)) is not None}
            if items:
                added += self._write_items(list(items.values()))
            for path in group:
                spool.remove_spooled(path)
                self.leases.release(path.name)
        self.summary.num_added += added
        return added

    def _note_unknown_words(self, items: Sequence[Item], vectors: WordVectors) -> None:
        """Add a note for each item with few or no words in the table, unless a sentence encoder reads its text."""
        if "text" in self.described.streams:
            return
        known = set(vectors.words)
        for item in items:
            words = [word for text in item.captions.text for word in tokenize(text, vectors.splitting)]
            num_known = sum((word.lower() if vectors.lowercase else word) in known for word in words)
            if len(item.captions) and num_known < len(words) * _FEW_WORDS or (len(item.captions) and not words):
                self.summary.notes.append(f"{item.video_id}: {few_words(num_known, len(words), vectors.source)}")

    def _write_items(self, items: list[spool.SpooledItem]) -> int:
        vectors = word_vectors_for(
            (text for item in items for text in item.captions.text), self.words, self.word_splitting
        )
        self._note_unknown_words(items, vectors)
        before = self.summary.num_renewed
        with StoreWriter(self.store, vectors, wait_s=_WAIT_FOR_WRITER_S, committed=self._committed) as writer:
            stored = _stored(self.store, items)
            for item in items:
                if writer.has_source(item.collection, item.source, item.rules):
                    continue  # committed by a run that was killed before it could clean up
                try:
                    if item.renews:
                        self._renew(item, stored, writer)
                    else:
                        writer.add(item, copy=False)
                except TrichordError as error:  # meanwhile, another item took the id or determined another width
                    if fault_of(error):
                        raise
                    self.summary.num_skipped += 1
                    self.summary.failures["other"] = self.summary.failures.get("other", 0) + 1
                    self.summary.notes.append(str(error))
                    note(self.store, item.video_id, str(error), "other", item.source, item.collection)
            return writer.num_added - (self.summary.num_renewed - before)

    def _renew(self, item: spool.SpooledItem, stored: tuple[Store, dict[str, int]] | None, writer: StoreWriter) -> None:
        """Replace a stored item by a new version, unless both are the same."""
        i = None if stored is None else stored[1].get(item_key(item.collection, item.video_id))
        if stored is None or i is None:
            where = f"{item.collection}/{item.video_id}"
            raise TrichordError(f"{where}: no longer exists in {self.store}; run the same command again")
        new_version = merged(item, stored[0], i)
        if is_same(new_version, stored[0], i):
            self.known.settle(item.video_id, item.source)
            return
        writer.add(new_version, copy=False, supersede=True)
        self.summary.num_renewed += 1


def _stored(store: Path, items: Sequence[spool.SpooledItem]) -> tuple[Store, dict[str, int]] | None:
    """Open the store and return it with the numbers of the items to be renewed; None if there are none."""
    renewed = [item for item in items if item.renews]
    if not renewed or not part_paths(store):
        return None
    opened = Store(store)
    numbers: dict[str, int] = {}
    for collection in {item.collection for item in renewed}:
        names = (item.video_id for item in renewed if item.collection == collection)
        numbers |= {item_key(collection, name): i for name, i in opened.numbered(collection, names).items()}
    return opened, numbers
