"""A folder of narrated videos: which files are videos, their ids and splits, and where their captions are."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from trichord.captions import SIDECAR_SUFFIXES, Captions, Sidecar, choose_sidecar, read_captions
from trichord.errors import TrichordError
from trichord.extraction.arrays import ROLE, has_arrays
from trichord.extraction.sources import Source
from trichord.files.faults import fault_of
from trichord.files.reading import missing
from trichord.files.suffixes import VIDEO_SUFFIXES, counted_by_suffix
from trichord.files.walking import files_below
from trichord.media import probe, sound_language, subtitles

SPLITS = ("train", "val", "test")
_MOST_PROBED = 50  # files that are opened to find one that can be tested


def sources_of_folder(
    folder: str | Path, unlisted: list[OSError] | None = None, notes: list[str] | None = None
) -> list[Source]:
    """Return all videos below a folder, sorted by name.

    The name of a video is its path inside the folder, and its `video_id` is the name without suffix. Files and folders whose name
    begins with a dot are ignored. Two files may have the same id (a.mkv, a.mp4).

    Args:
        folder: The folder.
        unlisted: A list that receives an error for each sub-folder that cannot be listed.
        notes: A list that receives a line with the number of files that are neither videos nor captions, by suffix.

    Raises:
        TrichordError: The folder is missing, cannot be listed or contains no video, or a sub-folder cannot be listed and
            `unlisted` is None.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise missing(folder, "folder", mend="pass the folder of the videos, or a table (.csv, .tsv, .jsonl, .parquet)")
    sources, others = [], []
    for path in files_below(folder, unlisted):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            name = path.relative_to(folder)
            id_ = name.with_suffix("").as_posix()
            sources.append(Source(id_, name.as_posix(), video=path, file_name=name.as_posix()))
        elif path.suffix.lower() not in SIDECAR_SUFFIXES:
            others.append(path)
    if not sources:
        if unlisted:
            error = unlisted[0]
            raise TrichordError(
                f"{error.filename}: cannot be listed ({error.strerror}); fix the cause, then run the command again"
            )
        known = ", ".join(VIDEO_SUFFIXES[:6])
        others_note = (
            f"; it contains {counted_by_suffix(others)}, which a table of clips can refer to" if others else ""
        )
        raise TrichordError(f"{folder}: contains no videos ({known}, ...){others_note}; choose another folder")
    if others and notes is not None:
        notes.append(
            f"{folder}: ignored files whose suffixes are neither those of videos nor of captions: {counted_by_suffix(others)}"
        )
    return sorted(sources, key=lambda source: source.name)


def can_be_tested(source: Source, needs_captions: bool = True) -> bool:
    """Return whether the files of a source can be opened and have pictures (or sound, if it has no pictures) and captions.

    Files that a system fault prevents from being read count as usable, because the held-out videos must not depend on such a fault.

    Args:
        source: The source.
        needs_captions: Whether captions are needed.
    """
    try:
        duration_s = 1.0
        if source.video is not None:
            info = probe(source.video)
            usable, duration_s = info.has_video, info.duration_s
        elif source.image is not None:
            usable = source.image.is_file()
        elif source.audio is not None:
            usable = probe(source.audio).has_audio
        else:
            usable = bool(source.arrays) and has_arrays(source)
        return usable and (not needs_captions or len(captions_of(source, duration_s)) > 0)
    except (TrichordError, OSError, MemoryError, RuntimeError) as error:
        return bool(fault_of(error))


def split_of(
    sources: Iterable[Source],
    test_fraction: float,
    *,
    has_test: bool = False,
    usable: Callable[[Source], bool] = can_be_tested,
) -> dict[str, str]:
    """Return the split of each video id.

    A source with a given split keeps it. An id that begins with a folder `train`, `val` or `test` belongs to that split. Any other
    video is in `test` if the CRC-32 of its id, as a fraction of 2^32, is below `test_fraction`, else in `train`; this never changes
    when videos are added. For clips that are cut from a file, the name of the file is used instead of their ids, so that all clips
    of a video are in the same split. If there are two or more videos and none of the test videos is usable, the usable one with the
    lowest CRC-32 among those without a given split becomes a test video.

    Args:
        sources: The sources.
        test_fraction: The fraction of test videos, from 0 to 1.
        has_test: Whether there is a test video already.
        usable: Returns whether a source can be used for testing.

    Raises:
        TrichordError: `test_fraction` is not from 0 to 1.
    """
    if not 0 <= test_fraction <= 1:
        raise TrichordError(f"test_fraction is {test_fraction}; it must be a fraction from 0 to 1, such as 0.2")
    splits: dict[str, str] = {}
    hashed: dict[str, str] = {}  # by video id: the text that is hashed, for videos without a given split
    by_id = {source.video_id: source for source in sources}
    for video_id, source in by_id.items():
        top, _, rest = video_id.partition("/")
        split = source.split or (top if rest and top in SPLITS else "")
        if not split:
            hashed[video_id] = _split_key(source)
            split = "test" if name_crc32(hashed[video_id]) < test_fraction * 2**32 else "train"
        splits[video_id] = split
    num_videos = len(splits) - len(hashed) + len(set(hashed.values()))
    if test_fraction == 0 or num_videos < 2 or has_test:
        return splits
    held_out = [video_id for video_id, split in splits.items() if split == "test"]
    if not any(usable(by_id[video_id]) for video_id in held_out[:_MOST_PROBED]):
        by_hash = sorted(hashed, key=lambda video_id: (name_crc32(hashed[video_id]), hashed[video_id]))
        lowest = next((video_id for video_id in by_hash[:_MOST_PROBED] if usable(by_id[video_id])), None)
        if lowest is not None:
            splits |= {video_id: "test" for video_id, key in hashed.items() if key == hashed[lowest]}
    return splits


def _split_key(source: Source) -> str:
    file = source.video or source.audio
    if file is None or (source.start_s == 0 and source.end_s is None):
        return source.video_id
    return PurePosixPath(source.file_name).with_suffix("").as_posix() if source.file_name else file.stem


def name_crc32(name: str) -> int:
    """Return the CRC-32 of the bytes of a name in the file system."""
    return zlib.crc32(name.encode("utf-8", "surrogateescape"))


def captions_of(source: Source, duration_s: float, notes: list[str] | None = None) -> Captions:
    """Return the captions of an item in its own time, which begins at `source.start_s` of its files. They are not cleaned yet.

    The captions are taken from the first of: its `text`, each spanning [0, duration_s); its caption file; the file next to the
    video (if it contains words); the subtitle track of the video; the file next to the audio. Timed captions are cut to the clip
    and shifted.

    Args:
        source: The item.
        duration_s: The duration of the item in seconds.
        notes: A list that receives lines on the choice among several files or tracks, and on unreadable captions.

    Raises:
        TrichordError: A caption file or the video cannot be read.
    """
    if source.text:
        count = len(source.text)
        return Captions(np.zeros(count), np.full(count, duration_s), source.text)
    return _cut(_timed_captions(source, notes), source.start_s, source.end_s)


def sidecar_of(path: Path) -> Sidecar:
    """Return the caption file next to a video or audio file. If there are several, the language of the audio decides."""
    return choose_sidecar(path, lambda: sound_language(path))


def _timed_captions(source: Source, notes: list[str] | None) -> Captions:
    if source.captions is not None:
        return read_captions(source.captions, notes=notes)
    if source.video is not None:
        if (captions := _captions_beside(source.video, notes)) is not None and any(captions.text):
            return captions
        track = subtitles(source.video) if notes is None else subtitles(source.video, notes)
        if track is not None and len(track):
            return track
    if source.audio is not None and (captions := _captions_beside(source.audio, notes)) is not None:
        return captions
    return Captions.empty()


def _captions_beside(path: Path, notes: list[str] | None) -> Captions | None:
    sidecar = sidecar_of(path)
    if notes is not None:
        notes += sidecar.notes
    if sidecar.path is None:
        return None
    own_notes: list[str] = []
    captions = read_captions(sidecar.path, notes=own_notes)
    if notes is not None:
        notes += [note.replace(str(sidecar.path), f"{path}: {sidecar.path.name}") for note in own_notes]
    return captions


def _cut(captions: Captions, start_s: float, end_s: float | None) -> Captions:
    """Return the captions in [start_s, end_s), relative to `start_s`. `clean_captions` handles times that are not finite."""
    if start_s == 0 and end_s is None:
        return captions
    stop_s = np.inf if end_s is None else end_s
    outside = (captions.end_s <= start_s) | (captions.start_s >= stop_s)
    inside = np.flatnonzero(~outside)
    return Captions(
        captions.start_s[inside].clip(start_s, stop_s) - start_s,
        captions.end_s[inside].clip(start_s, stop_s) - start_s,
        tuple(captions.text[i] for i in inside),
    )


def content_files(source: Source) -> dict[str, Path]:
    """Return the files that an item depends on, by their role, including a caption file next to its video."""
    captions = source.captions
    if captions is None and not source.text:
        beside = [path for path in (source.video, source.audio) if path is not None]
        captions = next((sidecar for path in beside if (sidecar := sidecar_of(path).path) is not None), None)
    files = {"video": source.video, "image": source.image, "audio": source.audio, "captions": captions}
    files |= {f"{ROLE}{name}": path for name, path in source.arrays.items()}
    return {name: path for name, path in files.items() if path is not None}
