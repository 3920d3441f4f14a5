"""The frozen passes of a stage on a Ray cluster: its nodes make the parts that `frozen_inputs` then finds.

Each actor holds the model and makes parts by `make_parts`, under the leases of any other process that helps. A lost actor
loses its unfinished part, which another one makes; what the cluster leaves undone, `frozen_inputs` does. Blocks are cut alike
wherever they are made: on nodes that compute alike (one thread each on a CPU, the same kind of GPU) the values are the same
bits. The nodes share the file system of the store, under the same path.
"""

from __future__ import annotations

import os
from copy import deepcopy
from math import ceil
from typing import TYPE_CHECKING, Any

from trichord.cluster import Cluster, NodeActor, RayOptions
from trichord.data.batches import TrainingClips
from trichord.data.frozen_parts import finish, make_parts, parts_done, plan_parts
from trichord.data.reader import ClipReader
from trichord.errors import TrichordError, one_line
from trichord.files.folders import make_folder
from trichord.logs import main_process_logger
from trichord.nn import MCN
from trichord.store.leases import Leases
from trichord.training.frozen import FrozenSettings, frozen_passes
from trichord.training.stage import Stage

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = main_process_logger(__name__)

ROWS_PER_ACTOR = 8  # runs of parts that an actor makes of a pass: a slow one leaves more to the others


def freeze_on_ray(
    options: RayOptions,
    model: MCN,
    stage: Stage,
    source: TrainingClips,
    reader: ClipReader,
    settings: FrozenSettings,
    accelerator: Accelerator,
    *,
    workers: int | None = None,
) -> int:
    """Make the passes that `frozen_inputs` with the same arguments reads. Call it on one process, before that.

    Args:
        options: The cluster and what each worker takes of it.
        model, stage, source, reader, settings, accelerator: As for `frozen_inputs`; the workers compute on the same kind of
            device.
        workers: Actors; None: as many as the cluster has room for.

    Returns:
        The parts that were made. Raises TrichordError when the cluster cannot be reached or cannot do it.
    """
    if not settings.enabled:
        return 0
    passes = frozen_passes(model, stage, source, reader, settings, accelerator)
    passes = [(work, encoder) for work, encoder in passes if not work.finished]
    if not passes:
        return 0
    device = accelerator.device.type
    cluster = Cluster(options, device)
    made = 0
    try:
        room = cluster.room()
        rows: list[dict[str, Any]] = []
        folder = passes[0][0].folder.parent
        make_folder(folder.parent, folder.name)
        with Leases(folder) as leases:
            for work, _ in passes:
                parts = plan_parts(work, leases) or []
                done = parts_done(work)
                todo = [part.number for part in parts if part.number not in done]
                step = max(ceil(len(todo) / (ROWS_PER_ACTOR * (workers or room))), 1)
                rows += [{"key": work.folder.name, "parts": todo[at : at + step]} for at in range(0, len(todo), step)]
            arguments = (os.getcwd(), device, deepcopy(model).cpu(), stage, source, reader, settings)
            count = min(workers or room, len(rows))
            for row in cluster.mapped(PartMaker, arguments, rows, count) if rows else ():
                made += row["made"]
            for work, _ in passes:
                finish(work, plan_parts(work, leases) or [], leases)
    except OSError as error:
        raise TrichordError(
            f"{folder}: the frozen embeddings cannot be written ({error.strerror or one_line(error)}); "
            "free the space or the rights, or set training.frozen_cache to off"
        ) from None
    finally:
        cluster.close()
    logger.info(f"frozen {', '.join(work.modality for work, _ in passes)}: {made} parts by {count} workers on Ray")
    return made


class PartMaker(NodeActor):
    """Actor with the encoders of the passes, which computes parts."""

    nothing = {"made": 0}

    def begin(
        self, device: str, model: MCN, stage: Stage, source: TrainingClips, reader: ClipReader, settings: FrozenSettings
    ) -> None:
        import torch
        from accelerate import Accelerator

        torch.set_num_threads(1)
        accelerator = Accelerator(mixed_precision=settings.precision, cpu=device == "cpu")
        self._passes = {
            work.folder.name: (work, encoder)
            for work, encoder in frozen_passes(model, stage, source, reader, settings, accelerator)
        }
        self._leases = Leases(next(iter(self._passes.values()))[0].folder.parent)

    def work(self, row: dict[str, Any]) -> dict[str, Any]:
        key, numbers = row["key"], {int(number) for number in row["parts"]}
        if key not in self._passes:
            raise TrichordError(f"holds other weights or another store than the driver's: no pass {key}")
        work, encoder = self._passes[key]
        parts = plan_parts(work, self._leases) or []  # none: the driver made room already
        mine = [part for part in parts if part.number in numbers]
        return {"made": make_parts(work, mine, encoder, self._leases)}
