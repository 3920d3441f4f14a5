"""Several processes that form one launch, as `torchrun` or `accelerate launch` would start them."""

from __future__ import annotations

import os
import socket

import torch


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
