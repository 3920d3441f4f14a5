"""Log-mel spectrograms by the recipe of the published systems (AVLnet, and MCN after it)."""

from __future__ import annotations

import numpy as np

SAMPLE_RATE_HZ = 16000
NUM_MELS = 40
WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms, hence 100 frames per second
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

    samples = np.asarray(waveform, np.float32)
    if samples.ndim != 1:
        raise ValueError(f"a mono waveform has one dimension, this one has shape {samples.shape}; average its channels")
    if not np.isfinite(samples).all():
        raise ValueError("the waveform holds NaN or infinite samples")
    if sample_rate_hz != SAMPLE_RATE_HZ and samples.size:
        samples = librosa.resample(samples, orig_sr=sample_rate_hz, target_sr=SAMPLE_RATE_HZ, res_type="soxr_hq")
    if samples.size:
        samples = samples - samples.mean()
        samples[1:] = samples[1:] - np.float32(PREEMPHASIS) * samples[:-1]
    padded = np.pad(samples, WINDOW // 2)
    num_frames = 1 + samples.size // HOP
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))
    mels = librosa.filters.mel(sr=SAMPLE_RATE_HZ, n_fft=WINDOW, n_mels=NUM_MELS, fmin=20.0)
    power = np.empty((NUM_MELS, num_frames), np.float32)
    for begin in range(0, num_frames, _BLOCK):
        end = min(begin + _BLOCK, num_frames)
        block = padded[begin * HOP : (end - 1) * HOP + WINDOW]
        spectrum = librosa.stft(block, n_fft=WINDOW, hop_length=HOP, window=window, center=False)
        power[:, begin:end] = mels @ (np.abs(spectrum) ** 2)
    return np.asarray(librosa.power_to_db(power, ref=np.max, amin=_FLOOR, top_db=DYNAMIC_RANGE_DB), np.float32)


def time_to_frame(time_s: float, *, published: bool = False) -> int:
    """The spectrogram frame at `time_s`, at 16 kHz and 160 samples per frame, as an index from 0.

    As in the published loaders it is (16000 t - 200) // 160: the first frame whose window of 400 samples, were it not
    centred, would hold the sample. There times before 12.5 ms give -2 or -1, and the slice taken with it is empty.
    `published=True` keeps that; otherwise such times give frame 0.
    """
    frame = (int(time_s * SAMPLE_RATE_HZ) - WINDOW // 2) // HOP
    return frame if published else max(frame, 0)
