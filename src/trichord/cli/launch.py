"""One process of several: who speaks, and who has failed first."""

from __future__ import annotations

import os


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
