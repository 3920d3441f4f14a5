"""Cached embeddings of frozen encoders: values, reuse by orders and seeds, names, and damage."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tiny import write_tiny_store
from trichord.data.batches import TrainingClips
from trichord.data.frozen import FrozenRows
from trichord.data.listing import clips_at, list_clips
from trichord.errors import TrichordError
from trichord.logs import passing_messages
from trichord.modality import Order
from trichord.recipes import Recipe, load_recipe
from trichord.store import Store
from trichord.store.inspect import store_info, verify
from trichord.study import factories, run
from trichord.training.frozen import FrozenSettings, frozen_inputs
from trichord.training.stage import stages_of

LARGE = FrozenSettings(True, 10**12, 10**9, "no")


NUM_TRAIN = 6  # videos with 8 clips each
SMALL = {"videos_per_batch": 4, "clips_per_video": 2, "audio_frames": 100}


def debug(**training: Any) -> Recipe:
    """Return a recipe whose stages draw more clips than the store has, so that a cache saves work."""
    return load_recipe(
        "debug", training={"tensorboard": False, "device": "cpu", "max_steps": 7, **training}, data=SMALL
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(write_tiny_store(tmp_path / "store", num_train=NUM_TRAIN, num_test=1))


def parts(store: Store, order: str = "av>t", recipe: Recipe | None = None) -> Any:
    recipe = recipe or debug()
    stage = stages_of(Order.parse(order))[1]
    source, reader = factories.build_batches(recipe, store, stage, 0)
    model = factories.build_model(recipe, store, 0)
    return model, stage, source, reader


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("min_clip_s", [0.0, 9.0])
def test_every_clip_that_can_be_drawn_is_listed_once(store: Store, published: bool, min_clip_s: float) -> None:
    source = TrainingClips(
        store, store.select(None, "train"), seed=0, videos_per_batch=4, clips_per_video=3, min_clip_s=min_clip_s,
        distinct=not published, published_words=published,
    )  # fmt: skip
    listing = list_clips(source)
    num_clips = listing.num_clips
    blocks = [clips_at(source, listing, at, min(at + 7, num_clips)) for at in range(0, num_clips, 7)]
    clips = [
        (int(item), float(start), float(end), tuple(captions.tolist()))
        for block in blocks
        for item, start, end, captions in zip(block.item, block.start_s, block.end_s, block.captions, strict=True)
    ]
    assert len(clips) == num_clips and (published or len(set(clips)) == num_clips)
    assert set(listing.row) == set(range(num_clips)), "every row is the clip of a caption"
    for step in range(source.steps_per_epoch):
        drawn = source.draw(0, step)
        assert drawn.caption is not None
        for i in range(len(drawn)):
            listed = clips[listing.row[listing.begin[drawn.item[i]] + drawn.caption[i]]]
            drawn_clip = (int(drawn.item[i]), drawn.start_s[i], drawn.end_s[i], tuple(drawn.captions[i].tolist()))
            assert listed == drawn_clip


@settings(max_examples=8, deadline=None)
@given(published=st.booleans(), min_clip_s=st.sampled_from([0.0, 4.0, 9.0]), seed=st.integers(0, 3))
def test_cached_values_equal_those_of_the_encoder(
    tmp_path_factory: pytest.TempPathFactory, published: bool, min_clip_s: float, seed: int
) -> None:
    """The oracle applies the frozen encoders to the batch, as an uncached stage does."""
    store = Store(write_tiny_store(tmp_path_factory.mktemp("s") / "store", num_train=NUM_TRAIN, num_test=1))
    model, stage, source, reader = parts(store)
    source = TrainingClips(
        store, source.items, seed=seed, videos_per_batch=4, clips_per_video=3, min_clip_s=min_clip_s,
        distinct=not published, published_words=published,
    )  # fmt: skip
    words = torch.from_numpy(store.word_vectors)
    for order in ("av>t", "vt>a"):
        stage = stages_of(Order.parse(order))[1]
        reader.frozen = {}
        plain = reader.read(source.draw(0, 0))
        reader.frozen = frozen_inputs(model, stage, source, reader, LARGE, Accelerator(cpu=True))
        batch = reader.read(source.draw(0, 0))
        assert set(batch.embeddings) == set(stage.frozen)
        assert (
            set(batch.model_inputs(words)) == {"av>t": {"text", "text_mask"}, "vt>a": {"audio", "audio_frames"}}[order]
        )
        with torch.no_grad():
            expected = model.eval().embed(**plain.model_inputs(words))
        for modality in stage.frozen:
            assert torch.equal(batch.valid[modality], plain.valid[modality])
            torch.testing.assert_close(batch.embeddings[modality], expected[modality], rtol=1e-5, atol=1e-6)


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("order", ["av>t", pytest.param("at>v", marks=pytest.mark.slow), "vt>a"])
def test_a_cached_stage_trains_as_an_uncached_one(order: str, store: Store, tmp_path: Path) -> None:
    folders = {}
    for cache in ("auto", "off"):
        summary = run.train_order(store.path, tmp_path / cache, order, 0, debug(frozen_cache=cache))
        folders[cache] = summary.model_folder
        is_cached = (store.path / "frozen").is_dir()
        assert is_cached == (cache == "auto")
        if is_cached:
            assert {p.name.split("-")[0] for p in (store.path / "frozen").iterdir() if p.is_dir()} == set(
                stages_of(Order.parse(order))[1].frozen
            )
            shutil.rmtree(store.path / "frozen")
    assert folders["auto"].name == folders["off"].name, "the cache is no setting of the stage"
    one, two = (final_weights(folders[cache]) for cache in ("auto", "off"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)
    losses = [
        [json.loads(line)["loss"] for line in (folders[cache] / "metrics.jsonl").read_text().splitlines()]
        for cache in ("auto", "off")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_orders_share_the_cache_of_a_common_encoder(store: Store) -> None:
    model, stage, source, reader = parts(store)
    lines: list[str] = []
    with passing_messages(lines.append):
        frozen_inputs(model, stage, source, reader, LARGE, Accelerator(cpu=True))
    assert [line.split(":")[0] for line in lines] == ["frozen audio", "frozen video"]
    before = {p: p.stat().st_mtime_ns for p in (store.path / "frozen").rglob("*.npy")}
    later = stages_of(Order.parse("at>v"))[1]
    with passing_messages(lines.append):
        frozen_inputs(model, later, source, reader, LARGE, Accelerator(cpu=True))
    assert [line.split(":")[0] for line in lines[2:]] == ["frozen text"], "the audio was there"
    assert {p: p.stat().st_mtime_ns for p in before} == before
    with torch.no_grad():
        next(model.encoders["audio"].parameters()).add_(1.0)
    with passing_messages(lines.append):
        frozen_inputs(model, stage, source, reader, LARGE, Accelerator(cpu=True))
    assert [line.split(":")[0] for line in lines[3:]] == ["frozen audio"], "other weights are another cache"


def test_the_store_lists_caches_and_passes_verification(store: Store) -> None:
    assert "frozen" not in str(store_info(store.path))
    model, stage, source, reader = parts(store)
    frozen_inputs(model, stage, source, reader, LARGE, Accelerator(cpu=True))
    assert "2 encoders computed for every clip" in str(store_info(store.path))
    assert verify(store.path) == [] and Store(store.path).fingerprint == store.fingerprint


def test_pooled_audio_where_embeddings_are_too_large(store: Store, tmp_path: Path) -> None:
    recipe = load_recipe("debug", model={"embed_dim": 64}, training={"tensorboard": False, "device": "cpu"}, data=SMALL)
    model, stage, source, reader = parts(store, recipe=recipe)
    num_clips = list_clips(source).num_clips
    lines: list[str] = []
    limits = replace(LARGE, most_bytes=4 * 16 * num_clips)
    with passing_messages(lines.append):
        rows_by_modality = frozen_inputs(model, stage, source, reader, limits, Accelerator(cpu=True))
    assert {m: rows.kind for m, rows in rows_by_modality.items()} == {"audio": "pooled"} and rows_by_modality[
        "audio"
    ].values.shape[1] == 16
    assert any("frozen video" in line and "more than training.frozen_cache_gb" in line for line in lines)
    plain = reader.read(source.draw(0, 0))
    reader.frozen = rows_by_modality
    batch, words = reader.read(source.draw(0, 0)), torch.from_numpy(store.word_vectors)
    with torch.no_grad():
        one, two = (model.eval().embed(**b.model_inputs(words)) for b in (plain, batch))
    torch.testing.assert_close(one["audio"], two["audio"], rtol=1e-5, atol=1e-6)
    assert frozen_inputs(model, stage, source, reader, replace(LARGE, most_bytes=1), Accelerator(cpu=True)) == {}


def test_a_cache_is_written_only_if_it_saves_work(store: Store) -> None:
    model, stage, source, reader = parts(store)
    few = replace(LARGE, num_draws=list_clips(source).num_clips)
    assert frozen_inputs(model, stage, source, reader, few, Accelerator(cpu=True)) == {}
    assert not (store.path / "frozen").exists()


def test_incomplete_caches_are_reported(store: Store) -> None:
    model, stage, source, reader = parts(store)
    frozen_inputs(model, stage, source, reader, LARGE, Accelerator(cpu=True))
    folder = next((store.path / "frozen").glob("audio-*"))
    (folder / "values.npy").write_bytes(b"torn")
    with pytest.raises(
        TrichordError, match="frozen embeddings cannot be read .*delete this folder to compute them again"
    ):
        FrozenRows.open(folder)


def test_a_full_disk_is_reported_before_anything_is_computed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    model, stage, source, reader = parts(store)
    usage = shutil.disk_usage(store.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=9))
    with pytest.raises(TrichordError, match="0.0 GB are free; free disk space, or set training.frozen_cache to off"):
        frozen_inputs(model, stage, source, reader, LARGE, Accelerator(cpu=True))


def test_chunks_give_the_weights_of_the_whole_batch_where_nothing_is_normalised(store: Store, tmp_path: Path) -> None:
    folders = {}
    for chunk in (0, 5):
        recipe = debug(max_steps=4, chunk_clips=chunk)
        folders[chunk] = run.train_order(store.path, tmp_path / str(chunk), "vt", 0, recipe)
    one, two = (final_weights(folders[chunk].model_folder) for chunk in (0, 5))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)
    assert folders[0].model_folder.name != folders[5].model_folder.name, "chunks are a setting: batch norm sees them"


def test_chunk_settings_without_effect_are_refused() -> None:
    with pytest.raises(TrichordError, match="chunk_norm has no effect without training.chunk_clips"):
        debug(chunk_norm="running")
    with pytest.raises(TrichordError, match="training.chunk_clips is -1"):
        debug(chunk_clips=-1)
