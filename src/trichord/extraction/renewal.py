"""Which items of the store are made anew: captions were added or corrected since, or rules have changed that made the item.

An item's pictures and sound are known by `media`, a hash of its media files and span. Items of earlier versions have only one hash
of all their files, `content`: for them it is tried whether the same media files with no captions, with the captions that the
store holds, or with a caption file that was read before, give that hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trichord.captions import Captions
from trichord.extraction.sources import Source
from trichord.features.hashes import FileHashes
from trichord.store import Item, Store
from trichord.store.items import PER_CAPTION
from trichord.store.rules import is_older
from trichord.store.spool import SpooledItem

CAPTIONS, ALL = "captions", "all"  # what of an item is made anew


@dataclass(frozen=True)
class Stored:
    """What the store holds of an item that is to be made anew, as far as a worker compares it.

    Attributes:
        duration_s: Its length.
        captions: Its captions.
        is_asked: Whether its caption files have changed, and not only the rules.
        has_old_clock: Whether older rules made its times, so that all of it is made anew if newer ones can give others.
    """

    duration_s: float
    captions: Captions
    is_asked: bool
    has_old_clock: bool


def stored_part(store: Store, i: int, *, is_asked: bool) -> Stored:
    """What a worker compares of the store's item `i`."""
    return Stored(store.duration_s(i), stored_captions(store, i), is_asked, is_older(store.rules(i))[0])


def content_hash(digests: Mapping[str, str], text: Sequence[str], start_s: float, end_s: float | None) -> str:
    """SHA-256 of all that an item follows from: the digests of its files by what they are to it, its texts, its span."""
    values = {**digests, "text": list(text), "span": [start_s, end_s]}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def media_hash(digests: Mapping[str, str], start_s: float, end_s: float | None) -> str:
    """Hash (32 hexadecimal digits) of an item's media files and span: other captions leave it as it is."""
    values = {**{name: digest for name, digest in digests.items() if name != "captions"}, "span": [start_s, end_s]}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


def had_same_media(
    content: str, source: Source, digests: Mapping[str, str], hashes: FileHashes, texts: Sequence[str]
) -> bool:
    """Whether `content`, a hash of media files and captions together, is of the media files that `source` has now.

    Args:
        content: As recorded.
        source: The item now.
        digests: Of its files.
        hashes: Knows digests of files that were read before.
        texts: The captions that the store holds of it.
    """
    files = {name: digest for name, digest in digests.items() if name != "captions"}
    named = [path for path in (source.captions, source.video, source.audio) if path is not None]
    earlier = sorted({digest for path in named for digest in hashes.earlier_captions(path)})
    for text in dict.fromkeys((source.text, (), tuple(texts))):
        for captions in ({}, *({"captions": digest} for digest in earlier)):
            if content_hash({**files, **captions}, text, source.start_s, source.end_s) == content:
                return True
    return False


def stored_captions(store: Store, i: int) -> Captions:
    """The captions that the store holds of an item."""
    start_s, end_s = store.caption_spans(i)
    return Captions(
        np.array(start_s), np.array(end_s), tuple(store.caption_text(i, c) for c in range(store.num_captions(i)))
    )


def same_captions(a: Captions, b: Captions) -> bool:
    """Whether two items have the same captions, times included."""
    return a.text == b.text and np.array_equal(a.start_s, b.start_s) and np.array_equal(a.end_s, b.end_s)


def merged(item: SpooledItem, store: Store, i: int) -> Item:
    """The item as it takes the place of item `i`: with the stored pictures and sound where only captions were made anew, and in
    the stored split."""
    if item.renews != CAPTIONS:
        return replace(item, split=store.split(i))
    kept = {name: store.rows(name, i) for name in _media_streams(store, i)}
    rates_hz = {name: store.rate_hz(name, i) for name in kept}
    return replace(
        item,
        split=store.split(i),
        duration_s=store.duration_s(i),
        streams=kept | item.streams,
        rates_hz=rates_hz | item.rates_hz,
    )


def is_same(item: Item, store: Store, i: int) -> bool:
    """Whether the store's item `i` has the same features, times and captions."""
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
    return (name for name in store.streams if store.num_rows(name, i) and store.rate_hz(name, i) != PER_CAPTION)
