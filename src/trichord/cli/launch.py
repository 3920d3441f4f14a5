"""One process of several: who speaks, and who has failed first."""

from __future__ import annotations

import os
import sys


def is_launched() -> bool:
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


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
