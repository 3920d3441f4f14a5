"""CSV and TSV files with the columns start, end and text, in any order. Rows of empty cells are ignored."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Literal

from trichord.captions.formats import NoCaptionsError, broken
from trichord.captions.formats.json import seconds_of
from trichord.captions.model import Cue
from trichord.captions.text import plain_lines
from trichord.errors import TrichordError, one_line
from trichord.files.tables import delimiter_of

# If the median duration of captions is at least this, times are in milliseconds. A CSV file with commas may also contain chapters.
_MILLISECONDS = {"\t": 100.0, ",": 1000.0, ";": 1000.0}


def read_csv(path: Path, text: str, skipped: list[str]) -> Iterator[Cue]:
    """Read the cues of a CSV file with commas, or with semicolons, which Excel writes if the comma is the decimal separator."""
    delimiter = delimiter_of(text.partition("\n")[0])
    return iter(_in_seconds(_cues(path, text, skipped, delimiter), delimiter))


def read_tsv(path: Path, text: str, skipped: list[str]) -> Iterator[Cue]:
    """Read the cues of a file with tabs. The arguments and errors are those of `read_csv`."""
    return iter(_in_seconds(_cues(path, text, skipped, "\t"), "\t"))


def _in_seconds(cues: list[Cue], delimiter: str) -> list[Cue]:
    """Convert cues in milliseconds to seconds. Whisper writes integer milliseconds to TSV files, and whisper.cpp to CSV files."""
    is_whole = all(cue.start_s.is_integer() and cue.end_s.is_integer() for cue in cues)
    if cues and is_whole and median(cue.end_s - cue.start_s for cue in cues) >= _MILLISECONDS[delimiter]:
        cues = [Cue(cue.start_s / 1000, cue.end_s / 1000, cue.lines, cue.speaker) for cue in cues]
    return cues


def _cues(path: Path, text: str, skipped: list[str], delimiter: str) -> list[Cue]:
    quoting: Literal[0, 3] = (
        csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    )  # Whisper does not escape quotes in TSV files
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, delimiter=delimiter, quoting=quoting)
    cues: list[Cue] = []
    wrong = ""
    try:
        names = {_unquoted(name).strip().lower(): name for name in reader.fieldnames or [] if name}
        if not {"start", "end", "text"} <= set(names):
            columns = delimiter.join(reader.fieldnames or [])[:60]
            problem = f"needs the columns start,end,text, but has '{one_line(columns)}'"
            kind = NoCaptionsError if reader.fieldnames else TrichordError
            raise kind(f"{path}, line 1: {problem}; correct the file or remove it")
        for row in reader:
            start, end, markup = (_unquoted(row[names[name]]) for name in ("start", "end", "text"))
            if not any(value.strip() for value in (start, end, markup)):
                continue
            if delimiter != ",":
                start, end = start.replace(",", "."), end.replace(",", ".")
            start_s, end_s = seconds_of(start), seconds_of(end)
            if start_s is None or end_s is None:
                skipped.append(f"line {reader.line_num}: start or end is not a number of seconds")
                wrong = wrong or skipped[-1]
                continue
            cues.append(Cue(start_s, end_s, plain_lines(markup), one_line(row.get(names.get("speaker", "")) or "")))
    except csv.Error as error:
        raise broken(path, reader.line_num, f"is not CSV ({error})") from None
    if wrong and not cues:
        line, _, problem = wrong.removeprefix("line ").partition(": ")
        raise broken(path, int(line), problem)
    return cues


def _unquoted(value: str | None) -> str:
    """Return a cell without the quotes around it."""
    value = value or ""
    return value[1:-1].replace('""', '"') if len(value) > 1 and value[0] == value[-1] == '"' else value
