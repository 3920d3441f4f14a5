"""Helper functions for reading releases: paths from options, CSV tables, arrays and captions."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trichord.captions import Captions, tokenize
from trichord.errors import TrichordError, one_line
from trichord.files.reading import open_regular_text

MEL_BINS = 40


def named_path(root: Path, path: Path, option: str) -> Path:
    """Return a path that the user named, as it is or inside `root`.

    Raises:
        TrichordError: The path does not exist.
    """
    for candidate in (Path(path), root / path):
        if candidate.exists():
            return candidate
    raise TrichordError(f"{path}: does not exist (nor in {root}); correct --{option}")


def csv_rows(
    path: Path, columns: Sequence[str], mend: str = "download it again", **form: Any
) -> list[dict[str | Any, Any]]:
    """Read the rows of a CSV file by column.

    Args:
        path: The file.
        columns: The required columns.
        mend: What to do about a broken file, for the error message.
        form: Arguments of `csv.DictReader`.

    Raises:
        TrichordError: The file is broken or lacks one of the columns.
    """
    try:
        with open_regular_text(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, **form)
            if lacking := [name for name in columns if name not in (table.fieldnames or ())]:
                raise TrichordError(f"{path}: has no column {', '.join(lacking)}; {mend}")
            return list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrichordError(f"{path}: cannot be read ({one_line(error)}); {mend}") from None


# ---- parts of items


def as_array(value: object, source: str) -> np.ndarray:
    """Return a NumPy array of floats from an array, a torch tensor or a list of numbers.

    Raises:
        TrichordError: The value is anything else.
    """
    if hasattr(value, "detach"):
        tensor: Any = value.detach()  # a torch tensor; NumPy has no bfloat16
        value = (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy()
    description = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "fiu":
        raise TrichordError(f"{source}: contains {description} where an array of numbers is expected")
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def as_rows(value: object, source: str) -> np.ndarray:
    """Return an array of floats (rows, width). See `as_array`.

    Raises:
        TrichordError: The value does not have two axes.
    """
    array = as_array(value, source)
    if array.ndim != 2:
        raise TrichordError(f"{source}: has shape {array.shape}, expected (rows, width)")
    return array


def time_major(spectrogram: np.ndarray, source: str) -> np.ndarray:
    """Return a spectrogram (frames, 40) from one of shape (40, frames), as in the releases.

    Raises:
        TrichordError: The spectrogram has another shape.
    """
    if spectrogram.ndim != 2 or spectrogram.shape[0] != MEL_BINS:
        raise TrichordError(f"{source}: its spectrogram has shape {spectrogram.shape}, expected ({MEL_BINS}, frames)")
    return spectrogram.T


def raw_captions(starts: object, ends: object, texts: object, source: str) -> tuple[Captions, int]:
    """Return the captions in the order of the release, and how many were left out (a time is not finite, or end <= start).

    Raises:
        TrichordError: Times are not numbers, or the lists differ in length.
    """
    try:
        start, end = (np.asarray(times, np.float64) for times in (starts, ends))
    except (OverflowError, TypeError, ValueError):
        raise TrichordError(f"{source}: has caption times that are not numbers") from None
    plain = plain_texts(texts)
    if not start.shape == end.shape == (len(plain),):
        raise TrichordError(f"{source}: has {start.size} caption starts, {end.size} ends and {len(plain)} texts")
    with np.errstate(invalid="ignore"):
        is_valid = np.isfinite(start) & np.isfinite(end) & (end > start)
    valid_texts = tuple(itertools.compress(plain, is_valid))
    return Captions(start[is_valid], end[is_valid], valid_texts), len(plain) - len(valid_texts)


def plain_text(text: object) -> str:
    """Return the text of a caption; '' for values that are not text, such as NaN and None for empty captions."""
    if isinstance(text, bytes):
        return text.decode("utf-8", "replace")
    if isinstance(text, str):
        return text
    if isinstance(text, int | float | np.integer | np.floating):
        try:
            return str(text) if math.isfinite(text) else ""
        except (OverflowError, ValueError):  # thousands of digits
            return ""
    return ""


def plain_texts(value: object) -> list[str]:
    """Return the texts of a caption or of a list of captions."""
    if value is None:
        return []
    values = value.tolist() if isinstance(value, np.ndarray) else value
    return [plain_text(text) for text in (values if isinstance(values, list | tuple) else [values])]


def first_with_words(texts: list[str]) -> list[str]:
    """Return a list with the first caption that contains a word, or else the first caption; [] if there are no captions."""
    return [next((text for text in texts if tokenize(text)), texts[0])] if texts else []
