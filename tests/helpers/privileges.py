"""Make file permissions apply to the superuser while a test requests it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def plain_user() -> Iterator[None]:
    """Remove the capabilities of the calling thread, so that a file of mode 0 cannot be read; restore them afterwards."""
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    _call(_libc.capget(header, before))
    reduced = (ctypes.c_uint32 * 6)(0, *before[1:3], 0, *before[4:6])
    _call(_libc.capset(header, reduced))
    try:
        yield
    finally:
        _call(_libc.capset(header, before))


def _call(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
