"""Caption files as cues, a module per family of formats.

Each reader takes the path (for messages), the text of the file with `\\n` ends of line, and a list `skipped` that gets one line
for each cue that cannot be read. It raises TrichordError, with file and line, when the file as a whole is not of the format.
"""

from __future__ import annotations

from pathlib import Path

from trichord.errors import TrichordError, one_line


class NoCaptionsError(TrichordError):
    """A file that is whole and holds something else than captions, such as the metadata of a video."""


def broken(path: Path, line: int, what: str, action: str = "correct the file or remove it") -> TrichordError:
    """Return the error to raise for a file that is not of its format."""
    return TrichordError(f"{path}, line {line}: {one_line(what)}; {action}")
