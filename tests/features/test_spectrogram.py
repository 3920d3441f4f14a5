"""Log-mel compared with published numbers and with a float64 implementation of the recipe; times of frames."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import parity_recipe as recipe
from trichord.features import log_mel, spectrogram, time_to_frame
from trichord.features.spectrogram import LogMel


def mel_of(hz: float) -> float:
    """Return Slaney's scale: linear up to 1 kHz, then logarithmic."""
    return hz / (200 / 3) if hz < 1000 else 15 + np.log(hz / 1000) / (np.log(6.4) / 27)


def hz_of(mel: float) -> float:
    return mel * (200 / 3) if mel < 15 else 1000 * np.exp((mel - 15) * np.log(6.4) / 27)


def slow_log_mel(samples: np.ndarray) -> np.ndarray:
    """Compute the recipe in float64, sum by sum, without sharing code with the fast implementation."""
    x = [float(v) for v in samples]
    mean = sum(x) / len(x) if x else 0.0
    x = [v - mean for v in x]
    x = [v - 0.97 * x[i - 1] if i else v for i, v in enumerate(x)]
    x = [0.0] * 200 + x + [0.0] * 200
    edges = [hz_of(m) for m in np.linspace(mel_of(20), mel_of(8000), 42)]
    bins = np.arange(201) * 40.0
    n = np.arange(400)
    fourier = np.exp(-2j * np.pi * np.outer(np.arange(201), n) / 400)
    power = np.zeros((40, 1 + len(samples) // 160))
    for frame in range(power.shape[1]):
        windowed = np.array(x[160 * frame : 160 * frame + 400]) * (0.54 - 0.46 * np.cos(2 * np.pi * n / 399))
        spectrum = np.abs(fourier @ windowed) ** 2
        for band in range(40):
            low, centre, high = edges[band : band + 3]
            rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
            weights = np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)
            power[band, frame] = weights @ spectrum
    decibels = 10 * np.log10(np.maximum(power, 1e-10)) - 10 * np.log10(max(power.max(), 1e-10))
    return np.maximum(decibels, decibels.max() - 80)


def test_parity_with_the_published_recipe() -> None:
    published = recipe.outputs()["spectrogram"]
    ours = log_mel(recipe.waveform())
    assert ours.shape == published.shape == (40, 301) and ours.dtype == np.float32
    assert np.abs(ours - published).max() < 1e-4
    # -4 dB, which the recipe applies first, is no difference: decibels are relative to the loudest band
    assert np.abs(log_mel(recipe.waveform() * np.float32(10 ** (-4 / 20))) - published).max() < 2e-4


@pytest.mark.parametrize("num_samples", [1, 159, 160, 401, 1000, 8000])
def test_against_the_slow_recipe(num_samples: int) -> None:
    t = np.arange(num_samples) / 16000
    samples = 0.1 * np.random.RandomState(num_samples).randn(num_samples) + 0.4 * np.sin(2 * np.pi * 2000 * t * t) + 0.2
    ours, slow = log_mel(samples.astype(np.float32)), slow_log_mel(samples.astype(np.float32))
    assert ours.shape == slow.shape == (40, 1 + num_samples // 160)
    assert np.abs(ours - slow).max() < 2e-3


@pytest.mark.parametrize("num_samples", [0, 1, 100, 16000])
@pytest.mark.parametrize("level", [0.0, 0.3])
def test_silence_and_very_short_sound_are_finite(num_samples: int, level: float) -> None:
    spec = log_mel(np.full(num_samples, level, np.float32))
    assert spec.shape == (40, 1 + num_samples // 160) and np.isfinite(spec).all()
    assert spec.max() == 0 and (spec == 0).all()


@settings(max_examples=20)
@given(st.integers(0, 3000), st.floats(0.01, 30), st.integers(0, 2**31))
def test_range_and_level(num_samples: int, gain: float, seed: int) -> None:
    samples = np.random.RandomState(seed % 1000).uniform(-0.5, 0.5, num_samples).astype(np.float32)
    spec = log_mel(samples)
    assert spec.shape == (40, 1 + num_samples // 160)
    assert spec.max() == 0 and spec.min() >= -80.001
    assert num_samples < 2 or np.abs(log_mel(samples * np.float32(gain)) - spec).max() < 0.05


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.RandomState(1).randn(16000).astype(np.float32)
    whole = log_mel(samples)
    for block in (1, 7, 100, 101):
        monkeypatch.setattr(spectrogram, "_BLOCK", block)
        assert np.abs(log_mel(samples) - whole).max() < 1e-4


@pytest.mark.parametrize("sample_rate_hz", [8000, 22050, 44100, 48000])
def test_other_sample_rates(sample_rate_hz: int) -> None:
    def tone(rate: int) -> np.ndarray:
        t = np.arange(rate) / rate
        return (0.5 * np.sin(2 * np.pi * 900 * t)).astype(np.float32)

    resampled, direct = log_mel(tone(sample_rate_hz), sample_rate_hz), log_mel(tone(16000))
    assert resampled.shape == direct.shape
    loud = direct[:, 5:-5] > -20
    assert loud.any() and np.abs(resampled - direct)[:, 5:-5][loud].max() < 0.2
    assert log_mel(np.zeros(0), sample_rate_hz).shape == (40, 1)


def test_invalid_waveforms() -> None:
    with pytest.raises(ValueError, match=r"one dimension, but this one has shape \(2, 5\); average its channels"):
        log_mel(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        log_mel(np.array([0.0, np.nan]))


@pytest.mark.parametrize(
    ("time_s", "published", "clamped"), [(0, -2, 0), (0.01, -1, 0), (0.0125, 0, 0), (0.5, 48, 48), (12.3, 1228, 1228)]
)
def test_frames_of_times(time_s: float, published: int, clamped: int) -> None:
    assert time_to_frame(time_s, published=True) == published
    assert time_to_frame(time_s) == clamped


@given(st.floats(0, 20000))
def test_frames_of_times_are_librosas(time_s: float) -> None:
    import librosa

    assert time_to_frame(time_s, published=True) == librosa.time_to_frames(time_s, sr=16000, hop_length=160, n_fft=400)


def in_blocks(samples: np.ndarray, cuts: list[int]) -> Callable[[], Iterator[np.ndarray]]:
    return lambda: iter(np.split(samples, sorted(min(cut, samples.size) for cut in cuts)))


def rows_of(sound: Callable[[], Iterator[np.ndarray]]) -> np.ndarray:
    blocks = list(LogMel().encode(sound))
    assert all(block.dtype == np.float16 and len(block) <= spectrogram._BLOCK for block in blocks)
    return np.concatenate([np.zeros((0, 40), np.float16), *blocks])


def assert_as_log_mel(rows: np.ndarray, samples: np.ndarray) -> None:
    expected = log_mel(samples).T[: None if samples.size else 0]
    assert rows.shape == expected.shape and np.isfinite(rows).all()
    assert (
        np.abs(rows.astype(np.float32) - expected).max(initial=0) <= 0.04
    )  # float16 keeps 0.03 dB between 32 and 64 dB
    close = np.abs(rows.astype(np.float32) - expected.astype(np.float16)) > 0
    if samples.size >= 8000:  # of a short sound the rounding of the mean may move every value by its last place
        assert close.sum() <= 0.02 * close.size  # what differs lies at the border between two float16 numbers


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num_samples=st.one_of(st.integers(0, 1000), st.integers(0, 40000)),
    cuts=st.lists(st.integers(0, 40000), max_size=12),
    block=st.sampled_from([1, 3, 50, 6000]),
    offset=st.sampled_from([0.0, 0.1, -0.5]),
    seed=st.integers(0, 1000),
)
def test_in_blocks_as_in_memory(
    monkeypatch: pytest.MonkeyPatch, num_samples: int, cuts: list[int], block: int, offset: float, seed: int
) -> None:
    rng = np.random.RandomState(seed)
    loudness = np.repeat(10.0 ** rng.uniform(-6, 0, num_samples // 800 + 1), 800)[:num_samples]
    samples = (0.4 * rng.uniform(-1, 1, num_samples) * loudness + offset).astype(np.float32)
    if block < 50:
        samples = samples[:3000]
    with monkeypatch.context() as patch:
        patch.setattr(spectrogram, "_BLOCK", block)
        rows = rows_of(in_blocks(samples, cuts))
        assert_as_log_mel(rows, samples)
        assert np.array_equal(rows, rows_of(in_blocks(samples, [])))  # the same bits, whatever the blocks


def test_in_blocks_across_a_minute() -> None:
    samples = (0.2 * np.random.RandomState(0).randn(6000 * 160 + 5 * 160 + 77)).astype(np.float32)
    assert_as_log_mel(rows_of(in_blocks(samples, list(range(0, samples.size, 16384)))), samples)


@pytest.mark.parametrize("num_samples", [0, 1, 100, 16000])
@pytest.mark.parametrize("level", [0.0, 0.3])
def test_silence_in_blocks(num_samples: int, level: float) -> None:
    rows = rows_of(in_blocks(np.full(num_samples, level, np.float32), [50]))
    assert rows.shape == (1 + num_samples // 160 if num_samples else 0, 40) and (rows == 0).all()


@pytest.mark.parametrize("num_blocks", [0, 1, 3])
def test_empty_sound_gives_no_rows(num_blocks: int) -> None:
    """A row would have 0 dB, the loudest possible value, for a file without sound."""
    assert list(LogMel().encode(lambda: iter([np.zeros(0, np.float32)] * num_blocks))) == []


def test_the_published_recipe_in_blocks() -> None:
    published = recipe.outputs()["spectrogram"]
    rows = rows_of(in_blocks(recipe.waveform(), [1, 5000, 5001, 30000]))
    assert np.array_equal(rows.shape, published.T.shape) and np.abs(rows - published.T).max() <= 0.04


def test_invalid_sounds() -> None:
    for samples, message in (
        (np.zeros((2, 5)), r"one dimension, but this one has shape \(2, 5\)"),
        ([np.inf], "infinite"),
    ):
        with pytest.raises(ValueError, match=message):
            next(LogMel().encode(lambda samples=samples: iter([np.asarray(samples)])))


def test_the_encoder_describes_itself_and_writes_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    encoder = LogMel()
    assert (encoder.stream, encoder.sample_rate_hz, encoder.rate_hz, encoder.dim) == ("spectrogram", 16000, 100, 40)
    assert (encoder.fingerprint.name, encoder.fingerprint.version) == ("log-mel", "2")
    assert encoder.fingerprint == LogMel().fingerprint
    rows = encoder.encode(in_blocks(np.ones(5000, np.float32), [7]))
    next(rows)
    assert os.listdir(tmp_path) == []  # it has no name, even while it is in use
