"""Decoding and writing of media files: pictures, sound and subtitle tracks, and their times.

All times are in seconds from the start of the file. Caption files are parsed in `trichord.captions`, and features are computed in
`trichord.features`; this package does not depend on features or stores.
"""

from trichord.media.audio import sound, waveform
from trichord.media.decoders import Decoder, available_decoders, choose_decoder
from trichord.media.encode import write_video
from trichord.media.images import image
from trichord.media.length import MediaInfo, clock_can_differ, probe
from trichord.media.sampling import FrameSpec
from trichord.media.subtitles import sound_language, subtitles
from trichord.media.timeline import CLOCK_RULES
from trichord.media.video import frames, pictures

__all__ = [
    "CLOCK_RULES",
    "Decoder",
    "FrameSpec",
    "MediaInfo",
    "available_decoders",
    "choose_decoder",
    "clock_can_differ",
    "frames",
    "image",
    "pictures",
    "probe",
    "sound",
    "sound_language",
    "subtitles",
    "waveform",
    "write_video",
]
