"""Mistakes in calls of `trichord evaluate`: an error of one line with advice, and no unintended figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tiny import write_tiny_store
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.recipes import load_recipe
from trichord.study.evaluate import evaluate
from trichord.study.run import train_order
from trichord.tasks.protocol import Options

pytestmark = pytest.mark.usefixtures("without_chart")


@pytest.fixture(scope="module")
def run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    recipe = load_recipe("debug", training={"tensorboard": False, "device": "cpu", "max_steps": 2})
    train_order(tiny_store, out, "av>t", 0, recipe)
    return out


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of 24 clips with two classes and folds; the names of the classes are texts."""
    path = tmp_path_factory.mktemp("labelled") / "e.npz"
    rng = np.random.default_rng(0)
    labels = {"class": ["a", "b"] * 12, "split": ["train", "train", "test"] * 8}
    rows = {"video": rng.normal(size=(24, 3)), "text": rng.normal(size=(24, 3))}
    Embedded.of(rows, labels=labels, captions=["a", "b"] * 12, videos=[f"v{i // 3}" for i in range(24)]).save(path)
    return path


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of the seconds of a video."""
    path = tmp_path_factory.mktemp("seconds") / "e.npz"
    seconds_file(start_s=[0.0, 1.0, 2.0, 3.0]).save(path)
    return path


def seconds_file(**more: object) -> Embedded:
    rng = np.random.default_rng(0)
    rows = {"video": rng.normal(size=(4, 3)), "audio": rng.normal(size=(4, 3)), "text": rng.normal(size=(2, 3))}
    labels = {"task": ["t"] * 4, "step": ["1", "", "2", ""]}
    return Embedded.of(rows, text_clip=[0, 0], videos=["v"] * 4, labels=labels, **more)  # type: ignore[arg-type]


def error_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the single line with which the command ends."""
    assert main(["evaluate", *words]) == 2
    error_text = capsys.readouterr().err
    assert (
        error_text.startswith("trichord: error: ")
        and len(error_text.splitlines()) == 1
        and "a defect" not in error_text
    )
    return error_text.removeprefix("trichord: error: ").strip()


def notes_of(path: Path, names: list[str], **more: object) -> str:
    evaluation = evaluate(None, None, names, embeddings=path, **more)  # type: ignore[arg-type]
    return "\n".join([*evaluation.notes, *(note for done in evaluation.benchmarks for note in done.outcome.notes)])


# ---- data that are not there


@pytest.mark.parametrize(
    ("name", "collection"),
    [("crosstask", "crosstask"), ("crosstask-original", "crosstask"), ("mining-youtube", "mining-youtube")],
)
@pytest.mark.parametrize("directions", [(), ("t2v",)])
def test_a_store_without_the_videos_names_the_import(
    name: str, collection: str, directions: tuple[str, ...], run: Path, tiny_store: Path
) -> None:
    with pytest.raises(TrichordError) as caught:
        evaluate(run, str(tiny_store), [name], directions=directions)
    message = f"contains no clips of {collection}/test; it has tiny/train, tiny/test; add them with `trichord import {collection}`"
    assert str(caught.value) == f"{tiny_store}: {message}"


def test_steps_without_a_common_modality_list_known_and_present_ones(run: Path, tmp_path: Path) -> None:
    mute = write_tiny_store(tmp_path / "mute", num_train=1, num_test=1, video=False, audio=False)
    with pytest.raises(
        TrichordError, match="needs a modality that the model and the store share, but tiny has no video and no audio"
    ):
        evaluate(run, str(mute), ["world-steps"])
    path = tmp_path / "texts.npz"
    Embedded.of({"text": np.eye(3)}).save(path)
    with pytest.raises(TrichordError, match=r"texts.npz: has neither video nor audio, which crosstask needs"):
        evaluate(None, None, ["crosstask"], embeddings=path)


# ---- choices


@pytest.mark.parametrize("name", ["clustering", "linear-probe", "knn", "retrieval"])
@pytest.mark.parametrize("seed", ["-5", "4294967296"])
def test_a_seed_that_none_can_draw_with(
    name: str, seed: str, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = error_of(["--embeddings", str(labelled), "--benchmark", name, "--seed", seed], capsys)
    assert message == f"--seed is {seed}; it must be at least 0, and at most 4,294,967,295"


def test_a_model_among_the_benchmarks_belongs_before_them(
    run: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tiny_store)]
    message = (
        f"{run} is given as a benchmark; if it is the model, put it first: trichord evaluate {run} --store STORE "
        "--benchmark full-video"
    )
    assert error_of(["--benchmark", "full-video", str(run), *store], capsys) == message
    assert error_of(["--benchmark", "full-video", str(run), "--seeds", "[0]", *store], capsys) == message
    message = error_of(["--benchmark", str(run), *store], capsys)
    assert (
        message
        == f"{run} is given as a benchmark; if it is the model, put it first: trichord evaluate {run} --store STORE"
    )
    message = error_of(["--benchmark", "full-video", str(tmp_path / "gone"), *store], capsys)
    assert message.startswith("give either a model and its --store") and "before --benchmark" in message


@pytest.mark.parametrize("name", ["retrieval", "full-video", "knn", "zero-shot-classification"])
def test_a_seed_without_random_choices_is_refused(name: str, labelled: Path) -> None:
    with pytest.raises(TrichordError, match=f"--seed has no effect on {name}; leave it out"):
        evaluate(None, None, [name], embeddings=labelled, options=Options(seed=3))


@pytest.mark.parametrize("name", ["linear-probe", "clustering"])
def test_a_seed_where_something_is_drawn_is_taken(name: str, labelled: Path) -> None:
    assert evaluate(None, None, ["knn", name], embeddings=labelled, options=Options(seed=3)).benchmarks


def test_the_sound_around_a_second_where_there_is_none_is_refused(run: Path, tiny_store: Path, seconds: Path) -> None:
    for names, more in (
        (["retrieval"], {"embeddings": seconds}),
        (["crosstask"], {"embeddings": seconds}),
        (["tiny"], {}),
        (["world-steps"], {"directions": "t2v"}),
    ):
        subject = (None, None) if more else (run, str(tiny_store))
        subject = subject if "embeddings" in more else (run, str(tiny_store))
        with pytest.raises(TrichordError, match=r"--audio_window_s has no effect on (retrieval|crosstask|tiny|world)"):
            evaluate(*subject, names, options=Options(audio_window_s=4.0), **more)  # type: ignore[arg-type]
    with pytest.raises(TrichordError, match="contains no annotated steps"):  # it would have an effect
        evaluate(run, str(tiny_store), ["world-steps"], options=Options(audio_window_s=4.0))


def test_a_recipe_other_than_that_of_the_model_is_reported(run: Path, tiny_store: Path, tmp_path: Path) -> None:
    own = evaluate(run, str(tiny_store), ["tiny"])
    assert not any("--recipe" in note for note in own.notes)
    other = evaluate(run, str(tiny_store), ["tiny"], recipe="mcn")
    (note,) = [note for note in other.notes if "--recipe" in note]
    assert note.startswith(f"{run}: --recipe mcn differs from the recipe of the model: ")
    mcn, debug = load_recipe("mcn"), load_recipe("debug")
    assert mcn.data.audio_frames != debug.data.audio_frames  # what is to be told
    assert f"audio_frames is {mcn.data.audio_frames} instead of {debug.data.audio_frames}" in note
    assert "directions" not in note and "block" not in note  # the same, and of no effect on figures
    changed = tmp_path / "mine.yaml"
    changed.write_text("extends: debug\nevaluation: {directions: [v2t], cosine: 'yes', block: 7}\n")
    (note,) = [n for n in evaluate(run, str(tiny_store), ["tiny"], recipe=str(changed)).notes if "--recipe" in n]
    usual = ", ".join(debug.evaluation.directions)
    assert note.endswith(f"recipe of the model: cosine is True instead of False; directions is v2t instead of {usual}")
    explicit = evaluate(run, str(tiny_store), ["tiny"], recipe=str(changed), directions="t2v")
    assert not any("directions" in note for note in explicit.notes)
    same = evaluate(run, str(tiny_store), ["tiny"], recipe="debug")
    assert [n for n in same.notes if "--recipe" in n] == [
        f"{run}: --recipe debug reads and scores clips in the same way as the recipe of the model"
    ]
    assert same.results() == own.results()


# ---- what is said of a file of embeddings


@pytest.mark.parametrize("names", [["knn"], ["linear-probe"], ["clustering"], ["knn", "clustering"]])
def test_dot_products_are_not_mentioned_for_other_scores(names: list[str], labelled: Path) -> None:
    assert "dot products" not in notes_of(labelled, names)


@pytest.mark.parametrize("name", ["retrieval", "full-video", "zero-shot-classification", "crosstask"])
def test_dot_products_are_mentioned_where_they_score(name: str, labelled: Path, seconds: Path) -> None:
    path = seconds if name == "crosstask" else labelled
    message = f"scores of {name} use dot products of the embeddings as given (fusion sum); --fusion mean_normalized uses cosines"
    assert message in notes_of(path, ["knn", name] if path == labelled else [name])
    assert "dot products" not in notes_of(path, [name], options=Options(fusion="mean_normalized"))


@pytest.mark.parametrize(
    ("start_s", "message"),
    [
        ([0.0, 1.0, 2.0, 3.0], None),
        ([3.0, 2.0, 1.0, 0.0], None),
        ([0.0, 8.0, 16.0, 24.0], "rows of 1 of 1 videos are not 1 s apart (median 8 s, first 'v')"),
        ([0.0, 1.0, 2.0, 4.0], "rows of 1 of 1 videos are not 1 s apart (median 1 s, first 'v')"),
        (None, "1 of 1 videos have no start_s, first 'v': rows count as consecutive seconds in the order of the file"),
        (
            [5.0] * 4,
            "1 of 1 videos have no start_s, first 'v': rows count as consecutive seconds in the order of the file",
        ),
    ],
)
def test_rows_that_are_not_seconds_are_reported(
    start_s: list[float] | None, message: str | None, tmp_path: Path
) -> None:
    seconds_file(start_s=start_s).save(tmp_path / "e.npz")
    notes = notes_of(tmp_path / "e.npz", ["crosstask"])
    assert ("1 of 1 videos" in notes) == (message is not None) and (message or "") in notes
    assert ("each row counts as a second" in notes) == ("apart" in (message or ""))


# ---- how choices are written


def test_one_template_needs_no_brackets(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"video": np.eye(2), "text": np.eye(2)}
    embedded = Embedded.of(rows, labels={"class": ["a", "b"]}, captions=["a video, of a", "a video, of b"])
    embedded.save(tmp_path / "e.npz")
    words = ["--embeddings", str(tmp_path / "e.npz"), "--benchmark", "zero-shot-classification", "--templates"]
    assert error_of([*words, "a"], capsys).startswith(
        "template 'a' has no placeholder for the class; write {} in its place"
    )
    for template in ("a video, of {}", "['a video, of {}']", "['a video, of {}', '{} moves']"):
        assert main(["evaluate", *words, template]) == 0
        assert "100.00 (chance 50.00)" in capsys.readouterr().out


def test_one_order_and_one_seed_need_no_brackets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def parsed(*words: str) -> tuple[list[str], list[int]]:
        (tmp_path / "study").mkdir(exist_ok=True)
        taken: dict[str, list] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "trichord.study.evaluate_orders.evaluate_orders", lambda *_, **more: taken.update(more) or 1 / 0
            )
            assert main(["evaluate", str(tmp_path / "study"), "--store", "s", *words]) == 2
        assert "ZeroDivisionError" in capsys.readouterr().err
        return taken["orders"], taken["seeds"]

    assert parsed("--orders", "av>t") == (["av>t"], [])
    assert parsed("--orders", "av>t, vt>a", "--seeds", "0") == (["av>t", "vt>a"], [0])
    assert parsed("--seeds", "0") == ([], [0])
    assert parsed("--orders", "[av>t,vt>a]", "--seeds", "[0,1]") == (["av>t", "vt>a"], [0, 1])
    assert parsed("--orders", "['av>t,avt']", "--seeds", "0,2") == (["av>t", "avt"], [0, 2])
    for word in ("x", "0,x", "1.5"):
        message = error_of([str(tmp_path), "--store", "s", "--seeds", word], capsys)
        assert message == f"--seeds is {word}; give an integer, or several separated by commas, such as 0,1"


def test_benchmarks_as_one_list(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--benchmarks", "knn,clustering"], ["--benchmarks", "[knn,clustering]"], ["--benchmarks", "knn"]):
        assert main(["evaluate", "--embeddings", str(labelled), *words]) == 0
        assert ("NMI" in capsys.readouterr().out) == ("clustering" in words[1])


def test_clips_are_explained_by_the_protocol_that_scores_them(
    tiny_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def explained(*words: str) -> str:
        assert main(["evaluate", "--explain", *words]) == 0
        return capsys.readouterr().out

    for name in ("retrieval:a/b", "videos/test", "youcook2/val"):
        message = explained(name)
        assert message.startswith(f"{name} is scored by retrieval.\n\nretrieval: Retrieval on any clips (retrieval)\n")
    assert "\nfull-video: Full videos" in explained("full-video:a/b")
    assert explained("youcook2").startswith("youcook2: YouCook2")
    assert explained("tiny", "--store", str(tiny_store)).startswith("tiny is scored by retrieval.")
    assert "unknown benchmark 'tiny'; expected one of" in error_of(["--explain", "tiny"], capsys)
    assert "unknown benchmark 'nope:a/b'; expected one of" in error_of(["--explain", "nope:a/b"], capsys)
    message = error_of(["--explain", "gone", "--store", str(tiny_store)], capsys)
    assert "contains no clips of benchmark 'gone'; it has tiny" in message
    message = error_of(["--explain", "crosstask:a/b"], capsys)
    assert message == "the clips of benchmark crosstask cannot be chosen; leave ':a/b' out"


def test_classes_with_unknown_words(run: Path, tiny_store: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("id,kind\n" + "".join(f"video{i:03d},{'PlayFlute' if i % 2 else 'run'}\n" for i in range(12, 16)))
    with pytest.raises(TrichordError) as caught:
        evaluate(run, str(tiny_store), ["zero-shot-classification"], options=Options(labels=str(table)))
    assert str(caught.value) == (
        "benchmark zero-shot-classification: the names of the classes of 'kind' cannot be embedded: none of their words has a "
        "vector ('PlayFlute' is read as 'play flute'); import the clips with other --words"
    )


def test_a_benchmark_that_is_named_twice_is_scored_once(labelled: Path) -> None:
    evaluation = evaluate(None, None, ["knn", "retrieval", "knn"], embeddings=labelled)
    assert [done.name for done in evaluation.benchmarks] == ["knn", "retrieval"]
