"""Import of WebDataset shards, as `trichord store export --layout webdataset` writes them.

A shard is a tar file. Consecutive files with the same name up to the first dot are one item: `KEY.json` (its record: id,
collection, split, duration_s, rates_hz, captions) and `KEY.STREAM.npy` (rows, width). Nothing is unpacked to disk:
shards are read in place, and file names are only compared.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from trichord.captions import WordSplitting
from trichord.errors import TrichordError, Unavailable
from trichord.files.arrays import read_npy
from trichord.files.paths import accepts_text_paths
from trichord.files.reading import open_regular, unreadable
from trichord.logs import deprecated_callback
from trichord.releases.common import ImportSummary, Made, Request
from trichord.releases.exported import Entry, broken, entry_of, import_listed, shortfall
from trichord.releases.pieces import as_rows
from trichord.releases.records import MOST_JSON_BYTES, export_mark, inside, item_of, parsed, shown

MOST_HEADER_BYTES = 1 << 20
TAR_ERRORS = (tarfile.TarError, ValueError, ArithmeticError, LookupError, RecursionError, EOFError, TypeError)


class Member(NamedTuple):
    """A file in a shard: key and extension of its name, the position of its header, and the position and size of its data."""

    key: str
    extension: str
    begin: int
    data: int
    size: int
    next: int


@deprecated_callback("progress")
@accepts_text_paths
def import_webdataset(
    root: Path,
    store: Path,
    words: Path | None = None,
    *,
    word_splitting: WordSplitting | None = None,
    num_threads: int = 4,
) -> ImportSummary:
    """Import a folder of WebDataset shards (.tar) with records and .npy features into a store.

    Broken items are skipped and listed with the reason. The items before the end of a truncated shard are imported. If the import
    is run again, it continues where it stopped.

    Args:
        root: Folder with the shards.
        store: Folder of the store. It is created if it does not exist, and extended if it does.
        words: File of word vectors (word2vec or GloVe). The default is the words of the export, or else GloVe 6B (50-d).
        word_splitting: How captions are split into words: unicode (letters keep their marks, as in Hindi and Thai) or
            published (as in the published loaders). The default is that of the store, or published for a new store.
        num_threads: Number of items that are read at the same time.

    Raises:
        TrichordError: The folder contains no shard, or nothing could be imported.
    """
    request = Request(root, store, words, word_splitting, num_threads)
    mark = export_mark(root, "webdataset")
    counts: dict[Path, Any] = {inside(root, name, str(root)): n for name, n in mark["files"].items()} if mark else {}
    shards = list(counts) or sorted(root.glob("*.tar"))
    if not shards:
        missing = "no shard (*.tar)" + ("; unpack *.tar.gz first" if next(root.glob("*.tar.gz"), None) else "")
        raise TrichordError(f"{root}: contains {missing}; pass the folder of the shards with --root")
    entries: list[Entry] = []
    for shard in shards:
        listed = list(list_shard(shard))
        entries += listed
        if shard in counts and not any(entry.problem for entry in listed):
            entries += shortfall(shard, len(listed), counts[shard], "items")
    return import_listed(entries, request, mark, read_record=_described, make=read_item)


def list_shard(path: Path) -> Iterator[Entry]:
    """Yield the items of a shard, in order. Items that cannot be read are entries with a problem."""
    group: list[Member] = []
    try:
        with open_regular(path) as file:
            try:
                for member in members(file, path):
                    if group and member.key != group[0].key:
                        yield _listed(file, path, group)
                        group = []
                    group.append(member)
            except TrichordError as error:
                if group:
                    where = f"{path}: {shown(group[0].key)}"
                    yield broken(
                        path, where, f"{where}: may be incomplete, because the shard is truncated or broken there"
                    )
                yield broken(path, f"{path}: its end", str(error))
                return
            if group:
                yield _listed(file, path, group)
    except OSError as error:
        readable_error = unreadable(path, error, mend="copy or export it again")
        yield broken(path, str(path), str(readable_error), unavailable=isinstance(readable_error, Unavailable))


def _listed(file: BinaryIO, path: Path, group: list[Member]) -> Entry:
    where = f"{path}: {shown(group[0].key)}"
    try:
        if ".." in PurePosixPath(group[0].key).parts or group[0].key.startswith("/"):
            raise TrichordError(
                f"{where}: has a name that leads out of its folder; download the shard from its publisher"
            )
        records = [member for member in group if member.extension == "json"]
        if len(records) != 1:
            raise TrichordError(f"{where}: has {len(records)} .json files, expected one; export it again")
        record = _record(file, records[0], where)
        return entry_of(record, path, where, group[0].begin, group[-1].next)
    except TrichordError as error:
        return broken(path, where, str(error))


def read_item(entry: Entry) -> Made:
    """Read the item of an entry.

    Raises:
        TrichordError: The item is broken or incomplete.
    """
    streams: dict[str, np.ndarray] = {}
    record: dict[str, Any] = {}
    try:
        with open_regular(entry.file) as file:
            for member in list(members(file, entry.file, entry.begin, entry.end)):
                if member.extension == "json":
                    record = _record(file, member, entry.where)
                elif member.extension.endswith(".npy"):
                    name = member.extension.removesuffix(".npy")
                    source = Path(f"{entry.where}.{shown(member.extension)}")
                    file.seek(member.data)
                    array = as_rows(read_npy(file, member.size, source), str(source))
                    if name in streams:
                        raise TrichordError(f"{source}: is repeated; export it again")
                    streams[name] = array
    except OSError as error:
        raise unreadable(entry.file, error) from None
    rates = record.get("rates_hz")
    lacking = [name for name in rates if name not in streams] if isinstance(rates, dict) else []
    if lacking:
        raise TrichordError(f"{entry.where}: lacks {shown(', '.join(lacking))}; export it again")
    return Made(item_of(record, streams, entry.where))


def _described(entry: Entry) -> dict[str, Any]:
    """Return the record of an entry, without its streams."""
    try:
        with open_regular(entry.file) as file:
            for member in members(file, entry.file, entry.begin, entry.end):
                if member.extension == "json":
                    return _record(file, member, entry.where)
    except OSError as error:
        raise unreadable(entry.file, error) from None
    return {}


def _record(file: BinaryIO, member: Member, where: str) -> dict[str, Any]:
    if member.size > MOST_JSON_BYTES:
        raise TrichordError(
            f"{where}: its .json file has {member.size:,} bytes, but at most {MOST_JSON_BYTES:,} are supported"
        )
    file.seek(member.data)
    return parsed(file.read(member.size), where)


class _Headers(io.RawIOBase):
    """The view of a shard for tarfile: only headers, none larger than a megabyte, whatever they claim."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_HEADER_BYTES:
            raise ValueError(f"a header claims {size:,} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def members(file: BinaryIO, path: Path, begin: int = 0, end: int | None = None) -> Iterator[Member]:
    """Yield the files of a shard, beginning with the header at `begin`.

    Raises:
        TrichordError: The shard is broken or truncated.
    """
    size = file.seek(0, io.SEEK_END)
    try:
        file.seek(begin)
        tar = tarfile.open(fileobj=_Headers(file), mode="r:")  # noqa: SIM115 (nothing to close)
        at = begin
        info = tar.next()
        while info is not None and (end is None or at < end):
            tar.members.clear()  # type: ignore[attr-defined]
            after = tar.offset
            if info.size < 0 or after <= at or info.offset_data + info.size > size:
                raise ValueError(f"{info.name[:80]} claims {info.size:,} bytes")
            if info.isreg() and not info.issparse():
                folder, _, name = info.name.rpartition("/")
                key, _, extension = name.partition(".")
                yield Member(f"{folder}/{key}" if folder else key, extension, at, info.offset_data, info.size, after)
            elif not info.isdir():
                raise ValueError(f"{info.name[:80]} is neither file nor folder")
            at = after
            if end is None or at < end:
                info = tar.next()
        if end is None:
            file.seek(at)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise ValueError("it ends early or continues after the end of a tar file")
    except TAR_ERRORS as error:
        if isinstance(error, TrichordError):
            raise
        raise TrichordError(f"{path}: is broken or truncated ({shown(error)}); copy or export it again") from None
