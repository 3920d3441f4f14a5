"""Several processes that form one launch, as `torchrun` or `accelerate launch` would start them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp

# A server that has imported the libraries forks each process, which saves seconds of imports. The process of the tests cannot be
# forked instead, since autograd does not work in forks of a process that has used it.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        "torch", "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.launcher.api", "torch.multiprocessing",
        "accelerate", "av", "hypothesis", "librosa.core.audio", "librosa.core.spectrum", "matplotlib.figure", "pebble",
        "pyarrow.dataset", "pytest", "trichord.extraction.extract", "trichord.features.audio", "trichord.features.visual",
        "trichord.study.run",
    ]
)  # fmt: skip


def start_processes(num: int, function: Callable[..., None], *arguments: Any) -> None:
    """Run `function(rank, *arguments)` in `num` processes, and raise if one fails."""
    mp.start_processes(_run, (function, *arguments), nprocs=num, start_method="forkserver")


def _run(rank: int, function: Callable[..., None], *arguments: Any) -> None:
    gc.freeze()  # a collection does not visit the libraries
    function(rank, *arguments)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def join_gloo(rank: int, world: int, port: int) -> None:
    """Set the environment of a launch: a process that creates an accelerator joins the others."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
