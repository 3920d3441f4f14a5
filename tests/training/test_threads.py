"""Calls in threads: results are returned in order, errors are raised where the result is used, and waits end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from trichord.threads import NotInTimeError, in_order, within


def test_a_call_within_its_time() -> None:
    assert within(60.0, lambda: threading.current_thread().daemon)
    with pytest.raises(ZeroDivisionError):
        within(60.0, lambda: 1 / 0)


def test_a_call_that_takes_too_long_is_abandoned() -> None:
    goes_on = threading.Event()
    with pytest.raises(NotInTimeError, match="no complete response within 0 s"):
        within(0.0, goes_on.wait)
    goes_on.set()


def test_results_come_in_order_and_a_bounded_number_ahead() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for number in range(9):
            drawn.append(number)
            yield number

    with ThreadPoolExecutor(3) as pool:
        results = in_order(pool, lambda number: number * number, items(), 4)
        assert next(results) == (0, 0) and drawn == [0, 1, 2, 3]
        assert list(results) == [(number, number * number) for number in range(1, 9)]
    assert drawn == list(range(9))


def test_cancelled_calls_do_not_start() -> None:
    goes_on, begun = threading.Event(), list[int]()

    def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            goes_on.wait()
        return number

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, work, range(9), 5)
        assert next(results) == (0, 0)
        results.close()
        goes_on.set()
    assert begun in ([0], [0, 1])
