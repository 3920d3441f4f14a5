"""A Ray cluster whose actors process rows with Ray Data. It needs the extra `ray`, which is imported on first use.

If an actor or a node is lost, Ray gives its rows to other actors, so processing a row twice must be harmless. All nodes need the
same installation, and a shared file system on which each path leads to the same file.
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

OBJECT_STORE_BYTES = 100 << 20  # size for a local cluster; rows and results are small
_CONNECT_TIMEOUT_S = 10.0
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no usage statistics are sent
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # nothing is installed on the nodes
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # messages of Ray itself stay in its log files
}


@dataclass(frozen=True)
class RayOptions:
    """The cluster and the resources of each worker.

    Attributes:
        address: `auto` (the cluster that this machine belongs to), `local` (a new cluster on this machine, for this run) or
            HOST:PORT.
        cpus: Number of cores of each worker, and of its encoding threads.
        gpus: Number of GPUs of each worker, which may be a fraction. None means 1 if the device is `cuda`, and 0 otherwise.
    """

    address: str = "auto"
    cpus: int = 1
    gpus: float | None = None


class NodeActor(ABC):
    """Base class of actors. If an actor fails, the result of its next row contains the reason, and processing stops.

    Args:
        folder: Current directory of the driver, relative to which paths are resolved.
        *arguments: Arguments of `begin`.

    Attributes:
        nothing: Result of a row if the actor has failed.
    """

    nothing: Mapping[str, Any]

    def __init__(self, folder: str, *arguments: Any) -> None:
        self._failure = ""
        with suppress(OSError):
            os.chdir(folder)
        with self._failure_recorded():
            self.begin(*arguments)

    @abstractmethod
    def begin(self, *arguments: Any) -> None:
        """Prepare the actor. It is called once, before the first row."""

    @abstractmethod
    def work(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a row."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a row, with the reason of a failure under the key `failure`."""
        result = dict(self.nothing)
        if not self._failure:
            with self._failure_recorded():
                result = self.work(row)
        return {**result, "failure": self._failure}

    @contextmanager
    def _failure_recorded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._failure = f"Ray node {os.uname().nodename}: {one_line(error) or type(error).__name__}"


class Cluster:
    """A connection to a cluster, which is opened when it is first needed.

    Args:
        options: The cluster, and the resources of each actor.
        device: Device of the actors, such as `cpu` or `cuda`.

    Raises:
        TrichordError: Ray is not installed, or the options are invalid.
    """

    def __init__(self, options: RayOptions, device: str) -> None:
        if options.cpus < 1 or (options.gpus or 0) < 0:
            raise TrichordError(
                f"a worker cannot have {options.cpus} cores and {options.gpus or 0} GPUs; "
                "give at least 1 core and 0 or more GPUs"
            )
        self._ray = _imported()
        self._address, self._cpus = options.address, options.cpus
        self._gpus = (1.0 if device.startswith("cuda") else 0.0) if options.gpus is None else options.gpus
        self._started = False  # whether this object opened the connection
        self._rows: Generator[dict[str, Any], None, None] | None = None

    def room(self) -> int:
        """Return the number of actors that fit on the nodes.

        Raises:
            TrichordError: No node has the resources of an actor, or the cluster cannot be reached.
        """
        self._connect()
        room = _room(self._ray, self._cpus, self._gpus)
        if not room:
            what = f"{self._cpus} cores and {self._gpus:g} GPUs"
            raise TrichordError(f"the Ray cluster has no node with {what} for a worker; request fewer, or add nodes")
        return room

    def mapped(
        self, actor: type[NodeActor], arguments: tuple[Any, ...], rows: Sequence[dict[str, Any]], count: int
    ) -> Generator[dict[str, Any], None, None]:
        """Process rows on the cluster.

        Args:
            actor: Class of the actors.
            arguments: Arguments of `actor.begin`, preceded by the current directory of the driver.
            rows: Rows to process.
            count: Largest number of actors.

        Returns:
            A generator of the results, in the order in which they are finished.

        Raises:
            TrichordError: An actor or the cluster has failed. The generator raises it.
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
        # With a minimum of one actor, work continues when a node is lost. With two tasks per actor, no actor waits for a row.
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
            raise TrichordError(
                f"the Ray cluster failed ({one_line(error)}); run the command again to continue"
            ) from None

    def _connect(self) -> None:
        """Open a connection, unless the process already has one."""
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
        """Check that the cluster accepts connections, because Ray itself retries for many minutes."""
        address = os.environ.get("RAY_ADDRESS", "") if self._address == "auto" else self._address
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon and port.isdecimal():
            try:
                socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()
            except (OSError, OverflowError) as error:
                raise self._nobody_at(address, error) from None

    @staticmethod
    def _nobody_at(address: str, error: Exception) -> TrichordError:
        return TrichordError(
            f"there is no Ray cluster at '{address}' ({one_line(error).partition('. ')[0]}); start one with "
            "`ray start --head`, or use --ray_address local"
        )

    def close_map(self) -> None:
        """Stop the actors, unless all results have been read."""
        if self._rows is not None:
            self._rows.close()

    def close(self) -> None:
        """Stop the actors, and close the connection if this object opened it."""
        self.close_map()
        if self._started:
            self._ray.shutdown()
            self._started = False


def _imported() -> Any:
    """Import Ray and Ray Data, and disable their usage statistics and messages."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise TrichordError(
            f"--engine ray needs Ray ({one_line(error)}); run: pip install 'trichord[ray]', or leave --engine out"
        ) from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


@contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Restore the handler of SIGTERM after the block, because Ray replaces it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _room(ray: Any, cpus: float, gpus: float) -> int:
    """Return the number of workers that fit on the nodes of the cluster."""
    room = 0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            fits = [has.get(name, 0.0) // wanted for name, wanted in (("CPU", cpus), ("GPU", gpus)) if wanted]
            room += int(min(fits))
    return room
