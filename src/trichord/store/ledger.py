"""The ledger: one JSON line for each item that could not be stored, with the class of the problem.

Lines are only appended, each in a single write, so several processes may write at the same time. An entry whose problem was
solved later is followed by a line of class `resolved` with the same key; without a key, that line resolves all entries of its
source.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trichord.errors import TrichordError, one_line
from trichord.files.reading import parse_json, read_text, unreadable
from trichord.files.writing import append_json_line, writing_to
from trichord.store.location import Location

LEDGER = "skipped.jsonl"
RESOLVED = "resolved"
CLASSES = {
    "unreadable": "not a media file, or too damaged to read",
    "no-video-stream": "a media file without a video stream",
    "no-audio": "audio is required and the file has none",
    "no-captions": "captions are required and there are none",
    "captions": "the caption file is damaged",
    "missing": "a file does not exist",
    "hung": "decoding made no progress and was stopped",
    "crashed": "the worker process crashed",
    "out-of-memory": "memory ran out",
    "encoder": "an encoder failed",
    "disk": "the disk of the store or of temporary files (TMPDIR) is full or not writable",
    "system": "a fault of this machine: too many open files, an I/O error, a missing library",
    "modified": "a file changed during extraction",
    "interrupted": "in progress when the run was stopped; the next run continues with it",
    "name": "another item has the same id",
    "changed": "the store has this id with features of different content",
    "duplicate": "the store has the same content under another id",
    "other": "any other problem; see the reason",
}


def note(store: Path, source: str, reason: str, kind: str = "", key: str = "", collection: str = "") -> None:
    """Append an entry to the ledger of a store.

    Args:
        store: The folder of the store.
        source: The item that could not be stored.
        reason: Why it could not be stored.
        kind: One of CLASSES, or RESOLVED.
        key: Identifies the failed work.
        collection: The collection of the item.

    Raises:
        TrichordError: The ledger cannot be written.
    """
    entry = {"source": one_line(source), "reason": one_line(reason)}
    further = (("class", kind), ("key", key), ("collection", collection))
    entry |= {name: value for name, value in further if value}
    with writing_to(store / LEDGER, "check the disk, then run the command again; committed items are safe"):
        append_json_line(store / LEDGER, entry)


def read_ledger(store: Path) -> list[dict[str, str]]:
    """Read the open entries of the ledger: source, reason and, if known, class, key and collection.

    Resolved entries are left out. Of several entries with one key the last one is returned. Incomplete lines, such as the last
    line of a killed writer, are skipped.

    Raises:
        TrichordError: The ledger cannot be read.
    """
    try:
        lines = read_text(store / LEDGER, errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(store / LEDGER, error, mend="move it away, then run the command again") from None
    entries: dict[tuple[str, ...], dict[str, str]] = {}
    for line in lines:
        entry = entry_of(line)
        if entry is None:
            continue
        key = (
            (entry["key"], entry.get("collection", "")) if entry.get("key") else (entry["source"], entry["reason"], "")
        )
        if entry.get("class") == RESOLVED and not entry.get("key"):
            entries = {key: other for key, other in entries.items() if other.get("key") or key[0] != entry["source"]}
        elif entry.get("class") == RESOLVED:
            entries.pop(key, None)
        elif entry.get("key") or key not in entries:
            entries.pop(key, None)
            entries[key] = entry
    return list(entries.values())


def resolve(store: Path, is_stored: Callable[[str], bool]) -> None:
    """Append a resolving line for each source of an entry without a key that is in the store now, according to `is_stored`."""
    for source in {entry["source"] for entry in read_ledger(store) if not entry.get("key")}:
        if is_stored(source):
            note(store, source, "stored by a later run", RESOLVED)


def entry_of(line: str) -> dict[str, str] | None:
    """Return the entry of a line, or None if the line is incomplete."""
    try:
        values = parse_json(line)
        entry = {name: str(values[name]) for name in ("source", "reason")}
        return entry | {name: str(values[name]) for name in ("class", "key", "collection") if name in values}
    except (ValueError, KeyError, TypeError):
        return None


def no_items(store: Location, folder: Path) -> TrichordError:
    """Return the error to raise for a store without parts. `folder` holds the files of the store."""
    if not folder.exists():
        return TrichordError(f"{store}: does not exist; create a store with `trichord import` or `trichord extract`")
    if not folder.is_dir():
        return TrichordError(f"{store}: is a file, not a store; pass the folder of a store")
    if skipped := len(read_ledger(folder)):
        return TrichordError(f"{store}: contains no items (skipped: {skipped}); see {store}/{LEDGER} for the reasons")
    return TrichordError(f"{store}: contains no items; fill it with `trichord import` or `trichord extract`")
