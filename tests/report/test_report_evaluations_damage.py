"""Evaluations with edited, truncated or foreign files: refused in one line, or displayed and never executed."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation_report_helpers import (
    copy,
    edit,
    edit_arrays,
)
from trichord.errors import TrichordError
from trichord.report.contents import build_evaluations
from trichord.report.systems import read_systems
from trichord.report.write import write_evaluations

# ---- files that were edited, cut or are of something else


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.clear(), "it contains no subject or no list of benchmarks"),
        (lambda c: c.update(benchmarks=[]), "it has no benchmark"),
        (lambda c: c.update(store={"path": 3}), "its store has no path and fingerprint"),
        (lambda c: c.update(notes=[1]), "its notes are not a list of texts"),
        (lambda c: c["benchmarks"][0].update(kind="magic"), "the kind of benchmark retrieval is unknown"),
        (lambda c: c["benchmarks"][0].update(rows=[]), "has no figures"),
        (lambda c: c["benchmarks"][0].update(options=None), "lacks its options"),
        (lambda c: c["benchmarks"][0]["rows"].append(c["benchmarks"][0]["rows"][0]), "contains a figure twice"),
        (lambda c: c["benchmarks"][0]["rows"][0].update(value=math.nan), "is incomplete"),
        (lambda c: c["benchmarks"][0]["rows"][0].update(value=10**400), "is incomplete"),
        (lambda c: c["benchmarks"][0]["rows"][0].update(num=True), "is incomplete"),
        (lambda c: c["benchmarks"][0]["rows"][0].update(low="3"), "is incomplete"),
        (lambda c: c["benchmarks"][0]["rows"][0].update(value=99.0), "does not match results.json, where the R@1 of "),
        (lambda c: c["benchmarks"][0]["rows"][0].update(each="nowhere"), "'nowhere' is missing or has another type"),
        (lambda c: c["benchmarks"][0]["rows"][0].update(each_of="nowhere"), "'nowhere' is missing or has another type"),
        (lambda c: c["benchmarks"][0]["rows"][0].update(each_of="retrieval/start_s"), "has another type"),
        (lambda c: c.update(models=[{"order": "av>t", "seed": 0, "folder": "../x"}]), "is not a folder in it"),
        (lambda c: c.update(models=[{"order": "av>t", "seed": 0, "folder": "/x"}]), "is not a folder in it"),
        (lambda c: c.update(models=[{"order": "zz", "seed": 0, "folder": "x"}]), "its list of models is invalid"),
        (lambda c: c.update(models={}), "its list of models is invalid"),
        (lambda c: c.update(models=[]), "no model to report (none was scored)"),
        (lambda c: c.update(models=[{"order": "vt", "seed": 1, "note": "diverged"}]), "VT seed 1 is left out: diverged"),
    ],
)  # fmt: skip
def test_edited_results_are_refused(weak: Path, tmp_path: Path, change: Any, message: str) -> None:
    folder = edit(copy(weak, tmp_path / "e"), change)
    with pytest.raises(TrichordError) as caught:
        build_evaluations(read_systems([folder]))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).endswith("evaluate again with the same --out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("retrieval/t2v, sum/R@10/each"), "is missing or has another type"),
        (lambda a: a.update({"retrieval/t2v, sum/R@10/each": a["retrieval/t2v, sum/R@10/each"][:-1]}), ""),
        (lambda a: a.update({"retrieval/text_id": a["retrieval/text_id"][:-1]}), "differ in length"),
        (lambda a: a["retrieval/t2v, sum/MedR/each"].__setitem__(0, -3.0), "neither shares nor ranks"),
        (lambda a: a["retrieval/t2v, sum/R@5/each"].__setitem__(0, np.inf), "neither shares nor ranks"),
        (lambda a: a["retrieval/t2v/greater"].__setitem__(0, 10**6), "do not fit its gallery of 60"),
        (lambda a: a.update({"retrieval/t2v/equal": a["retrieval/t2v/equal"][:-1]}), "differ in length"),
    ],
)
def test_edited_arrays_are_refused(weak: Path, tmp_path: Path, change: Any, message: str) -> None:
    folder = edit_arrays(copy(weak, tmp_path / "e"), change)
    with pytest.raises(TrichordError) as caught:
        build_evaluations(read_systems([folder]))
    assert message in str(caught.value) and "queries.npz" in str(caught.value)


def test_torn_files_are_refused(weak: Path, orders: Path, tmp_path: Path) -> None:
    torn = copy(weak, tmp_path / "torn")
    (torn / "queries.npz").write_bytes((torn / "queries.npz").read_bytes()[:-200])
    with pytest.raises(TrichordError, match=r"queries.npz: cannot be read"):
        build_evaluations(read_systems([torn]))
    (torn / "queries.npz").unlink()
    with pytest.raises(TrichordError, match="No such file"):
        build_evaluations(read_systems([torn]))
    (torn / "results.json").write_text('{"subject": ')
    with pytest.raises(TrichordError, match="results.json: cannot be read"):
        read_systems([torn])
    swapped = copy(orders, tmp_path / "swapped")
    edit(swapped, lambda c: [m.update(files={"results.json": "0" * 64}) for m in c["models"]])
    with pytest.raises(TrichordError, match="it has changed since it was written"):
        read_systems([swapped])


def paths_in(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [path for key, part in inner for path in paths_in(part, (*at, key))]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_any_invalid_value_gives_a_report_or_one_line(step: int, weak: Path, strong: Path, tmp_path: Path) -> None:
    """Replacing any part of results.json by an invalid value gives a report or one line, never a traceback."""
    other = copy(strong, tmp_path / "other")
    whole = (other / "results.json").read_text()
    places = [p for p in paths_in(json.loads(whole)) if "rows" not in p or p[p.index("rows") + 1 :][:1] in ((), (2,))]
    rng, refused = np.random.default_rng(0), 0
    odd: list[Any] = [None, -1, 0, 1.5, 1e308, "", "\x1b[2J<script>", [], {}, [None], {"a": []}, True, 10**30]
    for place in places[::step]:
        content = json.loads(whole)
        part = content
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = odd[rng.integers(len(odd))]
        (other / "results.json").write_text(json.dumps(content))
        try:
            build_evaluations(read_systems([weak, other]))
        except TrichordError as error:
            refused += 1
            assert str(error).isprintable() and str(other) in str(error), place
    assert 10 / step < refused < len(places[::step])


def test_names_and_texts_are_shown_and_never_obeyed(weak: Path, strong: Path, tmp_path: Path) -> None:
    hostile = '"><img src=x onerror=alert(1)><script>alert(1)</script>=cmd|\x1b]0;x\x07{{ 7 * 7 }}'

    def change(content: dict[str, Any]) -> None:
        content["subject"] = f"/models/{hostile.replace('/', '')}"
        content["notes"] = [hostile]
        for done in content["benchmarks"]:
            done |= {"title": hostile, "paragraph": hostile, "notes": [hostile], "name": hostile}

    def arrays(saved: dict[str, np.ndarray]) -> None:
        saved["retrieval/caption"] = np.array([f"{hostile} {i}" for i in range(60)])

    folders = [edit_arrays(edit(copy(f, tmp_path / f.name), change), arrays) for f in (weak, strong)]
    write_evaluations(folders, tmp_path / "r")
    page = (tmp_path / "r" / "report.html").read_text()
    assert (
        "&lt;img src=x" in page
        and "<script" not in page
        and not re.search('<img (?!src="data:)', page)
        and not set("\x1b\x07") & set(page)
    )
    assert "7 * 7" in page
    text = (tmp_path / "r" / "report.md").read_text()
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<(script|img)", prose)
    for path in (tmp_path / "r" / "tables").iterdir():
        with path.open(newline="") as file:
            assert not any(re.match(r"\s*[=@]", cell) for line in csv.reader(file) for cell in line)
    for path in (tmp_path / "r" / "figures").iterdir():
        assert "<script" not in path.read_text() and "<img" not in path.read_text()
