"""Loading of a trained model for scoring: find the model in a folder, and check that it fits a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trichord.errors import TrichordError
from trichord.modalities.base import ReadingSettings
from trichord.modalities.registry import specification
from trichord.recipes import Recipe, load_recipe, of_this_version, recipe_from_dict
from trichord.study import factories
from trichord.study.files import deleting, is_there, read_json
from trichord.study.folder import was_trained_on
from trichord.study.places import check_described, check_stage
from trichord.tasks.benchmarks import ScoringSettings
from trichord.training.checkpoint import best_checkpoint
from trichord.training.models import DESCRIPTION, TrainedModel, load_model

if TYPE_CHECKING:
    from trichord.store import Store
    from trichord.store.location import Location


def load_for_scoring(
    run: Path, store_path: Location | Store, recipe: str | None = None
) -> tuple[Store, TrainedModel, Recipe, ScoringSettings]:
    """Load a model and a store for scoring.

    Args:
        run: Folder of a run, a study or a stage, or a published .pth file.
        store_path: Store with the clips: a folder, a URL or an open store.
        recipe: Recipe that says how clips are read and scored. None uses the recipe that the model was trained with, or `mcn`
            for a published model.

    Returns:
        The store, the model on the device of the scoring, the recipe, and the settings of the scoring.

    Raises:
        TrichordError: There is not exactly one model, or its inputs have other sizes than the features of the store.
    """
    from trichord.store import Store

    store = store_path if isinstance(store_path, Store) else Store(store_path)
    trained = load_model(find_model(run))
    check_widths(run, trained, store)
    kept = trained.settings and recipe is None
    used = recipe_from_dict(of_this_version(trained.settings)) if kept else load_recipe(recipe or "mcn")
    settings = factories.scoring_settings(used, trained.visual_streams, trained.audio, trained.text)
    trained.model.to(factories.scoring_device(used))
    return store, trained, used, settings


def items_trained_on(run: Path, trained: TrainedModel, store: Store) -> np.ndarray:
    """Return the numbers of the videos of a store that a model was trained on.

    Args:
        run: Folder of a run, a study or a stage.
        trained: Model in this folder.
        store: Store. If the model was trained on another one, the result is empty.
    """
    if not trained.settings or not was_trained_on(find_model(run), store):
        return np.empty(0, np.int64)
    return factories.trained_items(recipe_from_dict(of_this_version(trained.settings)), store)


def find_model(run: Path) -> Path:
    """Find the model that a path refers to.

    Args:
        run: Model file or folder, folder with checkpoints, or run folder with a single order.

    Returns:
        `run` itself, the best checkpoint in it, or the folder of the last stage of its order.

    Raises:
        TrichordError: There is no model or more than one, or a folder contains the model of another stage.
    """
    if is_there(run) or is_there(run / DESCRIPTION):
        check_stage(run)
        return run
    if best := best_checkpoint(run):
        check_stage(best)
        return best
    descriptions = {
        path.parent.name: read_json(path, mend=deleting(path.parent)) for path in run.glob(f"stages/*/{DESCRIPTION}")
    }
    for name, described in descriptions.items():
        check_described(run / "stages" / name, described)
    last = sorted(set(descriptions) - {described.get("parent") for described in descriptions.values()})
    if not last:
        raise TrichordError(
            f"{run}: contains no trained model; give the folder of a run or a stage, or a published .pth file"
        )
    if len(last) > 1:
        raise TrichordError(f"{run}: contains {len(last)} models; give one of them, such as {run / 'stages' / last[0]}")
    return run / "stages" / last[0]


def check_widths(run: Path, trained: TrainedModel, store: Store) -> None:
    """Check that the features of a store have the sizes that a model reads.

    Args:
        run: Path of the model, for the message.
        trained: Model.
        store: Store.

    Raises:
        TrichordError: The size of a modality differs.
    """
    reading = ReadingSettings(trained.visual_streams, audio=trained.audio, text=trained.text)
    for name in trained.trained:
        modality = specification(name)
        wanted, width = modality.width_in(trained.model.arguments), modality.width(store, reading)
        if wanted is None or width is None or wanted == width:
            continue
        streams = modality.streams(reading)
        source = " + ".join(streams) or "words"
        advice = "use features of the same encoder" if streams else "import with the same word vectors"
        raise TrichordError(
            f"{run}: the model needs {name} features of size {wanted}, but those of {store.path} have size {width} ({source}); "
            f"use the store that it was trained on, or {advice}"
        )
