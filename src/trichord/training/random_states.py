"""The global random states of a process, as tensors: Python's, numpy's, torch's and, on a GPU, its device's.

Nothing in trichord draws from them: batches and k-means have generators of their own. A module of yours may (dropout), and a
resumed run must then draw what an uninterrupted one would.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch
from torch import Tensor

from trichord.errors import one_line


def seed_random_states(text: str) -> None:
    """Set all of them from a text that names the stage, the seed and the process."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Names to tensors: `python` (625,), `python_gauss` (0 or 1,), `numpy_key` (624,), `numpy_rest` (3,) float64 (position,
    has_gauss, gauss), `torch` bytes, `cuda` bytes where `device` is a GPU."""
    _, words, gauss = random.getstate()
    legacy = np.random.get_state(legacy=False)
    if not (isinstance(legacy, dict) and legacy["bit_generator"] == "MT19937"):
        raise RuntimeError("numpy's global generator was replaced")
    states = {
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy_key": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
        "numpy_rest": torch.tensor([legacy["state"]["pos"], legacy["has_gauss"], legacy["gauss"]], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def fault_of_random_states(states: dict[str, Tensor]) -> str:
    """Why `set_random_states` cannot take them; '' if it can."""
    try:
        random.Random().setstate(_python(states))
        np.random.RandomState().set_state(_numpy(states))
        torch.Generator().set_state(states["torch"])
    except (KeyError, ValueError, TypeError, OverflowError, RuntimeError) as error:
        return f"a random state is of another form: {one_line(error)}"
    return ""


def set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Go on where `random_states` was taken. The state of a GPU is left out on a machine without."""
    random.setstate(_python(states))
    np.random.set_state(_numpy(states))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def _python(states: dict[str, Tensor]) -> tuple[int, tuple[int, ...], float | None]:
    gauss = states["python_gauss"].tolist()
    return 3, tuple(states["python"].tolist()), gauss[0] if gauss else None


def _numpy(states: dict[str, Tensor]) -> tuple[str, np.ndarray, int, int, float]:
    position, has_gauss, gauss = states["numpy_rest"].tolist()
    return "MT19937", states["numpy_key"].numpy().astype(np.uint32), int(position), int(has_gauss), gauss
