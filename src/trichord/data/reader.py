"""From clips to tensors: slices of the store, pooled, padded and masked, each modality as its specification says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trichord.data.batch import Batch, Clips
from trichord.errors import TrichordError
from trichord.modalities.audio import EMBEDDING_STREAM as AUDIO_EMBEDDING_STREAM
from trichord.modalities.audio import SPECTROGRAM_STREAM
from trichord.modalities.base import ReadingSettings
from trichord.modalities.gather import Memory
from trichord.modalities.registry import specification
from trichord.modalities.text import EMBEDDING_STREAM as TEXT_EMBEDDING_STREAM
from trichord.modality import in_order, known

if TYPE_CHECKING:
    from trichord.data.frozen_rows import FrozenRows
    from trichord.store import Store

DEFAULTS = ReadingSettings()
AUDIO_STREAM = SPECTROGRAM_STREAM
EMBEDDING_STREAMS = {"audio": AUDIO_EMBEDDING_STREAM, "text": TEXT_EMBEDDING_STREAM}  # in place of spectrograms, words


class ClipReader:
    """Reads clips of a store.

    Args:
        store: Where the features lie.
        modalities: Which modalities to read.
        settings: How.

    `frozen` holds, by modality, what a frozen encoder gave for every clip: it is read in place of the modality's features.
    """

    def __init__(self, store: Store, modalities: tuple[str, ...], settings: ReadingSettings = DEFAULTS) -> None:
        self.store, self.modalities, self.settings = store, in_order(modalities), settings
        self.frozen: dict[str, FrozenRows] = {}
        self._memory = Memory()

    def read(self, clips: Clips, *, pin: bool = False) -> Batch:
        """The clips' tensors.

        Args:
            clips: What to read.
            pin: For a batch that moves to a GPU: features in page-locked memory, and spectrograms as they are stored
                (float16 where the store has no other), which `Batch.model_inputs` widens on the device.
        """
        batch = Batch()
        self.store.bring(clips.item)
        self._read_frozen(batch, clips, pin)
        for modality in self.modalities:
            if modality not in self.frozen:
                tensors, valid = specification(modality).read(self.store, clips, self.settings, self._memory, pin)
                batch.inputs |= tensors
                batch.valid[modality] = valid
        return batch

    def _read_frozen(self, batch: Batch, clips: Clips, pin: bool) -> None:
        import torch

        for modality, rows in self.frozen.items():
            values, valid = rows.read(clips)
            tensor = torch.from_numpy(values)
            tensor = tensor.pin_memory() if pin else tensor
            batch.valid[modality] = torch.from_numpy(valid)
            pooling = specification(modality).pooling
            if rows.kind == "pooled" and pooling is not None:
                batch.inputs[pooling.input] = tensor
            else:
                batch.embeddings[modality] = tensor


def require_modalities(
    store: Store, modalities: tuple[str, ...], purpose: str, settings: ReadingSettings = DEFAULTS
) -> None:
    """Raise TrichordError if the store lacks a modality that `purpose` (an order or a direction) needs."""
    have = [name for name in known() if specification(name).is_present(store, settings)]
    if lacking := [m for m in modalities if m not in have]:
        raise TrichordError(
            f"{store.path}: {purpose} needs {' and '.join(lacking)}, which the store lacks; "
            f"it has {', '.join(have) or 'nothing'}: import or extract what is missing, or choose others"
        )
