"""Log-mel spectrograms as the published systems (AVLnet and, following it, MCN) compute them."""

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
_FLOOR = 1e-10  # the smallest power in librosa's power_to_db
_BLOCK = 6000  # frames per block: one minute, about 10 MB of spectrum


def log_mel(waveform: np.ndarray, sample_rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    """Compute the log-mel spectrogram of a mono waveform.

    Steps: the mean is subtracted, pre-emphasis 0.97, STFT of 400 samples every 160 with a symmetric Hamming window and zero
    padding at both ends (frame i is centered on sample 160 i), power, 40 Slaney mel bands from 20 Hz, decibels relative to the
    loudest band of the whole waveform, with a floor of -80 dB. All values therefore lie in [-80, 0] and do not depend on the level,
    so the initial gain of -4 dB in the published code is left out.

    Silence has no loudest band and gives 0 dB everywhere, as in the published code; so does an empty waveform. Long waveforms are
    transformed one minute at a time, which does not affect the result.

    Args:
        waveform: (N,). Integer samples are not rescaled.
        sample_rate_hz: The sample rate. Rates other than 16 kHz are resampled (soxr, high quality).

    Returns:
        (40, F) float32, where F is 1 + N // 160 at 16 kHz.

    Raises:
        ValueError: The waveform is not one-dimensional or contains NaN or infinity.
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
        raise ValueError(
            f"a mono waveform must have one dimension, but this one has shape {samples.shape}; average its channels"
        )
    if not np.isfinite(samples).all():
        raise ValueError("the waveform contains NaN or infinite samples")
    return samples


def _mel_power() -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from samples ((F - 1) * 160 + 400,) to power (40, F) float32."""
    import librosa

    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))
    mels = librosa.filters.mel(sr=SAMPLE_RATE_HZ, n_fft=WINDOW, n_mels=NUM_MELS, fmin=20.0)

    def power_of(samples: np.ndarray) -> np.ndarray:
        spectrum = librosa.stft(samples, n_fft=WINDOW, hop_length=HOP, window=window, center=False)
        return mels @ (np.abs(spectrum) ** 2)

    return power_of


@dataclass(frozen=True)
class LogMel:
    """Computes `log_mel` of audio in blocks: an `AudioEncoder` whose memory does not grow with the length of the audio.

    The audio is read twice: once for its mean (in float64), then for the spectrogram. Decibels are relative to the loudest band of
    the whole audio, which is only known at the end. Absolute decibels are therefore written to an unnamed temporary file (in
    `TMPDIR`; 115 MB for two hours), from which the relative ones are computed.

    The rows are those of `log_mel`, rounded to float16, whatever the block sizes. The mean is more precise here, which may change a
    value by one unit in the last place.
    """

    stream: str = "spectrogram"
    sample_rate_hz: int = SAMPLE_RATE_HZ
    rate_hz: float = FRAMES_PER_S
    dim: int = NUM_MELS

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the encoder."""
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
        """Yield rows (n, 40) float16 in time order, at most one minute at a time.

        N samples at 16 kHz give 1 + N // 160 rows, and row i is centered on sample 160 i. Empty audio gives no row, whereas
        `log_mel` gives one, as published.

        Args:
            sound: Yields samples at 16 kHz. It is called twice.

        Raises:
            ValueError: See `log_mel`. It is raised before the first row.
        """
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
            for stretch in _stretches(_emphasized(sound(), mean)):
                power = np.maximum(_FLOOR, power_of(stretch))
                loudest = max(loudest, power.max())
                num_frames += power.shape[1]
                file.write((10.0 * np.log10(power.T)).tobytes())
            if num_frames != 1 + num_samples // HOP:
                raise SystemFaultError("the audio changed between two passes; run the command again")
            yield from _relative_to(file, num_frames, 10.0 * np.log10(loudest))


def _emphasized(blocks: Iterator[np.ndarray], mean: np.float32) -> Iterator[np.ndarray]:
    """Yield the samples minus their mean with high frequencies raised, with half a window of zeros before and after."""
    yield np.zeros(WINDOW // 2, np.float32)
    last = np.zeros(1, np.float32)
    for block in blocks:
        if block.size:
            samples = np.concatenate([last, np.asarray(block, np.float32) - mean])
            yield samples[1:] - np.float32(PREEMPHASIS) * samples[:-1]
            last = samples[-1:]
    yield np.zeros(WINDOW // 2, np.float32)


def _stretches(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield stretches of `_BLOCK` frames each, which overlap by the difference of window and hop.

    The stretches, and thus the sums, do not depend on the sizes of the blocks.
    """
    length, begin = (_BLOCK - 1) * HOP + WINDOW, 0
    tail = Tail(blocks)
    while tail.read_to(begin + length):
        yield tail.take(begin, begin + length)
        begin += _BLOCK * HOP
    if tail.end - begin >= WINDOW:
        yield tail.take(begin, tail.end - (tail.end - begin - WINDOW) % HOP)


def _relative_to(file: IO[bytes], num_frames: int, level: np.float32) -> Iterator[np.ndarray]:
    """Yield the float32 decibels (num_frames, 40) in `file` relative to `level`, floored, as float16, one minute at a time."""
    file.seek(0)
    floor = np.float32(-DYNAMIC_RANGE_DB)
    for begin in range(0, num_frames, _BLOCK):
        count = min(_BLOCK, num_frames - begin) * NUM_MELS
        decibels = np.frombuffer(file.read(4 * count), np.float32).reshape(-1, NUM_MELS)
        yield np.maximum(decibels - level, floor).astype(np.float16)
