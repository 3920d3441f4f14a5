"""The weights that a few steps of each kind of stage give: bit for bit those of the golden file, on the machine that it names.

`PYTHONPATH=tests/helpers python tests/training/test_golden_weights.py` writes the golden file again. Run it only if
the results of training are meant to change.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from paths import FIXTURES
from tiny import write_tiny_store
from trichord.recipes import load_recipe
from trichord.study.run import train_order
from trichord.training.models import WEIGHTS

GOLDEN = FIXTURES / "golden_weights.json"
ORDERS = ("avt", "av>t", "vt>a")  # all at once; text, then audio, against two frozen modalities


def machine() -> dict[str, str]:
    """Return what the bits of float32 sums depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "torch": torch.__version__,
        "processor": names[0] if names else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def digests(order: str, store: Path, out: Path) -> list[str]:
    """Return the SHA-256 of the weights after each stage."""
    training = {"device": "cpu", "tensorboard": False, "max_steps": 3}
    summary = train_order(store, out, order, 0, load_recipe("debug", training=training))
    return [digest(folder / WEIGHTS) for folder in summary.stage_folders]


def digest(path: Path) -> str:
    whole = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


@pytest.mark.parametrize("order", ORDERS)
def test_stages_end_with_the_golden_weights(order: str, tiny_store: Path, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())
    if golden["machine"] != machine():
        pytest.skip(f"the golden weights are of another machine or build: {golden['machine']}")
    assert digests(order, tiny_store, tmp_path / "run") == golden["weights"][order]


def test_the_golden_weights_are_of_all_stages() -> None:
    golden = json.loads(GOLDEN.read_text())["weights"]
    assert {order: len(stages) for order, stages in golden.items()} == {"avt": 1, "av>t": 2, "vt>a": 2}
    assert len({stage for stages in golden.values() for stage in stages}) == 5


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = write_tiny_store(Path(folder) / "store")
        weights = {order: digests(order, store, Path(folder) / order) for order in ORDERS}
    GOLDEN.write_text(json.dumps({"machine": machine(), "weights": weights}, indent=1) + "\n")
