"""Caption files: which formats there are, and one file as captions."""

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
_WRONG = "\ufffd"  # what stands for bytes that cannot be decoded
_END_OF_LINE = re.compile(r"\r++\n|\r")  # of text that was converted twice, CR CR LF
_ENCODINGS = {  # by the byte order mark; the longer marks first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_UTF16_BY_ZEROS: dict[tuple[bool, ...], str] = {  # by which of the first four bytes are zero, of letters of ASCII
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}


def read_captions(path: str | Path, *, notes: list[str] | None = None, merge_repeats: bool = True) -> Captions:
    """Captions of a file, in the order of the file, times unchecked.

    A cue whose times cannot be read is left out; when there is no other, that is an error. So is a cue with bytes that are not
    UTF-8, unless most are so: then the file is in another encoding, which is an error. Lines that the file shows more
    than once are one caption: see `rolling`.

    Args:
        path: A file with a suffix of `CAPTION_SUFFIXES`; `formats` says what they hold.
        notes: Takes a line about the cues that are left out.
        merge_repeats: False makes one caption of each cue.

    Raises:
        NoCaptionsError: The file is whole and holds something else.
        TrichordError: With the file and the line: it is missing, not UTF-8 or broken.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise TrichordError(
            f"{path}: captions are read from {', '.join(CAPTION_SUFFIXES)}; convert the file to one of them"
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
    """The cues without wrong bytes, of which `wrong_line` has the first."""
    kept = [cue for cue in cues if not any(_WRONG in line for line in cue.lines)]
    num_wrong = len(cues) - len(kept)
    if 2 * num_wrong > len(cues) or not cues:
        raise _not_utf8(path, wrong_line)
    skipped += [f"line {wrong_line}: is not UTF-8 text", *(["is not UTF-8 text"] * (num_wrong - 1))][:num_wrong]
    return kept


def _not_utf8(path: Path, line: int) -> TrichordError:
    return broken(path, line, "is not UTF-8 text", "save the file as UTF-8")


def _read_text(path: Path) -> tuple[str, int]:
    """The text of a file with `\\n` for every end of line, and the first line with bytes that cannot be decoded, or 0."""
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
    """UTF-16 or UTF-32 where the first bytes show it, else UTF-8."""
    marked = (name for mark, name in _ENCODINGS.items() if data.startswith(mark))
    return next(marked, _UTF16_BY_ZEROS.get(tuple(byte == 0 for byte in data[:4]), "utf-8-sig"))
