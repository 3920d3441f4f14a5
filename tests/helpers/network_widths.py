"""Widths of a small network."""

from __future__ import annotations

from typing import Any

WIDTHS: dict[str, Any] = {
    "video_dim": 6,
    "embed_dim": 8,
    "word_dim": 5,
    "reconstruction_dim": 4,
    "audio_channels": (4,) * 4,
}
