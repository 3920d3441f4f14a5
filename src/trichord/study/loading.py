"""Find the trained model that a folder means, check that it fits a store, and load it for scoring."""

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
    """Return a store, a model where it is scored, the recipe that says how, and its plain settings.

    Args:
        run: Run, study or stage folder, or a published .pth file.
        store_path: Store with the clips, a folder or a URL; one that is open already is taken as it is.
        recipe: How clips are read and scored; None takes the recipe that trained the model, `mcn` for a published one.

    Raises TrichordError when the model's widths are not the store's.
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
    """Return the numbers of the videos of a store that a model was trained on; none if it was trained on another store."""
    if not trained.settings or not was_trained_on(find_model(run), store):
        return np.empty(0, np.int64)
    return factories.trained_items(recipe_from_dict(of_this_version(trained.settings)), store)


def find_model(run: Path) -> Path:
    """Return the folder of the model that `run` means: `run` itself, the best checkpoint in it, or the last stage of the one order
    that was trained there.

    Raises TrichordError when there is none, when there are several to choose from, or when a stage folder holds another stage.
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
        raise TrichordError(f"{run}: no trained model here; give a run folder, a stage folder or a published .pth file")
    if len(last) > 1:
        raise TrichordError(f"{run}: holds {len(last)} models; give one of them, e.g. {run / 'stages' / last[0]}")
    return run / "stages" / last[0]


def check_widths(run: Path, trained: TrainedModel, store: Store) -> None:
    """Raise TrichordError if the widths of the store's features are not those that the model reads."""
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
            f"{run}: the model reads {name} of width {wanted}, {store.path} has {width} ({source}); use the store that it was "
            f"trained on, or {advice}"
        )
