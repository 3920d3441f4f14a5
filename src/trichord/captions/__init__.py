"""Timed text: read it from the files beside videos and from subtitle tracks, merge repeats, split it into words, clean it.

`formats` turns files into cues, `text` turns markup into lines, `rolling` merges cues that show a line again, `sidecars`
chooses the file beside a video, `words` splits text into words, `cleaning` decides about wrong times.

The rules by which files become captions have a version, `CAPTION_RULES`:

1. WebVTT with word stamps was freed of repeated lines; every other repeat stayed. A cue with an odd time was an error for the
   whole file. Tags and entities were resolved in WebVTT and SubRip only. Files were `.vtt`, `.srt`, `.json` and `.csv` named
   like the video, with or without `.en`, `.en-US`, `.en-GB` or `.en-orig`; of several subtitle tracks FFmpeg chose one.
2. What this package does: see `rolling`, `text`, `sidecars` and `formats`.
"""

from trichord.captions.cleaning import clean_captions
from trichord.captions.model import Captions
from trichord.captions.reading import CAPTION_SUFFIXES as SIDECAR_SUFFIXES
from trichord.captions.reading import read_captions
from trichord.captions.sidecars import Sidecar, choose_sidecar, find_sidecar
from trichord.captions.text import plain_text
from trichord.captions.words import WORD_SPLITTINGS, WordSplitting, class_text, tokenize

CAPTION_RULES = 2

__all__ = [
    "CAPTION_RULES",
    "SIDECAR_SUFFIXES",
    "WORD_SPLITTINGS",
    "Captions",
    "Sidecar",
    "WordSplitting",
    "choose_sidecar",
    "class_text",
    "clean_captions",
    "find_sidecar",
    "plain_text",
    "read_captions",
    "tokenize",
]
