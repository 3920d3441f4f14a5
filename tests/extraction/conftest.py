"""Fixtures of the tests of extraction."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from extract_helpers import load_once, odd_folder
from trichord.extraction import pool


@pytest.fixture
def encoders_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each encoder once for all tests, and use one thread."""
    torch.set_num_threads(1)
    monkeypatch.setattr(pool, "load", load_once)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos, some of which are irregular."""
    return odd_folder(tmp_path_factory.mktemp("videos"))
