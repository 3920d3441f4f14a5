"""The sound of a media file as a stream of mono blocks, and whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trichord.media.decode import SAMPLE_RATE_HZ, decoded, opened
from trichord.media.streams import no_sound, stream_of, undecodable

BLOCK_S = 10.0  # length of a block: 640 kB at 16 kHz
_GAP_S = 0.1  # a longer hole between two audio frames is filled with silence, of a longer overlap the later sound is left out
_SILENT = 1e-5  # a level 100 dB below the loudest possible
_FAINT = 1e-3  # sound above this level is not looked at more closely
_CANCELLED = 0.01  # part of a channel's level that is left in the mix where channels cancel each other


def sound(
    path: str | Path,
    *,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    start_s: float = 0.0,
    end_s: float | None = None,
    notes: list[str] | None = None,
    num_threads: int | None = None,
) -> Iterator[np.ndarray]:
    """The sound of a file, or of the clip [start_s, end_s) of it, as mono float32 blocks (n,) in [-1, 1].

    Sample i of all blocks together is heard at start_s + i / sample_rate_hz seconds. Sound that starts late or has
    holes is filled with silence there; of sound that overlaps with what came before, the rest is kept. A block is at most
    ten seconds long, whatever the file, and so is the memory. For every ten seconds of sound before start_s there comes an
    empty block (0,), so that who waits sees progress.

    A clip is bit for bit what the whole file has between its first and last sample: resamplers and codecs remember,
    so decoding starts at the file's beginning (and stops at end_s). A file without sound, and a clip that begins after
    its end, give no sample. Raises TrichordError if the file is missing or no media file.
    """
    position, begin = 0, round(start_s * sample_rate_hz)
    end = None if end_s is None else round(end_s * sample_rate_hz)
    block = max(round(BLOCK_S * sample_rate_hz), 1)
    held: list[np.ndarray] = []
    num_held = num_skipped = 0
    if end is not None and end <= begin:
        return
    for piece in _pieces(path, sample_rate_hz, block, notes, num_threads):
        first, last = begin - position, (piece.size if end is None else end - position)
        position += piece.size
        wanted = piece[max(first, 0) : max(last, 0)]
        if wanted.size:
            held.append(wanted)
            num_held += wanted.size
        else:
            num_skipped += piece.size
        if num_skipped >= block:
            num_skipped = 0
            yield np.zeros(0, np.float32)
        while num_held >= block:
            whole = np.concatenate(held)
            yield whole[:block]
            held, num_held = [whole[block:]], num_held - block
        if end is not None and position >= end:
            break
    if num_held:
        yield np.concatenate(held)


def _pieces(
    path: str | Path, sample_rate_hz: int, block: int, notes: list[str] | None, num_threads: int | None
) -> Iterator[np.ndarray]:
    """Resampled frames and, where time stamps leave a hole, silence; none longer than `block` samples."""
    import av

    with opened(path) as container:
        stream = stream_of(container, "audio")
        if stream is None:
            if notes is not None and undecodable(container, "audio"):
                _add(notes, f"{path}: {no_sound(container)}")
            return
        length, num_late, layout, resampler, levels = 0, 0, None, None, _Levels()
        for time_s, frame in decoded(path, container, stream, notes, num_threads):
            expected = (frame.format.name, frame.layout.name, frame.sample_rate)
            missing_s = time_s - (length - num_late) / sample_rate_hz
            if resampler is None or layout != expected or abs(missing_s) > _GAP_S:
                for piece in _resampled(resampler, None):
                    length += piece.size
                    yield piece
                resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate_hz)
                layout = expected
                num_silent = round((time_s - length / sample_rate_hz) * sample_rate_hz)
                num_late = max(-num_silent, 0) if missing_s < -_GAP_S else 0
                for left in range(num_silent, 0, -block):
                    silence = np.zeros(min(left, block), np.float32)
                    length += silence.size
                    yield silence
            for piece in _resampled(resampler, frame):
                levels.add(piece, frame)
                piece, num_late = piece[num_late:], max(num_late - piece.size, 0)
                length += piece.size
                yield piece
        for piece in _resampled(resampler, None):
            yield piece[num_late:]
            num_late = max(num_late - piece.size, 0)
        if notes is not None and (what := levels.note()):
            _add(notes, f"{path}: {what}")


def _add(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


class _Levels:
    """How loud the sound is, as its frames go by: whether all of it is silence, or its channels cancel each other."""

    def __init__(self) -> None:
        self._num_silent = self._num_cancelled = self._num_heard = 0

    def add(self, mix: np.ndarray, frame: Any) -> None:
        energy = float(mix.dot(mix)) / mix.size if mix.size else 0.0
        if energy > _FAINT**2:
            self._num_heard += 1
            return
        level = math.sqrt(energy)
        if frame.layout.nb_channels > 1 and level < _CANCELLED * (channels := _level_of(frame)) and channels > _SILENT:
            self._num_cancelled += 1
        elif level > _SILENT:
            self._num_heard += 1
        else:
            self._num_silent += 1

    def note(self) -> str:
        if self._num_cancelled > self._num_heard:
            return "the channels of its sound cancel each other: their mix, which is used, is silence"
        return "its sound is silence" if self._num_silent and not self._num_heard + self._num_cancelled else ""


def _level_of(frame: Any) -> float:
    """The level (root mean square) of all channels, 1.0 being the loudest possible."""
    samples = frame.to_ndarray()
    if samples.dtype.kind != "f":
        bounds = np.iinfo(samples.dtype)
        middle = 128 if bounds.min == 0 else 0
        samples = (samples.astype(np.float64) - middle) / (bounds.max - middle)
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0


def _resampled(resampler: Any, frame: Any) -> Iterator[np.ndarray]:
    """Samples of `frame`; None empties the resampler, which may be None itself."""
    if resampler is not None:
        for resampled in resampler.resample(frame):
            yield resampled.to_ndarray().reshape(-1).astype(np.float32, copy=False)


def waveform(path: str | Path, *, sample_rate_hz: int = SAMPLE_RATE_HZ, notes: list[str] | None = None) -> np.ndarray:
    """The sound of a file as mono float32 (N,) in [-1, 1]; sample i is heard at i / sample_rate_hz seconds.

    Sound that starts late or has holes is filled with silence there. A file without sound gives an empty array.
    """
    blocks = list(sound(path, sample_rate_hz=sample_rate_hz, notes=notes))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
