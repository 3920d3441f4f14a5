"""Computation of frozen embeddings for later stages in advance: on other machines, during another training, or on Ray.

Any number of processes can compute them together (`data.frozen_parts`): the same command on several machines that share the file
system of the store, an array job, a launch of several processes, or a process that runs at the same time as the study.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trichord.data.frozen import frozen_folder, frozen_rows
from trichord.errors import TrichordError
from trichord.files.paths import accepts_text_paths
from trichord.logs import main_process_logger
from trichord.modality import MODALITIES, Order, declare_recorded
from trichord.parallel import on_main
from trichord.recipes import Recipe, of_this_version, recipe_from_dict
from trichord.study import factories
from trichord.study.files import deleting, is_there, mended_by_deleting, read_json
from trichord.study.places import check_described
from trichord.training.frozen import frozen_passes
from trichord.training.models import DESCRIPTION, load_model
from trichord.training.stage import Stage, stages_of

if TYPE_CHECKING:
    from trichord.cluster import RayOptions
    from trichord.store.location import Location

logger = main_process_logger(__name__)


@accepts_text_paths
def freeze(
    run: Path,
    store: Location,
    *,
    order: str | Order | None = None,
    device: str = "auto",
    cluster: RayOptions | None = None,
    workers: int | None = None,
) -> list[Path]:
    """Compute the missing embeddings of the frozen encoders of later stages for every clip.

    Args:
        run: Folder of a run or a study, or of one of its stages.
        store: Store of the training.
        order: Order whose later stages are prepared. None prepares all stages that may follow.
        device: `auto` or `cpu`.
        cluster: Ray cluster that computes the embeddings. None computes them in this process.
        workers: Number of Ray actors. None uses as many as fit on the cluster.

    Returns:
        The folders of the embeddings, which are complete.

    Raises:
        TrichordError: There is no finished stage that a later one would freeze.
    """
    from trichord.store import Store

    wanted = Order.parse(order) if order else None
    stages = list(_stages(Path(run), wanted))
    if not stages:
        which = f"that {wanted} would freeze" if wanted else "that a later one would freeze"
        raise TrichordError(f"{run}: contains no finished stage {which}; train the first stage before")
    ready: list[Path] = []
    for folder, stage, recipe in stages:
        recipe.training.device = "cpu" if device == "cpu" else recipe.training.device
        accelerator = factories.training_accelerator(recipe)
        data = Store(store, cache_gb=recipe.data.cache_gb or None)
        with mended_by_deleting(folder):
            model = load_model(folder).model
        source, reader = factories.build_batches(recipe, data, stage, 0)
        settings = factories.frozen_settings(recipe, stage, source)
        given = (model, stage, source, reader, settings, accelerator)
        if not settings.enabled:
            raise TrichordError(f"{folder}: was trained with training.frozen_cache off, so embeddings are not cached")
        if cluster is not None:
            from trichord.training.frozen_ray import freeze_on_ray

            on_main(partial(freeze_on_ray, cluster, *given, workers=workers))
        for work, encoder in frozen_passes(*given):
            if work.folder not in ready:
                frozen_rows(
                    work,
                    encoder,
                    process=accelerator.process_index,
                    num_processes=accelerator.num_processes,
                )
                ready.append(work.folder)
    if not ready:
        logger.warning(
            f"nothing was written to {frozen_folder(data)}: the embeddings would need more than training.frozen_cache_gb or "
            "be read only once"
        )
    return ready


def _stages(run: Path, order: Order | None) -> Iterator[tuple[Path, Stage, Recipe]]:
    """Yield the folder of each finished stage that a later one freezes, the later stage, and the recipe of both."""
    folders = (
        [run] if is_there(run / DESCRIPTION) else sorted(path.parent for path in run.glob(f"stages/*/{DESCRIPTION}"))
    )
    for folder in folders:
        described = read_json(folder / DESCRIPTION, mend=deleting(folder))
        check_described(folder, described)
        chain, settings, further = described.get("stage"), described.get("settings"), described.get("modalities", {})
        if not isinstance(chain, str) or not isinstance(settings, dict):
            raise TrichordError(f"{folder / DESCRIPTION}: does not contain its stage and settings; {deleting(folder)}")
        declare_recorded(further, folder / DESCRIPTION)
        finished = Order.parse(chain)
        lacking = [name for name in (*MODALITIES, *further) if name not in finished.modalities]
        following = order or (finished.followed_by(lacking) if lacking else None)
        recipe = recipe_from_dict(of_this_version(settings))
        stages = stages_of(following, thaw=recipe.later_stages.thaw > 0) if following else ()
        for before, stage in zip(stages, stages[1:], strict=False):
            if before.order == finished and stage.frozen:
                yield folder, stage, recipe
