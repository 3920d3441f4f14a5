"""The driver of an extraction: plan, lease, extract, commit.

The plan compares every source with the store by content and fingerprint. Jobs are leased, so that several processes on one store
do not repeat work, and passed to worker processes, which write finished items into the spool of the store. From there they are
committed in the order of the plan, so that the store does not depend on the number of workers. A run that is killed only loses the
items in progress.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from trichord.captions import WordSplitting
from trichord.cluster import RayOptions
from trichord.errors import TrichordError
from trichord.extraction.arrays import parse_modalities, widths_of
from trichord.extraction.choice import EncoderChoice, describe
from trichord.extraction.driver import Run
from trichord.extraction.encoder_record import check_encoders, claim_encoders
from trichord.extraction.engines import Engine, LocalEngine
from trichord.extraction.folder import sources_of_folder, split_of
from trichord.extraction.plan import Known, Shard, first_names, jobs
from trichord.extraction.pool import Probes
from trichord.extraction.progress import Meter
from trichord.extraction.ray_engine import RayEngine
from trichord.extraction.sources import Source
from trichord.extraction.summary import ExtractSummary
from trichord.extraction.table import read_table
from trichord.extraction.table_rows import TABLE_SUFFIXES
from trichord.features.hashes import FileHashes
from trichord.files.folders import check_no_links
from trichord.files.paths import accepts_text_paths
from trichord.files.writing import writing_to
from trichord.media import choose_decoder
from trichord.modality import known
from trichord.store import Store
from trichord.store.encoders import declare_modalities
from trichord.store.items import check_collection
from trichord.store.leases import Leases
from trichord.store.ledger import CLASSES, LEDGER
from trichord.store.location import local_folder
from trichord.store.manifest import splitting_for
from trichord.store.words import word_vectors_for

_MAX_WORKERS = {"cpu": 64, "cuda": 16}
_QUIET_EVERY_S = 1.0
_FEW = 200  # with more sources, progress is not reported for every item

RETRY = ("all", *CLASSES)


@accepts_text_paths
def extract(
    videos: Path,
    store: Path,
    *,
    visual_2d: str = "efficientnet-lite0",
    visual_3d: str = "none",
    audio: str = "log-mel",
    text: str = "words",
    captions: Literal["auto", "none"] = "auto",
    speech: str = "none",
    weights_2d: Path | None = None,
    weights_3d: Path | None = None,
    words: Path | None = None,
    word_splitting: WordSplitting | None = None,
    collection: str = "videos",
    video_root: Path | None = None,
    modality: str = "",
    require: str = "",
    test_fraction: float = 0.2,
    workers: int | None = None,
    device: str = "cpu",
    decoder: str = "auto",
    engine: Literal["local", "ray"] = "local",
    ray_address: str = "",
    worker_cpus: int | None = None,
    worker_gpus: float | None = None,
    shard: str = "1/1",
    retry: str = "",
    dry_run: bool = False,
    stall_s: float = 30.0,
) -> ExtractSummary | str:
    """Extract features of a folder of videos, or of the clips of a table, into a store. Existing items are kept.

    Captions that were added or corrected are updated without extracting pictures and sound again. Items that older rules for times
    or captions extracted are updated if the result differs. A video never changes its split.

    Captions come from a .vtt, .srt, .ass, .ttml, .json or .csv file beside each video, else from its subtitle track, else, with
    `speech`, from speech recognition. A video without sound or captions is stored without them and noted. A video that cannot be
    used is listed in the store's skipped.jsonl with a class and the reason. Items that a system fault prevented (an I/O error, no
    memory, a full disk, a folder that cannot be listed) are tried again by the next run; the exit code is then 75, else 0.

    Args:
        videos: Folder of video files, including sub-folders, or a table of clips: .csv, .tsv, .jsonl or .parquet with any of the
            columns id, video or image, audio, text or captions, start, end, split, and those that `modality` names.
        store: Folder of the store. It is created if it does not exist, and extended if it does.
        visual_2d: Image encoder: efficientnet-lite0, resnet152, hf:MODEL, timm:MODEL or none. -PIXELS after the first
            two sets the short side.
        visual_3d: Video encoder: resnext101-3d, tv:MODEL or none.
        audio: Audio encoder: log-mel, hf:MODEL, both separated by a comma, or none.
        text: Text features: words (only word vectors), or an additional encoder of whole captions: hf:MODEL or st:MODEL.
        captions: Source of captions: auto (files next to the videos, subtitle tracks) or none.
        speech: Speech recognition for videos without captions: whisper:MODEL or none.
        weights_2d: Weights file of the image encoder (for hf: also a folder) to use instead of the default.
        weights_3d: Weights file of the video encoder to use instead of the default.
        words: File of word vectors (word2vec binary or text, GloVe text). The default is GloVe 6B 50-d.
        word_splitting: How text is split into words: unicode (letters keep their marks, as in Hindi and Thai) or published (as in
            the published loaders). The default is that of the store, or unicode for a new store.
        collection: Name of the collection in the store that these videos belong to.
        video_root: Folder of the videos if a table contains only video ids.
        modality: Modalities of a table beyond video, audio and text, separated by commas. Each is a column of feature arrays
            (.npy, or .npz with one array) and a letter for it in orders, such as depth=d. Empty: none.
        require: Modalities without which a video is skipped, separated by commas, such as audio,text. Empty: none.
        test_fraction: Fraction of the videos without a given split that are held out as `test`, chosen by a hash of their names.
        workers: Number of worker processes. The default is one per processor core (on Ray: as many as the nodes have room for).
            0 works in this process, without protection against files that crash a decoder.
        device: Device of the encoders: cpu or cuda.
        decoder: Decoder of pictures: auto, pyav or torchcodec.
        engine: Engine that runs the workers: local (processes on this machine) or ray (a Ray cluster whose nodes share the
            file system of videos and store).
        ray_address: Address of the Ray cluster: auto (the one that runs here), local (this machine only) or HOST:PORT. Empty:
            auto.
        worker_cpus: Number of processor cores per worker on Ray. The default is 1.
        worker_gpus: Number of GPUs per worker on Ray, possibly a fraction. The default is 1 with --device cuda, else 0.
        shard: Part of the work to do, such as 2/8 for the second of eight machines.
        retry: Classes of earlier failures to try again, separated by commas, such as unreadable,hung; `all` tries every class.
            Empty: none.
        dry_run: Report what would be done and how long it would take, without doing it.
        stall_s: Number of seconds without a picture or sound after which a decoder is stopped.

    Returns:
        The summary of the run, or the report of a dry run.

    Raises:
        TrichordError: The folder contains no videos, weights or words cannot be used, another encoder computed features of the
            store, or no video could be stored.
    """
    videos = Path(videos)
    is_table = videos.suffix.lower() in TABLE_SUFFIXES and not videos.is_dir()
    store = local_folder(store)
    declare_modalities(store)  # first, so that an error about a conflicting letter names the new one
    modalities = parse_modalities(modality)
    if modalities and not is_table:
        raise TrichordError(
            f"--modality {modality} names columns of a table, but {videos} is not a table; pass a table of clips"
        )
    choice = EncoderChoice(
        visual_2d, visual_3d, audio, text, captions, speech, weights_2d, weights_3d, decoder, tuple(modalities.items())
    )
    notes: list[str] = []
    unlisted: list[OSError] = []
    sources = (
        read_table(videos, video_root, modalities=tuple(modalities), notes=notes)
        if is_table
        else sources_of_folder(videos, unlisted, notes)
    )
    summary = extract_sources(
        sources, store, collection=collection, choice=choice, words=words,
        word_splitting=word_splitting, require=_names(require, known(), "require"),
        test_fraction=test_fraction, workers=workers, device=device, shard=shard, retry=_names(retry, RETRY, "retry"),
        dry_run=dry_run, stall_s=stall_s, root=videos, unlisted=unlisted,
        cluster=_cluster(engine, ray_address, worker_cpus, worker_gpus),
    )  # fmt: skip
    if isinstance(summary, ExtractSummary):
        summary.notes[:0] = notes
        return summary
    notes += [f"{error.filename}: cannot be listed ({error.strerror}); its videos are left out" for error in unlisted]
    return "\n".join([summary, *(f"note: {line}" for line in notes)])


def extract_sources(
    sources: Sequence[Source],
    store: Path,
    *,
    collection: str,
    choice: EncoderChoice = EncoderChoice(),  # noqa: B008 - frozen
    words: Path | None = None,
    word_splitting: str | None = None,
    require: tuple[str, ...] = (),
    test_fraction: float = 0.2,
    workers: int | None = None,
    device: str = "cpu",
    shard: str = "1/1",
    retry: tuple[str, ...] = (),
    dry_run: bool = False,
    stall_s: float = 30.0,
    root: Path | None = None,
    unlisted: Sequence[OSError] = (),
    cluster: RayOptions | None = None,
) -> ExtractSummary | str:
    """Extract features of the given sources. See `extract` for most arguments.

    `root` is the folder or table that the sources come from, and `unlisted` contains errors for the folders below it that could not
    be listed. `cluster` is the Ray cluster to run on; None runs on this machine.

    Returns:
        The summary of the run, or the report of a dry run.
    """
    started = time.monotonic()
    store = local_folder(store)
    if workers is not None and workers < 0:
        raise TrichordError(f"workers is {workers}; it must be at least 1, or 0 to work in this process")
    if not 0 <= stall_s < 1e6:
        raise TrichordError(f"stall_s is {stall_s}; it must be a number of seconds, such as 30, or 0 to wait forever")
    part = Shard.parse(shard)
    check_collection(collection)
    check_no_links(store)
    described = describe(choice, device)
    known = Known(store, collection)
    known.renew()
    word_splitting = check_words(store, words, word_splitting)
    widths = widths_of(sources, _stream_dims(store), dict(choice.modalities))
    notes = check_encoders(store, described.streams)
    probes = Probes(needs_captions=choice.captions == "auto" and choice.speech == "none", in_process=workers == 0)
    try:
        splits = split_of(sources, test_fraction, has_test=known.has_test, usable=probes)
    finally:
        probes.close()
    mine = [source for source in _by_file(sources) if part.has(source)]
    engine = _engine(cluster, choice, device, store, workers, len(mine), stall_s)
    encoders = " + ".join(fingerprint.name for fingerprint in described.streams.values())
    hashes = FileHashes(store, keep=not dry_run)
    plan = jobs(
        mine, described, known, hashes, names=first_names(sources), retry=frozenset(retry), require=require,
        trust_names=dry_run and known.is_empty,
    )  # fmt: skip
    if dry_run:
        from trichord.extraction.estimate import report

        try:
            return report(list(plan), choice, device, engine.count, encoders, store)
        finally:
            engine.close(now=True)
    summary = ExtractSummary(store, collection, encoders, len(mine), notes=notes)
    with writing_to(store, "choose another folder"):
        store.mkdir(parents=True, exist_ok=True)
    with Leases(store) as leases, _terminable():
        claim_encoders(store, leases, described.streams)
        meter = Meter(len(mine), _size(mine), 0.0 if len(mine) <= _FEW else _QUIET_EVERY_S)
        run = Run(
            store, collection=collection, words=words, word_splitting=word_splitting, splits=splits, known=known,
            described=described, summary=summary, require=require, choice=choice, decoder=choose_decoder(choice.decoder, device),
            stall_s=stall_s, widths=widths, leases=leases, meter=meter,
        )  # fmt: skip
        run.adopt()
        if root is not None and root.is_dir():
            run.note_unlisted(root, unlisted)
        run.work(plan, engine)
    counts = Store(store).collections() if any((store / "parts").glob("*.parquet")) else {}
    summary.splits = {split: count for (name, split), count in counts.items() if name == collection}
    summary.elapsed_s = time.monotonic() - started
    if not summary.splits and not summary.interrupted and not summary.num_leased and summary.num_skipped:
        raise TrichordError(
            f"{root or store}: none of {len(mine)} videos could be stored ({run.reasons[0] if run.reasons else ''}); "
            f"see {store / LEDGER} for all reasons"
        )
    return summary


def check_words(store: Path, words: Path | None, splitting: str | None = None) -> str:
    """Check, before any work is done, that word vectors can be read and are those of the store.

    Returns:
        How text is split into words: by `splitting`, else as in the store, else by the rules of Unicode.

    Raises:
        TrichordError: The word vectors cannot be read or are not those of the store.
    """
    vectors = word_vectors_for((), words)
    splitting = splitting_for(store, splitting)
    if any((store / "parts").glob("*.parquet")):
        existing = Store(store)
        if (existing.word_source, existing.word_dim) != (vectors.source, vectors.vectors.shape[1]):
            raise TrichordError(
                f"{store}: contains words from {existing.word_source}, not from {vectors.source}; "
                "pass the same word vectors with --words, or use another store"
            )
    return splitting or "unicode"


def _stream_dims(store: Path) -> dict[str, int]:
    """Return the width of each stream of a store, which need not exist yet."""
    has_parts = any((store / "parts").glob("*.parquet"))
    return {name: info.dim for name, info in Store(store).streams.items()} if has_parts else {}


def _by_file(sources: Sequence[Source]) -> list[Source]:
    """Return the sources in the given order, but with the clips of each file together and in order of time."""
    first: dict[object, int] = {}
    for index, source in enumerate(sources):
        first.setdefault(_file_of(source), index)
    return sorted(sources, key=lambda source: (first[_file_of(source)], source.start_s))


def _file_of(source: Source) -> object:
    """Return the file that clips are cut from, or the id of a clip without a file."""
    return source.video or source.audio or source.image or source.video_id


def _size(sources: Sequence[Source]) -> int:
    size = 0
    for source in sources:
        for path in source.files:
            try:
                size += path.stat().st_size
            except OSError:
                continue
    return size


def _cluster(engine: str, address: str, cpus: int | None, gpus: float | None) -> RayOptions | None:
    """Return the options of the Ray cluster, or None for the local engine.

    Raises:
        TrichordError: An option would have no effect.
    """
    if engine == "ray":
        return RayOptions(address or "auto", 1 if cpus is None else cpus, gpus)
    for name, value in (("ray_address", address or None), ("worker_cpus", cpus), ("worker_gpus", gpus)):
        if value is not None:
            raise TrichordError(
                f"--{name} {value} has no effect without --engine ray; add --engine ray, or leave the option out"
            )
    return None


def _engine(
    cluster: RayOptions | None, choice: EncoderChoice, device: str, store: Path, workers: int | None, num_sources: int,
    stall_s: float,
) -> Engine:  # fmt: skip
    if cluster is None:
        count = _num_workers(workers, num_sources, device)
        return LocalEngine(choice, device, count, _threads(count, device), stall_s)
    decoder = choose_decoder(choice.decoder, device).name
    return RayEngine(
        cluster, replace(choice, decoder=decoder), device, store, workers=workers, most=num_sources, stall_s=stall_s
    )


def _num_workers(workers: int | None, num_sources: int, device: str) -> int:
    if workers is None:
        workers = min(_num_cores(), _MAX_WORKERS.get(device.partition(":")[0], 4))
    return min(workers, max(num_sources, 1)) if workers else 0


def _threads(workers: int, device: str) -> int:
    """Return the number of encoding threads per worker. Workers share the cores; a GPU needs one thread."""
    return max(_num_cores() // max(workers, 1), 1) if device == "cpu" else 1


def _num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _names(text: str, known: Sequence[str], option: str) -> tuple[str, ...]:
    """Split `a,b` into (a, b).

    Raises:
        TrichordError: A name is unknown.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := [name for name in names if name not in known]:
        raise TrichordError(f"--{option}: unknown name '{unknown[0]}'; expected one of: {', '.join(known)}")
    return names


@contextmanager
def _terminable() -> Iterator[None]:
    """Handle SIGTERM, which clusters send before they kill a process, like Ctrl-C. An existing handler is kept."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
