"""Contributions of each query, clip or video to a figure.

The mean of the contributions is the figure, so it can be given an interval and compared unit by unit. The contributions to a recall
are its hits. A ratio of sums (over videos, the steps that were found divided by all steps), and a mean of such ratios over groups
(tasks, classes), is linearized at its value (Woodruff, JASA 66, 1971). With n units in G groups, unit i of group g contributes

    R + (n / G) * (numerator_i - R_g * denominator_i) / (sum of the denominators of g)

where R_g is the ratio of the group and R the mean of the ratios. The mean over units is R, and to first order the variance of the
mean is that of R when units are sampled within these groups. A group of one unit gives no information on the scatter within the
group: all such groups are merged into one whose units are their ratios (collapsed strata; Cochran, Sampling Techniques, 1977,
section 5A.12). Contributions may lie outside of [0, 1].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trichord.errors import TrichordError


def ratio_contributions(numerator: Any, denominator: Any, group: Any = None) -> np.ndarray:
    """Return the contributions (n,) to the mean over groups of (sum of numerators / sum of denominators).

    Units of a group whose denominators sum to 0 get NaN and are ignored.

    Args:
        numerator: (n,) numerator of each unit.
        denominator: (n,) denominator of each unit.
        group: (n,) label of the group of each unit; None for one group.

    Raises:
        TrichordError: All denominators are 0.

    Example:
        >>> found, steps = [3, 1], [4, 4]  # of two videos
        >>> ratio_contributions(found, steps)
        array([0.75, 0.25])
        >>> float(ratio_contributions(found, steps).mean()), sum(found) / sum(steps)
        (0.5, 0.5)
    """
    numerators, denominators = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    group_index = (
        np.zeros(len(numerators), np.int64) if group is None else np.unique(np.asarray(group), return_inverse=True)[1]
    )
    total = np.bincount(group_index, weights=denominators)
    takes_part = (total > 0)[group_index] if len(group_index) else np.zeros(0, bool)
    if not takes_part.any():
        raise TrichordError(
            "all denominators are 0, so there is nothing to average; give at least one positive denominator"
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.bincount(group_index, weights=numerators) / total
    is_counted = total > 0
    mean, num_groups = ratio[is_counted].mean(), int(is_counted.sum())
    values = np.full(len(numerators), np.nan)
    kept_group = group_index[takes_part]
    deviation = (numerators[takes_part] - ratio[kept_group] * denominators[takes_part]) / total[kept_group]
    is_single = (np.bincount(kept_group, minlength=len(total)) == 1)[kept_group]
    deviation[is_single] = (
        ratio[kept_group[is_single]] - ratio[kept_group[is_single]].mean() if is_single.any() else 0.0
    )
    values[takes_part] = mean + len(kept_group) / num_groups * deviation
    return values


def aligned(values: Any, at: np.ndarray, num: int, others: float = np.nan) -> np.ndarray:
    """Return an array (num,) with `values` at the indices `at` and `others` elsewhere (NaN for units that do not count).

    Example:
        >>> aligned([0.5, 1.0], at=np.array([0, 2]), num=4)
        array([0.5, nan, 1. , nan])
    """
    aligned_values = np.full(num, others)
    aligned_values[at] = values
    return aligned_values
