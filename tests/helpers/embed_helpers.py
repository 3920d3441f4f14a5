"""A model for a worker process that selects its behaviour by file names; some names end or block the process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.media.watchdog import watching


class NamedFiles:
    """A substitute for an `Embedder` of pictures."""

    dim = 2
    modalities = ("video",)

    def encode_video(self, path: Path, **span: Any) -> np.ndarray:
        with watching(path):
            if "crash" in path.name:
                os.kill(os.getpid(), signal.SIGSEGV)
            if "killed" in path.name:
                os.kill(os.getpid(), signal.SIGKILL)
            if "hang" in path.name:
                time.sleep(60)
        if "broken" in path.name:
            raise TrichordError(f"{path}: is broken; replace it")
        if "odd" in path.name:
            raise KeyError("what no decoder should raise")
        return np.full((1, 2), os.getpid(), np.float32)

    def encode_audio(self, path: Path, **span: Any) -> np.ndarray:
        raise AssertionError("a picture has no sound")


def named_files() -> NamedFiles:
    return NamedFiles()


def no_model() -> NamedFiles:
    raise TrichordError("no model is here; export it")
