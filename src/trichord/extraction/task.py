"""A task of a worker process, and its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trichord.extraction.arrays import Width
from trichord.extraction.renewal import Stored
from trichord.extraction.sources import Source
from trichord.features.hashes import FileState
from trichord.media import Decoder


@dataclass(frozen=True)
class Task:
    """One item to extract.

    Attributes:
        source: The source of the item.
        split: The split of the item.
        key: CONTENT:FINGERPRINT, which identifies the work.
        collection: The collection of the item.
        store: The folder of the store.
        require: The modalities without which the item is skipped.
        captions: auto or none, see `EncoderChoice`.
        decoder: The decoder of pictures.
        stall_s: Seconds without progress after which a decoder is stopped.
        sample_s: Extract only the first seconds, to measure the time; None extracts everything.
        states: The states of its files when they were hashed. An item whose files have changed since is not stored.
        media: See `Item`.
        stored: The stored item to update; None for a new item.
        widths: The width of the feature arrays of each modality.
    """

    source: Source
    split: str
    key: str
    collection: str
    store: Path
    require: tuple[str, ...] = ()
    captions: str = "auto"
    decoder: Decoder | None = None
    stall_s: float = 30.0
    sample_s: float | None = None
    states: Mapping[Path, FileState] | None = None
    media: str = ""
    stored: Stored | None = None
    widths: Mapping[str, Width] = field(default_factory=dict)


@dataclass
class Outcome:
    """The outcome of a task.

    Attributes:
        kind: The class of a failure (`store.ledger.CLASSES`), or ''.
        reason: The reason of a failure.
        duration_s: The duration of the item in seconds.
        num_captions: The number of its captions.
        num_bytes: Its size in the spool.
        notes: Notes for the user.
        decode_s: Seconds of decoding.
        encode_s: Seconds of encoding.
        is_unchanged: Whether the captions are those of the stored item, so that nothing was written to the spool.
    """

    kind: str = ""
    reason: str = ""
    duration_s: float = 0.0
    num_captions: int = 0
    num_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    decode_s: float = 0.0
    encode_s: float = 0.0
    is_unchanged: bool = False
