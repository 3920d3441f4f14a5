"""Embedded clips with their labels and folds, for classification, probes and clustering."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trichord.data.reader import require_modalities
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.files.arrays import text_array
from trichord.modality import in_order
from trichord.tasks.labels.tables import is_fold, plain_name, read_labels

if TYPE_CHECKING:
    from trichord.store import Store
    from trichord.tasks.protocol import Options
    from trichord.tasks.subject import Subject

FOLDER = "class"  # name of the labels that are taken from the first folder of the id of a video
_NO_LABELS = ("visual",)  # labels that `Subject` adds and that are not scored
_OTHER_TESTS = ("test", "val")


@dataclass(frozen=True, eq=False)
class Labelled:
    """N clips with labels and folds.

    Attributes:
        embedded: Clips.
        labels: Class (N,) of each clip by labelling. '' if it is unknown.
        classes: All classes by labelling, sorted. A class may have no clip.
        folds: Role (N,) of each clip by fold: `train`, `test` or ''. Empty if there are no folds.
        columns: Labels and folds (N,) by name, unchanged, as in a file of embeddings.
        notes: Notes for the reader.
    """

    embedded: Embedded
    labels: dict[str, np.ndarray]
    classes: dict[str, list[str]]
    folds: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)

    def tests(self) -> dict[str, np.ndarray]:
        """Return the indices of the test clips by fold. Without folds, these are all clips, under the name ''."""
        if not self.folds:
            return {"": np.arange(self.embedded.num_clips)}
        return {name: np.flatnonzero(part == "test") for name, part in self.folds.items()}

    def known_classes(self) -> dict[str, list[str]]:
        """Return the classes of each labelling that has a class without clips."""
        return {name: names for name, names in self.classes.items() if set(names) - set(self.labels[name].tolist())}


def usable(subject: Subject, modalities: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the modalities that the subject embeds and that its store has.

    Args:
        subject: Model or embeddings.
        modalities: Modalities to check. If empty, all modalities except text.
    """
    modalities = modalities or tuple(m for m in in_order(subject.modalities) if m != "text")

    def has(modality: str) -> bool:
        if modality not in subject.modalities:
            return False
        if subject.store is None or subject.settings is None:
            return True
        try:
            require_modalities(subject.store, (modality,), "", subject.settings)
        except TrichordError:
            return False
        return True

    return tuple(m for m in modalities if has(m))


def labelled(subject: Subject, options: Options, modalities: tuple[str, ...], *, train: bool) -> Labelled:
    """Return the clips that `options` select, with their labels.

    Labels are taken from `options.labels`, from the file of embeddings, or from the ids of the videos.

    Args:
        subject: Model or embeddings.
        options: Options of the user.
        modalities: Modalities to embed.
        train: Whether training clips are needed.

    Raises:
        TrichordError: There are no labels, or no training clips.
    """
    table = read_labels(Path(options.labels)) if options.labels else None
    folds = [] if table is None else [name for name in table.columns if is_fold(name)]
    if subject.store is None:
        chosen = subject.clip_set(options.on)
        parts = {"": subject.embedded(chosen, modalities, options.windows)}
    else:
        chosen = subject.clip_set(options.on, "all")
        have = [split for collection, split in subject.store.collections() if collection == chosen.collection]
        splits = have if folds else ["train", chosen.split] if train else [chosen.split]
        if train and not folds and (chosen.split == "train" or "train" not in have):
            what = "split with test clips" if chosen.split == "train" else "split train with training clips"
            raise TrichordError(f"{subject.store.path}: {chosen.collection} has no {what}; give folds with --labels")
        parts = {s: subject.embedded(replace(chosen, split=s), modalities, options.windows) for s in splits}
    embedded = joined(list(parts.values()))
    own = {name: values for name, values in embedded.labels.items() if name not in _NO_LABELS}
    if len(parts) > 1:
        own["split"] = np.repeat(list(parts), [part.num_clips for part in parts.values()])
    columns = own | ({} if table is None else table.of_clips(embedded, allow_missing=options.missing != "auto"))
    labels = {name: values for name, values in columns.items() if not is_fold(name)}
    classes = {name: {*values.tolist(), *embedded.classes.get(name, ())} for name, values in labels.items()}
    if table is not None:
        classes |= {name: set(values) for name, values in table.columns.items() if not is_fold(name)}
    elif not labels:
        labels, classes = _folders(embedded, subject.store, chosen.collection)
    if not labels:
        raise TrichordError(
            f"{embedded.source}: contains no labels; give a table with --labels FILE, or name videos CLASS/VIDEO"
        )
    notes = [
        f"{lost:,} of {embedded.num_clips:,} clips have no label of {name} and are left out"
        for name, values in labels.items()
        if (lost := int((values == "").sum()))
    ]
    if options.windows is not None:
        notes.append(options.windows.note)
    return Labelled(
        embedded,
        labels,
        {name: sorted(values - {""}) for name, values in classes.items()},
        _folds(columns),
        columns | labels,
        notes,
    )


def joined(parts: list[Embedded]) -> Embedded:
    """Return the clips of several sets, one set after the other, with their texts."""
    first = parts[0]
    if len(parts) == 1:
        return first
    before = np.cumsum([0, *(part.num_clips for part in parts)])
    names = [name for name in first.labels if all(name in part.labels for part in parts)]
    captions = [part.captions for part in parts if part.captions is not None]
    return Embedded.of(
        {m: np.concatenate([part.embeddings[m] for part in parts]) for m in first.embeddings},
        valid={m: np.concatenate([part.valid[m] for part in parts]) for m in first.valid},
        text_clip=np.concatenate([part.text_clip + n for part, n in zip(parts, before, strict=False)]),
        ids=np.concatenate([part.ids for part in parts]),
        videos=np.concatenate([part.videos for part in parts]),
        start_s=np.concatenate([part.start_s for part in parts]),
        end_s=np.concatenate([part.end_s for part in parts]),
        captions=np.concatenate(captions) if len(captions) == len(parts) else None,
        labels={name: np.concatenate([part.labels[name] for part in parts]) for name in names},
        source=first.source,
        classes=first.classes,
    )


def _folders(
    embedded: Embedded, store: Store | None, collection: str
) -> tuple[dict[str, np.ndarray], dict[str, set[str]]]:
    """Return the first folder of the id of each video (after a folder of a split), and those of all videos of the collection.

    Both are empty if a clip has no folder, or all have the same folder.
    """
    values = [_folder(video) for video in embedded.videos.tolist()]
    every = set(values)
    if store is not None:
        every |= {_folder(store.video_id(int(i))) for i in store.select(collection)}
    if not all(values) or len(every - {""}) < 2:
        return {}, {}
    return {FOLDER: text_array(values, "the labels")}, {FOLDER: every}


def _folder(video: str) -> str:
    folder, _, rest = plain_name(video).partition("/")
    return folder if rest else ""


def _folds(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns whose names begin with `fold`, or otherwise the column `split`.

    The test clips are those with the value `test`, or `val` if there are none.
    """
    names = sorted(name for name in columns if name.startswith("fold")) or [n for n in ("split",) if n in columns]
    out = {}
    for name in names:
        values = columns[name]
        tested = next((split for split in _OTHER_TESTS if (values == split).any()), "test")
        out[name] = np.where(values == "train", "train", np.where(values == tested, "test", ""))
    return {name: part for name, part in out.items() if (part == "test").any()}
