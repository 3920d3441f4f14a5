"""A Ray cluster as trichord uses it: actors of one class, mapped over rows by Ray Data. The extra `ray`; imported when used.

An actor or a node that is lost is Ray's to replace: its rows go to others. So what an actor does with a row must bear being
done twice. The nodes have the same installation, and share the file system that the rows speak of, under the same paths.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from trichord.errors import TrichordError, one_line

OBJECT_STORE_BYTES = 100 << 20  # of a cluster that is started here: tasks and outcomes are small
_PATIENCE_S = 10.0  # with an address
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
        address: auto (the cluster that runs here), local (one of this machine, for this run) or HOST:PORT.
        cpus: Cores of each worker, which are its encoding threads too.
        gpus: GPUs of each worker; None: one with a device cuda, else none. May be a fraction.
    """

    address: str = "auto"
    cpus: int = 1
    gpus: float | None = None


class NodeActor(ABC):
    """An actor of a map on its node. If it cannot work, its next row reports why, and the map ends.

    Args:
        folder: The driver's, so that relative paths mean what they mean to the driver.
        arguments: Of `begin`.

    Attributes:
        nothing: Result of a row if the actor cannot work.
    """

    nothing: Mapping[str, Any]

    def __init__(self, folder: str, *arguments: Any) -> None:
        self._failure = ""
        with suppress(OSError):
            os.chdir(folder)
        with self._told():
            self.begin(*arguments)

    @abstractmethod
    def begin(self, *arguments: Any) -> None:
        """Get ready."""

    @abstractmethod
    def work(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a row."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        result = dict(self.nothing)
        if not self._failure:
            with self._told():
                result = self.work(row)
        return {**result, "failure": self._failure}

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._failure = f"Ray node {os.uname().nodename}: {one_line(error) or type(error).__name__}"


class Cluster:
    """A connection to a cluster, made when it is first needed.

    Args:
        options: Which cluster, and what each actor takes of it.
        device: cpu or cuda, of the actors.

    Raises TrichordError when Ray is not installed or the options are none; later, when the cluster cannot be reached.
    """

    def __init__(self, options: RayOptions, device: str) -> None:
        if options.cpus < 1 or (options.gpus or 0) < 0:
            raise TrichordError(f"a worker with {options.cpus} cores and {options.gpus} GPUs; give 1 core or more")
        self._ray = _imported()
        self._address, self._cpus = options.address, options.cpus
        self._gpus = (1.0 if device.startswith("cuda") else 0.0) if options.gpus is None else options.gpus
        self._started = False  # whether the connection is this object's
        self._rows: Generator[dict[str, Any], None, None] | None = None

    def room(self) -> int:
        """Actors that fit on the nodes. Raises TrichordError when there is room for none."""
        self._connect()
        room = _room(self._ray, self._cpus, self._gpus)
        if not room:
            what = f"{self._cpus} cores and {self._gpus:g} GPUs"
            raise TrichordError(f"the Ray cluster has no node with {what} for a worker; ask for fewer, or add nodes")
        return room

    def mapped(
        self, actor: type[NodeActor], arguments: tuple[Any, ...], rows: Sequence[dict[str, Any]], count: int
    ) -> Generator[dict[str, Any], None, None]:
        """Yield `actor(*arguments)(row)` for each row as it is finished, computed by up to `count` actors.

        Raises TrichordError when an actor cannot work or the cluster failed.
        """
        self.close_map()
        self._rows = self._mapped(actor, arguments, rows, count)
        return self._rows

    def _mapped(
        self, actor: type[NodeActor], arguments: tuple[Any, ...], rows: Sequence[dict[str, Any]], count: int
    ) -> Generator[dict[str, Any], None, None]:
        self._connect()
        ray = self._ray
        ray.data.DataContext.get_current().enable_progress_bars = False
        # As few as one actor: work goes on when a node is lost for good. Two rows each: the next is there when one is done.
        actors = ray.data.ActorPoolStrategy(
            min_size=1, initial_size=count, max_size=count, max_tasks_in_flight_per_actor=2
        )
        results = ray.data.from_items(list(rows), override_num_blocks=len(rows)).map(
            actor, fn_constructor_args=arguments, compute=actors, num_cpus=self._cpus, num_gpus=self._gpus
        )
        try:
            for row in results.iter_rows():
                if row["failure"]:
                    raise TrichordError(row["failure"])
                yield row
        except ray.exceptions.RayError as error:
            raise TrichordError(f"the Ray cluster failed ({one_line(error)}); the same command goes on") from None

    def _connect(self) -> None:
        """A caller's own connection is used as it is, and kept."""
        if self._ray.is_initialized():
            return
        self._check_reachable()
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address == "local":
            options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        try:
            with _kept_sigterm():
                self._ray.init(address=self._address, **options)
        except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
            raise self._nobody_at(self._address, error) from None
        self._started = True

    def _check_reachable(self) -> None:
        """Ray itself tries an address where nobody listens for many minutes."""
        address = os.environ.get("RAY_ADDRESS", "") if self._address == "auto" else self._address
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon and port.isdecimal():
            try:
                socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
            except (OSError, OverflowError) as error:
                raise self._nobody_at(address, error) from None

    @staticmethod
    def _nobody_at(address: str, error: Exception) -> TrichordError:
        return TrichordError(
            f"no Ray cluster at '{address}' ({one_line(error).partition('. ')[0]}); start one with ray start --head, or use "
            "--ray_address local"
        )

    def close_map(self) -> None:
        """End the actors of a map that was not read to its end."""
        if self._rows is not None:
            self._rows.close()

    def close(self) -> None:
        self.close_map()
        if self._started:
            self._ray.shutdown()
            self._started = False


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
