"""Pictures by torchcodec: decoded, scaled and cropped on a GPU (or the CPU), handed over as NumPy arrays.

The frames are those that PyAV's way takes. Their colours and scaling are torchcodec's and torch's (bicubic with
antialias), a few grey levels off the reference: so the decoder is part of a feature's fingerprint. It takes presentation times
as they are: `media.pictures` calls it only for files whose times are plain. It is tested on a stand-in; it was not run on
torchcodec itself.
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

_BATCH = 8  # pictures decoded at a time: 50 MB at 1080p
_INSIDE_S = 1e-6  # the stream's end itself shows nothing any more


def pictures(
    path: str | Path,
    specs: Sequence[FrameSpec],
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """As `media.pictures`, which says what it yields and raises. `num_threads` counts on the CPU only.

    torchcodec looks through the whole file for its time stamps before it decodes. What it makes of damage it does not
    say: there are no notes.
    """
    from torchcodec.decoders import VideoDecoder

    with opened(path) as container:
        stream = video_of(container, path)
        first_s, stream_index, latest_s = origin_s(container), stream.index, longest_s(container.size)
    try:
        decoder = VideoDecoder(
            os.path.abspath(path),  # a relative name such as http:x.mp4 would be an address
            stream_index=stream_index,
            num_ffmpeg_threads=num_threads or 0,
            device=device,
            seek_mode="exact",
        )
    except Exception as error:  # RuntimeError mostly; torchcodec does not narrow it
        raise _unreadable(path, error) from None
    metadata = decoder.metadata
    begin_s, stop_s = metadata.begin_stream_seconds - first_s, metadata.end_stream_seconds - first_s
    stop_s = min(stop_s, latest_s)
    if start_s and stop_s <= start_s:
        what = f"the clip begins at {start_s:g} s, its pictures end at {stop_s:.2f} s"
        raise TrichordError(f"{path}: {what}; correct its start")
    clocks = [Clock(spec, start_s, end_s) for spec in specs]
    for clock in clocks:
        clock.begin(begin_s)
    places = [fitted(path, spec, metadata.width, metadata.height) for spec in specs]
    due = due_pictures(clocks, [clock.at_end(stop_s) for clock in clocks])
    wanted = ((index, clocks[index].instant_s(clocks[index].count - 1)) for index in due)
    while batch := list(islice(wanted, _BATCH)):
        times_s = sorted({min(max(time_s, begin_s), stop_s - _INSIDE_S) for _, time_s in batch})
        try:
            frames = decoder.get_frames_played_at([time_s + first_s for time_s in times_s]).data
        except Exception as error:
            raise _unreadable(path, error) from None
        for index, time_s in batch:
            frame = frames[times_s.index(min(max(time_s, begin_s), stop_s - _INSIDE_S))]
            yield index, _scaled(frame, *places[index])


def _scaled(frame: torch.Tensor, size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """(3, H, W) uint8 on any device -> (H, W, 3) uint8 in memory."""
    from torch.nn.functional import interpolate

    left, top, right, bottom = box
    if (frame.shape[2], frame.shape[1]) != size:
        scaled: Any = interpolate(frame[None].float(), (size[1], size[0]), mode="bicubic", antialias=True)[0]
        frame = scaled.round().clamp(0, 255).byte()
    return frame[:, top:bottom, left:right].permute(1, 2, 0).contiguous().cpu().numpy()


def _unreadable(path: str | Path, error: Exception) -> TrichordError:
    raise_fault(path, error)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return TrichordError(f"{path}: torchcodec cannot decode it ({one_line(lines[0])[:160]}); use decoder pyav")
