"""One run of the extraction driver: lease, give to workers, commit in the order of the plan."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from trichord.errors import TrichordError
from trichord.extraction.choice import Described, EncoderChoice
from trichord.extraction.plan import Job, Known
from trichord.extraction.pool import Workers, first_done, outcome_of
from trichord.extraction.progress import Meter, clock
from trichord.extraction.work import Outcome, Task
from trichord.media import Decoder, choose_decoder
from trichord.store import Item, StoreWriter
from trichord.store.leases import Leases
from trichord.store.ledger import CLASSES, LEDGER, RESOLVED, note
from trichord.store.spool import FOLDER as SPOOL
from trichord.store.spool import abandoned, num_bytes, read_spooled, remove_spooled, spool_name, spooled
from trichord.store.words import word_vectors_for
from trichord.store.writer import SHARD_BYTES

_WAIT_FOR_WRITER_S = 3600.0


@dataclass
class ExtractSummary:
    """What an extraction did. `splits` counts all items of the collection that the store now holds."""

    store: Path
    collection: str
    encoders: str
    num_videos: int
    num_added: int = 0
    num_skipped: int = 0
    num_present: int = 0
    num_leased: int = 0
    video_s: float = 0.0
    elapsed_s: float = 0.0
    decode_s: float = 0.0
    encode_s: float = 0.0
    interrupted: bool = False
    splits: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        splits = ", ".join(f"{count} {split}" for split, count in sorted(self.splits.items())) or "nothing"
        lines = [
            f"{self.num_added} videos ({self.video_s:.0f} s) extracted with {self.encoders} in {clock(self.elapsed_s)}",
            f"{self.num_present} were there already, {self.num_skipped} skipped; '{self.collection}' now has {splits}",
        ]
        if self.num_leased:
            lines.append(f"{self.num_leased} are being extracted by other processes")
        if self.num_skipped:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.failures.items()))
            lines.append(f"why they were skipped ({kinds}): {self.store / LEDGER}; --retry CLASS tries a class again")
        if self.interrupted:
            lines.append("interrupted: what was finished is stored; the same command goes on")
        shown = self.notes[:10]
        more = [f"... and {len(self.notes) - len(shown)} more notes"] if len(self.notes) > len(shown) else []
        return "\n".join([*lines, *(f"note: {text}" for text in shown), *more])


class Run:
    """One run of the driver: what is under way, what is finished and not yet committed."""

    leases: Leases
    meter: Meter
    decoder: Decoder

    def __init__(
        self, store: Path, collection: str, words: Path | None, splits: dict[str, str], known: Known,
        described: Described, summary: ExtractSummary, require: tuple[str, ...], choice: EncoderChoice, stall_s: float,
    ) -> None:  # fmt: skip
        self.store, self.collection, self.words, self.splits = store, collection, words, splits
        self.known, self.described, self.summary = known, described, summary
        self.require, self.choice, self.stall_s = require, choice, stall_s
        self.reasons: list[str] = []
        self._order: deque[Job] = deque()  # under way or finished, in the order of the plan
        self._finished: dict[str, Outcome] = {}

    def work(self, plan: Iterator[Job], device: str, count: int, threads: int) -> None:
        """Do all jobs of the plan. Ends in order, also when interrupted: what is finished is committed."""
        self.decoder = choose_decoder(self.choice.decoder, device)
        workers: Workers | None = None
        under_way: dict[Future[Outcome], Job] = {}
        try:
            exhausted = False
            while not exhausted or under_way:
                while not exhausted and (workers is None or len(under_way) < workers.capacity):
                    job = next(plan, None)
                    if job is None:
                        exhausted = True
                    elif self._to_do(job):
                        workers = workers or Workers(self.choice, device, count, threads)
                        under_way[workers.submit(self._task(job))] = job
                        self._order.append(job)
                for future in first_done(under_way):
                    self._done(under_way.pop(future), outcome_of(future, self.stall_s))
                self._commit_prefix()
        except KeyboardInterrupt:
            self.summary.interrupted = True
            if workers is not None:
                workers.close(now=True)
            for job in self._order:
                if job.key not in self._finished and (self.store / SPOOL / spool_name(job.key)).exists():
                    self._finished[job.key] = Outcome()  # finished, and not yet told
                elif job.key not in self._finished:
                    note(self.store, job.source.name, "was under way when the run was ended", "interrupted", job.key)
        except BaseException:  # what is finished stays in the spool, where the next run finds it
            if workers is not None:
                workers.close(now=True)
            raise
        else:
            if workers is not None:
                workers.close(now=False)
        for path in abandoned(self.store):
            shutil.rmtree(path, ignore_errors=True)
        self._commit([job for job in self._order if job.key in self._finished])

    def adopt(self) -> None:
        """Commit what an earlier run had finished and not committed, and remove what it had only begun."""
        for path in abandoned(self.store):
            shutil.rmtree(path, ignore_errors=True)
        folders = [path for path in spooled(self.store) if self.leases.acquire(path.name)]
        self.known.renew()
        waiting = []
        for path in folders:
            item = read_spooled(path)
            if item is None or (item.collection == self.collection and item.source in self.known.sources):
                remove_spooled(path)
            else:
                waiting.append((path, item))
        self._write(waiting)
        if waiting:
            self.summary.notes.append(f"{len(waiting)} videos that an earlier run had finished are now in the store")

    # ---- one job

    def _to_do(self, job: Job) -> bool:
        """Whether the job is to be worked on, after taking its lease."""
        if job.status == "present":
            self.summary.num_present += 1
        elif job.status == "failed":
            self.summary.num_skipped += 1
            kind = self.known.failed[job.key].get("class", "other")
            self.summary.failures[kind] = self.summary.failures.get(kind, 0) + 1
            self.reasons.append(f"{job.source.name}: {job.reason}")
        elif job.status != "todo":
            self._failed(job, job.status, job.reason)
            self.meter.done(job.source.name, f"skipped: {job.reason}", job.num_bytes, 0.0, failed=True)
            return False
        elif not self.leases.acquire(spool_name(job.key)):
            self.summary.num_leased += 1
        else:
            self.known.renew()  # another process may have finished it since the plan was made
            if (self.store / SPOOL / spool_name(job.key)).exists():  # finished by a process that has died since
                self._order.append(job)
                self._finished[job.key] = Outcome()
            elif job.key not in self.known.sources:
                return True
            else:
                self.leases.release(spool_name(job.key))
                self.summary.num_present += 1
        self.meter.passed(job.num_bytes)
        return False

    def _task(self, job: Job) -> Task:
        return Task(
            source=job.source,
            split=self.splits[job.source.video_id],
            key=job.key,
            collection=self.collection,
            store=self.store,
            require=self.require,
            captions=self.choice.captions,
            decoder=self.decoder,
            stall_s=self.stall_s,
        )

    def _done(self, job: Job, outcome: Outcome) -> None:
        name = job.source.name
        self.summary.decode_s += outcome.decode_s
        self.summary.encode_s += outcome.encode_s
        if outcome.kind == "disk":
            raise TrichordError(f"{self.store}: {outcome.reason}; check the disk, then run again")
        if outcome.kind:
            self._order.remove(job)
            self.leases.release(spool_name(job.key))
            self._failed(job, outcome.kind, outcome.reason)
            line = f"skipped: {outcome.reason}"
        else:
            self._finished[job.key] = outcome
            self.summary.video_s += outcome.duration_s
            self.summary.notes += outcome.notes
            split = self.splits[job.source.video_id]
            line = f"{outcome.duration_s:.1f} s, {outcome.num_captions} captions, {split}"
        self.meter.done(name, line, job.num_bytes, outcome.duration_s, failed=bool(outcome.kind))

    def _failed(self, job: Job, kind: str, reason: str) -> None:
        """Count a failure and note it, unless the ledger says the same already."""
        kind = kind if kind in CLASSES else "other"
        self.summary.num_skipped += 1
        self.summary.failures[kind] = self.summary.failures.get(kind, 0) + 1
        self.summary.notes.append(f"{job.source.name}: {reason}")
        self.reasons.append(f"{job.source.name}: {reason}")
        before = self.known.failed.get(job.key)
        if before is None or (before.get("class"), before["source"]) != (kind, job.source.name):
            note(self.store, job.source.name, reason, kind, job.key)

    # ---- committing

    def _commit_prefix(self) -> None:
        """Commit the finished items before the first one under way, when they fill a part."""
        prefix = []
        for job in self._order:
            if job.key not in self._finished:
                break
            prefix.append(job)
        if len(prefix) > 1 and sum(self._bytes(job) for job in prefix) >= SHARD_BYTES:
            self._commit(prefix)
            for _ in prefix:
                self._order.popleft()

    def _bytes(self, job: Job) -> int:
        try:
            return num_bytes(self.store / SPOOL / spool_name(job.key))
        except OSError:
            return 0

    def _commit(self, finished: list[Job]) -> None:
        waiting = []
        for job in finished:
            path = self.store / SPOOL / spool_name(job.key)
            item = read_spooled(path)
            if item is not None:
                waiting.append((path, item))
            for key in self.known.failures_of(job.source.name, job.key):
                note(self.store, job.source.name, "is in the store now", RESOLVED, key)
        self._write(waiting)

    def _write(self, waiting: list[tuple[Path, Item]]) -> None:
        """Bring items of the spool into the store's parts, then out of the spool."""
        if not waiting:
            return
        vectors = word_vectors_for((text for _, item in waiting for text in item.captions.text), self.words)
        with StoreWriter(self.store, vectors, wait_s=_WAIT_FOR_WRITER_S) as writer:
            for _, item in waiting:
                try:
                    writer.add(item, copy=False)
                    self.summary.num_added += 1
                except TrichordError as error:
                    note(self.store, item.video_id, str(error), "other", item.source)
                    self.summary.num_skipped += 1
                    self.summary.notes.append(str(error))
        for path, _ in waiting:
            remove_spooled(path)
            self.leases.release(path.name)
