"""What frozen encoders give, kept in the store: one row for every clip that training can draw, read by all epochs and orders.

Clips follow from captions, so they can be listed: `every_clip`. A cache lies in `STORE/frozen/KEY/`: `values.npy` (R, C)
float32, `valid.npy` (R,), and for each caption of each training video the row of its clip (`row.npy`, `begin.npy`). Captions
that grow into the same clip share a row. KEY follows from all that the values depend on, so a cache is never out of date: it is
another one. While it is written it is `KEY.partial`; an interrupted pass goes on at its last finished block.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trichord.data.batches import TrainingClips, item_clips, read_ahead
from trichord.data.clips import words_published_order
from trichord.data.reader import Clips
from trichord.errors import TrichordError, one_line
from trichord.store import Store
from trichord.store.leases import Leases

FOLDER = "frozen"
INDEX, PROGRESS = "index.json", "progress.json"
BLOCK = 256  # clips of one forward pass
SAVE_EVERY = 16384  # clips after which an interrupted pass goes on
Kind = Literal["embedding", "pooled"]


@dataclass(frozen=True)
class Encoder:
    """Makes the values: `load` reads the features of clips, ahead in a thread; `encode` gives their values (B, C) float32
    and valid (B,) bool."""

    load: Callable[[Clips], Any]
    encode: Callable[[Any], tuple[np.ndarray, np.ndarray]]


def every_clip(source: TrainingClips, block: int = BLOCK) -> Iterator[tuple[Clips, np.ndarray]]:
    """All clips that `source` can draw, `block` at a time, and the row of the clip of each caption in turn.

    Rows count the clips from 0 in the order in which they come. The captions are those of `source.items`, in their order.
    """
    item, start_s, end_s, captions, rows = [], [], [], [], []
    count = 0
    for video in source.items.tolist():
        start, end, first, last = item_clips(source.store, video, source.min_clip_s)
        seen: dict[tuple[int, int], int] = {}
        for caption in range(len(start)):
            key = (caption, caption) if source.published_words else (int(first[caption]), int(last[caption]))
            if key not in seen:
                seen[key] = count
                count += 1
                span = np.arange(first[caption], last[caption] + 1)
                if source.published_words:
                    span = words_published_order(caption, *source.store.caption_spans(video), source.min_clip_s)
                item.append(video)
                start_s.append(start[caption])
                end_s.append(end[caption])
                captions.append(span)
            rows.append(seen[key])
            if len(item) == block:
                yield (
                    Clips(np.array(item, np.int64), np.array(start_s), np.array(end_s), captions),
                    np.array(rows, np.int64),
                )
                item, start_s, end_s, captions, rows = [], [], [], [], []
    if rows:
        yield Clips(np.array(item, np.int64), np.array(start_s), np.array(end_s), captions), np.array(rows, np.int64)


def count_clips(source: TrainingClips) -> tuple[int, int]:
    """How many clips and captions `every_clip` gives."""
    clips = captions = 0
    for block, rows in every_clip(source, 1 << 14):
        clips, captions = clips + len(block), captions + len(rows)
    return clips, captions


@dataclass(eq=False)
class FrozenRows:
    """A finished cache.

    Attributes:
        modality: What was encoded.
        kind: `embedding`, in the joint space, or `pooled`: the audio before its last layers.
        values: (R, C) float32, mapped.
        valid: (R,) bool.
        row: (N,) row of each caption of the training videos.
        begin: (V + 1,) by item of the store: where its captions begin in `row`; -1 for items that are not trained on.
    """

    modality: str
    kind: Kind
    values: np.ndarray
    valid: np.ndarray
    row: np.ndarray
    begin: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> FrozenRows:
        """Raises TrichordError when a file is missing or torn; deleting the folder makes it anew."""
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            values = np.load(folder / "values.npy", mmap_mode="r", allow_pickle=False)
            valid, row, begin = (
                np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("valid", "row", "begin")
            )
            if values.shape != (index["num_clips"], index["width"]) or len(valid) != len(values):
                raise ValueError(f"has {values.shape} values, not ({index['num_clips']}, {index['width']})")
            return cls(index["modality"], index["kind"], values, valid, row, begin)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrichordError(
                f"{folder}: the frozen embeddings cannot be read ({one_line(error)}); delete that folder, they are made anew"
            ) from None

    def read(self, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
        """Values (B, C) and whether there is one (B,), of clips that `TrainingClips` drew."""
        assert clips.caption is not None, "only drawn clips know their captions"
        begin = self.begin[clips.item]
        assert (begin >= 0).all(), "clips of videos that are not trained on"
        rows = self.row[begin + clips.caption]
        return self.values[rows], self.valid[rows]


def frozen_rows(
    store: Store,
    source: TrainingClips,
    key: str,
    encoder: Encoder,
    *,
    modality: str,
    kind: Kind,
    width: int,
    described: dict[str, Any],
    counts: tuple[int, int] | None = None,
    say: Callable[[str], None] | None = None,
) -> FrozenRows:
    """The cache of that key, made if it is not there.

    Args:
        store: Whose folder keeps it.
        source: Draws the clips.
        key: Of all that the values depend on.
        encoder: Makes the values.
        modality, kind, width: Of the values.
        described: What the key was made of, kept in the index for a reader.
        counts: What `count_clips` gave, where it is known: listing the clips takes a pass over all captions.
        say: Takes a line now and then.

    Raises TrichordError when the store cannot be written to or the disk is full.
    """
    final = store.path / FOLDER / key
    if not (final / INDEX).is_file():
        try:
            final.parent.mkdir(exist_ok=True)
            with Leases(final.parent) as leases:
                if not leases.acquire(key):
                    raise TrichordError(
                        f"{final}: another process is making these frozen embeddings; start again when it has finished"
                    )
                if not (final / INDEX).is_file():
                    _make(final, source, encoder, modality, kind, width, described, counts, say or (lambda line: None))
        except OSError as error:
            raise TrichordError(
                f"{final}: the frozen embeddings cannot be written ({error.strerror or one_line(error)}); "
                "free the space or the rights, or set training.frozen_cache to off"
            ) from None
    return FrozenRows.open(final)


def _make(
    final: Path,
    source: TrainingClips,
    encoder: Encoder,
    modality: str,
    kind: Kind,
    width: int,
    described: dict[str, Any],
    counts: tuple[int, int] | None,
    say: Callable[[str], None],
) -> None:
    num_clips, num_captions = counts or count_clips(source)
    free = shutil.disk_usage(final.parent).free
    needed = num_clips * (4 * width + 1) + 8 * num_captions
    if needed > free:
        raise TrichordError(
            f"{final}: the frozen embeddings of {num_clips:,} clips take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "free the space, or set training.frozen_cache to off"
        )
    partial = final.with_name(f"{final.name}.partial")
    partial.mkdir(exist_ok=True)
    done = _progress(partial)
    mode = "r+" if done else "w+"
    shapes = {
        "values": ((num_clips, width), np.float32),
        "valid": ((num_clips,), np.bool_),
        "row": ((num_captions,), np.int64),
    }
    arrays = {
        name: np.lib.format.open_memmap(partial / f"{name}.npy", mode, None if done else dtype, None if done else shape)
        for name, (shape, dtype) in shapes.items()
    }
    at, caption, listed = 0, 0, 0

    def load(block: tuple[Clips, np.ndarray]) -> tuple[Clips, np.ndarray, Any]:
        nonlocal listed
        begin, listed = listed, listed + len(block[0])
        return *block, encoder.load(block[0]) if begin >= done else None

    for clips, rows, features in read_ahead(load, every_clip(source)):
        if at >= done:
            arrays["values"][at : at + len(clips)], arrays["valid"][at : at + len(clips)] = encoder.encode(features)
            arrays["row"][caption : caption + len(rows)] = rows
        before, at, caption = at, at + len(clips), caption + len(rows)
        if at // SAVE_EVERY > before // SAVE_EVERY and at > done:
            for array in arrays.values():
                array.flush()
            _write(partial / PROGRESS, {"clips": at})
            say(f"frozen {modality}: {at:,} of {num_clips:,} clips")
    for array in arrays.values():
        array.flush()
    np.save(partial / "begin.npy", _begin(source))
    index = {"modality": modality, "kind": kind, "width": width, "num_clips": num_clips, **described}
    _write(partial / INDEX, index)
    os.replace(partial, final)
    say(f"frozen {modality}: {num_clips:,} clips, {needed / 1e6:,.0f} MB in {final}")


def _begin(source: TrainingClips) -> np.ndarray:
    begin = np.full(len(source.store), -1, np.int64)
    counts = [source.store.num_captions(int(item)) for item in source.items]
    begin[source.items] = np.cumsum([0, *counts[:-1]])
    return begin


def _progress(partial: Path) -> int:
    try:
        return int(json.loads((partial / PROGRESS).read_text(encoding="utf-8"))["clips"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _write(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.tmp")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(partial, path)
