"""The rows of a table of clips in CSV, TSV, JSON lines or Parquet, and the names of its columns."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.files.arrays import FREE_BYTES, LARGEST_RATIO
from trichord.files.lfs import refuse_lfs_pointer
from trichord.files.parquet import ColumnChunk, read_column_chunks
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
    """Yield the number (from 1) and the values by column of each row.

    Args:
        path: The table.
        further: Columns to read besides `COLUMNS`, in lower case. Columns of a Parquet table that are not read are None.

    Raises:
        TrichordError: The table is missing, or has another format.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise TrichordError(
            f"{path}: is not a table; expected one of {', '.join(TABLE_SUFFIXES)}; convert it to one of these formats"
        )
    if not path.exists():
        raise TrichordError(f"{path}: does not exist; pass a table with one row per clip")
    refuse_lfs_pointer(path)
    if suffix == ".parquet":
        return _parquet_rows(path, {name for names in COLUMNS.values() for name in names}.union(further))
    return _json_rows(path) if suffix == ".jsonl" else _csv_rows(path)


def _is_blank(values: Iterable[Any]) -> bool:
    """Return whether a row is empty, like the last row of a table that Excel wrote."""
    return all(value is None or (isinstance(value, str) and not value.strip()) for value in values)


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with open_given_text(path, encoding="utf-8-sig", newline="") as file:
            lines, delimiter = lines_and_delimiter(iter(file))
            reader = csv.reader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else delimiter)
            header = next(reader, [])
            while header and not header[-1].strip():
                header.pop()
            if not any(name.strip() for name in header):
                raise TrichordError(f"{path}: has no header row; put the names of its columns in the first row")
            if len(set(header)) < len(header):
                repeated = next(name for name in header if header.count(name) > 1)
                raise TrichordError(f"{path}: has the column '{repeated}' twice; rename one of them")
            for number, cells in enumerate((c for c in reader if not _is_blank(c)), start=1):
                if len(cells) > len(header) and not _is_blank(cells[len(header) :]):
                    problem = f"has {len(cells)} cells for {len(header)} columns"
                    raise TrichordError(f"{path}, row {number}: {problem}; put texts that contain commas in quotes")
                yield number, _with_points(dict(zip(header, cells, strict=False)), delimiter)
    except OSError as error:
        raise unreadable(path, error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrichordError(f"{path}, row {number + 1}: is not CSV in UTF-8 ({one_line(error)}); correct it") from None


def _with_points(row: dict[str, Any], delimiter: str) -> dict[str, Any]:
    """Return a row with decimal points in its times. Tables with semicolons use the comma as the decimal separator."""
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
                    problem = f"is not JSON ({getattr(error, 'msg', error)})"
                    raise TrichordError(f"{path}, row {number}: {problem}; write one object per line") from None
                if not isinstance(row, dict):
                    raise TrichordError(f"{path}, row {number}: is not a JSON object; write one {{...}} per line")
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
            chunks = read_column_chunks(file)
            names = table.schema_arrow.names
            read = [name for name in names if name.strip().lower() in known]
            unread = dict.fromkeys((name for name in names if name not in read), None)
            number = num_bytes = 0
            most = max(FREE_BYTES, LARGEST_RATIO * os.fstat(file.fileno()).st_size)
            for batch in table.iter_batches(_batch_rows(chunks), columns=read):
                for row in batch.to_pylist():
                    number += 1
                    num_bytes += sum(map(_size, row.values()))
                    if num_bytes > most:
                        problem = f"refused: it unpacks to more than {most:,} bytes"
                        raise TrichordError(f"{path}: {problem}; write it as .jsonl or in several files")
                    if not _is_blank(row.values()):
                        yield number, unread | row
            if not table.metadata.num_rows:
                return
            if not read:
                yield 1, unread
    except (OSError, ValueError, pa.ArrowException) as error:
        raise TrichordError(f"{path}: is not a Parquet file ({one_line(error)}); write it again") from None


def _size(value: object) -> int:
    """Return the number of characters in a text, or in all texts of a list."""
    return sum(map(_size, value)) if isinstance(value, list) else len(value) if isinstance(value, str) else 1


def _batch_rows(chunks: Iterable[ColumnChunk]) -> int:
    """Return how many rows to read at a time.

    A text is no longer than its packed column, but dictionary encoding may repeat it in every row.
    """
    largest = max((chunk.num_bytes for chunk in chunks), default=1)
    return min(max(BATCH_BYTES // max(largest, 1), 1), 4096)
