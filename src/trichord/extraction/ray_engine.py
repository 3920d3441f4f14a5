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

import logging
import os
import pickle
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.extraction.choice import EncoderChoice, describe
from trichord.extraction.pool import Workers, outcome_of
from trichord.extraction.work import Outcome, Task
from trichord.store.spool import FOLDER, begun, spool_name

FIRST_WAVE, MOST_WAVE = 64, 4096  # tasks
MOST_ATTEMPTS = 5
OBJECT_STORE_BYTES = 100 << 20  # of a cluster that is started here: tasks and outcomes are small
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # nothing is installed on the nodes
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what it has to say of itself is in its own logs
}


@dataclass(frozen=True)
class RayOptions:
    """The cluster and what each worker takes of it.

    Attributes:
        address: auto (the cluster that runs here), local (one of this machine, for this run), HOST:PORT or ray://HOST:PORT.
        cpus: Cores of each worker, which are its encoding threads too.
        gpus: GPUs of each worker; None: one with a device cuda, else none. May be a fraction.
    """

    address: str = "auto"
    cpus: int = 1
    gpus: float | None = None


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
        if options.cpus < 1 or (options.gpus or 0) < 0:
            raise TrichordError(f"a worker with {options.cpus} cores and {options.gpus} GPUs; give 1 core or more")
        self._ray = _imported()
        self._address, self._cpus = options.address, options.cpus
        self._gpus = (1.0 if device.startswith("cuda") else 0.0) if options.gpus is None else options.gpus
        self._store, self._workers, self._most = store, workers, max(most, 1)
        self._arguments = (choice, device, self._cpus, describe(choice, device).digest, os.getcwd(), store, stall_s)
        self._started = False  # whether the connection is this engine's
        self._results: Generator[tuple[str, Outcome], None, None] | None = None  # of the wave
        self._keys: dict[str, str] = {}  # name in the spool -> key, of the wave
        self._told: set[str] = set()

    @property
    def count(self) -> int:
        """Workers: as many as were asked for or the cluster has room for. Connects to it."""
        self._connect()
        room = _room(self._ray, self._cpus, self._gpus)
        if not room:
            what = f"{self._cpus} cores and {self._gpus:g} GPUs"
            raise TrichordError(f"the Ray cluster has no node with {what} for a worker; ask for fewer, or add nodes")
        return min(self._workers or room, self._most)

    def outcomes(self, tasks: Iterator[Task]) -> Iterator[tuple[str, Outcome]]:
        count = self.count  # before anything is hashed: the cluster may not be there
        (self._store / FOLDER).mkdir(parents=True, exist_ok=True)
        wave = list(islice(tasks, max(FIRST_WAVE, 4 * count)))
        while wave:
            ahead: list[Task] = []
            self._keys = {spool_name(task.key, task.collection): task.key for task in wave}
            self._told = set()
            self._results = self._mapped(wave, count)
            for key, outcome in self._results:
                self._told.add(key)
                yield key, outcome
                ahead += islice(tasks, min(2, MOST_WAVE - len(ahead)))
            if lost := set(self._keys.values()) - self._told:
                raise TrichordError(f"the Ray cluster lost {len(lost)} tasks; the same command does them")
            wave = ahead or list(islice(tasks, MOST_WAVE))

    def _mapped(self, tasks: list[Task], count: int) -> Generator[tuple[str, Outcome], None, None]:
        ray = self._ray
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = [{"task": pickle.dumps(task)} for task in tasks]
        # As few as one actor: work goes on when a node is lost for good. Two tasks each: the next is there when one ends.
        actors = ray.data.ActorPoolStrategy(
            min_size=1, initial_size=count, max_size=count, max_tasks_in_flight_per_actor=2
        )
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            Extractor, fn_constructor_args=self._arguments, compute=actors, num_cpus=self._cpus, num_gpus=self._gpus,
        )  # fmt: skip
        try:
            for row in results.iter_rows():
                if row["failure"]:
                    raise TrichordError(row["failure"])
                yield row["key"], pickle.loads(row["outcome"])
        except ray.exceptions.RayError as error:
            raise TrichordError(f"the Ray cluster failed ({one_line(error)}); the same command goes on") from None

    def _connect(self) -> None:
        """A caller's own connection is used as it is, and kept."""
        if self._ray.is_initialized():
            return
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address == "local":
            options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        try:
            with _kept_sigterm():
                self._ray.init(address=self._address, **options)
        except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
            raise TrichordError(
                f"no Ray cluster at '{self._address}' ({one_line(error).partition('. ')[0]}); start one with "
                "ray start --head, or use --ray_address local"
            ) from None
        self._started = True

    def under_way(self) -> set[str]:
        names = {name for _, name in begun(self._store)}
        return {key for name, key in self._keys.items() if name in names} - self._told

    def close(self, *, now: bool) -> None:
        if self._results is not None:
            self._results.close()  # which ends the actors
        if self._started:
            self._ray.shutdown()
            self._started = False


class Extractor:
    """An actor of the map: a worker process on its node. What keeps it from working is told by its first task."""

    def __init__(
        self, choice: EncoderChoice, device: str, threads: int, digest: str, folder: str, store: Path, stall_s: float
    ) -> None:
        self._stall_s, self._failure = stall_s, ""
        try:
            with suppress(OSError):
                os.chdir(folder)  # relative paths mean what they mean to the driver
            if not (store / FOLDER).is_dir():
                raise TrichordError(f"does not see {store}; put store and videos where all nodes have them")
            if describe(choice, device).digest != digest:
                raise TrichordError("has other encoders than the driver; install the same release and weights there")
            self._workers = Workers(choice, device, 1, threads)
        except Exception as error:
            self._failure = f"Ray node {os.uname().nodename}: {one_line(error) or type(error).__name__}"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        task: Task = pickle.loads(row["task"])
        outcome = Outcome()
        if not self._failure:
            try:
                outcome = self._outcome(task)
            except Exception as error:  # the encoders cannot be loaded, the disk is full
                self._failure = f"Ray node {os.uname().nodename}: {one_line(error) or type(error).__name__}"
        return {"key": task.key, "outcome": pickle.dumps(outcome), "failure": self._failure}

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


def _imported() -> Any:
    """Ray with its data sets, told to keep to itself."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise TrichordError(
            f"--engine ray needs Ray ({one_line(error)}); pip install 'trichord[ray]', or leave --engine out"
        ) from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


@contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Ray takes SIGTERM for itself; here it ends a run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _room(ray: Any, cpus: float, gpus: float) -> int:
    """Workers that fit on the nodes of the cluster."""
    room = 0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            fits = [has.get(name, 0.0) // wanted for name, wanted in (("CPU", cpus), ("GPU", gpus)) if wanted]
            room += int(min(fits))
    return room
