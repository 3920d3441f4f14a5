"""The common part of all importers: one pass that stores complete items, records failures, and can be repeated."""

from __future__ import annotations

import itertools
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
from trichord.files.reading import missing
from trichord.logs import get_logger
from trichord.store import Item, Store, StoreWriter, WordVectors
from trichord.store.items import check_collection
from trichord.store.ledger import LEDGER, resolve
from trichord.store.manifest import splitting_for
from trichord.store.words import word_vectors_for
from trichord.threads import in_order

logger = get_logger(__name__)

RATES_HZ = {"visual_2d": 1.0, "visual_3d": 1.5, "spectrogram": 100.0}  # rows per second in all releases
REPORT_EVERY_S = 5.0
READ_AHEAD = 4  # videos per thread
WIDTH_PROBES, MOST_PROBES = 33, 1000  # entries whose widths count; entries that are read to find these
ALLOW_MISSING = "--allow_missing true"

Entry = TypeVar("Entry")


@dataclass
class ImportSummary:
    """The result of an import.

    Attributes:
        collection: The name of the collection in the store.
        store: The folder of the store.
        num_added: The number of items stored by this run.
        num_present: The number of items that were in the store already.
        num_skipped: The number of items that could not be stored.
        num_postponed: The number of skipped items that a system fault prevented from being read.
        skipped_path: The list of skipped items with reasons, or None if there are none.
        num_captions: The number of captions of the added items.
        num_captions_dropped: The number of captions left out because a time is not finite or they end before they start.
        streams: The number of added items that have each stream.
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
            f"{self.num_present:,} already present, {self.num_skipped:,} skipped",
            f"{self.num_captions:,} captions stored, {self.num_captions_dropped:,} dropped (end not after start)",
            *self.notes,
        ]
        if self.skipped_path:
            lines.append(f"skipped items and reasons: {self.skipped_path}")
        if self.num_postponed:
            lines.append(
                f"{self.num_postponed:,} of them because of system faults; fix the cause, then run the same command "
                "again"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Request:
    """The arguments that all importers share.

    Attributes:
        root: The folder of the release.
        store: The folder of the store.
        words: The file of word vectors, or None for the default ones.
        word_splitting: How captions are split into words; None uses the rule of the word vectors, else that of the store, else
            `published`.
        num_threads: The number of entries that are read at the same time. They are stored in the order of the list.

    Raises:
        TrichordError: `root` is not a folder.
    """

    root: Path
    store: Path
    words: Path | None = None
    word_splitting: str | None = None
    num_threads: int = 1

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise missing(self.root, "folder", mend="pass the folder of the release with --root")


@dataclass
class Made:
    """An item ready to be stored, with the files of its streams, the number of its captions left out, and its origin."""

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
    """Store the item that `make` returns for each entry. Refused entries are recorded in the store's ledger and counted.

    A stream of a new store has the width that most entries have (`expected_widths`); entries of another width are skipped.

    Args:
        entries: The entries of the release.
        request: The arguments of the user.
        collection: The name of the collection.
        video_id: Returns the id of an entry. Entries that are in the store already are not read.
        make: Reads an entry. A TrichordError becomes the reason for skipping the entry.
        texts: All captions, whose words are looked up in the word vectors.
        collection_of: Returns the collection of an entry if there are several; `collection` is then only used in messages.
        vectors: Word vectors to use instead of those of `request.words`; `texts` is then not read.
        keep_precision: Whether to begin a new part when a stream changes between float16 and float32, which a part would widen.
        widths_of: Returns the widths of the streams of an entry if they are known without reading it; otherwise some entries are
            read.

    Raises:
        TrichordError: The store contains none of the entries afterwards, or it cannot be written.
    """
    store, word_splitting = request.store, request.word_splitting
    summary = ImportSummary(collection, store)
    first_reason = ""
    began = reported = time.monotonic()
    get_collection = collection_of or (lambda entry: collection)
    for name in dict.fromkeys(map(get_collection, entries)):
        check_collection(name)
    if word_splitting is not None or vectors is None:
        word_splitting = splitting_for(store, word_splitting) or "published"
    if vectors is None:
        vectors = word_vectors_for(texts, request.words, word_splitting or "published", notes=summary.notes)
    elif word_splitting not in (None, vectors.splitting):
        raise TrichordError(
            f"{request.root}: its words are split as '{vectors.splitting}', not as '{word_splitting}'; "
            "leave out --word_splitting, or pass word vectors with --words"
        )
    precision: dict[str, int] = {}
    if widths_of is None:
        widths = expected_widths(store, entries, partial(_widths_of_made, make), WIDTH_PROBES)
    else:
        widths = expected_widths(store, entries, widths_of, len(entries))
    with StoreWriter(store, vectors) as writer:
        present = [writer.contains(get_collection(entry), video_id(entry)) for entry in entries]
        stored = {_source_of(get_collection(entry), video_id(entry)) for entry in itertools.compress(entries, present)}
        missing = itertools.compress(entries, (not p for p in present))
        summary.num_present = sum(present)
        for done, (entry, made) in enumerate(_read(missing, make, request.num_threads), 1):
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
                writer.skip(_source_of(get_collection(entry), video_id(entry)), reason, fault)
                summary.num_skipped += 1
                summary.num_postponed += bool(fault)
                first_reason = first_reason or reason
            else:
                stored.add(_source_of(get_collection(entry), video_id(entry)))
            if time.monotonic() - reported > REPORT_EVERY_S:
                reported = time.monotonic()
                logger.info(_progress_line(summary, done, len(entries) - sum(present), reported - began))
    resolve(store, stored.__contains__)
    if summary.num_skipped:
        summary.skipped_path = store / LEDGER
    if not summary.num_added and not summary.num_present:
        raise TrichordError(
            f"{request.root}: nothing could be imported, because all {summary.num_skipped:,} entries were "
            f"skipped; the reason for the first: {one_line(first_reason)} (see {summary.skipped_path} for all reasons)"
        )
    return summary


def _source_of(collection: str, video_id: str) -> str:
    """Return the name of an entry in the ledger."""
    return f"{collection}/{one_line(video_id)}"


def expected_widths(
    store: Path, entries: Sequence[Entry], widths_of: Callable[[Entry], Mapping[str, int] | None], num_probes: int
) -> dict[str, int]:
    """Return the width of each stream: that in the store, or else the most common one in a sample of entries.

    Args:
        store: The folder of the store, which need not exist yet.
        entries: The entries to import.
        widths_of: Returns the widths of the streams of an entry; None if it cannot be read.
        num_probes: The number of entries that count.
    """
    try:
        return {name: info.dim for name, info in Store(store).streams.items()}
    except TrichordError:  # no store yet; a damaged store is refused when it is opened for writing
        pass
    counts: dict[str, Counter[int]] = {}
    num_read = 0
    for index in _spread(len(entries), max(num_probes, MOST_PROBES), num_probes):
        if (widths := widths_of(entries[index])) is None:
            continue
        for name, width in widths.items():
            counts.setdefault(name, Counter())[width] += 1
        num_read += 1
        if num_read == num_probes:
            break
    return {name: count.most_common(1)[0][0] for name, count in counts.items()}


def _spread(num: int, most: int, first_ones: int) -> list[int]:
    """Return at most `most` numbers below `num`. The `first_ones` are spread over the whole range, and so are the others."""
    numbers = np.unique(np.linspace(0, num - 1, min(num, most)).astype(np.int64)).tolist() if num else []
    step = max(1, len(numbers) // max(first_ones, 1))
    return [numbers[place] for first in range(step) for place in range(first, len(numbers), step)]


def _widths_of_made(make: Callable[[Entry], Made], entry: Entry) -> dict[str, int] | None:
    try:
        streams = make(entry).item.streams
    except TrichordError:
        return None
    valid = {name: rows for name, rows in streams.items() if rows.ndim == 2 and rows.dtype.kind == "f"}
    return {name: rows.shape[1] for name, rows in valid.items() if np.isfinite(rows).all()}


def _other_width(made: Made, widths: Mapping[str, int]) -> str:
    """Return why an item does not match the streams of the store, or an empty string."""
    for name, rows in made.item.streams.items():
        width = widths.get(name)
        if width is not None and rows.ndim == 2 and rows.shape[1] != width:
            source = made.sources.get(name) or made.source or f"{made.item.collection}/{made.item.video_id}"
            subject = "" if name in made.sources else f"its {name} "
            return (
                f"{source}: {subject}has width {rows.shape[1]}, but the others have width {width}; extract it again like the "
                "others"
            )
    return ""


def _read(
    entries: Iterable[Entry], make: Callable[[Entry], Made], num_threads: int
) -> Iterator[tuple[Entry, Made | TrichordError]]:
    """Yield each entry with the result of `make` or the reason for refusing it, in order. `num_threads` threads read ahead."""

    def make_or_refuse(entry: Entry) -> Made | TrichordError:
        try:
            return make(entry)
        except TrichordError as error:
            return error

    if num_threads <= 1:
        yield from ((entry, make_or_refuse(entry)) for entry in entries)
        return
    with ThreadPoolExecutor(num_threads, thread_name_prefix="import") as pool:
        yield from in_order(pool, make_or_refuse, entries, READ_AHEAD * num_threads)


def _added(writer: StoreWriter, made: Made, summary: ImportSummary) -> str:
    """Add an item. Return the reason why it cannot be stored, or an empty string."""
    item = made.item
    if writer.contains(item.collection, item.video_id):
        summary.num_present += 1  # the release lists it twice
        return ""
    try:
        writer.add(item)
    except TrichordError as error:
        reason = str(error)
        if not reason.startswith((printable(f"{item.collection}/{item.video_id}:"), "item ")):
            raise  # the error concerns the store, not the item
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
