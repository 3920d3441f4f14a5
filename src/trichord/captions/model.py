"""Captions, as the rest of the project uses them, and cues, as caption files contain them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Captions:
    """N timed texts. Caption i is `text[i]`, which is spoken in [start_s[i], end_s[i]).

    Attributes:
        start_s: Start of each caption in seconds, of shape (N,), float64.
        end_s: End of each caption in seconds, of shape (N,), float64.
        text: Text of each caption.

    Raises:
        ValueError: If the numbers of starts, ends and texts differ.
    """

    start_s: np.ndarray
    end_s: np.ndarray
    text: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "start_s", np.asarray(self.start_s, np.float64))
        object.__setattr__(self, "end_s", np.asarray(self.end_s, np.float64))
        object.__setattr__(self, "text", tuple(self.text))
        shape = (len(self.text),)
        if not self.start_s.shape == self.end_s.shape == shape:
            raise ValueError(
                f"captions need equal numbers of starts, ends and texts, but there are {self.start_s.shape} starts, "
                f"{self.end_s.shape} ends and {shape} texts"
            )

    def __len__(self) -> int:
        return len(self.text)

    @classmethod
    def empty(cls) -> Captions:
        """Return captions without any text."""
        return cls(np.zeros(0), np.zeros(0), ())

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[float, float, str]]) -> Captions:
        """Build captions from rows of (start_s, end_s, text)."""
        rows = list(rows)
        return cls(np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), tuple(r[2] for r in rows))


@dataclass(frozen=True)
class Word:
    """A spoken word.

    Attributes:
        start_s: Start in seconds from the start of the sound.
        end_s: End in seconds.
        text: Text, including the white space before it, as recognizers return it.
    """

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Cue:
    """The text that a caption file shows from `start_s` to `end_s`.

    Attributes:
        start_s: Start in seconds from the start of the file.
        end_s: End in seconds.
        lines: Plain text of the lines. No line is empty.
        speaker: Name of the speaker, or an empty string if the file does not state it.
        stamped: For each line, the (second, text) of the pieces between its word timestamps. Empty for a cue without timestamps.
        highlight: Position in the markup at which the highlighted part begins, or None if all or nothing is highlighted.
    """

    start_s: float
    end_s: float
    lines: tuple[str, ...]
    speaker: str = ""
    stamped: tuple[tuple[tuple[float, str], ...], ...] = ()
    highlight: int | None = None
