"""Updating items of a store whose captions were added or corrected, or that were made by earlier rules.

The hash `media` of an item identifies its media files and its span. Items of earlier versions have a single hash of all their
files, `content`. For these, the hash is computed again from the media files together with no captions, with the captions in the
store, and with each caption file that was read before; if one of them matches, the media files are unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trichord.captions import Captions
from trichord.extraction.arrays import ROLE
from trichord.extraction.sources import Source
from trichord.features.hashes import FileHashes
from trichord.store import Item, Store
from trichord.store.items import PER_CAPTION
from trichord.store.rules import is_older
from trichord.store.spool import SpooledItem

CAPTIONS, ALL = "captions", "all"  # the parts of an item that are updated


@dataclass(frozen=True)
class Stored:
    """The properties of a stored item that a worker compares with the updated item.

    Attributes:
        duration_s: The duration of the item in seconds.
        captions: The captions of the item.
        is_asked: Whether the caption files have changed, and not only the rules.
        has_old_clock: Whether older rules determined the times. The whole item is updated if the current rules can give other
            times.
        has_arrays: Whether the item has rows of feature arrays.
    """

    duration_s: float
    captions: Captions
    is_asked: bool
    has_old_clock: bool
    has_arrays: bool = False


def stored_part(store: Store, i: int, *, is_asked: bool) -> Stored:
    """Return the properties of item `i` of the store that a worker needs."""
    has_old_clock, has_arrays = is_older(store.rules(i))[0], has_stored_arrays(store, i)
    return Stored(store.duration_s(i), stored_captions(store, i), is_asked, has_old_clock, has_arrays)


def has_stored_arrays(store: Store, i: int) -> bool:
    """Return whether item `i` of the store has rows of feature arrays."""
    return any(store.num_rows(name, i) for name in store.modalities)


def content_hash(digests: Mapping[str, str], text: Sequence[str], start_s: float, end_s: float | None) -> str:
    """Return the SHA-256 of the inputs of an item: the digests of its files by their role, its texts and its span."""
    values = {**digests, "text": list(text), "span": [start_s, end_s]}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def media_hash(digests: Mapping[str, str], source: Source) -> str:
    """Return a hash (32 hexadecimal digits) of the media files and the span of an item.

    It depends neither on captions nor on feature arrays, which are read again when an item is updated. The hash of an item without
    media files depends on its id instead.
    """
    media = {name: digest for name, digest in digests.items() if _is_media(name)} or {"id": source.video_id}
    values = {**media, "span": [source.start_s, source.end_s]}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


def _is_media(role: str) -> bool:
    return role != "captions" and not role.startswith(ROLE)


def had_same_media(
    content: str, source: Source, digests: Mapping[str, str], hashes: FileHashes, texts: Sequence[str]
) -> bool:
    """Return whether a stored item was made from the current media files of `source`. Its captions may have changed.

    Args:
        content: Hash of the media files and captions from which the item was made, as recorded in the store.
        source: The current source of the item.
        digests: Digests of the files of `source`, by their role.
        hashes: Digests of files that were read before.
        texts: Captions of the item in the store.
    """
    files = {name: digest for name, digest in digests.items() if name != "captions"}
    own_files = [path for path in (source.captions, source.video, source.audio) if path is not None]
    earlier = sorted({digest for path in own_files for digest in hashes.earlier_captions(path)})
    for text in dict.fromkeys((source.text, (), tuple(texts))):
        for captions in ({}, *({"captions": digest} for digest in earlier)):
            if content_hash({**files, **captions}, text, source.start_s, source.end_s) == content:
                return True
    return False


def stored_captions(store: Store, i: int) -> Captions:
    """Return the captions of item `i` of the store."""
    start_s, end_s = store.caption_spans(i)
    return Captions(
        np.array(start_s), np.array(end_s), tuple(store.caption_text(i, c) for c in range(store.num_captions(i)))
    )


def same_captions(a: Captions, b: Captions) -> bool:
    """Return whether two items have the same captions at the same times."""
    return a.text == b.text and np.array_equal(a.start_s, b.start_s) and np.array_equal(a.end_s, b.end_s)


def merged(item: SpooledItem, store: Store, i: int) -> Item:
    """Return the item that replaces item `i` of the store.

    It keeps the split and, if only its captions and feature arrays were updated, the features of pictures and sound.
    """
    if item.renews != CAPTIONS:
        return replace(item, split=store.split(i))
    names = set(_media_streams(store, i))
    if same_captions(item.captions, stored_captions(store, i)):
        names |= {name for name in store.streams if store.num_rows(name, i) and store.rate_hz(name, i) == PER_CAPTION}
    kept = {name: store.rows(name, i) for name in store.streams if name in names}
    rates_hz = {name: store.rate_hz(name, i) for name in kept}
    return replace(
        item,
        split=store.split(i),
        duration_s=store.duration_s(i),
        streams=kept | item.streams,
        rates_hz=rates_hz | item.rates_hz,
    )


def is_same(item: Item, store: Store, i: int) -> bool:
    """Return whether item `i` of the store has the same features, times and captions as `item`."""
    names = [name for name in store.streams if store.num_rows(name, i)]
    if sorted(names) != sorted(name for name, rows in item.streams.items() if len(rows)):
        return False
    if item.duration_s != store.duration_s(i) or not same_captions(item.captions, stored_captions(store, i)):
        return False
    return all(
        item.rates_hz[name] == store.rate_hz(name, i) and np.array_equal(item.streams[name], store.rows(name, i))
        for name in names
    )


def _media_streams(store: Store, i: int) -> Iterator[str]:
    """Return the streams of pictures and sound, without those of captions and feature arrays."""
    names = (name for name in store.streams if name not in store.modalities)
    return (name for name in names if store.num_rows(name, i) and store.rate_hz(name, i) != PER_CAPTION)
