"""What is to be extracted: one source per item of the store, from a folder of videos or a table of clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """Where the modalities of one item come from; any may be missing.

    Attributes:
        video_id: Id of the item in its collection.
        name: For people: the path inside the folder, or the row of the table.
        video: Media file of the pictures, and of the sound where `audio` is None.
        image: A still picture, in place of `video`.
        audio: Media file of the sound.
        captions: Caption file; None looks beside `video` and in its subtitle track.
        text: Captions of the whole clip, in place of timed ones.
        start_s: Where the clip begins in `video` and `audio`; caption files are in the same time.
        end_s: Where it ends; None: at the end of the file.
        split: train, val or test; empty leaves it to the split rule.
        arrays: Modality -> file of feature rows, for modalities beyond video, audio and text.
        file_name: Path of its file as the folder or the table has it, the same on every machine: shards, and the split
            of clips cut out of files, follow from it.
    """

    video_id: str
    name: str
    video: Path | None = None
    image: Path | None = None
    audio: Path | None = None
    captions: Path | None = None
    text: tuple[str, ...] = ()
    start_s: float = 0.0
    end_s: float | None = None
    split: str = ""
    file_name: str = ""
    arrays: Mapping[str, Path] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it names."""
        named = (self.video, self.image, self.audio, self.captions, *self.arrays.values())
        return tuple(path for path in named if path is not None)

    @property
    def has_length(self) -> bool:
        """Whether the media or the span of the item define its length in time."""
        return self.video is not None or self.audio is not None or self.end_s is not None
