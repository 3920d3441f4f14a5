"""The work of an extraction on a Ray cluster: the tasks are a Ray Data set, mapped by actors over the local driver's worker.

Each actor has one worker process of its own (`pool.Workers`), so that a file that crashes or hangs its decoder ends that
process and is told as it is locally. An actor or a node that is lost is Ray's to replace: its tasks go to others, the
driver keeps their leases, and the spool takes an item once, however often it is made. A task that has lost its worker
`MOST_ATTEMPTS` times is given up and told.

The nodes share the file system of the videos and of the store, under the same paths, and the same installation: results go
through the store's spool, as those of local workers do, and only outcomes of some hundred bytes travel. A node that does not
see the store, or has other weights, says so and ends the run.

Policy: tasks go to the cluster in waves, the next one drawn (hashed, leased) while one is worked on, each up to twice as long as
the last. It costs the actors' start, some seconds, once a wave; it saves hashing everything before anything is begun.
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
    """Actors on the nodes of a cluster: an `engines.Engine`.

    Args:
        options: The cluster.
        choice: What each actor loads; its decoder is named, not `auto`.
        device: cpu or cuda, of the actors.
        store: The store's folder.
        workers: Actors; None: as many as the cluster has room for.
        most: Actors that there is work for.
        stall_s: Patience with a decoder.

    Raises TrichordError when Ray is not installed, the cluster cannot be reached, or has no room for one worker.
    """

    def __init__(
        self, options: RayOptions, choice: EncoderChoice, device: str, store: Path, *, workers: int | None, most: int,
        stall_s: float,
    ) -> None:  # fmt: skip
        if workers == 0:
            raise TrichordError("workers is 0, which works in this process; with --engine ray give 1 or more")
        self._cluster = Cluster(options, device)
        self._store, self._workers, self._most = store, workers, max(most, 1)
        self._arguments = (os.getcwd(), choice, device, options.cpus, describe(choice, device).digest, store, stall_s)
        self._keys: dict[str, str] = {}  # name in the spool -> key, of the wave
        self._told: set[str] = set()

    @property
    def count(self) -> int:
        """Workers: as many as were asked for or the cluster has room for. Connects to it."""
        room = self._cluster.room()
        return min(self._workers or room, self._most)

    def outcomes(self, tasks: Iterator[Task]) -> Iterator[tuple[str, Outcome]]:
        count = self.count  # before anything is hashed: the cluster may not be there
        make_folder(self._store, FOLDER)
        wave = list(islice(tasks, max(FIRST_WAVE, 4 * count)))
        while wave:
            ahead: list[Task] = []
            self._keys = {spool_name(task.key, task.collection): task.key for task in wave}
            self._told = set()
            rows = [{"task": pickle.dumps(task)} for task in wave]
            for row in self._cluster.mapped(Extractor, self._arguments, rows, count):
                self._told.add(row["key"])
                yield row["key"], pickle.loads(row["outcome"])
                ahead += islice(tasks, min(2, MOST_WAVE - len(ahead)))
            if lost := set(self._keys.values()) - self._told:
                raise TrichordError(f"the Ray cluster lost {len(lost)} tasks; the same command does them")
            wave = ahead or list(islice(tasks, MOST_WAVE))

    def under_way(self) -> set[str]:
        names = {name for _, name in begun(self._store)}
        return {key for name, key in self._keys.items() if name in names} - self._told

    def close(self, *, now: bool) -> None:
        self._cluster.close()


class Extractor(NodeActor):
    """An actor of the map: a worker process on its node."""

    nothing = {"key": "", "outcome": b""}

    def begin(self, choice: EncoderChoice, device: str, threads: int, digest: str, store: Path, stall_s: float) -> None:
        if not (store / FOLDER).is_dir():
            raise TrichordError(f"does not see {store}; put store and videos where all nodes have them")
        if describe(choice, device).digest != digest:
            raise TrichordError("has other encoders than the driver; install the same release and weights there")
        self._workers, self._stall_s = Workers(choice, device, 1, threads), stall_s

    def work(self, row: dict[str, Any]) -> dict[str, Any]:
        task: Task = pickle.loads(row["task"])
        return {"key": task.key, "outcome": pickle.dumps(self._outcome(task))}

    def _outcome(self, task: Task) -> Outcome:
        attempt = next(filter(_taken, attempts(task)), None)
        if attempt is None:
            return Outcome("system", f"its worker was lost {MOST_ATTEMPTS} times; look for what ends them (memory?)")
        try:
            return outcome_of(self._workers.submit(task), self._stall_s)
        finally:
            with suppress(OSError):
                attempt.rmdir()


def attempts(task: Task) -> Iterable[Path]:
    """Folders in the spool that mark the attempts at a task. A lost worker leaves its mark; the driver clears them away."""
    name = spool_name(task.key, task.collection)
    return (task.store / FOLDER / f".{name}.{number}.attempt" for number in range(MOST_ATTEMPTS))


def _taken(folder: Path) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True
