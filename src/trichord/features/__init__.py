"""Feature extractors: encoders of pictures, sound, text and speech, each with a fingerprint.

An encoder loads a pretrained model and turns decoded media into rows of features. Decoding media is the task of
`trichord.media`; choosing encoders, running them over many files and storing the rows is the task of `trichord.extraction`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trichord.audio_frames import time_to_frame
    from trichord.features.encoders import VisualEncoder
    from trichord.features.spectrogram import log_mel
    from trichord.features.visual import load_visual_encoder

__all__ = ["VisualEncoder", "load_visual_encoder", "log_mel", "time_to_frame"]

_HOMES = {
    "log_mel": "trichord.features.spectrogram",
    "time_to_frame": "trichord.audio_frames",
    "VisualEncoder": "trichord.features.encoders",
    "load_visual_encoder": "trichord.features.visual",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that importing the package is fast."""
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
