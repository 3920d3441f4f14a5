"""One process of a launch that a test starts: the command line, with a fault in process 1.

python -m torch.distributed.run --nproc_per_node 2 tests/helpers/launched.py WRONG train --store ...
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from trichord.cli import main
from trichord.errors import TrichordError
from trichord.training.gradient_cache import Norm  # noqa: F401 - torch is there before the clock of a test starts

WRONG = sys.argv[1]


def disturb() -> None:
    from trichord.losses import combined
    from trichord.losses.clustering import ClusterMemory

    inner, calls = combined.CombinedLoss.__call__, [0]

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            if WRONG == "error":
                raise TrichordError("shard 7 cannot be read; copy it again")
            if WRONG == "defect":
                raise KeyError("nobody thought of it")
            if WRONG == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if WRONG == "sleep":
                time.sleep(300)
            if WRONG == "queue":
                assert isinstance(self.memory, ClusterMemory) and self.memory.queue is not None
                self.memory.queue[3, 1] += 1e-3
        return inner(self, *args, **kwargs)

    combined.CombinedLoss.__call__ = call  # type: ignore[method-assign]


if __name__ == "__main__":
    if WRONG != "nothing" and os.environ["RANK"] == "1":
        disturb()
    del sys.argv[1]
    sys.exit(main())
