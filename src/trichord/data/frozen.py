"""What frozen encoders give, kept in the store: one row for every clip that training can draw, read by all epochs and orders.

Clips follow from captions, so they can be listed (`data.listing`). A cache lies in `STORE/frozen/KEY/`: `values.npy` (R, C)
float32, `valid.npy` (R,), and for each caption of each training video the row of its clip (`row.npy`, `begin.npy`). Captions
that grow into the same clip share a row. KEY follows from all that the values depend on, so a cache is never out of date: it is
another one. `data.frozen_parts` makes it, with the help of all processes that need it.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from functools import partial
from pathlib import Path

from trichord.data.frozen_parts import (
    Encoder,
    FrozenPass,
    Part,
    finish,
    make_parts,
    parts_done,
    plan_parts,
)
from trichord.data.frozen_rows import FrozenRows
from trichord.errors import TrichordError, one_line
from trichord.files.folders import is_real_folder, make_folder
from trichord.parallel import main_process_logger
from trichord.store import Store
from trichord.store.leases import FILE as LEASES
from trichord.store.leases import Leases

logger = main_process_logger(__name__)

FOLDER = "frozen"
POLL_S = 0.2  # between looks at what other processes do
SAY_EVERY_S = 10.0
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)


class NotWritable(TrichordError):
    """The store may not be written to, so that nothing can be kept in it."""


def frozen_folder(store: Store) -> Path:
    """Where the caches of a store lie."""
    return store.folder / FOLDER


def why_not_writable(folder: Path) -> str:
    """Return why nothing can be kept in the folder of a store's caches: it is read-only, or another user's; '' where it can.

    Nothing is left in it.
    """
    if os.path.lexists(folder) and not is_real_folder(folder):
        return "it is a link or a file, not a folder"
    try:
        with tempfile.TemporaryFile(dir=folder if folder.is_dir() else folder.parent):
            pass
        leases = folder / LEASES
        if leases.exists() and not os.access(
            leases, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids
        ):
            raise PermissionError(errno.EACCES, f"no right to write {leases}")
    except OSError as error:
        return error.strerror or one_line(error)
    return ""


def frozen_rows(
    work: FrozenPass,
    encoder: Encoder,
    *,
    process: int = 0,
    num_processes: int = 1,
) -> FrozenRows:
    """The cache of that pass. What is not there is made, together with every other process that makes it.

    Args:
        work: What is wanted.
        encoder: Makes the values.
        process, num_processes: Of a launch: each process begins with its own share. Others help without being counted.

    Raises NotWritable when the store may not be written to, TrichordError when the disk is full or fails.
    """
    if not work.finished:
        try:
            make_folder(work.folder.parent.parent, work.folder.parent.name)
            with Leases(work.folder.parent) as leases:
                _make(work, encoder, leases, process, num_processes)
        except OSError as error:
            kind = NotWritable if error.errno in _NO_RIGHT else TrichordError
            raise kind(
                f"{work.folder}: the frozen embeddings cannot be written ({error.strerror or one_line(error)}); "
                "free the space or the rights, or set training.frozen_cache to off"
            ) from None
        logger.info(
            f"frozen {work.modality}: {work.listing.num_clips:,} clips, {work.num_bytes / 1e6:,.0f} MB in {work.folder}"
        )
    return FrozenRows.open(work.folder)


def _make(work: FrozenPass, encoder: Encoder, leases: Leases, process: int, num_processes: int) -> None:
    """Make this process's share of the parts, then those that nobody has; wait for those of others, and make them where
    their process is lost."""
    said_s = time.monotonic()

    def tell(parts: list[Part], waiting: str = "") -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= SAY_EVERY_S:
            said_s, done = time.monotonic(), parts_done(work)
            num_clips = sum(part.end - part.begin for part in parts if part.number in done)
            logger.info(f"frozen {work.modality}: {num_clips:,} of {work.listing.num_clips:,} clips{waiting}")

    while True:
        parts = plan_parts(work, leases)
        if parts is not None:
            first, last = (len(parts) * number // num_processes for number in (process, process + 1))
            made = make_parts(work, parts[first:last], encoder, leases, partial(tell, parts))
            made += make_parts(work, parts[last:] + parts[:first], encoder, leases, partial(tell, parts))
            if finish(work, parts, leases):
                return
            if not made:
                tell(parts, "; waiting for other processes that make the rest")
        time.sleep(POLL_S)
