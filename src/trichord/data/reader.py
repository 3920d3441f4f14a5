"""The reader that turns clips into tensors, according to the specification of each modality."""

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
EMBEDDING_STREAMS = {"audio": AUDIO_EMBEDDING_STREAM, "text": TEXT_EMBEDDING_STREAM}  # replace spectrograms and words


class ClipReader:
    """A reader of clips of a store.

    Args:
        store: Store of the features.
        modalities: Modalities to read.
        settings: Settings of reading.

    Attributes:
        frozen: By modality, the cache of a frozen encoder, which is read in place of the features.
    """

    def __init__(self, store: Store, modalities: tuple[str, ...], settings: ReadingSettings = DEFAULTS) -> None:
        self.store, self.modalities, self.settings = store, in_order(modalities), settings
        self.frozen: dict[str, FrozenRows] = {}
        self._memory = Memory()

    def read(self, clips: Clips, *, pin: bool = False) -> Batch:
        """Read clips.

        Args:
            clips: Clips to read.
            pin: Whether the batch is copied to a GPU. Features are then in page-locked memory, and spectrograms keep the data
                type of the store, which may be float16; `Batch.model_inputs` converts them on the device.

        Returns:
            The tensors of the clips.
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
    """Check that a store has all modalities that are needed.

    Args:
        store: Store of the features.
        modalities: Modalities that are needed.
        purpose: Name of the order or direction that needs them, for the message.
        settings: Settings of reading.

    Raises:
        TrichordError: If the store lacks one of the modalities.
    """
    available = [name for name in known() if specification(name).is_present(store, settings)]
    if missing := [m for m in modalities if m not in available]:
        raise TrichordError(
            f"{store.path}: {purpose} needs {' and '.join(missing)}, which the store lacks; "
            f"it has {', '.join(available) or 'no modality'}; import or extract the missing features, or choose others"
        )
