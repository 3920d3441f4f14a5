"""The driver of an extraction: plan, lease, extract, commit.

The plan compares every source with the store by content and fingerprint. What is to be done is leased, so that several
processes on one store do nothing twice, and given to worker processes, which write finished items into the store's
spool. From there they are committed in the order of the plan, so that the store does not depend on the number of
workers. A run that is killed loses what was under way and nothing else.
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
_FEW = 200  # sources up to which every item gets its line

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
    """Extract features of a folder of videos, or of the clips of a table, into a store; what is already there is kept.

    Captions that were added or corrected since are taken up, without extracting pictures and sound again. What older rules for
    times or captions extracted is made anew where the result differs. A video never changes its split.

    Captions come from a .vtt, .srt, .ass, .ttml, .json or .csv file beside each video, else from its subtitle track, else, with
    `speech`, from speech recognition. A video without sound or captions is stored without them and noted; one that
    cannot be used is listed in the store's skipped.jsonl with a class and the reason. What a fault of the system kept from
    being done (an I/O error, no memory, a full disk, a folder that cannot be listed) is tried again by the next run; the exit
    code is then 75, else 0.

    Args:
        videos: folder of video files (its sub-folders count too), or a table of clips: .csv, .tsv, .jsonl or .parquet with
            the columns id, video or image, audio, text or captions, start, end, split, as far as there are any, and those that
            `modality` names.
        store: store folder; made if it is not there, added to if it is.
        visual_2d: image encoder: efficientnet-lite0, resnet152, hf:MODEL, timm:MODEL or none; -PIXELS after the first
            two sets the short side.
        visual_3d: video encoder: resnext101-3d, tv:MODEL or none.
        audio: audio encoder: log-mel, hf:MODEL, both separated by a comma, or none.
        text: words (word vectors alone), or a further encoder of whole captions: hf:MODEL or st:MODEL.
        captions: where captions come from: auto (files beside the videos, subtitle tracks) or none.
        speech: recognise speech where there are no captions: whisper:MODEL or none.
        weights_2d: weights file (for hf: also a folder) of the image encoder, in place of the usual one.
        weights_3d: weights file of the video encoder.
        words: word vectors (word2vec binary or text, GloVe text); GloVe 6B 50-d if not given.
        word_splitting: how text becomes words: unicode (letters keep their marks, as in Hindi and Thai) or published (as the
            published loaders do). If not given, that of the store; unicode for a new one.
        collection: name under which the store keeps these videos.
        video_root: for a table that names videos by id alone: the folder that holds them.
        modality: for a table: modalities beyond video, audio and text, each a column of feature arrays (.npy, or .npz with one
            array) and a letter that stands for it in orders, such as depth=d; several are separated by commas.
        require: modalities without which a video is skipped, separated by commas, such as audio,text.
        test_fraction: share of the videos without a stated split that are held out as `test`, chosen by a hash of their names.
        workers: worker processes; one per processor core (on Ray: as many as the nodes have room for) if not given. 0
            works in this process, without protection against files that crash a decoder.
        device: where the encoders compute: cpu or cuda.
        decoder: what decodes: auto, pyav or torchcodec.
        engine: what runs the workers: local (processes of this machine) or ray (a Ray cluster whose nodes share the
            file system of videos and store).
        ray_address: the Ray cluster: auto (the one that runs here; the default), local (this machine alone) or HOST:PORT.
        worker_cpus: cores of each worker on Ray; 1 if not given.
        worker_gpus: GPUs of each worker on Ray, which may be a fraction; 1 with --device cuda, else none.
        shard: part of the work, such as 2/8 for the second of eight machines.
        retry: classes of earlier failures to try again, separated by commas, such as unreadable,hung; `all` tries every class.
        dry_run: report what would be done and how long it would take, and do nothing.
        stall_s: seconds without a picture or sound after which a decoder is ended.

    Raises TrichordError for a folder without videos, unusable weights or words, a store whose features another encoder
    made, and when not one video could be stored.
    """
    videos = Path(videos)
    is_table = videos.suffix.lower() in TABLE_SUFFIXES and not videos.is_dir()
    store = local_folder(store)
    declare_modalities(store)  # first, so that an error about another letter speaks of the new one
    modalities = parse_modalities(modality)
    if modalities and not is_table:
        raise TrichordError(
            f"--modality {modality} names columns of a table, and {videos} is none; name a table of clips"
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
    """The same for sources that are known: see `extract`. A dry run returns its report as text. With `cluster`, on Ray.
    `unlisted`: errors for the folders below `root` that could not be listed."""
    started = time.monotonic()
    store = local_folder(store)
    if workers is not None and workers < 0:
        raise TrichordError(f"workers is {workers}; give 1 or more (0: in this process), or leave it out")
    if not 0 <= stall_s < 1e6:
        raise TrichordError(f"stall_s is {stall_s}; give seconds, such as 30 (0: wait for ever)")
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
    with writing_to(store, "name another folder"):
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
            f"all reasons are in {store / LEDGER}"
        )
    return summary


def check_words(store: Path, words: Path | None, splitting: str | None = None) -> str:
    """Refuse word vectors that cannot be read or are not the store's, before anything is done.

    Returns how text is split into words: as `splitting` states, else as the store states, else by the rules of Unicode.
    """
    given = word_vectors_for((), words)
    splitting = splitting_for(store, splitting)
    if any((store / "parts").glob("*.parquet")):
        existing = Store(store)
        if (existing.word_source, existing.word_dim) != (given.source, given.vectors.shape[1]):
            raise TrichordError(
                f"{store}: holds words of {existing.word_source}, not of {given.source}; "
                "name the same word vectors with --words, or another store"
            )
    return splitting or "unicode"


def _stream_dims(store: Path) -> dict[str, int]:
    """Return the width of each stream of a store, which need not exist yet."""
    has_parts = any((store / "parts").glob("*.parquet"))
    return {name: info.dim for name, info in Store(store).streams.items()} if has_parts else {}


def _by_file(sources: Sequence[Source]) -> list[Source]:
    """In the given order, but the clips of one file in a row, in order of time."""
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
    """The options of the engine. Raises TrichordError for one that would have no effect."""
    if engine == "ray":
        return RayOptions(address or "auto", 1 if cpus is None else cpus, gpus)
    for name, value in (("ray_address", address or None), ("worker_cpus", cpus), ("worker_gpus", gpus)):
        if value is not None:
            raise TrichordError(f"--{name} {value} has no effect without --engine ray; add that, or leave it out")
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
    """Encoding threads of a worker: the cores are shared out; a GPU wants one."""
    return max(_num_cores() // max(workers, 1), 1) if device == "cpu" else 1


def _num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _names(text: str, known: Sequence[str], option: str) -> tuple[str, ...]:
    """`a,b` -> (a, b). Raises TrichordError for a name that is not known."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := [name for name in names if name not in known]:
        raise TrichordError(f"--{option}: no '{unknown[0]}'; known are {', '.join(known)}")
    return names


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, which clusters send before they kill, ends the run as Ctrl-C does. A handler that is set already is kept."""
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
