"""Check whether a figure of two evaluations can be compared. Both need the same units, true items and settings of scoring.

Units are matched by name, in any order, and with or without the suffixes of media files (`trichord.ids`). If a file of
embeddings has no ids, its units are matched by number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from trichord.errors import one_line
from trichord.ids import without_media_suffix
from trichord.study.pairing import places_of
from trichord.study.scores import Measured, Scored, Scores, fusion_of

One = tuple[Scores, Scored]
TIMES = {"the starts of the clips": "start_s", "the ends of the clips": "end_s"}
SETTING = "evaluation."  # prefix of choices that are settings of the recipe of a study


def difference_of_scoring(a: One, b: One, target: str, measure: str) -> str:
    """Describe how the scoring of a figure differs between two evaluations.

    Args:
        a: First evaluation and benchmark.
        b: Second evaluation and benchmark.
        target: Target of the figure (`study.scores.target_of`).
        measure: Name of the measure.

    Returns:
        A description of the first difference, or '' if the figures can be compared.
    """
    one, two = _choices(a, target, measure), _choices(b, target, measure)
    settings_known = bool(a[1].settings) and bool(b[1].settings)  # only a run of a study contains settings
    for what in {**one, **two}:
        if (settings_known or not what.startswith(SETTING)) and one.get(what) != two.get(what):
            return f"{what} is {one.get(what)} in one and {two.get(what)} in the other"
    rows = [scored.row(target, measure) for _, scored in (a, b)]
    assert rows[0] is not None and rows[1] is not None
    names = names_of_units(a[0], rows[0]), names_of_units(b[0], rows[1])
    places = places_of_units(a, rows[0], b, rows[1])
    if places is None:
        return _difference_of_units(*names)
    in_order = np.array_equal(places, np.arange(len(places))) and np.array_equal(*names)
    counts = [~np.isnan(scores.each(row)) for (scores, _), row in zip((a, b), rows, strict=True) if row is not None]
    if not np.array_equal(counts[0], counts[1][places]):
        at = int(np.argmax(counts[0] != counts[1][places]))
        side = "one" if counts[0][at] else "the other"
        return f"unit '{_short(names[0][at])}' counts only in {side}"
    truths = _truth(a, rows[0]), _truth(b, rows[1])
    if not in_order:
        return _difference_of_named(named_truth(a, rows[0], truths[0]), named_truth(b, rows[1], truths[1]))
    for what in truths[0]:
        if what in truths[1] and (why := _difference(what, truths[0][what], truths[1][what])):
            return why
    return ""


def places_of_units(a: One, row_a: Measured, b: One, row_b: Measured) -> np.ndarray | None:
    """Return the positions of the units of a figure among those of another evaluation.

    Args:
        a: First evaluation and benchmark.
        row_a: Figure of the first evaluation.
        b: Second evaluation and benchmark.
        row_b: Figure of the second evaluation.

    Returns:
        Array (n,) of indices into the units of `row_b`. None if the units differ.
    """
    names = names_of_units(a[0], row_a), names_of_units(b[0], row_b)
    if np.array_equal(*names):
        one, two = _captions(*a, row_a, len(names[0])), _captions(*b, row_b, len(names[0]))
        if one is None or two is None or np.array_equal(one, two) or Counter(one.tolist()) != Counter(two.tolist()):
            return np.arange(len(names[0]))  # only the captions differ
    if len(names[0]) != len(names[1]):
        return None
    for spelling in (str, without_media_suffix):
        spelt = [np.array([spelling(name) for name in own.tolist()], np.str_) for own in names]
        if any(len(set(new.tolist())) < len(set(old.tolist())) for new, old in zip(spelt, names, strict=True)):
            continue  # two units would have the same name
        keys = [_keys(*a, row_a, spelt[0]), _keys(*b, row_b, spelt[1])]
        if keys[0] is None or keys[1] is None or Counter(keys[0]) != Counter(keys[1]):
            keys = [spelt[0].tolist(), spelt[1].tolist()]
        if (places := places_of(keys[0] or [], keys[1] or [])) is not None:
            return places
    return None


def _keys(scores: Scores, scored: Scored, row: Measured, names: np.ndarray) -> list[Any] | None:
    """Return the name and the caption of each unit, which together identify a text. None if captions are unknown."""
    captions = _captions(scores, scored, row, len(names))
    return None if captions is None else list(zip(names.tolist(), captions.tolist(), strict=True))


def _captions(scores: Scores, scored: Scored, row: Measured, num: int) -> np.ndarray | None:
    """Return the captions of units that are texts, an array (n,), or None for other units."""
    return scores.named(f"{scored.head}/caption", "U", num) if row.each_of.endswith("/text_id") else None


def are_numbered(scores: Scores, scored: Scored) -> bool:
    """Return whether the clips of an evaluation have only numbers as ids, as in a file of embeddings without ids."""
    ids = scores.named(f"{scored.head}/id", "U")
    return ids is not None and ids.tolist() == [str(i) for i in range(len(ids))]


def named_truth(one: One, row: Measured, truth: dict[str, np.ndarray]) -> dict[str, list[tuple[str, ...]]]:
    """Return the true items of the units by name instead of by number. They are sorted, so the order of the units has no effect.

    Args:
        one: Evaluation and benchmark.
        row: Figure.
        truth: Arrays of true items by description, as `_truth` returns them.
    """
    scores, scored = one
    ids, videos = (scores.named(f"{scored.head}/{part}", "U") for part in ("id", "video"))
    named: dict[str, list[tuple[str, ...]]] = {}
    texts, captions = truth.get("the clips of the texts"), truth.get("captions")
    if texts is not None:
        rows = [texts.tolist()] if captions is None else [texts.tolist(), captions.tolist()]
        named["captions"] = [(without_media_suffix(name), *rest) for name, *rest in zip(*rows, strict=True)]
    for what in TIMES:
        if what in truth and ids is not None:
            spelt = map(without_media_suffix, ids.tolist())
            named[what] = list(zip(spelt, map(str, truth[what].tolist()), strict=True))
    for what, table in (("the queries' clips", ids), ("the queries' videos", videos)):
        if what in truth and table is not None:
            named[what] = [(without_media_suffix(name),) for name in table[truth[what]].tolist()]
    if "annotated steps" in truth:
        shown = (names_of_units(scores, row).tolist(), map(str, truth["annotated steps"].tolist()))
        named["annotated steps"] = list(zip(*shown, strict=True))
    for what, places in truth.items():
        part = what.removeprefix("the clips with labels of ")
        labels, classes = truth.get(f"labels of {part}"), truth.get(f"classes of {part}")
        if part == what or ids is None or labels is None or classes is None:
            continue
        clips = [without_media_suffix(name) for name in ids[places].tolist()]
        named[f"labels of {part}"] = list(zip(clips, classes[labels].tolist(), strict=True))
    return {what: sorted(rows) for what, rows in named.items()}


def _difference_of_named(one: dict[str, list[tuple[str, ...]]], two: dict[str, list[tuple[str, ...]]]) -> str:
    for what, rows in one.items():
        if what in two and rows != two[what] and len({*map(len, rows), *map(len, two[what])}) == 1:
            return _alone(what, [": ".join(row) for row in rows], [": ".join(row) for row in two[what]])
    return ""


def _difference_of_units(*names: np.ndarray) -> str:
    """Describe how units that cannot be matched differ. Suffixes of media files are mentioned only if nothing else differs."""
    for spelling in (without_media_suffix, str):
        if why := _alone("units", *([spelling(name) for name in own.tolist()] for own in names)):
            return why
    return _difference("units", *names)


def _alone(what: str, one: Sequence[str], two: Sequence[str]) -> str:
    """Describe an item that only one side has, or return '' if both have the same items in any order."""
    for here, there, side in ((one, two, "one"), (two, one, "the other")):
        if more := Counter(here) - Counter(there):
            return f"{what} differ: '{_short(next(iter(more)))}' is only in {side}"
    return ""


def names_of_units(scores: Scores, row: Measured) -> np.ndarray:
    """Return the names (n,) of the units of a figure. For steps in time, each name includes the task of the video."""
    names = scores.units(row)
    head = row.each_of.rpartition("/")[0]
    tasks = scores.named(f"{head}/task", "U", len(names)) if row.each_of.endswith("/video") else None
    return names if tasks is None else np.char.add(np.char.add(names, " of "), tasks)


def captions_of_units(scores: Scores, scored: Scored, row: Measured) -> np.ndarray | None:
    """Return the text of each unit.

    Returns:
        Array (n,) with the caption of each text, or the first caption of each clip. None if texts are unknown.
    """
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
    all_choices = {"the protocol": scored.protocol, "the kind of task": scored.kind, **choices(scored, row)}
    return all_choices | ({"the gallery's size": gallery_of(scores, scored, row)} if scored.kind == "retrieval" else {})


def choices(scored: Scored, row: Measured) -> dict[str, Any]:
    """Return all settings of scoring that affect a figure, by name, except the size of the gallery (`gallery_of`)."""
    options, kind = scored.options, scored.kind
    fusion, scale = fusion_of(kind, row.of)
    policy = str(options.get("missing", "auto"))
    chosen: dict[str, Any] = {f"{SETTING}{key}": value for key, value in scored.settings.items()}
    chosen["the fusion rule"] = fusion or scored.fusion or str(options.get("fusion", "auto"))
    if kind == "retrieval":
        result = scored.result(row.of) or {}
        chosen["the scale of the dual softmax"] = scale or "none"
        chosen["the policy for missing clips"] = result.get("missing", "drop" if policy == "auto" else policy)
        chosen["the tie policy"] = result.get("ties", "expected")
    else:
        chosen["the policy for missing clips"] = "drop" if policy == "auto" else policy
    if kind == "localization":
        chosen["the length of the sound around a second (audio_window_s)"] = options.get("audio_window_s")
    else:
        chosen["the windows"] = _windows(options.get("windows"))
    if kind == "classification":
        templates = options.get("templates")
        chosen["the templates"] = (
            " | ".join(map(str, templates)) if isinstance(templates, list) and templates else "none"
        )
    if kind == "probe":
        chosen["the random seed"] = options.get("seed", 0)
    return chosen


def gallery_of(scores: Scores, scored: Scored, row: Measured) -> int | None:
    """Return the number of ranked items, or None if it was not saved."""
    size = (scored.result(row.of) or {}).get("num_gallery")
    return size if isinstance(size, int) else scores.number(f"{_ranked_head(scored, row)}/num_gallery")


def _ranked_head(scored: Scored, row: Measured) -> str:
    """Return the prefix of the array names of a retrieval figure: the direction, and how clips are pooled into videos."""
    code, _, rest = row.of.partition(",")
    way = rest.partition(": ")[2].replace(", ", "-").replace(" ", "-")
    return f"{scored.head}/{code}/{way}" if way else f"{scored.head}/{code}"


def _windows(windows: object) -> str:
    if not isinstance(windows, dict):
        return "none"
    return ", ".join(f"{name} {windows[name]}" for name in sorted(windows))


def _truth(one: One, row: Measured) -> dict[str, np.ndarray]:
    """Return the arrays of the true items of the units by description, such as `the queries' clips`."""
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
    ids = scores.named(f"{scored.head}/id", "U")
    times: dict[str, np.ndarray | None] = {}
    if scored.settings and ids is not None:  # the clips of a run of a study have times
        times = {what: scores.named(f"{scored.head}/{part}", "f", len(ids)) for what, part in TIMES.items()}
    truth = {what: np.round(array, 3) for what, array in times.items() if array is not None}
    return truth | {what: array for what, name in names.items() if (array := scores.named(name, "Uiu")) is not None}


def _difference(what: str, one: np.ndarray, two: np.ndarray) -> str:
    if len(one) != len(two):
        return f"{what} differ: {len(one):,} and {len(two):,}"
    if np.array_equal(one, two):
        return ""
    at = int(np.argmax(one != two))
    return f"{what} differ: number {at} is '{_short(one[at])}' in one and '{_short(two[at])}' in the other"


def _short(text: object) -> str:
    line = one_line(text)
    return line if len(line) <= 60 else line[:57] + "..."
