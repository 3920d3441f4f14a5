"""An evaluation by several processes is bit-equal to that of one process, for any number of batches and processes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from process_helpers import free_port, join_gloo, start_processes
from scoring_helpers import retrieval_results
from tiny import VIDEO_DIM, WORD_DIM
from trichord.data.batches import evaluation_clips
from trichord.errors import TrichordError
from trichord.logs import passing_messages
from trichord.modality import Direction, Order
from trichord.nn import MCN
from trichord.recipes import Recipe, load_recipe
from trichord.store import Store
from trichord.study import run
from trichord.study.plan import plan_order
from trichord.study.score import evaluate_order
from trichord.tasks import benchmarks
from trichord.tasks.benchmarks import ScoringSettings, embed_clips, find_benchmark

SETTINGS = ScoringSettings(visual_streams=("visual_2d",), min_clip_s=4.0, audio_frames=500, max_words=6)
ALL = ("video", "audio", "text")


def model() -> MCN:
    torch.manual_seed(0)
    return MCN(
        video_dim=VIDEO_DIM, embed_dim=8, word_dim=WORD_DIM, reconstruction_dim=None, audio_channels=(4, 4, 4, 4)
    ).eval()


@pytest.mark.parametrize(("world", "batch"), [(2, 5), (3, 5), (4, 12), (5, 32)])
def test_the_parts_of_all_processes_cover_all_clips(
    world: int, batch: int, tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32 clips in 7, 3 or 1 batches; the processes are simulated one after the other."""
    monkeypatch.setattr(benchmarks, "CLIPS_PER_BATCH", batch)
    store, network = Store(tiny_store), model()
    clips = evaluation_clips(store, store.select("tiny", "test"), 4.0)
    whole, valid = embed_clips(network, store, clips, ALL, 500, SETTINGS)
    parts = []
    for rank in range(world):
        monkeypatch.setattr(benchmarks, "num_processes", lambda: world)
        monkeypatch.setattr(benchmarks, "process_index", lambda rank=rank: rank)
        monkeypatch.setattr(benchmarks, "gather_rows", lambda rows: rows)
        parts.append(embed_clips(network, store, clips, ALL, 500, SETTINGS))
    batches = [-(-len(embeddings["video"]) // batch) for embeddings, _ in parts]
    assert len(clips) == 32 and max(batches) - min(batches) <= 1
    for modality in ALL:
        assert torch.equal(torch.cat([embeddings[modality] for embeddings, _ in parts]), whole[modality])
        assert np.array_equal(np.concatenate([there[modality] for _, there in parts]), valid[modality])


def quick() -> Recipe:
    training = {"tensorboard": False, "device": "cpu", "max_steps": 2}
    return load_recipe("debug", training=training, evaluation={"directions": ["t2v", "v2a", "t2va"]})


def evaluate(store_path: Path, out: Path, batch: int, said: list[str]) -> list[dict[str, object]]:
    """Evaluate the order in the run folder `out` as a study does, and its model by itself, which must give the same."""
    benchmarks.CLIPS_PER_BATCH = batch
    store, recipe = Store(store_path), quick()
    planned = plan_order(Order.parse("av>t"), 0, recipe, store.fingerprint)
    directions = [Direction.parse(code) for code in recipe.evaluation.directions]
    with passing_messages(said.append):
        for _ in range(2):  # the second call reads what the first one saved
            rows = evaluate_order(planned, out, store, recipe, [find_benchmark(store, "tiny")], directions).results
    results = retrieval_results(out, store_path, ["tiny"])
    assert [{"order": "av>t", "seed": 0, **row.to_dict()} for row in results] == rows
    return rows


def evaluate_in_launch(rank: int, world: int, port: int, store: Path, out: Path, batch: int, message: Path) -> None:
    join_gloo(rank, world, port)
    said: list[str] = []
    rows = evaluate(store, out, batch, said)
    (message / f"{rank}.json").write_text(json.dumps([rows, said]))
    empty = [out / "empty"]
    if rank == 0:
        empty[0].mkdir()
    dist.barrier()
    with pytest.raises(TrichordError, match="contains no trained model"):
        retrieval_results(empty[0], store)
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(("world", "batch"), [(2, 5), (3, 16)])
def test_a_launch_evaluates_as_one_process(
    world: int, batch: int, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks, "CLIPS_PER_BATCH", batch)
    store = shutil.copytree(tiny_store, tmp_path / "store")
    run.train_order(store, tmp_path / "one", "av>t", 0, quick())
    shutil.copytree(tmp_path / "one", tmp_path / "several")
    said: list[str] = []
    rows = evaluate(store, tmp_path / "one", batch, said)
    start_processes(world, evaluate_in_launch, world, free_port(), store, tmp_path / "several", batch, tmp_path)
    for rank in range(world):
        lines = json.loads((tmp_path / f"{rank}.json").read_text())
        assert lines == [rows, said if rank == 0 else []], "all get the figures, the main process alone speaks"
    paths = [tmp_path / name / "orders" / "av-t" / "seed-0" / "results.json" for name in ("one", "several")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with np.load(paths[0].with_name("queries.npz")) as one, np.load(paths[1].with_name("queries.npz")) as several:
        assert one.files == several.files and any(name.endswith("/greater") for name in one.files)
        for name in one.files:
            assert one[name].tobytes() == several[name].tobytes(), name


def test_one_process_gathers_nothing(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(rows: Tensor) -> Tensor:
        raise AssertionError("a gather")

    monkeypatch.setattr(benchmarks, "gather_rows", never)
    store = Store(tiny_store)
    clips = evaluation_clips(store, store.select("tiny", "test"), 4.0)
    assert len(embed_clips(model(), store, clips, ("text",), 500, SETTINGS)[0]["text"]) == 32
