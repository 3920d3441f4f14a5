"""Audio encoders of the transformers library: windows, names, fingerprints and errors."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_transformers as tiny
from trichord.errors import TrichordError
from trichord.features.audio import AudioModel, audio_encoder_info, load_audio_encoder, mean_per_hop, plan_of
from trichord.features.audio_windows import centred_windows, pieces

# model: width, sample rate, seconds a row
MODELS = {
    "clap": (32, 8000, 1.0),
    "ast": (16, 16000, 0.64),
    "whisper": (16, 16000, 1.0),
    "wav2vec2": (16, 16000, 1.0),
    "pe_audio": (16, 1000, 5.0),
}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AudioModel]:
    root = tmp_path_factory.mktemp("models")
    return {name: load_audio_encoder(f"hf:{getattr(tiny, name)(root / name)}") for name in MODELS}


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples).astype(np.float32)


def cut(samples: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """Cut `samples` into blocks of these sizes, repeated; the sizes are not all 0."""
    blocks, begin = [], 0
    while begin < len(samples):
        for size in sizes:
            blocks.append(samples[begin : begin + size])
            begin += size
    return blocks


def rows_of(encoder: AudioModel, blocks: list[np.ndarray]) -> np.ndarray:
    rows = list(encoder.encode(lambda: iter(blocks)))
    return np.concatenate(rows) if rows else np.zeros((0, encoder.dim), np.float16)


@pytest.mark.parametrize("name", MODELS)
def test_one_normalised_row_for_each_started_step(encoders: dict[str, AudioModel], name: str) -> None:
    encoder, (dim, rate_hz, step_s) = encoders[name], MODELS[name]
    assert (encoder.dim, encoder.sample_rate_hz, encoder.rate_hz) == (dim, rate_hz, pytest.approx(1 / step_s))
    step = round(step_s * rate_hz)
    for num_samples in (1, 300, step // 2, step - 1, step, step + 1, 3 * step, 7 * step + 17):
        rows = rows_of(encoder, [noise(num_samples)])
        assert rows.shape == (math.ceil(num_samples / step), dim) and rows.dtype == np.float16
        np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float32), axis=1), 1, atol=2e-3)
    assert rows_of(encoder, []).shape == rows_of(encoder, [noise(0)]).shape == (0, dim)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_rows_do_not_depend_on_blocks(encoders: dict[str, AudioModel], name: str, data: st.DataObject) -> None:
    encoder, (_, rate_hz, step_s) = encoders[name], MODELS[name]
    num_samples = data.draw(st.integers(1, int(4.5 * step_s * rate_hz)))
    size = st.integers(0, num_samples)
    sizes = [*data.draw(st.lists(size, max_size=4)), data.draw(st.integers(max(num_samples // 50, 1), num_samples))]
    samples = noise(num_samples)
    np.testing.assert_array_equal(rows_of(encoder, cut(samples, sizes)), rows_of(encoder, [samples]))


@given(num=st.integers(0, 60), window=st.integers(1, 20), data=st.data())
def test_windows_against_plain_indexing(num: int, window: int, data: st.DataObject) -> None:
    hop = data.draw(st.integers(1, window))
    samples = np.arange(num, dtype=np.float32)
    blocks = cut(samples, [*data.draw(st.lists(st.integers(0, 9), max_size=3)), data.draw(st.integers(1, 30))])
    expected = []
    for row in range(math.ceil(num / hop)):
        begin = min(max(row * hop + (hop - window) // 2, 0), max(num - window, 0))
        expected.append(samples[begin : begin + window].tolist())
    assert [w.tolist() for w in centred_windows(blocks, window, hop)] == expected
    plain = [samples[i : i + window].tolist() for i in range(0, num, window)]
    assert [piece.tolist() for piece in pieces(blocks, window)] == plain


def test_a_window_holds_the_time_of_its_row() -> None:
    samples = np.arange(1000, dtype=np.float32)
    for row, window in enumerate(centred_windows([samples], 100, 30)):
        own = samples[row * 30 : (row + 1) * 30]
        assert window[0] <= own[0] and own[-1] <= window[-1]


@given(num_states=st.integers(1, 40), padded=st.integers(40, 400), hop=st.integers(1, 120), data=st.data())
def test_mean_per_hop_against_loops(num_states: int, padded: int, hop: int, data: st.DataObject) -> None:
    import torch

    length = data.draw(st.integers(1, padded))
    states = np.random.default_rng(0).normal(size=(num_states, 3))
    rows = mean_per_hop(torch.tensor(states), padded, length, hop).numpy()
    assert len(rows) == math.ceil(length / hop)
    positions = [k * padded / num_states for k in range(num_states)]
    for row, mean in enumerate(rows):
        own = [k for k, p in enumerate(positions) if row * hop <= p < min((row + 1) * hop, length)]
        own = own or [max(k for k, p in enumerate(positions) if p < min((row + 1) * hop, length))]
        np.testing.assert_allclose(mean, states[own].mean(0))


def test_whisper_rows_are_means_of_the_encoder_states_of_real_sound(
    encoders: dict[str, AudioModel], tmp_path: Path
) -> None:
    import torch
    from transformers import WhisperFeatureExtractor, WhisperModel

    folder = tiny.whisper(tmp_path)
    model, extractor = WhisperModel.from_pretrained(folder).eval(), WhisperFeatureExtractor.from_pretrained(folder)
    samples = noise(3 * 16000 + 24000)  # a whole piece and a half one
    rows = rows_of(encoders["whisper"], [samples])
    with torch.no_grad():
        for piece, first in ((samples[:48000], 0), (samples[48000:], 3)):
            features = extractor(piece, sampling_rate=16000, return_tensors="pt").input_features
            states = model.encoder(features).last_hidden_state[0].double().numpy()
            for begin in range(0, len(piece) // 320, 50):
                mean = states[begin : min(begin + 50, len(piece) // 320)].mean(0)
                np.testing.assert_allclose(rows[first + begin // 50], mean / np.linalg.norm(mean), atol=2e-3)


def test_a_fused_clap_is_deterministic(tmp_path: Path) -> None:
    """Its feature extractor selects random parts of sounds that are longer than the window."""
    encoder = load_audio_encoder(f"hf:{tiny.clap(tmp_path, fusion=True)}@hop=0.5")
    rows = rows_of(encoder, [noise(20000)])
    assert rows.shape == (5, 32) and encoder.rate_hz == 2
    np.random.seed(7)
    np.testing.assert_array_equal(rows_of(encoder, [noise(20000)]), rows)


def test_batches_of_windows_give_nearly_the_same(encoders: dict[str, AudioModel]) -> None:
    """Tests the implementation for accelerators on the CPU."""
    for encoder, (_, rate_hz, step_s) in zip(encoders.values(), MODELS.values(), strict=True):
        windows = [noise(round(step_s * rate_hz), seed) for seed in range(3)]
        together = encoder._rows(windows).astype(np.float32)
        alone = np.concatenate([encoder._rows([window]) for window in windows]).astype(np.float32)
        np.testing.assert_allclose(together, alone, atol=3e-3)


def test_memory_does_not_grow_with_the_sound() -> None:
    block = np.zeros(16000, np.float32)

    def peak(seconds: int) -> int:
        def blocks() -> Iterator[np.ndarray]:
            return (block for _ in range(seconds))

        tracemalloc.start()
        try:
            for _ in centred_windows(blocks(), 160000, 80000):
                pass
            for _ in pieces(blocks(), 480000):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(3600) < 1.2 * peak(120) < 20e6


def test_info_matches_the_loaded_encoder(encoders: dict[str, AudioModel], tmp_path: Path) -> None:
    for name, encoder in encoders.items():
        folder = getattr(tiny, name)(tmp_path / "elsewhere" / name)
        assert audio_encoder_info(f"hf:{folder}") == ("audio", encoder.fingerprint)
        assert encoder.fingerprint.name == f"hf:{name}"  # where the folder lies does not matter
    folder = tiny.clap(tmp_path)
    whole, half = (audio_encoder_info(f"hf:{folder}{option}")[1] for option in ("", "@hop=0.5"))
    assert half.name == f"hf:{folder.name}@hop=0.5"
    assert whole.parameters["hop_s"] == 1 and half.parameters["hop_s"] == 0.5 and whole.digest != half.digest


def test_errors_give_advice(tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match="unknown encoder 'vggish'; expected hf:MODEL"):
        audio_encoder_info("vggish")
    with pytest.raises(TrichordError, match="unknown option in 'hf:x/y@step=3'"):
        audio_encoder_info("hf:x/y@step=3")
    clap, whisper, bert = tiny.clap(tmp_path / "clap"), tiny.whisper(tmp_path / "whisper"), tiny.bert(tmp_path / "bert")
    with pytest.raises(TrichordError, match="hop 3 s is out of range; it must be above 0 and at most 1 s"):
        audio_encoder_info(f"hf:{clap}@hop=3")
    with pytest.raises(TrichordError, match="has one row per second; leave out @hop"):
        plan_of(whisper, 0.5)
    with pytest.raises(TrichordError, match="bert model have no sampling rate"):
        audio_encoder_info(f"hf:{bert}")
    (clap / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(TrichordError, match="cannot be loaded"):
        load_audio_encoder(f"hf:{clap}")
