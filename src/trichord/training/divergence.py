"""What a step that diverged leaves in `stages/X/divergence/`: all that it was made of, so that it can be run again.

| file | holds |
|---|---|
| `divergence.json` | where it was, what was not finite, the terms, the settings, the widths of the network |
| `model.safetensors` | weights and buffers as they were before the step |
| `memory.safetensors` | queue, counters and the centroids that the loss used (a refit of this step included) |
| `batch-N.safetensors` | what process N encoded (`input.*`, `embedding.*`, `valid.*`); of process 0 also `positives` |
| `clips-N.json` | the clips of these rows, and the inputs of theirs that are not finite |

Nothing is pickled, and the step draws no random number. The folder is whole or not there: it is renamed into place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trichord.data.reader import Batch, ClipReader
from trichord.errors import TrichordError, one_line
from trichord.files.folders import remove_folder
from trichord.files.reading import read_json_value
from trichord.files.writing import replace_folder, umask_mode, write_json
from trichord.modalities.registry import modality_of_tensor, specification

if TYPE_CHECKING:
    from accelerate import Accelerator

FOLDER, DESCRIPTION = "divergence", "divergence.json"
MODEL, MEMORY = "model.safetensors", "memory.safetensors"
FILES = re.compile(r"(?:model|memory|batch-\d+)\.safetensors|(?:divergence|clips-\d+)\.json")
FORMAT = 1
MOST_NAMED = 20  # bad inputs that are listed


@dataclass(frozen=True)
class BadInput:
    """A row of the batch that is not finite before anything was computed, and the file that it comes from."""

    row: int
    video: str
    stream: str
    file: str

    def __str__(self) -> str:
        return f"video '{one_line(self.video)}' (stream {self.stream}, {self.file})"


def bad_inputs(batch: Batch, inputs: Mapping[str, Tensor], reader: ClipReader) -> list[BadInput]:
    """The rows of a batch whose inputs hold NaN or infinity; at most MOST_NAMED.

    Args:
        batch: Knows its clips.
        inputs: What `batch.model_inputs` gave.
        reader: Knows where they were read.
    """
    bad_inputs: list[BadInput] = []
    tensors = {**inputs, **{f"{m} embedding": e for m, e in batch.embeddings.items()}}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or batch.clips is None:
            continue
        modality = modality_of_tensor(name.removesuffix(" embedding"))
        rows = (~torch.isfinite(tensor.reshape(len(tensor), -1)).all(dim=1)).nonzero().flatten().tolist()
        for row in rows[: MOST_NAMED - len(bad_inputs)]:
            item = int(batch.clips.item[row])
            stream, file = _origin(reader, modality, item)
            bad_inputs.append(BadInput(row, reader.store.video_id(item), stream, file))
    return bad_inputs


def _origin(reader: ClipReader, modality: str, item: int) -> tuple[str, str]:
    """Stream and file that the values of a modality that are not finite come from."""
    if modality in reader.frozen:
        return f"frozen {modality}", str(getattr(reader.frozen[modality].values, "filename", "the frozen embeddings"))
    store, streams = reader.store, specification(modality).streams(reader.settings)
    for stream in streams:
        if not np.isfinite(store.rows(stream, item)).all():
            return stream, str(store.shard_path(item))
    return streams[0] if streams else "word vectors", str(store.shard_path(item))


def write_dump(
    folder: Path,
    accelerator: Accelerator,
    *,
    described: dict[str, Any],
    state: Iterator[tuple[str, Tensor]],
    memory: Mapping[str, Tensor] | None,
    batch: Batch,
    inputs: Mapping[str, Tensor],
    reader: ClipReader,
) -> tuple[list[BadInput], str]:
    """Write the dump, by all processes of a launch together.

    Args:
        folder: Of the stage; an older dump in it is replaced.
        accelerator: Knows the processes.
        described: Content of `divergence.json`.
        state: Names and values of the weights and buffers before the step, the same names on every process.
        memory: State of the clustering, if there is one.
        batch, inputs: Of this process.
        reader: What read them.

    Returns:
        The bad inputs of all processes, and what kept the dump from being written, or ''.
    """
    final, partial = folder / FOLDER, folder / f".{FOLDER}.partial"
    mine, rank = bad_inputs(batch, inputs, reader), accelerator.process_index
    problem = ""
    if accelerator.is_main_process:
        remove_folder(partial, FILES)
        problem = _tried(lambda: partial.mkdir(parents=True))
    accelerator.wait_for_everyone()
    problem = problem or _tried(lambda: _write_batch(partial, rank, batch, inputs, mine, reader))
    weights = {name: _whole(tensor) for name, tensor in state}  # parts of several processes are joined here
    accelerator.wait_for_everyone()
    failure = mine
    if accelerator.is_main_process:
        failure = _of_all(partial, accelerator.num_processes) or mine
        problem = problem or _tried(lambda: _finish(partial, final, weights, memory, described))
    accelerator.wait_for_everyone()
    return failure, problem


def _write_batch(
    partial: Path, rank: int, batch: Batch, inputs: Mapping[str, Tensor], bad: list[BadInput], reader: ClipReader
) -> None:
    tensors = {f"input.{name}": tensor for name, tensor in inputs.items()}
    tensors |= {f"embedding.{name}": tensor for name, tensor in batch.embeddings.items()}
    tensors |= {f"valid.{name}": tensor for name, tensor in batch.valid.items()}
    for name in ("positives", "first_half") if rank == 0 else ():
        if (tensor := getattr(batch, name)) is not None:
            tensors[name] = tensor
    _save(tensors, partial / f"batch-{rank}.safetensors")
    rows = []
    if batch.clips is not None:
        spans = zip(batch.clips.item.tolist(), batch.clips.start_s.tolist(), batch.clips.end_s.tolist(), strict=True)
        rows = [{"video": reader.store.video_id(i), "start_s": start, "end_s": end} for i, start, end in spans]
    write_json(partial / f"clips-{rank}.json", {"clips": rows, "bad_inputs": [asdict(one) for one in bad]})


def _finish(
    partial: Path,
    final: Path,
    weights: dict[str, Tensor],
    memory: Mapping[str, Tensor] | None,
    described: dict[str, Any],
) -> None:
    _save(weights, partial / MODEL)
    if memory is not None:
        _save(memory, partial / MEMORY)
    write_json(partial / DESCRIPTION, {"format": FORMAT, **described})
    replace_folder(partial, final, FILES)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    with umask_mode(path):
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)


def _whole(tensor: Tensor) -> Tensor:
    """All of a tensor, also where each process holds a part of it."""
    full = getattr(tensor, "full_tensor", None)
    return tensor.detach() if full is None else full().detach()


def _of_all(partial: Path, num_processes: int) -> list[BadInput]:
    bad_inputs: list[BadInput] = []
    for rank in range(num_processes):
        try:
            content = read_json_value(partial / f"clips-{rank}.json")
            bad_inputs += [BadInput(**one) for one in content["bad_inputs"]]
        except (OSError, ValueError):  # the disk is full, or this machine does not see that process's files
            continue
    return bad_inputs


def _tried(write: Any) -> str:
    """Call `write`. Returns why it failed, or '': the divergence matters more than its dump."""
    from safetensors import SafetensorError

    try:
        write()
    except (OSError, SafetensorError, TrichordError) as error:
        return one_line(getattr(error, "strerror", None) or error)
    return ""
