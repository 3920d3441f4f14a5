"""The spool: finished items that wait to be added to a store, each in a folder that is written completely or not at all.

Rows are appended to one plain file per stream as they are computed, so that memory does not grow with the length of a video. A
folder gets its final name only when its files are on disk. Items that a killed process had finished therefore survive, and
unfinished ones do not. The next run continues with the finished items.

Only folders whose name and files have the form that this module writes are read or removed. Everything else in the spool is left
alone, and a spool that is a link is refused.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from trichord.captions import Captions
from trichord.errors import TrichordError
from trichord.files.folders import holds_only, link_error, make_folder, remove_folder
from trichord.files.reading import read_json_value
from trichord.files.writing import sync
from trichord.store.items import Item

FOLDER = "spool"
_DESCRIPTION = "item.json"
_ITEM = r"[0-9A-Za-z]{1,40}-[0-9A-Za-z]{0,24}-[0-9a-f]{8}"
_NAME = re.compile(_ITEM)
_UNFINISHED = r"\.(?:\d+-[0-9a-f]{8}\.tmp|\d+\.attempt|\d+\.gone)"  # `gone`: partly removed by an earlier version
_BEGUN = re.compile(rf"\.{{1,2}}(?P<item>{_ITEM})(?:{_UNFINISHED}(?:\.old)?|\.old)")
_FILES = re.compile(r"\d+\.rows|item\.json")


def spool_name(source: str, collection: str) -> str:
    """Return the folder name of an item of a collection. `source` has the form CONTENT:FINGERPRINT."""
    content, _, fingerprint = source.partition(":")
    return f"{content[:40]}-{fingerprint[:24]}-{hashlib.sha256(collection.encode()).hexdigest()[:8]}"


@dataclass
class SpooledItem(Item):
    """An item of the spool.

    Attributes:
        renews: Which streams of an existing item it replaces: `captions` (it has only caption streams) or `all`; '' for a new
            item.
    """

    renews: str = ""


class SpoolWriter:
    """Writes one item into the spool. Call `append` for its rows, then `commit` or `discard`.

    Args:
        store: The folder of the store.
        source: The `Item.source` of the item.
        collection: The collection of the item.
    """

    def __init__(self, store: Path, source: str, collection: str) -> None:
        self.source, self.collection = source, collection
        self._final = store / FOLDER / spool_name(source, collection)
        own = f"{os.getpid()}-{secrets.token_hex(4)}"  # processes on different machines may have the same id
        self.folder = make_folder(store, FOLDER) / f".{self._final.name}.{own}.tmp"
        self.folder.mkdir()
        self._files: dict[str, BinaryIO] = {}
        self._streams: dict[str, dict[str, Any]] = {}

    def append(self, stream: str, rows: np.ndarray) -> None:
        """Append rows (n, dim) of a stream. All rows of a stream must have the same width and dtype."""
        entry = self._streams.setdefault(stream, {"dim": rows.shape[1], "dtype": str(rows.dtype), "num_rows": 0})
        if (rows.shape[1], str(rows.dtype)) != (entry["dim"], entry["dtype"]):
            problem = f"rows of width {rows.shape[1]} and dtype {rows.dtype} after width {entry['dim']} and dtype {entry['dtype']}"
            raise ValueError(f"{stream}: {problem}; all rows of a stream must have the same width and dtype")
        if stream not in self._files:
            self._files[stream] = (self.folder / f"{len(self._files)}.rows").open("wb")
            entry["file"] = f"{len(self._files) - 1}.rows"
        self._files[stream].write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
        entry["num_rows"] += len(rows)

    def num_rows(self, stream: str) -> int:
        """Return the number of rows appended to a stream."""
        return self._streams[stream]["num_rows"] if stream in self._streams else 0

    def commit(
        self, *, video_id: str, split: str, duration_s: float, rates_hz: dict[str, float], captions: Captions,
        media: str = "", rules: str = "", renews: str = "",
    ) -> int:  # fmt: skip
        """Sync the item to disk and give its folder the final name. See `Item` and `SpooledItem` for the arguments.

        Returns:
            The size of the item in bytes.
        """
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        description = {
            "video_id": video_id, "collection": self.collection, "split": split, "duration_s": duration_s,
            "source": self.source, "media": media, "rules": rules, "renews": renews, "streams": self._streams, "rates_hz": rates_hz,
            "start_s": captions.start_s.tolist(), "end_s": captions.end_s.tolist(), "text": list(captions.text),
        }  # fmt: skip
        with (self.folder / _DESCRIPTION).open("w", encoding="utf-8") as out:
            json.dump(description, out)
            out.flush()
            os.fsync(out.fileno())
        sync(self.folder)
        num_bytes = spooled_bytes(self.folder)
        try:
            os.rename(self.folder, self._final)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            remove_folder(self.folder, _FILES)  # another process has finished the same work
        sync(self._final.parent)
        return num_bytes

    def discard(self) -> None:
        """Remove the unfinished item."""
        for file in self._files.values():
            file.close()
        remove_folder(self.folder, _FILES)


def spooled_bytes(folder: Path) -> int:
    """Return the size of a spooled item in bytes."""
    return sum(path.stat().st_size for path in folder.iterdir())


def spooled(store: Path) -> list[Path]:
    """Return the folders of finished items, sorted by name.

    Raises:
        TrichordError: The spool is a link, or a folder with the name of an item contains other files.
    """
    folders = [path for path in _entries(store) if _NAME.fullmatch(path.name)]
    for folder in folders:
        if not holds_only(folder, _FILES):
            raise TrichordError(
                f"{folder}: is a link, or contains files that trichord does not write there; move it away, "
                "then run the command again"
            )
    return folders


def read_spooled(folder: Path) -> SpooledItem | None:
    """Read the item in a folder with its streams memory-mapped; None if the folder does not contain a complete item.

    Raises:
        OSError: The item cannot be read, which does not mean that it is damaged.
    """
    try:
        values = read_json_value(folder / _DESCRIPTION)
        streams: dict[str, np.ndarray] = {}
        for name, entry in values["streams"].items():
            if Path(entry["file"]).name != entry["file"]:
                raise ValueError("a file in another folder")
            if entry["num_rows"]:
                streams[name] = _mapped(folder / entry["file"], entry)
        return SpooledItem(
            video_id=values["video_id"],
            collection=values["collection"],
            split=values["split"],
            duration_s=values["duration_s"],
            streams=streams,
            rates_hz=values["rates_hz"],
            captions=Captions(np.array(values["start_s"]), np.array(values["end_s"]), tuple(values["text"])),
            source=values["source"],
            **{
                name: values.get(name, "") for name in ("media", "rules", "renews")
            },  # earlier versions did not write these
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, AssertionError):
        return None


def _mapped(path: Path, entry: dict[str, Any]) -> np.ndarray:
    """Return the rows in a file as a view of its mapping. The descriptor is closed immediately, so many items can be open."""
    dtype, shape = np.dtype(entry["dtype"]), (entry["num_rows"], entry["dim"])
    if path.stat().st_size != shape[0] * shape[1] * dtype.itemsize:
        raise ValueError(f"{path}: is truncated")
    with pa.memory_map(str(path)) as file:
        return np.frombuffer(file.read_buffer(), dtype).reshape(shape)


def remove_spooled(folder: Path) -> None:
    """Remove a finished or unfinished item from the spool, unless its folder contains other files.

    The folder is renamed first, so that a partly removed item is not mistaken for a complete one.
    """
    remove_folder(folder, _FILES)


def begun(store: Path) -> list[tuple[Path, str]]:
    """Return the folders of unfinished items, each with the name of its item. Their processes are still running or have died.

    Raises:
        TrichordError: The spool is a link.
    """
    matches = ((path, _BEGUN.fullmatch(path.name)) for path in _entries(store))
    return [(path, match["item"]) for path, match in matches if match]


def _entries(store: Path) -> list[Path]:
    spool = store / FOLDER
    if spool.is_symlink():
        raise link_error(spool)
    try:
        return sorted(spool.iterdir())
    except FileNotFoundError:
        return []
