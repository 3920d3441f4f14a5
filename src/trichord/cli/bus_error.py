"""One line for SIGBUS: which mapped file was cut short, or could not be read from its disk, while it was used.

Shards are read through memory maps. Their sizes are compared before each batch (`Store.bring`); a file that is cut short after
that ends the process by SIGBUS in the middle of a copy. Python's `signal` cannot handle such a signal: its handlers run later,
in the main thread, while the faulting instruction is repeated for ever. So a C handler is installed with `sigaction`. The
signal comes from the faulting instruction itself, which is a copy within numpy and never inside the allocator or the
interpreter, so the handler may run Python; it prints and ends the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SA_SIGINFO = 4
_ADDRESS_OFFSET = 16  # of si_addr in siginfo_t, where pointers have 64 bits
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Action(ctypes.Structure):
    """`struct sigaction` of Linux's C libraries on x86-64 and ARM64."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


@contextmanager
def bus_errors_named() -> Iterator[None]:
    """Within the block SIGBUS prints one line that names the file, and ends the process with exit code 2."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        yield
        return
    libc = ctypes.CDLL(None)
    before = _Action()
    action = _Action(handler=ctypes.cast(_handler, ctypes.c_void_p).value, flags=_SA_SIGINFO)
    libc.sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaction(signal.SIGBUS, ctypes.byref(before), None)


def mapped_file(address: int) -> str:
    """Return the path of the file that is mapped at an address of this process; '' where there is none."""
    with suppress(OSError, ValueError), open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            span, *_, name = line.rstrip("\n").split(maxsplit=5)
            begin, end = (int(number, 16) for number in span.split("-"))
            if begin <= address < end:
                return name if name.startswith("/") else ""
    return ""


def _end(number: int, info: int, context: int) -> None:
    address = ctypes.c_void_p.from_address(info + _ADDRESS_OFFSET).value or 0
    what = "was cut short while it was used, or its disk failed; restore the file, then run the same command again"
    line = f"trichord: error: {mapped_file(address) or 'a mapped file'}: {what}\n"
    with suppress(OSError):
        os.write(2, line.encode("utf-8", "backslashreplace"))
    os._exit(2)


_handler = _HANDLER(_end)
