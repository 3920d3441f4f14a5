"""Evaluation of a model, or of embeddings from a file, on benchmarks (`trichord evaluate`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trichord.errors import Diverged, TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.files.paths import accepts_text_paths
from trichord.modality import Direction
from trichord.parallel import on_main
from trichord.recipes import of_this_version, recipe_from_dict
from trichord.settings import DRAW_SEED
from trichord.study import factories
from trichord.study.evaluation import Evaluated, Evaluation
from trichord.study.loading import items_trained_on, load_for_scoring
from trichord.tasks.protocol import Options, Protocol
from trichord.tasks.registry import default_names, resolve
from trichord.tasks.retrieval.measure import FUSIONS, all_directions
from trichord.tasks.saved_sets import scored_sets
from trichord.tasks.subject import Subject, Untrained
from trichord.tasks.windows import Windows

if TYPE_CHECKING:
    from trichord.recipes import Recipe
    from trichord.store import Store
    from trichord.store.location import Location

ALL = "all"
BY_PRODUCTS = ("retrieval", "localization", "classification")  # kinds of tasks that score pairs of embeddings


@accepts_text_paths
def evaluate(
    run: Path | None,
    store_path: Location | Store | None,
    names: Sequence[str] = (),
    *,
    embeddings: Path | None = None,
    directions: Sequence[str | Direction] | str = (),
    recipe: str | None = None,
    options: Options | None = None,
    num_windows: int = 0,
    window_s: float | None = None,
    window_pool: str = "mean",
    leave_out: bool = False,
) -> Evaluation:
    """Score a trained model, a published checkpoint, or embeddings, on benchmarks.

    Args:
        run: Folder of a run, a study or a stage, or a published .pth file. None with `embeddings`.
        store_path: Store with the clips: a folder, a URL or an open store. None with `embeddings`.
        names: Benchmarks, each of which is scored once: names of protocols, NAME:COLLECTION/SPLIT, or COLLECTION/SPLIT for
            retrieval on these clips. If empty, retrieval is scored on all held-out clips of the store, or on all clips of the
            file.
        embeddings: File of embeddings as described in `evaluation.embedded`, which replaces a model and a store.
        directions: Retrieval directions, or `all`. If empty, those of the recipe; for embeddings, all.
        recipe: Recipe that says how clips are read and scored. None uses the recipe that the model was trained with, or `mcn`
            for a published model. A note lists the differences between the given recipe and that of the model.
        options: Further options. `directions` and `windows` of these are replaced by the arguments of this function.
        num_windows: Number of windows into which longer clips are cut. 0 embeds them whole.
        window_s: Length of a window in seconds. None uses the shortest length of a clip in the recipe.
        window_pool: How the embeddings of the windows are combined: `mean` or `max`.
        leave_out: Whether to leave out, with a note, directions and benchmarks that need a modality that the model was not
            trained on. Otherwise, they are errors.

    Returns:
        The evaluation, which `write_evaluation` writes to files.

    Raises:
        TrichordError: A benchmark is unknown, needs something that the model or the store lacks, or the arguments contradict each
            other.
    """
    options = options or Options()
    _check_choices(options)
    if run is None and embeddings is None:
        refuse_model_among(names)
    if (embeddings is None) == (run is None) or (run is None) != (store_path is None):
        raise TrichordError(
            "give either a model and its --store, or --embeddings FILE; the model is the first argument, before --benchmark "
            "(see trichord evaluate --help)"
        )
    if not num_windows and (window_s is not None or window_pool != "mean"):
        raise TrichordError("window_s and window_pool have no effect without --windows; give the number of windows")
    if embeddings is not None:
        evaluation = _of_embeddings(embeddings)
        if recipe is not None or num_windows:
            raise TrichordError(f"{embeddings}: recipes and windows have no effect on embeddings; leave them out")
    else:
        assert run is not None and store_path is not None
        evaluation, used, options = _of_model(run, store_path, recipe, options, with_directions=not directions)
        if num_windows:
            options = replace(options, windows=Windows(num_windows, window_s or used.data.min_clip_s, window_pool))
    store = evaluation.subject.store
    options = replace(options, directions=_directions(directions, evaluation.subject))
    chosen = [resolve(name, store) for name in dict.fromkeys(names or default_names(store))]
    _check_effect(chosen, options, evaluation.subject)
    products = [name for name, protocol, _ in chosen if protocol.kind in BY_PRODUCTS]
    if embeddings is not None and options.fusion == "auto" and products:
        note = "use dot products of the embeddings as given (fusion sum); --fusion mean_normalized uses cosines"
        evaluation.notes.append(f"{embeddings}: scores of {', '.join(products)} {note}")
    options, lost = _possible(options, evaluation) if leave_out else (options, False)
    for name, protocol, on in chosen:
        mine = replace(options, on=on)
        if lost and not mine.directions and protocol.kind in ("retrieval", "localization"):
            evaluation.notes.append(f"benchmark {name} was left out (the model supports none of the directions)")
            continue
        try:
            outcome = protocol.run(evaluation.subject, mine)
        except TrichordError as error:
            if not leave_out or isinstance(error, Diverged) or not (lost or isinstance(error, Untrained)):
                raise
            reason = str(error).removeprefix(f"{evaluation.subject.name}: ")
            evaluation.notes.append(f"benchmark {name} was left out ({reason})")
            continue
        evaluation.benchmarks.append(Evaluated(name, protocol, mine, outcome))
    return evaluation


def _check_choices(options: Options) -> None:
    """Raise TrichordError for an invalid option."""
    for what, value, known in (
        ("fusion", options.fusion, ("auto", *FUSIONS)),
        ("missing", options.missing, ("auto", "drop", "miss")),
    ):
        if value not in known:
            raise TrichordError(f"{what} cannot be '{value}'; choose {', '.join(known)}")
    DRAW_SEED.check("--seed", options.seed)


def _of_embeddings(path: Path) -> Evaluation:
    """Return an evaluation of the embeddings in a file, without benchmarks yet."""
    given = Embedded.load(path)
    notes = [
        f"{path}: {(~there).sum():,} of {len(there):,} rows of {m} count as missing, since they are marked so or not finite"
        for m, there in given.valid.items()
        if not there.all()
    ]
    return Evaluation(Subject.of_embeddings(given), notes=notes)


def _of_model(
    run: Path, store_path: Location | Store, recipe: str | None, options: Options, *, with_directions: bool
) -> tuple[Evaluation, Recipe, Options]:
    """Return an evaluation of a model without benchmarks yet, the recipe that it is scored with, and the completed options.

    `with_directions` says whether the directions of the recipe are used. The other arguments are those of `evaluate`.
    """
    store, trained, used, settings = load_for_scoring(run, store_path, recipe)
    trained_on = items_trained_on(run, trained, store)
    subject = Subject.of_model(str(run), trained.model, store, settings, trained.trained, trained.centroids, trained_on)
    notes = list(trained.notes)
    if recipe is not None and trained.settings:
        own = recipe_from_dict(of_this_version(trained.settings))
        notes.append(_other_recipe(run, recipe, own, used, with_directions=with_directions))
    directions = map(Direction.parse, used.evaluation.directions)
    usual = tuple(direction for direction in directions if set(direction.modalities) <= set(trained.trained))
    options = replace(options, usual=usual, block=settings.block, missing=options.missing_or(settings.missing))
    return Evaluation(subject, notes=notes), used, options


def _other_recipe(run: Path, name: str, own: Recipe, used: Recipe, *, with_directions: bool) -> str:
    """Return a note on the settings in which the recipe of a model differs from the one that it is scored under."""
    parts = []
    mine, other = (asdict(factories.scoring_settings(recipe, ())) for recipe in (own, used))
    mine, other = ({k: v for k, v in settings.items() if k != "block"} for settings in (mine, other))
    if with_directions:
        mine |= {"directions": ", ".join(own.evaluation.directions)}
        other |= {"directions": ", ".join(used.evaluation.directions)}
    for key, value in other.items():
        if value != mine[key]:
            parts.append(f"{key} is {value} instead of {mine[key]}")
    if not parts:
        return f"{run}: --recipe {name} reads and scores clips in the same way as the recipe of the model"
    return f"{run}: --recipe {name} differs from the recipe of the model: {'; '.join(parts)}"


def refuse_model_among(names: Sequence[str]) -> None:
    """Check that none of the names of benchmarks is a file or folder, which would be the model.

    Raises:
        TrichordError: One of them is. The message contains the corrected command.
    """
    if existing := [name for name in names if name and os.path.exists(name)]:
        others = " ".join(name for name in names if name not in existing)
        command = f"trichord evaluate {existing[-1]} --store STORE{' --benchmark ' if others else ''}{others}"
        raise TrichordError(f"{existing[-1]} is given as a benchmark; if it is the model, put it first: {command}")


def _possible(options: Options, evaluation: Evaluation) -> tuple[Options, bool]:
    """Return the options with the directions that the subject supports, and whether others were left out with a note."""
    known_modalities = set(evaluation.subject.modalities)
    kept = tuple(d for d in options.directions if set(d.modalities) <= known_modalities)
    if lost := [d.code for d in options.directions if d not in kept]:
        modalities = ", ".join(evaluation.subject.modalities)
        evaluation.notes.append(f"directions {', '.join(lost)} were left out: the model embeds only {modalities}")
    return replace(options, directions=kept), bool(lost)


def _directions(asked: Sequence[str | Direction] | str, subject: Subject) -> tuple[Direction, ...]:
    """Return the directions that the user chose: objects or codes, codes with commas, or `all`."""
    items = [asked] if isinstance(asked, str) else asked
    parts = [part for item in items for part in (item.split(",") if isinstance(item, str) else [item])]
    chosen = [part for part in parts if str(part).strip()]
    if [str(part).strip() for part in chosen] == [ALL]:
        return all_directions(subject.modalities)
    return tuple(map(Direction.parse, chosen))


def _check_effect(chosen: list[tuple[str, Protocol, str]], options: Options, subject: Subject) -> None:
    """Raise TrichordError for options that affect none of the benchmarks."""
    kinds = {protocol.kind for _, protocol, _ in chosen}
    names = ", ".join(name for name, _, _ in chosen)
    if options.labels and not kinds & {"classification", "probe", "clustering"}:
        raise TrichordError(f"--labels has no effect on {names}; leave it out")
    if options.templates and "classification" not in kinds:
        raise TrichordError(f"--templates has no effect on {names}; leave it out")
    if options.text_encoder and (subject.settings is None or subject.settings.text == "words"):
        raise TrichordError(f"--text_encoder has no effect: {subject.name} does not read text embeddings; leave it out")
    if options.text_encoder and not kinds & {"classification", "localization"}:
        raise TrichordError(f"--text_encoder has no effect on {names}; leave it out")
    if options.seed and not any(protocol.draws for _, protocol, _ in chosen):
        raise TrichordError(f"--seed has no effect on {names}; leave it out")
    localizing = "localization" in kinds
    heard = localizing and subject.given is None
    heard &= not options.directions or any("audio" in direction.modalities for direction in options.directions)
    if options.audio_window_s != Options.audio_window_s and not heard:
        raise TrichordError(f"--audio_window_s has no effect on {names}; leave it out")
    if "retrieval" in kinds:
        return
    given = {
        "directions": bool(options.directions) and not localizing,
        "dual_softmax": bool(options.dual_softmax),
        "gallery": options.gallery is not None,
    }
    if idle := [name for name, is_given in given.items() if is_given]:
        raise TrichordError(f"--{idle[0]} has no effect on {names}; leave it out")


def save_embeddings(evaluation: Evaluation, path: Path) -> None:
    """Write the scored embeddings as a file that `--embeddings` reads.

    The file also contains the labels, the folds, the prompts of classes, the seconds and the texts of steps that the benchmarks
    used.

    Args:
        evaluation: Evaluation of a model.
        path: File to write.

    Raises:
        TrichordError: The benchmarks use different sets of clips.
    """
    sets = scored_sets(evaluation.subject, [(done.protocol, done.options) for done in evaluation.benchmarks])
    if len(sets) != 1:
        raise TrichordError(
            f"{path}: the benchmarks use {len(sets)} sets of clips, but a file can contain only one; "
            "evaluate one benchmark at a time"
        )
    on_main(lambda: sets[0].save(path))
