"""Functions shared by tests of importers."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paths import FIXTURES
from trichord.errors import TrichordError
from trichord.releases import ImportSummary
from trichord.store import Store

SAMPLE = FIXTURES / "release-sample"
WORDS = SAMPLE / "word2vec.bin"
ODD = [None, "x", b"x", 5, 10**400, 1.5, float("nan"), [], {}, [1, [2]], ["a", None], {"a": 1}, np.array(1.0), True]
ODD += [np.zeros((2, 3, 4)), np.array(["a"]), np.zeros(0), torch.zeros(3), torch.zeros(2, 2).bool(), np.float32(3), ()]


def reasons(store: Path) -> dict[str, str]:
    return {entry["source"]: entry["reason"] for entry in Store(store).skipped()}


def refused(importer: Callable[..., ImportSummary], root: Path, store: Path, **options: Any) -> str:
    with pytest.raises(TrichordError) as caught:
        importer(root, store, WORDS, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def item(store: Store, video: str) -> int:
    return next(i for i in range(len(store)) if store.video_id(i) == video)


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))
    return path
