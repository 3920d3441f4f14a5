"""Decoding of the sound of a media file to mono samples, as a stream of blocks or as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trichord.media.decode import SAMPLE_RATE_HZ, decoded, opened
from trichord.media.streams import no_sound, stream_of, undecodable

BLOCK_S = 10.0  # duration of a block, which takes 640 kB at 16 kHz
_GAP_S = 0.1  # longer gaps between two audio frames are filled with silence, and longer overlaps are cut from the later frame
_SILENT = 1e-5  # level of silence, 100 dB below full scale
_FAINT = 1e-3  # sound above this level is not checked for cancellation
_CANCELLED = 0.01  # channels cancel each other if the level of the mix is below this part of their level


def sound(
    path: str | Path,
    *,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    start_s: float = 0.0,
    end_s: float | None = None,
    notes: list[str] | None = None,
    num_threads: int | None = None,
) -> Iterator[np.ndarray]:
    """Iterate over the mono sound of a file, or of the clip [start_s, end_s) of it, in blocks.

    Sample i of all blocks together is heard at start_s + i / sample_rate_hz seconds. Late starts and gaps are filled with
    silence, and the overlapping part of sound that overlaps with earlier sound is left out. A block is at most ten seconds long,
    which bounds the memory for any file. For every ten seconds of sound before start_s, an empty block is yielded, so that the
    caller sees progress.

    A clip is bit-equal to the same samples of the whole file. Because resamplers and codecs have a state, decoding starts at the
    beginning of the file and stops at end_s. No block is yielded for a file without sound or for a clip that begins after its end.

    Args:
        path: Path of the file.
        sample_rate_hz: Samples per second.
        start_s: Start of the clip in seconds.
        end_s: End of the clip in seconds. None means the end of the file.
        notes: List to which notes about damage and silence are appended.
        num_threads: Number of threads of the decoder. None leaves it to FFmpeg.

    Yields:
        Blocks of shape (n,), float32, in [-1, 1].

    Raises:
        TrichordError: If the file is missing or not a media file.
    """
    position, begin = 0, round(start_s * sample_rate_hz)
    end = None if end_s is None else round(end_s * sample_rate_hz)
    block = max(round(BLOCK_S * sample_rate_hz), 1)
    pending: list[np.ndarray] = []
    num_pending = num_skipped = 0
    if end is not None and end <= begin:
        return
    for piece in _pieces(path, sample_rate_hz, block, notes, num_threads):
        first, last = begin - position, (piece.size if end is None else end - position)
        position += piece.size
        inside = piece[max(first, 0) : max(last, 0)]
        if inside.size:
            pending.append(inside)
            num_pending += inside.size
        else:
            num_skipped += piece.size
        if num_skipped >= block:
            num_skipped = 0
            yield np.zeros(0, np.float32)
        while num_pending >= block:
            joined = np.concatenate(pending)
            yield joined[:block]
            pending, num_pending = [joined[block:]], num_pending - block
        if end is not None and position >= end:
            break
    if num_pending:
        yield np.concatenate(pending)


def _pieces(
    path: str | Path, sample_rate_hz: int, block: int, notes: list[str] | None, num_threads: int | None
) -> Iterator[np.ndarray]:
    """Iterate over resampled frames, and silence in gaps between timestamps. No piece is longer than `block` samples."""
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
                for num_left in range(num_silent, 0, -block):
                    silence = np.zeros(min(num_left, block), np.float32)
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
        if notes is not None and (note := levels.note()):
            _add(notes, f"{path}: {note}")


def _add(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


class _Levels:
    """A running check of the level of the sound for silence and for channels that cancel each other."""

    def __init__(self) -> None:
        self._num_silent = self._num_cancelled = self._num_heard = 0

    def add(self, mix: np.ndarray, frame: Any) -> None:
        """Add the mono mix of a frame."""
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
        """Return a note about the level of the sound, or an empty string."""
        if self._num_cancelled > self._num_heard:
            return "the channels of its sound cancel each other, so their mix, which is used, is silence"
        return "its sound is silence" if self._num_silent and not self._num_heard + self._num_cancelled else ""


def _level_of(frame: Any) -> float:
    """Return the root-mean-square level of all channels, where 1.0 is full scale."""
    samples = frame.to_ndarray()
    if samples.dtype.kind != "f":
        bounds = np.iinfo(samples.dtype)
        middle = 128 if bounds.min == 0 else 0
        samples = (samples.astype(np.float64) - middle) / (bounds.max - middle)
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0


def _resampled(resampler: Any, frame: Any) -> Iterator[np.ndarray]:
    """Iterate over the resampled samples of a frame. If `frame` is None, the resampler is flushed. It may be None itself."""
    if resampler is not None:
        for resampled in resampler.resample(frame):
            yield resampled.to_ndarray().reshape(-1).astype(np.float32, copy=False)


def waveform(path: str | Path, *, sample_rate_hz: int = SAMPLE_RATE_HZ, notes: list[str] | None = None) -> np.ndarray:
    """Decode the sound of a file to mono samples.

    Sample i is heard at i / sample_rate_hz seconds. Late starts and gaps are filled with silence.

    Args:
        path: Path of the file.
        sample_rate_hz: Samples per second.
        notes: List to which notes about damage and silence are appended.

    Returns:
        Samples of shape (N,), float32, in [-1, 1]. The array is empty for a file without sound.

    Raises:
        TrichordError: If the file is missing or not a media file.
    """
    blocks = list(sound(path, sample_rate_hz=sample_rate_hz, notes=notes))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
