"""The time grid of spectrogram frames with 40 mel bands that the published systems compute from audio at 16 kHz."""

from __future__ import annotations

SAMPLE_RATE_HZ = 16000
NUM_MELS = 40
WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms, hence 100 frames per second


def time_to_frame(time_s: float, *, published: bool = False) -> int:
    """Return the index of the spectrogram frame at a time, for audio at 16 kHz and 160 samples per frame.

    As in the published loaders, the index is (16000 t - 200) // 160: the first frame whose window of 400 samples would contain
    the sample if windows were not centered. For times before 12.5 ms this gives -2 or -1, and slices that begin there are empty.

    Args:
        time_s: The time in seconds.
        published: Whether to return these negative indices as the published loaders do; otherwise they become 0.
    """
    frame = (int(time_s * SAMPLE_RATE_HZ) - WINDOW // 2) // HOP
    return frame if published else max(frame, 0)
