"""The systems of evaluation folders: the orders of a study with their seeds, or models that were scored alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from trichord.errors import TrichordError, one_line
from trichord.modality import Order
from trichord.report.document import folded, unused
from trichord.study.evaluation_files import PER_QUERY, RESULTS
from trichord.study.figures import System
from trichord.study.files import check_sha256, damaged, is_there, read_json
from trichord.study.scores import AGAIN, Scores, read_scores, scores_of

Folder = Literal["study", "evaluation"]


def kind_of(path: Path) -> Folder:
    """Return whether a folder is that of a study or of an evaluation.

    Raises:
        TrichordError: It is neither.
    """
    if is_there(path / "study.json"):
        return "study"
    if is_there(path / RESULTS):
        return "evaluation"
    raise TrichordError(
        f"{path}: contains neither a study (study.json) nor an evaluation ({RESULTS}); give the --out folder of "
        "`trichord study` or `trichord evaluate`"
    )


def read_systems(folders: Sequence[Path]) -> tuple[System, ...]:
    """Return the systems of evaluation folders, in the given sequence.

    Raises:
        TrichordError: A folder cannot be read, is given twice, or contains no figures.
    """
    read: list[System] = []
    known: dict[Path, Path] = {}
    for path in map(Path, folders):
        if (same := path.resolve()) in known:
            raise TrichordError(f"{path}: is the same folder as {known[same]}; give each folder once")
        known[same] = path
        read += _read_folder(path)
    names = _distinct(read)
    return tuple(replace(system, name=name) for name, system in zip(names, read, strict=True))


def _read_folder(path: Path) -> list[System]:
    content = read_json(path / RESULTS, mend=AGAIN)
    if "models" not in content:
        scores = scores_of(path / RESULTS, content)
        if not scores.benchmarks:
            raise damaged(path / RESULTS, "it has no benchmark", AGAIN)
        return [System(scores.subject, None, path, (0,), (scores,))]
    models, left_out = (_entries(content.get(part, [])) for part in ("models", "left_out"))
    if models is None or left_out is None:
        raise damaged(path / RESULTS, "its list of models is invalid", AGAIN)
    by_order: dict[Order, list[_Entry]] = {}
    for model in models:
        if model.folder is not None:
            by_order.setdefault(model.order, []).append(model)
    sentences = tuple(
        f"{model.order} seed {model.seed} is left out: {model.note or 'it was not scored'}"
        for model in [*left_out, *models]
        if model.folder is None
    )
    study = content.get("study")
    systems = [_order(path, order, some, study if isinstance(study, str) else "") for order, some in by_order.items()]
    if not (scored := [system for system in systems if system.scores]):
        raise TrichordError(f"{path}: no model to report ({'; '.join(sentences[:3]) or 'none was scored'}); {AGAIN}")
    return [replace(scored[0], left_out=tuple(dict.fromkeys(sentences))), *scored[1:]]


@dataclass(frozen=True)
class _Entry:
    """A model that the evaluation of a study lists. `folder` is None for a model that was not scored."""

    order: Order
    seed: int
    folder: str | None
    note: str
    first_stage: str
    files: Mapping[str, Any]


def _entries(entries: object) -> list[_Entry] | None:
    """Read a list of models. Return None if it is not a list or has an invalid entry."""
    read = list(map(_entry, entries)) if isinstance(entries, list) else [None]
    return None if None in read else [entry for entry in read if entry is not None]


def _entry(entry: object) -> _Entry | None:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(part, ""), str) for part in ("folder", "note")):
        return None
    seed, files = entry.get("seed"), entry.get("files")
    if not isinstance(seed, int) or isinstance(seed, bool):
        return None
    try:
        order = Order.parse(entry.get("order", ""))
    except TrichordError:
        return None
    first_stage = str(entry.get("first_stage") or "")
    folder, note = entry.get("folder"), folded(entry.get("note", ""))
    return _Entry(order, seed, folder, note, first_stage, files if isinstance(files, dict) else {})


def _order(path: Path, order: Order, models: list[_Entry], study: str) -> System:
    """Return the models of an order, without those that were scored on no benchmark."""
    models = sorted(models, key=lambda model: model.seed)
    if len({model.seed for model in models}) < len(models):
        raise damaged(path / RESULTS, f"it lists a seed of {order} twice", AGAIN)
    read = [(model, _scores_of(path, model)) for model in models]
    kept = [(model, scores) for model, scores in read if scores.benchmarks]
    return System(
        str(order), order, path, tuple(model.seed for model, _ in kept), tuple(scores for _, scores in kept),
        tuple(model.first_stage for model, _ in kept), tuple(dict.fromkeys(filter(None, (m.note for m in models)))), (), study,
    )  # fmt: skip


def _scores_of(path: Path, model: _Entry) -> Scores:
    folder = _inside(path, model.folder or "")
    for name in (RESULTS, PER_QUERY):
        check_sha256(folder / name, model.files.get(name), mend=AGAIN)
    return read_scores(folder)


def _inside(path: Path, folder: str) -> Path:
    parts = Path(folder).parts
    if not parts or Path(folder).is_absolute() or ".." in parts or "\0" in folder:
        raise damaged(path / RESULTS, f"'{one_line(folder)[:80]}' is not a folder in it", AGAIN)
    return path / folder


def _distinct(systems: Sequence[System]) -> list[str]:
    """Return a short, unique name for each system.

    The name of a model consists of as few of the last parts of its path as possible. If this is ambiguous, the folder of the
    evaluation is added, and then a number.
    """

    def short(system: System, num_parts: int) -> str:
        if system.order is not None:
            return system.name
        parts = [part for part in re.split(r"[/\\]", system.name) if part]
        return folded("/".join(parts[-num_parts:]))[:80] or "model"

    most = max(len(re.split(r"[/\\]", system.name)) for system in systems)
    names = [short(system, 1) for system in systems]
    for num_parts in range(2, most + 1):
        names = [
            short(system, num_parts) if names.count(name) > 1 else name
            for name, system in zip(names, systems, strict=True)
        ]
    names = [
        f"{name} ({folded(system.folder.resolve().name)})" if names.count(name) > 1 else name
        for name, system in zip(names, systems, strict=True)
    ]
    distinct: dict[str, None] = {}
    for name in names:
        distinct[unused(name, distinct)] = None
    return list(distinct)
