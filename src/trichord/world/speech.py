"""Speech synthesis with espeak-ng, whose shared library and data come from the package `espeakng-loader`.

The library keeps a state between sentences (flutter and noise continue from the previous sentence), so that the same sentence
sounds slightly different the second time. It is therefore reloaded for each sentence, which takes about 1 ms. The same arguments
then give the same samples, independent of earlier sentences and of the process.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading

import numpy as np

from trichord.errors import TrichordError

MIN_RATE_WPM, MAX_RATE_WPM = 80, 450
_INSTALL = "install the speech synthesizer with `pip install espeakng-loader`"
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1  # constants of speak_lib.h of espeak
_RATE, _PITCH = 1, 3
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_lock = threading.Lock()  # there is one instance of the library per process, which is not thread-safe


def _paths() -> tuple[str, str]:
    try:
        import espeakng_loader
    except ImportError as error:
        raise TrichordError(
            f"speech requires the package espeakng-loader, which is not installed; {_INSTALL}"
        ) from error
    library, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
    for path in (library, data):
        if not os.path.exists(path):
            raise TrichordError(f"speech requires {path}, which does not exist; {_INSTALL} --force-reinstall")
    return library, data


def _load(library_path: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(library_path)
    except OSError as error:
        raise TrichordError(f"{library_path} cannot be loaded ({error}); {_INSTALL} --force-reinstall") from error


def _unload(library: ctypes.CDLL) -> None:
    import _ctypes

    library.espeak_Terminate()
    getattr(_ctypes, "FreeLibrary" if sys.platform == "win32" else "dlclose")(library._handle)


def _speak(library: ctypes.CDLL, data_path: str, text: str, voice: str, rate_wpm: int, pitch: int) -> tuple[bytes, int]:
    """Return 16-bit samples and their rate, from a library that was just loaded."""
    chunks: list[bytes] = []

    @_CALLBACK
    def collect(samples: ctypes._Pointer[ctypes.c_short], num_samples: int, events: int) -> int:
        if samples and num_samples > 0:
            chunks.append(ctypes.string_at(samples, 2 * num_samples))
        return 0

    sample_rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, data_path.encode(), _DONT_EXIT)
    if sample_rate_hz <= 0:
        raise TrichordError(f"espeak-ng cannot be started with the data in {data_path}; {_INSTALL} --force-reinstall")
    library.espeak_SetSynthCallback(collect)
    if hasattr(library, "espeak_ng_SetRandSeed"):
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise TrichordError(f"espeak-ng has no voice '{voice}'; give a known voice, such as en-us or en-us+f2")
    library.espeak_SetParameter(_RATE, rate_wpm, 0)
    library.espeak_SetParameter(_PITCH, pitch, 0)
    encoded = text.encode()
    status = library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 1, 0, _UTF8, None, None)
    if status != 0 or library.espeak_Synchronize() != 0:
        raise TrichordError(f"espeak-ng failed (status {status}) for the text '{text[:60]}'; change the text")
    return b"".join(chunks), sample_rate_hz


def synthesize(
    text: str, *, voice: str = "en-us", rate_wpm: int = 170, pitch: int = 50, sample_rate_hz: int = 16000
) -> tuple[np.ndarray, int]:
    """Synthesize speech. The same arguments give the same samples.

    Args:
        text: Plain words. An empty text gives an empty waveform.
        voice: Name of a voice of espeak-ng (language and variant), such as `en-us`, `en-us+f2` or `en-gb-x-rp+m3`.
        rate_wpm: Speed in words per minute, from 80 to 450.
        pitch: Pitch from 0 (low) to 99 (high). 50 is the normal pitch of the voice.
        sample_rate_hz: Samples per second.

    Returns:
        The mono waveform of shape (N,), float32, in [-1, 1], and `sample_rate_hz`.

    Raises:
        TrichordError: If the package is missing or damaged, if the voice is unknown, or if the speed or pitch is out of range.
    """
    if not MIN_RATE_WPM <= rate_wpm <= MAX_RATE_WPM:
        raise TrichordError(f"rate_wpm is {rate_wpm}; it must be in the range from {MIN_RATE_WPM} to {MAX_RATE_WPM}")
    if not 0 <= pitch <= 99:
        raise TrichordError(f"pitch is {pitch}; it must be in the range from 0 to 99")
    library_path, data_path = _paths()
    if not text.strip():
        return np.zeros(0, np.float32), sample_rate_hz
    with _lock:
        library = _load(library_path)
        try:
            raw, native_hz = _speak(library, data_path, text, voice, rate_wpm, pitch)
        finally:
            _unload(library)
    waveform = np.frombuffer(raw, np.int16).astype(np.float32) / 32768
    if native_hz != sample_rate_hz:
        from scipy.signal import resample_poly

        divisor = int(np.gcd(native_hz, sample_rate_hz))
        waveform = resample_poly(waveform, sample_rate_hz // divisor, native_hz // divisor)
    return np.clip(waveform, -1, 1).astype(np.float32), sample_rate_hz
