"""Embed files in a separate process, so that a file that crashes or hangs its decoder does not end the run.

The process loads the model when it starts. If it ends, a new process embeds the next file.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from trichord.errors import TrichordError, one_line
from trichord.media.watchdog import HUNG_EXIT, set_stall

if TYPE_CHECKING:
    from trichord.embedder.embedder import Embedder
    from trichord.embedder.files import EmbeddedFile
    from trichord.extraction.sources import Source

STALL_S = 30.0
_model: Embedder | None = None
_failure = ""


class Worker:
    """Context manager that embeds one file at a time in another process.

    Args:
        load: Function that returns the model. It is called in the other process, so it must be picklable.
        stall_s: Number of seconds without a picture or sound after which a decoder is ended.

    Example:
        >>> from functools import partial
        >>> from trichord.embedder import Embedder
        >>> with Worker(partial(Embedder.from_pretrained, "my_depth_model")) as worker:
        ...     clips, embeddings = worker(Path("a.mp4"), None)
        >>> clips[0].name, embeddings[0]["video"].shape
        ('a.mp4', (8,))
    """

    def __init__(self, load: Callable[[], Embedder], stall_s: float = STALL_S) -> None:
        from pebble import ProcessPool

        self.stall_s = stall_s
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPool(1, context=context, initializer=_start, initargs=(load, stall_s))

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.close() if kind is None else self._pool.stop()
        self._pool.join()

    def __call__(self, path: Path | Source, window_s: float | None) -> EmbeddedFile:
        """Return the clips of a file, or of a row of a table, and their embeddings, as `files.embed_file` does.

        Args:
            path: The file, or the row of a table.
            window_s: Duration of the clips that longer files are cut into in seconds; None for one clip per file.

        Raises:
            TrichordError: The file cannot be used, or it ended the process.
        """
        from pebble import ProcessExpired

        try:
            result: EmbeddedFile = self._pool.schedule(_run, args=(path, window_s)).result()
            return result
        except ProcessExpired as error:
            raise TrichordError(f"{_name(path)}: {self._cause(error.exitcode)}") from None

    def _cause(self, code: int | None) -> str:
        if code == HUNG_EXIT:
            return f"the decoder did not return a picture or sound for {self.stall_s:g} s; convert or replace the file"
        if code == -signal.SIGKILL:
            return "the process was killed, probably because it ran out of memory; make the file smaller or replace it"
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return f"the decoder crashed ({name}); convert or replace the file"


def _name(path: Path | Source) -> str:
    return str(path) if isinstance(path, Path) else path.name


def _start(load: Callable[[], Embedder], stall_s: float) -> None:
    """Load the model in the new process; an error is reported when the first file is embedded."""
    global _model, _failure
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles interrupts
    set_stall(stall_s)
    try:
        _model = load()
    except Exception as error:
        text = str(error) if isinstance(error, TrichordError) else f"{type(error).__name__}: {one_line(error)}"
        _failure = f"the model cannot be loaded: {text}"


def _run(path: Path | Source, window_s: float | None) -> EmbeddedFile:
    from trichord.embedder.files import embed_file

    if _model is None:
        raise TrichordError(_failure)
    try:
        return embed_file(_model, path, window_s)
    except TrichordError:
        raise
    except MemoryError:
        raise TrichordError(
            f"{_name(path)}: there is not enough memory to embed it; make the file smaller or free memory"
        ) from None
    except Exception as error:  # decoders raise various errors for damaged files
        reason = one_line(error) or type(error).__name__
        raise TrichordError(
            f"{_name(path)}: the file cannot be embedded ({reason[:200]}); convert or replace the file"
        ) from None
