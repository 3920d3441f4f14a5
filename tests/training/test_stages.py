"""Stages: what is trained and frozen, thawing, replay, and the check of frozen weights."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trichord.data.batches import batches
from trichord.errors import TrichordError
from trichord.modality import Order
from trichord.nn import MCN
from trichord.recipes import load_recipe
from trichord.store import Store
from trichord.study import factories, run
from trichord.training import loop
from trichord.training.schedule import rate_factor, used_warmup_steps
from trichord.training.stage import Stage, count_parameters, frozen_guard, prepare_model, stages_of


def small_model() -> MCN:
    return MCN(video_dim=6, embed_dim=8, word_dim=5, reconstruction_dim=4, audio_channels=(4, 4, 4, 4))


def test_the_two_stages_of_the_study() -> None:
    first, second = stages_of(Order.parse("av>t"))
    assert (first.chain, first.train, first.frozen, first.pairs) == (
        "av",
        ("audio", "video"),
        (),
        (("video", "audio"),),
    )
    assert second.train == second.reconstruct == second.cluster == ("text",)
    assert second.frozen == ("audio", "video")
    assert second.pairs == (("video", "text"), ("audio", "text"))
    assert str(second) == "AV→T (trains T, frozen A, V)"


def test_joint_training_is_one_stage_with_all_pairs() -> None:
    (stage,) = stages_of(Order.parse("avt"))
    assert len(stage.pairs) == 3 and not stage.frozen


def test_a_thawed_stage_continues_to_train_earlier_modalities() -> None:
    second = stages_of(Order.parse("av>t"), thaw=True)[1]
    assert (second.train, second.frozen, second.thawed) == (("text",), (), ("audio", "video"))
    assert second.pairs == (("video", "text"), ("audio", "text")) and second.reconstruct == ("text",)
    assert str(second) == "AV→T (trains T, thawed A, V)"
    model = small_model()
    prepare_model(model, second, heads=True)
    assert all(p.requires_grad for m in ("video", "audio", "text") for p in model.parts(m)["encoder"].parameters())


def test_a_replay_counts_the_first_pair_and_its_terms_again() -> None:
    second = stages_of(Order.parse("av>t"), thaw=True, replay=True)[1]
    assert second.pairs == (("video", "audio"), ("video", "text"), ("audio", "text"))
    assert set(second.reconstruct) == set(second.cluster) == {"video", "audio", "text"}
    first, later = stages_of(Order.parse("av>t"), thaw=True, replay=True)[0], stages_of(Order.parse("av>t"))[0]
    assert first == later


def test_a_modality_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(TrichordError, match="needs modality 'X', which the model does not have"):
        stages_of(Order.parse("vt>a>x"))


@pytest.mark.parametrize("order", ["av>t", "at>v", "vt>a"])
def test_frozen_encoders_have_no_gradient_and_are_in_eval_mode(order: str) -> None:
    model, stage = small_model(), stages_of(Order.parse(order))[1]
    prepare_model(model, stage, heads=True)
    for modality in ("video", "audio", "text"):
        trains = modality in stage.train
        for part in model.parts(modality).values():
            assert part is not None and part.training == trains
            assert all(module.training == trains for module in part.modules())
            assert all(p.requires_grad == trains for p in part.parameters())


def test_heads_stay_frozen_without_a_reconstruction_term() -> None:
    model, stage = small_model(), stages_of(Order.parse("avt"))[0]
    prepare_model(model, stage, heads=False)
    head = model.parts("video")["reconstruction"]
    assert head is not None and not any(p.requires_grad for p in head.parameters())


def size(model: MCN, modality: str, part: str) -> int:
    module = model.parts(modality)[part]
    assert module is not None
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("heads", [True, False])
def test_parameters_are_counted_where_they_train_and_where_they_take_part(heads: bool) -> None:
    model = small_model()
    first, second = stages_of(Order.parse("av>t"))
    encoder = {m: size(model, m, "encoder") for m in ("video", "audio", "text")}
    head = {m: size(model, m, "reconstruction") * heads for m in encoder}
    expected = [
        (first, encoder["audio"] + encoder["video"] + head["audio"] + head["video"], 0),
        (second, encoder["text"] + head["text"], encoder["audio"] + encoder["video"]),
        (stages_of(Order.parse("av>t"), thaw=True)[1], sum(encoder.values()) + head["text"], 0),
        (stages_of(Order.parse("av>t"), thaw=True, replay=True)[1], sum(encoder.values()) + sum(head.values()), 0),
    ]
    for stage, trained, frozen in expected:
        prepare_model(model, stage, heads=heads)
        assert count_parameters(model, stage) == {"trained": trained, "frozen": frozen}


def test_clips_of_a_step_are_those_of_all_processes(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process reads a third of each batch, as one of three does; the parts have unequal sizes."""
    recipe = load_recipe("debug", training={"tensorboard": False, "max_steps": 2, "device": "cpu"})
    stage = stages_of(Order.parse("vt"))[0]
    source, reader = factories.build_batches(recipe, Store(tiny_store), stage, 0)
    counts = []
    for process in range(3):
        drawn = list(batches(source, reader, epochs=range(2), process=process, num_processes=3))
        counts.append([(batch.to(torch.device("cpu")).step_clips, len(batch.valid["text"])) for batch in drawn])
    whole = [len(source.draw(epoch, 0)) for epoch in range(2)]
    assert source.steps_per_epoch == 1
    assert all([step_clips for step_clips, _ in counts_of_process] == whole for counts_of_process in counts)
    assert [sum(counts_of_process[step][1] for counts_of_process in counts) for step in range(2)] == whole
    assert len({counts_of_process[0][1] for counts_of_process in counts}) > 1, "uneven parts"

    def third(*arguments: object, **options: object) -> object:
        return batches(*arguments, **{**options, "process": 2, "num_processes": 3})  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "batches", third)
    summary = run.train_order(tiny_store, tmp_path / "run", "vt", 0, recipe)
    lines = (summary.model_folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["clips"] for line in lines] == whole


def test_the_guard_finds_a_changed_weight_and_a_changed_buffer() -> None:
    stage = stages_of(Order.parse("vt>a"))[1]
    for name in ("encoders.video", "encoders.text"):
        model = small_model()
        with pytest.raises(RuntimeError, match=name), frozen_guard(model, stage), torch.no_grad():
            next(model.get_submodule(name).parameters()).add_(1e-7)
    stage, model = stages_of(Order.parse("av>t"))[1], small_model()
    with pytest.raises(RuntimeError, match="running_mean"), frozen_guard(model, stage), torch.no_grad():
        next(b for n, b in model.named_buffers() if "running_mean" in n).add_(1e-7)


def test_the_guard_accepts_changes_of_trained_weights() -> None:
    model, stage = small_model(), stages_of(Order.parse("vt>a"))[1]
    before = copy.deepcopy(model.state_dict())
    with frozen_guard(model, stage), torch.no_grad():
        for p in model.parts("audio")["encoder"].parameters():  # type: ignore[union-attr]
            p.add_(1.0)
    assert any(not torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


@given(st.integers(1, 400), st.integers(0, 6000), st.sampled_from(["cosine", "constant"]))
def test_the_rate_rises_then_never_rises_again(num_steps: int, warmup: int, schedule: str) -> None:
    used = used_warmup_steps(warmup, num_steps)
    assert used <= num_steps / 10
    factor = rate_factor(schedule, warmup_steps=used, num_steps=num_steps)
    values = [factor(step) for step in range(num_steps + 20)]
    assert all(0.0 <= v <= 1.0 for v in values) and max(values) == 1.0
    assert all(a <= b for a, b in pairwise(values[: used + 1]))
    assert all(a >= b for a, b in pairwise(values[used:]))
    if schedule == "cosine":
        assert values[num_steps] < 1e-12


def test_a_stage_is_read_back_from_its_plain_values() -> None:
    stage = stages_of(Order.parse("av>t"))[1]
    content = json.loads(json.dumps(stage.to_dict()))
    assert content["chain"] == "av>t" and Stage.from_dict(content) == stage
    for damaged in ({**content, "chain": "t>av"}, {**content, "new": 1}, {"chain": "av>t"}):
        with pytest.raises((ValueError, TypeError)):
            Stage.from_dict(damaged)
