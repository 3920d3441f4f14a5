"""Annotated steps are exported in every layout and imported unchanged; inconsistent ones are reported in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from export_helpers import LAYOUTS, digests, same, some_items, write_store
from release_helpers import WORDS
from steps_helpers import STEPS, write_crosstask, write_mining
from trichord.errors import TrichordError
from trichord.releases import IMPORTERS, export_store, import_crosstask, import_mining_youtube
from trichord.releases.exported_steps import STEPS as FILE
from trichord.store import Store
from trichord.store.annotations import NO_STEP, StepSpan, read_annotations, write_annotations


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two collections; v2 belongs to another task as well and shows none of its steps."""
    folder = tmp_path_factory.mktemp("annotated")
    import_crosstask(write_crosstask(folder / "r"), folder / "s", WORDS)
    import_mining_youtube(write_mining(folder / "m"), folder / "s", WORDS)
    write_annotations(folder / "s", "crosstask", [StepSpan("v2", "111", NO_STEP, "", 0.0, 0.0)])
    write_annotations(folder / "s", "crosstask", [StepSpan("v3", "111", 1, "stir", 0.1, 2.7000000000000006)])
    return folder / "s"


def spans(store: Path) -> dict[str, object]:
    opened = Store(store)
    return {name: read_annotations(opened, name) for name in ("crosstask", "mining-youtube")}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_they_come_back_as_they_were(annotated: Path, tmp_path: Path, layout: str) -> None:
    summary = export_store(annotated, tmp_path / "out", layout=layout)  # type: ignore[arg-type]
    count = len((tmp_path / "out" / FILE).read_text().splitlines())
    assert f"{count} annotated spans of steps are in {FILE}, which published readers do not support" in str(summary)
    back = IMPORTERS[layout](tmp_path / "out", tmp_path / "back")
    assert f"with {count} annotated spans of steps" in back.notes
    same(Store(annotated), Store(tmp_path / "back"))
    assert spans(annotated) == spans(tmp_path / "back")
    export_store(annotated, tmp_path / "again", layout=layout)  # type: ignore[arg-type]
    assert digests(tmp_path / "out") == digests(tmp_path / "again")
    IMPORTERS[layout](tmp_path / "out", tmp_path / "back")  # importing again changes nothing
    assert spans(annotated) == spans(tmp_path / "back")


def test_a_part_has_its_own_annotations_and_reports_missing_ones(annotated: Path, tmp_path: Path) -> None:
    summary = export_store(annotated, tmp_path / "out", layout="npy", collection="crosstask", split="test")
    assert "the step texts of 2 of its tasks are not among these items (split steps)" in str(summary)
    IMPORTERS["npy"](tmp_path / "out", tmp_path / "back")
    assert spans(tmp_path / "back") == {"crosstask": spans(annotated)["crosstask"], "mining-youtube": {}}
    texts = export_store(annotated, tmp_path / "texts", layout="npy", split="steps")
    assert "annotated" not in str(texts) and not (tmp_path / "texts" / FILE).exists()


def test_a_store_without_annotations_has_no_file_of_them(tmp_path: Path) -> None:
    write_store(tmp_path / "store", some_items())
    export_store(tmp_path / "store", tmp_path / "out", layout="npy")
    assert not (tmp_path / "out" / FILE).exists()
    assert "annotations" not in json.loads((tmp_path / "out" / "trichord.json").read_text())


def test_other_steps_of_a_task_are_refused(annotated: Path, tmp_path: Path) -> None:
    export_store(annotated, tmp_path / "out", layout="npy")
    root = write_crosstask(tmp_path / "r")
    for path in root.rglob("step.json"):
        path.write_text(json.dumps(STEPS | {"23521": ["pour water", *STEPS["23521"][1:]]}))
    import_crosstask(root, tmp_path / "other", WORDS)
    before = spans(tmp_path / "other")
    with pytest.raises(TrichordError, match="has other steps for task '23521'; use another store"):
        IMPORTERS["npy"](tmp_path / "out", tmp_path / "other")
    assert spans(tmp_path / "other") == before


def cut(lines: list[str]) -> list[str]:
    return lines[:-1]


def changed(**values: object) -> Callable[[list[str]], list[str]]:
    def change(lines: list[str]) -> list[str]:
        record = json.loads(lines[1]) | values
        return [lines[0], json.dumps(record), *lines[2:]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, "lines; copy or export it again"),
        (lambda lines: [lines[0], lines[1][:20], *lines[2:]], "line 2: is not JSON"),
        (lambda lines: ["[1]", *lines[1:]], "line 1: is not a JSON object"),
        (changed(step="1"), "line 2: has no step; copy or export it again"),
        (changed(step=True), "line 2: has no step"),
        (changed(video_id=None), "line 2: has no video_id"),
        (changed(step=-2), "line 2: is not a valid span"),
        (changed(step=1 << 40), "line 2: is not a valid span"),
        (changed(start_s=-1.0), "line 2: is not a valid span"),
        (changed(end_s=float("inf")), "line 2: is not a valid span"),
        (changed(end_s=10**400), "line 2: is not a valid span"),
    ],
)
def test_a_damaged_file_is_reported_before_anything_is_stored(
    annotated: Path, tmp_path: Path, change: Callable[[list[str]], list[str]], message: str
) -> None:
    export_store(annotated, tmp_path / "out", layout="npy")
    path = tmp_path / "out" / FILE
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(TrichordError) as caught:
        IMPORTERS["npy"](tmp_path / "out", tmp_path / "back")
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "back").exists()


def test_a_missing_file_is_reported(annotated: Path, tmp_path: Path) -> None:
    export_store(annotated, tmp_path / "out", layout="youcook2")
    (tmp_path / "out" / FILE).unlink()
    with pytest.raises(TrichordError, match="cannot be read .No such file or directory.; copy or export it again"):
        IMPORTERS["youcook2"](tmp_path / "out", tmp_path / "back")
