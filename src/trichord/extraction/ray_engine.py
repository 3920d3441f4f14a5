"""Extraction on a Ray cluster: the tasks are a Ray Data dataset that actors with the worker of the local engine map over.

Each actor has a worker process of its own (`pool.Workers`), so that a file that crashes or hangs its decoder only ends that
process and is reported as in the local engine. Ray replaces an actor or a node that is lost: its tasks go to other actors, the
driver keeps their leases, and the spool accepts an item once, however often it is computed. A task that has lost its worker
`MOST_ATTEMPTS` times is given up and reported.

All nodes share the file system of the videos and of the store, under the same paths, and have the same installation. Results go
through the spool of the store, as those of local workers do, so only outcomes of a few hundred bytes are transferred. A node that
does not see the store, or has other weights, reports this and ends the run.

Policy: tasks are sent to the cluster in waves. The next wave is drawn (hashed and leased) while the current one is processed, and
is up to twice as long. The cost is the start of the actors, a few seconds per wave; the benefit is that work begins before all
files are hashed.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from trichord.cluster import Cluster, NodeActor, RayOptions
from trichord.errors import TrichordError
from trichord.extraction.choice import EncoderChoice, describe
from trichord.extraction.pool import Workers, outcome_of
from trichord.extraction.task import Outcome, Task
from trichord.files.folders import make_folder
from trichord.store.spool import FOLDER, begun, spool_name

FIRST_WAVE, MOST_WAVE = 64, 4096  # tasks
MOST_ATTEMPTS = 5


class RayEngine:
    """An `engines.Engine` whose workers are actors on the nodes of a cluster.

    Args:
        options: The cluster.
        choice: The encoders that each actor loads, with a concrete decoder instead of `auto`.
        device: The device of the actors: cpu or cuda.
        store: The folder of the store.
        workers: The number of actors; None uses as many as the cluster has room for.
        most: The largest number of actors for which there is work.
        stall_s: Seconds without progress after which a decoder is stopped.

    Raises:
        TrichordError: Ray is not installed, the cluster cannot be reached, or it has no room for a worker.
    """

    def __init__(
        self, options: RayOptions, choice: EncoderChoice, device: str, store: Path, *, workers: int | None, most: int,
        stall_s: float,
    ) -> None:  # fmt: skip
        if workers == 0:
            raise TrichordError("workers is 0, which works in this process; with --engine ray it must be at least 1")
        self._cluster = Cluster(options, device)
        self._store, self._workers, self._most = store, workers, max(most, 1)
        self._arguments = (os.getcwd(), choice, device, options.cpus, describe(choice, device).digest, store, stall_s)
        self._keys: dict[str, str] = {}  # key of each task of the wave, by its name in the spool
        self._reported: set[str] = set()

    @property
    def count(self) -> int:
        """The number of workers: as requested, or as many as the cluster has room for. Connects to the cluster."""
        room = self._cluster.room()
        return min(self._workers or room, self._most)

    def outcomes(self, tasks: Iterator[Task]) -> Iterator[tuple[str, Outcome]]:
        """See `Engine.outcomes`."""
        count = self.count  # before anything is hashed, because the cluster may not exist
        make_folder(self._store, FOLDER)
        wave = list(islice(tasks, max(FIRST_WAVE, 4 * count)))
        while wave:
            ahead: list[Task] = []
            self._keys = {spool_name(task.key, task.collection): task.key for task in wave}
            self._reported = set()
            rows = [{"task": pickle.dumps(task)} for task in wave]
            for row in self._cluster.mapped(Extractor, self._arguments, rows, count):
                self._reported.add(row["key"])
                yield row["key"], pickle.loads(row["outcome"])
                ahead += islice(tasks, min(2, MOST_WAVE - len(ahead)))
            if lost := set(self._keys.values()) - self._reported:
                raise TrichordError(f"the Ray cluster lost {len(lost)} tasks; run the same command again to do them")
            wave = ahead or list(islice(tasks, MOST_WAVE))

    def under_way(self) -> set[str]:
        """See `Engine.under_way`."""
        names = {name for _, name in begun(self._store)}
        return {key for name, key in self._keys.items() if name in names} - self._reported

    def close(self, *, now: bool) -> None:
        """See `Engine.close`."""
        self._cluster.close()


class Extractor(NodeActor):
    """An actor with a worker process on its node."""

    nothing = {"key": "", "outcome": b""}

    def begin(self, choice: EncoderChoice, device: str, threads: int, digest: str, store: Path, stall_s: float) -> None:
        """Start the worker process after checking that the node has the store and the same encoders."""
        if not (store / FOLDER).is_dir():
            raise TrichordError(f"does not see {store}; put store and videos on a file system that all nodes share")
        if describe(choice, device).digest != digest:
            raise TrichordError("has other encoders than the driver; install the same release and weights on all nodes")
        self._workers, self._stall_s = Workers(choice, device, 1, threads), stall_s

    def work(self, row: dict[str, Any]) -> dict[str, Any]:
        """Run the task of a row."""
        task: Task = pickle.loads(row["task"])
        return {"key": task.key, "outcome": pickle.dumps(self._outcome(task))}

    def _outcome(self, task: Task) -> Outcome:
        attempt = next(filter(_create, attempts(task)), None)
        if attempt is None:
            return Outcome(
                "system",
                f"its worker was lost {MOST_ATTEMPTS} times; find out what kills workers (for example too little memory)",
            )
        try:
            return outcome_of(self._workers.submit(task), self._stall_s)
        finally:
            with suppress(OSError):
                attempt.rmdir()


def attempts(task: Task) -> Iterable[Path]:
    """Return folders in the spool that mark attempts at a task. A lost worker leaves its mark, which the driver removes."""
    name = spool_name(task.key, task.collection)
    return (task.store / FOLDER / f".{name}.{number}.attempt" for number in range(MOST_ATTEMPTS))


def _create(folder: Path) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True
