"""A Ray cluster of two nodes with one core each, in a separate process: `with two_nodes() as cluster`.

As a script, it starts the cluster, prints its address and executes commands from lines of standard input: `remove` removes the
second node, and `kill` ends a worker. It ends when its standard input is closed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "3"}


@dataclass
class TwoNodes:
    """The cluster: its `address`, and faults that can be caused."""

    process: subprocess.Popen[str]
    address: str

    def do(self, what: str) -> str:
        """Send a command; return what was done."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, **QUIET},
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        yield TwoNodes(process, process.stdout.readline().strip())
    finally:
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()


def main() -> None:
    import psutil
    from ray.cluster_utils import Cluster

    stdout, sys.stdout = sys.stdout, sys.stderr
    options = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    second = cluster.add_node(**options)
    cluster.wait_for_nodes()
    print(cluster.address, file=stdout, flush=True)
    for line in sys.stdin:
        if line.strip() == "remove":
            cluster.remove_node(second, allow_graceful=False)
            print("removed", file=stdout, flush=True)
        else:
            print(kill_worker(psutil.Process()), file=stdout, flush=True)
    cluster.shutdown()


def kill_worker(parent: object) -> str:
    """Send SIGKILL to the newest of the actors below this process that run the work; others may belong to an earlier command."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        processes = parent.children(recursive=True)  # type: ignore[attr-defined]
        workers = [process for process in processes if "MapWorker" in " ".join(process.cmdline())]
        if workers:
            newest = max(workers, key=lambda process: process.create_time())
            newest.kill()
            return f"killed {newest.pid}"
        time.sleep(0.2)
    return "no worker"


if __name__ == "__main__":
    main()
