"""`trichord evaluate`: protocols by name, on a model or on embeddings, and the files that it writes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from process_helpers import free_port, join_gloo, start_processes
from scoring_helpers import evaluate_retrieval, read_ranks
from tiny import VIDEO_DIM, WORD_DIM, word_vectors
from trichord.captions import Captions
from trichord.cli import main
from trichord.data.reader import Clips
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.modality import Direction
from trichord.nn import MCN
from trichord.recipes import load_recipe
from trichord.store import Item, Store, StoreWriter
from trichord.study import evaluate as module
from trichord.study.evaluate import evaluate, save_embeddings
from trichord.study.evaluation import write_evaluation
from trichord.study.evaluation_files import read_gallery
from trichord.study.run import train_order
from trichord.tasks.benchmarks import ScoringSettings, embed_clips, find_benchmark
from trichord.tasks.protocol import Options
from trichord.tasks.registry import find_protocol, protocols
from trichord.tasks.retrieval.measure import all_directions
from trichord.tasks.subject import ClipSet, Subject
from trichord.tasks.windows import Windows, pooled, window_clips

SETTINGS = ScoringSettings(visual_streams=("visual_2d",), min_clip_s=4.0, audio_frames=500, max_words=6)
NAMES = ("youcook2", "youcook2-full", "youcook2-mteb", "msrvtt", "msrvtt-1k-a", "msrvtt-full", "lsmdc", "retrieval")
NAMES += ("youcook2-videos", "full-video")


def network() -> MCN:
    torch.manual_seed(0)
    return MCN(
        video_dim=VIDEO_DIM, embed_dim=8, word_dim=WORD_DIM, reconstruction_dim=None, audio_channels=(4, 4, 4, 4)
    ).eval()


def subject(store: Path) -> Subject:
    return Subject.of_model("net", network(), Store(store), SETTINGS)


@pytest.fixture(scope="module")
def run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    recipe = load_recipe("debug", training={"tensorboard": False, "device": "cpu", "max_steps": 2})
    train_order(tiny_store, out, "av>t", 0, recipe)
    return out


def test_every_protocol_explains_itself() -> None:
    assert set(NAMES) <= set(protocols())
    for name, protocol in protocols().items():
        text = protocol.explanation()
        assert protocol.name == name and len(protocol.paragraph) > 60 and text.startswith(f"{name}: {protocol.title}")
        assert "Requires: " in text and "Reports: " in text
    assert "Published sizes: 2,990 clips, 59,800 texts" in find_protocol("msrvtt-full").explanation()
    with pytest.raises(TrichordError, match="unknown benchmark 'nope'; expected one of youcook2, youcook2-full,"):
        find_protocol("nope")


def test_a_model_scores_as_in_a_study(tiny_store: Path) -> None:
    scored_subject, store = subject(tiny_store), Store(tiny_store)
    codes = [direction.code for direction in all_directions()]
    outcome = find_protocol("retrieval").run(scored_subject, Options(on="tiny", directions=codes))
    plain = evaluate_retrieval(
        network(), store, find_benchmark(store, "tiny"), [Direction.parse(c) for c in codes], SETTINGS
    )
    assert outcome.details["results"] == [row.to_dict() for row in plain] and len(plain) == 12
    for row in plain:
        assert row.ranks is not None
        assert np.array_equal(outcome.arrays[f"tiny/{row.direction}/greater"], row.ranks.greater)
    assert {(row.of, row.measure) for row in outcome.rows} >= {("t2va, sum", "R@10"), ("vt2a, sum", "MedR")}


def clip_store(path: Path, collection: str, split: str, videos: list[dict[str, object]]) -> Path:
    """A store of clips as in the published releases: whole items with captions over the whole span."""
    with StoreWriter(path, word_vectors()) as writer:
        for index, video in enumerate(videos):
            rng = np.random.default_rng([3, index])
            streams, rates = {}, {}
            if (rows := video.get("rows", 1)) is not None:
                streams["visual_2d"] = rng.random((rows, VIDEO_DIM)).astype(np.float32)  # type: ignore[arg-type]
                rates["visual_2d"] = 0.0 if rows == 1 else 1.0
            if video.get("audio", True):
                streams["spectrogram"], rates["spectrogram"] = rng.normal(-40, 5, (300, 40)).astype(np.float32), 100.0
            texts = tuple(video.get("texts", ("worda wordb",)))  # type: ignore[arg-type]
            spans = np.zeros(len(texts)), np.full(len(texts), 3.0)
            writer.add(Item(str(video["id"]), collection, split, 3.0, streams, rates, Captions(*spans, texts)))
    return path


def test_several_captions_make_one_clip_with_several_texts(tmp_path: Path) -> None:
    texts = [("worda wordb", "wordc", "wordd"), ("worde",), ("wordf wordg", "wordf wordg"), ("wordh",)]
    videos = [{"id": f"video{i}", "texts": captions} for i, captions in enumerate(texts)] + [
        {"id": "mute", "audio": False}
    ]
    scored_subject = subject(clip_store(tmp_path / "s", "msrvtt-full", "test", videos))
    outcome = find_protocol("msrvtt-full").run(scored_subject, Options(directions=("t2v", "v2t", "a2t", "ta2v")))
    rows = {row["direction"]: row for row in outcome.details["results"]}
    counts = {code: (row["num_queries"], row["num_gallery"], row["num_missing"]) for code, row in rows.items()}
    assert counts == {"t2v": (8, 5, 0), "v2t": (5, 8, 0), "a2t": (4, 7, 1), "ta2v": (7, 4, 1)}
    assert outcome.arrays["msrvtt-full/t2v/clip"].tolist() == [0, 0, 0, 1, 2, 2, 3, 4]
    assert outcome.arrays["msrvtt-full/v2t/truths"].tolist()[2] == 2, "a caption that stands twice"
    assert any("5 clips instead of 2,990" in note for note in outcome.notes)
    assert any("8 texts instead of 59,800" in note for note in outcome.notes)
    e = scored_subject.embedded(ClipSet("msrvtt-full", "test", 3072, "all"), ("video",))
    assert e.captions is not None and e.captions.tolist()[:2] == ["worda wordb", "wordc"] and e.num_clips == 5
    scores = e.embeddings["video"].astype(np.float64) @ e.embeddings["text"].astype(np.float64).T
    best = [max(scores[c][e.text_clip == c]) for c in range(5)]
    above = [(scores[c].astype(np.float32) > np.float32(best[c])).sum() for c in range(5)]
    assert outcome.arrays["msrvtt-full/v2t/greater"].tolist() == above


def test_msrvtt_counts_missing_clips_and_1k_a_does_not(tmp_path: Path) -> None:
    videos = [{"id": f"video{i}", "audio": i < 9} for i in range(12)]
    store = clip_store(tmp_path / "s", "msrvtt", "test", videos)
    counts = {}
    for name in ("msrvtt", "msrvtt-1k-a"):
        (row,) = find_protocol(name).run(subject(store), Options(directions=("t2va",))).details["results"]
        counts[name] = (row["num_queries"], row["num_gallery"], row["num_missing"], row["missing"])
    assert counts == {"msrvtt": (12, 9, 3, "miss"), "msrvtt-1k-a": (9, 9, 3, "drop")}


def test_youcook2_galleries(tmp_path: Path) -> None:
    videos = [{"id": f"video-{i % 3}-abc_{i}", "rows": 1 if i in (2, 5) else 4} for i in range(10)]
    scored_subject = subject(clip_store(tmp_path / "s", "youcook2", "val", videos))
    options = Options(directions=("t2v",))
    whole = find_protocol("youcook2").run(scored_subject, options)
    full = find_protocol("youcook2-full").run(scored_subject, options)
    assert [o.details["results"][0]["num_gallery"] for o in (whole, full)] == [10, 8]
    assert "youcook2-full: 2 clips do not belong to it" in full.notes
    assert "youcook2-full: 8 clips instead of 3,339, so figures are not comparable to published ones" in full.notes
    with pytest.raises(TrichordError, match="needs a list of clips; give --gallery FILE"):
        find_protocol("youcook2-mteb").run(scored_subject, options)
    (tmp_path / "ids.txt").write_text("video-0-abc_0\nvideo-1-abc_1\n\nelsewhere\nvideo-0-abc_0\n")
    gallery = read_gallery(tmp_path / "ids.txt")
    some = find_protocol("youcook2-mteb").run(scored_subject, Options(directions=("t2v",), gallery=gallery))
    assert some.details["results"][0]["num_gallery"] == 2
    assert "youcook2-mteb: 1 of 3 clips of the gallery are missing" in some.notes
    with pytest.raises(
        TrichordError, match="the gallery: none of its 1 ids occurs in .* names in the gallery: 'x'; names in "
    ):
        find_protocol("youcook2-mteb").run(scored_subject, Options(directions=("t2v",), gallery=("x",)))
    few = Options(directions=("t2v",), gallery=("video-0-abc_0.mp4", "x", "y"))
    with pytest.raises(TrichordError, match="2 of its 3 ids are not in .* 'x', 'y'; .*--missing drop"):
        find_protocol("youcook2-mteb").run(scored_subject, few)
    kept = find_protocol("youcook2-mteb").run(scored_subject, replace(few, missing="drop"))
    assert kept.arrays["youcook2-mteb/id"].tolist() == ["video-0-abc_0"]
    films = find_protocol("youcook2-videos").run(scored_subject, options)
    assert films.arrays["youcook2-videos/video"].tolist() == [f"video-{i}-abc"[:11] for i in range(3)]
    assert {row.num for row in films.rows} == {10, 3}
    (tmp_path / "pooled").mkdir()
    pooled_only = subject(clip_store(tmp_path / "p", "youcook2", "val", [{"id": "a"}, {"id": "b"}]))
    with pytest.raises(TrichordError, match="none of 2 clips belongs to benchmark youcook2-full"):
        find_protocol("youcook2-full").run(pooled_only, options)


def test_a_diverged_model_is_reported(tiny_store: Path) -> None:
    broken = network()
    with torch.no_grad():
        next(p for name, p in broken.named_parameters() if "video" in name).fill_(float("nan"))
    scored_subject = Subject.of_model("net", broken, Store(tiny_store), SETTINGS)
    with pytest.raises(TrichordError, match="net: video embeddings of tiny/test are not finite"):
        find_protocol("retrieval").run(scored_subject, Options(directions=("t2v",)))
    assert find_protocol("retrieval").run(scored_subject, Options(directions=("t2a",))).rows


def test_ranks_of_several_texts_are_read_back(tmp_path: Path) -> None:
    """Clip 0 has a duplicate text that ties with one of clip 1: two of the three tied texts are correct."""
    text = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    e = Embedded.of({"video": np.eye(2), "text": text}, text_clip=[0, 0, 1, 1])
    e.save(tmp_path / "e.npz")
    evaluation = evaluate(None, None, embeddings=tmp_path / "e.npz", directions=["v2t", "t2v"])
    write_evaluation(evaluation, tmp_path / "out")
    ranks = read_ranks(tmp_path / "out" / "queries.npz", "retrieval", "v2t")
    assert ranks.truths is not None and ranks.truths.tolist() == [2, 1] and ranks.hits(1) == pytest.approx([2 / 3, 1.0])
    asked = read_ranks(tmp_path / "out" / "queries.npz", "retrieval", "t2v")
    assert asked.text is not None and asked.text.tolist() == [0, 1, 2, 3] and asked.clip.tolist() == [0, 0, 1, 1]
    assert evaluation.results()[0]["r1"] == pytest.approx(100 * (2 / 3 + 1) / 2)


# ---- windows


def test_windows_are_evenly_spaced_and_short_clips_are_whole() -> None:
    clips = Clips(np.array([4, 5]), np.array([0.0, 10.0]), np.array([10.0, 12.0]), [np.array([0]), np.array([1])])
    cut, clip_of_window = window_clips(clips, Windows(3, 4.0))
    assert clip_of_window.tolist() == [0, 0, 0, 1] and cut.item.tolist() == [4, 4, 4, 5]
    assert cut.start_s.tolist() == [0, 3, 6, 10] and cut.end_s.tolist() == [4, 7, 10, 12]
    rows = np.array([[1.0, 9.0], [4.0, 2.0], [7.0, 1.0], [5.0, 5.0]], np.float32)
    valid = {"video": np.array([True, False, True, False])}
    for pool, expected in (("mean", [4.0, 5.0]), ("max", [7.0, 9.0])):
        vectors, there = pooled({"video": rows}, valid, clip_of_window, 2, Windows(3, 4.0, pool))
        assert vectors["video"].tolist() == [expected, [0.0, 0.0]] and there["video"].tolist() == [True, False]
    for arguments in ((0, 4.0), (2, 0.0), (2, float("nan"))):
        with pytest.raises(TrichordError, match="are invalid; give a number of at least 1 and a length above 0 s"):
            Windows(*arguments)
    with pytest.raises(TrichordError, match="unknown pooling of windows 'sum'; expected mean or max"):
        Windows(2, 4.0, "sum")


def test_windows_are_embedded_by_themselves(tiny_store: Path) -> None:
    scored_subject, store = subject(tiny_store), Store(tiny_store)
    whole = scored_subject.embedded(ClipSet("tiny", "test"), ("video", "text"))
    embedded = scored_subject.embedded(ClipSet("tiny", "test"), ("video", "text"), Windows(2, 3.0))
    assert np.array_equal(embedded.embeddings["text"], whole.embeddings["text"])
    items = np.full(2, store.select("tiny", "test")[0])
    start = np.array([whole.start_s[0], whole.end_s[0] - 3.0])
    cut = Clips(items, start, start + 3.0, [np.array([0]), np.array([0])])
    alone = embed_clips(network(), store, cut, ("video",), 500, SETTINGS)[0]["video"].numpy()
    np.testing.assert_allclose(embedded.embeddings["video"][0], alone.mean(0), rtol=1e-5, atol=1e-6)
    assert not np.allclose(embedded.embeddings["video"][0], whole.embeddings["video"][0])


# ---- the command


def test_files_that_statistics_read(run: Path, tiny_store: Path, tmp_path: Path) -> None:
    evaluation = evaluate(run, str(tiny_store), ["tiny", "full-video:tiny"], directions="t2va,v2t")
    write_evaluation(evaluation, tmp_path / "results")
    content = json.loads((tmp_path / "results" / "results.json").read_text())
    assert [b["protocol"] for b in content["benchmarks"]] == ["retrieval", "full-video"]
    assert content["store"]["fingerprint"] == Store(tiny_store).fingerprint
    assert content["benchmarks"][0]["rows"][0]["of"].startswith("t2va, ")
    assert any("v2t left out" in note for note in content["benchmarks"][1]["notes"])
    ranks = read_ranks(tmp_path / "results" / "queries.npz", "tiny", "t2va")
    assert 100 * ranks.hits(10).mean() == pytest.approx(evaluation.results()[0]["r10"])
    assert ranks.num_gallery == 32


def test_embeddings_score_as_their_model(run: Path, tiny_store: Path, tmp_path: Path) -> None:
    evaluation = evaluate(run, str(tiny_store), ["tiny"], directions="all")
    for suffix in (".npz", ".safetensors"):
        path = tmp_path / f"e{suffix}"
        save_embeddings(evaluation, path)
        again = evaluate(None, None, ["retrieval"], embeddings=path, options=Options(fusion=evaluation.subject.fusion))
        assert len(evaluation.results()) == 12
        for saved, other in zip(again.results(), evaluation.results(), strict=True):
            assert saved == {**other, "benchmark": "retrieval"}
    both = evaluate(run, str(tiny_store), ["tiny", "tiny/train"], directions="t2v")
    with pytest.raises(
        TrichordError,
        match="the benchmarks use 2 sets of clips, but a file can contain only one; evaluate one benchmark at a time",
    ):
        save_embeddings(both, tmp_path / "x.npz")


def evaluate_in_launch(rank: int, world: int, port: int, run: Path, store: Path, out: Path) -> None:
    join_gloo(rank, world, port)
    evaluation = evaluate(run, str(store), ["tiny", "full-video"], num_windows=2, window_s=3.0)
    write_evaluation(evaluation, out / "several")
    save_embeddings(evaluation, out / "several.npz")
    (out / f"{rank}.json").write_text(
        json.dumps([row.to_dict() for b in evaluation.benchmarks for row in b.outcome.rows])
    )
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_launch_evaluates_as_one_process(run: Path, tiny_store: Path, tmp_path: Path) -> None:
    evaluation = evaluate(run, str(tiny_store), ["tiny", "full-video"], num_windows=2, window_s=3.0)
    write_evaluation(evaluation, tmp_path / "one")
    save_embeddings(evaluation, tmp_path / "one.npz")
    start_processes(2, evaluate_in_launch, 2, free_port(), run, tiny_store, tmp_path)
    rows = [row.to_dict() for b in evaluation.benchmarks for row in b.outcome.rows]
    assert all(json.loads((tmp_path / f"{rank}.json").read_text()) == rows for rank in range(2))
    for name in ("results.json", "queries.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "several" / name).read_bytes()
    one, several = (Embedded.load(tmp_path / f"{name}.npz") for name in ("one", "several"))
    assert all(np.array_equal(one.embeddings[m], several.embeddings[m]) for m in ("video", "audio", "text"))


def test_options_without_effect_are_errors(run: Path, tiny_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "e.npz"
    Embedded.of({"video": np.eye(3), "text": np.eye(3)}).save(path)
    for arguments, message in (
        ({"run": run, "store_path": None}, "give either a model and its --store, or --embeddings FILE"),
        ({"run": run, "store_path": str(tiny_store), "embeddings": path}, "give either a model and its --store"),
        ({"run": None, "store_path": None}, "give either a model and its --store"),
        ({"run": None, "store_path": None, "embeddings": path, "recipe": "mcn"}, "have no effect on embeddings"),
        ({"run": None, "store_path": None, "embeddings": path, "num_windows": 3}, "have no effect on embeddings"),
        ({"run": run, "store_path": str(tiny_store), "window_s": 3.0}, "have no effect without --windows"),
        ({"run": None, "store_path": None, "embeddings": path, "directions": ["t2a"]}, "needs audio, which these embeddings lack"),
        ({"run": None, "store_path": None, "embeddings": path, "names": ["nope"]}, "unknown benchmark 'nope'"),
        ({"run": run, "store_path": str(tiny_store), "names": ["nope"]}, "contains no clips of benchmark 'nope'"),
        ({"run": run, "store_path": str(tiny_store), "names": ["lsmdc"]}, "contains no clips of lsmdc/test"),
        ({"run": None, "store_path": None, "embeddings": path, "options": Options(fusion="max")}, "fusion cannot be 'max'"),
        ({"run": None, "store_path": None, "embeddings": path, "options": Options(missing="no")}, "missing cannot be 'no'"),
        ({"run": run, "store_path": str(tiny_store), "names": ["youcook2:tiny"]}, "cannot be chosen"),
    ):  # fmt: skip
        with pytest.raises(TrichordError, match=re.escape(message)):
            evaluate(**arguments)


def test_a_collection_named_like_a_protocol_is_scored_by_it(tmp_path: Path) -> None:
    right = Store(clip_store(tmp_path / "right", "lsmdc", "test", [{"id": "a"}, {"id": "b"}]))
    other = Store(clip_store(tmp_path / "other", "lsmdc", "val", [{"id": "a"}, {"id": "b"}]))
    assert module.resolve("lsmdc", right)[1:] == (protocols()["lsmdc"], "")
    assert module.resolve("lsmdc", other)[1:] == (protocols()["retrieval"], "lsmdc")
    assert module.resolve("lsmdc/val", other)[1:] == (protocols()["retrieval"], "lsmdc/val")
    assert module.resolve("full-video:lsmdc/val", other)[1:] == (protocols()["full-video"], "lsmdc/val")


def test_the_command_lists_explains_and_scores(
    run: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in NAMES)
    assert main(["evaluate", "--explain", "youcook2"]) == 0
    assert "3,350 of the 3,492 validation clips" in capsys.readouterr().out
    words = [
        "evaluate",
        str(run),
        "--store",
        str(tiny_store),
        "--directions",
        "t2va,v2t",
        "--fusion",
        "mean_normalized",
    ]
    out, saved = tmp_path / "out", tmp_path / "e.npz"
    more = ["--benchmark", "tiny", "full-video", "--out", str(out), "--save-embeddings", str(saved)]
    assert main([*words, *more]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "mean_normalized" in printed and "best clip" in printed and "chance" in printed
    assert sorted(p.name for p in out.iterdir()) == ["queries.npz", "results.json"] and saved.is_file()
    assert main(["evaluate", "--embeddings", str(saved), "--dual_softmax", "20", "--directions", "all"]) == 0
    assert "dual softmax (scale 20) uses all queries" in " ".join(capsys.readouterr().out.split())
