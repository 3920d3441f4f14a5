"""Rows and notes of retrieval state how they were computed: windows, sizes, missing clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trichord.evaluation.embedded import Embedded
from trichord.recipes import load_recipe
from trichord.store import Store
from trichord.study.evaluate import evaluate
from trichord.study.evaluation_tables import results_table
from trichord.study.ranks import fault_of_rows
from trichord.study.run import train_order
from trichord.study.scores import fusion_of, target_of
from trichord.tasks.protocol import Options
from trichord.tasks.registry import find_protocol
from trichord.tasks.retrieval.measure import RetrievalResult
from trichord.tasks.subject import Subject
from trichord.tasks.windows import Windows

SIZE = "so figures are not comparable to published ones"


@pytest.fixture(scope="module")
def trained(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    recipe = load_recipe("debug", training={"tensorboard": False, "device": "cpu", "max_steps": 2})
    train_order(tiny_store, out, "av>t", 0, recipe)
    return out


def notes(name: str, clips: Embedded, **options: object) -> list[str]:
    chosen = Options(directions=("t2v",), **options)  # type: ignore[arg-type]
    return find_protocol(name).run(Subject.of_embeddings(clips), chosen).notes


def clips(num_clips: int, num_texts: int, **more: object) -> Embedded:
    rng = np.random.default_rng(0)
    sides = {"video": rng.normal(size=(num_clips, 2)), "text": rng.normal(size=(num_texts, 2))}
    return Embedded.of(sides, text_clip=np.arange(num_texts) % num_clips, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "size"),
    [("youcook2", 3350), ("youcook2-full", 3339), ("youcook2-videos", 3350), ("youcook2-mteb", 3104), ("msrvtt", 1000),
     ("msrvtt-1k-a", 1000), ("lsmdc", 1000)],
)  # fmt: skip
def test_several_captions_under_a_protocol_with_one(name: str, size: int) -> None:
    ids = [f"GLd3aX16z{i % 9}g_{i}" for i in range(size)]
    gallery = {"gallery": tuple(ids)} if name == "youcook2-mteb" else {}
    several = clips(size, 2 * size, ids=ids)
    assert f"{name}: {2 * size:,} texts instead of {size:,}, {SIZE}" in notes(name, several, **gallery)
    assert not any(SIZE in note for note in notes(name, clips(size, size, ids=ids), **gallery))


def test_one_line_where_clips_have_one_text_each() -> None:
    size_notes = [note for note in notes("lsmdc", clips(30, 30)) if SIZE in note]
    assert size_notes == [f"lsmdc: 30 clips instead of 1,000, {SIZE}"]


def test_how_to_give_the_clips_of_msrvtt_that_lack_audio() -> None:
    text = notes("msrvtt", clips(968, 968))
    assert any(
        n.startswith("msrvtt: 32 clips are missing") and "give 1,000 rows" in n and "audio_valid" in n for n in text
    )
    assert not any("do not count as errors" in note for note in notes("msrvtt", clips(1000, 1000)))
    assert not any("do not count as errors" in note for note in notes("msrvtt", clips(968, 968), missing="drop"))
    assert not any("do not count as errors" in note for note in notes("msrvtt-1k-a", clips(968, 968)))


def test_everything_at_once_scores_other_clips() -> None:
    text = find_protocol("youcook2").explanation()
    assert "Those of Everything at Once are for other clips (youcook2-full), 4,608 frames" in text
    assert "`t2v+a` is t2va here" in text and "4,608 frames" in find_protocol("youcook2-full").explanation()


def test_windows_are_in_the_names_of_rows(trained: Path, tiny_store: Path) -> None:
    mark = "2 windows of 3 s, max"
    names = ["tiny", "full-video:tiny"]
    evaluation = evaluate(
        trained, str(tiny_store), names, directions="t2va", num_windows=2, window_s=3.0, window_pool="max"
    )
    retrieval, full = (done.outcome for done in evaluation.benchmarks)
    fusion = evaluation.subject.fusion
    assert {row.of for row in retrieval.rows} == {f"t2va, {fusion}, {mark}"}
    assert {row.of.partition(": ")[0] for row in full.rows} == {f"t2va, {fusion}, {mark}"}
    assert len({row.of for row in full.rows}) == 5
    for name, outcome in (("tiny", retrieval), ("full-video:tiny", full)):
        assert f"{name}: clips longer than 3 s are embedded as 2 windows of this length (max)" in outcome.notes
        assert {row.protocol for row in outcome.rows} == {name}
    assert retrieval.details["results"][0]["windows"] == mark
    plain = evaluate(trained, str(tiny_store), names, directions="t2va")
    assert {row.of for row in plain.benchmarks[0].outcome.rows} == {f"t2va, {fusion}"}


def test_windows_are_in_the_names_of_figures_of_labels(trained: Path, tiny_store: Path, tmp_path: Path) -> None:
    store = Store(tiny_store)
    names = [store.video_id(int(i)) for i in store.select("tiny", "train")] + [
        store.video_id(int(i)) for i in store.select("tiny", "test")
    ]
    lines = [
        f"{name},{'ab'[i % 2]},{'test' if i % 4 > 1 else 'train'},{'train' if i % 4 > 1 else 'test'}"
        for i, name in enumerate(names)
    ]
    (tmp_path / "l.csv").write_text("\n".join(["id,class,fold-1,fold-2", *lines]))
    protocols = ["linear-probe", "knn", "clustering"]
    options = Options(labels=str(tmp_path / "l.csv"))
    evaluation = evaluate(trained, str(tiny_store), protocols, options=options, num_windows=2, window_s=3.0)
    mark = "2 windows of 3 s, mean"
    for done in evaluation.benchmarks:
        rows, name = done.outcome.rows, done.name
        assert rows and all(f", class, {mark}" in row.of for row in rows)
        assert f"{name}: clips longer than 3 s are embedded as 2 windows of this length (mean)" in done.outcome.notes
        heads = {head.rpartition("/")[0] for head in done.outcome.arrays if head.endswith("/truth")}
        assert heads and all(mark in head for head in heads)
    probe = {row.of for row in evaluation.benchmarks[0].outcome.rows}
    assert f"video, class, {mark}, fold-1" in probe and f"video, class, {mark}, mean of 2 folds" in probe


def test_description_of_windows() -> None:
    assert (Windows(10, 3.0).text, Windows(1, 2.5, "max").text) == ("10 windows of 3 s, mean", "1 window of 2.5 s, max")
    result = RetrievalResult(
        "x", "t2va", 1.0, 2.0, 3.0, 4.0, 5.0, 6, 7, 0, "drop", 1.0, 1.0, 1.0, dual_softmax=100.0,
        windows="10 windows of 3 s, mean"
    )  # fmt: skip
    assert result.of == "t2va, sum, dual softmax 100, 10 windows of 3 s, mean"
    assert "10 windows of 3 s, mean" in list(results_table([result]).columns[2].cells)[0]


def test_figures_that_were_kept_before_are_read() -> None:
    row = RetrievalResult("x", "t2v", 1.0, 2.0, 3.0, 4.0, 5.0, 6, 7, 0, "drop", 1.0, 1.0, 1.0).to_dict()
    del row["windows"], row["dual_softmax"]
    assert fault_of_rows([row]) == ""


@pytest.mark.parametrize(
    ("kind", "row_of", "target", "fusion"),
    [
        ("retrieval", "t2v, sum, 10 windows of 3 s, mean", "t2v", ("sum", "")),
        ("retrieval", "t2v, sum, dual softmax 1e+02, 1 window of 2.5 s, max", "t2v", ("sum", "1e+02")),
        ("retrieval", "t2v, sum, 2 windows of 3 s, max: caption, votes", "t2v: caption, votes", ("sum", "")),
        ("probe", "video, class, 2 windows of 3 s, max, fold-1", "video, class, fold-1", ("", "")),
    ],
)
def test_the_report_shows_figures_with_and_without_windows(
    kind: str, row_of: str, target: str, fusion: tuple[str, str]
) -> None:
    assert (target_of(kind, row_of), fusion_of(kind, row_of)) == (target, fusion)
