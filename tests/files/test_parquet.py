"""Footers of Parquet files: read as pyarrow reads them, and errors where pyarrow would end the process."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paths import FIXTURES
from trichord.errors import TrichordError
from trichord.extraction.table_rows import table_rows
from trichord.files.parquet import ColumnChunk, read_column_chunks
from trichord.store.manifest import read_manifest

TABLE = pa.table({
    "text": ["a", "b", "a", None] * 5, "number": list(range(20)), "bytes": [bytes([n]) for n in range(20)],
    "nested": [{"list": [1.5, None]}, None] * 10, "flag": [True, False] * 10,
})  # fmt: skip


def parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def chunks_of_pyarrow(data: bytes) -> list[ColumnChunk]:
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    columns = [group.column(n) for group in groups for n in range(group.num_columns)]
    return [
        ColumnChunk(
            column.path_in_schema, column.total_uncompressed_size,
            any("DELTA" in encoding for encoding in column.encodings),
            any("DICTIONARY" in encoding for encoding in column.encodings),
        )
        for column in columns
    ]  # fmt: skip


def footer_start(data: bytes) -> int:
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd", "row_group_size": 7, "write_page_index": True},
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY", "number": "DELTA_BINARY_PACKED"}},
        {"use_dictionary": ["text"], "version": "1.0", "write_statistics": False, "data_page_version": "2.0"},
        {"row_group_size": 1, "store_schema": False},
    ],
)
def test_chunks_as_pyarrow_reads_them(options: dict[str, Any]) -> None:
    data = parquet(TABLE, **options)
    chunks = read_column_chunks(io.BytesIO(data))
    assert chunks == chunks_of_pyarrow(data) and {"text", "nested.list.list.element"} <= {c.name for c in chunks}


def test_a_table_without_rows() -> None:
    data = parquet(TABLE.slice(0, 0))
    assert read_column_chunks(io.BytesIO(data)) == chunks_of_pyarrow(data)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1\xff\xff\xff\xffPAR1", b"PAR1\0\0\0\0PARE", b"\x08\0\0\0PAR1"])
def test_a_file_without_a_footer(content: bytes) -> None:
    with pytest.raises(ValueError, match="does not end with a Parquet footer"):
        read_column_chunks(io.BytesIO(content))


@pytest.mark.parametrize(
    "footer",
    [
        b"\x1c" * 500,  # structures in structures
        b"\x19" + b"\x19" * 500,  # lists in lists
        b"\x48\xff\xff\xff\xff\x0f",  # a text longer than the footer
        b"\x15" + b"\xff" * 20,  # an integer without end
        b"\x1b\x00",  # a map
        b"\x49\x1c\x19\x1c\x00\x00\x00",  # a column without metadata
        b"\x49\x15\x02\x00",  # row groups that are integers
        b"\x49\xfc\xff\xff\xff\xff\x0f",  # more row groups than bytes
        b"\x49",
    ],
)
def test_a_damaged_footer_is_an_error(footer: bytes) -> None:
    with pytest.raises(ValueError, match="the Parquet footer"):
        read_column_chunks(io.BytesIO(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_chunks_or_an_error(footer: bytes) -> None:
    try:
        chunks = read_column_chunks(io.BytesIO(footer + len(footer).to_bytes(4, "little") + b"PAR1"))
    except ValueError as error:
        assert "footer" in str(error)
    else:
        assert all(type(chunk.num_bytes) is int for chunk in chunks)


def test_a_part_whose_footer_ends_pyarrow_is_an_error(tmp_path: Path) -> None:
    """The histogram of a column has two entries instead of one, for which `metadata.row_group(0).column(0)` aborts."""
    part = Path(shutil.copy(FIXTURES / "damaged-histogram.parquet", tmp_path / "00001.parquet"))
    with pytest.raises(TrichordError, match="Definition level histogram size mismatch"):
        read_manifest(part)


def test_a_table_of_clips_with_any_byte_of_the_footer_damaged(tmp_path: Path) -> None:
    data = parquet(pa.table({"video": ["a.mp4", "b.mp4"], "start": [0.5, 1.5]}), store_schema=False)
    path = tmp_path / "clips.parquet"
    num_errors = 0
    for at in range(footer_start(data), len(data)):
        for bits in (1, 0x80):
            path.write_bytes(data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :])
            try:
                list(table_rows(path))
            except TrichordError as error:
                num_errors += 1
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert num_errors > 50
