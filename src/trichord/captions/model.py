"""Captions as the rest of the project knows them, and cues as files hold them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Captions:
    """N timed texts: caption i is `text[i]`, spoken in [start_s[i], end_s[i])."""

    start_s: np.ndarray  # float64 (N,)
    end_s: np.ndarray  # float64 (N,)
    text: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "start_s", np.asarray(self.start_s, np.float64))
        object.__setattr__(self, "end_s", np.asarray(self.end_s, np.float64))
        object.__setattr__(self, "text", tuple(self.text))
        shape = (len(self.text),)
        if not self.start_s.shape == self.end_s.shape == shape:
            raise ValueError("captions need as many starts, ends and texts")

    def __len__(self) -> int:
        return len(self.text)

    @classmethod
    def empty(cls) -> Captions:
        return cls(np.zeros(0), np.zeros(0), ())

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[float, float, str]]) -> Captions:
        """Captions from (start_s, end_s, text) rows."""
        rows = list(rows)
        return cls(np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), tuple(r[2] for r in rows))


@dataclass(frozen=True)
class Word:
    """A spoken word: `text` with the white space before it, as recognisers give it; seconds from the start."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Cue:
    """What a file shows from `start_s` to `end_s`.

    Attributes:
        start_s: Seconds from the start of the file.
        end_s: As `start_s`.
        lines: Plain text of the lines, none of them empty.
        speaker: Name of the speaker, where the file states it.
        stamped: For each line, (second, text) of the pieces between its word stamps; empty for a cue without stamps.
        highlight: Where the part that tags set off begins in the markup; None where they set off all of the text or nothing.
    """

    start_s: float
    end_s: float
    lines: tuple[str, ...]
    speaker: str = ""
    stamped: tuple[tuple[tuple[float, str], ...], ...] = ()
    highlight: int | None = None
