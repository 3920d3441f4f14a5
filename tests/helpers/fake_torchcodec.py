"""The parts of torchcodec (0.17) that trichord uses, as its documentation describes them, implemented with PyAV."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
import torch


@dataclass
class FrameBatch:
    data: torch.Tensor  # (N, 3, H, W) uint8
    pts_seconds: torch.Tensor
    duration_seconds: torch.Tensor


@dataclass
class Metadata:
    begin_stream_seconds: float
    end_stream_seconds: float
    width: int  # after rotation
    height: int


class VideoDecoder:
    calls: list[dict[str, Any]] = []

    def __init__(
        self,
        source: str,
        *,
        stream_index: int | None = None,
        dimension_order: str = "NCHW",
        num_ffmpeg_threads: int = 1,
        device: str | None = None,
        seek_mode: str = "exact",
    ) -> None:
        assert dimension_order == "NCHW" and seek_mode == "exact"
        self.calls.append({"device": device, "threads": num_ffmpeg_threads})
        self._frames: list[tuple[float, float, np.ndarray]] = []
        with av.open(source) as container:
            stream = container.streams[stream_index] if stream_index is not None else container.streams.best("video")
            for frame in container.decode(stream):
                turns = round(frame.rotation / 90) % 4
                picture = np.rot90(frame.to_ndarray(format="rgb24"), turns).copy()
                duration = float((frame.duration or 0) * frame.time_base) or 0.1
                self._frames.append((float(frame.pts * frame.time_base), duration, picture))
        if not self._frames:
            raise RuntimeError("No valid frames\nin a message of many lines")
        self._frames.sort(key=lambda row: row[0])
        height, width = self._frames[0][2].shape[:2]
        self.metadata = Metadata(self._frames[0][0], sum(self._frames[-1][:2]), width, height)

    def get_frames_played_at(self, seconds: list[float]) -> FrameBatch:
        rows = []
        for time_s in seconds:
            if not self.metadata.begin_stream_seconds <= time_s < self.metadata.end_stream_seconds:
                raise RuntimeError(f"Invalid pts in seconds: {time_s}")
            rows.append([row for row in self._frames if row[0] <= time_s][-1])
        data = torch.from_numpy(np.stack([picture for _, _, picture in rows])).permute(0, 3, 1, 2)
        return FrameBatch(data, torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows]))


def install(monkeypatch: pytest.MonkeyPatch) -> type[VideoDecoder]:
    module, decoders = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
    module.__version__ = "0.17.0"  # type: ignore[attr-defined]
    module.decoders = decoders  # type: ignore[attr-defined]
    decoders.VideoDecoder = VideoDecoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", module)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    monkeypatch.setattr(VideoDecoder, "calls", [])
    return VideoDecoder
