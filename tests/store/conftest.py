"""Fixtures of the tests in this folder."""

from __future__ import annotations

from drawing_fixtures import undrawn, without_chart

__all__ = ["undrawn", "without_chart"]
