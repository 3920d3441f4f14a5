"""Embed media files with their captions, and the clips of tables (`trichord embed`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trichord.captions import Captions
from trichord.embedder.embedder import Embedder
from trichord.embedder.encoders import IMAGE_SUFFIXES, Absent, file_of
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.extraction.folder import captions_of, sources_of_folder
from trichord.extraction.sources import Source
from trichord.extraction.table import read_table
from trichord.extraction.table_rows import TABLE_SUFFIXES
from trichord.files.paths import accepts_text_paths
from trichord.logs import get_logger
from trichord.media import probe
from trichord.media.watchdog import watching
from trichord.modality import further_letters

logger = get_logger(__name__)

EmbeddedFile = tuple[list["Clip"], list[dict[str, np.ndarray]]]  # clips, and embeddings (D,) of each by modality


@dataclass(frozen=True)
class Clip:
    """Part of a file, its captions, and the modalities that it may have.

    Attributes:
        file: The file.
        start_s: Start in the file in seconds.
        end_s: End in the file in seconds.
        is_whole: Whether the clip is the whole file.
        captions: Captions of the clip.
        modalities: Modalities that the clip may have.
        id: Id of the row of a table; '' for clips of files.

    Example:
        >>> clip = Clip(Path("a.mp4"), 0.0, 2.0, True, captions=("stir the soup",), modalities=("video", "text"))
        >>> clip.name, clip.captions
        ('a.mp4', ('stir the soup',))
    """

    file: Path
    start_s: float
    end_s: float
    is_whole: bool
    captions: tuple[str, ...]
    modalities: tuple[str, ...]
    id: str = ""

    @property
    def name(self) -> str:
        """Id of the clip in the results.

        Example:
            >>> Clip(Path("a.mp4"), 0.0, 1.0, is_whole=False, captions=(), modalities=("video",)).name
            'a.mp4@0.00-1.00'
        """
        if self.id:
            return self.id
        return self.file.as_posix() if self.is_whole else f"{self.file.as_posix()}@{self.start_s:.2f}-{self.end_s:.2f}"


def embed_file(model: Embedder, path: Path | Source, window_s: float | None = None) -> EmbeddedFile:
    """Return the clips of a file, or the clip of a row of a table, and their embeddings.

    Args:
        model: Model that embeds the modalities of the file.
        path: The file, or the row of a table.
        window_s: Duration of the clips that longer files are cut into in seconds; None for one clip per file.

    Raises:
        TrichordError: The file cannot be used.

    Example:
        >>> model = Embedder.from_pretrained("my_depth_model")
        >>> (clip,), (embeddings,) = embed_file(model, Path("a.mp4"))
        >>> clip.name, {modality: embedding.shape for modality, embedding in embeddings.items()}
        ('a.mp4', {'video': (8,)})
    """
    if isinstance(path, Source):
        return _embedded_source(model, path)
    clips = clips_of(path, model, window_s)
    return clips, [_embedded(model, clip) for clip in clips]


def _embedded_source(model: Embedder, source: Source) -> EmbeddedFile:
    """Return the clip of a row of a table, and the embedding (D,) of each modality in the row."""
    embeddings: dict[str, np.ndarray] = {}
    media: list[tuple[str, Path | None]] = [("video", source.image)]
    for file in dict.fromkeys(file for file in (source.video, source.audio) if file is not None):
        with watching(file):
            info = probe(file)
        media.append(("video", file if info.has_video and file == source.video else None))
        media.append(("audio", file if info.has_audio and file == (source.audio or source.video) else None))
    encode: dict[str, Callable[..., np.ndarray]] = {"video": model.encode_video, "audio": model.encode_audio}
    for modality, path in media:
        if path is not None and modality in model.modalities:
            span = {} if path == source.image else {"start_s": source.start_s, "end_s": source.end_s}
            with suppress(Absent):
                embeddings[modality] = encode[modality](path, **span)[0]
    for modality, array in source.arrays.items():
        embeddings[modality] = model.encode_features(modality, array)[0]
    captions: tuple[str, ...] = ()
    if "text" in model.modalities:
        with watching(source.video or source.audio or Path()):
            captions = tuple(captions_of(source, 1.0).text)
        if captions and model.knows(captions):
            embeddings["text"] = model.encode_text([captions])[0]
    main_file = source.video or source.image or source.audio or next(iter(source.arrays.values()))
    end_s = source.start_s if source.end_s is None else source.end_s
    return [Clip(main_file, source.start_s, end_s, False, captions, tuple(embeddings), source.video_id)], [embeddings]


@accepts_text_paths
def embed_files(
    model: Embedder,
    files: Sequence[Path],
    *,
    window_s: float | None = None,
    worker: Callable[[Path | Source, float | None], EmbeddedFile] | None = None,
) -> Embedded:
    """Embed files as clips in the joint space of a model.

    Args:
        model: Model that embeds the modalities of each file. Text is taken from captions next to a file or from a subtitle track.
        files: Media files and pictures. A folder stands for the videos in it and its subfolders, and a table of clips, as read by
            `trichord extract`, for its rows. A column named like a modality of the model contains paths of feature arrays.
        window_s: Duration of the clips that longer files are cut into, in seconds. Each clip has the captions whose middle it
            contains. A remainder of less than half of this duration is added to the previous clip. None for one clip per file.
        worker: Function that embeds one file, given the file and `window_s`. A `worker.Worker` does this in another process, so
            that a file that crashes or hangs its decoder is treated as unusable. None embeds files in this process.

    Returns:
        Embeddings of all clips. Files that cannot be used are left out with a warning.

    Raises:
        TrichordError: A folder contains no videos, or no file can be used.

    Example:
        >>> model = Embedder.from_pretrained("my_depth_model")
        >>> embedded = embed_files(model, [Path("a.mp4"), Path("b.mp4")], window_s=1.0)
        >>> embedded.ids[:2].tolist(), embedded.embeddings["video"].shape
        (['a.mp4@0.00-1.00', 'a.mp4@1.00-2.00'], (4, 8))
    """
    if window_s is not None and not 0 < window_s < float("inf"):
        raise TrichordError(f"window_s is {window_s}; give a positive number of seconds")
    sources: list[Path | Source] = []
    notes: list[str] = []
    for file in files:
        if file.suffix.lower() in TABLE_SUFFIXES and not file.is_dir():
            if window_s is not None:
                raise TrichordError(
                    f"{file}: the rows of a table are clips and are not cut into windows; omit --window_s"
                )
            further = tuple(further_letters(model.modalities))
            sources += read_table(file, modalities=further, may_lack=True, notes=notes)
            continue
        videos = [s.video for s in sources_of_folder(file, notes=notes)] if file.is_dir() else [file]
        sources += [video for video in videos if video is not None]
    for note in notes:
        logger.warning(f"note: {note}")
    clips: list[Clip] = []
    rows: list[dict[str, np.ndarray]] = []
    num_unused = 0
    for path in sources:
        try:
            clips_of_file, rows_of_file = worker(path, window_s) if worker else embed_file(model, path, window_s)
        except TrichordError as error:
            if len(sources) == 1:
                raise
            row = f"{path.name}: " if isinstance(path, Source) else ""
            logger.warning(f"left out: {row}{error}")
            num_unused += 1
            continue
        clips += clips_of_file
        rows += rows_of_file
    if not clips:
        raise TrichordError(f"none of the {len(sources)} files can be used; the lines above give the reasons")
    if num_unused:
        logger.warning(f"{num_unused} of {len(sources)} files were left out; the lines above say why")
    is_valid = {m: np.array([m in row for row in rows]) for m in model.modalities}
    zeros = np.zeros(model.dim, np.float32)
    return Embedded.of(
        {m: np.stack([row.get(m, zeros) for row in rows]) for m in model.modalities},
        valid=is_valid,
        ids=[clip.name for clip in clips],
        videos=[clip.file.as_posix() for clip in clips],
        start_s=np.array([clip.start_s for clip in clips]),
        end_s=np.array([clip.end_s for clip in clips]),
        captions=[" ".join(clip.captions) for clip in clips],
    )


def clips_of(path: Path, model: Embedder, window_s: float | None) -> list[Clip]:
    """Return the clips of one file.

    Args:
        path: The file.
        model: Model that determines the modalities of interest.
        window_s: Duration of the clips that longer files are cut into in seconds; None for one clip.

    Raises:
        TrichordError: The file does not exist, is a folder, a URL or not a media file, or has no duration.

    Example:
        >>> model = Embedder.from_pretrained("my_model")
        >>> [(clip.name, clip.modalities) for clip in clips_of(Path("a.mp4"), model, window_s=None)]
        [('a.mp4', ('video', 'audio', 'text'))]
    """
    file_of(path)
    if path.suffix.lower() in (".npy", ".npz"):
        raise TrichordError(
            f"{path}: the file is a feature array; list it in a table of clips, in a column named like its modality"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        if "video" not in model.modalities:
            raise TrichordError(
                f"{path}: the file is a picture, but this model was not trained on video; give sounds or texts"
            )
        return [Clip(path, 0.0, 0.0, True, (), ("video",))]
    with watching(path):
        info = probe(path)
    has_modality = {"video": info.has_video, "audio": info.has_audio}
    captions = Captions.empty()
    if "text" in model.modalities:
        with watching(path):
            captions = captions_of(Source(path.stem, str(path), video=path), info.duration_s)
    modalities = tuple(m for m in model.modalities if has_modality.get(m, m == "text"))
    if window_s is None or info.duration_s <= window_s:
        return [Clip(path, 0.0, info.duration_s, True, tuple(captions.text), modalities)]
    starts = np.arange(0.0, info.duration_s, window_s)
    if len(starts) > 1 and info.duration_s - starts[-1] < window_s / 2:
        starts = starts[:-1]
    ends = [*starts[1:].tolist(), info.duration_s]
    middle = (np.asarray(captions.start_s) + np.asarray(captions.end_s)) / 2
    return [
        Clip(
            path,
            start,
            end,
            False,
            tuple(captions.text[i] for i in np.flatnonzero((middle >= start) & (middle < end))),
            modalities,
        )
        for start, end in zip(starts.tolist(), ends, strict=True)
    ]


def _embedded(model: Embedder, clip: Clip) -> dict[str, np.ndarray]:
    """Return the embeddings (D,) of the modalities of a clip, without those of tracks that end before the clip."""
    start_s, end_s = (None, None) if clip.is_whole else (clip.start_s, clip.end_s)
    embeddings: dict[str, np.ndarray] = {}
    if "text" in clip.modalities and clip.captions and model.knows(clip.captions):
        embeddings["text"] = model.encode_text([clip.captions])[0]
    encode: dict[str, Callable[..., np.ndarray]] = {"video": model.encode_video, "audio": model.encode_audio}
    for modality in (m for m in clip.modalities if m != "text"):
        try:
            embeddings[modality] = encode[modality](clip.file, start_s=start_s, end_s=end_s)[0]
        except Absent:
            continue
        except TrichordError:  # the first clip of the file was readable, so the track ends before this clip
            if clip.start_s == 0:
                raise
    return embeddings
