"""The cache of the outputs of frozen encoders, with one row for every clip that training can draw.

All epochs and orders read it. Clips are derived from captions, so they can be listed (`data.listing`). A cache is the folder
`STORE/frozen/KEY/` with `values.npy` (R, C), float32, `valid.npy` (R,), and the row of the clip of each caption of each training
video (`row.npy`, `begin.npy`). Captions that grow into the same clip share a row. KEY is derived from everything that the values
depend on, so a cache is never out of date: changed inputs give another key. `data.frozen_parts` computes a cache, in parallel in
all processes that need it.
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
from trichord.logs import main_process_logger
from trichord.store import Store
from trichord.store.leases import FILE as LEASES
from trichord.store.leases import Leases

logger = main_process_logger(__name__)

FOLDER = "frozen"
POLL_S = 0.2  # interval between checks of the progress of other processes
SAY_EVERY_S = 10.0  # interval between progress messages
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)


class NotWritable(TrichordError):
    """The store is not writable, so that embeddings cannot be cached in it."""


def frozen_folder(store: Store) -> Path:
    """Return the folder of the caches of a store."""
    return store.folder / FOLDER


def why_not_writable(folder: Path) -> str:
    """Return the reason why the folder of the caches of a store is not writable.

    The check leaves no files behind.

    Args:
        folder: Folder of the caches.

    Returns:
        The reason, such as a missing permission, or an empty string if the folder is writable.
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
            raise PermissionError(errno.EACCES, f"permission to write {leases} is missing")
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
    """Return the cache of a pass. Missing parts are computed, in parallel with all other processes that compute them.

    Args:
        work: Pass of a frozen encoder.
        encoder: Computes the values.
        process: Index of this process in its launch. Each process starts with its own share of the parts.
        num_processes: Number of processes in the launch. Processes of other launches may help without being counted.

    Returns:
        The cache.

    Raises:
        NotWritable: If the store is not writable.
        TrichordError: If the disk is full or fails.
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
                "free disk space or grant write permission, or set training.frozen_cache to off"
            ) from None
        logger.info(
            f"frozen {work.modality}: {work.listing.num_clips:,} clips, {work.num_bytes / 1e6:,.0f} MB in {work.folder}"
        )
    return FrozenRows.open(work.folder)


def _make(work: FrozenPass, encoder: Encoder, leases: Leases, process: int, num_processes: int) -> None:
    """Compute the parts of a cache.

    The process first computes its own share of the parts, then the parts that no other process holds. It then waits for the parts
    of other processes and computes them if their process is lost.
    """
    last_message_s = time.monotonic()

    def report_progress(parts: list[Part], waiting: str = "") -> None:
        nonlocal last_message_s
        if time.monotonic() - last_message_s >= SAY_EVERY_S:
            last_message_s, done = time.monotonic(), parts_done(work)
            num_clips = sum(part.end - part.begin for part in parts if part.number in done)
            logger.info(f"frozen {work.modality}: {num_clips:,} of {work.listing.num_clips:,} clips{waiting}")

    while True:
        parts = plan_parts(work, leases)
        if parts is not None:
            first, last = (len(parts) * number // num_processes for number in (process, process + 1))
            after_part = partial(report_progress, parts)
            num_made = make_parts(work, parts[first:last], encoder, leases, after_part)
            num_made += make_parts(work, parts[last:] + parts[:first], encoder, leases, after_part)
            if finish(work, parts, leases):
                return
            if not num_made:
                report_progress(parts, "; waiting for other processes that compute the rest")
        time.sleep(POLL_S)
