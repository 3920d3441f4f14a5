"""Memory of a training process on Linux: freed blocks are kept for the next step instead of being given back.

The C library maps every large block anew and gives it back when it is freed, so each step has the system clear gigabytes
of gradients and activations again. The cost of keeping them: the process stays as large as it ever was.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # numbers of glibc's mallopt()


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed, from now on and for the whole process. False: it cannot be told."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not there in musl
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
