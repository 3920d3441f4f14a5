"""A folder of narrated videos into a store: pictures, sound and captions of each, one straight path.

Worker processes decode and encode, one video at a time each; the parent writes their results in the order of the
videos' names, so that the store does not depend on the number of workers. At most a few videos' features are in memory.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from trichord.captions import Captions, clean_captions
from trichord.errors import TrichordError, one_line
from trichord.features.folder import VideoFile, captions_of, find_videos, split_of
from trichord.features.spectrogram import FRAMES_PER_S, log_mel
from trichord.features.visual import DEFAULT_ENCODER, VisualEncoder, load_visual_encoder
from trichord.media import frames, probe, waveform
from trichord.media.decode import FRAME_HEIGHT, FRAME_WIDTH, SAMPLE_RATE_HZ
from trichord.store import Item, Store, StoreWriter
from trichord.store.words import word_vectors_for

ENCODERS_FILE = "encoders.json"  # in the store's folder: stream -> fingerprint of what made it
SPECTROGRAM_FINGERPRINT = "log-mel-40/v1"
_FRAMES_AT_ONCE = 32
_COMMIT_S = 300.0  # what a killed process can lose
_MAX_WORKERS = {"cpu": 32, "cuda": 4}
_BYTES_PER_WORKER = 4 << 20  # a process takes seconds to start: less video than this is not worth one


@dataclass
class ExtractSummary:
    """What an extraction did. `splits` counts all videos of the collection that the store now holds."""

    store: Path
    collection: str
    encoder: str
    num_videos: int
    num_added: int = 0
    num_skipped: int = 0
    num_present: int = 0
    video_s: float = 0.0
    elapsed_s: float = 0.0
    splits: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        splits = ", ".join(f"{count} {split}" for split, count in sorted(self.splits.items()))
        lines = [
            f"{self.num_added} videos ({self.video_s:.0f} s) extracted with {self.encoder} in {self.elapsed_s:.0f} s",
            f"{self.num_present} were there already, {self.num_skipped} skipped; '{self.collection}' now has {splits}",
        ]
        if self.num_skipped:
            lines.append(f"why they were skipped: {self.store / 'skipped.jsonl'}")
        shown = self.notes[:10]
        more = [f"... and {len(self.notes) - len(shown)} more notes"] if len(self.notes) > len(shown) else []
        return "\n".join([*lines, *(f"note: {note}" for note in shown), *more])


@dataclass
class _Extracted:
    """One video's features, or the reason why there are none."""

    duration_s: float = 0.0
    streams: dict[str, np.ndarray] = field(default_factory=dict)
    rates_hz: dict[str, float] = field(default_factory=dict)
    captions: Captions = field(default_factory=Captions.empty)
    notes: list[str] = field(default_factory=list)
    failure: str = ""


def extract(
    videos: Path,
    store: Path,
    *,
    encoder: str = DEFAULT_ENCODER,
    weights: Path | None = None,
    words: Path | None = None,
    collection: str = "videos",
    test_fraction: float = 0.2,
    workers: int | None = None,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> ExtractSummary:
    """Extract features of all videos under a folder into a store; what is there already is left alone.

    Captions come from a .vtt, .srt, .json or .csv file beside each video, else from its subtitle track. A video
    without sound or captions is stored without them and noted; one that cannot be read is listed in the store's
    skipped.jsonl with the reason.

    Args:
        videos: folder of video files; its sub-folders count too.
        store: store folder; made if it is not there, added to if it is.
        encoder: efficientnet-lite0 or resnet152, optionally with the short side in pixels: efficientnet-lite0-224.
        weights: weights file of the encoder, in place of the usual one.
        words: word vectors (word2vec binary or text, GloVe text); GloVe 6B 50-d if not given.
        collection: name under which the store keeps these videos.
        test_fraction: share of the videos held out as split `test`, where no folder train, val or test says it.
        workers: worker processes; if not given, one per processor core where there is enough to do.
        device: where the encoder computes: cpu or cuda.
        progress: called with one line per video.

    Raises TrichordError for a folder without videos, unusable weights or words, a store whose features another encoder
    made, and when not one video could be stored.
    """
    started = time.monotonic()
    videos, store = Path(videos), Path(store)
    if workers is not None and workers < 1:
        raise TrichordError(f"workers is {workers}; give 1 or more, or leave it out")
    found = find_videos(videos)
    network = load_visual_encoder(encoder, weights, device)
    fingerprints = {
        "visual_2d": f"{network.fingerprint}/{FRAME_WIDTH}x{FRAME_HEIGHT}",
        "spectrogram": SPECTROGRAM_FINGERPRINT,
    }
    existing = _existing(store)
    summary = ExtractSummary(store, collection, network.name, len(found))
    present = set()
    if existing is not None:
        summary.notes += check_encoders(store, existing, fingerprints, network.dim)
        present = {existing.video_id(int(i)) for i in existing.select(collection)}
    has_test = existing is not None and existing.collections().get((collection, "test"), 0) > 0
    splits = split_of(found, test_fraction, has_test=has_test)
    todo = [video for video in found if video.video_id not in present]
    summary.num_present = len(found) - len(todo)
    if todo:
        vectors = word_vectors_for(_texts(todo), words)
        with StoreWriter(store, vectors) as writer:
            write_encoders(store, fingerprints)
            recipe = _Recipe(encoder, weights, device)
            _fill(writer, summary, todo, splits, recipe, network, _num_workers(workers, todo, device), progress)
        summary.num_added, summary.num_skipped = writer.num_added, writer.num_skipped
        if not writer.num_added and not summary.num_present:
            raise TrichordError(
                f"{videos}: none of {len(found)} videos could be stored ({summary.notes[-1]}); "
                f"all reasons are in {store / 'skipped.jsonl'}"
            )
    counts = Store(store).collections()
    summary.splits = {split: count for (name, split), count in counts.items() if name == collection}
    summary.elapsed_s = time.monotonic() - started
    return summary


@dataclass(frozen=True)
class _Recipe:
    """How a worker process makes its own encoder."""

    encoder: str
    weights: Path | None
    device: str


def _fill(
    writer: StoreWriter,
    summary: ExtractSummary,
    todo: list[VideoFile],
    splits: dict[str, str],
    recipe: _Recipe,
    network: VisualEncoder,
    workers: int,
    progress: Callable[[str], None] | None,
) -> None:
    """Extract `todo` and write the results in its order, committing now and then."""
    seen: dict[str, str] = {}
    committed = time.monotonic()
    for count, (video, result) in enumerate(_results(todo, recipe, network, workers), start=1):
        if video.video_id in seen:
            result.failure = f"has the same name as {seen[video.video_id]}; rename one"
        seen.setdefault(video.video_id, video.name)
        if result.failure:
            writer.skip(video.name, result.failure)
            summary.notes.append(f"{video.name}: {result.failure}")
            line = f"skipped: {result.failure}"
        else:
            split = splits[video.video_id]
            writer.add(
                Item(
                    video_id=video.video_id,
                    collection=summary.collection,
                    split=split,
                    duration_s=result.duration_s,
                    streams=result.streams,
                    rates_hz=result.rates_hz,
                    captions=result.captions,
                )
            )
            summary.notes += result.notes
            summary.video_s += result.duration_s
            line = f"{result.duration_s:.1f} s, {len(result.captions)} captions, {split}"
        if progress is not None:
            progress(f"{count}/{len(todo)} {video.name}: {line}")
        if time.monotonic() - committed > _COMMIT_S:
            writer.flush()
            committed = time.monotonic()


def _results(
    todo: list[VideoFile], recipe: _Recipe, network: VisualEncoder, workers: int
) -> Iterator[tuple[VideoFile, _Extracted]]:
    """Each video with its result, in order. With workers, a few more videos are under way than there are workers."""
    if workers == 1:
        for video in todo:
            yield video, extract_video(video, network)
        return
    context = multiprocessing.get_context("spawn")
    remaining = iter(todo)
    waiting: deque[tuple[VideoFile, Future[_Extracted]]] = deque()
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(recipe,)) as pool:
        try:
            while True:
                for video in islice(remaining, 3 * workers - len(waiting)):
                    waiting.append((video, pool.submit(_in_worker, video)))
                if not waiting:
                    return
                video, future = waiting.popleft()
                yield video, future.result()
        except BrokenProcessPool:
            raise TrichordError(
                f"{video.path}: a worker process ended abruptly at this video or one of the next {len(waiting)} "
                "(out of memory, or a damaged file); what came before is stored: run again with workers=1 to see which"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker_encoder: VisualEncoder | None = None


def _start_worker(recipe: _Recipe) -> None:
    global _worker_encoder
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    torch.set_num_threads(1)
    _worker_encoder = load_visual_encoder(recipe.encoder, recipe.weights, recipe.device)


def _in_worker(video: VideoFile) -> _Extracted:
    assert _worker_encoder is not None
    return extract_video(video, _worker_encoder)


def extract_video(video: VideoFile, encoder: VisualEncoder) -> _Extracted:
    """All streams and captions of one video; whatever is wrong with the file becomes `failure` or a note."""
    import av

    try:
        return _extract_video(video, encoder)
    except (ValueError, OSError, RuntimeError, MemoryError, av.FFmpegError) as error:
        reason = one_line(error) or type(error).__name__
        return _Extracted(failure=reason.removeprefix(f"{video.path}: "))


def _extract_video(video: VideoFile, encoder: VisualEncoder) -> _Extracted:
    notes: list[str] = []
    info = probe(video.path)
    captions = captions_of(video.path)
    rows = []
    pictures = frames(video.path, rate_hz=encoder.rate_hz, notes=notes)
    while batch := list(islice(pictures, _FRAMES_AT_ONCE)):
        rows.append(encoder.encode(np.stack(batch)))
    streams = {"visual_2d": np.concatenate(rows)}
    rates_hz = {"visual_2d": encoder.rate_hz}
    sound = waveform(video.path, notes=notes)
    if sound.size:
        streams["spectrogram"] = np.ascontiguousarray(log_mel(sound).T.astype(np.float16))
        rates_hz["spectrogram"] = FRAMES_PER_S
    else:
        notes.append(f"{video.name}: has no sound; stored without a spectrogram")
    decoded_s = max(len(streams["visual_2d"]) / encoder.rate_hz, sound.size / SAMPLE_RATE_HZ)
    duration_s = min(info.duration_s, decoded_s) if info.duration_s else decoded_s
    captions, repairs = clean_captions(captions, duration_s=duration_s, source=video.name)
    if not len(captions):
        repairs.append(f"{video.name}: has no captions; text cannot be learnt or tested with it")
    notes = [note.replace(str(video.path), video.name) for note in notes]
    return _Extracted(duration_s, streams, rates_hz, captions, [*notes, *repairs])


def _texts(videos: list[VideoFile]) -> Iterator[str]:
    """Texts of all captions, for the words; files that cannot be read are reported when their turn comes."""
    for video in videos:
        try:
            yield from captions_of(video.path).text
        except TrichordError:
            continue


def _num_workers(workers: int | None, videos: list[VideoFile], device: str) -> int:
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        num_bytes = sum(video.path.stat().st_size for video in videos)
        workers = min(cores, _MAX_WORKERS.get(device.partition(":")[0], 4), 1 + num_bytes // _BYTES_PER_WORKER)
    return max(min(workers, len(videos)), 1)


def _existing(store: Path) -> Store | None:
    """The store, if it holds anything yet."""
    return Store(store) if any((store / "parts").glob("*.parquet")) else None


def check_encoders(store: Path, existing: Store, fingerprints: dict[str, str], visual_dim: int) -> list[str]:
    """Notes on features of unknown origin. Raises TrichordError if another encoder made the features of the store."""
    path, notes = store / ENCODERS_FILE, []
    try:
        recorded = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise TrichordError(f"{path}: cannot be read ({one_line(error)}); restore it or use another store") from None
    for stream, fingerprint in fingerprints.items():
        if stream not in existing.streams:
            continue
        if recorded.get(stream, fingerprint) != fingerprint:
            raise TrichordError(
                f"{store}: its {stream} features were made by {recorded[stream]}, these would be {fingerprint}; "
                "use the same encoder and weights, or another store"
            )
        if stream not in recorded:
            notes.append(f"{store}: what made its {stream} features is not recorded; only their width was compared")
    if "visual_2d" in existing.streams and (dim := existing.streams["visual_2d"].dim) != visual_dim:
        raise TrichordError(
            f"{store}: its visual_2d features are {dim} wide, these would be {visual_dim}; "
            "use the encoder that made them, or another store"
        )
    return notes


def write_encoders(store: Path, fingerprints: dict[str, str]) -> None:
    """Record in the store's folder what makes its features; entries of other streams are kept."""
    path = store / ENCODERS_FILE
    recorded = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    partial_path = path.with_name(f".{ENCODERS_FILE}.tmp")
    partial_path.write_text(json.dumps({**recorded, **fingerprints}, indent=2) + "\n", encoding="utf-8")
    os.replace(partial_path, path)
