"""Memory management of a training process on Linux: freed blocks are kept for the next step.

By default, the C library maps each large block anew and returns it to the system when it is freed. The system then clears
gigabytes of memory for gradients and activations at each step. When freed blocks are kept, this work is saved, but the process
never becomes smaller.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # numbers of glibc's mallopt()


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory, for the rest of the process.

    Returns:
        Whether the C library supports this.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl does not have it
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
