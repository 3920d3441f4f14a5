"""Common parts of exports and their importers: file names, the mark of an export, and the record of an item.

A record is plain data: `id`, `collection`, `split`, `duration_s`, `source`, `rates_hz` by stream (0: one row for the
whole item, -1: one row per caption) and `captions` (lists start, end, text). JSON preserves all bits of the numbers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from trichord.captions import WORD_SPLITTINGS, Captions, WordSplitting, tokenize
from trichord.errors import TrichordError, one_line
from trichord.files.reading import check_regular, open_regular, parse_json, unreadable
from trichord.files.writing import replacing_file
from trichord.store import Item, Store, WordVectors
from trichord.store.words import read_word_vectors

MARK = "trichord.json"  # the description of an export, which published readers ignore
INDEX = "trichord.jsonl"  # one record per line
WORD_VECTORS = "word2vec.bin"
VERSION = 1
LONGEST_NAME = 100
_ODD = re.compile(rb"[^A-Za-z0-9_.-]|^\.")
MOST_JSON_BYTES = 256 << 20


def component(text: str, *, dots: bool = True) -> str:
    """Return a text as the name of one file or folder. Bytes other than letters, digits and `_.-` become %XX.

    Different texts have different names, and YouTube ids are unchanged. A leading dot, and with `dots=False` every dot, is escaped
    too. Names of more than 100 bytes are truncated and end in `~` and a hash.

    Raises:
        ValueError: The text is empty.
    """
    if not text:
        raise ValueError("a name must not be empty")
    raw = text.encode("utf-8", "surrogatepass")
    name = _ODD.sub(lambda match: b"%%%02X" % match.group()[0], raw).decode()
    if not dots:
        name = name.replace(".", "%2E")
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 33]}~{hashlib.sha256(raw).hexdigest()[:32]}"


def inside(root: Path, name: object, source: str) -> Path:
    """Return `root / name`.

    Raises:
        TrichordError: The name is not valid or leads out of `root`.
    """
    if (
        not isinstance(name, str)
        or not name
        or "\0" in name
        or name.startswith("/")
        or ".." in PurePosixPath(name).parts
    ):
        raise TrichordError(
            f"{source}: refers to the file '{shown(name)}', which is not in this folder; export it again"
        )
    return root / name


def shown(text: object) -> str:
    """Return text from a file for an error message: one short line that any terminal can print."""
    return one_line(text).encode("utf-8", "replace").decode()[:200]


# ---- records


def record_of(store: Store, i: int) -> dict[str, Any]:
    """Return the record of item `i`."""
    start_s, end_s = store.caption_spans(i)
    return {
        "id": store.video_id(i),
        "collection": store.collection(i),
        "split": store.split(i),
        "duration_s": store.duration_s(i),
        "source": store.source(i),
        **{name: text for name, text in (("media", store.media(i)), ("rules", store.rules(i))) if text},
        "rates_hz": {name: store.rate_hz(name, i) for name in streams_of(store, i)},
        "captions": {
            "start": start_s.tolist(),
            "end": end_s.tolist(),
            "text": [store.caption_text(i, c) for c in range(store.num_captions(i))],
        },
    }


def streams_of(store: Store, i: int) -> list[str]:
    """Return the names of the streams that item `i` has."""
    return [name for name in sorted(store.streams) if store.num_rows(name, i)]


def item_of(record: dict[str, Any], streams: dict[str, np.ndarray], where: str) -> Item:
    """Return the item of a record.

    Raises:
        TrichordError: A field is missing or of the wrong type.
    """
    rates = record.get("rates_hz", {})
    if not isinstance(rates, dict):
        raise _field_error(where, "rates_hz", "numbers by stream")
    texts = {name: record.get(name, "") for name in ("id", "collection", "split", "source", "media", "rules")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise _field_error(where, name, "text")
    return Item(
        video_id=texts["id"],
        collection=texts["collection"],
        split=texts["split"],
        duration_s=_number(record.get("duration_s"), "duration_s", where),
        streams=streams,
        rates_hz={name: _number(rates.get(name), f"rate of {name}", where) for name in streams},
        captions=captions_of(record.get("captions", {}), where, _number(record.get("duration_s"), "duration_s", where)),
        source=texts["source"],
        media=texts["media"],
        rules=texts["rules"],
    )


def captions_of(value: object, where: str, duration_s: float = 0.0) -> Captions:
    """Return all captions of a record. A list of texts without times describes the whole item.

    Raises:
        TrichordError: The captions are not valid.
    """
    if value == {}:
        return Captions.empty()
    if isinstance(value, dict) and isinstance(texts := value.get("text"), list) and not value.keys() & {"start", "end"}:
        value = {"start": [0.0] * len(texts), "end": [duration_s] * len(texts), "text": texts}
    if not isinstance(value, dict) or not all(isinstance(value.get(name), list) for name in ("start", "end", "text")):
        raise _field_error(where, "captions", "lists start, end and text")
    starts, ends, texts = value["start"], value["end"], value["text"]
    if not all(isinstance(text, str) for text in texts):
        raise _field_error(where, "caption text", "text")
    try:
        start_s, end_s = np.asarray(starts, np.float64), np.asarray(ends, np.float64)
    except (OverflowError, TypeError, ValueError):
        raise _field_error(where, "caption times", "numbers") from None
    if not start_s.shape == end_s.shape == (len(texts),):
        raise _field_error(where, "captions", f"as many starts and ends as texts ({len(texts)})")
    return Captions(start_s, end_s, tuple(texts))


def read_small(path: Path) -> bytes:
    """Read a JSON file.

    Raises:
        TrichordError: The file is missing, or too large to be part of an export.
    """
    try:
        with open_regular(path) as file:
            if (size := path.stat().st_size) > MOST_JSON_BYTES:
                raise TrichordError(
                    f"{path}: has {size:,} bytes, but at most {MOST_JSON_BYTES:,} are supported; export it again"
                )
            return file.read()
    except OSError as error:
        raise unreadable(path, error, mend="copy or export it again") from None


def parsed(line: bytes | str, where: str, *, unique_keys: bool = False) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        TrichordError: The text is anything else, or has a repeated key although `unique_keys` is true.
    """
    try:
        value = parse_json(line, unique_keys=unique_keys)
    except ValueError as error:
        raise TrichordError(f"{where}: is not JSON ({shown(error)}); export it again") from None
    if not isinstance(value, dict):
        raise TrichordError(f"{where}: is not a JSON object but a {type(value).__name__}; export it again")
    return value


def _number(value: object, name: str, where: str) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    except OverflowError:
        pass
    raise _field_error(where, name, "a number")


def _field_error(where: str, name: str, expected: str) -> TrichordError:
    return TrichordError(f"{where}: its {shown(name)} is not {expected}; export it again")


# ---- the mark and the words


def write_mark(folder: Path, mark: dict[str, Any]) -> None:
    """Write the mark of an export."""
    with replacing_file(folder / MARK) as file:
        file.write(json.dumps(mark, indent=1).encode() + b"\n")


def read_mark(folder: Path) -> dict[str, Any] | None:
    """Read the mark of an export, complete or not; None if there is none.

    Raises:
        TrichordError: The mark is damaged.
    """
    path = folder / MARK
    if not path.exists():
        return None
    mark = parsed(read_small(path), str(path))
    return mark if mark.get("format") == "trichord export" else None


def export_mark(root: Path, layout: str) -> dict[str, Any] | None:
    """Read the mark of a complete export in this layout; None if there is none.

    Raises:
        TrichordError: The export is incomplete, damaged, or from another version.
    """
    mark = read_mark(root)
    if mark is None or mark.get("layout") != layout:
        return None
    if mark.get("version") != VERSION:
        problem = f"was exported in version {shown(mark.get('version'))}, but this version of trichord reads {VERSION}"
        raise TrichordError(f"{root / MARK}: {problem}; install the version of trichord that wrote it")
    if mark.get("complete") is not True:
        raise TrichordError(f"{root}: contains an incomplete export; run `trichord store export` again")
    if not isinstance(mark.get("files"), dict) or not isinstance(mark.get("words"), dict):
        raise TrichordError(f"{root / MARK}: lacks files or words; export it again")
    return mark


def write_words(folder: Path, store: Store) -> dict[str, Any]:
    """Write the word vectors of a store as a word2vec file, and return their description for the mark."""
    rows = [row for row, word in enumerate(store.words) if word]
    description = {
        "source": store.word_source,
        "lowercase": store.lowercase,
        "dim": store.word_dim,
        "num_words": len(rows),
    }
    if store.word_splitting != "published":
        description["splitting"] = store.word_splitting
    if rows:
        with replacing_file(folder / WORD_VECTORS) as file:
            file.write(f"{len(rows)} {store.word_dim}\n".encode())
            for row in rows:
                file.write(store.words[row].encode() + b" " + store.word_vectors[row].astype("<f4").tobytes() + b"\n")
    return description


def exported_splitting(root: Path, mark: dict[str, Any]) -> WordSplitting:
    """Return how the captions of an export are split into words.

    Raises:
        TrichordError: This version does not support the rule.
    """
    splitting = mark["words"].get("splitting", "published")
    if splitting not in WORD_SPLITTINGS:
        raise TrichordError(
            f"{root / MARK}: splits text into words by an unknown rule; install a newer version of trichord"
        )
    return splitting


def exported_words(root: Path, mark: dict[str, Any], texts: Iterable[str]) -> WordVectors:
    """Read the exported vectors of the words in some texts, under the name of their original table.

    Raises:
        TrichordError: The vectors are missing or damaged, or the mark does not describe them.
    """
    description = mark["words"]
    kinds = {"source": str, "lowercase": bool, "dim": int, "num_words": int}
    if (
        not all(type(description.get(name)) is kind for name, kind in kinds.items())
        or not 0 <= description["dim"] <= 1 << 16
    ):
        raise TrichordError(f"{root / MARK}: does not describe its words; pass word vectors with --words")
    splitting = exported_splitting(root, mark)
    if description["num_words"] == 0:
        return WordVectors(
            [],
            np.zeros((0, description["dim"]), np.float32),
            description["source"],
            description["lowercase"],
            splitting,
        )
    wanted = {token for text in texts for token in tokenize(text, splitting)}
    if description["lowercase"]:
        wanted = {token.lower() for token in wanted}
    try:
        check_regular(root / WORD_VECTORS)  # a file that the user names may be a pipe, a file in a folder may not
    except OSError as error:
        raise unreadable(root / WORD_VECTORS, error, mend="pass a file of word vectors with --words") from None
    vectors = read_word_vectors(root / WORD_VECTORS, wanted)
    return replace(vectors, source=description["source"], lowercase=description["lowercase"], splitting=splitting)
