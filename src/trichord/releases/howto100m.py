"""HowTo100M features and captions in the layouts of AVLnet, MCN, EAO and the original release, into a store.

A path list has one column `path` with rows such as `hobbies_and_crafts/video_8/8N4mGHodjss`. Features are
`PATH/ID_2d.npz` and `PATH/ID_3d.npz` (key `features`, (rows, width), 1 and 1.5 rows per second), spectrograms
`PATH/ID_spec.npz` (key `arr_0`, (40, frames), 100 frames per second, float16). EAO also has `PATH_2d.npz`, the
original release `.npy` files with the 2-D and 3-D ones in separate folders under the same path.
"""

from __future__ import annotations

import csv
import itertools
import logging
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
from trichord.logs import deprecated_callback
from trichord.releases.captions import CaptionSource, open_captions
from trichord.releases.common import ALLOW_MISSING, RATES_HZ, ImportSummary, Made, Request, import_entries
from trichord.releases.exported import import_exported_howto100m
from trichord.releases.pieces import as_array, as_rows, named_path, time_major
from trichord.releases.records import export_mark
from trichord.store import Item

logger = logging.getLogger(__name__)

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
)  # where 2-D and 3-D have own folders
KEYS = {"visual_2d": "features", "visual_3d": "features", "spectrogram": "arr_0"}
OPTIONS = {"visual_2d": "features", "visual_3d": "features_3d", "spectrogram": "audio"}
WORDS = {"visual_3d": "3-D features", "spectrogram": "spectrograms"}
DOWNLOADED = (".mp4", ".mkv", ".webm")  # suffixes of videos of HowTo100M
PROBES = 1000


@dataclass(frozen=True, slots=True)
class Video:
    """A row of the path list."""

    path: str
    video_id: str


@dataclass
class Stream:
    """Where the files of one stream lie. The pattern that fitted last is tried first."""

    name: str
    base: Path
    patterns: tuple[str, ...]
    suffix: str = ""  # of media files, which the names of the features have and the list has not

    def find(self, video: Video) -> Path | None:
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
        """The path and id of a video as they stand, then without and with the suffix of a media file."""
        yield video.path, video.video_id
        path, video_id = without_media_suffix(video.path), without_media_suffix(video.video_id)
        if (path, video_id) != (video.path, video.video_id):
            yield path, video_id
        if self.suffix:
            yield path + self.suffix, video_id + self.suffix

    def expected(self, video: Video) -> Path:
        return self.base / self.patterns[0].format(path=video.path, id=video.video_id)

    def load(self, path: Path) -> np.ndarray:
        """(rows, width), time first."""
        array = load_npy(path) if path.suffix == ".npy" else load_npz_array(path, KEYS[self.name])
        if self.name != "spectrogram":
            return as_rows(array, str(path))
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, which the store refuses
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

    An export in this layout arrives as it was, unless files are named: then it is read as any release.
    Videos that lack a file, have a broken one or no captions are skipped and listed with the reason. Run again, the
    import goes on where it stopped.

    Args:
        root: Folder of the release.
        store: Folder of the store; created if it does not exist, else added to.
        words: word2vec or GloVe file. By default, GloVe 6B (50-d).
        word_splitting: How captions become words: unicode (letters keep their marks, as in Hindi and Thai) or published (as the
            published loaders do). If not given, as in the store; published for a new one.
        paths: Path list, a text or CSV file with a column `path`; else the one in root named *paths*.txt or .csv.
        features: Folder that the paths start from; else found in root.
        features_3d: Folder of the 3-D features where it is another one, with the same paths.
        audio: Folder of the spectrograms where it is another one.
        captions: Pickle or JSON file, or a folder of one CSV per video; else found in root.
        use_3d: Whether 3-D features are imported, and videos without them skipped; auto: when there are any.
        use_audio: The same for spectrograms.
        allow_missing: Import also where more than half of the listed videos have no captions.
        num_threads: Videos that are read at the same time.

    Raises TrichordError when the folder, path list, features or captions are missing, or nothing could be imported.
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
        summary.notes.append(f"not imported, since the release has none or it was not asked for: {', '.join(absent)}")
    return summary


def find_path_list(root: Path) -> Path:
    found = sorted(p for p in root.iterdir() if p.is_file() and "paths" in p.stem and p.suffix in (".txt", ".csv"))
    if len(found) > 1:
        raise TrichordError(f"{root}: holds {', '.join(p.name for p in found)}; name one path list with --paths")
    if not found:
        raise TrichordError(f"{root}: no path list (*paths*.txt or *paths*.csv); name it with --paths")
    return found[0]


def read_path_list(path: Path) -> list[Video]:
    """Videos of a text or CSV file with a column `path`; the `None/` that some rows hold is taken out."""
    try:
        with open_regular_text(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            column = next((name for name in rows.fieldnames or [] if name and name.strip() == "path"), None)
            if column is None:
                raise TrichordError(f"{path}: has no column 'path'; make it the first line of the file")
            videos = [_video(row[column], row.get("video_id")) for row in rows if row[column] and row[column].strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrichordError(
            f"{path}: cannot be read as a path list ({error}); correct it or name another with --paths"
        ) from None
    if not videos:
        raise TrichordError(f"{path}: lists no video; name a path list that does with --paths")
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
    """Whether its files would lie elsewhere than below the features' folder."""
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
    """Streams to import: where each lies, 2-D first."""
    separate = SEPARATE_PATTERNS if features_3d else ()
    roots = [root, *sorted(p for p in root.iterdir() if p.is_dir())]

    def found(name: str, option: Path | None, places: list[Path], extra: tuple[str, ...] = ()) -> Stream | None:
        bases = [named_path(root, option, OPTIONS[name])] if option else places
        some = videos[:: max(1, len(videos) // PROBES)]
        for suffix, probes in (("", some), ("", videos), *((suffix, some) for suffix in DOWNLOADED)):
            streams = [Stream(name, base, PATTERNS[name] + extra, suffix) for base in bases]
            for video in probes:
                for stream in streams:
                    if stream.find(video):
                        return stream
        return None

    visual = found("visual_2d", features, roots, separate)
    if visual is None:
        where = f"{features or root}{'' if features else ' and its folders'}"
        example = PATTERNS["visual_2d"][0].format(path=videos[0].path, id=videos[0].video_id)
        raise TrichordError(
            f"{root}: no 2-D features, such as {example}, in {where}; name their folder with --features"
        )
    streams = [visual]
    for name, use, option, places, extra in (
        ("visual_3d", use_3d, features_3d, [visual.base], separate),
        ("spectrogram", use_audio, audio, [visual.base, *roots], ()),
    ):
        stream = None if use == "no" else found(name, option, places, extra)
        if stream:
            streams.append(stream)
        elif use == "yes" or (option and use == "auto"):
            raise TrichordError(
                f"{option or places[0]}: holds no {WORDS[name]} of the listed videos; name their folder with --{OPTIONS[name]}"
            )
    return streams


def read_video(video: Video, streams: list[Stream], source: CaptionSource) -> Made:
    """One video, ready for the store. Raises TrichordError saying what it lacks."""
    if leads_out(video):
        raise TrichordError(f"{video.path}: leads out of the features' folder; correct the path list")
    captions, num_dropped = source.captions(video.video_id)
    if not len(captions):
        raise TrichordError(f"{source.path}: has no captions of {video.video_id}")
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
    last = streams[-1].name  # the spectrogram where there is one: its rate is the finest
    duration_s = len(arrays[last]) / RATES_HZ[last]
    rates = {name: RATES_HZ[name] for name in arrays}
    return Made(Item(video.video_id, COLLECTION, "train", duration_s, arrays, rates, captions), sources, num_dropped)
