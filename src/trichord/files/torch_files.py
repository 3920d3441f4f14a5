"""Checks of files and tensors that torch reads: none may claim more than it holds."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError
from trichord.files.reading import open_regular


def check_torch_file(path: Path) -> None:
    """Raise TrichordError for a file of torch.save that unpacks to more than it holds: torch packs nothing."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):  # of older form, or damaged: torch will say
        return
    if any(m.file_size != m.compress_size for m in members) or sum(m.file_size for m in members) > path.stat().st_size:
        raise TrichordError(f"{path}: refused, since it unpacks to more than it holds; download or save it again")


def check_tensors(state: Mapping[str, Any], name: str) -> None:
    """Raise TrichordError for a tensor that claims more numbers than there are: expanded, sparse, or without memory."""
    import torch

    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            continue
        here = value.layout == torch.strided and value.device.type == "cpu"
        if not here or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise TrichordError(
                f"{name}: refused, since {key} is not a plain tensor with all its numbers; save it as one"
            )
