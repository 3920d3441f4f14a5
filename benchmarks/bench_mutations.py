"""Mutated stores, studies, models, checkpoints, recipes and releases: what is read of them, and what must never happen.

Never: a traceback, a hang, a crash, a wrong result that is accepted, a payload that runs. What counts as wrong stands in
tests/mutation_targets.py. The seed repeats a run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from results import record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mutation_run import MOST_BYTES, Outcome, run  # noqa: E402

NEVER = ("traceback", "not one printable line", "hung", "crashed", "wrong result", "executed")


def rows(outcome: Outcome) -> list[tuple[str, str, str]]:
    """The table of the results."""
    found = [(what, f"{outcome.total(what)}", "0") for what in NEVER]
    for what in ("refused", "said", "same", "changed content"):
        by_target = Counter({target: n for (target, kind), n in outcome.counts.items() if kind == what})
        listed = ", ".join(f"{name} {n}" for name, n in sorted(by_target.items()))
        found.append((what, f"{outcome.total(what):,} ({listed})", ""))
    count = sum(outcome.counts.values())
    found.append(("mutations a second", f"{count / outcome.seconds:.1f}", "20"))
    found.append(("largest growth of a worker's memory over one mutation, MB", f"{outcome.most_rss_mb:.0f}", ""))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="One target.")
    parser.add_argument(
        "--failures", type=Path, default=None, help="Write the failures to this file, a JSON line each."
    )
    arguments = parser.parse_args()
    outcome = run(arguments.count, arguments.seed, arguments.workers, arguments.only)
    if arguments.failures is not None:
        arguments.failures.write_text("".join(json.dumps(told) + "\n" for told in outcome.failures))
    for told in outcome.failures[:20]:
        print(json.dumps(told, indent=1))
    if arguments.only:
        print("\n".join(map(str, rows(outcome))))
        return
    record(
        "bench_mutations.py",
        f"{arguments.count:,} mutations of all that is read (seed {arguments.seed})",
        rows(outcome),
        f"Each is read in a process that may map {MOST_BYTES >> 30} GB more than it has. Refused: one printable line. "
        "Said: `store verify` lists it, or a checkpoint is set aside with a word. "
        "Same: the result of the whole files, bit for bit. "
        "Changed content: files without checksums that say something else and are sound (pickles, captions, a recipe's "
        "values), runs of a study that a report shows as unfinished, content that was changed together with its digests.",
    )


if __name__ == "__main__":
    main()
