"""Embedded clips with their labels and folds: what classification, probes and clustering score."""

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

FOLDER = "class"  # name of the labels that are the first folder of a video's name
_NO_LABELS = ("visual",)  # labels of clips that `Subject` adds
_OTHER_TESTS = ("test", "val")


@dataclass(frozen=True, eq=False)
class Labelled:
    """N clips with labels and folds.

    Attributes:
        embedded: The clips.
        labels: By labelling (N,) the class of each clip, '' where unknown.
        classes: By labelling all classes, in order; a class need not have a clip here.
        folds: By name (N,) `train`, `test` or ''; empty where nothing says what is tested.
        columns: Labels and folds by name (N,) as they were given, as a file of embeddings holds them.
        notes: For the reader.
    """

    embedded: Embedded
    labels: dict[str, np.ndarray]
    classes: dict[str, list[str]]
    folds: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)

    def tests(self) -> dict[str, np.ndarray]:
        """Return the indices of the test clips by fold; without folds, all clips under the name ''."""
        if not self.folds:
            return {"": np.arange(self.embedded.num_clips)}
        return {name: np.flatnonzero(part == "test") for name, part in self.folds.items()}

    def known_classes(self) -> dict[str, list[str]]:
        """Return the classes of the labellings that have a class without clips."""
        return {name: names for name, names in self.classes.items() if set(names) - set(self.labels[name].tolist())}


def usable(subject: Subject, modalities: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the given modalities that the subject embeds and its store has. Default: all except text."""
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
    """Return the clips that `options` name, with labels from `options.labels`, from the embeddings or from the names of the
    videos.

    Args:
        subject: What is evaluated.
        options: Which clips and labels.
        modalities: To embed at least.
        train: Whether clips to learn from are needed.

    Raises TrichordError when there are no labels, or none to learn from.
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
            what = "a split to test on" if chosen.split == "train" else "a split train to learn from"
            raise TrichordError(f"{subject.store.path}: {chosen.collection} has not {what}; give folds with --labels")
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
            f"{embedded.source}: has no labels; give a table with --labels FILE, or name videos CLASS/VIDEO"
        )
    notes = [
        f"{lost:,} of {embedded.num_clips:,} clips have no {name} and are left out"
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
    """Return the first folder of the name of each video (after a folder of a split), and the folders of all videos of the
    collection. Both are empty if a clip has no folder, or all have the same."""
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
    """Return the columns whose names begin with `fold`, otherwise `split`. The test clips are those marked `test`, or `val` if
    none is."""
    names = sorted(name for name in columns if name.startswith("fold")) or [n for n in ("split",) if n in columns]
    out = {}
    for name in names:
        values = columns[name]
        tested = next((split for split in _OTHER_TESTS if (values == split).any()), "test")
        out[name] = np.where(values == "train", "train", np.where(values == tested, "test", ""))
    return {name: part for name, part in out.items() if (part == "test").any()}
