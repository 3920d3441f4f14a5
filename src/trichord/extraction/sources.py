"""The sources of an extraction, one for each item of the store, from a folder of videos or a table of clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """The files and texts that the modalities of an item come from. Any modality may be missing.

    Attributes:
        video_id: The id of the item in its collection.
        name: A name for messages: the path inside the folder, or the row of the table.
        video: The media file of the pictures, and of the sound if `audio` is None.
        image: A still picture instead of `video`.
        audio: The media file of the sound.
        captions: The caption file; None uses files next to `video` and its subtitle track.
        text: Captions of the whole clip, instead of timed ones.
        start_s: The start of the clip in `video` and `audio`, in seconds. Caption files have the same time axis.
        end_s: The end of the clip in seconds; None means the end of the file.
        split: train, val or test; '' leaves it to the split rule.
        file_name: The path of its file in the folder or the table, which is the same on every machine. It determines the shard,
            and the split of clips that are cut from files.
        arrays: The file of feature rows of each modality beyond video, audio and text.
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
        """All files of the source."""
        files = (self.video, self.image, self.audio, self.captions, *self.arrays.values())
        return tuple(path for path in files if path is not None)

    @property
    def has_length(self) -> bool:
        """Whether the media or the span of the item define its duration."""
        return self.video is not None or self.audio is not None or self.end_s is not None
