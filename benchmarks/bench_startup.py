"""Measure the start-up time of commands, and whether `import trichord` imports torch."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from results import record

RUNS = 9
IMPORTED = "import sys, trichord; print(int('torch' in sys.modules))"


def median_s(words: list[str]) -> float:
    seconds = []
    for _ in range(RUNS + 1):
        begin = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch_too = subprocess.run(
        [sys.executable, "-c", IMPORTED], check=True, capture_output=True, text=True
    ).stdout.strip()
    rows = [
        ("python -c pass, s", f"{median_s([sys.executable, '-c', 'pass']):.2f}", ""),
        ("import trichord, s", f"{median_s([sys.executable, '-c', 'import trichord']):.2f}", ""),
        ("import trichord imports torch", "yes" if torch_too == "1" else "no", "no"),
        ("trichord --help, s", f"{median_s([sys.executable, '-m', 'trichord', '--help']):.2f}", "0.4"),
        ("trichord report --help, s", f"{median_s([sys.executable, '-m', 'trichord', 'report', '--help']):.2f}", ""),
    ]
    record("bench_startup.py", "Start-up", rows, f"Medians of {RUNS} runs with a warm cache.")


if __name__ == "__main__":
    main()
