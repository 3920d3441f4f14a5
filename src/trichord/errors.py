"""Errors that a user can act on: one line that says what, where and the next action."""


class TrichordError(ValueError):
    """A user's mistake or a user's data. The command line prints its message in one line and exits with 2."""


class Diverged(TrichordError):
    """A training whose loss or gradient is no longer finite."""


def one_line(text: object) -> str:
    """`text` with all runs of white space folded into single spaces."""
    return " ".join(str(text).split())
