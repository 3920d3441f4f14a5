"""A pass of frozen encoders over every clip, in parts that any number of processes make, on one machine or several.

While it is made a cache is `KEY.partial`: `values.npy` and `valid.npy` at their full size, and `done/N` for each part that is
whole. A part is some blocks of `BLOCK` clips; blocks are cut alike whoever makes them, so the values depend neither on the
number of processes nor on interruptions. Who makes a part holds its lease (`store.leases`), which dies with its process: a
lost process loses its unfinished part. Rows are written, never mapped: processes that share a page overwrite nothing on a
network file system, and a full disk is an error instead of a signal. The last to see all parts whole renames the folder.

A process makes a pass by `plan_parts`, `make_parts` and `finish`, in this order, again until `finish` says True.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trichord.data.batch import Clips
from trichord.data.batches import TrainingClips, read_ahead
from trichord.data.frozen_rows import INDEX, Kind
from trichord.data.listing import Listing, clips_at
from trichord.errors import TrichordError
from trichord.files.folders import remove_folder
from trichord.files.reading import check_regular, read_json_value, reraise_unavailable
from trichord.files.writing import write_json
from trichord.store.leases import Leases

PLAN, DONE = "plan.json", "done"
BLOCK = 256  # clips of one forward pass
MOST_PARTS = 4096  # a part is one block until there are more of them
_MARKS = re.compile(r"\d+")
_FILES = re.compile(
    r"(?:values|valid|row|begin)\.npy|(?:index|plan|progress)\.json|\.(?:index|plan)\.json\.(?:partial|tmp)|done/\d+"
)


@dataclass(frozen=True)
class Encoder:
    """Makes the values: `load` reads the features of clips, ahead in a thread; `encode` gives their values (B, C) float32
    and valid (B,) bool."""

    load: Callable[[Clips], Any]
    encode: Callable[[Any], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class FrozenPass:
    """What is to be made.

    Attributes:
        folder: Where the finished cache lies: `FROZEN/KEY`. KEY follows from all that the values depend on.
        source: Draws the clips.
        listing: Of its clips.
        modality, kind, width: Of the values.
        described: What the key was made of, kept in the index for a reader.
    """

    folder: Path
    source: TrainingClips
    listing: Listing
    modality: str
    kind: Kind
    width: int
    described: dict[str, Any]

    @property
    def partial(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.partial")

    @property
    def finished(self) -> bool:
        return (self.folder / INDEX).is_file()

    @property
    def num_bytes(self) -> int:
        return self.listing.num_clips * (4 * self.width + 1) + 8 * len(self.listing.row)


@dataclass(frozen=True)
class Part:
    """Rows `begin` to `end` of the values."""

    number: int
    begin: int
    end: int


def plan_parts(work: FrozenPass, leases: Leases) -> list[Part] | None:
    """The parts of a pass, after making room for its values where nobody has. None: another process makes room right now.

    Args:
        work: What is to be made; its `folder.parent` must be there.
        leases: On that parent.

    Raises TrichordError when the disk is too full, OSError when it cannot be written to.
    """
    num_clips = work.listing.num_clips
    step = BLOCK * -(-num_clips // (BLOCK * MOST_PARTS))
    parts = [Part(n, begin, min(begin + step, num_clips)) for n, begin in enumerate(range(0, num_clips, step))]
    plan = {"num_clips": num_clips, "width": work.width, "part_clips": step, "block": BLOCK}
    if work.finished or _read(work.partial / PLAN) == plan:
        return parts
    if not leases.acquire(work.folder.name):
        return None
    try:
        if not work.finished and _read(work.partial / PLAN) != plan:
            _make_room(work, plan)
    finally:
        leases.release(work.folder.name)
    return parts


def _make_room(work: FrozenPass, plan: dict[str, int]) -> None:
    _remove(work.partial)  # of an earlier version
    free = shutil.disk_usage(work.folder.parent).free
    if work.num_bytes > free:
        raise TrichordError(
            f"{work.folder}: the frozen embeddings of {work.listing.num_clips:,} clips take {work.num_bytes / 1e9:.1f} GB and "
            f"{free / 1e9:.1f} GB are free; free the space, or set training.frozen_cache to off"
        )
    (work.partial / DONE).mkdir(parents=True)
    num_clips = work.listing.num_clips
    np.lib.format.open_memmap(work.partial / "values.npy", "w+", np.float32, (num_clips, work.width)).flush()
    np.lib.format.open_memmap(work.partial / "valid.npy", "w+", np.bool_, (num_clips,)).flush()
    write_json(work.partial / PLAN, plan)


def parts_done(work: FrozenPass) -> set[int]:
    """Numbers of the parts that are whole, while the pass is not finished."""
    try:
        return {int(name) for name in os.listdir(work.partial / DONE)}
    except FileNotFoundError:
        return set()


def make_parts(
    work: FrozenPass,
    parts: Sequence[Part],
    encoder: Encoder,
    leases: Leases,
    after_part: Callable[[], None] | None = None,
) -> int:
    """Make those of the parts that are not whole and that no other process holds, reading ahead across them.

    Args:
        work: What is to be made.
        parts: In this order.
        encoder: Makes the values.
        leases: On `work.folder.parent`. Leases exclude other processes, not other threads of this one.
        after_part: Called after each part.

    Returns:
        How many this call made. Raises OSError when they cannot be written.
    """

    def load(place: tuple[Part, int, int]) -> tuple[Part, int, int, Any]:
        part, begin, end = place
        return part, begin, end, encoder.load(clips_at(work.source, work.listing, begin, end))

    made = 0
    claimed: list[Part] = []
    with ExitStack() as stack:
        stack.callback(_release, work, claimed, leases)
        try:
            rows = _Rows(work, stack)  # the files stay the same when the folder is renamed
        except FileNotFoundError:
            if work.finished:
                return 0
            raise
        for part, begin, end, features in read_ahead(load, _claim(work, parts, leases, claimed)):
            rows.write(begin, end, *encoder.encode(features))
            if end == part.end:
                rows.sync()
                (work.partial / DONE / str(part.number)).touch()
                claimed.remove(part)
                leases.release(_name(work, part))
                made += 1
                if after_part is not None:
                    after_part()
    return made


def _claim(
    work: FrozenPass, parts: Sequence[Part], leases: Leases, claimed: list[Part]
) -> Iterator[tuple[Part, int, int]]:
    """The blocks of each part that can be had, leased just before its first block is read."""
    done = parts_done(work)
    for part in parts:
        if part.number in done or not leases.acquire(_name(work, part)):
            continue
        # The mark first: where it is missing because the folder was renamed, the finished pass is seen after it.
        if (work.partial / DONE / str(part.number)).exists() or work.finished:
            leases.release(_name(work, part))
            continue
        claimed.append(part)
        for begin in range(part.begin, part.end, BLOCK):
            yield part, begin, min(begin + BLOCK, part.end)


def finish(work: FrozenPass, parts: Sequence[Part], leases: Leases) -> bool:
    """Put the finished cache in its place when all parts are whole. True: it is there, whoever did it."""
    if work.finished:
        return True
    if len(parts_done(work)) < len(parts) or not leases.acquire(work.folder.name):
        return work.finished
    try:
        if work.finished:
            return True
        if len(parts_done(work)) < len(parts):
            return False
        for name, array in (("row", work.listing.row), ("begin", work.listing.begin)):
            with (work.partial / f"{name}.npy").open("wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
        index = {"modality": work.modality, "kind": work.kind, "width": work.width, "num_clips": work.listing.num_clips}
        write_json(work.partial / INDEX, {**index, **work.described})
        _remove(work.folder)  # what a deletion left
        os.rename(work.partial, work.folder)
        remove_folder(work.folder / DONE, _MARKS)
        return True
    finally:
        leases.release(work.folder.name)


def _name(work: FrozenPass, part: Part) -> str:
    return f"{work.folder.name}/{part.number}"


def _release(work: FrozenPass, parts: Sequence[Part], leases: Leases) -> None:
    for part in parts:
        leases.release(_name(work, part))


class _Rows:
    """Writes rows of `values.npy` and `valid.npy`, which are there at their full size."""

    def __init__(self, work: FrozenPass, stack: ExitStack) -> None:
        self.files = []
        for name in ("values", "valid"):
            path = work.partial / f"{name}.npy"
            check_regular(path)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if not (isinstance(array, np.memmap) and len(array) == work.listing.num_clips):
                raise ValueError(f"{path}: holds {len(array)} rows for {work.listing.num_clips} clips")
            file = stack.enter_context(path.open("r+b"))
            self.files.append((file, array.dtype, array.offset, array[:1].nbytes, array.shape[1:]))

    def write(self, begin: int, end: int, *arrays: np.ndarray) -> None:
        for (file, dtype, offset, row_bytes, shape), array in zip(self.files, arrays, strict=True):
            if array.shape != (end - begin, *shape):
                raise ValueError(f"the encoder gave {array.shape} for {end - begin} clips")
            file.seek(offset + begin * row_bytes)
            file.write(np.ascontiguousarray(array, dtype).data)

    def sync(self) -> None:
        for file, *_ in self.files:
            file.flush()
            os.fsync(file.fileno())


def _read(path: Path) -> object:
    try:
        return read_json_value(path)
    except (OSError, ValueError) as error:
        reraise_unavailable(path, error)
        return None


def _remove(folder: Path) -> None:
    if not remove_folder(folder, _FILES):
        raise TrichordError(
            f"{folder}: is a link, or holds files that trichord did not write; move it away, then run the command again"
        )
