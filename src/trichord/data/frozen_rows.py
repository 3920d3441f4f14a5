"""A finished cache of what a frozen encoder gave, read for the clips that training draws."""

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
    """A finished cache.

    Attributes:
        modality: What was encoded.
        kind: `embedding`, in the joint space, or `pooled`: the audio before its last layers.
        values: (R, C) float32, mapped.
        valid: (R,) bool.
        row: (N,) row of each caption of the training videos.
        begin: (V + 1,) by item of the store: where its captions begin in `row`; -1 for items that are not trained on.
    """

    modality: str
    kind: Kind
    values: np.ndarray
    valid: np.ndarray
    row: np.ndarray
    begin: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> FrozenRows:
        """Raises TrichordError when a file is missing or torn; deleting the folder makes it anew."""
        try:
            index = read_json_value(folder / INDEX)
            for name in ("values", "valid", "row", "begin"):
                check_regular(folder / f"{name}.npy")
            values = np.load(folder / "values.npy", mmap_mode="r", allow_pickle=False)
            valid, row, begin = (
                np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("valid", "row", "begin")
            )
            if values.shape != (index["num_clips"], index["width"]) or len(valid) != len(values):
                raise ValueError(f"has {values.shape} values, not ({index['num_clips']}, {index['width']})")
            return cls(index["modality"], index["kind"], values, valid, row, begin)
        except (OSError, ValueError, KeyError, TypeError, MemoryError) as error:
            reraise_unavailable(getattr(error, "filename", None) or folder / "values.npy", error)
            raise TrichordError(
                f"{folder}: the frozen embeddings cannot be read ({one_line(error)}); delete that folder, they are made anew"
            ) from None

    def read(self, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
        """Values (B, C) and whether there is one (B,), of clips that `TrainingClips` drew."""
        if clips.caption is None:
            raise ValueError("only drawn clips know their captions")
        self._check_size()
        begin = self.begin[clips.item]
        if not (begin >= 0).all():
            raise ValueError("clips of videos that are not trained on")
        rows = self.row[begin + clips.caption]
        return self.values[rows], self.valid[rows]

    def _check_size(self) -> None:
        """Raise TrichordError when the values were cut short: reading beyond the end of the file would end the process (SIGBUS)."""
        if not isinstance(self.values, np.memmap) or self.values.filename is None:
            return
        path = Path(self.values.filename)
        try:
            size = path.stat().st_size
        except OSError as error:
            raise unreadable(path, error, mend=f"delete the folder {path.parent}; it is made anew") from None
        if size < self.values.offset + self.values.nbytes:
            raise TrichordError(
                f"{path}: was cut short while it was used; delete the folder {path.parent}, it is made anew"
            )
