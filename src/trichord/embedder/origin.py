"""Where a model comes from: a trained stage with its store, or a published checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trichord.embedder.arguments import streams_of
from trichord.embedder.folder import Parts
from trichord.embedder.results import figures_of_evaluation, figures_of_study
from trichord.embedder.vocabulary import Vocabulary
from trichord.errors import TrichordError, one_line
from trichord.files.reading import parse_json, read_json_value
from trichord.recipes import load_recipe, of_this_version, recipe_from_dict
from trichord.recipes.reading import read_yaml
from trichord.store import Store, WordVectors
from trichord.store.encoders import read_encoders
from trichord.store.location import Location, recorded_folder
from trichord.store.names import ENCODERS
from trichord.study import factories
from trichord.study.loading import check_widths, find_model
from trichord.training.models import DESCRIPTION, PUBLISHED_SUFFIXES, TrainedModel, load_model

_MOST_ENCODERS_BYTES = 16 << 20
PUBLISHED_ENCODERS = {"visual_2d": {"name": "resnet152"}, "visual_3d": {"name": "resnext101-3d"}}


def parts_of_run(run: Path, store: Location | None, *, words: Path | None = None, results: Path | None = None) -> Parts:
    """The model of a run, study or stage folder, with what its store says of encoders and words.

    Args:
        run: The folder, or a published checkpoint file.
        store: That it was trained on; None takes the one that the run names.
        words: The whole word table, for words that the store does not have.
        results: Folder of `trichord evaluate --out`; None takes the figures of the study.

    Raises TrichordError when there is no such model or store, or the two do not fit.
    """
    folder = find_model(run)
    trained = load_model(folder)
    if folder.is_file() and folder.suffix in PUBLISHED_SUFFIXES:
        return parts_of_published(trained, store, words=words, results=results)
    opened = Store(store if store is not None else _store_of(folder))
    check_widths(folder, trained, opened)
    recipe = recipe_from_dict(of_this_version(trained.settings)) if trained.settings else load_recipe("mcn")
    described = read_json_value(folder / DESCRIPTION)  # `load_model` has read and checked it
    held = ", ".join(dict.fromkeys(c for c, split in opened.collections() if split == recipe.data.train_split))
    origin = {
        "order": described.get("stage"),
        "seed": described.get("seed"),
        "collections": recipe.data.collection or held,
        "train_split": recipe.data.train_split,
        "store_fingerprint": opened.fingerprint,
    }
    return Parts(
        trained,
        factories.scoring_settings(recipe, trained.visual_streams, trained.audio, trained.text),
        _needed(encoders_of(opened), trained),
        _vocabulary(opened, trained, words),
        origin,
        figures_of_study(folder) if results is None else figures_of_evaluation(results),
    )


def parts_of_published(
    trained: TrainedModel,
    store: Location | None = None,
    *,
    words: Path | None = None,
    results: Path | None = None,
) -> Parts:
    """A published checkpoint behind the published encoders (ResNet-152, 3-D ResNeXt-101, log-mel). Their weights are not told
    by the checkpoint, so only widths are compared. Words come from the table `words` (word2vec, GoogleNews), or a store."""
    settings = load_recipe("mcn")
    vocabulary = None if words is None else Vocabulary.of_table(words)
    encoders: dict[str, dict[str, Any]] = _needed(PUBLISHED_ENCODERS, trained)
    if store is not None:
        opened = Store(store)
        vocabulary = _vocabulary(opened, trained, words)
        encoders |= _needed(encoders_of(opened), trained)
    width = trained.model.arguments["word_dim"]
    if vocabulary is not None and "text" in trained.trained and vocabulary.dim != width:
        raise TrichordError(
            f"{vocabulary.source}: has {vocabulary.dim} numbers a word, the model reads {width}; name its table with --words"
        )
    return Parts(
        trained,
        factories.scoring_settings(settings, trained.visual_streams, trained.audio, trained.text),
        encoders,
        vocabulary,
        {},
        [] if results is None else figures_of_evaluation(results),
    )


def encoders_of(store: Store) -> dict[str, dict[str, Any]]:
    """What made the features of a store, here or behind a URL; {} where it is not recorded."""
    if isinstance(store.path, Path):
        return read_encoders(store.path)
    from trichord.store.remote import RemoteFiles

    files = RemoteFiles(store.path)
    if (found := files.listed().get(ENCODERS)) is None:
        return {}
    try:
        if found.size > _MOST_ENCODERS_BYTES:
            raise ValueError
        content = parse_json(files.read(ENCODERS, 0, found.size))
        return {stream: dict(entry) for stream, entry in content.items() if isinstance(entry, dict) and "name" in entry}
    except (ValueError, AttributeError):
        raise TrichordError(
            f"{store.path}/{ENCODERS}: cannot be read (it is not JSON of encoders); restore it"
        ) from None


def _needed(encoders: Mapping[str, Mapping[str, Any]], trained: TrainedModel) -> dict[str, dict[str, Any]]:
    return {stream: dict(encoders[stream]) for stream in streams_of(trained) if stream in encoders}


def _vocabulary(store: Store, trained: TrainedModel, words: Path | None) -> Vocabulary | None:
    if "text" not in trained.trained or trained.text != "words":
        return None
    known = WordVectors(store.words, store.word_vectors, store.word_source, store.lowercase, store.word_splitting)
    return Vocabulary(known, words)


def _store_of(folder: Path) -> Path:
    """The store that the run of a stage or checkpoint folder was trained on."""
    for above in folder.resolve().parents[:4]:
        path = above / "run.yaml"
        if path.is_file():
            try:
                content = read_yaml(path)
            except (OSError, ValueError) as error:
                raise TrichordError(
                    f"{path}: cannot be read ({one_line(error)[:200]}); pass the store that the model was trained on with --store"
                ) from None
            if isinstance(content, dict) and isinstance(content.get("store"), str):
                return recorded_folder(content["store"], path)
    raise TrichordError(f"{folder}: does not say which store it was trained on; pass it with --store")
