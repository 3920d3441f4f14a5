"""Worker processes of an extraction, each with its own encoders. If one dies, only its own task is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.extraction import work
from trichord.extraction.choice import EncoderChoice, Encoders, load
from trichord.extraction.folder import can_be_tested
from trichord.extraction.sources import Source
from trichord.extraction.task import Outcome, Task
from trichord.extraction.work import run_task
from trichord.files.faults import fault_of
from trichord.media.watchdog import HUNG_EXIT

# The environment of worker processes: one thread per computation, no semaphores left behind by joblib, and a C library that
# keeps the memory of one picture's activations for the next one (returning it each time took a fifth of the total time).
_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    "JOBLIB_MULTIPROCESSING": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
}
_encoders: Encoders | None = None
_threads = 1
_device = "cpu"
_failure = ""


@contextmanager
def _ignored_interrupts(unneeded: bool) -> Iterator[None]:
    if unneeded or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Workers:
    """`count` processes that run tasks. With 0, tasks run one after the other in this process, which a crash then ends.

    Args:
        choice: The encoders that each process loads.
        device: cpu or cuda. With `cuda` and several GPUs, the processes are distributed over the GPUs.
        count: The number of processes.
        threads: The number of encoding threads per process.
    """

    def __init__(self, choice: EncoderChoice, device: str, count: int, threads: int) -> None:
        self.count, self.threads = count, threads
        self._pool: Any = None
        self._started = False
        self._encoders: Encoders | None = None
        if count == 0:
            self._encoders = load(choice, device)
            return
        from pebble import ProcessPool

        context = multiprocessing.get_context("spawn")
        arguments = (choice, device, threads, context.Value("i", 0))
        self._saved = {name: os.environ.get(name) for name in _ENVIRONMENT}
        os.environ |= _ENVIRONMENT
        self._pool = ProcessPool(count, context=context, initializer=_start, initargs=arguments)

    @property
    def capacity(self) -> int:
        """The number of tasks to keep submitted: twice the number of processes, so that none waits for the next task."""
        return 2 * self.count if self.count else 1

    def submit(self, task: Task) -> Future[Outcome]:
        """Submit a task and return a future of its outcome."""
        if self._pool is not None:
            with _ignored_interrupts(self._started):  # the first task starts the processes, which inherit the handler
                self._started = True
                return self._pool.schedule(_run, args=(task,))
        future: Future[Outcome] = Future()
        assert self._encoders is not None
        task = replace(task, stall_s=0.0)  # stopping a hung decoder would kill the process of the caller
        future.set_result(run_task(task, self._encoders, self.threads))
        return future

    def close(self, *, now: bool) -> None:
        """Stop the processes; with `now`, without waiting for their tasks."""
        if self._pool is None:
            return
        if now:
            self._pool.stop()
            for process in multiprocessing.active_children():  # finished items are in the spool
                process.kill()
        else:
            self._pool.close()
        self._pool.join()
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Probes:
    """Checks whether sources can be used for testing, in a separate process, so that a file may crash its decoder."""

    def __init__(self, needs_captions: bool, in_process: bool) -> None:
        self._needs_captions, self._in_process = needs_captions, in_process
        self._pool: Any = None

    def __call__(self, source: Source) -> bool:
        """Return whether a source can be used for testing."""
        if self._in_process:
            return can_be_tested(source, self._needs_captions)
        if self._pool is None:
            from pebble import ProcessPool

            self._pool = ProcessPool(1, context=multiprocessing.get_context("spawn"))
        try:
            return self._pool.schedule(can_be_tested, args=(source, self._needs_captions), timeout=30).result()
        except Exception as error:  # it crashed or hung; a system fault says nothing about the file
            return bool(fault_of(error))

    def close(self) -> None:
        """Stop the process."""
        if self._pool is not None:
            self._pool.close()
            self._pool.join()


def first_done(futures: Iterable[Future[Outcome]]) -> set[Future[Outcome]]:
    """Return the futures that are done, after waiting up to a second for at least one."""
    return wait(list(futures), timeout=1.0, return_when=FIRST_COMPLETED).done


def outcome_of(future: Future[Outcome], stall_s: float) -> Outcome:
    """Return the outcome of a task, even if its process died.

    Args:
        future: The future of the task.
        stall_s: Seconds without progress after which a decoder is stopped, for the reason.

    Raises:
        TrichordError: The worker processes cannot load the encoders or cannot run.
    """
    from pebble import ProcessExpired

    try:
        return future.result()
    except ProcessExpired as error:
        code = error.exitcode
        if code == HUNG_EXIT:
            reason = f"the decoder made no progress for {stall_s:.0f} s; replace the file, or try again"
            return Outcome("hung", f"{reason} with --retry hung and a longer --stall_s")
        if code == -signal.SIGKILL:
            return Outcome(
                "out-of-memory", "its process was killed, most likely because memory ran out; use fewer workers"
            )
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return Outcome("crashed", f"its process crashed ({name}); replace the file")
    except TrichordError:
        raise
    except Exception as error:  # `run_task` raises nothing, so the processes themselves cannot run
        reason = one_line(error) or type(error).__name__
        raise TrichordError(
            f"the worker processes failed ({reason}); use --workers 0 to see why, or use fewer workers"
        ) from None


def _start(choice: EncoderChoice, device: str, threads: int, counter: Any) -> None:
    """Load the encoders in a new worker process. The first task reports any error."""
    global _encoders, _threads, _device, _failure
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles interrupts
    work.parent = os.getppid()
    try:
        import torch

        torch.set_num_threads(1)
        if device == "cuda" and torch.cuda.device_count() > 1:
            with counter.get_lock():
                device = f"cuda:{counter.value % torch.cuda.device_count()}"
                counter.value += 1
        _encoders, _threads, _device = load(choice, device), threads, device
    except Exception as error:
        text = str(error) if isinstance(error, TrichordError) else f"{type(error).__name__}: {one_line(error)}"
        _failure = f"the encoders cannot be loaded: {text}"


def _run(task: Task) -> Outcome:
    if _encoders is None:
        raise TrichordError(_failure)
    if task.decoder is not None and task.decoder.device != "cpu":
        task = replace(task, decoder=replace(task.decoder, device=_device))
    return run_task(task, _encoders, _threads)
