"""Random changes of inputs in training: what they change, and that they depend only on the stage, the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trichord.data.batch import Batch
from trichord.modalities.base import Noise
from trichord.modalities.registry import specification
from trichord.training.noise import InputNoise

ROWS = 7


def draw_of(seed: int, rows: int = ROWS):
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: Sequence[int]) -> Tensor:
        return torch.rand((rows, *shape), generator=generator)

    return draw


def batch(rows: slice = slice(None)) -> Batch:
    generator = torch.Generator().manual_seed(5)
    spectrograms = torch.rand((ROWS, 40, 64), generator=generator) - 40
    frames = torch.tensor([64, 0, 1, 3, 20, 64, 40])
    spectrograms[torch.arange(64)[None, None] >= frames[:, None, None].expand(ROWS, 40, 1)] = -80
    inputs = {
        "video": torch.rand((ROWS, 5), generator=generator), "audio": spectrograms, "audio_frames": frames,
        "word_ids": torch.randint(-1, 9, (ROWS, 6), generator=generator),
    }  # fmt: skip
    return Batch({name: tensor[rows] for name, tensor in inputs.items()}, step_clips=ROWS)


NOISES = {"video": Noise(0.5), "audio": Noise(0.3, 8, 10), "text": Noise(0.5)}


def test_features_keep_their_mean_and_some_are_dropped() -> None:
    features = torch.ones(2000, 10)
    noisy = specification("video").with_noise({"video": features}, Noise(0.25), draw_of(0, 2000))["video"]
    assert noisy.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert float((noisy == 0).float().mean()) == pytest.approx(0.25, abs=0.01) and float(noisy.mean()) == pytest.approx(
        1, abs=0.02
    )


def test_text_and_audio_embeddings_lose_features() -> None:
    for modality, name in (("text", "text"), ("audio", "audio_pooled")):
        tensors = {name: torch.ones(ROWS, 300), "text_mask": torch.ones(ROWS, 1, dtype=torch.bool)}
        noisy = specification(modality).with_noise(tensors, Noise(0.5), draw_of(0))
        assert 0.3 < float((noisy[name] == 0).float().mean()) < 0.7 and noisy["text_mask"] is tensors["text_mask"]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 0.95), st.integers(0, 6))
def test_words_are_dropped_and_one_is_kept(seed: int, probability: float, num_words: int) -> None:
    ids = torch.randint(-1, 9, (ROWS, num_words), generator=torch.Generator().manual_seed(seed))
    noisy = specification("text").with_noise({"word_ids": ids}, Noise(probability), draw_of(seed))["word_ids"]
    assert bool(((noisy == ids) | (noisy == -1)).all())
    assert torch.equal((noisy >= 0).any(1), (ids >= 0).any(1)), "a clip keeps its text"


def test_the_share_of_dropped_words() -> None:
    ids = torch.zeros((3000, 20), dtype=torch.int64)
    noisy = specification("text").with_noise({"word_ids": ids}, Noise(0.15), draw_of(1, 3000))["word_ids"]
    assert float((noisy < 0).float().mean()) == pytest.approx(0.15, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 80), st.integers(0, 40))
def test_masks_of_spectrograms(seed: int, time_mask: int, frequency_mask: int) -> None:
    """Masked values are the mean of the clip, masks are no wider than allowed, and padding stays as it is."""
    clean = batch().inputs
    own = {name: clean[name] for name in ("audio", "audio_frames")}
    noisy = specification("audio").with_noise(own, Noise(0.9, time_mask, frequency_mask), draw_of(seed))["audio"]
    for clip, frames in enumerate(own["audio_frames"].tolist()):
        before, after = own["audio"][clip], noisy[clip]
        assert torch.equal(before[:, frames:], after[:, frames:])
        changed = (before != after)[:, :frames]
        if changed.any():
            torch.testing.assert_close(after[:, :frames][changed], before[:, :frames].mean().expand(int(changed.sum())))
        assert int(changed.all(0).sum()) <= 2 * min(time_mask, frames // 4)
        assert int(changed.all(1).sum()) <= (2 * min(frequency_mask, 13) if frames else 40)


def test_both_masks_occur() -> None:
    own = {"audio": torch.rand(400, 40, 64), "audio_frames": torch.full((400,), 64)}
    noisy = specification("audio").with_noise(own, Noise(0, 8, 10), draw_of(0, 400))["audio"]
    in_time, in_frequency = (noisy != own["audio"]).all(1).sum(1), (noisy != own["audio"]).all(2).sum(1)
    assert int(in_time.max()) > 8 and int(in_time.min()) == 0, "two masks of up to 8 frames"
    assert int(in_frequency.max()) > 10 and int(in_frequency.min()) == 0
    assert set(range(1, 12)) <= set(in_time.tolist()) and float(in_time.float().mean()) == pytest.approx(7.5, abs=1)


def test_without_noise_the_batch_is_the_same() -> None:
    clean = batch()
    noise = InputNoise({m: Noise() for m in NOISES}, "av 0")
    assert noise.applied(clean, 3).inputs == clean.inputs
    assert noise.applied(clean, 3).targets == {}


def test_it_depends_on_the_stage_the_seed_and_the_step() -> None:
    def noisy(seed: str, step: int) -> dict[str, Tensor]:
        return InputNoise(NOISES, seed).applied(batch(), step).inputs

    first = noisy("av 0", 3)
    assert all(torch.equal(first[name], tensor) for name, tensor in noisy("av 0", 3).items())
    for other in (noisy("av 0", 4), noisy("av 1", 3), noisy("av>t 0", 3)):
        assert not any(torch.equal(first[name], other[name]) for name in ("video", "audio", "word_ids"))


@pytest.mark.parametrize("num_processes", [2, 3, 10])
def test_processes_see_their_part_of_the_noise_of_one(num_processes: int) -> None:
    whole = InputNoise(NOISES, "av 0").applied(batch(), 3).inputs
    parts = []
    for process, rows in enumerate(np.array_split(np.arange(ROWS), num_processes)):
        own = slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0)
        noise = InputNoise(NOISES, "av 0", process=process, num_processes=num_processes)
        parts.append(noise.applied(batch(own), 3).inputs)
    assert all(torch.equal(torch.cat([part[name] for part in parts]), tensor) for name, tensor in whole.items())


def test_frozen_modalities_and_cached_embeddings_are_not_changed() -> None:
    clean = batch()
    clean.embeddings["text"] = torch.rand(ROWS, 4)
    noisy = InputNoise({"video": Noise(0.5)}, "av 0").applied(clean, 0)
    assert noisy.inputs["audio"] is clean.inputs["audio"] and noisy.inputs["word_ids"] is clean.inputs["word_ids"]
    assert noisy.embeddings is clean.embeddings and not torch.equal(noisy.inputs["video"], clean.inputs["video"])


def test_reconstruction_targets_have_no_noise() -> None:
    """The encoders of words and spectrograms compute the targets of these."""
    clean = batch()
    noisy = InputNoise(NOISES, "av 0").applied(clean, 0)
    assert noisy.targets.keys() == {"video"} and noisy.targets["video"] is clean.inputs["video"]
    pooled = Batch({"audio_pooled": torch.ones(ROWS, 3)}, step_clips=ROWS)
    assert InputNoise(NOISES, "av 0").applied(pooled, 0).targets.keys() == {"audio"}
