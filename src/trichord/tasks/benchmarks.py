"""The benchmarks of a store, and the embeddings of their clips."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trichord.data.reader import ClipReader, Clips
from trichord.errors import TrichordError
from trichord.modalities.base import ReadingSettings
from trichord.parallel import gather_rows, num_processes, process_index

if TYPE_CHECKING:
    from trichord.nn import MCN
    from trichord.store import Store

CLIPS_PER_BATCH = 64  # of a forward pass; 64 clips of 5,120 frames need 2.6 GB in the first layer at full width


@dataclass(frozen=True)
class Benchmark:
    """A collection and split of a store, with the protocol under which it is scored.

    Attributes:
        name: Name that the user gives and that is printed.
        collection: Collection of the store.
        split: Split of the collection.
        missing: Policy for clips that lack a modality: `drop` leaves them out, `miss` counts them as errors.
        audio_frames: Number of spectrogram frames of a clip. 0 uses the number of the training.
        title: Heading in tables.
        protocol: Description in one paragraph.
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
        "The 3,350 of the 3,492 validation clips whose videos are not in HowTo100M (3,339 with full-resolution features), with one "
        "caption each. Every clip that has the modalities of a direction is a query and belongs to the gallery; other clips are "
        "left out. Spectrograms are cut to 5,120 frames.",
    ),
    "msrvtt": Benchmark(
        "msrvtt", "msrvtt", "test", "miss", 3072, "MSR-VTT",
        "The 1,000 test clips of JSFusion, with one caption each. Clips without features count as errors: 968 clips have audio "
        "and form the gallery, but recalls are over 1,000. Spectrograms are cut to 3,072 frames.",
    ),
}  # fmt: skip


def find_benchmark(store: Store, name: str) -> Benchmark:
    """Return a benchmark by name.

    Args:
        store: Store with the clips.
        name: `youcook2`, `msrvtt`, or any COLLECTION or COLLECTION/SPLIT of the store.

    Raises:
        TrichordError: The store has no such clips. The message lists its benchmarks.
    """
    have = store.collections()
    if name in PUBLISHED and (PUBLISHED[name].collection, PUBLISHED[name].split) in have:
        return PUBLISHED[name]
    collection, _, split = name.partition("/")
    splits = [s for c, s in have if c == collection and (s == split if split else s != "train")]
    if not splits:
        known = ", ".join(benchmark_names(store)) or "none"
        raise TrichordError(
            f"{store.path}: contains no clips of benchmark '{name}'; it has {known} (or COLLECTION/SPLIT); "
            "`trichord evaluate --list` lists all benchmarks"
        )
    chosen = "test" if "test" in splits else sorted(splits)[0]
    protocol = (
        f"Clips of {collection}/{chosen}: neighbouring captions are joined until the clip is long enough. Each caption is used "
        "once, and clips do not overlap. Captions of a whole video are texts of the same clip. Clips that lack a modality are "
        "left out."
    )
    return Benchmark(name, collection, chosen, "drop", 0, name, protocol)


def benchmark_names(store: Store) -> list[str]:
    """Return the benchmarks that the store has clips for: collections with a split other than `train`."""
    return list(dict.fromkeys(collection for collection, split in store.collections() if split != "train"))


@dataclass(frozen=True, kw_only=True)
class ScoringSettings(ReadingSettings):
    """Settings by which clips are read and scored. `audio_frames` is used if the benchmark does not define it.

    Attributes:
        min_clip_s: Length of the shortest clip, in seconds.
        cosine: Whether scores are cosines.
        missing: Policy for clips that lack a modality: `auto`, `drop` or `miss`.
        block: Number of rows of a block of scores.
    """

    min_clip_s: float
    cosine: bool = False
    missing: str = "auto"
    block: int = 1024


@torch.no_grad()
def embed_clips(
    model: MCN, store: Store, clips: Clips, modalities: tuple[str, ...], audio_frames: int, settings: ScoringSettings
) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    """Embed clips.

    The audio of each clip is padded to `audio_frames`, so that its embedding does not depend on the other clips of the batch. The
    processes of a launch share the batches. All of them get all embeddings, which are bit-identical to those of a single process.

    Args:
        model: Network.
        store: Store with the clips.
        clips: N clips.
        modalities: Modalities to embed.
        audio_frames: Number of spectrogram frames of a clip.
        settings: Settings by which clips are read.

    Returns:
        For each modality, the embeddings (N, D) of the clips, float32, and a mask (N,) of the clips that have the modality.
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
    """Return the rows of the batches of all processes, in order."""
    rows = torch.cat(batches)
    return rows if num_processes() == 1 else gather_rows(rows.to(device)).cpu()
