"""Limits on the size of a network that a model folder describes, derived from the size of its weights.

The configuration of a model specifies the size of its network in numbers whose names differ from model to model, and a few bytes
can request millions of layers. The size of the weights next to it, however, cannot be faked. Sizes are therefore checked twice:
numbers in the configurations that no network has are refused, whatever their names. And while a network is built, its
parameters, buffers and modules are counted, and the construction stops when there are more than the weights explain.
"""

from __future__ import annotations

import math
import re
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.errors import TrichordError, one_line
from trichord.features.model_folders import keyed_values, read_json
from trichord.files.lfs import refuse_lfs_pointer
from trichord.files.reading import open_regular, parse_json

if TYPE_CHECKING:
    from torch import nn

FREE_TENSORS, FREE_NUMBERS, FREE_MODULES = 1000, 16 << 20, 10_000  # always allowed, also for a network with few weights
FREE_BUFFER_BYTES = 256 << 20
MOST_HEADER_BYTES = 100 << 20  # the limit of the safetensors library

_MOST = 1 << 24  # for any number; the longest context of a language model is 10 million tokens
_MOST_LABELS = 100_000
_MOST_LAYERS = 1024  # always allowed, also if the weights have fewer tensors
_MOST_PIXELS = 4096
_MOST_SAMPLES_HZ = 768_000
_LAYERS = re.compile(r"(?:.*_)?n?(?:layers?|depths?|blocks|stages?|experts|repeats?|num_hidden_groups)", re.IGNORECASE)
_SIDES = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width", "size", "crop_size", "image_size",
          "feature_size", "num_mel_bins", "n_mels", "chunk_length", "max_length_s", "patch_size")  # fmt: skip
_SHORT = ("n_fft", "fft_window_size", "fft_length", "hop_length", "frame_length", "win_length")
_NO_SIZES = re.compile(r".*(?:_ids?|theta|seed|pixels|factor|temperature|eps|version)", re.IGNORECASE)
_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


@dataclass(frozen=True)
class WeightsSize:
    """Upper limits of the number of tensors in the weight files of a model, and of the numbers in them."""

    tensors: int
    numbers: int

    @classmethod
    def of(cls, files: Sequence[Path]) -> WeightsSize:
        """Read the headers of weight files.

        Raises:
            TrichordError: The header of a safetensors file is damaged.
        """
        sizes = [_size_of(path) for path in files]
        return cls(sum(tensors for tensors, _ in sizes), sum(numbers for _, numbers in sizes))


def check_sizes(folder: Path, weights: Sequence[Path]) -> None:
    """Check the numbers in the configurations of a model, whatever their names.

    Raises:
        TrichordError: A number is larger than networks or their inputs can have, or than the weights explain.
    """
    most_layers = max(WeightsSize.of(weights).tensors, _MOST_LAYERS)
    for path in sorted([*folder.glob("config.json"), *folder.glob("*/config.json")]):
        for key, value in keyed_values(read_json(path)):
            most = most_layers if _LAYERS.fullmatch(key) else _MOST_LABELS if key == "num_labels" else _MOST
            _check_number(path, key, value, most)
    for path in (folder / name for name in _PROCESSORS):
        for key, value in keyed_values(read_json(path)) if path.is_file() else ():
            most = _MOST_PIXELS if key in _SIDES else 1 << 16 if key in _SHORT else _MOST
            _check_number(path, key, value, _MOST_SAMPLES_HZ if key == "sampling_rate" else most)


@contextmanager
def bounded_by(weights: Sequence[Path], folder: Path) -> Iterator[None]:
    """Limit the parameters, buffers and modules of networks that this thread builds in the block to what the weights explain.

    Raises:
        TrichordError: A network has more. The error is raised at the first excess module, when little memory has been used.
    """
    from torch.nn.modules import module

    count = _Count(WeightsSize.of(weights), folder)
    hooks = [
        module.register_module_parameter_registration_hook(count.parameter),
        module.register_module_buffer_registration_hook(count.buffer),
        module.register_module_module_registration_hook(count.module),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Count:
    """The remaining allowance. Twice the weights are allowed, because files omit some parts, such as tied weights."""

    def __init__(self, weights: WeightsSize, folder: Path) -> None:
        self.folder, self.thread = folder, threading.get_ident()
        self.left = {
            "parameters": 4 * weights.tensors + FREE_TENSORS,
            "numbers": 2 * weights.numbers + FREE_NUMBERS,
            "bytes of buffers": 2 * weights.numbers + FREE_BUFFER_BYTES,
            "modules": 16 * weights.tensors + FREE_MODULES,
        }

    def parameter(self, owner: nn.Module, name: str, value: nn.Parameter | None) -> None:
        known = owner._parameters.get(name)
        if value is not None and known is None:  # a parameter that replaces another one is counted once
            self._spend("parameters", 1)
            self._spend("numbers", value.numel())

    def buffer(self, owner: nn.Module, name: str, value: Any) -> None:
        if value is not None and owner._buffers.get(name) is None:
            self._spend("bytes of buffers", value.numel() * value.element_size())

    def module(self, owner: nn.Module, name: str, value: nn.Module | None) -> None:
        if value is not None and owner._modules.get(name) is None:
            self._spend("modules", 1)

    def _spend(self, kind: str, amount: int) -> None:
        if threading.get_ident() != self.thread:
            return
        self.left[kind] -= amount
        if self.left[kind] < 0:
            raise TrichordError(
                f"{self.folder}: refused: its configuration describes a network with far more {kind} than its weights have; "
                "download the model again, or choose another one"
            )


def _size_of(path: Path) -> tuple[int, int]:
    """Return upper limits of the number of tensors in a weight file and of the numbers in them."""
    refuse_lfs_pointer(path)
    num_bytes = path.stat().st_size
    if path.suffix == ".safetensors":
        try:
            header = _safetensors_header(path, num_bytes)
            shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
            return len(shapes), min(sum(map(math.prod, shapes)), num_bytes)
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise TrichordError(
                f"{path}: cannot be loaded (it is not a complete safetensors file: {one_line(error)[:100]}); "
                "download the model again"
            ) from None
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:  # written by torch.save
            return len(archive.infolist()), num_bytes // 2
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return num_bytes // 64, num_bytes // 2  # an older format, in which each tensor takes more bytes


def _safetensors_header(path: Path, num_bytes: int) -> dict[str, Any]:
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(num_bytes, MOST_HEADER_BYTES):
            raise ValueError("its header is longer than the file")
        header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header


def _check_number(path: Path, key: str, value: Any, most: int) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool) and value > most and not _NO_SIZES.fullmatch(key):
        raise TrichordError(
            f"{path}: refused: '{one_line(key)[:80]}' is {one_line(value)[:40]}, more than {most:,}, the largest value that its "
            "weights or any model can explain; download the model again, or choose another one"
        )
