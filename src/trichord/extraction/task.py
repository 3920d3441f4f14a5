"""What a worker process is given to do, and what became of it."""

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
    """One item to extract. `key` is CONTENT:FINGERPRINT. `sample_s`: only the first seconds, to see how long it takes.
    `states`: of its files when they were hashed; what has changed since is not stored. `media`: as of `Item`.
    `stored`: given where the store holds the item. `widths`: of the feature arrays of each modality."""

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
    """What became of a task: `kind` is empty, or the class of failure (`store.ledger.CLASSES`). is_unchanged: the captions are
    those that the store holds, and nothing was spooled."""

    kind: str = ""
    reason: str = ""
    duration_s: float = 0.0
    num_captions: int = 0
    num_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    decode_s: float = 0.0
    encode_s: float = 0.0
    is_unchanged: bool = False
