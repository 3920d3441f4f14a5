"""`trichord evaluate`: any model, or embeddings from a file, under named protocols; and the files that this leaves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.errors import Diverged, TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.files.folders import check_no_links
from trichord.files.paths import accepts_text_paths
from trichord.files.writing import write_json, writing_to
from trichord.modality import Direction, further_letters
from trichord.parallel import on_main
from trichord.recipes import of_this_version, recipe_from_dict
from trichord.settings import DRAW_SEED
from trichord.study import factories
from trichord.study.evaluation_files import PER_QUERY, RESULTS, check_target
from trichord.study.loading import items_trained_on, load_for_scoring
from trichord.study.ranks import write_arrays
from trichord.study.scores import Scores, scores_of
from trichord.tasks.protocol import Options, Outcome, Protocol
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
BY_PRODUCTS = ("retrieval", "localization", "classification")  # kinds whose scores are of one embedding with another


@dataclass(frozen=True)
class Evaluated:
    """One benchmark that was scored: the name that the user gave, its protocol, the options and the outcome."""

    name: str
    protocol: Protocol
    options: Options
    outcome: Outcome


@dataclass
class Evaluation:
    """The scored subject, its benchmarks in the order in which they were named, and notes on the subject."""

    subject: Subject
    benchmarks: list[Evaluated] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def results(self) -> list[dict[str, Any]]:
        """Return retrieval rows by direction, in the form of a study; for other benchmarks one object per figure."""
        return [
            row
            for done in self.benchmarks
            for row in done.outcome.details.get("results") or [row.to_dict() for row in done.outcome.rows]
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the saved values of each query, video or item."""
        return {name: array for done in self.benchmarks for name, array in done.outcome.kept().items()}

    def scores(self) -> Scores:
        """Return the scores, as `study.scores.read_scores` would read them from the written files."""
        scores = scores_of(Path(self.subject.name) / RESULTS, _described(self))
        scores.arrays = self.arrays()
        return scores


@accepts_text_paths
def evaluate(
    run: Path | None,
    store_path: Location | Store | None,
    names: Sequence[str] = (),
    *,
    embeddings: Path | None = None,
    directions: Sequence[str] | str = (),
    recipe: str | None = None,
    options: Options | None = None,
    num_windows: int = 0,
    window_s: float | None = None,
    window_pool: str = "mean",
    leave_out: bool = False,
) -> Evaluation:
    """Score a trained model, a published checkpoint, or embeddings, on benchmarks.

    Args:
        run: Run, study or stage folder, or a published .pth file; None with `embeddings`.
        store_path: Store with the clips, a folder, a URL or an open one; None with `embeddings`.
        names: Benchmarks: names of protocols, NAME:COLLECTION/SPLIT, or COLLECTION/SPLIT for retrieval on it, each scored
            once; empty takes all clips of the store that are held out, or all of the file.
        embeddings: File as `evaluation.embedded` describes it, in place of a model and a store.
        directions: Retrieval directions; `all`; empty takes the recipe's, of embeddings all.
        recipe: How clips are read and scored; None takes the recipe that trained the model, `mcn` for a published one. Of a
            model with its own recipe a note says what another one changes.
        options: Further choices; its directions and windows are those given here.
        num_windows: Cut longer clips into so many windows; 0 embeds them whole.
        window_s: Length of a window; None takes the recipe's shortest clip.
        window_pool: `mean` or `max` of the windows' embeddings.
        leave_out: Leave out, with a note, directions and benchmarks that need a modality which the model was not trained on;
            they are errors otherwise.

    Raises TrichordError when a benchmark is not known, or lacks what it needs.
    """
    options = options or Options()
    _check_choices(options)
    if run is None and embeddings is None:
        refuse_model_among(names)
    if (embeddings is None) == (run is None) or (run is None) != (store_path is None):
        raise TrichordError(
            "give a model and its --store, or --embeddings FILE alone; a model stands first, before --benchmark: see "
            "trichord evaluate --help"
        )
    if not num_windows and (window_s is not None or window_pool != "mean"):
        raise TrichordError("window_s and window_pool have no effect without --windows; give their number")
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
        note = "scored by the dot products of the embeddings as they are (sum); mean_normalized is by cosines"
        evaluation.notes.append(f"{embeddings}: {', '.join(products)} {note}")
    options, lost = _possible(options, evaluation) if leave_out else (options, False)
    for name, protocol, on in chosen:
        mine = replace(options, on=on)
        if lost and not mine.directions and protocol.kind in ("retrieval", "localization"):
            evaluation.notes.append(f"benchmark {name} left out (no direction is left)")
            continue
        try:
            outcome = protocol.run(evaluation.subject, mine)
        except TrichordError as error:
            if not leave_out or isinstance(error, Diverged) or not (lost or isinstance(error, Untrained)):
                raise
            reason = str(error).removeprefix(f"{evaluation.subject.name}: ")
            evaluation.notes.append(f"benchmark {name} left out ({reason})")
            continue
        evaluation.benchmarks.append(Evaluated(name, protocol, mine, outcome))
    return evaluation


def _check_choices(options: Options) -> None:
    """Raise TrichordError for a choice that does not exist."""
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
        f"{path}: {(~there).sum():,} of {len(there):,} rows of {m} count as missing: marked so, or not finite"
        for m, there in given.valid.items()
        if not there.all()
    ]
    return Evaluation(Subject.of_embeddings(given), notes=notes)


def _of_model(
    run: Path, store_path: Location | Store, recipe: str | None, options: Options, *, with_directions: bool
) -> tuple[Evaluation, Recipe, Options]:
    """Return an evaluation of a model without benchmarks yet, the recipe by which clips are read and scored, and the options with
    what follows from both.

    Args:
        run, store_path, recipe, options: As of `evaluate`.
        with_directions: Whether the directions are those of the recipe.
    """
    store, trained, used, settings = load_for_scoring(run, store_path, recipe)
    trained_on = items_trained_on(run, trained, store)
    subject = Subject.of_model(str(run), trained.model, store, settings, trained.trained, trained.centroids, trained_on)
    notes = list(trained.notes)
    if recipe is not None and trained.settings:
        own = recipe_from_dict(of_this_version(trained.settings))
        notes.append(_other_recipe(run, recipe, own, used, with_directions=with_directions))
    codes = used.evaluation.directions
    usual = tuple(code for code in codes if set(Direction.parse(code).modalities) <= set(trained.trained))
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
            parts.append(f"{key} {value} (trained: {mine[key]})")
    if not parts:
        return f"{run}: --recipe {name} reads and scores clips as its own does"
    return f"{run}: scored under --recipe {name} and not as it was trained: {'; '.join(parts)}"


def refuse_model_among(names: Sequence[str]) -> None:
    """Raise TrichordError if one of the names of benchmarks is a file or folder, that is, the model."""
    if existing := [name for name in names if name and os.path.exists(name)]:
        others = " ".join(name for name in names if name not in existing)
        command = f"trichord evaluate {existing[-1]} --store STORE{' --benchmark ' if others else ''}{others}"
        raise TrichordError(f"{existing[-1]} stands among the benchmarks; put it first: {command}")


def _possible(options: Options, evaluation: Evaluation) -> tuple[Options, bool]:
    """Return the options with the directions that the subject's modalities allow, and whether others were left out; a note names
    these."""
    known_modalities = set(evaluation.subject.modalities)
    kept = tuple(code for code in options.directions if set(Direction.parse(code).modalities) <= known_modalities)
    if lost := [code for code in options.directions if code not in kept]:
        modalities = ", ".join(evaluation.subject.modalities)
        evaluation.notes.append(f"directions {', '.join(lost)} left out: the model knows {modalities} alone")
    return replace(options, directions=kept), bool(lost)


def _directions(asked: Sequence[str] | str, subject: Subject) -> tuple[str, ...]:
    """Return the codes of the directions that the user chose: a list, text with commas, or `all`."""
    codes = [part.strip() for code in ([asked] if isinstance(asked, str) else asked) for part in code.split(",")]
    codes = [code for code in codes if code]
    if codes == [ALL]:
        return all_directions(subject.modalities)
    return tuple(Direction.parse(code).code for code in codes)


def _check_effect(chosen: list[tuple[str, Protocol, str]], options: Options, subject: Subject) -> None:
    """Raise TrichordError for choices that none of the benchmarks reads."""
    kinds = {protocol.kind for _, protocol, _ in chosen}
    names = ", ".join(name for name, _, _ in chosen)
    if options.labels and not kinds & {"classification", "probe", "clustering"}:
        raise TrichordError(f"--labels has no effect on {names}; leave it out")
    if options.templates and "classification" not in kinds:
        raise TrichordError(f"--templates has no effect on {names}; leave it out")
    if options.text_encoder and (subject.settings is None or subject.settings.text == "words"):
        raise TrichordError(f"--text_encoder has no effect: {subject.name} reads no text embeddings; leave it out")
    if options.text_encoder and not kinds & {"classification", "localization"}:
        raise TrichordError(f"--text_encoder has no effect on {names}; leave it out")
    if options.seed and not any(protocol.draws for _, protocol, _ in chosen):
        raise TrichordError(f"--seed has no effect on {names}; leave it out")
    localizing = "localization" in kinds
    heard = localizing and subject.given is None
    heard &= not options.directions or any("audio" in Direction.parse(c).modalities for c in options.directions)
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


def write_evaluation(evaluation: Evaluation, out: Path, *, anew: bool = False) -> None:
    """Write a folder with `results.json` (protocols, rows, notes, options) and `queries.npz` (values per query, video or item); if
    `out` ends in .json, write the retrieval rows only.

    Args:
        evaluation: What is written.
        out: The folder or the file.
        anew: Whether the files that are there are known to be of an evaluation, damaged or not.

    Raises TrichordError as `check_target`, unless `anew`.
    """

    def write() -> None:
        if not anew:
            check_target(out)
        with writing_to(out):
            if out.suffix == ".json":
                write_json(out, evaluation.results())
                return
            out.mkdir(parents=True, exist_ok=True)
            check_no_links(out)
            write_arrays(out / PER_QUERY, evaluation.arrays())
            write_json(out / RESULTS, _described(evaluation))

    on_main(write)


def _described(evaluation: Evaluation) -> dict[str, Any]:
    subject = evaluation.subject
    store = subject.store
    return {
        "subject": _address(subject.name),
        "store": None if store is None else {"path": store.address, "fingerprint": store.fingerprint},
        **({"modalities": modalities} if (modalities := further_letters(subject.modalities)) else {}),
        "notes": evaluation.notes,
        "benchmarks": [
            {
                "name": done.name,
                "protocol": done.protocol.name,
                "title": done.protocol.title,
                "kind": done.protocol.kind,
                "paragraph": done.protocol.paragraph,
                "sizes": dict(done.protocol.sizes),
                "clips": _clips(subject, done),
                "options": {**asdict(done.options), "gallery": len(done.options.gallery or ()) or None},
                "rows": [row.to_dict() for row in done.outcome.rows],
                "notes": done.outcome.notes,
                **done.outcome.details,
            }
            for done in evaluation.benchmarks
        ],
    }


def _address(name: str) -> str:
    """Return the absolute path of a file or folder, and any other name as it is."""
    return os.path.abspath(name) if os.path.exists(name) else name


def _clips(subject: Subject, done: Evaluated) -> str:
    """Return the COLLECTION/SPLIT that was scored; the collection if labels may say what is tested; for embeddings that of the
    protocol, or ''."""
    if done.protocol.clips or subject.store is None:
        return done.protocol.clips
    clip_set = subject.clip_set(done.options.on)
    labelled = done.options.labels and done.protocol.kind not in ("retrieval", "localization")
    return clip_set.collection if labelled else f"{clip_set.collection}/{clip_set.split}"


def save_embeddings(evaluation: Evaluation, path: Path) -> None:
    """Write what was scored as a file that `--embeddings` reads, with labels, folds and prompts of classes, or seconds and step
    texts, as far as the benchmarks used them. Raises TrichordError when that is not one set of clips."""
    sets = scored_sets(evaluation.subject, [(done.protocol, done.options) for done in evaluation.benchmarks])
    if len(sets) != 1:
        raise TrichordError(
            f"{path}: one file holds one set of clips, not {len(sets)}; evaluate one benchmark at a time"
        )
    on_main(lambda: sets[0].save(path))
