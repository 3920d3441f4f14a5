"""A folder of narrated videos: which files are videos, what they are called, which are held out for testing."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from trichord.captions import Captions, find_sidecar, read_captions
from trichord.errors import TrichordError
from trichord.media import probe, subtitles

VIDEO_SUFFIXES = (
    ".mp4",
    ".mkv",
    ".webm",
    ".mov",
    ".avi",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
    ".3gp",
    ".ts",
    ".ogv",
)
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class VideoFile:
    """One video of a folder. `name` is its path inside the folder; `video_id` is that without suffix."""

    path: Path
    name: str
    video_id: str


def find_videos(folder: str | Path) -> list[VideoFile]:
    """All videos under `folder`, sorted by name. Files and folders whose name starts with a dot do not count.

    Raises TrichordError if the folder is missing or holds no video.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise TrichordError(f"{folder}: {what}; name the folder that holds the videos")
    found, visited = [], set()
    for root, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(root)) in visited:  # a link back to a folder above
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in files:
            path = Path(root, file)
            if path.suffix.lower() in VIDEO_SUFFIXES and not file.startswith("."):
                name = path.relative_to(folder)
                found.append(VideoFile(path, name.as_posix(), name.with_suffix("").as_posix()))
    if not found:
        raise TrichordError(f"{folder}: no videos there ({', '.join(VIDEO_SUFFIXES[:6])}, ...); name another folder")
    return sorted(found, key=lambda video: video.name)


def can_be_tested(video: VideoFile) -> bool:
    """Whether the file opens and has pictures and captions."""
    try:
        return probe(video.path).has_video and len(captions_of(video.path)) > 0
    except TrichordError:
        return False


def split_of(
    videos: Iterable[VideoFile],
    test_fraction: float,
    *,
    has_test: bool = False,
    usable: Callable[[VideoFile], bool] = can_be_tested,
) -> dict[str, str]:
    """video_id -> split.

    A video in a top folder `train`, `val` or `test` is in that split. Any other is in `test` if the CRC-32 of its id,
    as a fraction of 2^32, is below `test_fraction`, else in `train`: this never changes when videos are added. If that
    leaves two or more videos without a usable test video (and `has_test` does not say that there is one already), the
    usable one with the lowest CRC-32 among those without a split folder becomes test.
    """
    if not 0 <= test_fraction <= 1:
        raise TrichordError(f"test_fraction is {test_fraction}; give a fraction from 0 to 1, such as 0.2")
    splits: dict[str, str] = {}
    hashes: dict[str, int] = {}
    files = {video.video_id: video for video in videos}
    for video_id in files:
        top, _, rest = video_id.partition("/")
        if rest and top in SPLITS:
            splits[video_id] = top
        else:
            hashes[video_id] = zlib.crc32(video_id.encode())
            splits[video_id] = "test" if hashes[video_id] < test_fraction * 2**32 else "train"
    if test_fraction == 0 or len(splits) < 2 or has_test:
        return splits
    if not any(split == "test" and usable(files[video_id]) for video_id, split in splits.items()):
        by_hash = sorted(hashes, key=lambda video_id: (hashes[video_id], video_id))
        lowest = next((video_id for video_id in by_hash if usable(files[video_id])), None)
        if lowest is not None:
            splits[lowest] = "test"
    return splits


def captions_of(video_path: str | Path) -> Captions:
    """Captions of the file beside the video, else of its subtitle track, else none. As they are: not yet cleaned."""
    sidecar = find_sidecar(video_path)
    if sidecar is not None:
        return read_captions(sidecar)
    return subtitles(video_path) or Captions.empty()
