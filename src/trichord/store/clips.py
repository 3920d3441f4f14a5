"""Clips: spans of the items of a store, which are read for training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Clips:
    """Spans of videos, each with the captions that are spoken in it. All arrays have B entries.

    Attributes:
        item: (B,) index of the video in the store.
        start_s: (B,) start in seconds.
        end_s: (B,) end in seconds.
        captions: B arrays of caption indices, in the order in which their words are read.
        caption: (B,) the caption from which each clip was grown; None if clips were not drawn from captions.
    """

    item: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    captions: list[np.ndarray]
    caption: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: np.ndarray) -> Clips:
        """Return the clips at the given rows."""
        caption = None if self.caption is None else self.caption[rows]
        return Clips(self.item[rows], self.start_s[rows], self.end_s[rows], [self.captions[r] for r in rows], caption)
