"""Suffixes of media files in lower case. They select the files of a folder; how a file is read depends only on its content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_VIDEO = (
    ".mp4 .mkv .webm .mov .avi .m4v .mpg .mpeg .wmv .flv .3gp .ts .ogv "
    ".m2ts .mts .m2t .trp .tp .vob .evo .mod .tod .mpe .mpv .m1v .m2v .m2p .mp4v .qt .3g2 .3gpp .f4v .ismv .mj2 .mk3d "
    ".divx .xvid .asf .ogm .ogx .mxf .gxf .dv .dif .rm .rmvb .nut .nsv .wtv .amv .ivf .y4m .mjpg .mjpeg .gif "
    ".h264 .264 .avc .h265 .265 .hevc .h266 .266 .vvc .obu .vc1 .bik .smk .dav .kux .viv .swf"
)
VIDEO_SUFFIXES = tuple(_VIDEO.split())  # if two videos in a folder share a name, the suffix listed first wins
SOUND_SUFFIXES = (".wav", ".mp3", ".ogg", ".oga", ".opus", ".flac", ".m4a", ".aac", ".wma", ".mka", ".aif", ".aiff")
_MOST_SHOWN = 8


def counted_by_suffix(paths: Iterable[Path]) -> str:
    """Count files by suffix, the most frequent first: `5 .txt, 2 .zip, 1 without a suffix`."""
    counts = Counter(path.suffix.lower() for path in paths)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in ranked[:_MOST_SHOWN]]
    if rest := sum(count for _, count in ranked[_MOST_SHOWN:]):
        parts.append(f"{rest:,} with other suffixes")
    return ", ".join(parts)
