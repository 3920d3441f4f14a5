"""Modalities beyond video, audio and text: feature arrays that the columns of a table name, one file per clip.

An array (F,) is one vector for the clip. An array (N, F) has N rows, evenly over the clip's time; where the clip has no length
(neither video nor sound, no end), their maximum is its one vector, as the network pools rows over time.
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

ROLE = "arrays/"  # with the name of the modality, what an array file is to its clip (`folder.content_files`)


@dataclass(frozen=True)
class Width:
    """Width of the rows of a modality, and the place that determined it, for messages."""

    dim: int
    where: str


def parse_modalities(text: str) -> dict[str, str]:
    """Parse `depth=d,pose=p` into name -> lowercase letter, and declare the modalities.

    Raises TrichordError for text of another form, and for names and letters that cannot be used.
    """
    registry.own_modalities()  # declares those that have a letter already
    modalities: dict[str, str] = {}
    columns = {name for names in COLUMNS.values() for name in names}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, letter = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise TrichordError(f"--modality {part[:40]}: give a name and a letter, such as depth=d")
        if name in columns:
            raise TrichordError(
                f"--modality {part[:40]}: the column {name} has a meaning of its own; rename the column"
            )
        if modalities.setdefault(name, letter.lower()) != letter.lower():
            raise TrichordError(f"--modality names {name} with two letters, {modalities[name]} and {letter}; keep one")
    declare(modalities)
    return modalities


def arrays_fingerprints(modalities: Iterable[tuple[str, str]]) -> dict[str, Fingerprint]:
    """Return the fingerprint of the stream of each modality."""
    return {name: arrays_fingerprint(name, letter) for name, letter in modalities}


def feature_rows(path: Path, modality: str, *, pooled: bool, expected: Width | None = None) -> np.ndarray:
    """Rows (N, F) of the array file of a clip (`checked_rows`); their maximum alone if `pooled`.

    Raises TrichordError naming the column and the file when it cannot be used.
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
    """Load the array of a file of features (.npy, or .npz with one array). Raises TrichordError, which names the file."""
    size = check_regular(path).st_size
    if size > MAX_BYTES:
        what = f"has {size:,} bytes, more than the {MAX_BYTES:,} that the features of a clip may have"
        raise TrichordError(f"{path}: {what}; save a smaller array")
    return load_array(path)


def checked_rows(array: np.ndarray, where: str, expected: Width | None = None) -> np.ndarray:
    """An array (F,) or (N, F) as rows (N, F), float16 or float32; `where` is for messages.

    Raises TrichordError when it is not an array of one or two axes, of finite numbers and of the expected width.
    """

    def wrong(what: str) -> TrichordError:
        return TrichordError(f"{where}: {what}; correct the array and save it again")

    if array.ndim not in (1, 2):
        raise wrong(f"has shape {array.shape}, expected (width,) or (rows, width)")
    if array.dtype.kind not in "biuf":
        raise wrong(f"holds {array.dtype}, expected numbers")
    if not array.size:
        raise wrong(f"is empty (shape {array.shape})")
    if expected is not None and array.shape[-1] != expected.dim:
        raise wrong(f"is {array.shape[-1]} wide, expected {expected.dim} as in {expected.where}")
    rows = array[None] if array.ndim == 1 else array
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        rows = np.ascontiguousarray(rows, np.float16 if array.dtype == np.float16 else np.float32)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        is_finite = bool(np.isfinite((array[None] if array.ndim == 1 else array)[row]).all())
        raise wrong(f"holds {'numbers beyond float32' if is_finite else 'NaN or infinity'} (first in row {row})")
    return rows


def widths_of(sources: Iterable[Source], stored: Mapping[str, int], modalities: Iterable[str]) -> dict[str, Width]:
    """Return the width that the rows of each modality must have: that of the store, or else that of the first readable array.

    Args:
        sources: All clips.
        stored: Stream -> width, of the streams that the store has.
        modalities: Names.
    """
    widths = {name: Width(stored[name], "the store") for name in modalities if name in stored}
    wanted = [name for name in modalities if name not in stored]
    for source in sources:
        for name in [name for name in wanted if name in source.arrays]:
            try:
                rows = feature_rows(source.arrays[name], name, pooled=True)
            except (TrichordError, OSError, MemoryError):
                continue  # the clip tells why it cannot be used
            widths[name] = Width(rows.shape[1], source.name)
            wanted.remove(name)
        if not wanted:
            break
    return widths


def has_arrays(source: Source) -> bool:
    """Return whether all arrays that the clip names are files. A path that cannot be checked counts as a file."""
    try:
        return all(check_regular(path) is not None for path in source.arrays.values())
    except OSError as error:
        return bool(fault_of(error))
