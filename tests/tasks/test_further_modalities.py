"""Embeddings of modalities beyond video, audio and text: directions, benchmarks, and files with names and letters."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import forked
from trichord import modality
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.modality import Direction, declare, declared
from trichord.report.plots_look import GREY, modality_colour
from trichord.study.scores import read_scores
from trichord.tasks.retrieval.measure import all_directions, score_direction
from trichord.tasks.steps.scores import step_directions
from trichord.tasks.subject import Subject

SUFFIXES = (".npz", ".safetensors")
CLASSES = ["cook", "eat", "mend", "sing"]


@pytest.fixture(autouse=True)
def depth(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(modality, "_declared", {})
    declare({"depth": "d"})
    yield


def forget() -> None:
    modality._declared.clear()


def embedded(num: int = 40, modalities: tuple[str, ...] = ("video", "audio", "text", "depth")) -> Embedded:
    """Clips of four classes, which text and depth identify; video and audio are noise. Clip 3 has no depth."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(num, 8))
    rows = {m: truth + 0.01 * rng.normal(size=truth.shape) for m in ("text", "depth")}
    rows |= {m: rng.normal(size=truth.shape) for m in ("video", "audio")}
    valid = {m: np.ones(num, bool) for m in rows}
    valid["depth"][3] = False
    kinds = [CLASSES[i % 4] for i in range(num)]
    splits = ["train" if i % 8 < 4 else "test" for i in range(num)]
    for m in ("text", "depth"):
        rows[m] += 2 * np.eye(8)[[i % 4 for i in range(num)]]
        rows[m] /= np.linalg.norm(rows[m], axis=1, keepdims=True)
    return Embedded.of(
        {m: rows[m] for m in modalities}, valid=valid, labels={"class": kinds, "split": splits}, captions=kinds
    )


def test_all_directions() -> None:
    three = ("t2v", "t2a", "t2va", "v2t", "v2a", "v2ta", "a2t", "a2v", "a2vt", "va2t", "ta2v", "vt2a")

    def codes(*modalities: str) -> tuple[str, ...]:
        return tuple(direction.code for direction in all_directions(modalities))

    assert codes("video", "audio", "text") == three
    declare({"pose": "p"})
    single = ("t2v", "t2a", "t2d", "v2t", "v2a", "v2d", "a2t", "a2v", "a2d", "d2t", "d2v", "d2a")
    assert codes("text", "depth", "video", "audio") == single
    assert codes("depth", "text") == ("t2d", "d2t")
    assert len(codes("video", "audio", "text", "depth", "pose")) == 20


@pytest.mark.parametrize("code", ["d2t", "t2d", "t2vd", "da2t"])
def test_directions_with_a_further_modality_are_scored(code: str) -> None:
    clips = embedded()
    result = score_direction(clips.embeddings, clips.valid, Direction.parse(code), name="x")
    assert result.num_queries == 39 and result.num_missing == 1
    assert result.r1 > 90 or code in ("t2vd", "da2t")
    assert result.chance_r1 == pytest.approx(100 / 39)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_embeddings_declares_its_modalities(tmp_path: Path, suffix: str) -> None:
    clips = embedded()
    clips.save(tmp_path / f"e{suffix}")
    forget()
    again = Embedded.load(tmp_path / f"e{suffix}")
    assert declared() == {"depth": "d"} and list(again.embeddings) == ["video", "audio", "text", "depth"]
    assert np.array_equal(again.embeddings["depth"], clips.embeddings["depth"])
    assert not again.valid["depth"][3] and again.valid["depth"].sum() == 39
    assert Subject.of_embeddings(again).modalities == ("video", "audio", "text", "depth")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_without_further_modalities_is_as_before(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"e{suffix}"
    embedded(modalities=("video", "text")).save(path)
    names = set(np.load(path)) if suffix == ".npz" else set()
    assert "modalities" not in names and b"modalities" not in path.read_bytes()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["depth=v"], "modalities: modality depth: the letter v already stands for video"),
        (["depth"], "modalities: modality depth: '' is not a letter"),
        (["../x=y"], "modalities: '../x' cannot be the name of a modality"),
        ([], "unknown array 'depth'; expected one of: video, audio, text, text_clip"),
    ],
)  # fmt: skip
def test_a_hostile_list_of_modalities_is_an_error_of_one_line(tmp_path: Path, entries: list[str], message: str) -> None:
    forget()
    path = tmp_path / "e.npz"
    np.savez(path, text=np.ones((2, 3)), depth=np.ones((2, 3)), modalities=np.array(entries, np.str_))
    with pytest.raises(TrichordError, match=message) as caught:
        Embedded.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and declared() == {}


def test_conflicting_letters_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    embedded().save(tmp_path / "e.npz")
    forget()
    declare({"dance": "d"})
    with pytest.raises(
        TrichordError, match=r"e\.npz: modalities: modality depth: the letter d already stands for dance"
    ):
        Embedded.load(tmp_path / "e.npz")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("fresh_process", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_benchmark_of_embeddings_scores_a_further_modality(
    fresh_process: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    embedded().save(tmp_path / "e.safetensors")
    names = ["retrieval", "zero-shot-classification", "linear-probe", "knn", "clustering"]
    words = ["evaluate", "--embeddings", str(tmp_path / "e.safetensors"), "--directions", "all", "--benchmark", *names]
    words += ["--out", str(tmp_path / "out")]
    monkeypatch.setenv("COLUMNS", "200")
    if fresh_process:
        done = forked.run([sys.executable, "-m", "trichord", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed = done.stdout
    else:
        forget()
        assert main(words) == 0
        printed = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "d2t" in printed and "depth, class" in printed
    assert results["modalities"] == {"depth": "d"}
    forget()
    assert main(["report", str(tmp_path / "out")]) == 0
    assert declared() == {"depth": "d"} and "| d2t" in (tmp_path / "out" / "report" / "report.md").read_text()


def test_steps_are_found_by_a_further_modality() -> None:
    clips = embedded()
    codes = [d.code for d in step_directions(Subject.of_embeddings(clips), "", (), "crosstask")]
    assert codes == ["t2v", "t2a", "t2d", "t2va"]
    alone = embedded(modalities=("text", "depth"))
    assert [d.code for d in step_directions(Subject.of_embeddings(alone), "", (), "crosstask")] == ["t2d"]


def test_an_unknown_letter_of_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embedded(modalities=("video", "text")).save(tmp_path / "e.npz")
    forget()
    assert main(["evaluate", "--embeddings", str(tmp_path / "e.npz"), "--directions", "d2t"]) == 2
    assert "direction 'd2t' contains the unknown letter 'd'; expected v, a and t" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ({"depth": "v"}, "results.json: modality depth: the letter v already stands for video"),
        ({"depth": 3}, "results.json: modality depth: '3' is not a letter"),
        ([["depth", "d"]], "results.json: its modalities are not names with letters"),
    ],
)  # fmt: skip
def test_a_hostile_record_of_an_evaluation_is_an_error_of_one_line(
    tmp_path: Path, modalities: object, message: str
) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"subject": "x", "benchmarks": [], "modalities": modalities}))
    with pytest.raises(TrichordError, match=message) as caught:
        read_scores(tmp_path)
    assert "\n" not in str(caught.value)


def test_modalities_have_colours_of_their_own() -> None:
    alone = modality_colour("depth")
    declare({"pose": "p", "touch": "h", "smell": "s", "heat": "i"})
    names = ("video", "audio", "text", "depth", "pose", "touch", "smell", "heat")
    assert len({modality_colour(name) for name in names}) == len(names)
    assert modality_colour("depth") == alone == modality_colour("D") and modality_colour("nothing") == GREY
