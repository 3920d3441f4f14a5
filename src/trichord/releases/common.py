"""What all importers share: one pass that stores what is whole, notes what is not, and can be run again."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from trichord.errors import TrichordError, one_line, printable
from trichord.files.faults import fault_of
from trichord.store import Item, Store, StoreWriter, WordVectors
from trichord.store.items import check_collection
from trichord.store.ledger import LEDGER, resolve
from trichord.store.manifest import splitting_for
from trichord.store.words import word_vectors_for
from trichord.threads import in_order

logger = logging.getLogger(__name__)

RATES_HZ = {"visual_2d": 1.0, "visual_3d": 1.5, "spectrogram": 100.0}  # rows per second in all releases
REPORT_EVERY_S = 5.0
READ_AHEAD = 4  # videos per thread
WIDTH_PROBES, MOST_PROBES = 33, 1000  # entries whose widths count, entries that are tried for these
ALLOW_MISSING = "--allow_missing true"

Entry = TypeVar("Entry")


@dataclass
class ImportSummary:
    """What an import did.

    Attributes:
        collection: Name of the collection in the store.
        store: The store's folder.
        num_added: Items stored by this run.
        num_present: Items that were in the store already.
        num_skipped: Items that could not be stored.
        num_postponed: Those of them that a fault of the system kept from being read.
        skipped_path: The list of these with the reasons, or None when there are none.
        num_captions: Captions of the added items.
        num_captions_dropped: Captions left out since their times are not finite or end before they start.
        streams: Added items that have each stream.
        notes: Further lines for the user.
    """

    collection: str
    store: Path
    num_added: int = 0
    num_present: int = 0
    num_skipped: int = 0
    num_postponed: int = 0
    skipped_path: Path | None = None
    num_captions: int = 0
    num_captions_dropped: int = 0
    streams: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        streams = ", ".join(f"{count:,} with {name}" for name, count in sorted(self.streams.items()))
        lines = [
            f"{self.collection} -> {self.store}: {self.num_added:,} added{f' ({streams})' if streams else ''}, "
            f"{self.num_present:,} already there, {self.num_skipped:,} skipped",
            f"{self.num_captions:,} captions stored, {self.num_captions_dropped:,} dropped (end not after start)",
            *self.notes,
        ]
        if self.skipped_path:
            lines.append(f"skipped, each with its reason: {self.skipped_path}")
        if self.num_postponed:
            lines.append(
                f"{self.num_postponed:,} of them because of the system, not of the files: mend that, then run the same command "
                "again"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Request:
    """Arguments that all importers share.

    Attributes:
        root: Folder of the release.
        store: Folder of the store.
        words: File of word vectors, or None for the default ones.
        word_splitting: How captions become words; None takes the rule of the word vectors, else of the store, else `published`.
        num_threads: Entries that are read at the same time; they are stored in the order of the list.

    Raises TrichordError when `root` is no folder.
    """

    root: Path
    store: Path
    words: Path | None = None
    word_splitting: str | None = None
    num_threads: int = 1

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise TrichordError(f"{self.root}: no such folder; name the folder of the release with --root")


@dataclass
class Made:
    """An item ready to be stored, the files of its streams, how many of its captions were left out, and where it is from."""

    item: Item
    sources: Mapping[str, Path] = field(default_factory=dict)
    num_dropped: int = 0
    source: str = ""


def import_entries(
    entries: Sequence[Entry],
    request: Request,
    *,
    collection: str,
    video_id: Callable[[Entry], str],
    make: Callable[[Entry], Made],
    texts: Iterable[str],
    collection_of: Callable[[Entry], str] | None = None,
    vectors: WordVectors | None = None,
    keep_precision: bool = False,
    widths_of: Callable[[Entry], Mapping[str, int] | None] | None = None,
) -> ImportSummary:
    """Store what `make` gives for each entry; what it refuses is noted in the store's ledger and counted.

    Args:
        entries: What the release lists.
        request: What the user gave.
        collection: Name of the collection.
        video_id: Id of an entry. What the store holds already is not made again.
        make: Reads one entry; a TrichordError from it becomes the reason why the entry is skipped.
        texts: All captions, whose words are looked up in the word vectors.
        collection_of: Collection of an entry, where they are of several; `collection` is then for messages.
        vectors: Word vectors that are at hand, in place of those of `words`; `texts` is then not read.
        keep_precision: Begin a new part where a stream changes between float16 and float32, which a part would widen.
        widths_of: Widths of the streams of an entry, where they are known without reading it; else some entries are read.

    A stream of a new store is as wide as most entries have it (`expected_widths`); entries of another width are skipped.

    Raises TrichordError when nothing is in the store in the end, or the store cannot be written.
    """
    store, word_splitting = request.store, request.word_splitting
    summary = ImportSummary(collection, store)
    first_reason = ""
    began = reported = time.monotonic()
    of = collection_of or (lambda entry: collection)
    for name in dict.fromkeys(map(of, entries)):
        check_collection(name)
    if word_splitting is not None or vectors is None:
        word_splitting = splitting_for(store, word_splitting) or "published"
    if vectors is None:
        vectors = word_vectors_for(texts, request.words, word_splitting or "published", notes=summary.notes)
    elif word_splitting not in (None, vectors.splitting):
        raise TrichordError(
            f"{request.root}: its words were split as '{vectors.splitting}', not as '{word_splitting}'; "
            "leave --word_splitting out, or name word vectors with --words"
        )
    precision: dict[str, int] = {}
    if widths_of is None:
        widths = expected_widths(store, entries, partial(_widths_of_made, make), WIDTH_PROBES)
    else:
        widths = expected_widths(store, entries, widths_of, len(entries))
    with StoreWriter(store, vectors) as writer:
        present = [writer.contains(of(entry), video_id(entry)) for entry in entries]
        stored = {_source_of(of(entry), video_id(entry)) for entry in itertools.compress(entries, present)}
        wanted = itertools.compress(entries, (not p for p in present))
        summary.num_present = sum(present)
        for done, (entry, made) in enumerate(_read(wanted, make, request.num_threads), 1):
            if keep_precision and isinstance(made, Made):
                sizes = {name: min(rows.dtype.itemsize, 4) for name, rows in made.item.streams.items()}
                if any(precision.get(name, size) != size for name, size in sizes.items()):
                    writer.flush()
                    precision = {}
                precision |= sizes
            if isinstance(made, Made) and (problem := _other_width(made, widths)):
                made = TrichordError(problem)
            reason = str(made) if isinstance(made, TrichordError) else _added(writer, made, summary)
            if reason:
                fault = fault_of(made) if isinstance(made, TrichordError) else ""
                writer.skip(_source_of(of(entry), video_id(entry)), reason, fault)
                summary.num_skipped += 1
                summary.num_postponed += bool(fault)
                first_reason = first_reason or reason
            else:
                stored.add(_source_of(of(entry), video_id(entry)))
            if time.monotonic() - reported > REPORT_EVERY_S:
                reported = time.monotonic()
                logger.info(_progress_line(summary, done, len(entries) - sum(present), reported - began))
    resolve(store, stored.__contains__)
    if summary.num_skipped:
        summary.skipped_path = store / LEDGER
    if not summary.num_added and not summary.num_present:
        raise TrichordError(
            f"{request.root}: nothing could be imported: all {summary.num_skipped:,} entries were skipped, the first because "
            f"{one_line(first_reason)} (all reasons: {summary.skipped_path})"
        )
    return summary


def _source_of(collection: str, video_id: str) -> str:
    """An entry as the ledger names it."""
    return f"{collection}/{one_line(video_id)}"


def expected_widths(
    store: Path, entries: Sequence[Entry], widths_of: Callable[[Entry], Mapping[str, int] | None], num_probes: int
) -> dict[str, int]:
    """Width of each stream: the store's, or what most of some entries have, which are spread over all of them.

    Args:
        store: Folder of the store; it need not be there yet.
        entries: What is imported.
        widths_of: Widths of the streams of an entry; None where it cannot be read.
        num_probes: Entries that count.
    """
    try:
        return {name: info.dim for name, info in Store(store).streams.items()}
    except TrichordError:  # no store yet; a damaged one is refused when it is opened for writing
        pass
    counts: dict[str, Counter[int]] = {}
    num_read = 0
    for at in _spread(len(entries), max(num_probes, MOST_PROBES), num_probes):
        if (widths := widths_of(entries[at])) is None:
            continue
        for name, width in widths.items():
            counts.setdefault(name, Counter())[width] += 1
        num_read += 1
        if num_read == num_probes:
            break
    return {name: count.most_common(1)[0][0] for name, count in counts.items()}


def _spread(num: int, most: int, first_ones: int) -> list[int]:
    """At most `most` of the numbers below `num`, of which the first ones are spread over all."""
    chosen = np.unique(np.linspace(0, num - 1, min(num, most)).astype(np.int64)).tolist() if num else []
    step = max(1, len(chosen) // max(first_ones, 1))
    return [chosen[at] for first in range(step) for at in range(first, len(chosen), step)]


def _widths_of_made(make: Callable[[Entry], Made], entry: Entry) -> dict[str, int] | None:
    try:
        streams = make(entry).item.streams
    except TrichordError:
        return None
    sound = {name: rows for name, rows in streams.items() if rows.ndim == 2 and rows.dtype.kind == "f"}
    return {name: rows.shape[1] for name, rows in sound.items() if np.isfinite(rows).all()}


def _other_width(made: Made, widths: Mapping[str, int]) -> str:
    """Why an item does not fit the streams of the store, or an empty string."""
    for name, rows in made.item.streams.items():
        width = widths.get(name)
        if width is not None and rows.ndim == 2 and rows.shape[1] != width:
            source = made.sources.get(name) or made.source or f"{made.item.collection}/{made.item.video_id}"
            told = "" if name in made.sources else f"its {name} "
            return f"{source}: {told}is {rows.shape[1]} wide where the others are {width}; extract it again as the others were"
    return ""


def _read(
    entries: Iterable[Entry], make: Callable[[Entry], Made], num_threads: int
) -> Iterator[tuple[Entry, Made | TrichordError]]:
    """Each entry with what `make` gives for it or why it refuses it, in order, read ahead by `num_threads` threads."""

    def made(entry: Entry) -> Made | TrichordError:
        try:
            return make(entry)
        except TrichordError as error:
            return error

    if num_threads <= 1:
        yield from ((entry, made(entry)) for entry in entries)
        return
    with ThreadPoolExecutor(num_threads, thread_name_prefix="import") as pool:
        yield from in_order(pool, made, entries, READ_AHEAD * num_threads)


def _added(writer: StoreWriter, made: Made, summary: ImportSummary) -> str:
    """Add the item; the reason why it cannot be stored, or an empty string."""
    item = made.item
    if writer.contains(item.collection, item.video_id):
        summary.num_present += 1  # the list names it twice
        return ""
    try:
        writer.add(item)
    except TrichordError as error:
        reason = str(error)
        if not reason.startswith((printable(f"{item.collection}/{item.video_id}:"), "item ")):
            raise  # not the item but the store
        source = next((path for name, path in made.sources.items() if f" {name} " in reason), None)
        return f"{source}: {reason}" if source else reason
    summary.num_added += 1
    summary.num_captions += len(item.captions)
    summary.num_captions_dropped += made.num_dropped
    for name, rows in item.streams.items():
        summary.streams[name] = summary.streams.get(name, 0) + bool(len(rows))
    return ""


def _progress_line(summary: ImportSummary, done: int, total: int, seconds: float) -> str:
    rate = done / max(seconds, 1e-9)
    left_s = int((total - done) / rate)
    return (
        f"{summary.collection}: {done:,} of {total:,}, {summary.num_skipped:,} skipped, {rate:,.0f}/s, "
        f"{left_s // 3600}:{left_s // 60 % 60:02d}:{left_s % 60:02d} left"
    )
