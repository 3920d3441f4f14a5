"""A folder of .npy files per stream with an index, as `trichord store export --layout npy` writes it, into a store.

`index.csv` has one row per item: `video_id`, `path` (with or without `.npy`, the same in every stream's folder),
`collection`, `split`, `duration_s`, `source`, `media` and `rules` where they are known, and per stream a column
`STREAM_rate_hz`, empty where the item lacks it.
Features are `STREAM/PATH.npy` (rows, width), captions `captions/PATH.json` (lists start, end, text).
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

    Items that lack a file or have a broken one are skipped and listed with the reason. Run again, the import goes on
    where it stopped. The index itself (not arrays or captions) is held in memory.

    Args:
        root: Folder with index.csv.
        store: Folder of the store; created if it does not exist, else added to.
        words: word2vec or GloVe file. By default, the words of the export, else GloVe 6B (50-d).
        word_splitting: How captions become words: unicode (letters keep their marks, as in Hindi and Thai) or published (as the
            published loaders do). If not given, as in the store; published for a new one.
        num_threads: Items that are read at the same time.

    Raises TrichordError when the folder or its index is missing or broken, or nothing could be imported.
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
        with suppress(TrichordError):  # told when the item is made
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
    """Rows of the index by column. Raises TrichordError when it is missing, broken or lacks a column."""
    rows = csv_rows(path, NEEDED, "name the export's folder with --root, or export it again", strict=True)
    if not rows:
        raise TrichordError(f"{path}: lists no item; name another folder with --root")
    return rows


def read_item(row: dict[str, str], root: Path, entry: Entry) -> Made:
    """The item of a row of the index. Raises TrichordError saying what it lacks."""
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
    path = inside(root / CAPTIONS, f"{_path(row)}.json", where)
    return parsed(read_small(path), str(path))


def _path(row: dict[str, str]) -> str:
    return row["path"].removesuffix(".npy")


def _number(text: str, name: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise TrichordError(f"{where}: its {shown(name)} '{shown(text)}' is not a number; export it again") from None
