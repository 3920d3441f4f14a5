"""Fixtures of the tests of studies."""

from __future__ import annotations

from drawing_fixtures import undrawn, without_chart

__all__ = ["undrawn", "without_chart"]
