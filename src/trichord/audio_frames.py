"""The grid of spectrogram frames: where the frames of 40 mel bands lie that the published systems take of sound at 16 kHz."""

from __future__ import annotations

SAMPLE_RATE_HZ = 16000
NUM_MELS = 40
WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms, hence 100 frames per second


def time_to_frame(time_s: float, *, published: bool = False) -> int:
    """The spectrogram frame at `time_s`, at 16 kHz and 160 samples per frame, as an index from 0.

    As in the published loaders it is (16000 t - 200) // 160: the first frame whose window of 400 samples, were it not
    centred, would hold the sample. There times before 12.5 ms give -2 or -1, and the slice taken with it is empty.
    `published=True` keeps that; otherwise such times give frame 0.
    """
    frame = (int(time_s * SAMPLE_RATE_HZ) - WINDOW // 2) // HOP
    return frame if published else max(frame, 0)
