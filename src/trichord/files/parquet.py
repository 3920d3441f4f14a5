"""The column chunks that the footer of a Parquet file lists.

`pyarrow` offers them as `metadata.row_group(i).column(j)`, but ends the process if the entry of a column is damaged: the C++
exception is not caught (seen in pyarrow 26.0.1). The footer is therefore decoded here. It is a structure in the compact protocol of
Apache Thrift, described in `parquet.thrift` of the project apache/parquet-format.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, BinaryIO

_MAGIC = b"PAR1"
_MAX_DEPTH = 32  # the deepest structure of the format has 8 levels

# Ids of the fields that are read.
_ROW_GROUPS = 4  # of FileMetaData
_COLUMNS = 1  # of RowGroup
_META_DATA = 3  # of ColumnChunk
_ENCODINGS, _PATH_IN_SCHEMA, _TOTAL_UNCOMPRESSED_SIZE = 2, 3, 6  # of ColumnMetaData

_DELTA_ENCODINGS = frozenset({5, 6, 7})  # DELTA_BINARY_PACKED, DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY
_DICTIONARY_ENCODINGS = frozenset({2, 8})  # PLAIN_DICTIONARY, RLE_DICTIONARY


@dataclass(frozen=True)
class ColumnChunk:
    """The values of one column in one row group, as the footer describes them.

    Attributes:
        name: The path of the column in the schema, with dots.
        num_bytes: The size of the values in bytes after decompression.
        is_delta_encoded: Whether some of the values are stored as differences.
        is_dictionary_encoded: Whether some of the values are stored as indices of a dictionary.
    """

    name: str
    num_bytes: int
    is_delta_encoded: bool
    is_dictionary_encoded: bool


def read_column_chunks(file: BinaryIO) -> list[ColumnChunk]:
    """Return the column chunks of all row groups, in the order of the footer.

    Args:
        file: The Parquet file, opened for reading in binary mode.

    Raises:
        ValueError: The file does not end with a Parquet footer, or the footer is damaged.
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(max(length - 8, 0))
    tail = file.read(8)
    footer_length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or footer_length > length - 8:
        raise ValueError("the file does not end with a Parquet footer")
    file.seek(length - 8 - footer_length)
    try:
        footer = _Decoder(file.read(footer_length)).struct()
        groups = footer.get(_ROW_GROUPS, [])
        return [_column_chunk(entry[_META_DATA]) for group in groups for entry in group[_COLUMNS]]
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("the Parquet footer is damaged") from error


def _column_chunk(fields: dict[int, Any]) -> ColumnChunk:
    encodings = set(fields[_ENCODINGS])
    return ColumnChunk(
        name=".".join(part.decode(errors="replace") for part in fields[_PATH_IN_SCHEMA]),
        num_bytes=int(fields[_TOTAL_UNCOMPRESSED_SIZE]),
        is_delta_encoded=bool(encodings & _DELTA_ENCODINGS),
        is_dictionary_encoded=bool(encodings & _DICTIONARY_ENCODINGS),
    )


class _Decoder:
    """Decodes values of the compact protocol of Thrift: a structure becomes a dictionary with the ids of its fields as keys.

    Every element of a list takes at least one byte, so the values never need much more memory than the data.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Decode a structure. Maps do not occur in Parquet footers and are an error."""
        fields: dict[int, Any] = {}
        field_id = 0
        while header := self._byte():
            field_id = field_id + (header >> 4) if header >> 4 else self._integer()
            kind = header & 15
            fields[field_id] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError("the Parquet footer is nested too deeply")
        if 4 <= kind <= 6:
            return self._integer()
        if kind == 8:
            return self._bytes(self._unsigned())
        if kind == 12:
            return self.struct(depth + 1)
        if kind in (9, 10):
            header = self._byte()
            size = self._unsigned() if header >> 4 == 15 else header >> 4
            return [self._value(header & 15, depth + 1) for _ in range(size)]
        if kind <= 3:  # a boolean in a list, or a byte
            return self._byte()
        if kind == 7:
            return self._bytes(8)
        raise ValueError(f"the Parquet footer has a value of the unknown type {kind}")

    def _byte(self) -> int:
        byte = self.data[self.at]
        self.at += 1
        return byte

    def _bytes(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError("the Parquet footer ends too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def _unsigned(self) -> int:
        byte = self._byte()
        if byte < 128:
            return byte
        value, shift = byte & 127, 7
        while byte >= 128:
            if shift > 63:
                raise ValueError("the Parquet footer has an integer of more than 64 bits")
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
        return value

    def _integer(self) -> int:
        """Decode a signed integer: 0, -1, 1, -2, ... are stored as 0, 1, 2, 3, ..."""
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
