"""Decoding and writing of video files; nothing here knows of features or stores."""

from trichord.media.decode import MediaInfo, frames, probe, subtitles, waveform
from trichord.media.encode import write_video

__all__ = ["MediaInfo", "frames", "probe", "subtitles", "waveform", "write_video"]
