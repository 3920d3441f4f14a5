"""Classification, probes and clusters as protocols: on embeddings with labels, on a store, and by command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import VIDEO_DIM, WORD_DIM, word_vectors
from trichord.captions import Captions
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.losses.centroids import Centroids
from trichord.nn import MCN
from trichord.recipes import load_recipe
from trichord.store import Item, Store, StoreWriter
from trichord.study.evaluate import evaluate
from trichord.study.run import train_order
from trichord.tasks.benchmarks import ScoringSettings
from trichord.tasks.labels.clips import joined, labelled
from trichord.tasks.labels.clusters import agreement, chance_agreement
from trichord.tasks.labels.own_clusters import own_sides
from trichord.tasks.protocol import Options, Outcome
from trichord.tasks.registry import find_protocol, protocols
from trichord.tasks.subject import Subject

NAMES = ("zero-shot-classification", "linear-probe", "knn", "clustering")
CLASSES = ("worda", "wordb", "wordc")


def planted(num: int = 24, noise: float = 0.1, **more: Any) -> Embedded:
    """Return clips of three classes along one axis each; text i is the name of the class; two thirds are for training."""
    rng = np.random.default_rng(0)
    kind = np.arange(num) % 3
    rows = {m: np.eye(4)[kind] + noise * rng.standard_normal((num, 4)) for m in ("video", "audio")}
    names = [CLASSES[k] for k in kind]
    labels = {"class": names, "split": ["test" if i % 4 == 0 else "train" for i in range(num)]}
    fields = {"labels": labels, "captions": names, "ids": [f"c{i}" for i in range(num)]} | more
    return Embedded.of({**rows, "text": np.eye(4)[kind]}, **fields)


def run(name: str, embedded: Embedded, **options: Any) -> Outcome:
    return find_protocol(name).run(Subject.of_embeddings(embedded), Options(**options))


def value(outcome: Outcome, target: str, measure: str = "top-1") -> tuple[float, float | None, int]:
    (row,) = [r for r in outcome.rows if r.of == target and r.measure == measure]
    return row.value, row.chance, row.num


def test_all_protocols_find_planted_classes() -> None:
    embedded = planted()
    assert set(NAMES) <= set(protocols())
    for name, target in (
        ("zero-shot-classification", "{}, class"),
        ("linear-probe", "{}, class"),
        ("knn", "{}, class, k = 5"),
    ):
        outcome = run(name, embedded)
        for side in ("video", "audio", "video+audio"):
            assert value(outcome, target.format(side)) == (100.0, pytest.approx(100 / 3), 6), name
    outcome = run("clustering", embedded)
    assert value(outcome, "video+audio, class", "ARI")[0] == 100
    assert value(run("linear-probe", embedded), "video, class: the most frequent class") == (
        pytest.approx(100 / 3),
        None,
        6,
    )


def test_zero_shot_by_hand_with_lengths_missing_and_unknown_classes() -> None:
    # Two classes with texts, one of them twice as long. Products with clips (1, 0), (0, 1), (1, 1), (0.9, 0.5):
    #   a (1, 0): 1 0 1 .9    b (0, 2): 0 2 2 1   -> a b b b; by cosine a (1, 0), b (0, 1): a, b, tie, a
    video = np.array([[1, 0], [0, 1], [1, 1], [0.9, 0.5], [np.nan, 0], [1, 0]], np.float32)
    text = np.array([[1, 0], [0, 2], [1, 0], [1, 0], [1, 0], [9, 9]], np.float32)
    embedded = Embedded.of(
        {"video": video, "text": text},
        captions=["A", "b", "a", "a", "a", "other"],
        labels={"class": ["a", "b", "a", "a", "a", "Zed"]},
    )
    plain = run("zero-shot-classification", embedded)
    # of 5 clips with video: a right, b right, wrong, wrong, Zed never
    assert value(plain, "video, class") == (pytest.approx(40), pytest.approx(100 / 3 * 4 / 5), 5)
    assert value(plain, "video, class", "top-1, mean over classes")[0] == pytest.approx(100 * (1 / 3 + 1 + 0) / 3)
    assert "1 of 3 classes of class have no text embedding and are never chosen: Zed" in " ".join(plain.notes)
    assert "1 of 6 clips lack video and are left out" in " ".join(plain.notes)
    cosine = run("zero-shot-classification", embedded, fusion="mean_normalized")
    assert value(cosine, "video, class")[0] == pytest.approx(100 * (1 + 1 + 0.5 + 1) / 5)
    missed = run("zero-shot-classification", embedded, missing="miss")
    assert value(missed, "video, class") == (pytest.approx(100 * 2 / 6), pytest.approx(100 / 3 * 4 / 6), 6)
    head = "zero-shot-classification/video, class"
    assert missed.arrays[f"{head}/classes"].tolist() == ["Zed", "a", "b"]
    assert missed.arrays[f"{head}/truth"].tolist() == [1, 2, 1, 1, 1, 0]
    assert missed.arrays[f"{head}/greater"].tolist() == [0, 0, 1, 1, 3, 3]


def test_each_fold_has_a_row_and_their_mean_another(tmp_path: Path) -> None:
    embedded = planted(noise=1.2, labels={})
    path = tmp_path / "labels.csv"
    rows = [
        f"c{i},{CLASSES[i % 3]},{'test' if i < 12 else 'train'},{'test' if i >= 18 else 'train'}" for i in range(24)
    ]
    path.write_text("\n".join(["id,class,fold-1,fold-2", *rows]))
    for name, target in (("zero-shot-classification", "video, class"), ("linear-probe", "video, class"),
                     ("knn", "video, class, k = 1")):  # fmt: skip
        outcome = run(name, embedded, labels=str(path))
        first, second = (value(outcome, f"{target}, fold-{n}") for n in (1, 2))
        mean = value(outcome, f"{target}, mean of 2 folds")
        assert (first[2], second[2], mean[2]) == (12, 6, 18)
        assert mean[0] == pytest.approx((first[0] + second[0]) / 2) and first[0] < 100
        for row in outcome.rows:  # clips 12 to 17 are never tested
            assert row.each is not None and row.each_of == f"{name}/id" and len(row.each) == 24
            first_fold, second_fold = list(range(12)), list(range(18, 24))
            counted = {"fold-1": first_fold, "fold-2": second_fold}.get(
                row.of.split(", ")[-1], first_fold + second_fold
            )
            assert np.flatnonzero(~np.isnan(row.each)).tolist() == counted, row.of
            assert 100 * np.nanmean(row.each) == pytest.approx(row.value)
            assert row.low is not None and row.high is not None and row.low <= row.value <= row.high


def test_a_probe_learns_from_training_clips_alone() -> None:
    embedded = planted(noise=0.0)
    labels = dict(embedded.labels)
    labels["class"] = np.where(labels["split"] == "test", "wordc", labels["class"])  # the test labels are other ones
    for name, target in (("linear-probe", "video, class"), ("knn", "video, class, k = 5")):
        outcome = run(name, planted(noise=0.0, labels=labels))
        assert value(outcome, target)[0] == pytest.approx(100 / 3)  # right where wordc was planted


def test_training_clips_without_a_side_are_not_used_for_it() -> None:
    has_video = [i % 3 != 2 or i % 4 == 0 for i in range(24)]  # the third class has video in its two test clips alone
    outcome = run("linear-probe", planted(valid={"video": has_video}))
    assert value(outcome, "video, class")[:2] == (pytest.approx(400 / 6), pytest.approx(50 * 4 / 6))
    assert value(outcome, "audio, class")[0] == 100


def test_classes_without_training_clips_are_errors() -> None:
    names = [CLASSES[i % 3] for i in range(24)]
    names[0] = "new"
    labels = {"class": names, "split": ["test" if i % 4 == 0 else "train" for i in range(24)]}
    outcome = run("linear-probe", planted(labels=labels))
    assert value(outcome, "video, class")[:2] == (pytest.approx(500 / 6), pytest.approx(100 / 3 * 5 / 6))
    assert any(
        "1 classes of class have no training clip in split; their clips count as errors" in note
        for note in outcome.notes
    )


@pytest.mark.parametrize(
    ("name", "more", "options", "message"),
    [
        ("clustering", {"labels": {}}, {}, "embeddings: contains no labels; give a table with --labels FILE"),
        ("linear-probe", {"labels": {"class": ["a", "b"] * 12}}, {}, "does not define training clips"),
        ("knn", {"labels": {"class": ["a"] * 24, "split": ["train", "test"] * 12}}, {}, "have 1 classes of class"),
        (
            "zero-shot-classification",
            {"captions": ["x"] * 24},
            {},
            "benchmark zero-shot-classification: the names of the classes of 'class' cannot be embedded: none of them is a "
            "caption of the clips ('worda' would be 'worda'); add a text for each class",
        ),
        ("zero-shot-classification", {}, {"templates": ("hm",)}, "template 'hm' has no placeholder for the class"),
        ("clustering", {}, {"missing": "maybe"}, "unknown policy for missing clips 'maybe'; expected 'drop' or 'miss'"),
        (
            "knn",
            {"valid": {m: [False] * 24 for m in ("video", "audio")}},
            {},
            "no test clip with a label of class has video",
        ),
    ],
)
def test_impossible_requests_are_reported(name: str, more: dict, options: dict, message: str) -> None:
    with pytest.raises(TrichordError) as caught:
        run(name, planted(**more), **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_text_alone_and_models_without_text() -> None:
    alone = Embedded.of({"text": np.eye(3)}, labels={"class": ["a", "b", "c"]})
    with pytest.raises(TrichordError, match="has neither video nor audio, which benchmark clustering needs"):
        run("clustering", alone)
    silent = Embedded.of({"video": np.eye(3)}, labels={"class": ["a", "b", "c"]})
    with pytest.raises(
        TrichordError, match="benchmark zero-shot-classification needs text, which these embeddings lack"
    ):
        run("zero-shot-classification", silent)


def test_joined_sets_keep_whose_text_each_is() -> None:
    embedded = planted()
    first, second = embedded.take(np.array([3, 1])), embedded.take(np.array([7]))
    both = joined([first, second])
    assert both.ids.tolist() == ["c3", "c1", "c7"] and both.text_clip.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(both.embeddings["text"], embedded.embeddings["text"][[3, 1, 7]])
    assert both.labels["class"].tolist() == [embedded.labels["class"][i] for i in (3, 1, 7)]


def action_store(path: Path) -> Store:
    """Write videos `CLASS/v0`, ..., whose picture identifies the class and whose caption is its name; every third is for
    testing.
    """
    looks = np.random.default_rng(1).standard_normal((3, VIDEO_DIM)).astype(np.float32)
    with StoreWriter(path, word_vectors()) as writer:
        for i in range(18):
            streams = {"visual_2d": looks[[i % 3]] + 0.01 * i}
            captions = Captions(np.zeros(1), np.full(1, 5.0), (CLASSES[i % 3],))
            split = "test" if i % 6 < 3 else "train"
            name = f"{'train/' if split == 'train' else ''}{CLASSES[i % 3]}/v{i}"
            writer.add(Item(name, "acts", split, 5.0, streams, {"visual_2d": 0.0}, captions))
    return Store(path)


def subject_of(store: Store, centroids: Centroids | None = None) -> Subject:
    torch.manual_seed(0)
    network = MCN(
        video_dim=VIDEO_DIM, embed_dim=8, word_dim=WORD_DIM, reconstruction_dim=None, audio_channels=(4, 4, 4, 4)
    )
    settings = ScoringSettings(visual_streams=("visual_2d",), min_clip_s=4.0, audio_frames=500, max_words=6)
    return Subject.of_model("net", network.eval(), store, settings, centroids=centroids)


def test_a_store_whose_videos_lie_in_folders_of_their_class(tmp_path: Path) -> None:
    subject = subject_of(action_store(tmp_path / "store"))
    data = labelled(subject, Options(), ("video",), train=True)
    assert data.classes == {"class": list(CLASSES)} and data.embedded.num_clips == 18
    assert (data.folds["split"] == "test").sum() == 9
    assert set(zip(data.embedded.videos.tolist(), data.labels["class"].tolist(), strict=True)) == {
        (video, video.removeprefix("train/").split("/")[0]) for video in data.embedded.videos.tolist()
    }
    outcome = find_protocol("linear-probe").run(subject, Options())
    assert value(outcome, "video, class") == (100.0, pytest.approx(100 / 3), 9)  # audio is not in the store
    assert not [row for row in outcome.rows if "audio" in row.of]
    # zero-shot against the model's own embeddings of the words
    outcome = find_protocol("zero-shot-classification").run(subject, Options(on="acts/test"))
    store, model = subject.store, subject.model
    assert store is not None and model is not None
    embedded = subject.embedded(subject.clip_set("acts/test", "all"), ("video",))
    words = torch.from_numpy(store.word_vectors[[store.words.index(name) for name in CLASSES]])[:, None]
    scores = embedded.embeddings["video"] @ model.embed(text=words)["text"].detach().numpy().T
    right = [
        CLASSES[k] == video.split("/")[0] for k, video in zip(scores.argmax(1), embedded.videos.tolist(), strict=True)
    ]
    assert value(outcome, "video, class")[0] == pytest.approx(100 * np.mean(right))
    with pytest.raises(TrichordError, match="acts has no split with test clips; give folds with --labels"):
        find_protocol("knn").run(subject, Options(on="acts/train"))


def test_folds_of_a_table_take_all_splits_of_the_store(tmp_path: Path) -> None:
    store = action_store(tmp_path / "store")
    table = tmp_path / "labels.jsonl"
    rows = [{"id": store.video_id(i), "kind": CLASSES[i % 2], "fold-1": ["train", "test"][i // 9]} for i in range(18)]
    table.write_text("\n".join(map(json.dumps, rows)))
    outcome = find_protocol("knn").run(subject_of(store), Options(labels=str(table)))
    assert value(outcome, "video, kind, k = 5")[2] == 9 and {row.of.split(", ")[1] for row in outcome.rows} == {"kind"}


def slow_nearest(rows: list[np.ndarray], centroids: np.ndarray, cosine: bool) -> list[int]:
    """Return the nearest centroid of each clip in float64, one clip and one centroid at a time."""
    out = []
    for clip in zip(*(r.astype(np.float64) for r in rows), strict=True):
        mean = np.mean([row / np.linalg.norm(row) if cosine else row for row in clip], axis=0)
        scores = [mean @ c / np.linalg.norm(c) for c in centroids.astype(np.float64)]
        out.append(int(np.argmax(scores)))
    return out


@pytest.mark.parametrize("cosine", [True, False])
def test_clusters_of_the_models_own_centroids(cosine: bool, tmp_path: Path) -> None:
    store = action_store(tmp_path / "store")
    rows = torch.randn(9, 8, generator=torch.Generator().manual_seed(5))
    subject = subject_of(store, Centroids(rows, cosine))
    outcome = find_protocol("clustering").run(subject, Options(on="acts/test"))
    embedded = subject.embedded(subject.clip_set("acts/test", "all"), ("video", "text"))
    assert embedded.one_text_each and embedded.num_clips == 9
    kind = np.array([CLASSES.index(video.split("/")[0]) for video in embedded.videos.tolist()])
    for side in (("video",), ("video", "text")):  # the store has no sound
        head = f"clustering:acts/test/{'+'.join(side)}, class, own centroids"
        cluster = outcome.arrays[f"{head}/cluster"]
        assert cluster.tolist() == slow_nearest([embedded.embeddings[m] for m in side], rows.numpy(), cosine)
        assert outcome.arrays[f"{head}/truth"].tolist() == kind.tolist()
        assert outcome.arrays[f"{head}/clip"].tolist() == list(range(9))
        target = f"{'+'.join(side)}, class, own centroids"
        assert outcome.details["clusters"][target] == f"{len(set(cluster.tolist()))} of 9 used, 3 classes"
        got, chance = agreement(cluster, kind), chance_agreement(cluster, kind, 0)
        assert value(outcome, target, "NMI") == (got.nmi, chance.nmi, 9)
        assert value(outcome, target, "ARI") == (got.ari, chance.ari, 9)
        assert value(outcome, target, "purity") == (got.purity, chance.purity, 9)
    assert {row.of for row in outcome.rows} == {
        "video, class", "video, class, own centroids", "video+text, class, own centroids"
    }  # fmt: skip
    assert not [note for note in outcome.notes if "no rows of" in note]
    # what k-means gives is as it is without them
    plain = find_protocol("clustering").run(subject_of(store), Options(on="acts/test"))
    assert plain.rows == [row for row in outcome.rows if "own" not in row.of]
    assert any(
        "there are no rows of own centroids, since the model was trained without" in note for note in plain.notes
    )


def test_embeddings_from_a_file_have_no_centroids_and_no_word_of_them() -> None:
    outcome = run("clustering", planted())
    assert not [row for row in outcome.rows if "own" in row.of]
    assert not [note for note in outcome.notes if "centroids" in note]


def test_purity_has_an_interval_and_nmi_and_ari_have_none() -> None:
    labels = {"class": [CLASSES[i % 3] if i else "" for i in range(24)]}
    outcome = run("clustering", planted(noise=0.6, labels=labels, valid={"video": [i != 5 for i in range(24)]}))
    for row in outcome.rows:
        if row.measure != "purity":
            assert row.each is None and row.low is None
            continue
        assert row.each is not None and 100 * np.nanmean(row.each) == pytest.approx(row.value) and row.value < 100
        lost = [0, 5] if "video" in row.of else [0]
        assert np.flatnonzero(np.isnan(row.each)).tolist() == lost
        assert row.low is not None and row.high is not None and row.low < row.value < row.high


def test_several_texts_of_a_clip_count_with_their_mean() -> None:
    # clip 0: texts (9, 0) and (0, 1); clip 1: one text; clip 2: none; clip 3: no video
    embedded = Embedded.of(
        {
            "video": np.array([[1, 0], [0, 1], [1, 0], [1, 0]]),
            "text": np.array([[9, 0], [0, 1], [0, 2], [5, 0], [1, 1]]),
        },
        text_clip=[0, 0, 1, 3, 2],
        valid={"video": [True, True, True, False], "text": [True, True, True, True, False]},
    )
    angles = np.array([0, np.pi / 2, 0.7])
    axes = torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32))
    for cosine, first in ((True, 2), (False, 0)):
        # clip 0 by cosine: text at 45 degrees, with video at 22.5, nearest to 0.7 = 40; as they are: text (4.5, 0.5), 6 degrees
        own = Centroids(axes, cosine)
        sides = {side: (clips.tolist(), c.tolist()) for side, clips, c in own_sides(embedded, own, [("video",)])}
        assert sides == {("video",): ([0, 1, 2], [0, 1, 0]), ("video", "text"): ([0, 1], [first, 1])}


def test_own_centroids_of_a_training_by_command(
    tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from trichord.cli import main

    recipe = load_recipe("debug", training={"tensorboard": False, "device": "cpu", "max_steps": 4})
    folder = train_order(tiny_store, tmp_path / "run", "av>t", 0, recipe).model_folder
    store = Store(tiny_store)
    names = [store.video_id(int(i)) for i in store.select("tiny", "test")]
    (tmp_path / "l.csv").write_text("\n".join(["id,class", *(f"{n},{'ab'[i % 2]}" for i, n in enumerate(names))]))
    words = ["--store", str(tiny_store), "--benchmark", "clustering", "--labels", str(tmp_path / "l.csv")]
    assert main(["evaluate", str(tmp_path / "run"), *words, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "own centroids" in printed and "no rows of" not in printed
    (done,) = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]
    own = [row for row in done["rows"] if "own centroids" in row["of"]]
    assert {row["of"].split(",")[0] for row in own} == {"video", "audio", "video+audio", "video+audio+text"}
    with np.load(tmp_path / "out" / "queries.npz") as arrays:
        for row in own:
            head = f"clustering/{row['of']}"
            cluster, truth = arrays[f"{head}/cluster"], arrays[f"{head}/truth"]
            used = len(set(cluster.tolist()))
            assert row["num"] == 32 and done["clusters"][row["of"]] == f"{used} of 8 used, 2 classes"
            assert row["value"] == pytest.approx(getattr(agreement(cluster, truth), row["measure"].lower()))
            if row["measure"] == "purity":
                assert 100 * arrays[row["each"]].mean() == pytest.approx(row["value"])
    # a folder of before
    (folder / "centroids.safetensors").unlink()
    described = json.loads((folder / "model.json").read_text())
    described = {k: v for k, v in described.items() if k not in ("sha256", "centroids_sha256")}
    (folder / "model.json").write_text(json.dumps(described | {"format": 1}))
    assert main(["evaluate", str(tmp_path / "run"), *words]) == 0
    printed = capsys.readouterr().out
    assert "there are no rows of own centroids" in printed and "own centroids (" not in printed


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    planted().save(tmp_path / "e.npz")
    for options, message in ((Options(labels="x"), "--labels"), (Options(templates=("{}",)), "--templates")):
        with pytest.raises(TrichordError, match=f"{message} has no effect on retrieval; leave it out"):
            evaluate(None, None, ["retrieval"], embeddings=tmp_path / "e.npz", options=options)
    done = evaluate(None, None, list(NAMES), embeddings=tmp_path / "e.npz", options=Options(templates=("{}",)))
    assert [b.name for b in done.benchmarks] == list(NAMES)


def test_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trichord.cli import main

    planted(labels={}).save(tmp_path / "e.safetensors")
    rows = [f"c{i},{CLASSES[i % 3]},{'test' if i % 4 == 0 else 'train'}" for i in range(24)]
    (tmp_path / "l.csv").write_text("\n".join(["id,class,split", *rows]))
    words = ["evaluate", "--embeddings", str(tmp_path / "e.safetensors"), "--labels", str(tmp_path / "l.csv")]
    assert main([*words, "--benchmark", *NAMES, "--templates", '["{}"]', "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "100.00 (chance 33.33)" in printed and "inverse penalties" in printed
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [b["kind"] for b in kept["benchmarks"]] == ["classification", "probe", "probe", "clustering"]
    assert kept["benchmarks"][0]["options"]["labels"] == str(tmp_path / "l.csv")
    with np.load(tmp_path / "out" / "queries.npz") as arrays:
        assert arrays["knn/video, class, k = 1/truth"].tolist() == [0, 1, 2, 0, 1, 2]
    assert main(["evaluate", "--explain", "linear-probe"]) == 0
    assert "threefold cross-validation on the training clips" in capsys.readouterr().out
