"""Whether a store's files are still those that were there before.

A store's fingerprint follows from the checksums that its parts *record*; opening it compares sizes. A file that was changed
in place without changing its size is found by its time of change, and is then compared with its checksum. So a look costs
a few system calls a part; reading happens only where a time differs (also after the store was copied or touched).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trichord.files.reading import file_sha256
from trichord.store.manifest import part_paths, read_manifest
from trichord.store.shards import damaged, unreadable_part
from trichord.store.store import Store

Stamps = dict[str, list[int]]
"""Name of a file in `parts` -> its size in bytes and its time of change in nanoseconds."""


def stamps_of(store: Store) -> Stamps:
    """Of the files of all parts that are there now. Nothing for a store behind a URL, whose parts are checked when fetched."""
    if store.remote is not None:
        return {}
    found: Stamps = {}
    for path in part_paths(Path(store.path)):
        for file in (path, path.with_suffix(".safetensors")):
            try:
                stat = file.stat()
            except OSError as error:
                raise unreadable_part(file, error) from None
            found[file.name] = [stat.st_size, stat.st_mtime_ns]
    return found


def check_unchanged(store: Store, noted: Mapping[str, object]) -> Stamps:
    """Compare the files' content with their checksums, for the files whose stamps are not as `noted`.

    Returns:
        The stamps of now.

    Raises TrichordError naming the first file whose content is not what was written, or which is gone.
    """
    now = stamps_of(store)
    folder = Path(store.path) / "parts"
    if now and (gone := [name for name in noted if name not in now]):
        raise damaged(folder / gone[0], "is missing, and was there when the run began")
    for part in sorted({Path(name).stem for name, stamp in now.items() if name in noted and noted[name] != stamp}):
        _check_content(folder / f"{part}.parquet")
    return now


def _check_content(path: Path) -> None:
    manifest = read_manifest(path)
    if not manifest.is_as_written():
        raise damaged(path, "was changed since the run began")
    try:
        same = file_sha256(manifest.shard_path) == manifest.info.sha256
    except OSError as error:
        raise unreadable_part(manifest.shard_path, error) from None
    if not same:
        raise damaged(manifest.shard_path, "was changed since the run began: its content does not match its checksum")
