"""Matching of the rows of two results by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np


def places_of(keys: Sequence[Hashable], others: Sequence[Hashable]) -> np.ndarray | None:
    """Return the position of each key in another sequence.

    If a key occurs several times, its first occurrences are matched, then the second ones, and so on.

    Args:
        keys: Keys.
        others: Sequence in which the keys are searched.

    Returns:
        Array (n,) of indices. None if the sequences do not contain the same keys equally often.

    Example:
        >>> places_of(["a", "b", "a"], ["b", "a", "a"]).tolist()
        [1, 0, 2]
    """
    if len(keys) != len(others):
        return None
    place = {key: at for at, key in enumerate(_numbered(others))}
    places = [place.get(key, -1) for key in _numbered(keys)]
    return None if -1 in places else np.array(places, np.int64)


def _numbered(keys: Sequence[Hashable]) -> list[tuple[Hashable, int]]:
    """Return each key with the number of its earlier occurrences."""
    seen: Counter[Hashable] = Counter()
    numbered = []
    for key in keys:
        numbered.append((key, seen[key]))
        seen[key] += 1
    return numbered
