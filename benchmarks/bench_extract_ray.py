"""Compare the time of extracting the same videos with local processes and on Ray.

The Ray cluster is started before the measurement: first one node with one core, then two. Both nodes are on this machine, so
two nodes represent two workers but not twice the cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from results import record

CORES = len(os.sched_getaffinity(0))


def seconds(videos: Path, store: Path, *more: str) -> float:
    """Return the seconds of one extraction, from the start of the command to the committed store."""
    command = [sys.executable, "-m", "trichord", "extract", str(videos), "--store", str(store), *more]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def parts(store: Path) -> dict[str, bytes]:
    """Return the content of the parts of a store."""
    return {path.name: path.read_bytes() for path in sorted((store / "parts").iterdir())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=40, help="number of videos (40 s, 454x256, 30 frames per second)")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    from ray.cluster_utils import Cluster

    from trichord.world import write_world

    options = {"num_cpus": 1, "object_store_memory": 100 << 20}
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="trichord-ray-") as name:
        root = Path(name)
        write_world(root / "videos", num_train=arguments.videos - 1, num_test=1)

        def measure(what: str, *more: str) -> None:
            store = root / f"{what}{len(times.setdefault(what, []))}".replace(" ", "_")
            times[what].append(seconds(root / "videos", store, *more))
            assert parts(store) == parts(root / "local_10"), f"{what}: the stores differ"

        for _ in range(arguments.runs):
            for workers in ("1", "2"):
                measure(f"local {workers}", "--workers", workers)
            cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
            try:
                for nodes in (1, 2):
                    ray = ("--engine", "ray", "--ray_address", cluster.address, "--workers", str(nodes))
                    measure(f"ray {nodes}", *ray)
                    if nodes == 1:
                        cluster.add_node(**options)
                        cluster.wait_for_nodes()
            finally:
                cluster.shutdown()
    median = {what: float(np.median(values)) for what, values in times.items()}
    rows = [
        (
            f"{what.replace('local', 'local workers:').replace('ray', 'Ray nodes with one core:')}, total s",
            median_and_all(values),
            "",
        )
        for what, values in times.items()
    ]
    for n in (1, 2):
        over = median[f"ray {n}"] - median[f"local {n}"]
        rows.append((f"overhead of Ray, {n} worker{'s' if n > 1 else ''}", f"{over:+.1f} s", ""))
    record(
        "bench_extract_ray.py",
        f"Extraction on Ray, {arguments.videos} videos of 40 s",
        rows,
        f"Medians of {arguments.runs} run(s), and all runs in parentheses. The parts of all stores are identical, byte for byte. "
        "A single local worker uses all cores, and a Ray worker uses one. The load of the machine over the last 15 minutes, "
        f"including this benchmark, was {os.getloadavg()[2]:.1f} on {CORES} cores. If it exceeds the number of cores, the "
        "differences above are due to other programs and not to Ray.",
    )


def median_and_all(values: list[float]) -> str:
    """Return the median, and all values in parentheses."""
    return f"{np.median(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})"


if __name__ == "__main__":
    main()
