"""The reader of a finished cache of the outputs of a frozen encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from trichord.data.batch import Clips
from trichord.errors import TrichordError, one_line
from trichord.files.reading import check_regular, read_json_value, reraise_unavailable, unreadable

INDEX = "index.json"
Kind = Literal["embedding", "pooled"]


@dataclass(eq=False)
class FrozenRows:
    """A finished cache of the outputs of a frozen encoder.

    Attributes:
        modality: Modality that was encoded.
        kind: "embedding" for embeddings in the joint space, or "pooled" for the pooled audio before the last layers.
        values: Values of shape (R, C), float32, memory-mapped.
        valid: Mask of the rows whose clip has the modality, of shape (R,), bool.
        row: Row of each caption of the training videos, of shape (N,).
        begin: For each item of the store, the index in `row` at which its captions begin, or -1 if it is not trained on.
    """

    modality: str
    kind: Kind
    values: np.ndarray
    valid: np.ndarray
    row: np.ndarray
    begin: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> FrozenRows:
        """Open a cache.

        Args:
            folder: Folder of the cache.

        Returns:
            The cache.

        Raises:
            TrichordError: If a file is missing or damaged.
        """
        try:
            index = read_json_value(folder / INDEX)
            for name in ("values", "valid", "row", "begin"):
                check_regular(folder / f"{name}.npy")
            values = np.load(folder / "values.npy", mmap_mode="r", allow_pickle=False)
            valid, row, begin = (
                np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("valid", "row", "begin")
            )
            if values.shape != (index["num_clips"], index["width"]) or len(valid) != len(values):
                raise ValueError(
                    f"the values have the shape {values.shape} instead of ({index['num_clips']}, {index['width']})"
                )
            return cls(index["modality"], index["kind"], values, valid, row, begin)
        except (OSError, ValueError, KeyError, TypeError, MemoryError) as error:
            reraise_unavailable(getattr(error, "filename", None) or folder / "values.npy", error)
            raise TrichordError(
                f"{folder}: the frozen embeddings cannot be read ({one_line(error)}); delete this folder to compute them again"
            ) from None

    def read(self, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
        """Read the values of clips.

        Args:
            clips: B clips that `TrainingClips` drew.

        Returns:
            The values (B, C), and a mask of the clips that have the modality (B,), bool.

        Raises:
            ValueError: If the clips were not drawn from the training videos of this cache.
            TrichordError: If the file of the values has been truncated.
        """
        if clips.caption is None:
            raise ValueError("the clips do not know their captions; read clips that TrainingClips.draw returned")
        self._check_size()
        begin = self.begin[clips.item]
        if not (begin >= 0).all():
            raise ValueError("some clips belong to videos that are not trained on, for which the cache has no values")
        rows = self.row[begin + clips.caption]
        return self.values[rows], self.valid[rows]

    def _check_size(self) -> None:
        """Raise TrichordError if the file of the values was truncated. Reading beyond its end would kill the process (SIGBUS)."""
        if not isinstance(self.values, np.memmap) or self.values.filename is None:
            return
        path = Path(self.values.filename)
        try:
            size = path.stat().st_size
        except OSError as error:
            raise unreadable(path, error, mend=f"delete the folder {path.parent}; it is computed again") from None
        if size < self.values.offset + self.values.nbytes:
            raise TrichordError(
                f"{path}: was truncated while it was in use; delete the folder {path.parent} to compute it again"
            )
