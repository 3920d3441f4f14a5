"""A check whether the files of a store are unchanged since an earlier moment.

The fingerprint of a store follows from the checksums that its parts record, and opening a store only compares sizes. A file that
was changed in place without changing its size is detected by its modification time and then compared with its checksum. The
check costs a few system calls per part. Files are read only if a time differs (also after the store was copied or touched).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trichord.files.reading import file_sha256
from trichord.store.manifest import part_paths, read_manifest
from trichord.store.shards import damaged, unreadable_part
from trichord.store.store import Store

Stamps = dict[str, list[int]]
"""The size in bytes and the modification time in nanoseconds of each file in `parts`, by name."""


def stamps_of(store: Store) -> Stamps:
    """Return the stamps of the current files of all parts; empty for a remote store, whose parts are checked when downloaded."""
    if store.remote is not None:
        return {}
    stamps: Stamps = {}
    for path in part_paths(Path(store.path)):
        for file in (path, path.with_suffix(".safetensors")):
            try:
                stat = file.stat()
            except OSError as error:
                raise unreadable_part(file, error) from None
            stamps[file.name] = [stat.st_size, stat.st_mtime_ns]
    return stamps


def check_unchanged(store: Store, noted: Mapping[str, object]) -> Stamps:
    """Check that the files of a store are unchanged. Files whose stamps differ are compared with their checksums.

    Args:
        store: The store.
        noted: The stamps at the earlier moment.

    Returns:
        The current stamps.

    Raises:
        TrichordError: A file is gone or its content has changed. The message names the first such file.
    """
    current = stamps_of(store)
    folder = Path(store.path) / "parts"
    if current and (gone := [name for name in noted if name not in current]):
        raise damaged(folder / gone[0], "is missing, but existed when the run began")
    for part in sorted({Path(name).stem for name, stamp in current.items() if name in noted and noted[name] != stamp}):
        _check_content(folder / f"{part}.parquet")
    return current


def _check_content(path: Path) -> None:
    manifest = read_manifest(path)
    if not manifest.is_as_written():
        raise damaged(path, "has changed since the run began")
    try:
        same = file_sha256(manifest.shard_path) == manifest.info.sha256
    except OSError as error:
        raise unreadable_part(manifest.shard_path, error) from None
    if not same:
        raise damaged(manifest.shard_path, "has changed since the run began: its content does not match its checksum")
