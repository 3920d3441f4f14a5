"""Measure the report of a large study: 6 orders x 10 seeds x 3 benchmarks of 3,350 queries, 7 directions.

The targets are 20 s and 2 GB.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from report_helpers import write_study_folder  # noqa: E402

ORDERS = ("av>t", "at>v", "vt>a", "avt", "vt", "at")
DIRECTIONS = ("t2v", "t2va", "v2t", "a2v", "v2a", "t2a", "a2t")
RUNS = 3


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = write_study_folder(
            Path(folder) / "study",
            orders=ORDERS,
            seeds=range(10),
            benchmarks={"one": 3350, "two": 3350, "three": 3350},
            directions=DIRECTIONS,
            num_steps=2000,
            geometry_width=64,
        )
        seconds = []
        for _ in range(RUNS):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "trichord", "report", str(study)], check=True, stdout=subprocess.DEVNULL
            )
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
        size = (study / "report" / "report.html").stat().st_size / 1e6
    rows = [
        ("command, median", f"{statistics.median(seconds):.1f} s", "20 s"),
        ("peak resident memory", f"{peak:.2f} GB", "2 GB"),
        ("page", f"{size:.1f} MB", ""),
    ]
    times = ", ".join(f"{s:.1f}" for s in seconds)
    remarks = f"{RUNS} runs: {times} s. The figures of the study are artificial; stages have 2,000 steps."
    record("bench_report.py", "Report: 6 orders x 10 seeds x 3 benchmarks of 3,350 queries", rows, remarks)


if __name__ == "__main__":
    main()
