"""Locations of weights files: a file that the user names, the caches of torch and Hugging Face, or their hubs.

(`model_files` does the same for whole folders.) Cached files are used without network access. Without a network, or with
HF_HUB_OFFLINE=1, a missing file causes an error within seconds; it says in one line which file to put where. Nothing in a weights
file is executed. Only `read_state` and downloads from torch's hub import torch.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from trichord.errors import TrichordError, one_line
from trichord.features.hashes import FileHashes
from trichord.files.lfs import refuse_lfs_pointer
from trichord.files.reading import check_regular, missing, read_bytes

if TYPE_CHECKING:
    import torch

_CONNECT_S = 5.0  # the longest wait for a response of a hub
_READ_S = 20.0  # the longest wait for data of a download


def offline() -> bool:
    """Return whether HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids network access."""
    return any(
        os.environ.get(n, "").upper() in ("1", "ON", "YES", "TRUE") for n in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def cache_folder() -> Path:
    """Return the folder of this library in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "trichord"


def torch_hub_folder() -> Path:
    """Return the folder in which torch keeps downloaded weights, without importing torch."""
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def named_file(path: Path, option: str) -> Path:
    """Return the weights file that the user named.

    Raises:
        TrichordError: The file does not exist.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise missing(path, "file", mend=f"check {option} or leave it out")
    return path


def torch_hub_file(url: str, model: str, option: str, *, download: bool = True) -> Path:
    """Return the file of `url` in torch's cache, downloading it if necessary.

    By torchvision's convention the file name ends in the first digits of the SHA-256 of its content, which is verified.

    Args:
        url: The URL of the weights.
        model: The name of the encoder, for the error message.
        option: The option that selects another file, for the error message.
        download: Whether to download a missing file.

    Raises:
        TrichordError: The file is missing. The message says which file to put where.
    """
    path = torch_hub_folder() / url.rpartition("/")[2]
    if path.is_file():
        return path
    reason = ""
    if download and offline():
        reason = "HF_HUB_OFFLINE forbids downloading it"
    elif download:
        reason = _download(url, path)
        if not reason:
            return path
    problem = f"the weights of {model} are missing{f' and {reason}' if reason else ''}"
    raise TrichordError(f"{path}: {problem}; put {url} there, or pass a copy with {option}")


def _download(url: str, path: Path) -> str:
    """Download a file. Return '' on success, or why the download failed."""
    import torch

    prefix = re.search(r"-([0-9a-f]{8,})\.", path.name)
    timeout_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_READ_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix.group(1) if prefix else None, progress=False)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash raises RuntimeError
        return f"the download failed ({one_line(error)[:120]})"
    finally:
        socket.setdefaulttimeout(timeout_s)
    return ""


def hugging_face_file(repo: str, names: Sequence[str], model: str, option: str) -> Path:
    """Return the first of the files `names` of a repository that is in the cache, or else can be downloaded.

    Raises:
        TrichordError: None of the files is available.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(repo, name, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    reason = "HF_HUB_OFFLINE forbids downloading it" if offline() else ""
    if not reason:
        try:
            info = HfApi().model_info(repo, timeout=_CONNECT_S)  # one attempt; a download would retry for half a minute
            present = [sibling.rfilename for sibling in info.siblings or []]
            available = [name for name in names if name in present]
            if available:
                return Path(hf_hub_download(repo, available[0], etag_timeout=_CONNECT_S))
            reason = f"the hub has no {' or '.join(names)} for it"
        except Exception as error:  # the client of the hub passes on errors of its HTTP library
            reason = f"they cannot be downloaded ({one_line(error)[:120]})"
    problem = f"the weights of {model} are missing and {reason}; run `hf download {repo} {names[0]}`"
    raise TrichordError(
        f"{constants.HF_HUB_CACHE}: {problem} on a machine with network access, or pass a copy with {option}"
    )


# ---- content


def weights_sha256(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of a weights file, as `sha256sum` prints it, or of the digests of several files.

    Digests are kept in the user's cache with path, size and modification times, so that each file is read only once.

    Raises:
        TrichordError: A file cannot be read.
    """
    hashes = _hashes(str(cache_folder()))
    try:
        digests = [hashes.sha256(Path(path)) for path in paths]
    except OSError as error:
        raise TrichordError(f"{error.filename}: cannot be read ({one_line(error.strerror)}); check the file") from None
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


@lru_cache
def _hashes(folder: str) -> FileHashes:
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        usable = os.access(path, os.W_OK)
    except OSError:
        usable = False
    return FileHashes(path if usable else path / "not-there")  # nothing is stored in a folder that does not exist


def text_sha256(*paths: Path) -> str:
    """Return 16 digits of a SHA-256 of small files such as configurations. Missing files count as empty."""
    content = [read_bytes(path) if path.is_file() else b"" for path in paths]
    return hashlib.sha256(b"\0".join(hashlib.sha256(c).digest() for c in content)).hexdigest()[:16]


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict in float32 from a .safetensors or torch file. `{"state_dict": ...}` and `module.` are removed.

    Raises:
        TrichordError: The file is damaged, contains something else, or would run code.
    """
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from trichord.files.torch_files import check_tensors, check_torch_file

    refuse_lfs_pointer(path)
    try:
        check_regular(path)
        tensors = path.suffix == ".safetensors"
        if not tensors:
            check_torch_file(path)
        state = load_file(path) if tensors else torch.load(path, map_location="cpu", weights_only=True)
    except TrichordError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        raise TrichordError(f"{path}: is not a readable weights file ({one_line(error)[:120]}); replace it") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not (isinstance(state, dict) and state and all(isinstance(value, torch.Tensor) for value in state.values())):
        raise TrichordError(
            f"{path}: contains no plain state dict; save the state_dict() of the model and pass that file"
        )
    check_tensors(state, str(path))
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
