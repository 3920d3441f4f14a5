"""Decoding and writing of media files; nothing here knows of features or stores."""

from trichord.media.audio import sound, waveform
from trichord.media.decode import MediaInfo, probe
from trichord.media.decoders import Decoder, available_decoders, choose_decoder
from trichord.media.encode import write_video
from trichord.media.images import image
from trichord.media.sampling import FrameSpec
from trichord.media.subtitles import sound_language, subtitles
from trichord.media.video import frames, pictures

__all__ = [
    "Decoder",
    "FrameSpec",
    "MediaInfo",
    "available_decoders",
    "choose_decoder",
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
