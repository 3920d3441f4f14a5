"""Attacks on readers of files: payloads that leave a trace when they run, and a limit on the memory of a reader."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import forked
from trichord.errors import TrichordError

MEASURE = """
import json, resource, sys
sys.path.insert(0, {tests!r})
import warnings; warnings.simplefilter("ignore")
from pathlib import Path
from trichord.errors import TrichordError
{prepare}
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, message = peak(), "nothing"
try:
    {attack}
except TrichordError as error:
    message = str(error)
print(json.dumps([message, peak() - before]))
"""


class Payload:
    """What a pickle would execute: creates the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def refusal(read: Callable[[], object], marker: Path | None = None) -> str:
    """Return the error of `read`, after checking that it is one printable line and that nothing of the file was executed."""
    with pytest.raises(TrichordError) as caught:
        read()
    assert marker is None or not marker.exists(), "the payload was run"
    assert str(caught.value).isprintable()
    return str(caught.value)


def measured(prepare: str, attack: str) -> tuple[str, float]:
    """Return the error of an attack in a separate process, and the megabytes by which the memory of the process grew."""
    import json

    code = MEASURE.format(tests=str(Path(__file__).parent), prepare=prepare, attack=attack)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = forked.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    message, grown_mb = json.loads(done.stdout.splitlines()[-1])
    return str(message), float(grown_mb)
