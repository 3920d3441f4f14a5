"""The ledger: one JSON line for everything that was to be stored and could not be, with the class of what went wrong.

Lines are only ever appended, each in one write, so several processes may note at the same time. An entry that was put
right later is followed by a line of the class `resolved` with the same key; without a key it is for all entries of its source.
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
    "unreadable": "no media file, or damaged beyond use",
    "no-video-stream": "a media file without pictures",
    "no-audio": "sound was asked for and there is none",
    "no-captions": "captions were asked for and there are none",
    "captions": "the caption file is damaged",
    "missing": "a file that was named is not there",
    "hung": "decoding made no progress and was ended",
    "crashed": "the worker process ended abruptly",
    "out-of-memory": "memory ran out",
    "encoder": "an encoder failed on it",
    "disk": "the disk of the store or of temporary files (TMPDIR) is full or cannot be written to",
    "system": "this machine could not do it: too many open files, an I/O error, a missing library",
    "modified": "a file was written to or replaced while it was extracted",
    "interrupted": "was under way when the run was ended; taken up again by the next run",
    "name": "another item has the same id",
    "changed": "the id is in the store with features of another content",
    "duplicate": "the same content is in the store under another id",
    "other": "anything else; the reason tells",
}


def note(store: Path, source: str, reason: str, kind: str = "", key: str = "", collection: str = "") -> None:
    """Append one entry. `kind` is one of CLASSES (or RESOLVED), `key` what identifies the failed work."""
    entry = {"source": one_line(source), "reason": one_line(reason)}
    further = (("class", kind), ("key", key), ("collection", collection))
    entry |= {name: value for name, value in further if value}
    with writing_to(store / LEDGER, "check the disk, then run again: what was committed is safe"):
        append_json_line(store / LEDGER, entry)


def read_ledger(store: Path) -> list[dict[str, str]]:
    """Entries that stand: source, reason, and class, key and collection where they are known. Resolved ones are left out, of
    several with one key the last counts; lines that are not whole (a killed writer's last) are passed over."""
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
    """Append a line for each source with an entry without a key of which `is_stored` says that it is in the store now."""
    for source in {entry["source"] for entry in read_ledger(store) if not entry.get("key")}:
        if is_stored(source):
            note(store, source, "stored by a later run", RESOLVED)


def entry_of(line: str) -> dict[str, str] | None:
    """The entry of one line, or None when it is not whole."""
    try:
        values = parse_json(line)
        entry = {name: str(values[name]) for name in ("source", "reason")}
        return entry | {name: str(values[name]) for name in ("class", "key", "collection") if name in values}
    except (ValueError, KeyError, TypeError):
        return None


def no_items(store: Location, folder: Path) -> TrichordError:
    """The error for a store without parts; `folder` holds its files."""
    if not folder.exists():
        return TrichordError(f"{store}: no such store; make it with `trichord import` or `trichord extract`")
    if not folder.is_dir():
        return TrichordError(f"{store}: is a file, not a store; name the folder of a store")
    if skipped := len(read_ledger(folder)):
        return TrichordError(f"{store}: this store holds no items, {skipped} were skipped; {store}/{LEDGER} says why")
    return TrichordError(f"{store}: holds no items; fill it with `trichord import` or `trichord extract`")
