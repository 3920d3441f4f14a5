"""The benchmarks of a store, and the embeddings of their clips."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trichord.data.batches import evaluation_clips
from trichord.data.reader import ClipReader, Clips
from trichord.errors import TrichordError
from trichord.modalities.base import ReadingSettings
from trichord.parallel import gather_rows, num_processes, process_index

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
        "The 3,350 of the 3,492 validation clips whose videos are not in HowTo100M (3,339 with full-resolution features), one "
        "caption each. Every clip that has the modalities of a direction is a query and in the gallery; the other clips are left "
        "out. Spectrograms are cut to 5,120 frames.",
    ),
    "msrvtt": Benchmark(
        "msrvtt", "msrvtt", "test", "miss", 3072, "MSR-VTT",
        "The 1,000 test clips of JSFusion, one caption each. Clips without features are queries that fail: 968 have audio and "
        "are scored against 968, and recalls are over 1,000. Spectrograms are cut to 3,072 frames.",
    ),
}  # fmt: skip


def find_benchmark(store: Store, name: str) -> Benchmark:
    """Return a benchmark by name: `youcook2`, `msrvtt`, or any COLLECTION or COLLECTION/SPLIT of the store.

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
            f"{store.path}: no clips for benchmark '{name}'; the store has {known} (or COLLECTION/SPLIT); "
            "`trichord evaluate --list` names the others"
        )
    chosen = "test" if "test" in splits else sorted(splits)[0]
    protocol = (
        f"Clips of {collection}/{chosen}: neighbouring captions are joined until the clip is long enough, each caption is "
        "used once, clips do not overlap; captions of a whole video are texts of one clip; clips that lack a modality are left "
        "out."
    )
    return Benchmark(name, collection, chosen, "drop", 0, name, protocol)


def benchmark_names(store: Store) -> list[str]:
    """Return the benchmarks that the store has clips for: collections with a split other than `train`."""
    return list(dict.fromkeys(collection for collection, split in store.collections() if split != "train"))


@dataclass(frozen=True, kw_only=True)
class ScoringSettings(ReadingSettings):
    """Settings by which clips are read and scored. `audio_frames` applies where the benchmark has none of its own.

    Attributes:
        min_clip_s: Shortest clip.
        cosine: Scores are cosines.
        missing: `auto`, `drop` or `miss`.
        block: Rows of a score block.
    """

    min_clip_s: float
    cosine: bool = False
    missing: str = "auto"
    block: int = 1024


@torch.no_grad()
def embed_clips(
    model: MCN, store: Store, clips: Clips, modalities: tuple[str, ...], audio_frames: int, settings: ScoringSettings
) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    """Return by modality the embeddings (N, D) of clips, and which clips (N,) have the modality.

    Every clip's audio is padded to `audio_frames`, so that an embedding does not depend on the clips beside it. The
    processes of a launch share the clips, each some neighbouring batches; all of them get all embeddings, the same bits as
    one process gets.
    """
    device = next(model.parameters()).device
    reader = ClipReader(store, modalities, replace(settings, audio_frames=audio_frames))
    table = torch.from_numpy(store.word_vectors).to(device)
    embeddings: dict[str, list[Tensor]] = {m: [] for m in modalities}
    valid: dict[str, list[Tensor]] = {m: [] for m in modalities}
    model.eval()
    begins = np.array_split(np.arange(0, len(clips), CLIPS_PER_BATCH), num_processes())[process_index()]
    for begin in begins.tolist():
        rows = np.arange(begin, min(begin + CLIPS_PER_BATCH, len(clips)))
        batch = reader.read(clips.take(rows)).to(device)
        for modality, embedding in model.embed(**batch.model_inputs(table)).items():
            embeddings[modality].append(embedding.float().cpu())
            valid[modality].append(batch.valid[modality].cpu())
    nothing, nowhere = torch.empty(0, int(model.arguments["embed_dim"])), torch.empty(0, dtype=torch.bool)
    return (
        {m: _whole(embeddings[m] or [nothing], device) for m in modalities},
        {m: _whole(valid[m] or [nowhere], device).numpy() for m in modalities},
    )


def _whole(batches: list[Tensor], device: torch.device) -> Tensor:
    """Return the rows of these batches and of those of the other processes, in order."""
    rows = torch.cat(batches)
    return rows if num_processes() == 1 else gather_rows(rows.to(device)).cpu()


def benchmark_clips(store: Store, benchmark: Benchmark, settings: ScoringSettings) -> Clips:
    """Return the clips of a benchmark, in the order in which `QueryRanks` numbers them."""
    return evaluation_clips(store, store.select(benchmark.collection, benchmark.split), settings.min_clip_s)
