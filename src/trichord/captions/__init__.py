"""Captions: reading of caption files, merging of repeated lines, splitting into words, and cleaning of times.

`formats` turns files into cues, `text` turns markup into lines, `rolling` merges cues that repeat a line, `sidecars` selects the
caption file of a video, `words` splits text into words, and `cleaning` repairs wrong times. Subtitle tracks are read from media
files by `trichord.media`, speech recognition lives in `trichord.extraction`, and word vectors live in `trichord.store`.

The rules by which files become captions have a version, `CAPTION_RULES`:

1. Repeated lines were removed only from WebVTT with word timestamps. A cue with an invalid time was an error for the whole file.
   Tags and entities were resolved only in WebVTT and SubRip. Caption files were `.vtt`, `.srt`, `.json` and `.csv` files with the
   name of the video, with or without `.en`, `.en-US`, `.en-GB` or `.en-orig`. FFmpeg selected one of several subtitle tracks.
2. The current rules, which are described in `rolling`, `text`, `sidecars` and `formats`.
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
