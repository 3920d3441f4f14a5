"""The global random states of a process as tensors: those of Python, NumPy, PyTorch and the GPU.

Trichord itself does not use them, since batches and k-means have their own generators. A module that a user adds may use them,
such as dropout, and a resumed run must then draw the same numbers as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch
from torch import Tensor

from trichord.errors import one_line


def seed_random_states(text: str) -> None:
    """Seed all random states of the process.

    Args:
        text: Text that is hashed to the seed. It names the stage, the seed of the study and the process.
    """
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Return the random states of the process.

    Args:
        device: Device of the training. The state of a GPU is included.

    Returns:
        Tensors by name: `python` (625,) int64, `python_gauss` (0,) or (1,) float64, `numpy_key` (624,) int64, `numpy_rest` (3,)
        float64 (position, has_gauss, gauss), `torch` uint8 and, on a GPU, `cuda` uint8.

    Raises:
        RuntimeError: NumPy's global generator is not the Mersenne Twister.
    """
    _, words, gauss = random.getstate()
    legacy = np.random.get_state(legacy=False)
    if not (isinstance(legacy, dict) and legacy["bit_generator"] == "MT19937"):
        raise RuntimeError("the global generator of NumPy is not the Mersenne Twister and cannot be saved")
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
    """Return why `set_random_states` cannot set these states, or ''."""
    try:
        random.Random().setstate(_python(states))
        np.random.RandomState().set_state(_numpy(states))
        torch.Generator().set_state(states["torch"])
    except (KeyError, ValueError, TypeError, OverflowError, RuntimeError) as error:
        return f"a random state is invalid: {one_line(error)}"
    return ""


def set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Restore the random states of the process.

    Args:
        states: Tensors that `random_states` returned.
        device: Device of the training. The state of a GPU is ignored on other devices.
    """
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
