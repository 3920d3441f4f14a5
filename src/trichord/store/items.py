"""Items, the content of a store, and the checks that each item must pass before it is stored."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trichord.captions import Captions
from trichord.errors import TrichordError

PER_CAPTION = -1.0  # the rate of a stream with one row per caption
_STREAM_NAME = re.compile(r"(?!caption|word|__)[A-Za-z0-9_.-]+")
_BLOCK_ROWS = 65536
_MAX_COLLECTION_BYTES = 128
_AGAIN = "extract or export it again"


@dataclass
class Item:
    """One video (or one published clip) to store.

    Attributes:
        video_id: The id of the video in its collection.
        collection: The collection that the video belongs to.
        split: The split of the video; may be empty.
        duration_s: The duration in seconds.
        streams: Float arrays (rows, dim) by stream name; rows are time steps. A stream without rows counts as missing.
        rates_hz: Rows per second by stream name; 0.0 if one row describes the whole item, PER_CAPTION if each row describes a
            caption.
        captions: The captions of the video.
        source: Hashes of the inputs and the encoders of the features, so that nothing is extracted twice; '' if unknown.
        media: Hash of the media files and the span, which does not depend on captions; '' if unknown.
        rules: The versions of the rules by which the item was made (`store.rules`); '' if unknown.
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
    """Check the name of a collection.

    Later commands use it in `NAME/SPLIT` as a benchmark, in lists separated by commas, and in the names of result files.

    Raises:
        TrichordError: The name is empty, too long, or contains a slash, a comma or characters that cannot be printed.
    """
    if not name.strip() or name != name.strip() or not name.isprintable():
        raise TrichordError(f"the collection name '{name}' is not valid; choose a name of letters and digits")
    for sign, character in (("/", "a slash"), (",", "a comma")):
        if sign in name:
            raise TrichordError(
                f"the collection name '{name}' contains {character}; use '{name.replace(sign, '-')}' instead"
            )
    if len(name.encode()) > _MAX_COLLECTION_BYTES:
        raise TrichordError(f"the collection name is longer than {_MAX_COLLECTION_BYTES} bytes; choose a shorter name")


def checked_streams(item: Item, dims: Mapping[str, int], *, copy: bool = True) -> dict[str, np.ndarray]:
    """Return the streams of an item as they are stored: float16 is kept, float32 and float64 become float32.

    Args:
        item: The item.
        dims: The width of each stream that the store contains already.
        copy: Whether to copy the arrays. Without copying, arrays of the right dtype are used directly, so they must not change
            before they are stored (as with mapped files).

    Raises:
        TrichordError: The item cannot be stored. The message names the item and the stream.
    """
    where = f"{item.collection}/{item.video_id}"
    for name in ("video_id", "collection", "split", "source", "media", "rules"):
        text = getattr(item, name)
        if not _is_line(text) or not (text or name not in ("video_id", "collection")):
            raise TrichordError(f"item {ascii(where)}: its {name} is not a single line of text; correct it")
    check_collection(item.collection)
    if not (math.isfinite(item.duration_s) and item.duration_s >= 0):
        raise TrichordError(f"{where}: its duration is {item.duration_s} s; check the source file and import it again")
    captions = item.captions
    if not (np.isfinite(captions.start_s).all() and np.isfinite(captions.end_s).all()):
        raise TrichordError(f"{where}: its captions have times that are not finite; correct its caption file")
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
        raise TrichordError(
            f"{where}: '{name}' is not a valid stream name; use letters and digits, and do not begin with caption or word"
        )
    if array.ndim != 2 or not array.shape[1]:
        raise TrichordError(f"{where}: {name} has shape {array.shape}, expected (time steps, width); {_AGAIN}")
    if name == "spectrogram" and array.shape[0] == 40 != array.shape[1]:
        raise TrichordError(f"{where}: {name} has shape {array.shape}, expected time first, (frames, 40); {_AGAIN}")
    if array.dtype.kind != "f":
        raise TrichordError(f"{where}: {name} has dtype {array.dtype}, expected float16 or float32; {_AGAIN}")
    if dim is not None and dim != array.shape[1]:
        raise TrichordError(
            f"{where}: {name} has width {array.shape[1]}, but {dim} in this store; {_AGAIN} or use another store"
        )
    if rate_hz == PER_CAPTION and len(array) != len(item.captions):
        raise TrichordError(f"{where}: {name} has {len(array)} rows for {len(item.captions)} captions; {_AGAIN}")
    if rate_hz is None or not (math.isfinite(rate_hz) and (rate_hz >= 0 or rate_hz == PER_CAPTION)):
        raise TrichordError(f"{where}: {name} has a rate of {rate_hz} Hz, expected 0 or more; {_AGAIN}")
    if rate_hz == 0 and len(array) != 1:
        raise TrichordError(f"{where}: {name} is pooled (rate 0) but has {len(array)} rows, expected 1; {_AGAIN}")
    dtype = np.float16 if array.dtype.itemsize == 2 else np.float32
    with np.errstate(
        all="ignore"
    ):  # a float64 value outside the range of float32 becomes infinite and is refused below
        kept = np.array(array, dtype, order="C") if copy else np.ascontiguousarray(array, dtype)
    for begin in range(0, len(kept), _BLOCK_ROWS):
        finite = np.isfinite(kept[begin : begin + _BLOCK_ROWS]).all(axis=1)
        if not finite.all():
            row = begin + int(np.flatnonzero(~finite)[0])
            values = "numbers outside the range of float32" if np.isfinite(array[row]).all() else "NaN or infinity"
            values = values.replace("float32", np.dtype(dtype).name)
            raise TrichordError(f"{where}: {name} contains {values} (first in row {row}); {_AGAIN}")
    return kept
