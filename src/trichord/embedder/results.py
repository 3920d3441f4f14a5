"""Figures of one model, as its folder keeps them and its card shows them: from its study, or from `trichord evaluate --out`.

A figure is a plain object: `benchmark`, `title`, `protocol` (a paragraph), `kind`, `of` (direction, task), `measure`, `value`,
`low` and `high` (95 % interval over the queries, or null), `chance`, `num` (queries), `gallery`, `unit`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.retrieval import QueryRanks
from trichord.evaluation.statistics import recall_interval
from trichord.report.reading import read_study
from trichord.study.evaluate import PER_QUERY, RESULTS
from trichord.study.files import is_there, read_arrays, read_json

Figure = dict[str, Any]
TEXTS, NUMBERS = ("benchmark", "title", "protocol", "kind", "of", "measure", "unit"), ("value", "num")
_RECALLS = {"r1": ("R@1", 1), "r5": ("R@5", 5), "r10": ("R@10", 10)}
_MEND = "evaluate again with --out"


def is_figure(entry: object) -> bool:
    """Whether an entry of a file has all that a card shows."""
    if not isinstance(entry, dict):
        return False
    optional = [entry.get(name) for name in ("low", "high", "chance", "gallery")]
    return (
        all(isinstance(entry.get(name), str) for name in TEXTS)
        and all(isinstance(entry.get(name), int | float) for name in NUMBERS)
        and all(value is None or isinstance(value, int | float) for value in optional)
    )


def figures_of_study(model_folder: Path) -> list[Figure]:
    """Figures that the study kept of the run whose last stage is this folder; [] where it is of no study, or not evaluated.

    Raises TrichordError when the study's files are damaged.
    """
    root = model_folder.resolve().parent.parent
    if not is_there(root / "study.json"):
        return []
    study = read_study(root)
    runs = [run for run in study.done if run.stages[-1] == model_folder.resolve().name]
    told = {str(b["name"]): b for b in study.benchmarks}
    figures: list[Figure] = []
    for run in runs[:1]:
        for row in run.results:
            about = told.get(row["benchmark"], {})
            ranks = study.ranks(run, row["benchmark"], row["direction"])
            figures += _retrieval(row, str(about.get("title", "")), str(about.get("protocol", "")), ranks)
    return figures


def figures_of_evaluation(folder: Path) -> list[Figure]:
    """Figures of a folder that `trichord evaluate --out` wrote. Raises TrichordError when it is none, or damaged."""
    path = folder / RESULTS if folder.is_dir() else folder
    benchmarks = read_json(path, mend=_MEND).get("benchmarks")
    arrays = read_arrays(path.with_name(PER_QUERY), mend=_MEND) if is_there(path.with_name(PER_QUERY)) else {}
    figures: list[Figure] = []
    try:
        for done in benchmarks or []:
            title, protocol, kind = done["title"], done["paragraph"], done["kind"]
            rows = done.get("results") or []
            for row in rows:
                head = f"{row['benchmark']}/{row['direction']}"
                figures += _retrieval(row, title, protocol, _ranks(arrays, head), kind)
            if not rows:
                figures += [_plain(row, title, protocol, kind) for row in done["rows"]]
    except (KeyError, TypeError, ValueError) as error:
        raise TrichordError(
            f"{path}: its benchmarks are not whole ({type(error).__name__}: {error}); {_MEND}"
        ) from None
    if not figures or not all(map(is_figure, figures)):
        raise TrichordError(f"{path}: holds no figures of a benchmark; {_MEND}")
    return figures


def _plain(row: dict[str, Any], title: str, protocol: str, kind: str) -> Figure:
    return {
        "benchmark": row["protocol"], "title": title, "protocol": protocol, "kind": kind, "of": row["of"],
        "measure": row["measure"], "value": row["value"], "low": None, "high": None, "chance": row["chance"],
        "num": row["num"], "gallery": None, "unit": row["unit"],
    }  # fmt: skip


def _ranks(arrays: dict[str, np.ndarray], head: str) -> QueryRanks | None:
    parts = [arrays.get(f"{head}/{part}") for part in ("clip", "greater", "equal", "num_gallery")]
    if any(part is None for part in parts):
        return None
    clip, greater, equal, num_gallery = parts
    assert num_gallery is not None and clip is not None and greater is not None and equal is not None
    return QueryRanks(clip, greater, equal, int(num_gallery), arrays.get(f"{head}/truths"))


def _retrieval(
    row: dict[str, Any], title: str, protocol: str, ranks: QueryRanks | None, kind: str = "retrieval"
) -> list[Figure]:
    """The recalls and the median rank of one direction; each recall with its interval where the ranks are there."""
    common = {
        "benchmark": row["benchmark"], "title": title or row["benchmark"], "protocol": protocol, "kind": kind,
        "of": f"{row['direction']}, dual softmax" if row.get("dual_softmax") else row["direction"],
        "num": int(row["num_queries"]), "gallery": int(row["num_gallery"]),
    }  # fmt: skip
    figures = []
    for key, (measure, k) in _RECALLS.items():
        low = high = None
        if ranks is not None:
            hits = ranks.hits(k)
            if row["missing"] == "miss":
                hits = np.concatenate([hits, np.zeros(int(row["num_missing"]))])
            found = recall_interval(hits) if len(hits) > 1 else None
            low, high = (None, None) if found is None else (found.low, found.high)
        figures.append(
            {
                **common, "measure": measure, "value": float(row[key]), "low": low, "high": high,
                "chance": float(row[f"chance_{key}"]), "unit": "%",
            }
        )  # fmt: skip
    rank = {"measure": "MedR", "value": float(row["medr"]), "low": None, "high": None, "chance": None, "unit": "rank"}
    return [*figures, {**common, **rank}]
