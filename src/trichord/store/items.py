"""What goes into a store: one item, and the checks that it must pass."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trichord.captions import Captions
from trichord.errors import TrichordError

PER_CAPTION = -1.0  # rate of a stream that has one row per caption
_STREAM_NAME = re.compile(r"(?!caption|word|__)[A-Za-z0-9_.-]+")
_BLOCK_ROWS = 65536
_MAX_COLLECTION_BYTES = 128
_AGAIN = "extract or export it again"


@dataclass
class Item:
    """One video (or one published clip) to store.

    streams: name -> (rows, dim) float array, rows are time steps. rates_hz: name -> rows per second; 0.0 where one row
    stands for the whole item, PER_CAPTION where each row stands for a caption. A stream without rows counts as missing.
    source: what the features were made from and by (hashes), so that nothing is extracted twice; empty where unknown.
    media: hash of the media files and the span alone, which other captions leave as it is; empty where unknown.
    rules: versions of the rules by which it was made (`store.rules`); empty where unknown.
    """

    video_id: str
    collection: str
    split: str
    duration_s: float
    streams: dict[str, np.ndarray]
    rates_hz: dict[str, float]
    captions: Captions
    source: str = ""
    media: str = ""
    rules: str = ""


def check_collection(name: str) -> None:
    """Raise TrichordError for a name that a collection may not have, because later commands could not name it: `NAME/SPLIT`
    is a benchmark, commas separate benchmarks, and results lie in files of that name."""
    if not name.strip() or name != name.strip() or not name.isprintable():
        raise TrichordError(f"the collection is named '{name}'; give it a name of letters and digits")
    for sign, what in (("/", "a slash"), (",", "a comma")):
        if sign in name:
            raise TrichordError(
                f"the collection is named '{name}', with {what}; use '{name.replace(sign, '-')}' instead"
            )
    if len(name.encode()) > _MAX_COLLECTION_BYTES:
        raise TrichordError(
            f"the collection's name is longer than {_MAX_COLLECTION_BYTES} bytes; give it a shorter one"
        )


def checked_streams(item: Item, dims: Mapping[str, int], *, copy: bool = True) -> dict[str, np.ndarray]:
    """Copies of the item's streams as they are stored: float16 as it is, float32 and float64 as float32.

    dims: width of each stream that the store has. copy: False where nobody changes the arrays before they are stored
    (mapped files): those of the right type are taken as they are. Raises TrichordError, naming the item and the
    stream, when the item cannot be stored.
    """
    where = f"{item.collection}/{item.video_id}"
    for name in ("video_id", "collection", "split", "source", "media", "rules"):
        text = getattr(item, name)
        if not _is_line(text) or not (text or name not in ("video_id", "collection")):
            raise TrichordError(f"item {ascii(where)}: its {name} is not a line of text; give it another")
    check_collection(item.collection)
    if not (math.isfinite(item.duration_s) and item.duration_s >= 0):
        raise TrichordError(f"{where}: its duration is {item.duration_s} s; check its source and import it again")
    captions = item.captions
    if not (np.isfinite(captions.start_s).all() and np.isfinite(captions.end_s).all()):
        raise TrichordError(f"{where}: its captions have times that are not finite; mend its caption file")
    return {
        name: _checked(where, name, np.asarray(array), item, dims.get(name), copy)
        for name, array in item.streams.items()
        if len(array)
    }


def _is_line(text: object) -> bool:
    return isinstance(text, str) and "\n" not in text and text.encode("utf-8", "replace").decode() == text


def _checked(where: str, name: str, array: np.ndarray, item: Item, dim: int | None, copy: bool) -> np.ndarray:
    rate_hz = item.rates_hz.get(name)
    if not _STREAM_NAME.fullmatch(name):
        raise TrichordError(f"{where}: '{name}' cannot name a stream; letters and digits can, not caption or word")
    if array.ndim != 2 or not array.shape[1]:
        raise TrichordError(f"{where}: {name} has shape {array.shape}, expected (time steps, width); {_AGAIN}")
    if name == "spectrogram" and array.shape[0] == 40 != array.shape[1]:
        raise TrichordError(f"{where}: {name} has shape {array.shape}, expected time first, (frames, 40); {_AGAIN}")
    if array.dtype.kind != "f":
        raise TrichordError(f"{where}: {name} holds {array.dtype}, expected float16 or float32; {_AGAIN}")
    if dim is not None and dim != array.shape[1]:
        raise TrichordError(
            f"{where}: {name} is {array.shape[1]} wide, but {dim} in this store; {_AGAIN} or use another store"
        )
    if rate_hz == PER_CAPTION and len(array) != len(item.captions):
        raise TrichordError(f"{where}: {name} has {len(array)} rows for {len(item.captions)} captions; {_AGAIN}")
    if rate_hz is None or not (math.isfinite(rate_hz) and (rate_hz >= 0 or rate_hz == PER_CAPTION)):
        raise TrichordError(f"{where}: {name} has the rate {rate_hz} Hz, expected 0 or more; {_AGAIN}")
    if rate_hz == 0 and len(array) != 1:
        raise TrichordError(f"{where}: {name} is pooled (rate 0) but has {len(array)} rows, expected 1; {_AGAIN}")
    dtype = np.float16 if array.dtype.itemsize == 2 else np.float32
    with np.errstate(all="ignore"):  # a float64 beyond float32 becomes infinite and is refused below
        kept = np.array(array, dtype, order="C") if copy else np.ascontiguousarray(array, dtype)
    for begin in range(0, len(kept), _BLOCK_ROWS):
        finite = np.isfinite(kept[begin : begin + _BLOCK_ROWS]).all(axis=1)
        if not finite.all():
            row = begin + int(np.flatnonzero(~finite)[0])
            what = "numbers beyond what float32 holds" if np.isfinite(array[row]).all() else "NaN or infinity"
            what = what.replace("float32", np.dtype(dtype).name)
            raise TrichordError(f"{where}: {name} holds {what} (first in row {row}); {_AGAIN}")
    return kept
