"""Repair of the times of captions."""

from __future__ import annotations

import numpy as np

from trichord.captions.model import Captions
from trichord.errors import one_line


def clean_captions(captions: Captions, *, duration_s: float | None, source: str) -> tuple[Captions, list[str]]:
    """Sort captions by time, and drop or cut those with invalid times.

    Afterwards, captions are sorted by start (stably), all times are finite, 0 <= start < end <= duration_s holds, and no text is
    empty. Captions that cannot be repaired are dropped, captions that extend beyond the video are cut, and overlaps are kept but
    noted.

    Args:
        captions: Captions to clean.
        duration_s: Duration of the video in seconds, or None if unknown.
        source: Name of the source for the notes.

    Returns:
        The cleaned captions, and one note per kind of repair.

    Example:
        >>> from trichord.captions import Captions, clean_captions
        >>> captions = Captions([0.0, 5.0], [2.0, 12.0], ("one", "two"))
        >>> cleaned, notes = clean_captions(captions, duration_s=10.0, source="talk.vtt")
        >>> cleaned.end_s, notes
        (array([ 2., 10.]), ["talk.vtt: 1 of 2 captions run past the video's end (10.00 s); cut"])
    """
    notes: list[str] = []
    start_s, end_s = captions.start_s.copy(), captions.end_s.copy()
    text = [one_line(t) for t in captions.text]
    keep = np.ones(len(captions), bool)

    def note(bad: np.ndarray, problem: str) -> None:
        if count := int(bad.sum()):
            notes.append(f"{source}: {count} of {len(captions)} captions {problem}")

    def drop(bad: np.ndarray, problem: str) -> None:
        note(bad & keep, problem + "; dropped")
        keep[bad] = False

    drop(~(np.isfinite(start_s) & np.isfinite(end_s)), "have a time that is not a number")
    drop(~(end_s > start_s), "end at or before their start")
    drop(np.array([not t for t in text], bool), "have no text")
    drop(end_s <= 0, "end before the video's start")
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
