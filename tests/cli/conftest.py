"""Fixtures of the tests of the command line."""

from __future__ import annotations

from drawing_fixtures import undrawn, without_chart

__all__ = ["undrawn", "without_chart"]
