"""Whether two evaluations may be compared in one figure: the same units, the same truth, the same choices; and if not, why."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from trichord.report.document import folded
from trichord.report.evaluation_reading import Measured, Scored, Scores, fusion_of

One = tuple[Scores, Scored]


def difference_of_scoring(a: One, b: One, target: str, measure: str) -> str:
    """In what two evaluations that both have a figure differ, in words; '' where they may be compared."""
    one, two = _choices(a, target, measure), _choices(b, target, measure)
    for what in one:
        if one[what] != two.get(what):
            return f"{what} is {one[what]} in one and {two.get(what)} in the other"
    rows = [scored.row(target, measure) for _, scored in (a, b)]
    assert rows[0] is not None and rows[1] is not None
    names = names_of_units(a[0], rows[0]), names_of_units(b[0], rows[1])
    if why := _difference("units", *names):
        return why
    counts = [~np.isnan(scores.each(row)) for (scores, _), row in zip((a, b), rows, strict=True) if row is not None]
    if not np.array_equal(*counts):
        at = int(np.argmax(counts[0] != counts[1]))
        return f"unit '{_short(names[0][at])}' counts in one alone"
    truths = _truth(a, rows[0]), _truth(b, rows[1])
    for what in truths[0]:
        if what in truths[1] and (why := _difference(what, truths[0][what], truths[1][what])):
            return why
    return ""


def names_of_units(scores: Scores, row: Measured) -> np.ndarray:
    """(n,) names of the units of a figure, with the task of each video where steps are looked for."""
    names = scores.units(row)
    head = row.each_of.rpartition("/")[0]
    tasks = scores.named(f"{head}/task", "U", len(names)) if row.each_of.endswith("/video") else None
    return names if tasks is None else np.char.add(np.char.add(names, " of "), tasks)


def captions_of_units(scores: Scores, scored: Scored, row: Measured) -> np.ndarray | None:
    """(n,) the text of each unit: its caption, or the first caption of a clip; None where texts are not known."""
    captions = scores.named(f"{scored.head}/caption", "U")
    if captions is None:
        return None
    names = scores.units(row)
    texts = scores.named(f"{scored.head}/text_id", "U", len(captions))
    if row.each_of.endswith("/text_id"):
        return captions if len(captions) == len(names) else None
    if texts is None:
        return None
    first: dict[str, str] = {}
    for clip, caption in zip(texts.tolist(), captions.tolist(), strict=True):
        first.setdefault(clip, caption)
    return np.array([first.get(name, "") for name in names.tolist()], np.str_)


def _choices(one: One, target: str, measure: str) -> dict[str, Any]:
    scores, scored = one
    row = scored.row(target, measure)
    assert row is not None
    found = {"the protocol": scored.protocol, "the kind of task": scored.kind, **choices(scored, row)}
    return found | ({"the gallery's size": gallery_of(scores, scored, row)} if scored.kind == "retrieval" else {})


def choices(scored: Scored, row: Measured) -> dict[str, Any]:
    """What was chosen of all that changes a figure, by what it is called; the gallery's size apart (`gallery_of`)."""
    options, kind = scored.options, scored.kind
    fusion, scale = fusion_of(kind, row.of)
    policy = str(options.get("missing", "auto"))
    found: dict[str, Any] = {"the fusion rule": fusion or scored.fusion or str(options.get("fusion", "auto"))}
    if kind == "retrieval":
        result = scored.result(row.of) or {}
        found["the scale of the dual softmax"] = scale or "none"
        found["the policy for missing clips"] = result.get("missing", "drop" if policy == "auto" else policy)
        found["the tie policy"] = result.get("ties", "expected")
    else:
        found["the policy for missing clips"] = "drop" if policy == "auto" else policy
    if kind == "localization":
        found["the sound around a second (audio_window_s)"] = options.get("audio_window_s")
    else:
        found["the windows"] = _windows(options.get("windows"))
    if kind == "classification":
        templates = options.get("templates")
        found["the templates"] = (
            " | ".join(map(str, templates)) if isinstance(templates, list) and templates else "none"
        )
    if kind == "probe":
        found["the seed of what is drawn"] = options.get("seed", 0)
    return found


def gallery_of(scores: Scores, scored: Scored, row: Measured) -> int | None:
    """Items that were ranked, None where that was not kept."""
    told = (scored.result(row.of) or {}).get("num_gallery")
    return told if isinstance(told, int) else scores.number(f"{_ranked_head(scored, row)}/num_gallery")


def _ranked_head(scored: Scored, row: Measured) -> str:
    """What the names of the arrays of a retrieval figure begin with: by direction, and way from clips to videos."""
    code, _, rest = row.of.partition(",")
    way = rest.partition(": ")[2].replace(", ", "-").replace(" ", "-")
    return f"{scored.head}/{code}/{way}" if way else f"{scored.head}/{code}"


def _windows(windows: object) -> str:
    if not isinstance(windows, dict):
        return "none"
    return ", ".join(f"{name} {windows[name]}" for name in sorted(windows))


def _truth(one: One, row: Measured) -> dict[str, np.ndarray]:
    """By what they are called, the arrays that say what is right for each unit."""
    scores, scored = one
    if scored.kind in ("retrieval", "localization"):
        ranked = _ranked_head(scored, row)
        names = {
            "captions": f"{scored.head}/caption", "the clips of the texts": f"{scored.head}/text_id",
            "the videos": f"{scored.head}/video", "the queries' videos": f"{ranked}/video",
            "the queries' clips": f"{ranked}/clip", "annotated steps": f"{scored.head}/present",
        }  # fmt: skip
    else:
        base = re.sub(r", mean of \d+ folds$", ",", row.of)
        parts = [name for name in scores.arrays if name.startswith(f"{scored.head}/{base}")]
        wanted = {"clip": "the clips with labels", "truth": "labels", "classes": "classes"}
        names = {
            f"{wanted[part]} of {name.removeprefix(f'{scored.head}/').rpartition('/')[0]}": name
            for name in parts
            if (part := name.rpartition("/")[2]) in wanted
        }
    return {what: found for what, name in names.items() if (found := scores.named(name, "Uiu")) is not None}


def _difference(what: str, one: np.ndarray, two: np.ndarray) -> str:
    if len(one) != len(two):
        return f"{what} differ: {len(one):,} and {len(two):,}"
    if np.array_equal(one, two):
        return ""
    at = int(np.argmax(one != two))
    return f"{what} differ: number {at} is '{_short(one[at])}' in one and '{_short(two[at])}' in the other"


def _short(text: object) -> str:
    line = folded(str(text))
    return line if len(line) <= 60 else line[:57] + "..."
