"""The spool: finished items that wait to become part of the store, each a folder that is there whole or not at all.

Rows are appended to one plain file per stream as they are made, so that memory does not grow with a video's length. A
folder gets its name only when its files are on disk: what a killed process had finished is still there, and what it
had begun is not. The next run takes up what it finds.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from trichord.captions import Captions
from trichord.store.items import Item
from trichord.store.shards import sync_folder

FOLDER = "spool"
_DESCRIPTION = "item.json"


def spool_name(source: str, collection: str) -> str:
    """Folder name of the item of a collection that is made from and by `source`, of the form CONTENT:FINGERPRINT."""
    content, _, fingerprint = source.partition(":")
    return f"{content[:40]}-{fingerprint[:24]}-{hashlib.sha256(collection.encode()).hexdigest()[:8]}"


class SpoolWriter:
    """One item on its way into the spool. `append` rows, then `commit` or `discard`."""

    def __init__(self, store: Path, source: str, collection: str) -> None:
        self.source, self.collection = source, collection
        self._final = store / FOLDER / spool_name(source, collection)
        own = f"{os.getpid()}-{secrets.token_hex(4)}"  # processes of several machines may have one number
        self.folder = self._final.with_name(f".{self._final.name}.{own}.tmp")
        self.folder.mkdir(parents=True)
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
        self, *, video_id: str, split: str, duration_s: float, rates_hz: dict[str, float], captions: Captions
    ) -> int:
        """Make the item durable and give it its name. Returns its size in bytes."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        description = {
            "video_id": video_id, "collection": self.collection, "split": split, "duration_s": duration_s,
            "source": self.source, "streams": self._streams, "rates_hz": rates_hz,
            "start_s": captions.start_s.tolist(), "end_s": captions.end_s.tolist(), "text": list(captions.text),
        }  # fmt: skip
        with (self.folder / _DESCRIPTION).open("w", encoding="utf-8") as out:
            json.dump(description, out)
            out.flush()
            os.fsync(out.fileno())
        sync_folder(self.folder)
        num_bytes = spooled_bytes(self.folder)
        try:
            os.rename(self.folder, self._final)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            shutil.rmtree(self.folder, ignore_errors=True)  # the same work, finished by another process
        sync_folder(self._final.parent)
        return num_bytes

    def discard(self) -> None:
        for file in self._files.values():
            file.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def spooled_bytes(folder: Path) -> int:
    """Size of an item of the spool."""
    return sum(path.stat().st_size for path in folder.iterdir())


def spooled(store: Path) -> list[Path]:
    """Folders of finished items, sorted by name."""
    try:
        return sorted(p for p in (store / FOLDER).iterdir() if not p.name.startswith(".") and p.is_dir())
    except FileNotFoundError:
        return []


def read_spooled(folder: Path) -> Item | None:
    """The item of a folder, its streams memory-mapped; None where the folder does not hold a whole one.

    Raises OSError when it cannot be read, which is not its fault.
    """
    try:
        values = json.loads((folder / _DESCRIPTION).read_text("utf-8"))
        streams: dict[str, np.ndarray] = {}
        for name, entry in values["streams"].items():
            if Path(entry["file"]).name != entry["file"]:
                raise ValueError("a file of another folder")
            if entry["num_rows"]:
                streams[name] = _mapped(folder / entry["file"], entry)
        return Item(
            video_id=values["video_id"],
            collection=values["collection"],
            split=values["split"],
            duration_s=values["duration_s"],
            streams=streams,
            rates_hz=values["rates_hz"],
            captions=Captions(np.array(values["start_s"]), np.array(values["end_s"]), tuple(values["text"])),
            source=values["source"],
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError):
        return None


def _mapped(path: Path, entry: dict[str, Any]) -> np.ndarray:
    """Rows of a file as a view of its mapping; the descriptor is closed at once, so that many items may be open."""
    dtype, shape = np.dtype(entry["dtype"]), (entry["num_rows"], entry["dim"])
    if path.stat().st_size != shape[0] * shape[1] * dtype.itemsize:
        raise ValueError(f"{path}: is cut short")
    with pa.memory_map(str(path)) as file:
        return np.frombuffer(file.read_buffer(), dtype).reshape(shape)


def remove_spooled(folder: Path) -> None:
    """Take an item out: first its name, so that a half-removed one is not taken for whole."""
    doomed = folder.with_name(f".{folder.name}.{os.getpid()}.gone")
    try:
        os.rename(folder, doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)


def begun(store: Path) -> list[tuple[Path, str]]:
    """Folders that are not finished, each with the name of its work: of a process that works on it, or that died."""
    try:
        folders = [path for path in (store / FOLDER).iterdir() if path.name.startswith(".")]
    except FileNotFoundError:
        return []
    return [(path, path.name[1:].rsplit(".", 2)[0]) for path in sorted(folders)]
