"""The protocols that need labels: zero-shot classification, linear probe, nearest neighbours and clustering."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.contributions import aligned
from trichord.evaluation.ranks import retrieval_ranks
from trichord.parallel import on_main
from trichord.tasks.labels.accuracy import Scored, mean_of_folds, over_folds
from trichord.tasks.labels.classification import class_embeddings
from trichord.tasks.labels.clips import usable
from trichord.tasks.labels.clusters import agreement, chance_agreement, cluster_embeddings, purity_hits
from trichord.tasks.labels.own_clusters import own_sides
from trichord.tasks.labels.probes import NEIGHBOURS, PENALTIES, knn_scores, linear_probe
from trichord.tasks.labels.runs import LabelRun, add_figure, side_name, start_run
from trichord.tasks.prompts import prompt_rows, prompts_from_clips, prompts_of
from trichord.tasks.protocol import Options, Outcome, Protocol, Row
from trichord.tasks.subject import Subject

MEASURES = {"NMI": "nmi", "ARI": "ari", "purity": "purity"}


# ---- zero-shot


def _zero_shot(protocol: Protocol, subject: Subject, options: Options) -> Outcome:
    subject.needed(("text",), f"benchmark {protocol.name}")
    run, outcome = start_run(protocol, subject, options, train=False, text=prompts_from_clips(subject, options))
    classes: dict[str, np.ndarray] = {}
    for label, names in run.data.classes.items():
        texts = [prompts_of(name, options.templates) for name in names]
        prompts = [text for prompts_of_class in texts for text in prompts_of_class]
        rows, unknown = prompt_rows(subject, run.data.embedded, prompts, options)
        if lost := sorted({word for words in unknown.values() for word in words}):
            examples = f"{', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}"
            outcome.notes.append(f"{run.name}: {len(lost)} words of {label} have no vector: {examples}")
        owner = np.repeat(np.arange(len(names)), [len(prompts_of_class) for prompts_of_class in texts])
        classes[label] = class_embeddings(rows, owner, len(names), run.fusion == "mean_normalized")
        if silent := [name for name, row in zip(names, classes[label], strict=True) if not np.isfinite(row).all()]:
            outcome.notes.append(
                f"{run.name}: {len(silent)} of {len(names)} classes of {label} have no text embedding and are never chosen: "
                f"{', '.join(silent[:5])}{', ...' if len(silent) > 5 else ''}"
            )
            if len(silent) == len(names):
                raise TrichordError(_silent_classes(run.name, label, names[0], prompts[0], bool(unknown)))

    def figures() -> Outcome:
        for side, label in run.pairs:
            names, folds = run.data.classes[label], {}
            for fold, clips in run.data.tests().items():
                clips, lacking = run.tested(side, label, clips, outcome)
                truth = np.searchsorted(names, run.data.labels[label][clips])
                rows = run.rows(side, clips[~lacking])
                counts = retrieval_ranks(rows, classes[label], truth[~lacking], options.block)
                folds[fold] = Scored.of(clips, truth, counts, lacking)
            add_figure(run, outcome, run.of(side, label), folds, dict.fromkeys(folds, names))
        outcome.details["classes"] = {label: len(names) for label, names in run.data.classes.items()}
        return outcome

    return on_main(figures)


def _silent_classes(name: str, label: str, example: str, prompt: str, by_words: bool) -> str:
    """Return the error message for a labelling none of whose classes has an embedding. `prompt` is a text of class `example`."""
    if by_words:
        reason = (
            f"none of their words has a vector ('{example}' is read as '{prompt}'); import the clips with other --words"
        )
    else:
        reason = f"none of them is a caption of the clips ('{example}' would be '{prompt}'); add a text for each class"
    return f"benchmark {name}: the names of the classes of '{label}' cannot be embedded: {reason}"


# ---- probes


@dataclass(frozen=True, eq=False)
class _Fold:
    """Training and test rows of a probe. `names` lists the classes, starting with those of the training rows."""

    train: np.ndarray
    kind: np.ndarray
    videos: np.ndarray
    clips: np.ndarray
    truth: np.ndarray
    lacking: np.ndarray
    test: np.ndarray
    names: list[str]


def _folds(run: LabelRun, side: tuple[str, ...], label: str, outcome: Outcome) -> Iterator[tuple[str, _Fold]]:
    if not run.data.folds:
        raise TrichordError(
            f"benchmark {run.name}: {run.data.embedded.source} does not define training clips; add a column split or fold-1 "
            "with the values train and test to the labels"
        )
    labels = run.data.labels[label]
    for fold, part in run.data.folds.items():
        learn = np.flatnonzero((part == "train") & (labels != "") & run.valid(side))
        clips, lacking = run.tested(side, label, np.flatnonzero(part == "test"), outcome)
        seen, kind = np.unique(labels[learn], return_inverse=True)
        if len(seen) < 2:
            raise TrichordError(
                f"benchmark {run.name}: the training clips of {fold} with {side_name(side)} have {len(seen)} classes of {label}; "
                "at least two are needed"
            )
        unseen = sorted(set(labels[clips].tolist()) - set(seen.tolist()))
        names = [*seen.tolist(), *unseen]
        if unseen:
            note = f"{run.name}: {len(unseen)} classes of {label} have no training clip in {fold}; their clips count as errors"
            outcome.notes += [note] * (note not in outcome.notes)
        place = {name: i for i, name in enumerate(names)}
        truth = np.array([place[name] for name in labels[clips].tolist()], np.int64)
        rows = run.rows(side, learn), run.rows(side, clips[~lacking])
        yield fold, _Fold(rows[0], kind, run.data.embedded.videos[learn], clips, truth, lacking, rows[1], names)


def _linear(protocol: Protocol, subject: Subject, options: Options) -> Outcome:
    run, outcome = start_run(protocol, subject, options, train=True)

    def figures() -> Outcome:
        chosen: list[dict[str, Any]] = []
        for side, label in run.pairs:
            folds, names, usual = {}, {}, []
            for fold, data in _folds(run, side, label, outcome):
                probe = linear_probe(data.train, data.kind, data.test, groups=data.videos, seed=run.seed)
                folds[fold] = Scored.of_scores(data.clips, data.truth, probe.scores, data.lacking)
                names[fold] = data.names
                most = np.bincount(data.kind).argmax()
                usual.append((data.clips, ((data.truth == most) & ~data.lacking).astype(np.float64)))
                scope = f"{run.of(side, label)}, {fold}"
                chosen.append({"of": scope, "penalty": probe.penalty, "validated": list(probe.validated)})
                if not probe.converged:
                    outcome.notes.append(f"{run.name}: {scope}: the fit did not converge, so the figure may be too low")
            add_figure(run, outcome, run.of(side, label), folds, names)
            num = sum(len(scored.clip) for scored in folds.values())
            scope, value = f"{run.of(side, label)}: the most frequent class", 100.0 * mean_of_folds(usual)
            values = over_folds(usual, run.data.embedded.num_clips)
            outcome.rows.append(Row(run.name, scope, "top-1", value, num).over(values, f"{run.name}/id"))
        outcome.details["probes"] = chosen
        penalties = ", ".join(dict.fromkeys(f"{probe['penalty']:g}" for probe in chosen))
        outcome.notes.append(
            f"{run.name}: inverse penalties {penalties} were chosen by cross-validation on the training clips"
        )
        return outcome

    return on_main(figures)


def _knn(protocol: Protocol, subject: Subject, options: Options) -> Outcome:
    run, outcome = start_run(protocol, subject, options, train=True)

    def figures() -> Outcome:
        for side, label in run.pairs:
            by_k: dict[int, dict[str, Scored]] = {}
            names = {}
            folds = dict(_folds(run, side, label, outcome))
            fewest = min(len(data.train) for data in folds.values())
            for fold, data in folds.items():
                votes = knn_scores(data.train, data.kind, data.test, [k for k in NEIGHBOURS if k <= fewest])
                names[fold] = data.names
                for k, scores in votes.items():
                    by_k.setdefault(k, {})[fold] = Scored.of_scores(data.clips, data.truth, scores, data.lacking)
            for k, scored in by_k.items():
                add_figure(run, outcome, f"{run.of(side, label)}, k = {k}", scored, names)
        return outcome

    return on_main(figures)


# ---- clusters


def _clusters(protocol: Protocol, subject: Subject, options: Options) -> Outcome:
    own = subject.centroids
    text = own is not None and bool(usable(subject, ("text",)))
    run, outcome = start_run(protocol, subject, options, train=False, text=text, by_fold=False)
    if own is None and subject.model is not None:
        outcome.notes.append(
            f"{run.name}: there are no rows of own centroids, since the model was trained without clustering or its file "
            "contains none"
        )

    def figures() -> Outcome:
        for side, label in run.pairs:
            values = run.data.labels[label]
            clips = np.flatnonzero((values != "") & run.valid(side))
            num = len(np.unique(values[clips]))
            cluster = cluster_embeddings(run.rows(side, clips), num, run.seed)
            count = f"{int(cluster.max()) + 1} clusters"
            _add_clusters(run, outcome, label, run.of(side, label), count, clips, cluster)
        num_own = 0 if own is None else len(own.rows)
        used: dict[str, str] = {}  # by side
        for side, there, cluster in () if own is None else own_sides(run.data.embedded, own, run.sides):
            used[side_name(side)] = f"{side_name(side)} {len(np.unique(cluster))} of {num_own}"
            for label, values in run.data.labels.items():
                known = values[there] != ""
                if known.sum() < 2:
                    outcome.notes.append(
                        f"{run.name}: fewer than two clips with a label of {label} have {side_name(side)}, so there is no row"
                    )
                    continue
                count = f"{len(np.unique(cluster[known]))} of {num_own} used"
                scope = f"{run.of(side, label)}, own centroids"
                _add_clusters(run, outcome, label, scope, count, there[known], cluster[known])
        if used:
            outcome.notes.append(f"{run.name}: own centroids that are nearest to a clip: {', '.join(used.values())}")
        return outcome

    return on_main(figures)


def _add_clusters(
    run: LabelRun, outcome: Outcome, label: str, scope: str, count: str, clips: np.ndarray, cluster: np.ndarray
) -> None:
    """Add the rows and arrays of clusters (n,) of clips (n,) to an outcome.

    `count`, the number of clusters as text, is added to `details` and not to the scope, so that the rows of models with different
    numbers of clusters have the same name.
    """
    names, kind = np.unique(run.data.labels[label][clips], return_inverse=True)
    got, chance = agreement(cluster, kind), chance_agreement(cluster, kind, run.seed)
    for measure, key in MEASURES.items():
        row = Row(run.name, scope, measure, getattr(got, key), len(clips), getattr(chance, key))
        if measure == "purity":
            hits = aligned(purity_hits(cluster, kind), clips, run.data.embedded.num_clips)
            row = row.over(hits, f"{run.name}/id")
        outcome.rows.append(row)
    outcome.details.setdefault("clusters", {})[scope] = f"{count}, {len(names)} classes"
    outcome.arrays |= {
        f"{run.name}/{scope}/clip": clips.astype(np.int32),
        f"{run.name}/{scope}/cluster": cluster.astype(np.int32),
        f"{run.name}/{scope}/truth": kind.astype(np.int32),
        f"{run.name}/{scope}/classes": names,
    }


_LABELS = (
    "Labels are taken from `--labels` (a table, the world.json of a world, or the folder of the official lists of UCF101 or "
    "HMDB51), otherwise from the file of embeddings, or otherwise from the first folder of the id of a video."
)
_FOLDS = (
    "Folds are the columns `fold...` of the labels, or otherwise `split`. In a store without these, the training clips are those "
    "of the split train, and the test clips are the held-out ones. If there are several folds, each has a row, and so has their "
    "mean, whose interval is over the clips that are tested in a fold."
)
_SIDES = (
    "There is a row for video, for audio, and for both combined as in retrieval (`--fusion`). Clips that lack a modality are left "
    "out of its rows."
)
_MISSING = "`--missing miss` counts these as errors."
_ACCURACY = (
    "top-1, top-5 (for more than 5 classes), top-1 as the mean over classes; ties have their expected value; chance"
)

PROTOCOLS: tuple[Protocol, ...] = (
    Protocol(
        "zero-shot-classification", "Zero-shot classification by class names", "classification",
        "Each clip is assigned the class whose name has the highest score. Nothing is learnt from labels. A name is split into "
        "words (ApplyEyeMakeup and apply_eye_makeup become apply eye makeup), which replace the placeholder of each of "
        "`--templates`. With several templates, the mean of their embeddings is used. For embeddings from a file, the text of a "
        "class must be one of their captions. All classes of the labels can be chosen, even those without a clip. With folds, "
        "the test clips of each fold are scored. "
        f"{_SIDES} {_MISSING} {_LABELS} {_FOLDS}",
        "Clips with video or audio, labels, and a model of text (or a text for each class).", _ACCURACY, _zero_shot,
    ),
    Protocol(
        "linear-probe", "Linear probe of frozen embeddings", "probe",
        "Multinomial logistic regression on frozen embeddings, which are standardized with the training clips. Its inverse "
        f"penalty is the best of {', '.join(f'{c:g}' for c in PENALTIES)} in threefold cross-validation on the training clips, "
        "where clips of the same video are in the same fold. Clips of a class without training clips count as errors. "
        f"{_SIDES} {_MISSING} {_LABELS} {_FOLDS}",
        "Training and test clips with video or audio, and labels.",
        f"{_ACCURACY}; top-1 of always choosing the most frequent training class", _linear, draws=True,
    ),
    Protocol(
        "knn", "Nearest neighbours of frozen embeddings", "probe",
        "The k training clips with the highest cosines vote with weight exp(cosine / 0.07) (Wu et al. 2018; DINO). k is "
        f"{', '.join(map(str, NEIGHBOURS))}, up to the number of training clips. Clips that tie for the last place share it. "
        f"{_SIDES} {_MISSING} {_LABELS} {_FOLDS}",
        "Training and test clips with video or audio, and labels.", f"{_ACCURACY}; for each k", _knn,
    ),
    Protocol(
        "clustering", "Clusters of embeddings against labels", "clustering",
        "k-means (the best of ten starts) of normalized embeddings. There are as many clusters as classes, but at most a quarter "
        "of the number of clips. NMI is normalized by the mean of the entropies. Chance is the mean over 20 permutations of the "
        "labels. Purity increases with the number of clusters. Its interval is over clips, for fixed clusters. If t labels are "
        "equally frequent in a cluster, each of their clips counts 1/t. NMI and ARI are not means over clips and have no "
        "interval. If the model was trained with centroids, these are scored too (own centroids): each clip is assigned to the "
        "centroid of the last fit with the largest cosine, as in the training. Combined modalities are averaged, after "
        "normalization if the model was trained so (loss.cluster_cosine), regardless of `--fusion`. If clips have texts, a "
        "further row uses the mean of all modalities, as in the training, with the mean of several texts. This row says little "
        "if a caption is the name of the class. "
        f"Folds are ignored. {_SIDES} {_LABELS}",
        "Clips with video or audio, and labels; for own centroids, a stage trained with clustering, or one of its checkpoints.",
        "NMI, adjusted Rand index and purity in percent, with chance; the same for own centroids, with the number of those used",
        _clusters, draws=True,
    ),
)  # fmt: skip
