"""Speech is real, equal for equal words, and different for other words, voices and rates."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from trichord.errors import TrichordError
from trichord.world.speech import synthesize

SENTENCE = "now slice the red tomato with the knife"


def test_a_sentence_is_audible_speech() -> None:
    waveform, rate_hz = synthesize(SENTENCE)
    assert rate_hz == 16000 and waveform.dtype == np.float32 and waveform.ndim == 1
    assert 1.0 < len(waveform) / rate_hz < 4.0
    assert 0.02 < np.sqrt(np.mean(waveform**2)) < 0.4 and np.abs(waveform).max() <= 1


def test_equal_words_give_equal_samples() -> None:
    first, _ = synthesize(SENTENCE)
    synthesize("something else in between", voice="en-us+f2", pitch=70)
    again, _ = synthesize(SENTENCE)
    np.testing.assert_array_equal(first, again)


def test_speech_is_equal_across_processes() -> None:
    code = (
        "import hashlib; from trichord.world.speech import synthesize; "
        f"print(hashlib.sha256(synthesize({SENTENCE!r})[0].tobytes()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.strip() == hashlib.sha256(synthesize(SENTENCE)[0].tobytes()).hexdigest()


def test_threads_do_not_disturb_one_another() -> None:
    texts = ["cut the onion", "paint the brick", "roll the wheel", "wash the boot"]
    alone = [synthesize(text)[0] for text in texts]
    together: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i, t=t: together.__setitem__(i, synthesize(t)[0])) for i, t in enumerate(texts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, waveform in enumerate(alone):
        np.testing.assert_array_equal(together[i], waveform)


def _spectrum(waveform: np.ndarray) -> np.ndarray:
    power = np.abs(np.fft.rfft(waveform, 1 << 16)) ** 2
    bands = np.log(power[: 1 << 15].reshape(64, -1).mean(1) + 1e-9)
    return bands - bands.mean()


def test_other_words_and_voices_sound_different() -> None:
    tomato, brick = (synthesize(f"the {word}")[0] for word in ("tomato", "brick"))
    woman = synthesize("the tomato", voice="en-us+f2")[0]
    slow = synthesize("the tomato", rate_wpm=165)[0]
    near = np.linalg.norm(_spectrum(tomato) - _spectrum(slow))
    assert np.linalg.norm(_spectrum(tomato) - _spectrum(brick)) > 2 * near
    assert np.linalg.norm(_spectrum(tomato) - _spectrum(woman)) > 2 * near


def test_rate_and_pitch() -> None:
    lengths = [len(synthesize(SENTENCE, rate_wpm=rate)[0]) for rate in (100, 170, 300)]
    assert lengths[0] > 1.4 * lengths[1] > 1.4 * 1.4 * lengths[2]
    low, high = (synthesize(SENTENCE, pitch=pitch)[0] for pitch in (10, 90))
    assert len(low) != len(high) or not np.array_equal(low, high)


def test_sample_rate_is_a_choice() -> None:
    at_16k, _ = synthesize(SENTENCE)
    at_8k, rate_hz = synthesize(SENTENCE, sample_rate_hz=8000)
    assert rate_hz == 8000 and abs(2 * len(at_8k) - len(at_16k)) <= 2


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_no_words_are_silence(text: str) -> None:
    assert synthesize(text)[0].shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voice": "xx-nobody"}, "no voice 'xx-nobody'; give a known voice, such as en-us"),
        ({"rate_wpm": 20}, "rate_wpm is 20; it must be in the range from 80 to 450"),
        ({"pitch": 120}, "pitch is 120; it must be in the range from 0 to 99"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(TrichordError, match=message):
        synthesize(SENTENCE, **options)


def test_a_failed_sentence_does_not_spoil_the_next() -> None:
    before, _ = synthesize(SENTENCE)
    with pytest.raises(TrichordError):
        synthesize(SENTENCE, voice="xx-nobody")
    np.testing.assert_array_equal(synthesize(SENTENCE)[0], before)


def test_the_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(TrichordError, match="pip install espeakng-loader"):
        synthesize(SENTENCE)


def test_a_broken_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    import espeakng_loader

    broken = tmp_path / "libespeak-ng.so"
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(broken))
    with pytest.raises(TrichordError, match="libespeak-ng.so, which does not exist; .*--force-reinstall"):
        synthesize(SENTENCE)
    broken.write_bytes(b"not a library")
    with pytest.raises(TrichordError, match="cannot be loaded .*--force-reinstall"):
        synthesize(SENTENCE)
