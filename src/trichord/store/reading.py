"""A note of what is being read of a store, so that whoever waits for it in vain can name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class Reading:
    """What the reading thread is at. It costs an assignment a slice; one note per store, so a second thread overwrites it.

    Attributes:
        file: Being opened or fetched, or ''.
        items: (B,) items that are wanted.
        stream: Whose rows are being copied, or ''.
        row: Position in `items` of the slice that is being copied.
    """

    __slots__ = ("file", "items", "row", "stream")

    def __init__(self) -> None:
        self.end()

    def begin(self, stream: str, items: np.ndarray) -> None:
        """Slices of these items follow."""
        self.stream, self.items, self.row = stream, items, 0

    def open(self, file: Path | str) -> None:
        """A file is being opened or fetched; `opened` when it is."""
        self.file = str(file)

    def opened(self) -> None:
        self.file = ""

    def end(self) -> None:
        """Nothing is being read."""
        self.file, self.stream, self.row = "", "", 0
        self.items = np.empty(0, np.int64)
