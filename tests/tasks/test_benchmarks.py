"""Retrieval benchmarks of a store: galleries, missing clips, ties and chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scoring_helpers import evaluate_retrieval
from tiny import VIDEO_DIM, WORD_DIM, tiny_item, word_vectors, write_tiny_store
from trichord.captions import Captions
from trichord.data.batches import evaluation_clips
from trichord.errors import TrichordError
from trichord.modality import Direction
from trichord.nn import MCN
from trichord.store import Item, Store, StoreWriter
from trichord.tasks.benchmarks import (
    ScoringSettings,
    benchmark_names,
    embed_clips,
    find_benchmark,
)  # fmt: skip
from trichord.tasks.retrieval.measure import score_direction

SETTINGS = ScoringSettings(visual_streams=("visual_2d",), min_clip_s=4.0, audio_frames=500, max_words=6)


def model() -> MCN:
    torch.manual_seed(0)
    return MCN(
        video_dim=VIDEO_DIM, embed_dim=8, word_dim=WORD_DIM, reconstruction_dim=None, audio_channels=(4, 4, 4, 4)
    ).eval()


def test_the_sum_of_embeddings_answers_a_direction_of_several(tiny_store: Path) -> None:
    store, network = Store(tiny_store), model()
    benchmark = find_benchmark(store, "tiny")
    clips = evaluation_clips(store, store.select("tiny", "test"), 4.0)
    embeddings, valid = embed_clips(network, store, clips, ("video", "audio", "text"), 500, SETTINGS)
    scores = embeddings["text"] @ (embeddings["video"] + embeddings["audio"]).T
    ranks = 1 + (scores > scores.diagonal()[:, None]).sum(1)
    (result,) = evaluate_retrieval(network, store, benchmark, [Direction.parse("t2va")], SETTINGS)
    assert result.num_queries == result.num_gallery == len(clips) == 32
    assert result.r10 == pytest.approx(100 * float((ranks <= 10).float().mean()), abs=4)
    assert result.chance_r10 == pytest.approx(100 * 10 / 32)


def test_an_embedding_does_not_depend_on_the_clips_beside_it(tiny_store: Path) -> None:
    store, network = Store(tiny_store), model()
    clips = evaluation_clips(store, store.select("tiny", "test"), 4.0)
    together, _ = embed_clips(network, store, clips, ("audio",), 500, SETTINGS)
    alone, _ = embed_clips(network, store, clips.take(np.array([5])), ("audio",), 500, SETTINGS)
    torch.testing.assert_close(together["audio"][5:6], alone["audio"], rtol=1e-4, atol=1e-5)


def test_missing_clips_are_dropped_or_missed_by_name() -> None:
    rows = np.eye(10, dtype=np.float32)
    embeddings = {"text": rows, "video": rows}
    valid = {"text": np.ones(10, bool), "video": np.arange(10) < 8}
    direction = Direction.parse("t2v")
    dropped = score_direction(embeddings, valid, direction, name="youcook2", missing="drop", block=4)
    missed = score_direction(embeddings, valid, direction, name="msrvtt", missing="miss", block=4)
    assert (dropped.r1, dropped.num_queries, dropped.num_missing) == (100.0, 8, 2)
    assert (missed.r1, missed.num_queries, missed.num_missing) == (80.0, 10, 2)
    assert dropped.chance_r1 == pytest.approx(12.5) and missed.chance_r1 == pytest.approx(10.0)


def test_a_collapsed_model_scores_chance() -> None:
    flat = np.ones((40, 3), np.float32)
    valid = {m: np.ones(40, bool) for m in ("text", "video")}
    result = score_direction({"text": flat, "video": flat}, valid, Direction.parse("t2v"), name="youcook2", block=7)
    assert (result.r1, result.r5, result.r10) == pytest.approx((2.5, 12.5, 25.0))
    assert (result.r1, result.r5, result.r10) == pytest.approx((result.chance_r1, result.chance_r5, result.chance_r10))
    assert result.medr == 20.5


def test_msrvtt_counts_clips_without_features_as_errors(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        for index in range(12):
            streams = (
                {"visual_2d": np.random.default_rng(index).random((1, VIDEO_DIM)).astype(np.float32)}
                if index < 9
                else {}
            )
            spoken = Captions(np.zeros(1), np.full(1, 5.0), ("worda wordb",))
            writer.add(Item(f"video{index}", "msrvtt", "test", 5.0, streams, dict.fromkeys(streams, 0.0), spoken))
    store = Store(tmp_path / "s")
    (result,) = evaluate_retrieval(model(), store, find_benchmark(store, "msrvtt"), [Direction.parse("v2t")], SETTINGS)
    assert (result.num_gallery, result.num_queries, result.num_missing, result.missing) == (9, 12, 3, "miss")


def test_benchmarks_are_found_by_name_or_refused_with_the_known_ones(tiny_store: Path, tmp_path: Path) -> None:
    store = Store(tiny_store)
    assert benchmark_names(store) == ["tiny"]
    assert find_benchmark(store, "tiny/train").split == "train"
    for name in ("youcook2", "tiny/val", "nope"):
        with pytest.raises(TrichordError, match=f"contains no clips of benchmark '{name}'; it has tiny"):
            find_benchmark(store, name)
    silent = Store(write_tiny_store(tmp_path / "silent", num_train=1, num_test=2, audio=False))
    with pytest.raises(TrichordError, match="tiny/test needs audio, which the store lacks"):
        evaluate_retrieval(model(), silent, find_benchmark(silent, "tiny"), [Direction.parse("t2a")], SETTINGS)


def test_no_complete_clip_is_an_error_not_a_figure(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        writer.add(tiny_item(0, "train"))
        writer.add(tiny_item(1, "test", audio=False))
    store = Store(tmp_path / "s")
    with pytest.raises(TrichordError, match="no clip has text and audio; direction t2a cannot be scored"):
        evaluate_retrieval(model(), store, find_benchmark(store, "tiny"), [Direction.parse("t2a")], SETTINGS)
