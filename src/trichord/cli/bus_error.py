"""Report SIGBUS in one line that names the mapped file that was truncated, or could not be read from its disk, while in use.

Shards are read through memory maps. Their sizes are compared before each batch (`Store.bring`), but a file that is truncated after
that check ends the process by SIGBUS in the middle of a copy. The module `signal` of Python cannot handle this signal: its
handlers run later, in the main thread, while the faulting instruction is repeated forever. A C handler is therefore installed with
`sigaction`. The signal comes from the faulting instruction itself, which is a copy within NumPy and never inside the allocator or
the interpreter, so the handler may run Python code. It prints the line and ends the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SA_SIGINFO = 4
_ADDRESS_OFFSET = 16  # offset of si_addr in siginfo_t with 64-bit pointers
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Action(ctypes.Structure):
    """`struct sigaction` of the C libraries of Linux on x86-64 and ARM64."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


@contextmanager
def bus_errors_named() -> Iterator[None]:
    """Within the block, SIGBUS prints one line that names the file and ends the process with exit code 2."""
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
    """Return the path of the file that is mapped at an address of this process; '' if there is none."""
    with suppress(OSError, ValueError), open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            span, *_, name = line.rstrip("\n").split(maxsplit=5)
            begin, end = (int(number, 16) for number in span.split("-"))
            if begin <= address < end:
                return name if name.startswith("/") else ""
    return ""


def _end(number: int, info: int, context: int) -> None:
    address = ctypes.c_void_p.from_address(info + _ADDRESS_OFFSET).value or 0
    problem = (
        "the file was truncated while in use, or its disk failed; restore the file, then run the same command again"
    )
    line = f"trichord: error: {mapped_file(address) or 'a mapped file'}: {problem}\n"
    with suppress(OSError):
        os.write(2, line.encode("utf-8", "backslashreplace"))
    os._exit(2)


_handler = _HANDLER(_end)
