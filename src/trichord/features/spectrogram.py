"""Log-mel spectrograms by the recipe of the published systems (AVLnet, and MCN after it)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from trichord.audio_frames import HOP, NUM_MELS, SAMPLE_RATE_HZ, WINDOW
from trichord.features.audio_windows import Tail
from trichord.features.encoders import Fingerprint, Sound
from trichord.files.faults import SystemFaultError

FRAMES_PER_S = SAMPLE_RATE_HZ / HOP
PREEMPHASIS = 0.97
DYNAMIC_RANGE_DB = 80.0
_FLOOR = 1e-10  # power below which librosa's power_to_db does not go
_BLOCK = 6000  # frames transformed at a time: a minute, about 10 MB of spectrum


def log_mel(waveform: np.ndarray, sample_rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    """Log-mel spectrogram (40, F) float32 of a mono waveform (N,); F = 1 + N // 160 at 16 kHz.

    Recipe: mean subtracted, pre-emphasis 0.97, STFT of 400 samples every 160 with a symmetric Hamming window and zeros
    beyond both ends (frame i is centred on sample 160 i), power, 40 Slaney mel bands from 20 Hz, decibels relative to
    the loudest band of the whole waveform, floored at -80 dB. So all values lie in [-80, 0], and a change of level
    changes nothing: the -4 dB gain that the recipe applies first is left out for that reason.

    Other sample rates are resampled (soxr, high quality), integer samples are read as what they are. Silence has no
    loudest band: it gives 0 dB everywhere, as a waveform of zeros does in the published code. An empty waveform gives
    (40, 1) of the same. Long waveforms are transformed a minute at a time; the result does not depend on it.

    Raises ValueError if the waveform is not one-dimensional or holds NaN or infinity.
    """
    import librosa

    samples = _checked(waveform)
    if sample_rate_hz != SAMPLE_RATE_HZ and samples.size:
        samples = librosa.resample(samples, orig_sr=sample_rate_hz, target_sr=SAMPLE_RATE_HZ, res_type="soxr_hq")
    if samples.size:
        samples = samples - samples.mean()
        samples[1:] = samples[1:] - np.float32(PREEMPHASIS) * samples[:-1]
    padded = np.pad(samples, WINDOW // 2)
    num_frames = 1 + samples.size // HOP
    power = np.empty((NUM_MELS, num_frames), np.float32)
    power_of = _mel_power()
    for begin in range(0, num_frames, _BLOCK):
        end = min(begin + _BLOCK, num_frames)
        power[:, begin:end] = power_of(padded[begin * HOP : (end - 1) * HOP + WINDOW])
    return np.asarray(librosa.power_to_db(power, ref=np.max, amin=_FLOOR, top_db=DYNAMIC_RANGE_DB), np.float32)


def _checked(waveform: np.ndarray) -> np.ndarray:
    samples = np.asarray(waveform, np.float32)
    if samples.ndim != 1:
        raise ValueError(f"a mono waveform has one dimension, this one has shape {samples.shape}; average its channels")
    if not np.isfinite(samples).all():
        raise ValueError("the waveform holds NaN or infinite samples")
    return samples


def _mel_power() -> Callable[[np.ndarray], np.ndarray]:
    """The map from samples ((F - 1) * 160 + 400,) to power (40, F) float32."""
    import librosa

    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))
    mels = librosa.filters.mel(sr=SAMPLE_RATE_HZ, n_fft=WINDOW, n_mels=NUM_MELS, fmin=20.0)

    def power_of(samples: np.ndarray) -> np.ndarray:
        spectrum = librosa.stft(samples, n_fft=WINDOW, hop_length=HOP, window=window, center=False)
        return mels @ (np.abs(spectrum) ** 2)

    return power_of


@dataclass(frozen=True)
class LogMel:
    """`log_mel` of a sound that comes in blocks: an `AudioEncoder` whose memory does not grow with the sound.

    The sound is passed over twice: for its mean (in float64), then for the spectrogram. The level that decibels are
    relative to is the loudest band of the whole sound and known only at its end: so the decibels as they are go into
    a temporary file that has no name (`TMPDIR` says where; 115 MB for two hours), and from there, levelled, out.

    The rows are those of `log_mel`, rounded to float16, whatever blocks the sound comes in; the mean, which is more
    exact here, may move one by a unit in the last place.
    """

    stream: str = "spectrogram"
    sample_rate_hz: int = SAMPLE_RATE_HZ
    rate_hz: float = FRAMES_PER_S
    dim: int = NUM_MELS

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(
            "log-mel",
            "2",
            {
                "sample_rate_hz": SAMPLE_RATE_HZ,
                "num_mels": NUM_MELS,
                "window": WINDOW,
                "hop": HOP,
                "preemphasis": PREEMPHASIS,
                "dynamic_range_db": DYNAMIC_RANGE_DB,
            },
        )

    def encode(self, sound: Sound) -> Iterator[np.ndarray]:
        """Rows (n, 40) float16 in time order, at most a minute at a time: 1 + N // 160 for N samples at 16 kHz, row i
        centred on sample 160 i. Not one sample gives no row, where `log_mel` gives one as published. Raises ValueError
        as `log_mel` does, before the first row."""
        total, num_samples = 0.0, 0
        for block in sound():
            samples = _checked(block)
            total += float(samples.sum(dtype=np.float64))
            num_samples += samples.size
        if not num_samples:
            return
        mean = np.float32(total / num_samples)
        with tempfile.TemporaryFile() as file:
            loudest, num_frames = np.float32(_FLOOR), 0
            power_of = _mel_power()
            for stretch in _stretches(_emphasised(sound(), mean)):
                power = np.maximum(_FLOOR, power_of(stretch))
                loudest = max(loudest, power.max())
                num_frames += power.shape[1]
                file.write((10.0 * np.log10(power.T)).tobytes())
            if num_frames != 1 + num_samples // HOP:
                raise SystemFaultError("the sound was not the same when it was read again; run the command again")
            yield from _levelled(file, num_frames, 10.0 * np.log10(loudest))


def _emphasised(blocks: Iterator[np.ndarray], mean: np.float32) -> Iterator[np.ndarray]:
    """The samples without their mean, high frequencies raised; half a window of zeros before and after."""
    yield np.zeros(WINDOW // 2, np.float32)
    last = np.zeros(1, np.float32)
    for block in blocks:
        if block.size:
            samples = np.concatenate([last, np.asarray(block, np.float32) - mean])
            yield samples[1:] - np.float32(PREEMPHASIS) * samples[:-1]
            last = samples[-1:]
    yield np.zeros(WINDOW // 2, np.float32)


def _stretches(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The samples cut into stretches of `_BLOCK` frames each, neighbours overlapping by what a window holds more than
    a hop; so the same stretches, and sums, whatever the blocks were."""
    length, begin = (_BLOCK - 1) * HOP + WINDOW, 0
    tail = Tail(blocks)
    while tail.read_to(begin + length):
        yield tail.take(begin, begin + length)
        begin += _BLOCK * HOP
    if tail.end - begin >= WINDOW:
        yield tail.take(begin, tail.end - (tail.end - begin - WINDOW) % HOP)


def _levelled(file: IO[bytes], num_frames: int, level: np.float32) -> Iterator[np.ndarray]:
    """Float32 decibels (num_frames, 40) of `file` relative to `level`, floored, as float16, a minute at a time."""
    file.seek(0)
    floor = np.float32(-DYNAMIC_RANGE_DB)
    for begin in range(0, num_frames, _BLOCK):
        count = min(_BLOCK, num_frames - begin) * NUM_MELS
        decibels = np.frombuffer(file.read(4 * count), np.float32).reshape(-1, NUM_MELS)
        yield np.maximum(decibels - level, floor).astype(np.float16)
