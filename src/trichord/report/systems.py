"""Whose figures the report shows: a study's orders with their seeds, or what was scored alone; each under a name of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from trichord.errors import TrichordError, one_line
from trichord.modality import Order
from trichord.report.document import folded
from trichord.study.evaluation_files import PER_QUERY, RESULTS
from trichord.study.figures import System
from trichord.study.files import check_sha256, is_there, read_json
from trichord.study.scores import AGAIN, Scores, fault, read_scores, scores_of

Folder = Literal["study", "evaluation"]


def kind_of(path: Path) -> Folder:
    """What lies in a folder. Raises TrichordError where it is neither a study nor an evaluation."""
    if is_there(path / "study.json"):
        return "study"
    if is_there(path / RESULTS):
        return "evaluation"
    raise TrichordError(
        f"{path}: no study here (no study.json) and no evaluation (no {RESULTS}); give the --out folder of `trichord study` or of "
        "`trichord evaluate`"
    )


def read_systems(folders: Sequence[Path]) -> tuple[System, ...]:
    """The systems of evaluation folders, in the order given. Raises TrichordError where a folder cannot be read, is given
    twice, or holds no figure."""
    read: list[System] = []
    known: dict[Path, Path] = {}
    for path in map(Path, folders):
        if (same := path.resolve()) in known:
            raise TrichordError(f"{path}: is {known[same]} once more; give each folder once")
        known[same] = path
        read += _read_folder(path)
    names = _distinct([(s.order, s.name, s.folder) for s in read])
    return tuple(replace(system, name=name) for name, system in zip(names, read, strict=True))


def _read_folder(path: Path) -> list[System]:
    content = read_json(path / RESULTS, mend=AGAIN)
    if "models" not in content:
        scores = scores_of(path, content)
        if not scores.benchmarks:
            raise fault(path, "it has no benchmark")
        return [System(scores.subject, "", path, (0,), (scores,))]
    models, lost = content["models"], content.get("left_out", [])
    if not all(isinstance(some, list) and all(map(_is_run, some)) for some in (models, lost)):
        raise fault(path, "its models do not tell order and seed")
    by_order: dict[str, list[dict[str, Any]]] = {}
    for model in models:
        if "folder" in model:
            by_order.setdefault(Order.parse(model["order"]).code, []).append(model)
    told = tuple(
        f"{Order.parse(run['order'])} seed {run['seed']} is left out: {folded(run.get('note', '')) or 'it was not scored'}"
        for run in [*lost, *models]
        if "folder" not in run
    )
    study = content.get("study")
    found = [_order(path, order, some, study if isinstance(study, str) else "") for order, some in by_order.items()]
    if not (known := [system for system in found if system.scores]):
        raise TrichordError(f"{path}: no model to report ({'; '.join(told[:3]) or 'none was scored'}); {AGAIN}")
    return [replace(known[0], left_out=tuple(dict.fromkeys(told))), *known[1:]]


def _order(path: Path, order: str, models: list[dict[str, Any]], study: str) -> System:
    """The models of one order; those that were scored on nothing are left out."""
    models = sorted(models, key=lambda model: model["seed"])
    if len({model["seed"] for model in models}) < len(models):
        raise fault(path, f"it has a seed of {Order.parse(order)} twice")
    read = [(model, _model(path, model)) for model in models]
    kept = [(model, scores) for model, scores in read if scores.benchmarks]
    notes = tuple(dict.fromkeys(folded(note) for model in models if (note := model.get("note"))))
    firsts = tuple(str(model.get("first_stage") or "") for model, _ in kept)
    return System(
        str(Order.parse(order)), order, path, tuple(model["seed"] for model, _ in kept),
        tuple(scores for _, scores in kept), firsts, notes, (), study,
    )  # fmt: skip


def _model(path: Path, model: dict[str, Any]) -> Scores:
    folder, files = _inside(path, model["folder"]), model.get("files")
    if isinstance(files, dict):
        for name in (RESULTS, PER_QUERY):
            check_sha256(folder / name, files.get(name), mend=AGAIN)
    return read_scores(folder)


def _is_run(run: object) -> bool:
    if not isinstance(run, dict) or not all(isinstance(run.get(part, ""), str) for part in ("order", "folder", "note")):
        return False
    if not isinstance(run.get("seed"), int) or isinstance(run["seed"], bool):
        return False
    try:
        Order.parse(run.get("order", ""))
    except TrichordError:
        return False
    return True


def _inside(path: Path, folder: str) -> Path:
    parts = Path(folder).parts
    if not parts or Path(folder).is_absolute() or ".." in parts or "\0" in folder:
        raise fault(path, f"'{one_line(folder)[:80]}' is no folder in it")
    return path / folder


def _distinct(named: Sequence[tuple[str, str, Path]]) -> list[str]:
    """Short names of (order, subject or printed order, folder), no two alike: as many last parts of a subject's path as it
    takes; then with the folder; then numbered."""

    def short(order: str, name: str, parts: int) -> str:
        if order:
            return name
        pieces = [piece for piece in re.split(r"[/\\]", name) if piece]
        return folded("/".join(pieces[-parts:]))[:80] or "model"

    most = max(len(re.split(r"[/\\]", name)) for _, name, _ in named)
    names = [short(order, name, 1) for order, name, _ in named]
    for parts in range(2, most + 1):
        names = [
            short(o, n, parts) if names.count(own) > 1 else own for own, (o, n, _) in zip(names, named, strict=True)
        ]
    names = [
        f"{own} ({folded(folder.resolve().name)})" if names.count(own) > 1 else own
        for own, (_, _, folder) in zip(names, named, strict=True)
    ]
    out: list[str] = []
    for own in names:
        number, name = 1, own
        while name in out:
            number += 1
            name = f"{own} ({number})"
        out.append(name)
    return out
