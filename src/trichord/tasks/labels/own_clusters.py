"""Assignment of clips to the centroids that their model was trained with, by video, by audio, and by means of modalities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from trichord.evaluation.embedded import Embedded
from trichord.evaluation.geometry import unit_rows
from trichord.losses.centroids import Centroids

Side = tuple[str, ...]


def own_sides(
    embedded: Embedded, centroids: Centroids, sides: Sequence[Side]
) -> Iterator[tuple[Side, np.ndarray, np.ndarray]]:
    """Find the nearest centroid of each clip.

    A clip with several texts is represented by their mean. If the loss compares cosines, the texts are normalized before.

    Args:
        embedded: Clips.
        centroids: Centroids of the model.
        sides: Combinations of modalities.

    Yields:
        Each side, the indices (n,) of the clips that have all its modalities, and their nearest centroids (n,). If texts are
        embedded, another side contains all modalities, as in the training loss.
    """
    rows, valid = dict(embedded.embeddings), dict(embedded.valid)
    every = tuple(m for m in rows if any(m in side for side in sides) or m == "text")
    if "text" in rows:
        rows["text"], valid["text"] = _text_of_clips(embedded, centroids.cosine)
    for side in dict.fromkeys([*sides, every]):
        clips = np.flatnonzero(np.logical_and.reduce([valid[m] for m in side]))
        given = {m: torch.from_numpy(np.ascontiguousarray(rows[m][clips], np.float32)) for m in side}
        yield side, clips, centroids.nearest(given).numpy() if len(clips) else np.zeros(0, np.int64)


def _text_of_clips(embedded: Embedded, cosine: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (N, D) of the texts of each clip, and which clips (N,) have one."""
    there = embedded.valid["text"]
    texts = embedded.embeddings["text"][there]
    texts, clip = unit_rows(texts) if cosine else texts, embedded.text_clip[there]
    num = np.bincount(clip, minlength=embedded.num_clips)
    total = np.zeros((embedded.num_clips, texts.shape[1]))
    np.add.at(total, clip, texts)
    return (total / np.maximum(num, 1)[:, None]).astype(np.float32), num > 0
