"""Checks that files and tensors for torch do not claim more data than they contain."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError
from trichord.files.reading import open_regular


def check_torch_file(path: Path) -> None:
    """Check that a file of torch.save does not unpack to more bytes than it has; torch does not compress.

    Raises:
        TrichordError: The file unpacks to more bytes than it has.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (
        OSError,
        ValueError,
        NotImplementedError,
        zipfile.BadZipFile,
    ):  # an older format or damage, which torch reports
        return
    if any(m.file_size != m.compress_size for m in members) or sum(m.file_size for m in members) > path.stat().st_size:
        raise TrichordError(f"{path}: refused: it unpacks to more data than it contains; download or save it again")


def check_tensors(state: Mapping[str, Any], name: str) -> None:
    """Check that each tensor owns all the numbers that it claims: it is not expanded, sparse or without memory.

    Args:
        state: Tensors by name. Other values are ignored.
        name: Where the tensors come from, for the error message.

    Raises:
        TrichordError: A tensor has fewer numbers in memory than its shape claims.
    """
    import torch

    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            continue
        is_dense = value.layout == torch.strided and value.device.type == "cpu"
        if not is_dense or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise TrichordError(
                f"{name}: refused: {key} is not a dense tensor that owns all its numbers; save it as a dense tensor"
            )
