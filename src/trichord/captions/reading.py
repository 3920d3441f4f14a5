"""Reading of caption files of all supported formats."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from trichord.captions.formats import NoCaptionsError, broken
from trichord.captions.formats.ass import read_ass
from trichord.captions.formats.cues import read_srt, read_vtt
from trichord.captions.formats.json import read_json
from trichord.captions.formats.tables import read_csv, read_tsv
from trichord.captions.formats.ttml import read_ttml
from trichord.captions.model import Captions, Cue
from trichord.captions.rolling import merged, unmerged
from trichord.errors import TrichordError
from trichord.files.lfs import refuse_lfs_pointer
from trichord.files.reading import read_bytes, unreadable

_Reader = Callable[[Path, str, list[str]], Iterator[Cue]]
_READERS: dict[str, _Reader] = {
    ".vtt": read_vtt,
    ".srt": read_srt,
    ".json": read_json,
    ".csv": read_csv,
    ".ass": read_ass,
    ".ssa": read_ass,
    ".ttml": read_ttml,
    ".dfxp": read_ttml,
    ".json3": read_json,
    ".tsv": read_tsv,
}
CAPTION_SUFFIXES = tuple(_READERS)
MAX_BYTES = 256 << 20
_MOST_NOTED = 3
_WRONG = "\ufffd"  # replaces bytes that cannot be decoded
_END_OF_LINE = re.compile(r"\r++\n|\r")  # text that was converted twice has CR CR LF
_ENCODINGS = {  # by byte order mark, the longer marks first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_UTF16_BY_ZEROS: dict[tuple[bool, ...], str] = {  # by the zero bytes among the first four bytes of ASCII characters
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}


def read_captions(path: str | Path, *, notes: list[str] | None = None, merge_repeats: bool = True) -> Captions:
    """Read the captions of a file in the order of the file. Their times are not checked.

    Cues whose times cannot be read are left out; if no cue remains, this is an error. Cues with bytes that are not UTF-8 are left
    out as well, but if they are the majority, the file has another encoding, which is an error. Lines that the file shows
    repeatedly become one caption (see `rolling`).

    Args:
        path: Path of a file with a suffix of `CAPTION_SUFFIXES`. `formats` describes their contents.
        notes: List to which a note about the cues that are left out is appended.
        merge_repeats: Whether to merge repeated lines. False returns one caption per cue.

    Returns:
        The captions.

    Raises:
        NoCaptionsError: If the file is intact, but does not contain captions.
        TrichordError: If the file is missing, damaged or not UTF-8. The message names the file and the line.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise TrichordError(
            f"{path}: unsupported caption format; convert the file to one of {', '.join(CAPTION_SUFFIXES)}"
        )
    refuse_lfs_pointer(path)
    skipped: list[str] = []
    text, wrong_line = _read_text(path)
    try:
        cues = list(reader(path, text, skipped))
    except TrichordError as error:
        if wrong_line and not isinstance(error, NoCaptionsError):
            raise _not_utf8(path, wrong_line) from None
        raise
    if wrong_line:
        cues = _readable(path, cues, wrong_line, skipped)
    if skipped and notes is not None:
        more = f" and {len(skipped) - _MOST_NOTED} more" if len(skipped) > _MOST_NOTED else ""
        total = len(cues) + len(skipped)
        notes.append(
            f"{path}: {len(skipped)} of {total} captions cannot be read and are left out: "
            f"{'; '.join(skipped[:_MOST_NOTED])}{more}"
        )
    return merged(cues) if merge_repeats else unmerged(cues)


def _readable(path: Path, cues: list[Cue], wrong_line: int, skipped: list[str]) -> list[Cue]:
    """Return the cues without undecodable bytes, the first of which are in line `wrong_line`."""
    kept = [cue for cue in cues if not any(_WRONG in line for line in cue.lines)]
    num_wrong = len(cues) - len(kept)
    if 2 * num_wrong > len(cues) or not cues:
        raise _not_utf8(path, wrong_line)
    skipped += [f"line {wrong_line}: is not UTF-8 text", *(["is not UTF-8 text"] * (num_wrong - 1))][:num_wrong]
    return kept


def _not_utf8(path: Path, line: int) -> TrichordError:
    return broken(path, line, "is not UTF-8 text", "save the file as UTF-8")


def _read_text(path: Path) -> tuple[str, int]:
    r"""Return the text of a file with `\n` line endings, and the number of the first undecodable line or 0."""
    try:
        data = read_bytes(path, max_bytes=MAX_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None
    encoding, wrong_line = _encoding_of(data), 0
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        text, wrong_line = data.decode(encoding, "replace"), data[: error.start].count(b"\n") + 1
    return _END_OF_LINE.sub("\n", text), wrong_line


def _encoding_of(data: bytes) -> str:
    """Return UTF-16 or UTF-32 if the first bytes indicate it, and UTF-8 otherwise."""
    marked = (name for mark, name in _ENCODINGS.items() if data.startswith(mark))
    return next(marked, _UTF16_BY_ZEROS.get(tuple(byte == 0 for byte in data[:4]), "utf-8-sig"))
