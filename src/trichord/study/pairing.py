"""Pair the rows of two results by their names, whatever the order of the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np


def places_of(keys: Sequence[Hashable], others: Sequence[Hashable]) -> np.ndarray | None:
    """Return (n,) where each key stands among `others`; None where the two do not hold the same keys equally often.

    A key that is there several times is paired in order: its first place with the first place, and so on.

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
    """Each key with how often it was there before."""
    seen: Counter[Hashable] = Counter()
    numbered = []
    for key in keys:
        numbered.append((key, seen[key]))
        seen[key] += 1
    return numbered
