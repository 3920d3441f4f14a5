"""Import of HowTo100M features and captions in the layouts of AVLnet, MCN, EAO and the original release.

A path list has one column `path` with rows such as `hobbies_and_crafts/video_8/8N4mGHodjss`. Features are
`PATH/ID_2d.npz` and `PATH/ID_3d.npz` (key `features`, (rows, width), 1 and 1.5 rows per second), spectrograms
`PATH/ID_spec.npz` (key `arr_0`, (40, frames), 100 frames per second, float16). EAO also has `PATH_2d.npz`, and the original release
`.npy` files, with the 2-D and 3-D ones in separate folders under the same path.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from trichord.captions import WordSplitting
from trichord.errors import TrichordError, one_line
from trichord.files.arrays import load_npy, load_npz_array
from trichord.files.paths import accepts_text_paths
from trichord.files.reading import open_regular_text
from trichord.ids import match_ids, without_media_suffix
from trichord.logs import deprecated_callback, get_logger
from trichord.releases.captions import CaptionSource, open_captions
from trichord.releases.common import ALLOW_MISSING, RATES_HZ, ImportSummary, Made, Request, import_entries
from trichord.releases.exported import import_exported_howto100m
from trichord.releases.pieces import as_array, as_rows, named_path, time_major
from trichord.releases.records import export_mark
from trichord.store import Item

logger = get_logger(__name__)

COLLECTION = "howto100m"
Use = Literal["auto", "yes", "no"]

PATTERNS = {
    "visual_2d": ("{path}/{id}_2d.npz", "{path}_2d.npz", "{path}/{id}_2d.npy", "{path}_2d.npy"),
    "visual_3d": ("{path}/{id}_3d.npz", "{path}_3d.npz", "{path}/{id}_3d.npy", "{path}_3d.npy"),
    "spectrogram": ("{path}/{id}_spec.npz", "{path}_spec.npz"),
}
SEPARATE_PATTERNS = (
    "{path}.npy",
    "{path}/{id}.npz",
    "{path}.npz",
    "{path}/{id}.npy",
)  # if 2-D and 3-D features have separate folders
KEYS = {"visual_2d": "features", "visual_3d": "features", "spectrogram": "arr_0"}
OPTIONS = {"visual_2d": "features", "visual_3d": "features_3d", "spectrogram": "audio"}
WORDS = {"visual_3d": "3-D features", "spectrogram": "spectrograms"}
DOWNLOADED = (".mp4", ".mkv", ".webm")  # suffixes of the videos of HowTo100M
PROBES = 1000


@dataclass(frozen=True, slots=True)
class Video:
    """A row of the path list."""

    path: str
    video_id: str


@dataclass
class Stream:
    """The location of the files of one stream. The pattern that matched last is tried first."""

    name: str
    base: Path
    patterns: tuple[str, ...]
    suffix: str = ""  # a media suffix that the feature files have and the list lacks

    def find(self, video: Video) -> Path | None:
        """Return the file of a video; None if there is none."""
        if leads_out(video):
            return None
        for path, video_id in self._spellings(video):
            for pattern in self.patterns:
                file = self.base / pattern.format(path=path, id=video_id)
                if file.is_file():
                    if pattern != self.patterns[0]:
                        self.patterns = (pattern, *(p for p in self.patterns if p != pattern))
                    return file
        return None

    def _spellings(self, video: Video) -> Iterator[tuple[str, str]]:
        """Yield the path and id of a video as listed, then without and with the suffix of a media file."""
        yield video.path, video.video_id
        path, video_id = without_media_suffix(video.path), without_media_suffix(video.video_id)
        if (path, video_id) != (video.path, video.video_id):
            yield path, video_id
        if self.suffix:
            yield path + self.suffix, video_id + self.suffix

    def expected(self, video: Video) -> Path:
        """Return the expected path of the file of a video, for error messages."""
        return self.base / self.patterns[0].format(path=video.path, id=video.video_id)

    def load(self, path: Path) -> np.ndarray:
        """Load the rows (rows, width) of a file, time first."""
        array = load_npy(path) if path.suffix == ".npy" else load_npz_array(path, KEYS[self.name])
        if self.name != "spectrogram":
            return as_rows(array, str(path))
        with np.errstate(over="ignore"):  # values outside the range of float16 become infinite, which the store refuses
            return time_major(as_array(array, str(path)), str(path)).astype(np.float16, copy=False)


@deprecated_callback("progress")
@accepts_text_paths
def import_howto100m(
    root: Path,
    store: Path,
    words: Path | None = None,
    *,
    word_splitting: WordSplitting | None = None,
    paths: Path | None = None,
    features: Path | None = None,
    features_3d: Path | None = None,
    audio: Path | None = None,
    captions: Path | None = None,
    use_3d: Use = "auto",
    use_audio: Use = "auto",
    allow_missing: bool = False,
    num_threads: int = 4,
) -> ImportSummary:
    """Import HowTo100M features, spectrograms and captions into a store.

    An export in this layout is restored exactly, unless files are passed; then it is read like any release. Videos with missing or
    broken files or without captions are skipped and listed with the reason. If the import is run again, it continues where it
    stopped.

    Args:
        root: Folder of the release.
        store: Folder of the store. It is created if it does not exist, and extended if it does.
        words: File of word vectors (word2vec or GloVe). The default is GloVe 6B (50-d).
        word_splitting: How captions are split into words: unicode (letters keep their marks, as in Hindi and Thai) or
            published (as in the published loaders). The default is that of the store, or published for a new store.
        paths: Path list, a text or CSV file with a column `path`. The default is the one in root named *paths*.txt or .csv.
        features: Folder that the paths are relative to. The default is a folder in root.
        features_3d: Folder of the 3-D features if it is a different one, with the same paths.
        audio: Folder of the spectrograms if it is a different one.
        captions: Pickle or JSON file, or a folder with one CSV file per video. The default is the one in root.
        use_3d: Whether to import 3-D features and skip videos without them; auto does so if there are any.
        use_audio: Whether to import spectrograms and skip videos without them; auto does so if there are any.
        allow_missing: Import even if more than half of the listed videos have no captions.
        num_threads: Number of videos that are read at the same time.

    Raises:
        TrichordError: The folder, path list, features or captions are missing, or nothing could be imported.
    """
    request = Request(root, store, words, word_splitting, num_threads)
    mark = export_mark(root, COLLECTION) if not (paths or features or features_3d or audio or captions) else None
    if mark:
        left_out = [name for name, use in (("visual_3d", use_3d), ("spectrogram", use_audio)) if use == "no"]
        return import_exported_howto100m(request, mark, left_out)
    list_path = named_path(root, paths, "paths") if paths else find_path_list(root)
    videos = read_path_list(list_path)
    source = open_captions(root, captions)
    ids = (video.video_id for video in videos)
    match_ids(ids, source.index, source=str(list_path), allow_missing=allow_missing, option=ALLOW_MISSING)
    streams = find_streams(root, videos, features, features_3d, audio, use_3d, use_audio)
    logger.info(
        f"{COLLECTION}: {len(videos):,} videos of {list_path}, {' + '.join(s.name for s in streams)} "
        f"from {streams[0].base}, captions from {source.path}"
    )
    summary = import_entries(
        videos,
        request,
        collection=COLLECTION,
        video_id=lambda video: video.video_id,
        make=lambda video: read_video(video, streams, source),
        texts=itertools.chain.from_iterable(source.texts(video.video_id) for video in videos),
    )
    absent = [name for name in PATTERNS if name not in {stream.name for stream in streams}]
    if absent:
        summary.notes.append(
            f"not imported, because the release lacks them or they were not requested: {', '.join(absent)}"
        )
    return summary


def find_path_list(root: Path) -> Path:
    """Return the only path list in a folder.

    Raises:
        TrichordError: There is no path list, or more than one.
    """
    lists = sorted(p for p in root.iterdir() if p.is_file() and "paths" in p.stem and p.suffix in (".txt", ".csv"))
    if len(lists) > 1:
        raise TrichordError(f"{root}: contains {', '.join(p.name for p in lists)}; choose one path list with --paths")
    if not lists:
        raise TrichordError(f"{root}: contains no path list (*paths*.txt or *paths*.csv); pass it with --paths")
    return lists[0]


def read_path_list(path: Path) -> list[Video]:
    """Read the videos in a text or CSV file with a column `path`. The `None/` in some rows is removed.

    Raises:
        TrichordError: The file cannot be read, lists no video, or lists a video at two paths.
    """
    try:
        with open_regular_text(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            column = next((name for name in rows.fieldnames or [] if name and name.strip() == "path"), None)
            if column is None:
                raise TrichordError(f"{path}: has no column 'path'; make it the first line of the file")
            videos = [_video(row[column], row.get("video_id")) for row in rows if row[column] and row[column].strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrichordError(
            f"{path}: cannot be read as a path list ({error}); correct it or pass another with --paths"
        ) from None
    if not videos:
        raise TrichordError(f"{path}: lists no video; pass another path list with --paths")
    first: dict[str, str] = {}
    for video in videos:
        if (known := first.setdefault(video.video_id, video.path)) != video.path:
            raise TrichordError(
                f"{path}: lists the video '{one_line(video.video_id)}' at two paths ({one_line(known)}, {one_line(video.path)}); "
                "keep one of them"
            )
    return videos


def _video(row: str, video_id: str | None) -> Video:
    path = row.strip().replace("None/", "").removesuffix(".npy").strip("/")
    return Video(path, (video_id or "").strip() or PurePosixPath(path).name)


def leads_out(video: Video) -> bool:
    """Return whether the files of a video would be outside the folder of the features."""
    names = (video.path, video.video_id)
    return any(name.startswith("/") or "\0" in name or ".." in PurePosixPath(name).parts for name in names)


def find_streams(
    root: Path,
    videos: Sequence[Video],
    features: Path | None,
    features_3d: Path | None,
    audio: Path | None,
    use_3d: Use,
    use_audio: Use,
) -> list[Stream]:
    """Return the location of each stream to import, 2-D features first.

    Raises:
        TrichordError: There are no 2-D features, or requested features are missing.
    """
    separate = SEPARATE_PATTERNS if features_3d else ()
    roots = [root, *sorted(p for p in root.iterdir() if p.is_dir())]

    def find_stream(name: str, option: Path | None, places: list[Path], extra: tuple[str, ...] = ()) -> Stream | None:
        bases = [named_path(root, option, OPTIONS[name])] if option else places
        sample = videos[:: max(1, len(videos) // PROBES)]
        for suffix, probes in (("", sample), ("", videos), *((suffix, sample) for suffix in DOWNLOADED)):
            streams = [Stream(name, base, PATTERNS[name] + extra, suffix) for base in bases]
            for video in probes:
                for stream in streams:
                    if stream.find(video):
                        return stream
        return None

    visual = find_stream("visual_2d", features, roots, separate)
    if visual is None:
        where = f"{features or root}{'' if features else ' and its folders'}"
        example = PATTERNS["visual_2d"][0].format(path=videos[0].path, id=videos[0].video_id)
        raise TrichordError(
            f"{root}: no 2-D features, such as {example}, in {where}; pass their folder with --features"
        )
    streams = [visual]
    for name, use, option, places, extra in (
        ("visual_3d", use_3d, features_3d, [visual.base], separate),
        ("spectrogram", use_audio, audio, [visual.base, *roots], ()),
    ):
        stream = None if use == "no" else find_stream(name, option, places, extra)
        if stream:
            streams.append(stream)
        elif use == "yes" or (option and use == "auto"):
            raise TrichordError(
                f"{option or places[0]}: contains no {WORDS[name]} of the listed videos; pass their folder with --{OPTIONS[name]}"
            )
    return streams


def read_video(video: Video, streams: list[Stream], source: CaptionSource) -> Made:
    """Read one video.

    Raises:
        TrichordError: The video has no captions, or a file is missing or broken.
    """
    if leads_out(video):
        raise TrichordError(f"{video.path}: leads out of the folder of the features; correct the path list")
    captions, num_dropped = source.captions(video.video_id)
    if not len(captions):
        raise TrichordError(f"{source.path}: has no captions for {video.video_id}")
    arrays: dict[str, np.ndarray] = {}
    sources: dict[str, Path] = {}
    for stream in streams:
        path = stream.find(video)
        if path is None:
            raise TrichordError(f"{stream.expected(video)}: is missing; download it")
        array = stream.load(path)
        if not len(array):
            raise TrichordError(f"{path}: is empty, {array.shape}; download it again")
        arrays[stream.name], sources[stream.name] = array, path
    last = streams[-1].name  # the spectrogram, if there is one, because it has the highest rate
    duration_s = len(arrays[last]) / RATES_HZ[last]
    rates = {name: RATES_HZ[name] for name in arrays}
    return Made(Item(video.video_id, COLLECTION, "train", duration_s, arrays, rates, captions), sources, num_dropped)
