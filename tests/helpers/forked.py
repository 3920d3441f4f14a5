"""Commands of Python in processes that a server forks, which has imported the libraries: a new interpreter imports for 4 s.

`Popen` and `run` take the place of those of `subprocess` for the commands `python -m MODULE`, `python FILE` and `python -c CODE`.
Processes that such a command starts by `multiprocessing` are forked from the same server, and so are the workers of `torchrun`.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import runpy
import signal
import subprocess
import sys
from multiprocessing import context, forkserver, reduction
from pathlib import Path
from typing import Any

import torch

from process_helpers import FORKSERVER

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # of <linux/sched.h>


class Process(context.ForkServerProcess):
    """A process in the process group of the one that starts it, so that a signal to the group reaches both."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._group = os.getpgrp()

    def run(self) -> None:
        """Join the group and run the target."""
        os.setpgid(0, self._group)
        super().run()


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """`subprocess.Popen` for commands that begin with `sys.executable`. A new session is a new process group here.

    With `own_mounts`, file systems that the process mounts are seen by it alone, as after `unshare --mount`.
    """

    def __init__(self, args: Any, *, start_new_session: bool = False, own_mounts: bool = False, **options: Any) -> None:
        self._own_group, self._own_mounts = start_new_session, own_mounts
        super().__init__(args, **options)

    def _execute_child(self, args: Any, *options: Any) -> None:
        cwd, env, pipes = options[4], options[5], options[9:15]
        assert args[0] == sys.executable
        descriptors = [own if given == -1 else given for own, given in ((1, pipes[3]), (2, pipes[5]))]
        surroundings = dict(os.environ if env is None else env), cwd or os.getcwd(), self._own_group, self._own_mounts
        self._process = FORKSERVER.Process(
            target=_run, args=([str(word) for word in args[1:]], [Descriptor(n) for n in descriptors], *surroundings)
        )
        self._process.start()
        self.pid, self._child_created = self._process.pid, True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            self.returncode = self._process.exitcode
        return self.returncode

    def _wait(self, timeout: float | None) -> int | None:
        self._process.join(timeout)
        if self._internal_poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode


def run(
    line: Any, *, capture_output: bool = False, timeout: float | None = None, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` does."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(line, **options) as process:
        try:
            out, error = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, line, out, error)
    return subprocess.CompletedProcess(line, process.returncode, out, error)


class Descriptor:
    """A file descriptor that the new process inherits."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _inherited, (reduction.DupFd(self.number),)


def _inherited(duplicate: Any) -> int:
    number: int = duplicate.detach()
    return number


def _run(
    words: list[str],
    descriptors: list[int],
    environment: dict[str, str],
    folder: str,
    own_group: bool,
    own_mounts: bool,
) -> None:
    """Run a command in the forked process, as the interpreter does.

    Signals that the process of the tests ignores, as one that was started in the background does, are not ignored here.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if own_group:
        os.setpgid(0, 0)
    if own_mounts:
        _leave_mounts()
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    gc.freeze()  # a collection does not visit the libraries
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", torch.get_num_threads())))
    _fork_from_the_same_server()
    try:
        _interpret(words)
    finally:
        atexit._run_exitfuncs()


def _leave_mounts() -> None:
    """Do what `unshare --mount` does, with `--map-root-user` unless this is root."""
    user, group = os.getuid(), os.getgid()
    assert ctypes.CDLL(None).unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)) == 0
    if user:
        for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path(f"/proc/self/{name}").write_text(line)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def _fork_from_the_same_server() -> None:
    import torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler as workers_of_torchrun

    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]
    FORKSERVER.Process = Process  # type: ignore[misc, assignment]
    context._concrete_contexts["spawn"] = FORKSERVER  # type: ignore[attr-defined]
    workers_of_torchrun.Popen = Popen  # type: ignore[attr-defined, misc]


def _interpret(words: list[str]) -> None:
    while words[0] == "-u":
        words = words[1:]
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.argv = words
        sys.path.insert(0, os.path.dirname(words[0]))
        runpy.run_path(words[0], run_name="__main__")
