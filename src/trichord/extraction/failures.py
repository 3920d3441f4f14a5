"""Classes and reasons of the errors that decoders and encoders raise during extraction."""

from __future__ import annotations

from pathlib import Path

from trichord.extraction.windows import EncoderError
from trichord.files.faults import DISK, OUT_OF_MEMORY, SystemFaultError, fault_of, reason_of
from trichord.files.reading import NotRegularFileError, check_regular

_FAULTS = {
    OUT_OF_MEMORY: "memory ran out; use fewer workers",
    DISK: "there is no room for it in the store or in the folder of temporary files (TMPDIR)",
}


class ItemError(Exception):
    """A failure of a known class."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def kind_of(error: BaseException) -> str:
    """The class of an error that no part of the extractor foresaw."""
    if fault := fault_of(error):
        return fault
    cause = (error.__cause__ or error.__context__) if isinstance(error, EncoderError) else error
    if isinstance(cause, ImportError) or "pip install" in str(cause):  # the file may be good: a library is not here
        return "system"
    if isinstance(error, EncoderError):
        return "encoder"
    return "missing" if isinstance(error, FileNotFoundError | NotRegularFileError) else "unreadable"


def described(error: BaseException) -> str:
    """What a fault of the system was, with the file on which it struck and what to do."""
    if isinstance(error, SystemFaultError | EncoderError):
        return str(error)
    where = f"{name}: " if (name := getattr(error, "filename", None)) else ""
    return f"{where}{_FAULTS.get(fault_of(error), 'the system failed')} ({reason_of(error)}); the next run tries again"


def check_there(path: Path) -> None:
    try:
        check_regular(path)
    except NotRegularFileError as error:
        raise ItemError("missing", f"{path}: {reason_of(error)}; remove it or name another file") from None
    except (FileNotFoundError, NotADirectoryError):
        raise ItemError("missing", f"{path}: no such file; check the path") from None
