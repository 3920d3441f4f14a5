"""The rows of a table of clips, from CSV, TSV, JSON lines or Parquet, and the names of its columns."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.files.arrays import FREE_BYTES, LARGEST_RATIO
from trichord.files.lfs import refuse_lfs_pointer
from trichord.files.reading import open_given, open_given_text, parse_json_row, unreadable
from trichord.files.tables import lines_and_delimiter

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
COLUMNS = {
    "id": ("id", "clip_id"),
    "video_id": ("video_id",),
    "video": ("video", "path"),
    "image": ("image",),
    "audio": ("audio",),
    "text": ("text", "caption", "sentence"),
    "captions": ("captions",),
    "start": ("start", "start_s"),
    "end": ("end", "end_s"),
    "split": ("split",),
}
BATCH_BYTES = 128 << 20


def table_rows(path: Path, further: Collection[str] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, column -> value) of each row.

    Args:
        path: The table.
        further: Columns to read besides `COLUMNS`, in lower case. A Parquet table gives None for columns that are not read.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise TrichordError(f"{path}: tables are read from {', '.join(TABLE_SUFFIXES)}; convert it to one of them")
    if not path.exists():
        raise TrichordError(f"{path}: no such file; name a table with a row per clip")
    refuse_lfs_pointer(path)
    if suffix == ".parquet":
        return _parquet_rows(path, {name for names in COLUMNS.values() for name in names}.union(further))
    return _json_rows(path) if suffix == ".jsonl" else _csv_rows(path)


def _is_blank(values: Iterable[Any]) -> bool:
    """Whether a row holds nothing, as the last one of a table that Excel wrote."""
    return all(value is None or (isinstance(value, str) and not value.strip()) for value in values)


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with open_given_text(path, encoding="utf-8-sig", newline="") as file:
            lines, own = lines_and_delimiter(iter(file))
            reader = csv.reader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else own)
            header = next(reader, [])
            while header and not header[-1].strip():
                header.pop()
            if not any(name.strip() for name in header):
                raise TrichordError(f"{path}: has no header row; name its columns in the first row")
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise TrichordError(f"{path}: has the column '{twice}' twice; rename one")
            for number, cells in enumerate((c for c in reader if not _is_blank(c)), start=1):
                if len(cells) > len(header) and not _is_blank(cells[len(header) :]):
                    what = f"has {len(cells)} cells for {len(header)} columns"
                    raise TrichordError(f"{path}, row {number}: {what}; put texts with commas between quotes")
                yield number, _with_points(dict(zip(header, cells, strict=False)), own)
    except OSError as error:
        raise unreadable(path, error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrichordError(f"{path}, row {number + 1}: is not CSV in UTF-8 ({one_line(error)}); correct it") from None


def _with_points(row: dict[str, Any], delimiter: str) -> dict[str, Any]:
    """The row with a decimal point in its times, where semicolons separate cells because the comma is the decimal point."""
    if delimiter != ";":
        return row
    times = (*COLUMNS["start"], *COLUMNS["end"])
    return {name: cell.replace(",", ".") if name.strip().lower() in times else cell for name, cell in row.items()}


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with open_given_text(path, encoding="utf-8-sig") as file:
            for number, line in enumerate((line for line in file if line.strip()), start=1):
                try:
                    row = parse_json_row(line)
                except ValueError as error:
                    what = f"is not JSON ({getattr(error, 'msg', error)})"
                    raise TrichordError(f"{path}, row {number}: {what}; write one object on each line") from None
                if not isinstance(row, dict):
                    raise TrichordError(f"{path}, row {number}: is no JSON object; write {{...}} on each line")
                if not _is_blank(row.values()):
                    yield number, row
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise TrichordError(f"{path}, row {number + 1}: is not UTF-8 text ({one_line(error)}); correct it") from None


def _parquet_rows(path: Path, known: Collection[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_given(path) as file, pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            wanted = [name for name in names if name.strip().lower() in known]
            unread = dict.fromkeys((name for name in names if name not in wanted), None)
            number = num_bytes = 0
            most = max(FREE_BYTES, LARGEST_RATIO * os.fstat(file.fileno()).st_size)
            for batch in table.iter_batches(_batch_rows(table.metadata), columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    num_bytes += sum(map(_size, row.values()))
                    if num_bytes > most:
                        what = f"refused: unpacks to more than {most:,} bytes"
                        raise TrichordError(f"{path}: {what}; write it as .jsonl or in parts")
                    if not _is_blank(row.values()):
                        yield number, unread | row
            if not table.metadata.num_rows:
                return
            if not wanted:
                yield 1, unread
    except (OSError, pa.ArrowException) as error:
        raise TrichordError(f"{path}: is no Parquet file ({one_line(error)}); write it again") from None


def _size(value: object) -> int:
    """Letters of a text, or of all texts of a list."""
    return sum(map(_size, value)) if isinstance(value, list) else len(value) if isinstance(value, str) else 1


def _batch_rows(metadata: Any) -> int:
    """Rows that are read at a time: a text is no longer than its column is packed, but may be told by number in each."""
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    largest = max((g.column(at).total_uncompressed_size for g in groups for at in range(g.num_columns)), default=1)
    return min(max(BATCH_BYTES // max(largest, 1), 1), 4096)
