"""Decide which of several processes prints results, and which reports the error when a launch fails."""

from __future__ import annotations

import os
import sys

from trichord.errors import TrichordError, one_line


def is_launched() -> bool:
    """Return whether this process is one of several, as torchrun states in WORLD_SIZE; `check_launch` rejects invalid values."""
    number = os.environ.get("WORLD_SIZE", "1")
    return number.isdecimal() and int(number) > 1


def check_launch() -> None:
    """Raise TrichordError for numbers of processes that no launcher sets."""
    for name, minimum in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0)):
        number = os.environ.get(name, str(minimum))
        if not (number.isdecimal() and number.isascii() and minimum <= int(number[:9]) < 1_000_000):
            raise TrichordError(
                f"the environment variable {name} is '{one_line(number)[:40]}', which no launcher sets; unset it, or start the "
                "command with torchrun"
            )


def reports_errors() -> bool:
    """Return whether this process reports the error when the launch fails."""
    if not is_launched():
        return True
    from trichord.parallel import first_to_fail

    return first_to_fail()


def loss_of_others(error: Exception) -> str | None:
    """Return the error message if other processes of the launch were lost; None otherwise."""
    if not is_launched():
        return None
    from trichord.parallel import loss_of_others

    return loss_of_others(error)


def is_main() -> bool:
    """Return whether this process prints results.

    With several processes, all of them wait for each other here and then separate.
    """
    if not is_launched():
        return True
    from trichord.logs import is_main_process
    from trichord.parallel import leave

    main = is_main_process()
    leave()
    return main


def end_at_once_if_launched() -> None:
    """End a process of a launch that has finished its work without unloading libraries.

    A thread of a library can abort the process while it is unloaded, which the launcher treats as a failure and ends the other
    processes.
    """
    if is_launched():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)
