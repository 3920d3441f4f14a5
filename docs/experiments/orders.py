"""What a study's orders can be told apart by: `python docs/experiments/orders.py STUDY BENCHMARK [DIRECTION] [K]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from trichord.evaluation.comparison import compare_orders
from trichord.evaluation.statistics import hits_at
from trichord.study.ranks import read_ranks


def hits_of(study: Path, benchmark: str, direction: str, k: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Order -> (seeds, queries) expected hits, and the queries' names."""
    hits: dict[str, list[np.ndarray]] = {}
    ids: list[str] = []
    for path in sorted((study / "orders").rglob("seed-*.npz")):
        ranks = read_ranks(path, benchmark, direction)
        order = json.loads(path.with_suffix(".json").read_text())["results"][0]["order"]
        middle = 1 + ranks.greater + (ranks.equal - 1) / 2
        hits.setdefault(order, []).append(hits_at(middle, k, ranks.equal))
        names = [str(c) for c in ranks.clip]
        assert not ids or ids == names, "the runs have different queries"
        ids = names
    return {order: np.stack(rows) for order, rows in hits.items()}, ids


if __name__ == "__main__":
    study, benchmark = Path(sys.argv[1]), sys.argv[2]
    direction, k = (sys.argv[3] if len(sys.argv) > 3 else "t2v"), int(sys.argv[4] if len(sys.argv) > 4 else 10)
    found, query_ids = hits_of(study, benchmark, direction, k)
    comparison = compare_orders(found, query_ids={order: query_ids for order in found}, benchmark=benchmark)
    for order, recall in comparison.recalls.items():
        print(f"{order:6} R@{k} {recall.estimate:5.1f} [{recall.low:.1f}, {recall.high:.1f}]")
    for pair in comparison.differences:
        print(
            f"{pair.a:5} - {pair.b:5} {pair.estimate:+5.1f} [{pair.low:+.1f}, {pair.high:+.1f}]  "
            f"p {pair.p:.3f}, adjusted {pair.p_adjusted:.3f}"
        )
    print(comparison.verdict)
