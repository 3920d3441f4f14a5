"""Import of a folder of .npy files per stream with an index, as `trichord store export --layout npy` writes it.

`index.csv` has one row per item: `video_id`, `path` (with or without `.npy`, the same in every stream's folder),
`collection`, `split`, `duration_s`, `source`, `media` and `rules` if they are known, and per stream a column
`STREAM_rate_hz`, which is empty if the item lacks the stream.
Features are in `STREAM/PATH.npy` (rows, width), captions in `captions/PATH.json` (lists start, end, text).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from trichord.captions import WordSplitting
from trichord.errors import TrichordError
from trichord.files.arrays import load_npy
from trichord.files.paths import accepts_text_paths
from trichord.logs import deprecated_callback
from trichord.releases.common import ImportSummary, Made, Request
from trichord.releases.exported import Entry, broken, import_listed, shortfall
from trichord.releases.pieces import as_rows, csv_rows
from trichord.releases.records import component, export_mark, inside, item_of, parsed, read_small, shown

INDEX = "index.csv"
CAPTIONS = "captions"
RATE = "_rate_hz"
NEEDED = ("video_id", "path", "duration_s")


@deprecated_callback("progress")
@accepts_text_paths
def import_npy(
    root: Path,
    store: Path,
    words: Path | None = None,
    *,
    word_splitting: WordSplitting | None = None,
    num_threads: int = 4,
) -> ImportSummary:
    """Import a folder of .npy files per stream with index.csv into a store.

    Items with missing or broken files are skipped and listed with the reason. If the import is run again, it continues where it
    stopped. Only the index (not arrays or captions) is held in memory.

    Args:
        root: Folder with index.csv.
        store: Folder of the store. It is created if it does not exist, and extended if it does.
        words: File of word vectors (word2vec or GloVe). The default is the words of the export, or else GloVe 6B (50-d).
        word_splitting: How captions are split into words: unicode (letters keep their marks, as in Hindi and Thai) or
            published (as in the published loaders). The default is that of the store, or published for a new store.
        num_threads: Number of items that are read at the same time.

    Raises:
        TrichordError: The folder or its index is missing or broken, or nothing could be imported.
    """
    request = Request(root, store, words, word_splitting, num_threads)
    mark = export_mark(root, "npy")
    path = root / INDEX
    rows = read_index(path)
    entries = []
    for number, row in enumerate(rows):
        where = f"{path}, item {number + 1}"
        if row.get(None) is not None or None in row.values():
            entries.append(broken(path, where, f"{where}: has more or fewer cells than columns; export it again"))
        elif not row["video_id"]:
            entries.append(broken(path, where, f"{where}: has no video_id; export it again"))
        else:
            entries.append(Entry(row.get("collection") or "npy", row["video_id"], where, path, number))
    if mark:
        entries += shortfall(path, len(rows), mark["files"].get(INDEX), "items")

    def record_of(entry: Entry) -> dict[str, Any]:
        with suppress(TrichordError):  # reported when the item is read
            return {"captions": read_captions(rows[entry.begin], root, entry.where)}
        return {}

    return import_listed(
        entries,
        request,
        mark,
        read_record=record_of,
        make=lambda entry: read_item(rows[entry.begin], root, entry),
    )


def read_index(path: Path) -> list[dict[Any, Any]]:
    """Read the rows of the index by column.

    Raises:
        TrichordError: The index is missing or broken, lacks a column or lists no item.
    """
    rows = csv_rows(path, NEEDED, "pass the folder of the export with --root, or export it again", strict=True)
    if not rows:
        raise TrichordError(f"{path}: lists no item; pass another folder with --root")
    return rows


def read_item(row: dict[str, str], root: Path, entry: Entry) -> Made:
    """Read the item in a row of the index.

    Raises:
        TrichordError: A file or a value is missing or broken.
    """
    where = entry.where
    rates = {
        name.removesuffix(RATE): _number(rate, name, where)
        for name, rate in row.items()
        if name.endswith(RATE) and rate
    }
    streams: dict[str, np.ndarray] = {}
    sources: dict[str, Path] = {}
    for name in rates:
        path = inside(root / component(name), f"{_path(row)}.npy", where)
        streams[name], sources[name] = as_rows(load_npy(path), str(path)), path
    record = {
        "id": entry.video_id,
        "collection": entry.collection,
        "split": row.get("split", ""),
        **{name: row.get(name, "") for name in ("source", "media", "rules")},
        "duration_s": _number(row["duration_s"], "duration_s", where),
        "rates_hz": rates,
        "captions": read_captions(row, root, where),
    }
    return Made(item_of(record, streams, where), sources)


def read_captions(row: dict[str, str], root: Path, where: str) -> dict[str, Any]:
    """Read the captions of an item.

    Raises:
        TrichordError: The file is missing or broken.
    """
    path = inside(root / CAPTIONS, f"{_path(row)}.json", where)
    return parsed(read_small(path), str(path))


def _path(row: dict[str, str]) -> str:
    return row["path"].removesuffix(".npy")


def _number(text: str, name: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise TrichordError(f"{where}: its {shown(name)} '{shown(text)}' is not a number; export it again") from None
