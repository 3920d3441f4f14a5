"""Format figures, in the same way in every table."""

from __future__ import annotations


def percent(value: float, digits: int = 2) -> str:
    """Format a recall or a difference; -0.00 becomes 0.00.

    >>> percent(-0.001), percent(41.25, 1)
    ('0.00', '41.2')
    """
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def in_percent(level: float) -> str:
    """Format the level of intervals.

    >>> in_percent(0.95)
    '95 %'
    """
    return f"{100 * level:g} %"


def spanned(estimate: float, low: float, high: float) -> str:
    """Format an estimate with its interval, with two decimals if all numbers are below ten.

    >>> spanned(48.13, 40.46, 55.81)
    '48.1 [40.5, 55.8]'
    """
    digits = 1 if max(abs(estimate), abs(low), abs(high)) >= 10 else 2
    return f"{percent(estimate, digits)} [{percent(low, digits)}, {percent(high, digits)}]"


def figure_text(estimate: float, low: float | None, high: float | None, unit: str = "%") -> str:
    """Format a figure with its interval, or alone if it has none.

    >>> figure_text(48.13, None, None), figure_text(2.0, 1.0, 3.0, unit="rank")
    ('48.1', '2 [1, 3]')
    """
    if low is None or high is None:
        return percent(estimate, 1 if unit == "rank" or abs(estimate) >= 10 else 2)
    return f"{estimate:g} [{low:g}, {high:g}]" if unit == "rank" else spanned(estimate, low, high)
