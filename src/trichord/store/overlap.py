"""Whether videos that are scored are also trained on under another name.

Items are compared by `Item.media` and by the content in `Item.source`, where `trichord extract` recorded them. Imported items have
neither: their features are compared, those with as many rows first by their first row, then as a whole.
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


def check_overlap(store: Store, trained: np.ndarray, scored: np.ndarray, what: str) -> None:
    """Raise TrichordError if an item that is scored has the content of another one that is trained on. Items that are trained on
    themselves may be scored: who names a training split means it.

    Args:
        store: Holds the items.
        trained: Numbers of the items that are trained on.
        scored: Numbers of the items that are scored.
        what: What scores them, for the message.
    """
    if pairs := same_content(store, trained, scored):
        names = [f"{_name(store, i)} is {_name(store, k)}" for i, k in list(pairs.items())[:_MOST_NAMED]]
        more = f" and {len(pairs) - _MOST_NAMED:,} more" if len(pairs) > _MOST_NAMED else ""
        raise TrichordError(
            f"{store.path}: {what} scores {len(pairs):,} videos that are trained on under another name "
            f"({'; '.join(names)}{more}); leave that benchmark out, or train on a collection without them"
        )


def same_content(store: Store, trained: np.ndarray, scored: np.ndarray) -> dict[int, int]:
    """Of each item that is scored and not trained on itself, one of those trained on that has the same content, if there is one.

    Features of a store behind a URL are not compared, since all of them would be fetched.
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
    """Pairs of items whose text is the same and not empty."""
    mine = texts.take(pa.array(scored))
    found = np.array(pc.fill_null(pc.index_in(mine, value_set=texts.take(pa.array(trained))), -1))
    matched = (found >= 0) & np.array(pc.greater(pc.binary_length(mine), 0))
    return dict(zip(scored[matched].tolist(), trained[found[matched]].tolist(), strict=True))


def _same_features(store: Store, trained: np.ndarray, scored: np.ndarray) -> dict[int, int]:
    """Pairs of items whose features are the same, in every stream that both have."""
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
                    found = next((k for k in by_digest[digest(stream, i)] if agree(i, k)), None)
                    pairs |= {} if found is None else {i: found}
    return pairs


def _alike(store: Store, stream: str, trained: np.ndarray, scored: np.ndarray) -> list[tuple[list[int], list[int]]]:
    """Items that are scored and items that are trained on with as many rows of a stream and the same first row."""
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
    """(N,) rows of a stream; 0 for a stream of captions."""
    _, begin, end, rate_hz = store.located(stream, items)
    return np.where(rate_hz == PER_CAPTION, 0, end - begin)


def _has_rows(store: Store, stream: str, i: int) -> bool:
    return store.num_rows(stream, i) > 0 and store.rate_hz(stream, i) != PER_CAPTION


def _digest(rows: np.ndarray) -> bytes:
    """SHA-256 of features as float32; where all values are the same, as of silence, the value, which says nothing of the video."""
    if rows.min() == rows.max():
        return np.float32(rows[0, 0]).tobytes()
    found = hashlib.sha256(str(rows.shape).encode())
    for begin in range(0, len(rows), _BLOCK_ROWS):
        found.update(np.ascontiguousarray(rows[begin : begin + _BLOCK_ROWS], np.float32).data)
    return found.digest()
