"""The spool: finished items that wait to become part of the store, each a folder that is there whole or not at all.

Rows are appended to one plain file per stream as they are made, so that memory does not grow with a video's length. A
folder gets its name only when its files are on disk: what a killed process had finished is still there, and what it
had begun is not. The next run takes up what it finds.

Only folders whose name and files have the form that is written here are read or removed; everything else in the spool is
left alone, and a spool that is a link is refused.
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
_UNFINISHED = r"\.(?:\d+-[0-9a-f]{8}\.tmp|\d+\.attempt|\d+\.gone)"  # `gone`: half removed by an earlier version
_BEGUN = re.compile(rf"\.{{1,2}}(?P<item>{_ITEM})(?:{_UNFINISHED}(?:\.old)?|\.old)")
_FILES = re.compile(r"\d+\.rows|item\.json")


def spool_name(source: str, collection: str) -> str:
    """Folder name of the item of a collection that is made from and by `source`, of the form CONTENT:FINGERPRINT."""
    content, _, fingerprint = source.partition(":")
    return f"{content[:40]}-{fingerprint[:24]}-{hashlib.sha256(collection.encode()).hexdigest()[:8]}"


@dataclass
class SpooledItem(Item):
    """An item of the spool. renews: what of an item that the store holds it takes the place of, `captions` (it has no other streams
    than those of captions) or `all`; empty for a new item."""

    renews: str = ""


class SpoolWriter:
    """One item on its way into the spool. `append` rows, then `commit` or `discard`."""

    def __init__(self, store: Path, source: str, collection: str) -> None:
        self.source, self.collection = source, collection
        self._final = store / FOLDER / spool_name(source, collection)
        own = f"{os.getpid()}-{secrets.token_hex(4)}"  # processes of several machines may have one number
        self.folder = make_folder(store, FOLDER) / f".{self._final.name}.{own}.tmp"
        self.folder.mkdir()
        self._files: dict[str, BinaryIO] = {}
        self._streams: dict[str, dict[str, Any]] = {}

    def append(self, stream: str, rows: np.ndarray) -> None:
        """Add rows (n, dim) of a stream; all of one width and dtype."""
        entry = self._streams.setdefault(stream, {"dim": rows.shape[1], "dtype": str(rows.dtype), "num_rows": 0})
        if (rows.shape[1], str(rows.dtype)) != (entry["dim"], entry["dtype"]):
            what = f"rows of width {rows.shape[1]} and type {rows.dtype} after {entry['dim']} and {entry['dtype']}"
            raise ValueError(f"{stream}: {what}; a stream has one width and one type")
        if stream not in self._files:
            self._files[stream] = (self.folder / f"{len(self._files)}.rows").open("wb")
            entry["file"] = f"{len(self._files) - 1}.rows"
        self._files[stream].write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
        entry["num_rows"] += len(rows)

    def num_rows(self, stream: str) -> int:
        return self._streams[stream]["num_rows"] if stream in self._streams else 0

    def commit(
        self, *, video_id: str, split: str, duration_s: float, rates_hz: dict[str, float], captions: Captions,
        media: str = "", rules: str = "", renews: str = "",
    ) -> int:  # fmt: skip
        """Make the item durable and give it its name. Returns its size in bytes."""
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
            remove_folder(self.folder, _FILES)  # another process finished the same work
        sync(self._final.parent)
        return num_bytes

    def discard(self) -> None:
        for file in self._files.values():
            file.close()
        remove_folder(self.folder, _FILES)


def spooled_bytes(folder: Path) -> int:
    """Size of an item of the spool."""
    return sum(path.stat().st_size for path in folder.iterdir())


def spooled(store: Path) -> list[Path]:
    """Return the folders of finished items, sorted by name.

    Raises TrichordError when the spool is a link, or a folder with the name of an item holds files of somebody else.
    """
    folders = [path for path in _entries(store) if _NAME.fullmatch(path.name)]
    for folder in folders:
        if not holds_only(folder, _FILES):
            raise TrichordError(
                f"{folder}: is a link, or holds files that trichord does not write there; move it away, then run again"
            )
    return folders


def read_spooled(folder: Path) -> SpooledItem | None:
    """The item of a folder, its streams memory-mapped; None where the folder does not hold a whole one.

    Raises OSError when it cannot be read, which is not its fault.
    """
    try:
        values = read_json_value(folder / _DESCRIPTION)
        streams: dict[str, np.ndarray] = {}
        for name, entry in values["streams"].items():
            if Path(entry["file"]).name != entry["file"]:
                raise ValueError("a file of another folder")
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
            **{name: values.get(name, "") for name in ("media", "rules", "renews")},  # earlier versions wrote none
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, AssertionError):
        return None


def _mapped(path: Path, entry: dict[str, Any]) -> np.ndarray:
    """Rows of a file as a view of its mapping; the descriptor is closed at once, so that many items may be open."""
    dtype, shape = np.dtype(entry["dtype"]), (entry["num_rows"], entry["dim"])
    if path.stat().st_size != shape[0] * shape[1] * dtype.itemsize:
        raise ValueError(f"{path}: is cut short")
    with pa.memory_map(str(path)) as file:
        return np.frombuffer(file.read_buffer(), dtype).reshape(shape)


def remove_spooled(folder: Path) -> None:
    """Remove a finished or unfinished item from the spool, unless its folder holds files of somebody else.

    Its name goes first, so that a half-removed item is not taken for whole.
    """
    remove_folder(folder, _FILES)


def begun(store: Path) -> list[tuple[Path, str]]:
    """Return the unfinished folders, each with the name of its item. Its process is still at work, or has died.

    Raises TrichordError when the spool is a link.
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
