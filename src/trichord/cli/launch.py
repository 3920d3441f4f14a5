"""One process of several: who speaks, and who has failed first."""

from __future__ import annotations

import os
import sys

from trichord.errors import TrichordError, one_line


def is_launched() -> bool:
    """Whether this process is one of several, as torchrun says in WORLD_SIZE. See `check_launch` for other values."""
    number = os.environ.get("WORLD_SIZE", "1")
    return number.isdecimal() and int(number) > 1


def check_launch() -> None:
    """Raise TrichordError for numbers of processes that no launcher sets."""
    for name, least in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0)):
        number = os.environ.get(name, str(least))
        if not (number.isdecimal() and number.isascii() and least <= int(number[:9]) < 1_000_000):
            raise TrichordError(
                f"the environment variable {name} is '{one_line(number)[:40]}', which is no number of a launcher; unset it, "
                "or start the command with torchrun"
            )


def tells() -> bool:
    """Whether it is for this process to say why the launch fails."""
    if not is_launched():
        return True
    from trichord.parallel import first_to_fail

    return first_to_fail()


def loss_of_others(error: Exception) -> str | None:
    if not is_launched():
        return None
    from trichord.parallel import loss_of_others

    return loss_of_others(error)


def is_main() -> bool:
    """Whether this process prints results; of several, all have come as far then, and part."""
    if not is_launched():
        return True
    from trichord.parallel import is_main, leave

    main = is_main()
    leave()
    return main


def end_at_once_if_launched() -> None:
    """End a process of a launch that has done its work without taking libraries down. A thread of theirs was seen to abort it
    then, which the launcher takes for a failure and ends the others for."""
    if is_launched():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)
