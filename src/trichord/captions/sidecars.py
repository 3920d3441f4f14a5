"""Selection of the caption file of a video (its sidecar) in the same folder.

The candidates for `talk.mp4` are files such as `talk.vtt`, `talk.de.vtt`, `talk.eng.srt`, `talk.en_US.forced.srt`, `talk.mp4.srt`
and `talk.SRT`. Their name consists of the name of the video, with or without its suffix, an optional language, and optional words
such as `forced` and `sdh`.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from trichord.captions.formats import NoCaptionsError
from trichord.captions.languages import language_of
from trichord.captions.reading import CAPTION_SUFFIXES, read_captions
from trichord.errors import TrichordError, Unavailable
from trichord.files.suffixes import SOUND_SUFFIXES, VIDEO_SUFFIXES

_PARTIAL = ("forced", "signs", "foreign")  # words in the names of files that translate only a few lines
_OTHER_WORDS = ("sdh", "cc", "hi", "default", "auto", "asr", "orig", "full", "sub", "subs", "captions")
_NO_LANGUAGE = ("und", "mul", "mis", "zxx")  # ISO 639 codes for an undetermined language, several, another, and none
_ENGLISH = (".en", ".en-US", ".en-GB", ".en-orig")
_UNREAD = (".sub", ".sbv", ".smi", ".lrc", ".scc", ".stl", ".srv1", ".srv2", ".srv3")
_GENERAL = (".json", ".csv", ".tsv")  # formats that may contain data other than captions
_MEDIA = (*VIDEO_SUFFIXES, *SOUND_SUFFIXES)
_SETTLED_S = 2.0  # a folder that changed more recently may change again with the same timestamp


@dataclass(frozen=True)
class Sidecar:
    """The caption file of a video.

    Attributes:
        path: Path of the file, or None if there is none.
        notes: Messages about the selected file and its alternatives, if the selection is not obvious.
    """

    path: Path | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    """A candidate for the caption file. `addition` is the part that its name adds to that of the video, such as `.en-US.sdh`."""

    path: Path
    addition: str
    language: str
    is_partial: bool


def find_sidecar(video_path: str | Path) -> Path | None:
    """Return the caption file of a video.

    Args:
        video_path: Path of the video, which need not exist.

    Returns:
        Path of the file that `choose_sidecar` selects, or None.
    """
    return choose_sidecar(video_path).path


def choose_sidecar(video_path: str | Path, sound_language: Callable[[], str] | None = None) -> Sidecar:
    """Select the caption file of a video.

    Complete captions are preferred to forced ones. Files without a language and files in the language of the sound (English if
    unknown) are preferred to English files, and these to other languages. Remaining ties are resolved by the order of formats in
    `CAPTION_SUFFIXES`, and then by name. A file without words is skipped if another file has words, and JSON, CSV or TSV files
    that do not contain captions are not candidates.

    Args:
        video_path: Path of the video, which need not exist.
        sound_language: Function that returns the language of the sound, or an empty string if unknown. It is called only if the
            selection depends on it.

    Returns:
        The selected file and notes about the selection.
    """
    video_path = Path(video_path)
    sidecar = _chosen(video_path, sound_language)
    return Sidecar(sidecar.path, (*sidecar.notes, *_irregular_notes(video_path)))


def _chosen(video_path: Path, sound_language: Callable[[], str] | None) -> Sidecar:
    candidates, strangers = _candidates(video_path)
    if not candidates:
        unread = [name for name in _names(video_path) if name.lower().endswith(_UNREAD)]
        advice = {name: f"convert it to one of {', '.join(CAPTION_SUFFIXES)}" for name in unread[:3]}
        for name in strangers[:3]:
            advice[name] = (
                f"rename it to {video_path.stem}{Path(name).suffix} if it contains the captions of this video"
            )
        beside = "is in the same folder and is not read"
        return Sidecar(None, tuple(f"{video_path}: {name} {beside}; {action}" for name, action in advice.items()))
    languages = {candidate.language for candidate in candidates if candidate.language}
    spoken = language_of(sound_language()) if sound_language is not None and len(languages) > 1 else ""
    ranked = sorted(candidates, key=lambda candidate: _rank(candidate, spoken))
    captions = [candidate for candidate in ranked if not _is_other_data(candidate.path)]
    if not captions:
        names = ", ".join(candidate.path.name for candidate in ranked[:5])
        return Sidecar(None, (f"{video_path}: no captions were found in {names} in the same folder",))
    chosen = captions[0]
    if len(captions) > 1:
        chosen = next((candidate for candidate in captions if _has_words(candidate.path)), chosen)
    others = [*(candidate.path.name for candidate in captions if candidate is not chosen), *strangers]
    if not others and chosen.language in ("", "en") and not chosen.is_partial:
        return Sidecar(chosen.path)
    beside = f"; not read: {', '.join(others[:5])}{' and more' if len(others) > 5 else ''}" if others else ""
    return Sidecar(chosen.path, (f"{video_path}: captions are read from {chosen.path.name}{beside}",))


def _rank(candidate: _Candidate, spoken: str) -> tuple[object, ...]:
    is_preferred = candidate.language in ("", spoken or "en")
    addition = candidate.addition
    return (
        candidate.is_partial,
        0 if is_preferred else 1 if candidate.language == "en" else 2,
        CAPTION_SUFFIXES.index(candidate.path.suffix.lower()),
        addition != "",
        _ENGLISH.index(addition) if addition in _ENGLISH else len(_ENGLISH),
        len(candidate.path.name),
        candidate.path.name,
    )


def _candidates(video_path: Path) -> tuple[list[_Candidate], list[str]]:
    """Return the candidates for the caption file of a video, and the names of other caption files that may belong to it.

    The names of the latter contain more than a language and known words.
    """
    names = _names(video_path)
    videos = {Path(name).stem for name in names if name.lower().endswith(_MEDIA)} - {video_path.stem}
    candidates, strangers = [], []
    for name in names:
        path = video_path.with_name(name)
        suffix = path.suffix.lower()
        if suffix not in CAPTION_SUFFIXES or name == video_path.name or path.stem in videos or not path.is_file():
            continue
        addition = name[len(video_path.stem) : -len(suffix)]
        if video_path.suffix and addition.lower().startswith(video_path.suffix.lower()):
            addition = addition[len(video_path.suffix) :]
        words = addition.split(".")[1:] if addition else []
        if addition[:1] not in ("", ".") or not all(_is_known(word) for word in words):
            if suffix not in _GENERAL and not any(name.startswith(f"{stem}.") for stem in videos):
                strangers.append(name)
            continue
        language = next((code for word in words if (code := language_of(word))), "")
        is_partial = any(word.lower() in _PARTIAL for word in words)
        candidates.append(_Candidate(path, addition, language, is_partial))
    return candidates, strangers


def _is_known(word: str) -> bool:
    return word.lower() in (*_PARTIAL, *_OTHER_WORDS, *_NO_LANGUAGE) or bool(language_of(word))


def _is_other_data(path: Path) -> bool:
    """Return whether a file of a general format is intact, but does not contain captions."""
    if path.suffix.lower() not in _GENERAL:
        return False
    try:
        status = path.stat()
    except OSError:
        return False
    return _holds_other_data(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _holds_other_data(path: str, changed_ns: int, size: int) -> bool:
    try:
        read_captions(path)
    except NoCaptionsError:
        return True
    except Unavailable:
        raise
    except TrichordError:
        pass  # damaged captions are reported when they are read
    return False


def _has_words(path: Path) -> bool:
    try:
        return any(text for text in read_captions(path).text)
    except Unavailable:
        raise
    except TrichordError:
        return False


def _irregular_notes(video_path: Path) -> tuple[str, ...]:
    """Return notes about pipes, devices and folders that have the name of a caption file."""
    irregular = [
        name
        for name in _names(video_path)
        if name.lower().endswith(CAPTION_SUFFIXES)
        and (path := video_path.with_name(name)).exists()
        and not path.is_file()
    ]
    return tuple(f"{video_path}: {name} is not a regular file and is not read" for name in irregular[:3])


def _names(video_path: Path) -> list[str]:
    """Return the names of the files in the folder of a video that begin with the stem of its name and a dot."""
    folder = video_path.parent
    try:
        changed_ns = os.stat(folder).st_mtime_ns
    except OSError:
        return []
    is_settled = time.time() - changed_ns / 1e9 > _SETTLED_S
    names = _listed(str(folder), changed_ns) if is_settled else _list(str(folder))
    begin = f"{video_path.stem}."
    at = bisect_left(names, begin)
    end = at
    while end < len(names) and names[end].startswith(begin):
        end += 1
    return names[at:end]


@lru_cache(maxsize=16)
def _listed(folder: str, changed_ns: int) -> list[str]:
    return _list(folder)


def _list(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
