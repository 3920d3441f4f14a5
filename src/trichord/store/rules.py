"""The versions of the rules by which items were extracted, and the items that newer rules do not change.

An item records `clock N, captions M`: the version of the rules that turned time stamps of its media files into seconds
(`CLOCK_RULES`), and of those that read its captions (`trichord.captions.CAPTION_RULES`). Items of earlier versions record
nothing, which counts as 1. `settled.jsonl` in the store's folder lists work that was compared with the content of the store and
gave the same result.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trichord.captions import CAPTION_RULES
from trichord.files.reading import json_lines
from trichord.files.writing import append_json_line
from trichord.store.names import SETTLED

if TYPE_CHECKING:
    from trichord.store.store import Store

CLOCK_RULES = 2  # the value of `trichord.media`, which is slow to import
CURRENT_RULES = f"clock {CLOCK_RULES}, captions {CAPTION_RULES}"
_RULES = re.compile(r"clock (\d{1,6}), captions (\d{1,6})")


def is_older(rules: str) -> tuple[bool, bool]:
    """Return whether the clock rules, and whether the caption rules, are older than those of this version."""
    match = _RULES.fullmatch(rules)
    clock, captions = (int(match[1]), int(match[2])) if match else (1, 1)
    return clock < CLOCK_RULES, captions < CAPTION_RULES


class Settled:
    """Work that reproduces the content of the store under the rules of this version. The list is kept in the store's folder."""

    def __init__(self, store: Path) -> None:
        self._path = store / SETTLED
        self._pairs: set[tuple[str, str]] = set()
        for values in json_lines(self._path):
            with suppress(TypeError, KeyError):
                if values["rules"] == CURRENT_RULES:
                    self._pairs.add((str(values["source"]), str(values["key"])))

    @property
    def sources(self) -> list[str]:
        """The sorted `Item.source` of the items that such work reproduces."""
        return sorted({source for source, _ in self._pairs})

    def has(self, source: str, key: str) -> bool:
        """Return whether the work `key` reproduces the item that was made from `source`."""
        return (source, key) in self._pairs

    def add(self, source: str, key: str) -> None:
        """Record that the work `key` reproduces the item that was made from `source`."""
        if self.has(source, key):
            return
        self._pairs.add((source, key))
        with suppress(OSError):  # the record only saves time
            append_json_line(self._path, {"source": source, "key": key, "rules": CURRENT_RULES})


def outdated(store: Store) -> np.ndarray:
    """Return the numbers of extracted items made by older rules, unless newer rules are known to give the same result."""
    rules = store.texts("rules").dictionary_encode()
    old = np.array([any(is_older(text)) for text in rules.dictionary.to_pylist()])
    items = np.flatnonzero(old[np.array(rules.indices)])
    sources = store.texts("source").take(pa.array(items))
    settled = pc.is_in(sources, value_set=pa.array(Settled(store.folder).sources, pa.large_string()))
    return items[np.array(pc.and_not(pc.greater(pc.binary_length(sources), 0), settled), dtype=bool)]
