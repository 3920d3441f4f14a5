"""The model card: settings that affect figures, intervals of all figures, zero-shot evaluations, the format of the hub."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from doc_examples import run_examples
from tiny import tiny_item, word_vectors
from trichord import Embedder
from trichord.cli import main
from trichord.embedder.card import hub_license, make_card
from trichord.embedder.card_results import evaluation_result, limits_section, results_section, slug
from trichord.embedder.results import figures_of_evaluation, figures_of_study, is_figure
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.recipes import load_recipe
from trichord.store import StoreWriter
from trichord.study.run import run_study

pytestmark = pytest.mark.usefixtures("without_chart")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the collection `tiny`, a second one, `other`, with test clips only, and a study on the first."""
    root = tmp_path_factory.mktemp("card")
    with StoreWriter(root / "store", word_vectors()) as writer:
        for index in range(14):
            item = tiny_item(index, "train" if index < 8 else "test")
            if index >= 11:
                item.collection = "other"
            writer.add(item)
    recipe = load_recipe(
        "debug",
        training={"tensorboard": False, "max_steps": 2, "device": "cpu"},
        data={"collection": "tiny"},
        evaluation={"directions": ["t2v", "t2va"]},
    )
    run_study(root / "store", root / "study", ["avt"], [0], recipe)
    return root


@pytest.fixture(scope="module")
def stage(root: Path) -> Path:
    return next((root / "study" / "stages").iterdir())


@pytest.fixture
def evaluated(root: Path, stage: Path, tmp_path: Path) -> Callable[..., Path]:
    def run(*words: str) -> Path:
        assert main(["evaluate", str(stage), "--store", str(root / "store"), *words, "--out", str(tmp_path / "r")]) == 0
        return tmp_path / "r"

    return run


def card_of(stage: Path, results: Path | None) -> ModelCard:
    card = make_card(Embedder.from_run(stage, results=results).parts, name="model")
    return ModelCard(str(card), ignore_metadata_errors=False)


def table_of(card: ModelCard) -> list[dict[str, str]]:
    lines = [line for line in card.text.split("\n") if line.startswith("|")]
    begin = next(i for i, line in enumerate(lines) if "| measure |" in line)
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[begin:]]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def test_chosen_settings_are_listed_with_the_figures(stage: Path, evaluated: Callable[..., Path]) -> None:
    chosen = (
        "--fusion mean_normalized --windows 3 --window_s 1 --dual_softmax 50 --missing miss --directions [t2v,t2va]"
    )
    results = evaluated("--benchmark", "tiny/test", "other", *chosen.split())
    card = card_of(stage, results)
    rows = table_of(card)
    written = json.loads((results / "results.json").read_text())["benchmarks"]
    assert [done["clips"] for done in written] == ["tiny/test", "other/test"]
    wanted = [row["of"] for done in written for row in done["rows"] if row["measure"] != "MeanR"]
    assert [row["of"] for row in rows] == wanted and len(rows) == 16
    assert {row["clips"] for row in rows} == {"tiny/test", "other/test"}
    for row in rows:
        setting = f"{row['of']}, {row['scored with']}"
        for part in ("mean_normalized", "dual softmax 50", "3", "1 s", "mean", "missing clips counted as errors"):
            assert part in setting, (part, setting)
        assert "window" in setting
    for result in card.data.eval_results:
        args = result.dataset_args
        assert (args["fusion"], args["dual_softmax"], args["missing"]) == ("mean_normalized", 50, "miss")
        assert (args["windows"], args["protocol"], args["clips"]) == (
            "3 of 1 s (mean)",
            "retrieval",
            f"{result.dataset_name}/test",
        )
    other = table_of(card_of(stage, evaluated("--benchmark", "tiny")))
    assert not any(word in " ".join(other[0].values()) for word in ("dual", "window", "errors"))


def test_a_file_is_named_without_its_folder(root: Path, stage: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    video, text = rng.standard_normal((2, 6, 4)).astype(np.float32)
    Embedded.of({"video": video, "text": text}).save(tmp_path / "my clips.npz")
    for names, message, split in (
        ([], "file my clips.npz", None),
        (["youcook2"], "file my clips.npz, as youcook2/val", "val"),
    ):
        words = ["evaluate", "--embeddings", str(tmp_path / "my clips.npz"), "--out", str(tmp_path / "r")]
        assert main([*words, *(["--benchmark", *names] if names else [])]) == 0
        card = card_of(stage, tmp_path / "r")
        assert {row["clips"] for row in table_of(card)} == {message} and str(tmp_path) not in str(card)
        assert {r.dataset_split for r in card.data.eval_results} == {split}
        known = {("youcook2", "YouCook2")} if names else {("my-clips", "my clips.npz")}
        assert {(r.dataset_type, r.dataset_name) for r in card.data.eval_results} == known
        assert ("is not recorded" in card.text.split("## Limits")[1]) == (not names)


def labels_of(root: Path, collection: str) -> Path:
    """Return labels that alternate between clips, since nothing else is needed."""
    from trichord.study.loading import load_for_scoring
    from trichord.tasks.subject import ClipSet, Subject

    stage = next((root / "study" / "stages").iterdir())
    store, trained, _, settings = load_for_scoring(stage, root / "store")
    subject = Subject.of_model("x", trained.model, store, settings, trained.trained)
    ids = [
        name
        for split in ("train", "test")
        for name in subject.embedded(ClipSet(collection, split), ("video",)).ids.tolist()
    ]
    path = root / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "class"], *([name, "ab"[i % 2]] for i, name in enumerate(ids))])
    return path


def test_choices_of_other_tasks_are_kept_without_folders_of_this_machine(stage: Path, tmp_path: Path) -> None:
    chosen = {
        "on": "world", "fusion": "sum", "missing": "auto", "windows": None, "audio_window_s": 4.0, "seed": 3, "gallery": None,
        "dual_softmax": 0.0, "labels": f"{tmp_path}/my labels.csv", "templates": ["a {}", "the {}"],
        "text_encoder": f"hf:{tmp_path}/bert",
    }  # fmt: skip
    rows = {"localization": "t2v, sum", "classification": "video, class", "probe": "video, class"}
    content = {
        "subject": "run", "store": {"path": str(tmp_path), "fingerprint": "0"},
        "benchmarks": [
            {
                **dict.fromkeys(("name", "protocol", "title", "kind"), kind), "paragraph": "", "options": chosen,
                "clips": "world/test", "notes": [],
                "rows": [
                    {
                        "protocol": kind, "of": target, "measure": "recall, pooled", "value": 2.0, "num": 5, "chance": None,
                        "unit": "%",
                    }
                ],
            }
            for kind, target in rows.items()
        ],
    }  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps(content))
    steps, classes, probe = (figure["how"] for figure in figures_of_evaluation(tmp_path))
    assert steps == {
        "protocol": "localization", "direction": "t2v", "fusion": "sum", "missing": "policy of the protocol",
        "audio_window_s": 4.0, "text_encoder": "hf:bert",
    }  # fmt: skip
    assert (classes["labels"], classes["templates"], probe["seed"]) == ("my labels.csv", "a {} | the {}", 3)
    assert (
        "direction" not in probe
        and "audio_window_s" not in probe
        and "text_encoder" not in probe
        and "seed" not in classes
    )
    card = card_of(stage, tmp_path)
    assert str(tmp_path) not in str(card)
    settings = [row["scored with"] for row in table_of(card)]
    assert "sound of 4 s" in settings[0] and "templates a {} \\| the {}" in settings[1] and "seed 3" in settings[2]
    types = {(r.task_type, r.metric_type, r.metric_name) for r in card.data.eval_results}
    assert ("step-localization", "recall_pooled", "recall, pooled") in types


def test_intervals_of_other_tasks_than_retrieval_are_shown(
    root: Path, stage: Path, evaluated: Callable[..., Path]
) -> None:
    labels = labels_of(root, "tiny")
    results = evaluated("--benchmark", "full-video:tiny", "knn:tiny", "--labels", str(labels))
    card = card_of(stage, results)
    written = [r for d in json.loads((results / "results.json").read_text())["benchmarks"] for r in d["rows"]]
    assert any(row["low"] is not None for row in written if row["protocol"].startswith("knn"))
    rows = table_of(card)
    assert len(rows) == len(written)
    for row, shown in zip(written, rows, strict=True):
        value = shown[r"value \[95 % interval\]"]
        interval = rf"\[{row['low']:.2f}, {row['high']:.2f}\]" if row["low"] is not None else ""
        assert value.endswith(interval) and ("[" in value) == bool(interval)
    assert "labels labels.csv" in str(rows) and str(root) not in str(card)
    limits = card.text.split("## Limits")[1]
    assert "learn from the labels" in limits and "the model was trained on clips of tiny." in limits


def test_a_study_and_its_evaluation_give_the_same(stage: Path, evaluated: Callable[..., Path]) -> None:
    """Two ways to the same figures, including intervals of recalls and the median rank."""
    of_study = figures_of_study(stage)
    of_results = figures_of_evaluation(evaluated("--benchmark", "tiny"))
    tiny = [figure for figure in of_study if figure["collection"] == "tiny"]
    assert len(tiny) == len(of_results) == 8 and all(map(is_figure, of_study))
    for one, two in zip(tiny, of_results, strict=True):
        for key in ("clips", "split", "of", "measure", "value", "chance", "num", "gallery", "low", "high"):
            assert one[key] == (pytest.approx(two[key]) if isinstance(two[key], float) else two[key]), key
        assert one["low"] is not None
        assert {k: v for k, v in one["how"].items() if k != "protocol"} == {
            k: v for k, v in two["how"].items() if k != "protocol"
        }


def test_results_that_are_not_of_one_model(root: Path, stage: Path, tmp_path: Path) -> None:
    words = ["--store", str(root / "store"), "--benchmark", "tiny", "--out"]
    assert main(["evaluate", str(root / "study"), *words, str(tmp_path / "all"), "--seeds", "[0]"]) == 0
    with pytest.raises(
        TrichordError, match="several models; give the folder of one of them, such as .*/all/avt/seed-0$"
    ):
        figures_of_evaluation(tmp_path / "all")
    assert len(figures_of_evaluation(tmp_path / "all" / "avt" / "seed-0")) == 8
    assert main(["evaluate", str(stage), *words, str(tmp_path / "rows.json")]) == 0
    with pytest.raises(TrichordError, match="evaluate again with --out FOLDER"):
        figures_of_evaluation(tmp_path / "rows.json")
    for models in (3, [3], None):
        (tmp_path / "results.json").write_text(json.dumps({"models": models}))
        with pytest.raises(TrichordError):
            figures_of_evaluation(tmp_path)


def test_zero_shot_evaluations_are_labelled(root: Path, stage: Path, evaluated: Callable[..., Path]) -> None:
    limits = card_of(stage, evaluated("--benchmark", "tiny/test", "tiny/train", "other")).text.split("## Limits")[1]
    assert "Zero-shot: the model was not trained on the collection of other/test." in limits
    assert "Not zero-shot: tiny/test are held-out clips of a collection that the model was trained on." in limits
    assert "Not zero-shot: the model was trained on clips of tiny/train." in limits
    alone = card_of(stage, evaluated("--benchmark", "tiny")).text.split("## Limits")[1]
    assert "Not zero-shot" in alone and "Zero-shot:" not in alone and "Recalls are zero-shot" not in alone
    figures = figures_of_evaluation(evaluated("--benchmark", "tiny"))
    assert "is not recorded" in limits_section(figures, {}), "a published checkpoint does not say what it saw"
    assert "was not trained on the collection of tiny/test" in limits_section(figures, {"collections": "tin, tiny2"})
    assert "are held-out clips" in limits_section(figures, {"collections": "a, tiny"})
    assert "trained on clips of tiny/test" in limits_section(figures, {"collections": "tiny", "train_split": "test"})
    assert "ero-shot" not in limits_section([], {})


def known(results: list[EvalResult]) -> Counter[str]:
    return Counter(json.dumps(asdict(result), sort_keys=True) for result in results)


def test_the_hub_reads_the_card_as_intended(root: Path, stage: Path, evaluated: Callable[..., Path]) -> None:
    labels = labels_of(root, "tiny")
    names = ["tiny", "other", "full-video:tiny", "clustering:tiny", "knn:tiny"]
    figures = figures_of_evaluation(
        evaluated("--benchmark", *names, "--directions", "all", "--labels", str(labels), "--windows", "2")
    )
    results = [evaluation_result(figure) for figure in figures]
    assert len({(r.dataset_config, r.metric_type) for r in results}) == len(results)
    name, again = model_index_to_eval_results(eval_results_to_model_index("m", results))
    assert name == "m" and known(again) == known(results)
    data = ModelCardData(model_name="m", eval_results=results)
    read = ModelCardData(**yaml.safe_load(data.to_yaml()))
    assert read.eval_results is not None and known(read.eval_results) == known(results)
    for result, figure in zip(results, figures, strict=True):
        assert result.dataset_type == slug(result.dataset_type) and result.task_type == slug(result.task_type)
        assert result.metric_type == slug(result.metric_type, "_") and "--" not in json.dumps(asdict(result))
        assert result.metric_value == round(figure["value"], 4)
        assert result.metric_args["num"] == figure["num"] and figure["title"] != result.dataset_name
        assert result.dataset_name in ("tiny", "other")
    assert len({task["dataset"]["config"] for task in eval_results_to_model_index("m", results)[0]["results"]}) == len(
        {(figure["benchmark"], figure["of"]) for figure in figures}
    )
    first = results[0]
    assert (first.metric_type, first.metric_name, first.dataset_split) == ("recall_at_1", "Recall@1", "test")


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("cc-by-4.0", ("cc-by-4.0", None)),
        ("CC-BY-4.0", ("cc-by-4.0", None)),
        ("other", ("other", None)),
        ("my license", ("other", "my-license")),
        ("a: b\n- c", ("other", "a-b-c")),
        ("Apache License, Version 2.0", ("other", "apache-license-version-2.0")),
        ("cc-by-4.0-", ("other", "cc-by-4.0")),
        ("Überlassen, frei", ("other", "berlassen-frei")),
        ("", None),
        ("2.0", None),
        ("...", None),
    ],
)
def test_licenses(message: str, wanted: tuple[str, str | None] | None) -> None:
    if wanted is None:
        with pytest.raises(TrichordError, match="is not a license; give an identifier of the hub, such as cc-by-4.0"):
            hub_license(message)
        return
    assert hub_license(message) == wanted


def test_a_license_in_words_is_reported(stage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export-model", str(stage), "--out", str(tmp_path / "model"), "--license"]
    assert main([*words, "My license"]) == 0
    printed = capsys.readouterr().out
    assert (
        "the card has license: other, license_name: my-license" in printed and "does not state a license" not in printed
    )
    card = ModelCard.load(tmp_path / "model" / "README.md", ignore_metadata_errors=False)
    assert (card.data.license, card.data.license_name) == ("other", "my-license")
    assert "| license of the weights | My license |" in card.text
    shutil.rmtree(tmp_path / "model")
    assert main([*words, "MIT"]) == 0
    assert "the card has license: mit, the spelling of the hub" in capsys.readouterr().out
    card = ModelCard.load(tmp_path / "model" / "README.md", ignore_metadata_errors=False)
    assert card.data.license == "mit" and "license_name" not in card.data.to_dict()
    shutil.rmtree(tmp_path / "model")
    assert main([*words, "..."]) == 2
    capsys.readouterr()
    model = Embedder.from_run(stage)
    for options in ({"license": "..."}, {"license": 3}, {"name": 3}):
        with pytest.raises(TrichordError):
            model.save_pretrained(tmp_path / "model", model_card_kwargs=options)
    assert not (tmp_path / "model").exists(), "said before anything is written"


def test_published_data_sets_have_their_names() -> None:
    figure = {
        "benchmark": "msrvtt", "title": "MSR-VTT", "protocol": "Take `--gallery FILE`.",
        "kind": "retrieval", "clips": "msrvtt/test", "collection": "msrvtt", "split": "test", "of": "t2va, sum",
        "measure": "R@10", "unit": "%", "value": 12.34567, "low": 10.0, "high": 15.0, "chance": 1.0, "num": 1000,
        "gallery": 968, "how": {"protocol": "msrvtt", "fusion": "sum", "missing": "miss"},
    }  # fmt: skip
    (task,) = eval_results_to_model_index("m", [evaluation_result(figure)])[0]["results"]
    assert task == {
        "task": {"type": "text-to-video-audio-retrieval", "name": "Retrieval, text to video and audio"},
        "dataset": {
            "name": "MSR-VTT", "type": "msr-vtt", "config": "msrvtt, t2va, sum", "split": "test",
            "args": {"protocol": "msrvtt", "fusion": "sum", "missing": "miss", "clips": "msrvtt/test", "gallery": 968},
        },
        "metrics": [
            {
                "type": "recall_at_10", "value": 12.3457, "name": "Recall@10",
                "args": {"num": 1000, "chance": 1.0, "low_95": 10.0, "high_95": 15.0},
            }
        ],
    }  # fmt: skip
    other = evaluation_result({**figure, "how": {"protocol": "retrieval"}})
    assert other.dataset_config == "retrieval:msrvtt, t2va, sum", "the same clips under another protocol are apart"
    before = {key: value for key, value in figure.items() if key not in ("clips", "collection", "split", "how")}
    assert is_figure(before), "as earlier versions kept them"
    assert evaluation_result(before).dataset_name == "MSR-VTT"
    assert "not recorded" in results_section([before]) and "is not recorded" in limits_section(
        [before], {"collections": "a"}
    )
    for wrong in ({"how": 3}, {"how": {"a": None}}, {"clips": 3}, {"low": "x"}):
        assert not is_figure({**figure, **wrong})


def test_examples_run(example_files: Path) -> None:
    run_examples("trichord.embedder.results", example_files)
