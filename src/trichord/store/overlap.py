"""Detection of videos that a run both trains on, under another name, and evaluates on.

Items are compared by `Item.media` and by the content in `Item.source`, which `trichord extract` records. Imported items have
neither, so their features are compared: for items with the same number of rows first the first row, then all rows.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trichord.errors import TrichordError, one_line
from trichord.store.items import PER_CAPTION

if TYPE_CHECKING:
    from trichord.store.store import Store

_MOST_NAMED = 3
_BLOCK_ROWS = 65536


def check_overlap(
    store: Store,
    trained: np.ndarray,
    scored: np.ndarray,
    what: str,
    advice: str = "leave that benchmark out, or train on a collection without them",
) -> None:
    """Check that no evaluated item has the same content as another item that is trained on.

    Items that are themselves trained on may be evaluated, because a user who names a training split intends that.

    Args:
        store: The store that holds the items.
        trained: The numbers of the items to train on.
        scored: The numbers of the items to evaluate on.
        what: The benchmark that evaluates them, for the error message.
        advice: What the user can do, for the error message.

    Raises:
        TrichordError: An item has the content of an item that is trained on.
    """
    if pairs := same_content(store, trained, scored):
        names = [f"{_name(store, i)} is {_name(store, k)}" for i, k in list(pairs.items())[:_MOST_NAMED]]
        others = f" and {len(pairs) - _MOST_NAMED:,} more" if len(pairs) > _MOST_NAMED else ""
        raise TrichordError(
            f"{store.path}: {what} evaluates on {len(pairs):,} videos that are trained on under another name "
            f"({'; '.join(names)}{others}); {advice}"
        )


def same_content(store: Store, trained: np.ndarray, scored: np.ndarray) -> dict[int, int]:
    """Return, for each evaluated item that is not itself trained on, an item of the same content that is trained on, if any.

    The features of a remote store are not compared, because all of them would have to be downloaded.
    """
    scored = np.setdiff1d(scored, trained)
    pairs: dict[int, int] = {}
    if not len(scored) or not len(trained):
        return pairs
    contents = pc.list_element(pc.split_pattern(store.texts("source"), ":", max_splits=1), 0)
    for texts in (store.texts("media"), contents):
        pairs |= _same_text(texts, trained, scored)
    known = np.array(pc.greater(pc.binary_length(store.texts("media")), 0))
    if store.remote is None and not (known[trained].all() and known[scored].all()):
        pairs |= _same_features(store, trained, scored)
    return dict(sorted(pairs.items()))


def _name(store: Store, i: int) -> str:
    split = f"/{store.split(i)}" if store.split(i) else ""
    return one_line(f"'{store.video_id(i)}' of {store.collection(i)}{split}")


def _same_text(texts: pa.Array, trained: np.ndarray, scored: np.ndarray) -> dict[int, int]:
    """Return pairs of items that have the same text, which is not empty."""
    scored_texts = texts.take(pa.array(scored))
    positions = np.array(pc.fill_null(pc.index_in(scored_texts, value_set=texts.take(pa.array(trained))), -1))
    matched = (positions >= 0) & np.array(pc.greater(pc.binary_length(scored_texts), 0))
    return dict(zip(scored[matched].tolist(), trained[positions[matched]].tolist(), strict=True))


def _same_features(store: Store, trained: np.ndarray, scored: np.ndarray) -> dict[int, int]:
    """Return pairs of items whose features agree in every stream that both have."""
    digests: dict[tuple[str, int], bytes] = {}

    def digest(stream: str, i: int) -> bytes:
        if (stream, i) not in digests:
            digests[stream, i] = _digest(store.rows(stream, i))
        return digests[stream, i]

    def agree(i: int, k: int) -> bool:
        shared = [s for s in store.streams if _has_rows(store, s, i) and _has_rows(store, s, k)]
        return all(digest(stream, i) == digest(stream, k) for stream in shared)

    pairs: dict[int, int] = {}
    for stream in store.streams:
        for mine, others in _alike(store, stream, trained, scored):
            by_digest: dict[bytes, list[int]] = defaultdict(list)
            for k in others:
                by_digest[digest(stream, k)].append(k)
            for i in mine:
                if i not in pairs and len(digest(stream, i)) == hashlib.sha256().digest_size:
                    match = next((k for k in by_digest[digest(stream, i)] if agree(i, k)), None)
                    pairs |= {} if match is None else {i: match}
    return pairs


def _alike(store: Store, stream: str, trained: np.ndarray, scored: np.ndarray) -> list[tuple[list[int], list[int]]]:
    """Return groups of evaluated and trained items that have the same number of rows and the same first row of a stream."""
    counts = [_num_rows(store, stream, items) for items in (scored, trained)]
    common = np.intersect1d(counts[0], counts[1])
    groups: dict[bytes, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, items in enumerate((scored, trained)):
        for i in items[np.isin(counts[side], common[common > 0])].tolist():
            key = np.float32(store.rows(stream, i, 0, 1)).tobytes() + store.num_rows(stream, i).to_bytes(8, "little")
            if side == 0 or key in groups:
                groups[key][side].append(i)
    return [group for group in groups.values() if group[1]]


def _num_rows(store: Store, stream: str, items: np.ndarray) -> np.ndarray:
    """Return (N,) the number of rows of a stream; 0 for a stream with one row per caption."""
    _, begin, end, rate_hz = store.located(stream, items)
    return np.where(rate_hz == PER_CAPTION, 0, end - begin)


def _has_rows(store: Store, stream: str, i: int) -> bool:
    return store.num_rows(stream, i) > 0 and store.rate_hz(stream, i) != PER_CAPTION


def _digest(rows: np.ndarray) -> bytes:
    """Return a SHA-256 of features as float32. If all values are equal, as for silence, the value is returned instead."""
    if rows.min() == rows.max():
        return np.float32(rows[0, 0]).tobytes()
    sha256 = hashlib.sha256(str(rows.shape).encode())
    for begin in range(0, len(rows), _BLOCK_ROWS):
        sha256.update(np.ascontiguousarray(rows[begin : begin + _BLOCK_ROWS], np.float32).data)
    return sha256.digest()
