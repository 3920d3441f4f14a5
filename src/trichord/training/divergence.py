"""The dump of a diverged training step, in `stages/X/divergence/`, from which `trichord reproduce` runs the step again.

| file | content |
|---|---|
| `divergence.json` | position, value that was not finite, loss terms, settings, arguments of the network |
| `model.safetensors` | weights and buffers before the step |
| `memory.safetensors` | queue, counters and centroids that the loss used (after a refit in this step) |
| `batch-N.safetensors` | inputs of process N (`input.*`, `embedding.*`, `target.*`, `valid.*`); of process 0 also `positives` |
| `clips-N.json` | clips of these rows, and those of their inputs that are not finite |

Nothing is pickled. The saved inputs contain the random changes of training, so no random state is needed. The folder is renamed
into place when it is complete.
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
MOST_NAMED = 20  # largest number of bad inputs that are listed


@dataclass(frozen=True)
class BadInput:
    """A row of the batch whose input is not finite.

    Attributes:
        row: Index of the row.
        video: ID of the video.
        stream: Stream of the store with the values.
        file: File with the values.
    """

    row: int
    video: str
    stream: str
    file: str

    def __str__(self) -> str:
        return f"video '{one_line(self.video)}' (stream {self.stream}, {self.file})"


def bad_inputs(batch: Batch, inputs: Mapping[str, Tensor], reader: ClipReader) -> list[BadInput]:
    """Find the rows of a batch whose inputs contain NaN or infinity.

    Args:
        batch: Batch with its clips.
        inputs: Inputs of the network, as returned by `batch.model_inputs`.
        reader: Reader of the clips, which knows the files of the inputs.

    Returns:
        At most `MOST_NAMED` inputs.
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
    """Return the stream and the file with the values that are not finite."""
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
    """Write the dump. All processes of a launch call this together.

    Args:
        folder: Folder of the stage. An older dump is replaced.
        accelerator: Processes.
        described: Content of `divergence.json`.
        state: Names and values of the weights and buffers before the step, in the same order on every process.
        memory: State of the clustering. None without clustering.
        batch: Batch of this process.
        inputs: Inputs of the network in this process, as returned by `batch.model_inputs`.
        reader: Reader of the clips.

    Returns:
        The bad inputs of all processes, and the reason why the dump could not be written, or ''.
    """
    final, partial = folder / FOLDER, folder / f".{FOLDER}.partial"
    mine, rank = bad_inputs(batch, inputs, reader), accelerator.process_index
    problem = ""
    if accelerator.is_main_process:
        remove_folder(partial, FILES)
        problem = _tried(lambda: partial.mkdir(parents=True))
    accelerator.wait_for_everyone()
    problem = problem or _tried(lambda: _write_batch(partial, rank, batch, inputs, mine, reader))
    weights = {name: _whole(tensor) for name, tensor in state}  # gathers sharded tensors, so all processes do it
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
    tensors |= {f"target.{name}": tensor for name, tensor in batch.targets.items()}
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
    """Return the whole tensor. A sharded one is gathered."""
    full = getattr(tensor, "full_tensor", None)
    return tensor.detach() if full is None else full().detach()


def _of_all(partial: Path, num_processes: int) -> list[BadInput]:
    bad_inputs: list[BadInput] = []
    for rank in range(num_processes):
        try:
            content = read_json_value(partial / f"clips-{rank}.json")
            bad_inputs += [BadInput(**one) for one in content["bad_inputs"]]
        except (OSError, ValueError):  # the disk is full, or the process runs on a machine with other disks
            continue
    return bad_inputs


def _tried(write: Any) -> str:
    """Call `write` and return the reason of a failure, or ''. The error about the divergence must still be raised."""
    from safetensors import SafetensorError

    try:
        write()
    except (OSError, SafetensorError, TrichordError) as error:
        return one_line(getattr(error, "strerror", None) or error)
    return ""
