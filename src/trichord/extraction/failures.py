"""The classes and reasons of errors that decoders and encoders raise during an extraction."""

from __future__ import annotations

from pathlib import Path

from trichord.extraction.windows import EncoderError
from trichord.files.faults import DISK, OUT_OF_MEMORY, SystemFaultError, fault_of, reason_of
from trichord.files.reading import NotRegularFileError, check_regular

_FAULTS = {
    OUT_OF_MEMORY: "memory ran out; use fewer workers",
    DISK: "the disk of the store or of temporary files (TMPDIR) is full",
}


class ItemError(Exception):
    """A failure of a known class.

    Args:
        kind: The class, see `store.ledger.CLASSES`.
        reason: The reason.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def kind_of(error: BaseException) -> str:
    """Return the class of an unexpected error."""
    if fault := fault_of(error):
        return fault
    cause = (error.__cause__ or error.__context__) if isinstance(error, EncoderError) else error
    if isinstance(cause, ImportError) or "pip install" in str(
        cause
    ):  # the file may be intact, but a library is missing
        return "system"
    if isinstance(error, EncoderError):
        return "encoder"
    return "missing" if isinstance(error, FileNotFoundError | NotRegularFileError) else "unreadable"


def described(error: BaseException) -> str:
    """Return a description of a system fault, with the file that it affected and what to do."""
    if isinstance(error, SystemFaultError | EncoderError):
        return str(error)
    where = f"{name}: " if (name := getattr(error, "filename", None)) else ""
    return f"{where}{_FAULTS.get(fault_of(error), 'the system failed')} ({reason_of(error)}); the next run tries again"


def check_there(path: Path) -> None:
    """Check that a file exists and is regular.

    Raises:
        ItemError: It does not exist or is not regular.
    """
    try:
        check_regular(path)
    except NotRegularFileError as error:
        raise ItemError("missing", f"{path}: {reason_of(error)}; remove it or use another file") from None
    except (FileNotFoundError, NotADirectoryError):
        raise ItemError("missing", f"{path}: does not exist; check the path") from None
