"""Folders that tests and their helpers read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
HELPERS = TESTS / "helpers"
FIXTURES = TESTS / "fixtures"
