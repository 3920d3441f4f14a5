"""Studies, evaluations, embeddings and recipes of version 0.1.0 are read with the same figures.

The figures are those of `results.json`, `table.csv` and `report.json`. `tests/fixtures/golden_figures.json` holds what version
0.1.0 read from `tests/fixtures/earlier.tar.xz` and from `tests/fixtures/earlier-figures.tar.xz` (`make_golden_figures.py`, as
of commit 052417f). Figures and names of columns are compared; prose and paths are not. A later version may add columns, tables and
settings.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from paths import FIXTURES
from trichord.cli import main
from trichord.modality import Order
from trichord.recipes import load_recipe, recipe_names
from trichord.store import Store
from trichord.study import factories
from trichord.training.frozen import frozen_key
from trichord.training.models import load_weights
from trichord.training.stage import stages_of

pytestmark = pytest.mark.usefixtures("undrawn")

EARLIER, SAMPLE, FIGURES = (
    FIXTURES / "earlier.tar.xz",
    FIXTURES / "earlier-figures.tar.xz",
    FIXTURES / "golden_figures.json",
)
DUAL_SOFTMAX = ("--dual_softmax", "20", "--missing", "miss")
DIRECTIONS = "t2v,v2t,t2va,a2v,v2a"
PROSE = ("subject", "store", "path", "notes", "paragraph", "title", "usual", "options")
PLACES = ("models of", "store (fingerprint begins with)", "evaluated in", "store", "subject")  # columns that hold paths
RECIPES = {
    "own": "extends: small\ntraining: {epochs: 3, clip_grad_norm: 1.0}\nloss: {num_clusters: 16, margin: 0.01}\n",
    "child": "extends: own\nmodel: {embed_dim: 64}\ndata: {min_clip_s: -1.0}\nevaluation: {directions: [v2t], missing: miss}\n",
    "alone": "loss: {contrast: mil_nce, temperature: 0.1}\nlater_stages: {thaw: 0.1, replay: true}\n",
}


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    return folder


def run(*words: object) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([str(word) for word in words]) == 0


def without(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: without(entry, names) for key, entry in value.items() if key not in names}
    return [without(entry, names) for entry in value] if isinstance(value, list) else value


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def results_of(folder: Path) -> Any:
    return without(json.loads((folder / "results.json").read_text())["benchmarks"], PROSE)


def report_of(*folders: Path, out: Path) -> Any:
    run("report", *folders, "--out", out)
    return without(json.loads((out / "report.json").read_text())["tables"], PLACES)


def evaluation_figures(*folders: Path, out: Path) -> dict[str, Any]:
    return {"results.json": [results_of(folder) for folder in folders], "report.json": report_of(*folders, out=out)}


def orders_figures(folder: Path, out: Path) -> dict[str, Any]:
    """Return the figures of an evaluation of all orders of a study, which has a folder for each run."""
    runs = {str(path.parent.relative_to(folder)): results_of(path.parent) for path in folder.rglob("*/results.json")}
    return {"runs": runs, "report.json": report_of(folder, out=out)}


def study_figures(folder: Path, out: Path) -> dict[str, Any]:
    return {
        "study.json": json.loads((folder / "study.json").read_text())["results"],
        "table.csv": rows_of(folder / "table.csv"),
        "report.json": report_of(folder, out=out),
    }


def embeddings_figures(path: Path, out: Path, *more: str) -> Any:
    run("evaluate", "--embeddings", path, "--benchmark", "retrieval", "--directions", DIRECTIONS, *more, "--out", out)
    return results_of(out)


def recipes_of(folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(text.replace("min_clip_s: -1.0", "min_clip_s: 0.0"))
    own = {f"{name}.yaml": load_recipe(folder / f"{name}.yaml").to_dict() for name in RECIPES}
    return own | {name: load_recipe(name).to_dict() for name in recipe_names()}


def figures_of(sample: Path, out: Path) -> dict[str, Any]:
    """Return everything that is compared; `make_golden_figures.py` writes it."""
    small = unpacked(EARLIER, out / "small")
    return {
        "recipes": recipes_of(out / "recipes"),
        "small study": study_figures(small / "study", out / "small-study"),
        "small evaluation": evaluation_figures(small / "evaluation", out=out / "small-evaluation"),
        "study": study_figures(sample / "study", out / "study"),
        "orders": orders_figures(sample / "orders", out / "orders"),
        "evaluations": evaluation_figures(sample / "near", sample / "far", out=out / "both"),
        "embeddings": embeddings_figures(sample / "near.npz", out / "embeddings"),
        "embeddings, dual softmax": embeddings_figures(sample / "near.npz", out / "softmax", *DUAL_SOFTMAX),
    }


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(FIGURES.read_text())


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(SAMPLE, tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(EARLIER, tmp_path_factory.mktemp("small"))


def check(actual: Any, expected: Any, place: str = "") -> None:
    """Raise AssertionError unless `found` contains all of `expected`; dictionaries may have further entries."""
    if isinstance(expected, dict):
        assert isinstance(actual, dict), place
        for key, value in expected.items():
            assert key in actual, f"{place}: {key} is missing"
            check(actual[key], value, f"{place} / {key}")
    elif isinstance(expected, list):
        assert isinstance(actual, list) and len(actual) == len(expected), f"{place}: another number of rows"
        for number, (entry, value) in enumerate(zip(actual, expected, strict=True)):
            check(entry, value, f"{place} / {number}")
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True), place
    else:
        assert actual == expected, place


def test_recipes_have_the_same_values(golden: dict[str, Any], tmp_path: Path) -> None:
    check(recipes_of(tmp_path), golden["recipes"])


@pytest.mark.parametrize("name", ["small study", "study"])
def test_a_study_has_the_same_figures(
    name: str, golden: dict[str, Any], small: Path, sample: Path, tmp_path: Path
) -> None:
    folder = {"small study": small, "study": sample}[name] / "study"
    check(study_figures(folder, tmp_path / "report"), golden[name])


def test_the_evaluation_of_a_study_has_the_same_figures(golden: dict[str, Any], sample: Path, tmp_path: Path) -> None:
    check(orders_figures(sample / "orders", tmp_path / "report"), golden["orders"])


def test_evaluations_have_the_same_figures(golden: dict[str, Any], small: Path, sample: Path, tmp_path: Path) -> None:
    actual = evaluation_figures(small / "evaluation", out=tmp_path / "small")
    check(actual, golden["small evaluation"])
    check(evaluation_figures(sample / "near", sample / "far", out=tmp_path / "both"), golden["evaluations"])


@pytest.mark.parametrize("name", ["embeddings", "embeddings, dual softmax"])
def test_a_file_of_embeddings_has_the_same_figures(
    name: str, golden: dict[str, Any], sample: Path, tmp_path: Path
) -> None:
    more = () if name == "embeddings" else DUAL_SOFTMAX
    actual = embeddings_figures(sample / "near.npz", tmp_path / "out", *more)
    check(actual, golden[name])
    if not more:
        check(actual, golden["evaluations"]["results.json"][0])


def test_the_frozen_cache_of_an_earlier_version_is_used_again(small: Path) -> None:
    """Its folders have the names that this version would choose."""
    recipe, store = load_recipe(small / "recipe.yaml"), Store(small / "store")
    later = stages_of(Order.parse("av>t"))[1]
    source, reader = factories.build_batches(recipe, store, later, 0)
    model = factories.build_model(recipe, store, 0)
    (first,) = (small / "study" / "stages").glob("av.*")
    load_weights(model, first / "model.safetensors")
    names = {frozen_key(model, m, "embedding", source, reader, "no")[0] for m in later.frozen}
    assert names == {path.name for path in (small / "store" / "frozen").iterdir() if path.is_dir()}


def test_the_comparison_reports_missing_and_changed_figures() -> None:
    expected = {"rows": [{"value": 1.0, "of": "t2v"}]}
    check({"rows": [{"value": 1.0 + 1e-12, "of": "t2v", "more": 1}], "tables": []}, expected)
    for actual in ({}, {"rows": []}, {"rows": [{"value": 1.1, "of": "t2v"}]}, {"rows": [{"value": 1.0, "of": "v2t"}]}):
        with pytest.raises(AssertionError):
            check(actual, expected)
