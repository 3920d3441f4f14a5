r"""The readers of caption formats, one module per family of formats. They turn the text of a file into cues.

A reader takes the path (for messages), the text of the file with `\n` line endings, and a list `skipped` to which it appends a
message for each cue that cannot be read. It raises TrichordError, with file and line, if the file as a whole does not have the
format. Opening and decoding of files, and the conversion of cues to captions, live in `trichord.captions.reading`.
"""

from __future__ import annotations

from pathlib import Path

from trichord.errors import TrichordError, one_line


class NoCaptionsError(TrichordError):
    """The file is intact, but does not contain captions. It may contain the metadata of a video, for example."""


def broken(path: Path, line: int, problem: str, action: str = "correct the file or remove it") -> TrichordError:
    """Return the error to raise for a file that does not have the format of its suffix.

    Args:
        path: Path of the file.
        line: Number of the line.
        problem: Description of the problem.
        action: Advice to the user.

    Returns:
        The error.
    """
    return TrichordError(f"{path}, line {line}: {one_line(problem)}; {action}")
