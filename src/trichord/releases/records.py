"""What exports and their importers share: names of files, the mark of an export, and the record of an item.

A record is plain data: `id`, `collection`, `split`, `duration_s`, `source`, `rates_hz` by stream (0: one row for the
whole item, -1: one row per caption) and `captions` (lists start, end, text). Numbers keep every bit as JSON writes them.
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

MARK = "trichord.json"  # what the folder holds; published readers do not look at it
INDEX = "trichord.jsonl"  # one record per line
WORD_VECTORS = "word2vec.bin"
VERSION = 1
LONGEST_NAME = 100
_ODD = re.compile(rb"[^A-Za-z0-9_.-]|^\.")
MOST_JSON_BYTES = 256 << 20


def component(text: str, *, dots: bool = True) -> str:
    """`text` as the name of one file or folder: bytes other than letters, digits and `_.-` become %XX.

    Different texts have different names; those of YouTube ids are the ids. A leading dot, and with `dots=False` every
    dot, is escaped too; what is longer than 100 bytes is cut there and gets `~` and a hash.
    """
    if not text:
        raise ValueError("a name is not empty")
    raw = text.encode("utf-8", "surrogatepass")
    name = _ODD.sub(lambda found: b"%%%02X" % found.group()[0], raw).decode()
    if not dots:
        name = name.replace(".", "%2E")
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 33]}~{hashlib.sha256(raw).hexdigest()[:32]}"


def inside(root: Path, name: object, source: str) -> Path:
    """`root / name`. Raises TrichordError when the name is none or leads out of `root`."""
    if (
        not isinstance(name, str)
        or not name
        or "\0" in name
        or name.startswith("/")
        or ".." in PurePosixPath(name).parts
    ):
        raise TrichordError(f"{source}: names the file '{shown(name)}', which is none of this folder; export it again")
    return root / name


def shown(text: object) -> str:
    """Text of a file in a message: one short line that any terminal can print."""
    return one_line(text).encode("utf-8", "replace").decode()[:200]


# ---- records


def record_of(store: Store, i: int) -> dict[str, Any]:
    """The record of item number `i`."""
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
    """Names of the streams that the item has."""
    return [name for name in sorted(store.streams) if store.num_rows(name, i)]


def item_of(record: dict[str, Any], streams: dict[str, np.ndarray], where: str) -> Item:
    """The item of a record. Raises TrichordError when a field is missing or of another kind."""
    rates = record.get("rates_hz", {})
    if not isinstance(rates, dict):
        raise _wrong(where, "rates_hz", "numbers by stream")
    texts = {name: record.get(name, "") for name in ("id", "collection", "split", "source", "media", "rules")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise _wrong(where, name, "text")
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
    """Captions of a record, every one as it stands; a list of texts without times is of the whole item."""
    if value == {}:
        return Captions.empty()
    if isinstance(value, dict) and isinstance(texts := value.get("text"), list) and not value.keys() & {"start", "end"}:
        value = {"start": [0.0] * len(texts), "end": [duration_s] * len(texts), "text": texts}
    if not isinstance(value, dict) or not all(isinstance(value.get(name), list) for name in ("start", "end", "text")):
        raise _wrong(where, "captions", "lists start, end and text")
    starts, ends, texts = value["start"], value["end"], value["text"]
    if not all(isinstance(text, str) for text in texts):
        raise _wrong(where, "caption text", "text")
    try:
        start_s, end_s = np.asarray(starts, np.float64), np.asarray(ends, np.float64)
    except (OverflowError, TypeError, ValueError):
        raise _wrong(where, "caption times", "numbers") from None
    if not start_s.shape == end_s.shape == (len(texts),):
        raise _wrong(where, "captions", f"as many starts and ends as texts ({len(texts)})")
    return Captions(start_s, end_s, tuple(texts))


def read_small(path: Path) -> bytes:
    """The content of a JSON file. Raises TrichordError when it is missing or too large to be one of ours."""
    try:
        with open_regular(path) as file:
            if (size := path.stat().st_size) > MOST_JSON_BYTES:
                raise TrichordError(f"{path}: has {size:,} bytes, {MOST_JSON_BYTES:,} can be read; export it again")
            return file.read()
    except OSError as error:
        raise unreadable(path, error, mend="copy or export it again") from None


def parsed(line: bytes | str, where: str, *, unique_keys: bool = False) -> dict[str, Any]:
    """A JSON object. Raises TrichordError when it is anything else, or has a key twice where that is an error."""
    try:
        value = parse_json(line, unique_keys=unique_keys)
    except ValueError as error:
        raise TrichordError(f"{where}: is not JSON ({shown(error)}); export it again") from None
    if not isinstance(value, dict):
        raise TrichordError(f"{where}: is no JSON object but a {type(value).__name__}; export it again")
    return value


def _number(value: object, name: str, where: str) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    except OverflowError:
        pass
    raise _wrong(where, name, "a number")


def _wrong(where: str, name: str, expected: str) -> TrichordError:
    return TrichordError(f"{where}: its {shown(name)} is not {expected}; export it again")


# ---- the mark and the words


def write_mark(folder: Path, mark: dict[str, Any]) -> None:
    with replacing_file(folder / MARK) as file:
        file.write(json.dumps(mark, indent=1).encode() + b"\n")


def read_mark(folder: Path) -> dict[str, Any] | None:
    """The mark of an export, whole or not; None where there is none of ours. Raises TrichordError when it is damaged."""
    path = folder / MARK
    if not path.exists():
        return None
    mark = parsed(read_small(path), str(path))
    return mark if mark.get("format") == "trichord export" else None


def export_mark(root: Path, layout: str) -> dict[str, Any] | None:
    """The mark of a whole export in this layout, or None. Raises TrichordError when the export did not end."""
    mark = read_mark(root)
    if mark is None or mark.get("layout") != layout:
        return None
    if mark.get("version") != VERSION:
        what = f"was exported in version {shown(mark.get('version'))}, this one reads {VERSION}"
        raise TrichordError(f"{root / MARK}: {what}; install the trichord that wrote it")
    if mark.get("complete") is not True:
        raise TrichordError(f"{root}: holds an export that did not end; run `trichord store export` again")
    if not isinstance(mark.get("files"), dict) or not isinstance(mark.get("words"), dict):
        raise TrichordError(f"{root / MARK}: lacks files or words; export it again")
    return mark


def write_words(folder: Path, store: Store) -> dict[str, Any]:
    """Write the store's word vectors as a word2vec file; what the mark says about them."""
    rows = [row for row, word in enumerate(store.words) if word]
    said = {"source": store.word_source, "lowercase": store.lowercase, "dim": store.word_dim, "num_words": len(rows)}
    if store.word_splitting != "published":
        said["splitting"] = store.word_splitting
    if rows:
        with replacing_file(folder / WORD_VECTORS) as file:
            file.write(f"{len(rows)} {store.word_dim}\n".encode())
            for row in rows:
                file.write(store.words[row].encode() + b" " + store.word_vectors[row].astype("<f4").tobytes() + b"\n")
    return said


def exported_splitting(root: Path, mark: dict[str, Any]) -> WordSplitting:
    """How the captions of an export are split into words."""
    splitting = mark["words"].get("splitting", "published")
    if splitting not in WORD_SPLITTINGS:
        raise TrichordError(f"{root / MARK}: splits text into words in a way unknown here; install a newer trichord")
    return splitting


def exported_words(root: Path, mark: dict[str, Any], texts: Iterable[str]) -> WordVectors:
    """The exported vectors of the words of `texts`, under the name of the table that they came from."""
    said = mark["words"]
    kinds = {"source": str, "lowercase": bool, "dim": int, "num_words": int}
    if not all(type(said.get(name)) is kind for name, kind in kinds.items()) or not 0 <= said["dim"] <= 1 << 16:
        raise TrichordError(f"{root / MARK}: does not say which words it has; name word vectors with --words")
    splitting = exported_splitting(root, mark)
    if said["num_words"] == 0:
        return WordVectors([], np.zeros((0, said["dim"]), np.float32), said["source"], said["lowercase"], splitting)
    wanted = {token for text in texts for token in tokenize(text, splitting)}
    if said["lowercase"]:
        wanted = {token.lower() for token in wanted}
    try:
        check_regular(root / WORD_VECTORS)  # what the user names may be a pipe, what lies in a folder may not
    except OSError as error:
        raise unreadable(root / WORD_VECTORS, error, mend="name a word file with --words") from None
    vectors = read_word_vectors(root / WORD_VECTORS, wanted)
    return replace(vectors, source=said["source"], lowercase=said["lowercase"], splitting=splitting)
