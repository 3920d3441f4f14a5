"""Decoding of pictures by torchcodec: they are decoded, scaled and cropped on a GPU or the CPU and returned as NumPy arrays.

The same frames are selected as with PyAV. Their colors and scaling are those of torchcodec and PyTorch (bicubic with
antialiasing) and differ by a few levels from the reference, so the decoder is part of the fingerprint of features. torchcodec
uses presentation times unchanged, so `media.pictures` calls this module only for files with plain times. The module was tested
with a stub, but not with torchcodec itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.files.faults import raise_fault
from trichord.media.clock import Clock, due_pictures, longest_s
from trichord.media.decode import opened
from trichord.media.sampling import FrameSpec
from trichord.media.scaling import fitted
from trichord.media.streams import origin_s, video_of

if TYPE_CHECKING:
    import torch

_BATCH = 8  # number of pictures that are decoded at a time, which take 50 MB at 1080p
_INSIDE_S = 1e-6  # no frame is shown at the end of the stream itself


def pictures(
    path: str | Path,
    specs: Sequence[FrameSpec],
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Iterate over pictures in the order of time, from one decoding pass for all specifications.

    torchcodec scans the timestamps of the whole file before it decodes. It does not report damage, so there are no notes.

    Args:
        path: Path of the file.
        specs: Rates and sizes of the pictures.
        start_s: Start of the clip in seconds.
        end_s: End of the clip in seconds. None means the end of the video.
        device: Device on which pictures are decoded.
        num_threads: Number of threads of the decoder on the CPU. None leaves it to FFmpeg.

    Yields:
        The index of the specification, and the picture of shape (H, W, 3), uint8 RGB.

    Raises:
        TrichordError: As in `media.pictures`.
    """
    from torchcodec.decoders import VideoDecoder

    with opened(path) as container:
        stream = video_of(container, path)
        first_s, stream_index, latest_s = origin_s(container), stream.index, longest_s(container.size)
    try:
        decoder = VideoDecoder(
            os.path.abspath(path),  # a relative name such as http:x.mp4 would be treated as an address
            stream_index=stream_index,
            num_ffmpeg_threads=num_threads or 0,
            device=device,
            seek_mode="exact",
        )
    except Exception as error:  # usually RuntimeError; torchcodec does not document its errors
        raise _unreadable(path, error) from None
    metadata = decoder.metadata
    begin_s, stop_s = metadata.begin_stream_seconds - first_s, metadata.end_stream_seconds - first_s
    stop_s = min(stop_s, latest_s)
    if start_s and stop_s <= start_s:
        problem = f"the clip begins at {start_s:g} s, but the pictures end at {stop_s:.2f} s"
        raise TrichordError(f"{path}: {problem}; correct the start of the clip")
    clocks = [Clock(spec, start_s, end_s) for spec in specs]
    for clock in clocks:
        clock.begin(begin_s)
    places = [fitted(path, spec, metadata.width, metadata.height) for spec in specs]
    due = due_pictures(clocks, [clock.at_end(stop_s) for clock in clocks])
    due_times = ((index, clocks[index].instant_s(clocks[index].count - 1)) for index in due)
    while batch := list(islice(due_times, _BATCH)):
        times_s = sorted({min(max(time_s, begin_s), stop_s - _INSIDE_S) for _, time_s in batch})
        try:
            frames = decoder.get_frames_played_at([time_s + first_s for time_s in times_s]).data
        except Exception as error:
            raise _unreadable(path, error) from None
        for index, time_s in batch:
            frame = frames[times_s.index(min(max(time_s, begin_s), stop_s - _INSIDE_S))]
            yield index, _scaled(frame, *places[index])


def _scaled(frame: torch.Tensor, size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """Scale and crop a frame (3, H, W), uint8, on any device, and return an array of shape (H, W, 3), uint8."""
    from torch.nn.functional import interpolate

    left, top, right, bottom = box
    if (frame.shape[2], frame.shape[1]) != size:
        scaled: Any = interpolate(frame[None].float(), (size[1], size[0]), mode="bicubic", antialias=True)[0]
        frame = scaled.round().clamp(0, 255).byte()
    return frame[:, top:bottom, left:right].permute(1, 2, 0).contiguous().cpu().numpy()


def _unreadable(path: str | Path, error: Exception) -> TrichordError:
    raise_fault(path, error)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return TrichordError(
        f"{path}: torchcodec cannot decode the file ({one_line(lines[0])[:160]}); use the decoder pyav"
    )
