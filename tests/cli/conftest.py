"""Fixtures of the tests of the command line."""

from __future__ import annotations

from study_helpers import without_chart

__all__ = ["without_chart"]
