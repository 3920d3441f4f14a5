"""Captions with times that the rest of the project can rely on."""

from __future__ import annotations

import numpy as np

from trichord.captions.model import Captions
from trichord.errors import one_line


def clean_captions(captions: Captions, *, duration_s: float | None, source: str) -> tuple[Captions, list[str]]:
    """Captions that the rest can rely on, and one line per kind of repair, each naming `source`.

    After it: sorted by start (stable), 0 <= start < end <= duration_s (when known), all finite, no empty text.
    Captions that cannot be so are dropped, those that reach past the video are cut, overlaps are kept but noted.
    """
    notes: list[str] = []
    start_s, end_s = captions.start_s.copy(), captions.end_s.copy()
    text = [one_line(t) for t in captions.text]
    keep = np.ones(len(captions), bool)

    def note(bad: np.ndarray, what: str) -> None:
        if count := int(bad.sum()):
            notes.append(f"{source}: {count} of {len(captions)} captions {what}")

    def drop(bad: np.ndarray, what: str) -> None:
        note(bad & keep, what + "; dropped")
        keep[bad] = False

    drop(~(np.isfinite(start_s) & np.isfinite(end_s)), "have a time that is not a number")
    drop(~(end_s > start_s), "end at or before their start")
    drop(np.array([not t for t in text], bool), "have no text")
    drop(end_s <= 0, "lie before the video's start")
    if duration_s is not None:
        drop(start_s >= duration_s, f"start after the video's end ({duration_s:.2f} s)")
        late = keep & (end_s > duration_s)
        note(late, f"run past the video's end ({duration_s:.2f} s); cut")
        end_s[late] = duration_s
    early = keep & (start_s < 0)
    note(early, "start before the video's start; cut")
    start_s[early] = 0.0

    kept = np.flatnonzero(keep)
    order = kept[np.argsort(start_s[kept], kind="stable")]
    if (order != kept).any():
        notes.append(f"{source}: captions are not in order of time; sorted")
    start_s, end_s = start_s[order], end_s[order]
    if len(order) > 1:
        note(start_s[1:] < np.maximum.accumulate(end_s)[:-1], "overlap an earlier one; kept")
    return Captions(start_s, end_s, tuple(text[i] for i in order)), notes
