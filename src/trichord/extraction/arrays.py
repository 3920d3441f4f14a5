"""Modalities beyond video, audio and text: feature arrays that the columns of a table name, one file per clip.

An array (F,) is one vector for the clip. The N rows of an array (N, F) are spread evenly over the clip's duration. If the clip has
no duration (neither video nor audio, and no end), its single vector is their maximum, as the network pools rows over time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trichord.errors import TrichordError
from trichord.extraction.sources import Source
from trichord.extraction.table_rows import COLUMNS
from trichord.features.encoders import Fingerprint, arrays_fingerprint
from trichord.files.arrays import load_array
from trichord.files.faults import fault_of
from trichord.files.reading import MAX_BYTES, check_regular
from trichord.modalities import registry
from trichord.modality import declare

ROLE = "arrays/"  # prefix of the role of an array file in `folder.content_files`; the name of the modality follows


@dataclass(frozen=True)
class Width:
    """The width of the rows of a modality, and where it was determined, for error messages."""

    dim: int
    where: str


def parse_modalities(text: str) -> dict[str, str]:
    """Parse `depth=d,pose=p` into a lower-case letter for each name, and declare the modalities.

    Raises:
        TrichordError: The text has another form, or a name or letter cannot be used.
    """
    registry.own_modalities()  # declares modalities that have a letter already
    modalities: dict[str, str] = {}
    columns = {name for names in COLUMNS.values() for name in names}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, letter = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise TrichordError(f"--modality {part[:40]}: pass a name and a letter, such as depth=d")
        if name in columns:
            raise TrichordError(f"--modality {part[:40]}: the column {name} has another meaning; rename the column")
        if modalities.setdefault(name, letter.lower()) != letter.lower():
            raise TrichordError(f"--modality assigns two letters to {name}, {modalities[name]} and {letter}; keep one")
    declare(modalities)
    return modalities


def arrays_fingerprints(modalities: Iterable[tuple[str, str]]) -> dict[str, Fingerprint]:
    """Return the fingerprint of the stream of each modality, given names and letters."""
    return {name: arrays_fingerprint(name, letter) for name, letter in modalities}


def feature_rows(path: Path, modality: str, *, pooled: bool, expected: Width | None = None) -> np.ndarray:
    """Read the rows (N, F) of the array file of a clip.

    Args:
        path: The array file.
        modality: The name of the modality, for the error message.
        pooled: Whether to return only the maximum over the rows, (1, F).
        expected: The expected width.

    Raises:
        TrichordError: The array cannot be used, see `checked_rows`. The message names the column and the file.
    """
    try:
        array = load_features(path)
    except TrichordError as error:
        if fault_of(error):
            raise
        raise TrichordError(f"column {modality}: {error}") from None
    rows = checked_rows(array, f"column {modality}: {path.name}", expected)
    return rows.max(axis=0, keepdims=True) if pooled else rows


def load_features(path: Path) -> np.ndarray:
    """Load the array of a feature file (.npy, or .npz with one array).

    Raises:
        TrichordError: The file is too large or cannot be read. The message names the file.
    """
    size = check_regular(path).st_size
    if size > MAX_BYTES:
        problem = f"has {size:,} bytes, but the features of a clip may have at most {MAX_BYTES:,}"
        raise TrichordError(f"{path}: {problem}; save a smaller array")
    return load_array(path)


def checked_rows(array: np.ndarray, where: str, expected: Width | None = None) -> np.ndarray:
    """Return an array (F,) or (N, F) as rows (N, F), float16 or float32.

    Args:
        array: The array.
        where: The origin of the array, for the error message.
        expected: The expected width.

    Raises:
        TrichordError: The array does not have one or two axes, finite numbers and the expected width.
    """

    def array_error(problem: str) -> TrichordError:
        return TrichordError(f"{where}: {problem}; correct the array and save it again")

    if array.ndim not in (1, 2):
        raise array_error(f"has shape {array.shape}, expected (width,) or (rows, width)")
    if array.dtype.kind not in "biuf":
        raise array_error(f"has dtype {array.dtype}, expected numbers")
    if not array.size:
        raise array_error(f"is empty (shape {array.shape})")
    if expected is not None and array.shape[-1] != expected.dim:
        raise array_error(f"has width {array.shape[-1]}, expected {expected.dim} as in {expected.where}")
    rows = array[None] if array.ndim == 1 else array
    with np.errstate(over="ignore"):  # values outside the range of float32 become infinite and are refused below
        rows = np.ascontiguousarray(rows, np.float16 if array.dtype == np.float16 else np.float32)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        is_finite = bool(np.isfinite((array[None] if array.ndim == 1 else array)[row]).all())
        raise array_error(
            f"contains {'numbers outside the range of float32' if is_finite else 'NaN or infinity'} (first in row {row})"
        )
    return rows


def widths_of(sources: Iterable[Source], stored: Mapping[str, int], modalities: Iterable[str]) -> dict[str, Width]:
    """Return the width that the rows of each modality must have: that in the store, or else that of the first readable array.

    Args:
        sources: All clips.
        stored: The width of each stream in the store.
        modalities: The names of the modalities.
    """
    widths = {name: Width(stored[name], "the store") for name in modalities if name in stored}
    remaining = [name for name in modalities if name not in stored]
    for source in sources:
        for name in [name for name in remaining if name in source.arrays]:
            try:
                rows = feature_rows(source.arrays[name], name, pooled=True)
            except (TrichordError, OSError, MemoryError):
                continue  # the problem is reported when the clip is extracted
            widths[name] = Width(rows.shape[1], source.name)
            remaining.remove(name)
        if not remaining:
            break
    return widths


def has_arrays(source: Source) -> bool:
    """Return whether all arrays that the clip names are files. A path that cannot be checked counts as a file."""
    try:
        return all(check_regular(path) is not None for path in source.arrays.values())
    except OSError as error:
        return bool(fault_of(error))
