"""The arguments and the summary that all export layouts share."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from trichord.logs import get_logger
from trichord.releases.common import REPORT_EVERY_S
from trichord.releases.records import component, streams_of
from trichord.store import Store

logger = get_logger(__name__)

CaptionFiles = Literal["both", "pickle", "json"]


@dataclass
class ExportSummary:
    """The result of an export.

    Attributes:
        layout: The name of the layout.
        out: The folder.
        num_items: The number of items written.
        num_captions: The number of their captions.
        num_bytes: The size of the files of items (shards, pickles, arrays).
        streams: The number of items that have each stream.
        notes: Lines on content of the store that readers of the published layout do not see.
    """

    layout: str
    out: Path
    num_items: int = 0
    num_captions: int = 0
    num_bytes: int = 0
    streams: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        streams = ", ".join(f"{count:,} with {name}" for name, count in sorted(self.streams.items()))
        lines = [
            f"{self.num_items:,} items{f' ({streams})' if streams else ''}, {self.num_captions:,} captions, "
            f"{self.num_bytes / 1e6:,.1f} MB -> {self.out} ({self.layout})",
            *self.notes,
            f"to import it into a store: trichord import {self.layout} --root {self.out} --store STORE",
        ]
        return "\n".join(lines)


@dataclass
class Job:
    """The input of the writer of a layout. `odd` counts content that readers of the published layout do not see."""

    store: Store
    items: np.ndarray
    out: Path
    summary: ExportSummary
    captions: CaptionFiles
    shard_items: int
    shard_bytes: int
    odd: Counter[str] = field(default_factory=Counter)
    _began: float = field(default_factory=time.monotonic)
    _reported: float = field(default_factory=time.monotonic)

    def each(self, items: np.ndarray | None = None) -> Iterator[int]:
        """Yield the numbers of all items, or of those given, and count and report each when it is done."""
        for i in (self.items if items is None else items).tolist():
            yield i
            summary = self.summary
            summary.num_items += 1
            summary.num_captions += self.store.num_captions(i)
            summary.streams.update(streams_of(self.store, i))
            now = time.monotonic()
            if now - self._reported > REPORT_EVERY_S:
                self._reported = now
                rate = summary.num_items / max(now - self._began, 1e-9)
                logger.info(f"export: {summary.num_items:,} of {len(self.items):,} items, {rate:,.0f}/s")

    def by_split(self) -> dict[str, np.ndarray]:
        """Return the items by split, as part of a file name, in order of first appearance."""
        names = np.array([split_name(self.store.split(i)) for i in self.items.tolist()], dtype=object)
        return {name: self.items[names == name] for name in dict.fromkeys(names.tolist())}


def split_name(split: str) -> str:
    """Return a split as part of a file name. Items without a split are treated as training items."""
    return component(split or "train", dots=False)
