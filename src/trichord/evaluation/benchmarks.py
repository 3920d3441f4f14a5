"""Zero-shot retrieval on a store's held-out clips, under named protocols."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trichord.data.batches import evaluation_clips
from trichord.data.reader import AudioInput, ClipReader, Clips, TextInput, require_modalities
from trichord.errors import TrichordError
from trichord.evaluation.ranks import chance_recall, metrics_from_counts, retrieval_ranks
from trichord.modality import NAMES, Direction
from trichord.parallel import gather_rows, num_processes, on_main, process_index

if TYPE_CHECKING:
    from trichord.nn import MCN
    from trichord.store import Store

CLIPS_PER_BATCH = 64  # one forward; 64 clips of 5,120 frames need 2.6 GB in the first layer at full width


@dataclass(frozen=True)
class Benchmark:
    """A collection and split of a store, with the protocol under which it is scored.

    Attributes:
        name: As given and printed.
        collection: Of the store.
        split: Of the store.
        missing: `drop` leaves clips that lack a modality out; `miss` counts them as errors.
        audio_frames: Spectrogram frames of a clip; 0 takes the training length.
        title: Heading in tables.
        protocol: One paragraph.
    """

    name: str
    collection: str
    split: str
    missing: str
    audio_frames: int
    title: str
    protocol: str


PUBLISHED = {
    "youcook2": Benchmark(
        "youcook2", "youcook2", "val", "drop", 5120, "YouCook2",
        "YouCook2 validation clips, one caption each; every clip with the modalities asked for is a query and in the gallery "
        "(3,350 with pooled features, 3,339 with full-resolution ones); 5,120 spectrogram frames.",
    ),
    "msrvtt": Benchmark(
        "msrvtt", "msrvtt", "test", "miss", 3072, "MSR-VTT",
        "MSR-VTT 1k (JSFusion test captions), one caption a clip; clips without features count as errors (968 of 1,000 have "
        "audio), so recalls have the full denominator; 3,072 spectrogram frames.",
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class QueryRanks:
    """What every figure of a direction follows from, query by query: see `evaluation.ranks`.

    Attributes:
        clip: (Q,) number of the benchmark's clip that each query is.
        greater: (Q,) gallery items that score higher than the truth.
        equal: (Q,) those that score the same, the truth included.
        num_gallery: Items that were ranked.
    """

    clip: np.ndarray
    greater: np.ndarray
    equal: np.ndarray
    num_gallery: int


@dataclass(frozen=True)
class RetrievalResult:
    """One direction on one benchmark. Recalls and chance are in percent."""

    benchmark: str
    direction: str
    r1: float
    r5: float
    r10: float
    medr: float
    meanr: float
    num_queries: int
    num_gallery: int
    num_missing: int
    missing: str
    chance_r1: float
    chance_r5: float
    chance_r10: float
    ties: str = "expected"
    ranks: QueryRanks | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The figures, without the ranks of the queries."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "ranks"}


def find_benchmark(store: Store, name: str) -> Benchmark:
    """A benchmark by name: `youcook2`, `msrvtt`, or any COLLECTION or COLLECTION/SPLIT of the store.

    Raises TrichordError that lists what the store has.
    """
    have = store.collections()
    if name in PUBLISHED and (PUBLISHED[name].collection, PUBLISHED[name].split) in have:
        return PUBLISHED[name]
    collection, _, split = name.partition("/")
    splits = [s for c, s in have if c == collection and (s == split if split else s != "train")]
    if not splits:
        known = ", ".join(benchmark_names(store)) or "none"
        raise TrichordError(
            f"{store.path}: no clips for benchmark '{name}'; the store has {known} (or COLLECTION/SPLIT)"
        )
    chosen = "test" if "test" in splits else sorted(splits)[0]
    protocol = (
        f"Clips of {collection}/{chosen}: neighbouring captions are joined until the clip is long enough, each caption is "
        "used once, clips do not overlap; clips that lack a modality are left out."
    )
    return Benchmark(name, collection, chosen, "drop", 0, name, protocol)


def benchmark_names(store: Store) -> list[str]:
    """Benchmarks that the store has clips for: collections with a split other than `train`."""
    return list(dict.fromkeys(collection for collection, split in store.collections() if split != "train"))


@dataclass(frozen=True)
class ScoringSettings:
    """Plain arguments of an evaluation.

    Attributes:
        visual_streams: Streams that make the video features.
        min_clip_s: Shortest clip.
        audio_frames: Frames of a clip where the benchmark names none.
        max_words: Words of a clip.
        audio_pad_db: Value of padded frames.
        cosine: Scores are cosines.
        missing: `auto`, `drop` or `miss`.
        block: Rows of a score block.
        audio: `spectrogram` or `embeddings`: what the model's audio encoder reads.
        text: `words` or `embeddings`: what its text encoder reads.
    """

    visual_streams: tuple[str, ...]
    min_clip_s: float
    audio_frames: int
    max_words: int
    audio_pad_db: float = -80.0
    cosine: bool = False
    missing: str = "auto"
    block: int = 1024
    audio: AudioInput = "spectrogram"
    text: TextInput = "words"


@torch.no_grad()
def embed_clips(
    model: MCN, store: Store, clips: Clips, modalities: tuple[str, ...], audio_frames: int, settings: ScoringSettings
) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    """Embeddings (N, D) and (N,) whether the clip has the modality, for each modality asked for.

    Every clip's audio is padded to `audio_frames`, so that an embedding does not depend on the clips beside it. The
    processes of a launch share the clips, each some neighbouring batches; all of them get all embeddings, the same bits as
    one process gets.
    """
    device = next(model.parameters()).device
    reader = ClipReader(
        store,
        modalities,
        visual_streams=settings.visual_streams,
        audio_frames=audio_frames,
        audio_pad_db=settings.audio_pad_db,
        max_words=settings.max_words,
        audio=settings.audio,
        text=settings.text,
    )
    table = torch.from_numpy(store.word_vectors).to(device)
    found: dict[str, list[Tensor]] = {m: [] for m in modalities}
    valid: dict[str, list[Tensor]] = {m: [] for m in modalities}
    model.eval()
    begins = np.array_split(np.arange(0, len(clips), CLIPS_PER_BATCH), num_processes())[process_index()]
    for begin in begins.tolist():
        rows = np.arange(begin, min(begin + CLIPS_PER_BATCH, len(clips)))
        batch = reader.read(clips.take(rows)).to(device)
        for modality, embedding in model.embed(**batch.model_inputs(table)).items():
            found[modality].append(embedding.float().cpu())
            valid[modality].append(batch.valid[modality].cpu())
    nothing, nowhere = torch.empty(0, int(model.arguments["embed_dim"])), torch.empty(0, dtype=torch.bool)
    return (
        {m: _whole(found[m] or [nothing], device) for m in modalities},
        {m: _whole(valid[m] or [nowhere], device).numpy() for m in modalities},
    )


def _whole(batches: list[Tensor], device: torch.device) -> Tensor:
    """The rows of these batches and of those of the other processes, in order."""
    rows = torch.cat(batches)
    return rows if num_processes() == 1 else gather_rows(rows.to(device)).cpu()


def benchmark_clips(store: Store, benchmark: Benchmark, settings: ScoringSettings) -> Clips:
    """The clips of a benchmark, in the order in which `QueryRanks` numbers them."""
    return evaluation_clips(store, store.select(benchmark.collection, benchmark.split), settings.min_clip_s)


@dataclass(frozen=True, eq=False)
class Embedded:
    """A benchmark's clips in the joint space: per modality (N, D) embeddings and (N,) whether the clip has it."""

    clips: Clips
    embeddings: dict[str, Tensor]
    valid: dict[str, np.ndarray]


def embed_benchmark(
    model: MCN, store: Store, benchmark: Benchmark, modalities: tuple[str, ...], settings: ScoringSettings
) -> Embedded:
    """Embed the clips of a benchmark, each modality once.

    Raises TrichordError when the store lacks one of the modalities.
    """
    needed = tuple(m for m in NAMES.values() if m in modalities)
    require_modalities(store, needed, f"benchmark {benchmark.name}", audio=settings.audio, text=settings.text)
    clips = benchmark_clips(store, benchmark, settings)
    frames = benchmark.audio_frames or settings.audio_frames
    return Embedded(clips, *embed_clips(model, store, clips, needed, frames, settings))


def score_embeddings(
    found: Embedded, benchmark: Benchmark, directions: list[Direction], settings: ScoringSettings
) -> list[RetrievalResult]:
    """Score embedded clips in several directions.

    A side of several modalities is the sum of their embeddings (of unit length with `settings.cosine`).

    Raises TrichordError when no clip has all that a direction needs.
    """
    embeddings = found.embeddings
    if settings.cosine:
        embeddings = {m: F.normalize(e, dim=1) for m, e in embeddings.items()}
    policy = benchmark.missing if settings.missing == "auto" else settings.missing
    return [
        score_direction(embeddings, found.valid, direction, benchmark, policy, settings.block)
        for direction in directions
    ]


def evaluate_retrieval(
    model: MCN, store: Store, benchmark: Benchmark, directions: list[Direction], settings: ScoringSettings
) -> list[RetrievalResult]:
    """Embed the clips of a benchmark and score them: `embed_benchmark` by all processes of a launch, then
    `score_embeddings` by the main one for all."""
    modalities = tuple(m for d in directions for m in d.modalities)
    found = embed_benchmark(model, store, benchmark, modalities, settings)
    return on_main(lambda: score_embeddings(found, benchmark, directions, settings))


def score_direction(
    embeddings: dict[str, Tensor],
    valid: dict[str, np.ndarray],
    direction: Direction,
    benchmark: Benchmark,
    policy: str,
    block: int,
) -> RetrievalResult:
    """Rank the gallery for every query of one direction."""
    complete = np.logical_and.reduce([valid[m] for m in direction.modalities])
    num_missing = int((~complete).sum())
    if not complete.any():
        lacking = " and ".join(direction.modalities)
        raise TrichordError(
            f"benchmark {benchmark.name}: no clip has {lacking}; direction {direction.code} cannot be scored"
        )
    rows = torch.from_numpy(np.flatnonzero(complete))
    queries = torch.stack([embeddings[m][rows] for m in direction.query]).sum(0)
    gallery = torch.stack([embeddings[m][rows] for m in direction.target]).sum(0)
    counts = retrieval_ranks(queries, gallery, block=block)
    metrics = metrics_from_counts(counts, num_missing=num_missing if policy == "miss" else 0)
    found_share = len(rows) / (len(rows) + (num_missing if policy == "miss" else 0))
    chance = [chance_recall(k, len(rows)) * found_share for k in (1, 5, 10)]
    return RetrievalResult(
        benchmark.name,
        direction.code,
        metrics.r1,
        metrics.r5,
        metrics.r10,
        metrics.medr,
        metrics.meanr,
        metrics.num_queries,
        metrics.num_gallery,
        num_missing,
        policy,
        chance[0],
        chance[1],
        chance[2],
        ranks=QueryRanks(rows.numpy(), *counts),
    )
