"""A record of what is currently being read from a store, so that a waiting process can name the file that does not respond."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class Reading:
    """The current position of the thread that reads from a store.

    Updating it costs one assignment per slice. There is one record per store, so a second reading thread overwrites it.

    Attributes:
        file: The file that is being opened or downloaded, or ''.
        items: (B,) the requested items.
        stream: The stream whose rows are being copied, or ''.
        row: The index in `items` of the slice that is being copied.
    """

    __slots__ = ("file", "items", "row", "stream")

    def __init__(self) -> None:
        self.end()

    def begin(self, stream: str, items: np.ndarray) -> None:
        """Record that slices of these items follow."""
        self.stream, self.items, self.row = stream, items, 0

    def open(self, file: Path | str) -> None:
        """Record that a file is being opened or downloaded."""
        self.file = str(file)

    def opened(self) -> None:
        """Record that the file is open."""
        self.file = ""

    def end(self) -> None:
        """Record that nothing is being read."""
        self.file, self.stream, self.row = "", "", 0
        self.items = np.empty(0, np.int64)
