"""Time and memory of retrieval with five texts a clip, 512 wide, two threads: text to clip (one truth each) and clip to text
(the best of five). Asked: memory that grows with N, not N squared; no slower a pair than one truth."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

os.environ["OMP_NUM_THREADS"] = "2"

import numpy as np  # noqa: E402
from bench_ranks import WIDTH, forget_peak, resident_mb, timed  # noqa: E402
from results import record  # noqa: E402

from trichord.evaluation.ranks import best_truth_ranks, metrics_from_counts, retrieval_ranks  # noqa: E402
from trichord.tasks.retrieval.dual_softmax import dual_softmax_ranks  # noqa: E402

TEXTS = 5
TASKS = ("text to clip", "clip to text", "clip to text, dual softmax")


def one_task(task: str, num_clips: int) -> None:
    """Print seconds, MB over what was resident before, and R@10."""
    rng = np.random.default_rng(0)
    clips = rng.standard_normal((num_clips, WIDTH), np.float32)
    owner = np.repeat(np.arange(num_clips), TEXTS)
    texts = clips[owner] + np.float32(5) * rng.standard_normal((len(owner), WIDTH), np.float32)
    metrics_from_counts(best_truth_ranks(clips[:9], texts[:45], owner[:45]))  # what is imported late counts as before
    before = forget_peak()
    if task == TASKS[0]:
        seconds, counts = timed(lambda: retrieval_ranks(texts, clips, owner))
    elif task == TASKS[1]:
        seconds, counts = timed(lambda: best_truth_ranks(clips, texts, owner))
    else:
        seconds, counts = timed(lambda: dual_softmax_ranks(clips, texts, owner=owner, scale=0.01))
    print(seconds, resident_mb("VmHWM") - before, metrics_from_counts(counts).r10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--num", type=int, default=20_000)
    values = parser.parse_args()
    if values.task:
        one_task(values.task, values.num)
        return
    rows = []
    for task in TASKS:
        for num in (values.num // 4, values.num // 2, values.num):
            if task == TASKS[2] and num == values.num:
                continue  # float64 throughout, twice: minutes
            command = [sys.executable, __file__, "--task", task, "--num", str(num)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds, megabytes, r10 = map(float, done.stdout.split())
            pairs = num * num * TEXTS
            what = f"{task}, {num:,} clips, {num * TEXTS:,} texts"
            figure = f"{seconds:.1f} s ({1e9 * seconds / pairs:.1f} ns a pair), {megabytes:,.0f} MB (R@10 {r10:.1f})"
            rows.append((what, figure, f"memory grows with N; the matrix has {4 * pairs / 1e6:,.0f} MB"))
    record("bench_captions.py", "Retrieval with five texts a clip", rows, (__doc__ or "").replace("\n", " "))


if __name__ == "__main__":
    main()
