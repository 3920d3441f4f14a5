"""Figures of one model, from its study or from `trichord evaluate --out`, as saved in its folder and shown in its card.

A figure is a dictionary:

| key | meaning |
|---|---|
| `benchmark`, `title`, `protocol`, `kind` | name, heading, description and kind of task of the benchmark |
| `clips`, `collection`, `split` | clips that were scored: COLLECTION/SPLIT of a store, or a file of embeddings; '' if unknown |
| `of`, `measure`, `unit`, `value` | direction, modality or task with its fusion; name, unit and value of the measure |
| `low`, `high` | 95 % interval over queries, clips or videos, or null |
| `chance`, `num`, `gallery` | chance level, or null; number of units; number of items that were ranked, or null |
| `how` | all choices that affect the figure, by name: fusion, windows, dual softmax, missing clips, ... |

Folders of earlier versions do not have `clips`, `collection`, `split` and `how`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trichord.errors import TrichordError
from trichord.evaluation.ranks import MEDIAN_RANK, RECALLS
from trichord.evaluation.statistics import Interval, median_rank_interval, recall_interval
from trichord.report.reading import read_study
from trichord.study.evaluation_files import RESULTS
from trichord.study.files import is_there, read_json
from trichord.study.ranks import read_ranks
from trichord.tasks.retrieval.measure import FUSIONS, QueryRanks

Figure = dict[str, Any]
TEXTS, NUMBERS = ("benchmark", "title", "protocol", "kind", "of", "measure", "unit"), ("value", "num")
PLACES = ("clips", "collection", "split")
LABELLED = ("classification", "probe", "clustering")
_NOT_SHOWN = "MeanR"  # a measure of retrieval that is omitted in favour of the median rank
_MEND = "evaluate again with --out FOLDER"


def is_figure(entry: object) -> bool:
    """Return whether an entry of a file has all fields that a card shows."""
    if not isinstance(entry, dict):
        return False
    optional = [entry.get(name) for name in ("low", "high", "chance", "gallery")]
    how = entry.get("how", {})
    return (
        all(isinstance(entry.get(name), str) for name in TEXTS)
        and all(isinstance(entry.get(name), int | float) for name in NUMBERS)
        and all(value is None or isinstance(value, int | float) for value in optional)
        and all(isinstance(entry.get(name, ""), str) for name in PLACES)
        and isinstance(how, dict)
        and all(isinstance(name, str) and isinstance(value, str | int | float) for name, value in how.items())
    )


def figures_of_study(model_folder: Path) -> list[Figure]:
    """Return the figures that a study saved for the run whose last stage is this folder; [] if there is no study or evaluation.

    Raises:
        TrichordError: The files of the study are damaged.
    """
    root = model_folder.resolve().parent.parent
    if not is_there(root / "study.json"):
        return []
    study = read_study(root)
    runs = [run for run in study.done if run.stages[-1] == model_folder.resolve().name]
    descriptions = {str(b["name"]): b for b in study.benchmarks}
    figures: list[Figure] = []
    for run in runs[:1]:
        for row in run.results:
            description = descriptions.get(row["benchmark"], {})
            figures += _of_study(
                row, description, read_ranks(run.path.with_suffix(".npz"), row["benchmark"], row["direction"])
            )
    return figures


def figures_of_evaluation(folder: Path) -> list[Figure]:
    """Return the figures of a folder that `trichord evaluate --out` wrote.

    Raises:
        TrichordError: The folder is not such a folder, contains several models, or is damaged.
    """
    path = folder / RESULTS if folder.is_dir() else folder
    content = read_json(path, mend=_MEND)
    if "models" in content:
        example = next(
            (f"/{m['folder']}" for m in _list(content["models"]) if isinstance(m, dict) and "folder" in m), ""
        )
        raise TrichordError(
            f"{folder}: the folder has figures of several models; give that of one model, e.g. {folder}{example}"
        )
    figures: list[Figure] = []
    try:
        for benchmark in content.get("benchmarks") or []:
            results = {row["direction"]: row for row in benchmark.get("results") or []}
            for row in benchmark["rows"]:
                if benchmark["kind"] != "retrieval" or row["measure"] != _NOT_SHOWN:
                    figures.append(
                        _of_row(row, benchmark, results.get(row["of"].partition(",")[0]), _place(content, benchmark))
                    )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TrichordError(
            f"{path}: the entries of the benchmarks are incomplete ({type(error).__name__}: {error}); {_MEND}"
        ) from None
    if not figures or not all(map(is_figure, figures)):
        raise TrichordError(f"{path}: the file does not contain figures of a benchmark; {_MEND}")
    return figures


def _place(content: dict[str, Any], benchmark: dict[str, Any]) -> dict[str, str]:
    """Return `clips`, `collection` and `split`; only the name of a file is used, because its folder is specific to this machine."""
    clips = str(benchmark["clips"] if "clips" in benchmark else benchmark["options"].get("on") or "")
    collection, _, split = clips.partition("/")
    if content.get("store") is None and isinstance(content.get("subject"), str):
        file = f"file {Path(content['subject']).name}"
        clips = f"{file}, as {clips}" if clips else file
    return {"clips": clips, "collection": collection, "split": split}


def _of_row(
    row: dict[str, Any], benchmark: dict[str, Any], result: dict[str, Any] | None, place: dict[str, str]
) -> Figure:
    """Return the figure of a row of `results.json`; `result` is the entry of its direction with gallery and policies, if any."""
    return {
        "benchmark": row["protocol"], "title": benchmark["title"], "protocol": benchmark["paragraph"],
        "kind": benchmark["kind"], **place,
        "of": row["of"], "measure": row["measure"], "unit": row["unit"], "value": row["value"], "low": row.get("low"),
        "high": row.get("high"), "chance": row["chance"], "num": row["num"],
        "gallery": None if result is None else int(result["num_gallery"]),
        "how": _how(row["of"], benchmark["protocol"], benchmark["kind"], benchmark["options"], result or {}),
    }  # fmt: skip


def _how(of: str, protocol: str, kind: str, options: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Return the choices that affect the figure, without folders of this machine."""
    choices: dict[str, Any] = {"protocol": protocol}
    if kind not in LABELLED:
        choices["direction"] = of.partition(",")[0]
    parts = of.replace(": ", ", ").split(", ")
    fusion = result.get("fusion") or next((part for part in parts if part in FUSIONS), options.get("fusion", "auto"))
    if kind not in LABELLED or fusion != "auto":
        choices["fusion"] = fusion
    if kind == "retrieval" and (scale := options.get("dual_softmax")):
        choices["dual_softmax"] = scale
    if isinstance(windows := options.get("windows"), dict):
        choices["windows"] = f"{windows['count']} of {windows['length_s']:g} s ({windows['pool']})"
    policy = result.get("missing") or options.get("missing", "auto")
    choices["missing"] = "policy of the protocol" if policy == "auto" else policy
    if "ties" in result:
        choices["ties"] = result["ties"]
    if kind == "retrieval" and (chosen := options.get("gallery")):
        choices["gallery_list"] = chosen
    if kind == "localization":
        choices["audio_window_s"] = options.get("audio_window_s", 8.0)
    if kind in LABELLED and options.get("labels"):
        choices["labels"] = Path(options["labels"]).name
    if kind == "classification" and options.get("templates"):
        choices["templates"] = " | ".join(options["templates"])
    if kind == "probe":
        choices["seed"] = options.get("seed", 0)
    if kind in ("classification", "localization") and (encoder := options.get("text_encoder")):
        home, colon, name = encoder.rpartition(":")
        choices["text_encoder"] = home + colon + (Path(name).name if Path(name).is_absolute() else name)
    return choices


def _of_study(row: dict[str, Any], description: dict[str, Any], ranks: QueryRanks | None) -> list[Figure]:
    """Return the recalls and the median rank of one direction, with their intervals if the ranks were saved."""
    collection, split = str(description.get("collection", "")), str(description.get("split", ""))
    how = {"protocol": row["benchmark"], "direction": row["direction"], "fusion": row.get("fusion", "auto")}
    how |= {"missing": row["missing"], "ties": row.get("ties", "expected")}
    common = {
        "benchmark": row["benchmark"], "title": str(description.get("title") or row["benchmark"]),
        "protocol": str(description.get("protocol", "")), "kind": "retrieval", "clips": f"{collection}/{split}".strip("/"),
        "collection": collection, "split": split,
        "of": ", ".join([row["direction"]] + [row["fusion"]] * ("fusion" in row)),
        "num": int(row["num_queries"]), "gallery": int(row["num_gallery"]), "how": how,
    }  # fmt: skip
    num_missed = int(row["num_missing"]) if row["missing"] == "miss" else 0
    values = ranks.each(num_missed) if ranks is not None and len(ranks.clip) + num_missed > 1 else {}
    figures = [
        {
            **common, "measure": measure, "unit": "%", "value": float(row[key]),
            **_interval(recall_interval(values[measure]) if values else None), "chance": float(row[f"chance_{key}"]),
        }
        for measure, key, _ in RECALLS
    ]  # fmt: skip
    interval_of_rank = median_rank_interval(values[MEDIAN_RANK]) if values else None
    rank = {
        "measure": MEDIAN_RANK,
        "unit": "rank",
        "value": float(row["medr"]),
        **_interval(interval_of_rank),
        "chance": None,
    }
    return [*figures, {**common, **rank}]


def _interval(interval: Interval | None) -> dict[str, float | None]:
    return {"low": None, "high": None} if interval is None else {"low": interval.low, "high": interval.high}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
