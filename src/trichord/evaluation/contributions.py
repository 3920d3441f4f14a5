"""What each query, clip or video gives to a figure: values whose mean is the figure, so that it has an interval and can be
compared unit by unit.

A recall's are its hits. A ratio of sums (steps found of all steps, over videos), and a mean of such ratios over groups (tasks,
classes), is made linear at its value (Woodruff, JASA 66, 1971): unit i of group g gives

    R + (n / G) (numerator_i - R_g denominator_i) / sum of g's denominators

of n units in G groups; R_g is the group's ratio and R their mean. The mean over units is R, and the variance of the mean is,
to first order, that of R under sampling units of these groups. A group of one unit says nothing of its own scatter: all such
groups are taken as one, with their ratios as units (collapsed strata; Cochran, Sampling Techniques, 1977, section 5A.12). Such
values may lie outside of [0, 1].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trichord.errors import TrichordError


def ratio_contributions(numerator: Any, denominator: Any, group: Any = None) -> np.ndarray:
    """(n,) contributions to the mean over groups of (sum of numerators / sum of denominators).

    Args:
        numerator, denominator: (n,) of each unit.
        group: (n,) labels; None: one group.

    Units without a group that counts (its denominators sum to 0) are NaN and take no part. Raises TrichordError when none does.
    """
    top, below = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    of = np.zeros(len(top), np.int64) if group is None else np.unique(np.asarray(group), return_inverse=True)[1]
    total = np.bincount(of, weights=below)
    takes_part = (total > 0)[of] if len(of) else np.zeros(0, bool)
    if not takes_part.any():
        raise TrichordError("nothing to average: all denominators are 0")
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.bincount(of, weights=top) / total
    counts = total > 0
    mean, num_groups = ratio[counts].mean(), int(counts.sum())
    values = np.full(len(top), np.nan)
    kept = of[takes_part]
    pulled = (top[takes_part] - ratio[kept] * below[takes_part]) / total[kept]
    alone = (np.bincount(kept, minlength=len(total)) == 1)[kept]
    pulled[alone] = ratio[kept[alone]] - ratio[kept[alone]].mean() if alone.any() else 0.0
    values[takes_part] = mean + len(kept) / num_groups * pulled
    return values


def aligned(values: Any, at: np.ndarray, num: int, others: float = np.nan) -> np.ndarray:
    """(num,) with `values` at the places `at`, and `others` elsewhere: NaN for units that do not count."""
    out = np.full(num, others)
    out[at] = values
    return out
