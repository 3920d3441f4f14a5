"""Mutate stores, studies, models, checkpoints, recipes and releases, and check what happens when they are read.

There must never be a traceback, a hang, a crash, an accepted wrong result, or an executed payload.
`tests/helpers/mutation_targets.py` defines what counts as wrong. A run can be repeated by its seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from results import record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from mutation_run import MOST_BYTES, Outcome, run  # noqa: E402

NEVER = ("traceback", "not one printable line", "hung", "crashed", "wrong result", "executed")


def rows(outcome: Outcome) -> list[tuple[str, str, str]]:
    """Return the rows of the results."""
    table = [(what, f"{outcome.total(what)}", "0") for what in NEVER]
    for what in ("refused", "said", "same", "changed content"):
        by_target = Counter({target: n for (target, kind), n in outcome.counts.items() if kind == what})
        listed = ", ".join(f"{name} {n}" for name, n in sorted(by_target.items()))
        table.append((what, f"{outcome.total(what):,} ({listed})", ""))
    count = sum(outcome.counts.values())
    table.append(("mutations per second", f"{count / outcome.seconds:.1f}", "20"))
    table.append(("largest growth of a worker's memory over one mutation, MB", f"{outcome.most_rss_mb:.0f}", ""))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="run this target only")
    parser.add_argument(
        "--failures", type=Path, default=None, help="write the failures to this file, one JSON object per line"
    )
    arguments = parser.parse_args()
    outcome = run(arguments.count, arguments.seed, arguments.workers, arguments.only)
    if arguments.failures is not None:
        arguments.failures.write_text("".join(json.dumps(failure) + "\n" for failure in outcome.failures))
    for failure in outcome.failures[:20]:
        print(json.dumps(failure, indent=1))
    if arguments.only:
        print("\n".join(map(str, rows(outcome))))
        return
    record(
        "bench_mutations.py",
        f"{arguments.count:,} mutations of all inputs (seed {arguments.seed})",
        rows(outcome),
        f"Each mutation is read in a process that may map {MOST_BYTES >> 30} GB in addition. Refused: an error of one printable "
        "line. Said: `store verify` lists the damage, or a checkpoint is set aside with a message. Same: the result equals that "
        "of the intact files, bit for bit. Changed content: valid files without checksums that have another content (pickles, "
        "captions, values of a recipe), runs of a study that a report shows as unfinished, and content that was changed together "
        "with its checksums.",
    )


if __name__ == "__main__":
    main()
