"""The figures of a model in its card: as the `model-index` of the hub, as a table, and their limits.

In the `model-index`, a task and data set have a `config` for each benchmark and each direction or modality. Its `args` are all
choices of the evaluation. The `args` of a metric are its number of units, chance and the 95 % interval. Values are in percent,
except for ranks and dimensionless numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from trichord.embedder.results import LABELLED, Figure
from trichord.errors import TrichordError
from trichord.modality import Direction
from trichord.report.document import folded
from trichord.report.markdown import plain
from trichord.tasks.benchmarks import PUBLISHED

_METRICS = {
    "R@1": ("recall_at_1", "Recall@1"),
    "R@5": ("recall_at_5", "Recall@5"),
    "R@10": ("recall_at_10", "Recall@10"),
    "MedR": ("median_rank", "Median rank"),
}
_TASKS = {
    "localization": ("step-localization", "Steps in time"),
    "classification": ("zero-shot-classification", "Zero-shot classification"),
    "probe": ("classification", "Classification by a probe"),
    "clustering": ("clustering", "Clustering"),
}
_DATA_SETS = {
    "youcook2": ("youcook2", PUBLISHED["youcook2"].title),
    "msrvtt": ("msr-vtt", PUBLISHED["msrvtt"].title),
    "msrvtt-full": ("msr-vtt", PUBLISHED["msrvtt"].title),
    "lsmdc": ("lsmdc", "LSMDC"),
    "crosstask": ("crosstask", "CrossTask"),
    "mining-youtube": ("mining-youtube", "Mining YouTube"),
    "howto100m": ("howto100m", "HowTo100M"),
}
_POLICIES = {"drop": "left out", "miss": "counted as errors"}


def evaluation_result(figure: Figure) -> EvalResult:
    """Return a figure in the form of the hub.

    Example:
        >>> figure = dict(benchmark="msrvtt", title="MSR-VTT", protocol="", kind="retrieval", of="t2v", measure="R@10",
        ...               unit="%", value=41.5, low=38.4, high=44.6, chance=1.0, num=968, gallery=968)
        >>> result = evaluation_result(figure)
        >>> result.task_type, result.dataset_name, result.metric_type, result.metric_value
        ('text-to-video-retrieval', 'MSR-VTT', 'recall_at_10', 41.5)
    """
    scope, how = folded(figure["of"]), figure.get("how", {})
    task, task_name = _task(figure["kind"], scope)
    data_set, name = _data_set(figure)
    metric, metric_name = _METRICS.get(figure["measure"], (slug(figure["measure"], "_"), folded(figure["measure"])))
    arguments = {
        "protocol": folded(figure["benchmark"]),
        **how,
        "clips": figure.get("clips"),
        "gallery": figure["gallery"],
    }
    numbers = {"num": figure["num"], "chance": figure["chance"], "low_95": figure["low"], "high_95": figure["high"]}
    return EvalResult(
        task_type=task,
        task_name=task_name,
        dataset_type=data_set,
        dataset_name=name,
        dataset_config=f"{_asked(figure)}, {scope}",
        dataset_split=folded(figure.get("split", "")) or None,
        dataset_args={key: _plain(value) for key, value in arguments.items() if value not in (None, "")},
        metric_type=metric,
        metric_name=metric_name,
        metric_value=round(float(figure["value"]), 4),
        metric_args={key: round(value, 4) for key, value in numbers.items() if value is not None},
    )


def _asked(figure: Figure) -> str:
    """Return the benchmark with its protocol, as `--benchmark` accepts it."""
    name = folded(figure["benchmark"])
    protocol = folded(str(figure.get("how", {}).get("protocol", name)))
    return name if name.partition(":")[0] == protocol else f"{protocol}:{name}"


def slug(text: str, joint: str = "-") -> str:
    """Return the lowercase letters and digits of a text, with `joint` in place of other characters: `r-1-mean` for `R@1, mean`.

    Example:
        >>> slug("R@1, mean"), slug("R@1, mean", "_")
        ('r-1-mean', 'r_1_mean')
    """
    return joint.join(re.findall(r"[a-z0-9]+", text.lower()))


def _plain(value: str | int | float) -> str | int | float:
    return folded(value) if isinstance(value, str) else value


def _task(kind: str, scope: str) -> tuple[str, str]:
    """Return type and name of the task: `text-to-video-audio-retrieval`, `Retrieval, text to video and audio` for `t2va`."""
    if kind != "retrieval":
        return _TASKS.get(kind, (slug(kind) or "other", folded(kind)))
    try:
        direction = Direction.parse(scope.partition(",")[0])
    except TrichordError:
        return "cross-modal-retrieval", "Retrieval"
    sides = (direction.query, direction.target)
    name = " to ".join(" and ".join(side) for side in sides)
    return f"{'-to-'.join('-'.join(side) for side in sides)}-retrieval", f"Retrieval, {name}"


def _data_set(figure: Figure) -> tuple[str, str]:
    """Return identifier and name of the data set. The name of an unknown one is that of its collection or file."""
    known = figure.get("collection") or figure.get("clips") or figure["benchmark"].partition("/")[0]
    if known in _DATA_SETS:
        return _DATA_SETS[known]
    name = folded(known.removeprefix("file "))
    return slug(Path(name).stem if known.startswith("file ") else name) or "other", name


def scored(figure: Figure) -> str:
    """Return the choices that affect a figure and are not part of its `of`.

    Example:
        >>> scored({"of": "t2va", "how": {"fusion": "sum", "missing": "drop"}})
        'fusion sum, missing clips left out'
    """
    how, scope = figure.get("how", {}), figure["of"]
    parts = []
    if "fusion" in how and str(how["fusion"]) not in scope:
        parts.append(f"fusion {how['fusion']}")
    if "dual_softmax" in how and "dual softmax" not in scope:
        parts.append(f"dual softmax {how['dual_softmax']:g}")
    if "windows" in how and "window" not in scope:
        parts.append(f"windows: {how['windows']}")
    if "missing" in how:
        parts.append(f"missing clips {_POLICIES.get(how['missing'], how['missing'])}")
    for key, form in (
        ("gallery_list", "gallery by a list of {:,} clips"),
        ("audio_window_s", "sound of {:g} s"),
        ("labels", "labels {}"),
        ("templates", "templates {}"),
        ("text_encoder", "text encoder {}"),
        ("seed", "seed {}"),
    ):
        if key in how:
            parts.append(form.format(how[key]))
    return ", ".join(parts)


def results_section(figures: Sequence[Figure]) -> str:
    """Return the table of the figures and the descriptions of their protocols.

    Example:
        >>> figure = dict(benchmark="msrvtt", title="MSR-VTT", protocol="", kind="retrieval", of="t2v", measure="R@10",
        ...               unit="%", value=41.5, low=None, high=None, chance=1.0, num=968, gallery=968)
        >>> print(results_section([figure]).splitlines()[2])
        | MSR-VTT | not recorded | t2v |  | R@10 | 41.50 | 1.00 | 968 | 968 |
    """
    if not figures:
        return "No results are recorded. `trichord evaluate` computes them."
    rows = []
    for figure in figures:
        is_percent = figure["unit"] == "%"
        value = f"{figure['value']:.2f}" if is_percent else f"{figure['value']:g}"
        if figure["low"] is not None and figure["high"] is not None:
            value += f" [{figure['low']:.2f}, {figure['high']:.2f}]"
        chance = "" if figure["chance"] is None else f"{figure['chance']:.2f}"
        gallery = "" if figure["gallery"] is None else f"{figure['gallery']:,}"
        clips = figure.get("clips") or "not recorded"
        head = (figure["title"], clips, figure["of"], scored(figure), figure["measure"])
        rows.append((*head, value, chance, f"{figure['num']:,}", gallery))
    titles = (
        "benchmark",
        "clips",
        "of",
        "scored with",
        "measure",
        "value [95 % interval]",
        "chance",
        "of how many",
        "gallery",
    )
    protocols = dict.fromkeys((figure["title"], figure["protocol"]) for figure in figures if figure["protocol"])
    return "\n\n".join(
        [
            table(titles, rows),
            "Recalls, shares and chance are in percent, and ranks count from 1. Intervals are over the queries, clips or videos, "
            "for this one trained model.",
            *(f"{plain(title)}: {plain(paragraph)}" for title, paragraph in protocols),
        ]
    )


def limits_section(figures: Sequence[Figure], origin: dict[str, Any]) -> str:
    """Return sentences on the limits of the figures, with the benchmarks that are zero-shot and those that are not.

    Example:
        >>> figure = dict(benchmark="msrvtt", title="MSR-VTT", protocol="", kind="retrieval", of="t2v", measure="R@10",
        ...               unit="%", value=41.5, low=38.4, high=44.6, chance=1.0, num=968, gallery=968)
        >>> limits_section([figure], {"collections": "howto100m"}).split(". ")[0]
        'Whether the model was trained on the data of MSR-VTT is not recorded'
    """
    trained = origin.get("collections")
    split = str(origin.get("train_split") or "train")
    kinds: dict[str, list[str]] = {"new": [], "same": [], "seen": [], "unknown": []}
    for figure in figures:
        clips = figure.get("clips") or figure["title"]
        kind = _relation(figure, trained if isinstance(trained, str) else "", split)
        if clips not in kinds[kind]:
            kinds[kind].append(clips)
    sentences = {
        "new": "Zero-shot: the model was not trained on the collection of {}.",
        "same": "Not zero-shot: {} are held-out clips of a collection that the model was trained on.",
        "seen": "Not zero-shot: the model was trained on clips of {}.",
        "unknown": "Whether the model was trained on the data of {} is not recorded.",
    }
    lines = [sentences[kind].format(plain(_listed(clips))) for kind, clips in kinds.items() if clips]
    if any(figure["kind"] == "probe" for figure in figures):
        lines.append(
            "Probes and nearest neighbours learn from the labels of other clips, so these figures are not zero-shot."
        )
    if figures:
        lines.append("Other protocols give other figures.")
    lines.append(
        "The encoders of the features are separate models with their own licenses and limits, and are not part of this folder."
    )
    return " ".join(lines)


def _relation(figure: Figure, trained: str, split: str) -> str:
    """Return how the clips of a figure relate to those of the training: `new`, `same` collection, `seen` or `unknown`."""
    collection = figure.get("collection", "")
    if not collection or not trained:
        return "unknown"
    if f", {collection}," not in f", {trained},":
        return "new"
    may_be_any = figure["kind"] in LABELLED and not figure.get("split")  # labels say which clips are tested
    return "seen" if figure.get("split") == split or may_be_any else "same"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, in which the text of cells is escaped.

    Example:
        >>> print(table(("measure", "value"), [("R@1", "41.50")]))
        | measure | value |
        | --- | --- |
        | R@1 | 41.50 |
    """
    lines = [head, ["---" for _ in head], *rows]
    return "\n".join("| " + " | ".join(c if c == "---" else plain(str(c)) for c in line) + " |" for line in lines)
