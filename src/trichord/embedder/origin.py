"""Load the parts of a model from a trained stage and its store, or from a published checkpoint."""

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
    """Return the model of a run, study or stage folder, with the encoders and words that its store records.

    Args:
        run: The folder, or a published checkpoint file.
        store: Store that the model was trained on; None uses the store named by the run.
        words: File with the complete word table, for words that the store does not have.
        results: Folder of `trichord evaluate --out`; None uses the figures of the study.

    Raises:
        TrichordError: The model or the store does not exist, or they do not belong together.

    Example:
        >>> parts = parts_of_run(Path("my_run"), "my_store")
        >>> parts.origin["order"], parts.origin["collections"], parts.encoders["visual_2d"]["name"]
        ('avt', 'my_videos', 'efficientnet-lite0-64')
    """
    folder = find_model(run)
    trained = load_model(folder)
    if folder.is_file() and folder.suffix in PUBLISHED_SUFFIXES:
        return parts_of_published(trained, store, words=words, results=results)
    opened = Store(store if store is not None else _store_of(folder))
    check_widths(folder, trained, opened)
    recipe = recipe_from_dict(of_this_version(trained.settings)) if trained.settings else load_recipe("mcn")
    description = read_json_value(folder / DESCRIPTION)  # already checked by `load_model`
    collections = ", ".join(dict.fromkeys(c for c, split in opened.collections() if split == recipe.data.train_split))
    origin = {
        "order": description.get("stage"),
        "seed": description.get("seed"),
        "collections": recipe.data.collection or collections,
        "train_split": recipe.data.train_split,
        "store_fingerprint": opened.fingerprint,
    }
    return Parts(
        trained,
        factories.scoring_settings(recipe, trained.visual_streams, trained.audio, trained.text),
        _used(encoders_of(opened), trained),
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
    """Return the parts of a published checkpoint with the published encoders (ResNet-152, 3-D ResNeXt-101, log-mel).

    The checkpoint does not record the weights of the encoders, so only widths are compared.

    Args:
        trained: The checkpoint.
        store: Store with its features, which records encoders and words.
        words: File with the word table (word2vec, GoogleNews); None uses the words of the store.
        results: Folder of `trichord evaluate --out` with figures for the model card.

    Raises:
        TrichordError: The word vectors do not have the width of the model, or a file cannot be read.

    Example:
        >>> parts = parts_of_published(load_model("e29.pth"), words=Path("GoogleNews-vectors-negative300.bin"))
        >>> parts.encoders["visual_2d"], parts.vocabulary.dim
        ({'name': 'resnet152'}, 6)
    """
    settings = load_recipe("mcn")
    vocabulary = None if words is None else Vocabulary.of_table(words)
    encoders: dict[str, dict[str, Any]] = _used(PUBLISHED_ENCODERS, trained)
    if store is not None:
        opened = Store(store)
        vocabulary = _vocabulary(opened, trained, words)
        encoders |= _used(encoders_of(opened), trained)
    width = trained.model.arguments["word_dim"]
    if vocabulary is not None and "text" in trained.trained and vocabulary.dim != width:
        raise TrichordError(
            f"{vocabulary.source}: the word vectors have width {vocabulary.dim}, but the model reads width {width}; give the word "
            "table of the model with --words"
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
    """Return the recorded encoders of a local or remote store; {} if they are not recorded.

    Raises:
        TrichordError: The file with the encoders is damaged.

    Example:
        >>> {stream: entry["name"] for stream, entry in encoders_of(Store("my_store")).items()}
        {'visual_2d': 'efficientnet-lite0-64'}
    """
    if isinstance(store.path, Path):
        return read_encoders(store.path)
    from trichord.store.remote import RemoteFiles

    files = RemoteFiles(store.path)
    if (entry_of_file := files.listed().get(ENCODERS)) is None:
        return {}
    try:
        if entry_of_file.size > _MOST_ENCODERS_BYTES:
            raise ValueError
        content = parse_json(files.read(ENCODERS, 0, entry_of_file.size))
        return {stream: dict(entry) for stream, entry in content.items() if isinstance(entry, dict) and "name" in entry}
    except (ValueError, AttributeError):
        raise TrichordError(
            f"{store.path}/{ENCODERS}: the file is not a JSON description of encoders; restore it"
        ) from None


def _used(encoders: Mapping[str, Mapping[str, Any]], trained: TrainedModel) -> dict[str, dict[str, Any]]:
    return {stream: dict(encoders[stream]) for stream in streams_of(trained) if stream in encoders}


def _vocabulary(store: Store, trained: TrainedModel, words: Path | None) -> Vocabulary | None:
    if "text" not in trained.trained or trained.text != "words":
        return None
    known = WordVectors(store.words, store.word_vectors, store.word_source, store.lowercase, store.word_splitting)
    return Vocabulary(known, words)


def _store_of(folder: Path) -> Path:
    """Return the store that the run of a stage or checkpoint folder was trained on."""
    for parent in folder.resolve().parents[:4]:
        path = parent / "run.yaml"
        if path.is_file():
            try:
                content = read_yaml(path)
            except (OSError, ValueError) as error:
                raise TrichordError(
                    f"{path}: the file cannot be read ({one_line(error)[:200]}); give the store that the model was trained on with "
                    "--store"
                ) from None
            if isinstance(content, dict) and isinstance(content.get("store"), str):
                return recorded_folder(content["store"], path)
    raise TrichordError(
        f"{folder}: the run does not record the store that it was trained on; give the store with --store"
    )
