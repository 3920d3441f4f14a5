"""The figures of a model for its folder and its card, from its study or from `trichord evaluate --out`.

A figure is a JSON object:

| key | meaning |
|---|---|
| `benchmark`, `title`, `protocol`, `kind` | name, title, description and kind of task of the benchmark |
| `clips`, `collection`, `split` | the clips: COLLECTION/SPLIT of a store, or a file of embeddings; '' if not known |
| `of`, `measure`, `unit`, `value` | direction, modality or task with its fusion; name, unit and value of the measure |
| `low`, `high` | 95 % interval over queries, clips or videos, or null |
| `chance`, `num`, `gallery` | chance, or null; number of units; number of ranked items, or null |
| `how` | all choices that affect the figure, by name: fusion, windows, dual softmax, missing clips, ... |

Folders of earlier versions lack `clips`, `collection`, `split` and `how`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.report.reading import read_study
from trichord.study.evaluation_files import RESULTS
from trichord.study.files import damaged, is_there, read_json
from trichord.study.scores import AGAIN, Measured, Scored, Scores, scores_of
from trichord.tasks.protocol import interval_over_units
from trichord.tasks.retrieval.measure import FUSIONS

Figure = dict[str, Any]
TEXTS, NUMBERS = ("benchmark", "title", "protocol", "kind", "of", "measure", "unit"), ("value", "num")
PLACES = ("clips", "collection", "split")
LABELLED = ("classification", "probe", "clustering")
_MEND = "evaluate again with --out FOLDER"
_NOT_SHOWN = "MeanR"  # the card has the median rank


def is_figure(entry: object) -> bool:
    """Return whether an entry of a file has all fields of a figure.

    Example:
        >>> figure = dict(benchmark="msrvtt", title="MSR-VTT", protocol="", kind="retrieval", of="t2v", measure="R@10",
        ...               unit="%", value=41.5, low=38.4, high=44.6, chance=1.0, num=968, gallery=968)
        >>> is_figure(figure), is_figure({"benchmark": "msrvtt"})
        (True, False)
    """
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
    """Return the figures of the run of a study whose last stage is this folder; [] if it has none.

    Raises:
        TrichordError: A file of the study is damaged.

    Example:
        >>> figures_of_study(Path("my_run/stages/avt"))  # a run that is not part of a study
        []
    """
    root = model_folder.resolve().parent.parent
    if not is_there(root / "study.json"):
        return []
    study = read_study(root)
    runs = [run for run in study.done if run.stages[-1] == model_folder.resolve().name]
    return [figure for run in runs[:1] for figure in _figures_of(study.scores(run), intervals=True)]


def _figures_of(scores: Scores, *, intervals: bool = False) -> list[Figure]:
    """Return the figures of an evaluation. With `intervals`, those that were not saved are computed."""
    return [
        _of_row(scores, scored, _with_interval(scores, row) if intervals else row)
        for scored in scores.benchmarks
        for row in scored.rows
        if scored.kind != "retrieval" or row.measure != _NOT_SHOWN
    ]


def _with_interval(scores: Scores, row: Measured) -> Measured:
    if row.low is not None or (ends := interval_over_units(scores.each(row), row.measure, row.unit)) is None:
        return row
    return replace(row, low=ends.low, high=ends.high)


def figures_of_evaluation(folder: Path) -> list[Figure]:
    """Return the figures of a folder that `trichord evaluate --out` wrote.

    Raises:
        TrichordError: The folder cannot be read, or contains the figures of several models.

    Example:
        >>> from trichord.study.evaluate import evaluate
        >>> from trichord.study.evaluation import write_evaluation
        >>> write_evaluation(evaluate(Path("my_run"), "my_store", ["retrieval:my_videos/test"]), Path("my_results"))
        >>> figure = figures_of_evaluation(Path("my_results"))[0]
        >>> figure["of"], figure["measure"], figure["num"]
        ('t2v, sum', 'R@1', 8)
    """
    path = folder / RESULTS if folder.is_dir() else folder
    content = read_json(path, mend=_MEND)
    if isinstance(models := content.get("models"), list):
        example = next((f"/{m['folder']}" for m in models if isinstance(m, dict) and "folder" in m), "")
        raise TrichordError(
            f"{folder}: contains the figures of several models; give the folder of one of them, such as {folder}{example}"
        )
    scores = scores_of(path, content)
    try:
        figures = _figures_of(scores)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(path, f"the options or results of a benchmark are incomplete: {one_line(error)}", AGAIN) from None
    if not figures or not all(map(is_figure, figures)):
        raise TrichordError(f"{path}: contains no figures of a benchmark; {_MEND}")
    return figures


def _of_row(scores: Scores, scored: Scored, row: Measured) -> Figure:
    result = scored.result(row.of)
    return {
        "benchmark": scored.head, "title": scored.title, "protocol": scored.paragraph, "kind": scored.kind,
        **_place(scores, scored), "of": row.of, "measure": row.measure, "unit": row.unit, "value": row.value,
        "low": row.low, "high": row.high, "chance": row.chance, "num": row.num,
        "gallery": None if result is None else int(result["num_gallery"]),
        "how": _how(row.of, scored.protocol, scored.kind, scored.options, result or {}),
    }  # fmt: skip


def _place(scores: Scores, scored: Scored) -> dict[str, str]:
    """Return `clips`, `collection` and `split`. A file of embeddings is given by its name without its folder."""
    clips = scored.clips
    collection, _, split = clips.partition("/")
    if scores.store is None:
        file = f"file {Path(scores.subject).name}"
        clips = f"{file}, as {clips}" if clips else file
    return {"clips": clips, "collection": collection, "split": split}


def _how(scope: str, protocol: str, kind: str, options: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Return the choices that affect figures of this kind of task, without folders of this machine."""
    chosen_options: dict[str, Any] = {"protocol": protocol}
    if kind not in LABELLED:
        chosen_options["direction"] = scope.partition(",")[0]
    parts = scope.replace(": ", ", ").split(", ")
    fusion = result.get("fusion") or next((part for part in parts if part in FUSIONS), options.get("fusion", "auto"))
    if kind not in LABELLED or fusion != "auto":
        chosen_options["fusion"] = fusion
    if kind == "retrieval" and (scale := options.get("dual_softmax")):
        chosen_options["dual_softmax"] = scale
    if isinstance(windows := options.get("windows"), dict):
        chosen_options["windows"] = f"{windows['count']} of {windows['length_s']:g} s ({windows['pool']})"
    policy = result.get("missing") or options.get("missing", "auto")
    chosen_options["missing"] = "policy of the protocol" if policy == "auto" else policy
    if "ties" in result:
        chosen_options["ties"] = result["ties"]
    if kind == "retrieval" and (chosen := options.get("gallery")):
        chosen_options["gallery_list"] = chosen
    if kind == "localization":
        chosen_options["audio_window_s"] = options.get("audio_window_s", 8.0)
    if kind in LABELLED and options.get("labels"):
        chosen_options["labels"] = Path(options["labels"]).name
    if kind == "classification" and options.get("templates"):
        chosen_options["templates"] = " | ".join(options["templates"])
    if kind == "probe":
        chosen_options["seed"] = options.get("seed", 0)
    if kind in ("classification", "localization") and (encoder := options.get("text_encoder")):
        home, colon, name = encoder.rpartition(":")
        chosen_options["text_encoder"] = home + colon + (Path(name).name if Path(name).is_absolute() else name)
    return chosen_options
