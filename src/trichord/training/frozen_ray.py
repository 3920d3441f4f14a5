"""The frozen embeddings of a stage on a Ray cluster, whose nodes compute the parts that `frozen_inputs` then reads.

Each actor holds the model and computes parts with `make_parts`. It takes leases as any other process that takes part. If an
actor is lost, another one computes its unfinished part. Parts that the cluster does not compute are computed by `frozen_inputs`.
The parts are cut in the same way everywhere, so nodes with equal arithmetic (one thread each on a CPU, or GPUs of the same kind)
give bit-identical values. The nodes share the file system of the store under the same path.
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

ROWS_PER_ACTOR = 8  # groups of parts per actor and forward pass; fast actors take over groups of slow ones


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
    """Compute the embeddings that `frozen_inputs` reads when it is called with the same arguments.

    Call this in a single process, before `frozen_inputs`.

    Args:
        options: The cluster, and the resources of each worker.
        model: Network with the frozen weights.
        stage: Stage that lists the frozen modalities.
        source: Training clips of the stage.
        reader: Reader of the clips with the settings of the stage.
        settings: Settings of the cache.
        accelerator: Device and precision. The workers use the same kind of device.
        workers: Number of actors. None uses as many as fit on the cluster.

    Returns:
        The number of parts that were computed.

    Raises:
        TrichordError: The cluster cannot be reached or fails, or the embeddings cannot be written.
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
            "free disk space or correct the permissions, or set training.frozen_cache to off"
        ) from None
    finally:
        cluster.close()
    logger.info(
        f"frozen {', '.join(work.modality for work, _ in passes)}: {count} workers on Ray computed {made} parts"
    )
    return made


class PartMaker(NodeActor):
    """Actor that holds the frozen encoders and computes parts of the cache."""

    nothing = {"made": 0}

    def begin(
        self, device: str, model: MCN, stage: Stage, source: TrainingClips, reader: ClipReader, settings: FrozenSettings
    ) -> None:
        """Prepare the encoders. The arguments are those of `frozen_inputs`."""
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
        """Compute the parts with the numbers `row["parts"]` of the forward pass `row["key"]`."""
        key, numbers = row["key"], {int(number) for number in row["parts"]}
        if key not in self._passes:
            raise TrichordError(f"the weights or the store differ from those of the driver: there is no pass {key}")
        work, encoder = self._passes[key]
        parts = plan_parts(work, self._leases) or []  # the driver has already planned them
        mine = [part for part in parts if part.number in numbers]
        return {"made": make_parts(work, mine, encoder, self._leases)}
