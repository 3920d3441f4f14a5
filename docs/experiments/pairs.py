"""Compare orders by what their first pairs know, and measure the cost of freezing.

    python docs/experiments/pairs.py STUDY... [-- VARIANT...]

For each benchmark of each study, print R@10 of text-to-video retrieval and the mean R@10 of the six directions between two
modalities, by order, with intervals over queries and seeds; the differences between orders; and the recall of each pair alone.
With VARIANTs (studies of the same clips with other `later_stages`), print how each variant changes the orders instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from trichord.evaluation.comparison import compare_orders
from trichord.evaluation.statistics import holm, paired_difference, recall_interval
from trichord.modality import Direction, Order
from trichord.report.analysis import analyse_study, check_comparable, targets_of
from trichord.report.reading import Study, read_study

PAIRS = ("t2v", "v2t", "t2a", "a2t", "v2a", "a2v")
K = 10


def hits_by_order(study: Study, benchmark: str, directions: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the hits at K (seeds, clips) of each order, averaged over the directions.

    Orders that lack one of the directions are left out.
    """
    hits: dict[str, list[np.ndarray]] = {}
    for direction in directions:
        for target in targets_of(analyse_study(study, direction, compare=False), direction):
            if target.benchmark == benchmark:
                for name in target.figures:
                    if (runs := target.runs(name, f"R@{K}")) is not None:
                        hits.setdefault(target.models[name].system.order, []).append(runs.replicates)
    return {order: np.mean(several, axis=0) for order, several in hits.items() if len(several) == len(directions)}


def show(study: Study) -> None:
    """Print the comparison of the orders of a study, and the recall of each pair alone."""
    for benchmark in study.benchmarks:
        name = benchmark["name"]
        print(f"\n## {study.name}, {benchmark['title']}\n")
        for title, directions in (("t2v", ("t2v",)), ("mean of six directions", PAIRS)):
            hits = hits_by_order(study, name, directions)
            of_three = {order: values for order, values in hits.items() if len(Order.parse(order).modalities) == 3}
            comparison = compare_orders(of_three, benchmark=name)
            print(f"R@{K}, {title}: " + ", ".join(
                f"{Order.parse(o)} {recall_interval(h)}" for o, h in sorted(of_three.items(), key=lambda x: -x[1].mean())
            ))  # fmt: skip
            print(f"  {comparison.verdict}")
            for pair in comparison.differences:
                mark = "  *" if pair.p_adjusted < 0.05 else ""
                print(
                    f"  {Order.parse(pair.a)} - {Order.parse(pair.b)} {pair.estimate:+.1f} "
                    f"[{pair.low:+.1f}, {pair.high:+.1f}], adjusted p {pair.p_adjusted:.3f}{mark}"
                )
        print(f"R@{K} of each pair alone (mean of its two directions):")
        for order in study.orders:
            letters = Order.parse(order).modalities
            if len(letters) == 2:
                both = tuple(d for d in PAIRS if set(Direction.parse(d).modalities) == set(letters))
                print(f"  {Order.parse(order)} {recall_interval(hits_by_order(study, name, both)[order])}")


def show_variants(base: Study, variants: list[Study]) -> None:
    """Print a table of how each variant changes the orders, and of their differences from joint training."""
    for benchmark in base.benchmarks:
        name = benchmark["name"]
        print(f"\n## Variants of {base.name}, {benchmark['title']}: mean R@{K} of six directions, points\n")
        own = hits_by_order(base, name, PAIRS)
        rows = []
        for variant in variants:
            other = hits_by_order(variant, name, PAIRS)
            rows += [(variant.name, o, paired_difference(h, own[o]), paired_difference(h, own["avt"]))
                     for o, h in other.items() if o in own]  # fmt: skip
        rows = [("frozen", o, None, paired_difference(own[o], own["avt"])) for o in own if o != "avt"] + rows
        adjusted = iter(holm([change.p for _, _, change, _ in rows if change is not None]))
        print("| variant | order | against frozen | adjusted p | against AVT |\n| --- | --- | ---: | ---: | ---: |")
        for label, order, change, gap in rows:
            first = f"{change.estimate:+.1f} [{change.low:+.1f}, {change.high:+.1f}]" if change else "-"
            p = f"{next(adjusted):.3f}" if change else "-"
            print(
                f"| {label} | {Order.parse(order)} | {first} | {p} | {gap.estimate:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}] |"
            )


if __name__ == "__main__":
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    studies = [read_study(Path(word)) for word in words[:split]]
    variants = [read_study(Path(word)) for word in words[split + 1 :]]
    for study in studies + variants:
        check_comparable(study)
    if not variants:
        for study in studies:
            show(study)
    else:
        show_variants(studies[0], variants)
