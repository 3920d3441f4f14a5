"""The driver of an extraction: plan, lease, extract, commit.

The plan compares every source with the store by content and fingerprint. What is to be done is leased, so that several
processes on one store do nothing twice, and given to worker processes, which write finished items into the store's
spool. From there they are committed in the order of the plan, so that the store does not depend on the number of
workers. A run that is killed loses what was under way and nothing else.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from trichord.errors import TrichordError
from trichord.features.choice import Described, EncoderChoice, describe
from trichord.features.encoder_record import check_encoders, write_encoders
from trichord.features.folder import sources_of_folder, split_of
from trichord.features.hashes import FileHashes
from trichord.features.plan import ALWAYS_AGAIN, Job, Known, Shard, jobs, name_key
from trichord.features.pool import Workers, first_done, outcome_of
from trichord.features.progress import Meter, clock
from trichord.features.sources import Source
from trichord.features.table import TABLE_SUFFIXES, read_table
from trichord.features.work import Outcome, Task
from trichord.store import Item, Store, StoreWriter
from trichord.store.leases import Leases
from trichord.store.ledger import CLASSES, LEDGER, RESOLVED, note
from trichord.store.spool import FOLDER as SPOOL
from trichord.store.spool import abandoned, num_bytes, read_spooled, remove_spooled, spool_name, spooled
from trichord.store.words import word_vectors_for
from trichord.store.writer import SHARD_BYTES

_MAX_WORKERS = {"cpu": 64, "cuda": 16}
_WAIT_FOR_WRITER_S = 3600.0
_QUIET_EVERY_S = 1.0
_FEW = 200  # sources up to which every item gets its line

MODALITIES = ("video", "audio", "text")
RETRY = ("all", *CLASSES)


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


def extract(
    videos: Path,
    store: Path,
    *,
    visual_2d: str = "efficientnet-lite0",
    visual_3d: str = "none",
    audio: str = "log-mel",
    text: str = "words",
    captions: Literal["auto", "none"] = "auto",
    speech: str = "none",
    weights_2d: Path | None = None,
    weights_3d: Path | None = None,
    words: Path | None = None,
    collection: str = "videos",
    video_root: Path | None = None,
    require: str = "",
    test_fraction: float = 0.2,
    workers: int | None = None,
    device: str = "cpu",
    decoder: str = "auto",
    shard: str = "1/1",
    retry: str = "",
    dry_run: bool = False,
    stall_s: float = 30.0,
    progress: Callable[[str], None] | None = None,
) -> ExtractSummary | str:
    """Extract features of a folder of videos, or of the clips of a table, into a store; what is there already is left alone.

    Captions come from a .vtt, .srt, .json or .csv file beside each video, else from its subtitle track, else, with
    `speech`, from speech recognition. A video without sound or captions is stored without them and noted; one that
    cannot be used is listed in the store's skipped.jsonl with a class and the reason.

    Args:
        videos: folder of video files (its sub-folders count too), or a table of clips: .csv, .jsonl or .parquet with
            the columns id, video or image, audio, text or captions, start, end, split, as far as there are any.
        store: store folder; made if it is not there, added to if it is.
        visual_2d: image encoder: efficientnet-lite0, resnet152, hf:MODEL, timm:MODEL or none; -PIXELS after the first
            two sets the short side.
        visual_3d: video encoder: resnext101-3d, tv:MODEL or none.
        audio: log-mel, hf:MODEL, both with a comma between, or none.
        text: words (word vectors alone), or besides them an encoder of whole captions: hf:MODEL or st:MODEL.
        captions: auto (files beside the videos, subtitle tracks) or none.
        speech: recognise speech where there are no captions: whisper:MODEL or none.
        weights_2d: weights file of the image encoder, in place of the usual one.
        weights_3d: weights file of the video encoder.
        words: word vectors (word2vec binary or text, GloVe text); GloVe 6B 50-d if not given.
        collection: name under which the store keeps these videos.
        video_root: for a table that names videos by id alone: the folder that holds them.
        require: modalities without which a video is skipped, with commas between: video,audio,text.
        test_fraction: share of the videos held out as split `test`, where nothing else says it.
        workers: worker processes; one per processor core if not given. 0 works in this process, without protection
            against files that crash a decoder.
        device: where the encoders compute: cpu or cuda.
        decoder: auto, pyav or torchcodec.
        shard: part of the work, such as 2/8 for the second of eight machines.
        retry: classes of earlier failures to try again, with commas between, such as unreadable,hung; `all` for all.
        dry_run: say what would be done and how long it would take, and do nothing.
        stall_s: seconds without a picture or sound after which a decoder is ended.
        progress: called with lines of progress.

    Raises TrichordError for a folder without videos, unusable weights or words, a store whose features another encoder
    made, and when not one video could be stored.
    """
    videos = Path(videos)
    choice = EncoderChoice(visual_2d, visual_3d, audio, text, captions, speech, weights_2d, weights_3d, decoder)
    is_table = videos.suffix.lower() in TABLE_SUFFIXES and not videos.is_dir()
    sources = read_table(videos, video_root) if is_table else sources_of_folder(videos)
    return extract_sources(
        sources, store, collection=collection, choice=choice, words=words, require=_names(require, MODALITIES, "require"),
        test_fraction=test_fraction, workers=workers, device=device, shard=shard, retry=_names(retry, RETRY, "retry"),
        dry_run=dry_run, stall_s=stall_s, root=videos, progress=progress,
    )  # fmt: skip


def extract_sources(
    sources: Sequence[Source],
    store: Path,
    *,
    collection: str,
    choice: EncoderChoice = EncoderChoice(),  # noqa: B008 - frozen
    words: Path | None = None,
    require: tuple[str, ...] = (),
    test_fraction: float = 0.2,
    workers: int | None = None,
    device: str = "cpu",
    shard: str = "1/1",
    retry: tuple[str, ...] = (),
    dry_run: bool = False,
    stall_s: float = 30.0,
    root: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> ExtractSummary | str:
    """The same for sources that are known: see `extract`. A dry run returns its report as text."""
    started = time.monotonic()
    store = Path(store)
    again = frozenset(CLASSES) if "all" in retry else frozenset(retry) | frozenset(ALWAYS_AGAIN)
    if workers is not None and workers < 0:
        raise TrichordError(f"workers is {workers}; give 1 or more (0: in this process), or leave it out")
    part = Shard.parse(shard)
    described = describe(choice, device)
    known = Known(store, collection)
    known.renew()
    notes = check_encoders(store, Store(store), described.streams) if known.ids or known.num_parts else []
    splits = split_of(sources, test_fraction, has_test=known.splits.get("test", 0) > 0)
    mine = [source for source in _by_file(sources) if part.has(source)]
    names = " + ".join(fingerprint.name for fingerprint in described.streams.values())
    summary = ExtractSummary(store, collection, names, len(mine), notes=notes)
    if dry_run:
        from trichord.features.estimate import report

        plan = jobs(mine, described, known, FileHashes(store), again)
        return report(list(plan), choice, device, _num_workers(workers, len(mine), device), names, store)
    _make(store, described)
    run = _Run(store, collection, words, splits, known, described, summary, require, choice, stall_s)
    with Leases(store) as leases, _terminable():
        run.leases = leases
        run.adopt()
        plan = jobs(mine, described, known, FileHashes(store), again)
        run.meter = Meter(progress, len(mine), _size(mine), 0.0 if len(mine) <= _FEW else _QUIET_EVERY_S)
        count = _num_workers(workers, len(mine), device)
        run.work(plan, device, count, _threads(count, device))
    counts = Store(store).collections() if any((store / "parts").glob("*.parquet")) else {}
    summary.splits = {split: count for (name, split), count in counts.items() if name == collection}
    summary.elapsed_s = time.monotonic() - started
    if not summary.splits and not summary.interrupted and not summary.num_leased and summary.num_skipped:
        first = next((text for text in run.reasons), "")
        raise TrichordError(
            f"{root or store}: none of {len(mine)} videos could be stored ({first}); all reasons are in {store / LEDGER}"
        )
    return summary


class _Run:
    """One run of the driver: what is under way, what is finished and not yet committed."""

    leases: Leases
    meter: Meter

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
            for job in under_way.values():
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
            decoder=self.choice.decoder,
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
            for key in {job.key, name_key(job.source, self.described)} & set(self.known.failed):
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


def _by_file(sources: Sequence[Source]) -> list[Source]:
    """In the given order, but the clips of one file in a row, in order of time."""
    first: dict[object, int] = {}
    for index, source in enumerate(sources):
        first.setdefault(source.video or source.audio or source.image or index, index)
    return sorted(sources, key=lambda s: (first.get(s.video or s.audio or s.image, 0), s.start_s))


def _size(sources: Sequence[Source]) -> int:
    size = 0
    for source in sources:
        for path in source.files:
            try:
                size += path.stat().st_size
            except OSError:
                continue
    return size


def _num_workers(workers: int | None, num_sources: int, device: str) -> int:
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(cores, _MAX_WORKERS.get(device.partition(":")[0], 4))
    return min(workers, max(num_sources, 1)) if workers else 0


def _threads(workers: int, device: str) -> int:
    """Encoding threads of a worker: the cores are shared out; a GPU wants one."""
    if device != "cpu":
        return 1
    return max((os.cpu_count() or 1) // max(workers, 1), 1)


def _make(store: Path, described: Described) -> None:
    try:
        store.mkdir(parents=True, exist_ok=True)
        write_encoders(store, described.streams)
    except OSError as error:
        raise TrichordError(f"{store}: cannot be written to ({error.strerror}); name another folder") from None


def _names(text: str, known: Sequence[str], option: str) -> tuple[str, ...]:
    """`a,b` -> (a, b). Raises TrichordError for a name that is not known."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := [name for name in names if name not in known]:
        raise TrichordError(f"--{option}: no '{unknown[0]}'; known are {', '.join(known)}")
    return names


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, which clusters send before they kill, ends the run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
