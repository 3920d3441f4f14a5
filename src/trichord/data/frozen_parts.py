"""A pass of a frozen encoder over every clip, in parts that any number of processes compute, on one or several machines.

An unfinished cache is the folder `KEY.partial`, with `values.npy` and `valid.npy` at their full size and a file `done/N` for each
complete part. A part consists of blocks of `BLOCK` clips. The boundaries of the blocks do not depend on who computes them, so the
values depend neither on the number of processes nor on interruptions. A process that computes a part holds its lease
(`store.leases`), which ends with the process, so that only the unfinished part of a lost process is lost. Rows are written to files
instead of memory maps: processes that share a page do not overwrite each other's rows on a network file system, and a full disk
raises an error instead of a signal. The process that sees that all parts are complete renames the folder.

To compute a pass, a process calls `plan_parts`, `make_parts` and `finish` in this order, and repeats this until `finish` returns
True.
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
BLOCK = 256  # number of clips in one forward pass
MOST_PARTS = 4096  # maximum number of parts; a part is a single block if there are no more blocks than this
_MARKS = re.compile(r"\d+")
_FILES = re.compile(
    r"(?:values|valid|row|begin)\.npy|(?:index|plan|progress)\.json|\.(?:index|plan)\.json\.(?:partial|tmp)|done/\d+"
)


@dataclass(frozen=True)
class Encoder:
    """The functions that compute the values of a pass.

    Attributes:
        load: Reads the features of clips. It is called ahead in a thread.
        encode: Computes the values (B, C), float32, and a mask of the valid clips (B,), bool, from these features.
    """

    load: Callable[[Clips], Any]
    encode: Callable[[Any], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class FrozenPass:
    """A pass of a frozen encoder over every clip.

    Attributes:
        folder: Folder of the finished cache, `FROZEN/KEY`. KEY is derived from everything that the values depend on.
        source: Sampler of the clips.
        listing: List of the clips.
        modality: Modality that is encoded.
        kind: Kind of the values, "embedding" or "pooled".
        width: Width of the values.
        described: Inputs of the key, which are saved in the index for readers.
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
        """Folder of the unfinished cache."""
        return self.folder.with_name(f"{self.folder.name}.partial")

    @property
    def finished(self) -> bool:
        """Whether the finished cache exists."""
        return (self.folder / INDEX).is_file()

    @property
    def num_bytes(self) -> int:
        """Size of the cache in bytes."""
        return self.listing.num_clips * (4 * self.width + 1) + 8 * len(self.listing.row)


@dataclass(frozen=True)
class Part:
    """The part of a pass that computes the rows from `begin` to `end` (exclusive)."""

    number: int
    begin: int
    end: int


def plan_parts(work: FrozenPass, leases: Leases) -> list[Part] | None:
    """Create the files of a pass if they do not exist, and return its parts.

    Args:
        work: Pass to compute. The parent of its folder must exist.
        leases: Leases on this parent.

    Returns:
        The parts, or None if another process is creating the files.

    Raises:
        TrichordError: If the disk does not have enough free space.
        OSError: If the disk cannot be written to.
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
    _remove(work.partial)  # it may come from an earlier version
    free = shutil.disk_usage(work.folder.parent).free
    if work.num_bytes > free:
        raise TrichordError(
            f"{work.folder}: the frozen embeddings of {work.listing.num_clips:,} clips take {work.num_bytes / 1e9:.1f} GB, but "
            f"only {free / 1e9:.1f} GB are free; free disk space, or set training.frozen_cache to off"
        )
    (work.partial / DONE).mkdir(parents=True)
    num_clips = work.listing.num_clips
    np.lib.format.open_memmap(work.partial / "values.npy", "w+", np.float32, (num_clips, work.width)).flush()
    np.lib.format.open_memmap(work.partial / "valid.npy", "w+", np.bool_, (num_clips,)).flush()
    write_json(work.partial / PLAN, plan)


def parts_done(work: FrozenPass) -> set[int]:
    """Return the numbers of the complete parts of an unfinished pass."""
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
    """Compute the parts that are not complete and that no other process holds.

    Features are read ahead across parts.

    Args:
        work: Pass to compute.
        parts: Parts, in the order in which they are computed.
        encoder: Computes the values.
        leases: Leases on the parent of `work.folder`. They exclude other processes, but not other threads of this process.
        after_part: Function that is called after each part.

    Returns:
        The number of parts that this call computed.

    Raises:
        OSError: If the values cannot be written.
    """

    def load(place: tuple[Part, int, int]) -> tuple[Part, int, int, Any]:
        part, begin, end = place
        return part, begin, end, encoder.load(clips_at(work.source, work.listing, begin, end))

    num_made = 0
    claimed: list[Part] = []
    with ExitStack() as stack:
        stack.callback(_release, work, claimed, leases)
        try:
            rows = _Rows(work, stack)  # open files remain valid when the folder is renamed
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
                num_made += 1
                if after_part is not None:
                    after_part()
    return num_made


def _claim(
    work: FrozenPass, parts: Sequence[Part], leases: Leases, claimed: list[Part]
) -> Iterator[tuple[Part, int, int]]:
    """Iterate over the blocks of each available part. Its lease is acquired just before its first block is read."""
    done = parts_done(work)
    for part in parts:
        if part.number in done or not leases.acquire(_name(work, part)):
            continue
        # The mark is checked first. If it is missing because the folder was renamed, the second check sees the finished pass.
        if (work.partial / DONE / str(part.number)).exists() or work.finished:
            leases.release(_name(work, part))
            continue
        claimed.append(part)
        for begin in range(part.begin, part.end, BLOCK):
            yield part, begin, min(begin + BLOCK, part.end)


def finish(work: FrozenPass, parts: Sequence[Part], leases: Leases) -> bool:
    """Move the cache to its final folder if all parts are complete.

    Args:
        work: Pass to finish.
        parts: All parts of the pass.
        leases: Leases on the parent of `work.folder`.

    Returns:
        Whether the finished cache exists, no matter which process finished it.
    """
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
        _remove(work.folder)  # an interrupted deletion may have left files
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
    """A writer of rows of `values.npy` and `valid.npy`, which already exist at their full size."""

    def __init__(self, work: FrozenPass, stack: ExitStack) -> None:
        self.files = []
        for name in ("values", "valid"):
            path = work.partial / f"{name}.npy"
            check_regular(path)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if not (isinstance(array, np.memmap) and len(array) == work.listing.num_clips):
                raise ValueError(
                    f"{path}: has {len(array)} rows, but there are {work.listing.num_clips} clips; "
                    f"delete the folder {path.parent} to compute it again"
                )
            file = stack.enter_context(path.open("r+b"))
            self.files.append((file, array.dtype, array.offset, array[:1].nbytes, array.shape[1:]))

    def write(self, begin: int, end: int, *arrays: np.ndarray) -> None:
        for (file, dtype, offset, row_bytes, shape), array in zip(self.files, arrays, strict=True):
            if array.shape != (end - begin, *shape):
                raise ValueError(
                    f"the encoder returned an array of shape {array.shape} instead of {(end - begin, *shape)} for "
                    f"{end - begin} clips"
                )
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
            f"{folder}: is a link or contains files that trichord did not write; move it away and run the command again"
        )
