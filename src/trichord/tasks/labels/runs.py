"""A run of a protocol that needs labels: its clips, and the conversion of figures to rows and arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.contributions import aligned
from trichord.tasks.labels.accuracy import Scored, over_folds
from trichord.tasks.labels.clips import Labelled, labelled, usable
from trichord.tasks.protocol import Options, Outcome, Protocol, Row, clip_arrays
from trichord.tasks.retrieval.measure import fuse
from trichord.tasks.subject import Subject

JOINED = ("video", "audio")  # modalities that are also scored together


@dataclass(frozen=True)
class LabelRun:
    """A run of a protocol that needs labels.

    Attributes:
        name: Name of the rows.
        data: Clips with labels.
        sides: Combinations of modalities.
        pairs: Sides and labellings that can be scored.
        fusion: Rule by which video and audio are combined.
        missing: Policy for clips that lack a modality: `drop` or `miss`.
        seed: Seed of random numbers.
        windows: Text of the windows in the scope of a row, or ''.
    """

    name: str
    data: Labelled
    sides: tuple[tuple[str, ...], ...]
    pairs: tuple[tuple[tuple[str, ...], str], ...]
    fusion: str
    missing: str
    seed: int
    windows: str = ""

    def of(self, side: tuple[str, ...], label: str) -> str:
        """Return the scope of the figures of a side and a labelling, with the windows if clips were cut."""
        return f"{side_name(side)}, {label}{f', {self.windows}' if self.windows else ''}"

    def rows(self, side: tuple[str, ...], clips: np.ndarray) -> np.ndarray:
        """Return the embeddings (n, D) of the clips with the given indices (n,) in a side."""
        return fuse([self.data.embedded.embeddings[m][clips] for m in side], self.fusion)

    def valid(self, side: tuple[str, ...]) -> np.ndarray:
        """Return a mask (N,) of the clips that have all modalities of a side."""
        return np.logical_and.reduce([self.data.embedded.valid[m] for m in side])

    def tested(
        self, side: tuple[str, ...], label: str, clips: np.ndarray, outcome: Outcome
    ) -> tuple[np.ndarray, np.ndarray]:
        """Apply the policy for clips that lack a modality.

        Args:
            side: Modalities.
            label: Name of the labelling.
            clips: Indices of the test clips.
            outcome: Outcome to which a note is added.

        Returns:
            Indices (n,) of the clips that count, and a mask (n,) of those that lack a modality and count as errors.

        Raises:
            TrichordError: No clip has all modalities.
        """
        clips = clips[self.data.labels[label][clips] != ""]
        lacking = ~self.valid(side)[clips]
        if lacking.all():
            raise TrichordError(f"benchmark {self.name}: no clip with a label of {label} has {' and '.join(side)}")
        if lacking.any():
            treatment = "counted as errors" if self.missing == "miss" else "left out"
            note = (
                f"{self.name}: {lacking.sum():,} of {len(clips):,} clips lack {' or '.join(side)} and are {treatment}"
            )
            outcome.notes += [note] * (note not in outcome.notes)
        if self.missing != "miss":
            return clips[~lacking], np.zeros(int((~lacking).sum()), bool)
        return clips, lacking


def start_run(
    protocol: Protocol, subject: Subject, options: Options, *, train: bool, text: bool = False, by_fold: bool = True
) -> tuple[LabelRun, Outcome]:
    """Return the labelled clips of a run, and an outcome that contains their names.

    Args:
        protocol: Protocol.
        subject: Model or embeddings.
        options: Options of the user.
        train: Whether training clips are needed.
        text: Whether the texts of the clips are embedded too.
        by_fold: Whether the test clips of each fold are scored, instead of all clips together.

    Raises:
        TrichordError: There is no modality other than text, or no label.
    """
    if options.missing not in ("auto", "drop", "miss"):
        raise TrichordError(f"unknown policy for missing clips '{options.missing}'; expected 'drop' or 'miss'")
    have = usable(subject)
    if not have:
        raise TrichordError(f"{subject.name}: has neither video nor audio, which benchmark {protocol.name} needs")
    data = labelled(subject, options, (*have, "text") if text else have, train=train)
    fusion, name = options.fusion_of(subject), protocol.row_name(options)
    sides = tuple((m,) for m in have if m in JOINED) + ((JOINED,) if set(JOINED) <= set(have) else ())
    sides += tuple((m,) for m in have if m not in JOINED)
    outcome = Outcome(arrays=clip_arrays(name, data.embedded), notes=[f"{name}: {note}" for note in data.notes])
    outcome.details["fusion"] = fusion
    pairs, lacking = _pairs(data, sides, train=train, by_fold=by_fold)
    if not pairs:
        raise TrichordError(f"benchmark {name}: {'; '.join(lacking) or 'no side can be scored'}")
    outcome.notes += [f"{name}: {why}, so this row is left out" for why in lacking]
    return LabelRun(
        name, data, sides, tuple(pairs), fusion, options.missing_or("drop"), options.seed, options.windows_label
    ), outcome


def _pairs(
    data: Labelled, sides: tuple[tuple[str, ...], ...], *, train: bool, by_fold: bool
) -> tuple[list[tuple[tuple[str, ...], str]], list[str]]:
    """Return the sides and labellings that can be scored in every fold, and the reasons why others cannot."""
    pairs, lacking = [], []
    for side in sides:
        there = np.logical_and.reduce([data.embedded.valid[m] for m in side])
        for label, values in data.labels.items():
            if not by_fold:
                if ((values != "") & there).sum() > 1:
                    pairs.append((side, label))
                else:
                    lacking.append(f"fewer than two clips with a label of {label} have {' and '.join(side)}")
                continue
            named = values != ""
            parts = [
                ("test " if data.folds else "", np.isin(np.arange(len(named)), clips))
                for clips in data.tests().values()
            ]
            parts += [("training ", part == "train") for part in data.folds.values()] if train else []
            empty = next(
                (what for what, part in parts if (part & named).any() and not (part & named & there).any()), None
            )
            if empty is None:
                pairs.append((side, label))
            else:
                lacking.append(f"no {empty}clip with a label of {label} has {' and '.join(side)}")
    return pairs, lacking


def side_name(side: tuple[str, ...]) -> str:
    """Return the name of a side, such as `video+audio`."""
    return "+".join(side)


def add_figure(
    run: LabelRun, outcome: Outcome, scope: str, folds: dict[str, Scored], names: dict[str, list[str]]
) -> None:
    """Add the rows and arrays of a figure to an outcome: those of each fold, and the mean over folds.

    Args:
        run: Run of the protocol.
        outcome: Outcome, which is changed in place.
        scope: Scope of the figure.
        folds: Scored items by fold.
        names: Names of the classes by fold, in the order of their numbers.
    """
    pairs_of_measure: dict[str, list[tuple[float, float]]] = {}
    gave: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for fold, scored in folds.items():
        title = f"{scope}, {fold}" if len(folds) > 1 else scope
        for measure, (value, chance, each) in scored.measures().items():
            pairs_of_measure.setdefault(measure, []).append((value, chance))
            gave.setdefault(measure, []).append((scored.clip, each))
            row = Row(run.name, title, measure, value, len(scored.clip), chance)
            values = aligned(each, scored.clip, run.data.embedded.num_clips)
            outcome.rows.append(row.over(values, f"{run.name}/id"))
        head = f"{run.name}/{title}"
        outcome.arrays |= {
            f"{head}/clip": scored.clip.astype(np.int32),
            f"{head}/truth": scored.truth.astype(np.int32),
            f"{head}/greater": scored.greater.astype(np.int32),
            f"{head}/equal": scored.equal.astype(np.int32),
            f"{head}/num_classes": np.array(scored.num_classes),
            f"{head}/classes": np.array(names[fold], np.str_),
        }
    if len(folds) > 1:
        num = sum(len(scored.clip) for scored in folds.values())
        for measure, pairs in pairs_of_measure.items():
            value, chance = np.mean(pairs, axis=0).tolist()
            row = Row(run.name, f"{scope}, mean of {len(folds)} folds", measure, value, num, chance)
            values = over_folds(gave[measure], run.data.embedded.num_clips)
            outcome.rows.append(row.over(values, f"{run.name}/id"))
