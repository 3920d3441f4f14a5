"""Import of exports that `trichord store export` wrote in the layouts of HowTo100M and YouCook2.

The importers of these layouts call this module if `trichord.json` marks the folder as an export. Everything, including data for
which the published layout has no place, is then restored exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trichord.errors import TrichordError, Unavailable
from trichord.files.arrays import load_npz_array
from trichord.files.reading import open_regular, unreadable
from trichord.logs import get_logger
from trichord.releases.clips import read_entries
from trichord.releases.common import ImportSummary, Made, Request, import_entries
from trichord.releases.exported_modalities import check_modalities, record_modalities
from trichord.releases.exported_steps import read_steps, store_steps
from trichord.releases.pieces import as_array, as_rows
from trichord.releases.records import (
    INDEX,
    MOST_JSON_BYTES,
    captions_of,
    exported_splitting,
    exported_words,
    inside,
    item_of,
    parsed,
    shown,
)
from trichord.store import Item
from trichord.store.ledger import resolve
from trichord.store.manifest import word_splitting_of

logger = get_logger(__name__)

KEY = "trichord"
_BROKEN = "export"  # the collection, in the ledger, of entries that cannot be read


class Entry(NamedTuple):
    """The position of one item of an export: a part of a file.

    `problem` is why it cannot be read, if that was found while listing. `unavailable` means that a system fault, not the file, is
    the cause.
    """

    collection: str
    video_id: str
    where: str  # for error messages
    file: Path
    begin: int = 0
    end: int = 0
    problem: str = ""
    unavailable: bool = False


def import_listed(
    entries: Sequence[Entry],
    request: Request,
    mark: dict[str, Any] | None,
    *,
    read_record: Callable[[Entry], dict[str, Any]],
    make: Callable[[Entry], Made],
) -> ImportSummary:
    """Store the entries of an export, and its annotated steps.

    Without `request.words`, the words of the export are used, if it has any.

    Args:
        entries: The items of the export.
        request: The arguments of the user.
        mark: The mark of the export; None for a folder of other origin.
        read_record: Reads the record of an entry, or at least its captions.
        make: Reads an entry.
    """
    root, store = request.root, request.store
    steps = read_steps(root, mark) if mark else {}
    modalities = check_modalities(root, mark, Path(store))
    collections = list(dict.fromkeys(entry.collection for entry in entries if not entry.problem))
    name = ", ".join(collections[:5]) + (", ..." if len(collections) > 5 else "") or "export"
    logger.info(f"{name}: {len(entries):,} items in {root}")

    def checked(entry: Entry) -> Made:
        if entry.problem:
            raise (Unavailable if entry.unavailable else TrichordError)(entry.problem)
        return make(entry)

    def texts() -> Iterator[str]:
        for entry in entries:
            if not entry.problem:
                yield from texts_of(read_record(entry))

    _refuse_conflicts(entries, checked)
    vectors = exported_words(root, mark, texts()) if mark and request.words is None else None
    if mark and request.word_splitting is None and word_splitting_of(store) is None:
        request = replace(request, word_splitting=exported_splitting(root, mark))
    summary = import_entries(
        entries,
        request,
        collection=name,
        video_id=lambda entry: entry.video_id,
        make=checked,
        texts=texts(),
        collection_of=lambda entry: entry.collection,
        vectors=vectors,
        keep_precision=True,
    )
    record_modalities(Path(store), modalities)
    intact = {entry.file for entry in entries} - {entry.file for entry in entries if entry.problem}
    files = {f"{_BROKEN}/{file.name}" for file in intact}
    resolve(store, lambda source: source.partition(":")[0] in files)
    summary.notes += store_steps(store, steps)
    return summary


def _refuse_conflicts(entries: Sequence[Entry], make: Callable[[Entry], Made]) -> None:
    """Check that no item is repeated with different content.

    Raises:
        TrichordError: An item is repeated with different content.
    """
    first: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        if entry.problem or (known := first.setdefault((entry.collection, entry.video_id), entry)) is entry:
            continue
        try:
            is_same = _same(make(known).item, make(entry).item)
        except TrichordError:  # one of them is skipped with a reason
            continue
        if not is_same:
            raise TrichordError(
                f"{entry.where}: has different content for '{shown(entry.video_id)}' than {known.where}; keep one of them"
            )


def _same(a: Item, b: Item) -> bool:
    same_fields = all(getattr(a, part) == getattr(b, part) for part in ("split", "duration_s", "rates_hz"))
    same_captions = a.captions.text == b.captions.text and all(
        np.array_equal(getattr(a.captions, part), getattr(b.captions, part)) for part in ("start_s", "end_s")
    )
    return (
        same_fields and same_captions and all(np.array_equal(rows, b.streams[name]) for name, rows in a.streams.items())
    )


def entry_of(record: dict[str, Any], file: Path, where: str, begin: int = 0, end: int = 0) -> Entry:
    """Return the entry of a record. If the record has no id or collection, the entry has this as its problem."""
    collection, video_id = record.get("collection"), record.get("id")
    if isinstance(collection, str) and isinstance(video_id, str) and collection and video_id:
        return Entry(collection, video_id, where, file, begin, end)
    return broken(file, where, f"{where}: its record has no id or no collection; export it again")


def broken(file: Path, where: str, problem: str, *, unavailable: bool = False) -> Entry:
    """Return an entry that cannot be read because of `problem`."""
    name = where.replace(str(file.parent), "").lstrip("/")
    return Entry(_BROKEN, name, where, file, problem=problem, unavailable=unavailable)


def texts_of(record: dict[str, Any]) -> list[str]:
    """Return the texts of a record's captions, from which words are collected; none if they are damaged."""
    try:
        return list(captions_of(record.get("captions", {}), "").text)
    except TrichordError:
        return []


def shortfall(file: Path, count: int, expected: object, what: str) -> list[Entry]:
    """Return an entry that reports that a file contains fewer or more items than were exported; none if the count is right."""
    if count == expected:
        return []
    problem = f"{file}: has {count:,} of {shown(expected)} {what}; copy or export it again"
    return [broken(file, f"{file}: its end", problem)]


# ---- howto100m


def import_exported_howto100m(request: Request, mark: dict[str, Any], left_out: Sequence[str]) -> ImportSummary:
    """Import an export in the layout of HowTo100M by its index, without the streams in `left_out`."""
    path = request.root / INDEX
    entries = list(_lines(path))
    entries += shortfall(path, len(entries), mark["files"].get(INDEX), "lines")

    def make(entry: Entry) -> Made:
        return _howto100m_item(_record(entry), request.root, entry.where, left_out)

    return import_listed(entries, request, mark, read_record=_record, make=make)


def _lines(path: Path) -> Iterator[Entry]:
    try:
        with open_regular(path) as file:
            number = begin = 0
            while line := file.readline(MOST_JSON_BYTES):
                number += 1
                where = f"{path}, line {number}"
                try:
                    if not line.endswith(b"\n"):
                        raise TrichordError(f"{where}: is truncated or too long; copy or export it again")
                    yield entry_of(parsed(line, where), path, where, begin, file.tell())
                except TrichordError as error:
                    yield broken(path, where, str(error))
                begin = file.tell()
    except OSError as error:
        raise unreadable(path, error, mend="export it again") from None


def _record(entry: Entry) -> dict[str, Any]:
    try:
        with open_regular(entry.file) as file:
            file.seek(entry.begin)
            return parsed(file.read(entry.end - entry.begin), entry.where)
    except OSError as error:
        raise unreadable(entry.file, error) from None


def _howto100m_item(record: dict[str, Any], root: Path, where: str, left_out: Sequence[str]) -> Made:
    files, dtypes = record.get("files"), record.get("dtypes")
    if not isinstance(files, dict) or not isinstance(dtypes, dict):
        raise TrichordError(f"{where}: has no files or no dtypes; export it again")
    streams: dict[str, np.ndarray] = {}
    sources: dict[str, Path] = {}
    for name, file in files.items():
        if name in left_out:
            continue
        path = inside(root, file, where)
        published = name == "spectrogram" and path.name.endswith("_spec.npz")
        array = as_rows(load_npz_array(path, "arr_0" if published else "features"), str(path))
        dtype = dtypes.get(name)
        if dtype not in ("float16", "float32"):
            raise TrichordError(f"{where}: has no valid dtype for {shown(name)}; export it again")
        streams[name] = (array.T if published else array).astype(dtype, copy=False)
        sources[name] = path
    return Made(item_of(record, streams, where), sources)


# ---- youcook2


def import_exported_youcook2(request: Request, mark: dict[str, Any]) -> ImportSummary:
    """Import an export in the layout of YouCook2. Its pickles are read completely, as in all releases of this layout."""
    entries: list[Entry] = []
    tables: dict[Path, list[dict[str, Any]]] = {}
    for name, count in mark["files"].items():
        path = inside(request.root, name, str(request.root))
        try:
            tables[path] = read_entries(path)
        except TrichordError as error:
            entries.append(broken(path, str(path), str(error)))
            continue
        for row, clip in enumerate(tables[path]):
            where = f"{path}: entry {row}"
            record = clip.get(KEY)
            if isinstance(record, dict):
                entries.append(entry_of(record, path, where, row))
            else:
                entries.append(broken(path, where, f"{where}: has no key '{KEY}'; export it again"))
        entries += shortfall(path, len(tables[path]), count, "clips")
    return import_listed(
        entries,
        request,
        mark,
        read_record=lambda entry: tables[entry.file][entry.begin][KEY],
        make=lambda entry: _youcook2_item(tables[entry.file][entry.begin], entry.where),
    )


def _youcook2_item(clip: dict[str, Any], where: str) -> Made:
    record = clip[KEY]
    rates, extra = record.get("rates_hz"), record.get("streams")
    if not isinstance(rates, dict) or not isinstance(extra, dict):
        raise TrichordError(f"{where}: has no rates_hz or no streams; export it again")
    streams: dict[str, np.ndarray] = {}
    for name in rates:
        if name in extra:
            array = as_array(extra[name], where)
        elif name == "spectrogram":
            array = as_array(clip.get("audio"), where).T
        else:
            key = {"visual_2d": "2d", "visual_3d": "3d"}.get(name, "")
            full = clip.get(f"{key}_full")
            array = as_array(clip.get(key), where)[None] if full is None else as_array(full, where)
        if array.ndim != 2:
            raise TrichordError(f"{where}: its {shown(name)} has shape {array.shape}, expected (rows, width)")
        streams[name] = array
    return Made(item_of(record, streams, where))
