"""How figures are printed, the same in every table."""

from __future__ import annotations


def percent(value: float, digits: int = 2) -> str:
    """A recall or a difference; -0.00 is 0.00."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def spanned(estimate: float, low: float, high: float) -> str:
    """`48.1 [40.5, 55.8]`; two decimals where the figures are below ten."""
    digits = 1 if max(abs(estimate), abs(low), abs(high)) >= 10 else 2
    return f"{percent(estimate, digits)} [{percent(low, digits)}, {percent(high, digits)}]"


def figure_text(estimate: float, low: float | None, high: float | None, unit: str = "%") -> str:
    """A figure with its interval, or alone where it has none."""
    if low is None or high is None:
        return percent(estimate, 1 if unit == "rank" or abs(estimate) >= 10 else 2)
    return f"{estimate:g} [{low:g}, {high:g}]" if unit == "rank" else spanned(estimate, low, high)
