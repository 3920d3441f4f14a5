"""The sounds of the world: one for each action, which depends on the material of the object, and one for each place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trichord.world.vocabulary import PERIOD_S

Sound = Callable[[int, int, float, np.random.Generator], np.ndarray]

# The brightness of each object: a factor that multiplies the pitch of the sounds of actions.
_BRIGHTNESS = {
    "tomato": 0.8, "onion": 0.9, "carrot": 1.1, "fish": 0.75, "bread": 0.9, "cheese": 0.8, "plank": 1.2, "bolt": 1.9,
    "brick": 1.4, "pot": 1.7, "fern": 1.0, "cloth": 0.65, "boot": 0.85, "candle": 1.0, "melon": 0.7, "wheel": 1.3,
}  # fmt: skip


def _band(num: int, rate_hz: int, low_hz: float, high_hz: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise between two frequencies with a root mean square of 1."""
    from scipy.signal import butter, sosfilt

    top = 0.49 * rate_hz
    sos = butter(2, [low_hz, min(high_hz, top)], "bandpass", fs=rate_hz, output="sos")
    noise = sosfilt(sos, rng.standard_normal(num))
    return np.asarray(noise / (noise.std() + 1e-9))


def _decay(seconds: float, tail_s: float, rate_hz: int) -> np.ndarray:
    return np.exp(-np.arange(int(seconds * rate_hz)) / (tail_s * rate_hz))


def _place(num: int, rate_hz: int, starts_s: np.ndarray, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return sounds that start at the given times, truncated at the end."""
    out = np.zeros(num)
    for start in starts_s:
        at = int(start * rate_hz)
        piece = make()[: max(0, num - at)]
        out[at : at + len(piece)] += piece
    return out


def _beats(num: int, rate_hz: int, period_s: float, rng: np.random.Generator, offset: float = 0.0) -> np.ndarray:
    """Return slightly irregular times, one per period."""
    times = np.arange(offset * period_s, num / rate_hz, period_s)
    return np.clip(times + rng.normal(0, 0.02 * period_s, len(times)), 0, None)


def _tones(freqs_hz: tuple[float, ...], seconds: float, tail_s: float, rate_hz: int) -> np.ndarray:
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    tones = sum(np.sin(2 * np.pi * f * t) / (i + 1) for i, f in enumerate(freqs_hz) if f < 0.45 * rate_hz)
    return np.asarray(tones * _decay(seconds, tail_s, rate_hz))


def _cut(num: int, rate_hz: int, bright: float, rng: np.random.Generator) -> np.ndarray:
    """Return chops, each a dull thud with a short crunch."""

    def chop() -> np.ndarray:
        crunch = _band(int(0.09 * rate_hz), rate_hz, 1500 * bright, 3500 * bright, rng) * _decay(0.09, 0.02, rate_hz)
        thud = 2.0 * _tones((170 * bright, 260 * bright), 0.12, 0.03, rate_hz)
        thud[: len(crunch)] += crunch
        return thud

    return _place(num, rate_hz, _beats(num, rate_hz, PERIOD_S["cut"], rng, 0.0), chop)


def _stir(num: int, rate_hz: int, bright: float, rng: np.random.Generator) -> np.ndarray:
    """Return a swelling swish with one soft clink per turn."""
    t = np.arange(num) / rate_hz
    swell = np.sin(np.pi * t / PERIOD_S["stir"]) ** 2
    beats = _beats(num, rate_hz, PERIOD_S["stir"], rng, 0.5)
    clink = _place(num, rate_hz, beats, lambda: _tones((1900 * bright, 3100 * bright), 0.15, 0.03, rate_hz))
    return _band(num, rate_hz, 700 * bright, 1800 * bright, rng) * (0.15 + swell) + 0.8 * clink


def _pour(num: int, rate_hz: int, bright: float, rng: np.random.Generator) -> np.ndarray:
    """Return bubbling, which consists of many short tones of rising pitch."""

    def bubble() -> np.ndarray:
        seconds = float(rng.uniform(0.04, 0.09))
        t = np.arange(int(seconds * rate_hz)) / rate_hz
        f = float(rng.uniform(350, 900)) * bright
        return np.asarray(np.sin(2 * np.pi * (f * t + f * 4 * t**2)) * np.hanning(len(t)))

    starts = np.sort(rng.uniform(0, num / rate_hz, int(22 * num / rate_hz) + 1))
    return _place(num, rate_hz, starts, bubble) + 0.08 * _band(num, rate_hz, 300, 1500, rng)


def _pound(num: int, rate_hz: int, bright: float, rng: np.random.Generator) -> np.ndarray:
    """Return loud, ringing blows."""

    def blow() -> np.ndarray:
        ring = _tones((520 * bright, 1290 * bright, 2170 * bright, 3380 * bright), 0.5, 0.11, rate_hz)
        knock = _band(int(0.03 * rate_hz), rate_hz, 100, 5000, rng) * _decay(0.03, 0.008, rate_hz)
        ring[: len(knock)] += 1.5 * knock
        return ring

    return _place(num, rate_hz, _beats(num, rate_hz, PERIOD_S["pound"], rng, 0.0), blow)


def _paint(num: int, rate_hz: int, bright: float, rng: np.random.Generator) -> np.ndarray:
    """Return high, dry strokes of bristles."""
    t = np.arange(num) / rate_hz
    stroke = np.abs(np.sin(2 * np.pi * t / PERIOD_S["paint"])) ** 3
    return _band(num, rate_hz, 3200 * min(bright, 1.3), 7000, rng) * stroke


def _roll(num: int, rate_hz: int, bright: float, rng: np.random.Generator) -> np.ndarray:
    """Return a deep rumble with bumps."""
    t = np.arange(num) / rate_hz
    speed = np.abs(np.cos(2 * np.pi * t / PERIOD_S["roll"]))
    bumps = 1 + 0.8 * np.sin(2 * np.pi * np.cumsum(4 + 9 * speed) / rate_hz)
    return _band(num, rate_hz, 70 * bright, 240 * bright, rng) * bumps * (0.2 + speed)


def _wash(num: int, rate_hz: int, bright: float, rng: np.random.Generator) -> np.ndarray:
    """Return fast scrubbing in running water with drops."""
    t = np.arange(num) / rate_hz
    scrub = 0.5 - 0.5 * np.cos(2 * np.pi * t / PERIOD_S["wash"])
    starts = np.sort(rng.uniform(0, num / rate_hz, int(6 * num / rate_hz) + 1))
    drops = _place(num, rate_hz, starts, lambda: _tones((float(rng.uniform(2200, 3800)),), 0.06, 0.012, rate_hz))
    running = 0.3 * _band(num, rate_hz, 2000, 6500, rng)
    return _band(num, rate_hz, 1300 * bright, 3600 * bright, rng) * scrub**2 + running + drops


def _heat(num: int, rate_hz: int, bright: float, rng: np.random.Generator) -> np.ndarray:
    """Return the crackles and the low roar of a fire."""

    def crackle() -> np.ndarray:
        return float(rng.uniform(0.5, 4)) * rng.standard_normal(int(0.012 * rate_hz)) * _decay(0.012, 0.002, rate_hz)

    starts = np.sort(rng.uniform(0, num / rate_hz, int(26 * num / rate_hz) + 1))
    return _place(num, rate_hz, starts, crackle) + 0.12 * _band(num, rate_hz, 50, 350 * bright, rng)


_ACTIONS: dict[str, Sound] = {
    "cut": _cut, "stir": _stir, "pour": _pour, "pound": _pound,
    "paint": _paint, "roll": _roll, "wash": _wash, "heat": _heat,
}  # fmt: skip


def action_sound(
    action: str, object_: str | None, num_samples: int, rate_hz: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the sound of an action, with soft ends and a root mean square of 1.

    Args:
        action: Action.
        object_: Object, whose material changes the sound. None makes the sound independent of the object.
        num_samples: Number of samples, N.
        rate_hz: Samples per second.
        rng: Random generator.

    Returns:
        Samples of shape (N,), float64.
    """
    bright = _BRIGHTNESS[object_] if object_ else 1.0
    sound = _ACTIONS[action](num_samples, rate_hz, bright * float(rng.uniform(0.94, 1.06)), rng)
    edge = min(num_samples // 2, int(0.05 * rate_hz))
    ramp = np.linspace(0, 1, edge)
    sound[:edge] *= ramp
    sound[num_samples - edge :] *= ramp[::-1]
    return np.asarray(sound / (np.sqrt(np.mean(sound**2)) + 1e-9))


def ambience(place: str, num_samples: int, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Return the background sound of a place, with a root mean square of 1.

    Args:
        place: Place.
        num_samples: Number of samples, N.
        rate_hz: Samples per second.
        rng: Random generator.

    Returns:
        Samples of shape (N,), float64.
    """
    t = np.arange(num_samples) / rate_hz
    phase = float(rng.uniform(0, 6))
    if place == "kitchen":  # a refrigerator
        hum = sum(np.sin(2 * np.pi * 100 * k * t + phase) / k for k in (1, 2, 3))
        sound = hum + 0.3 * _band(num_samples, rate_hz, 200, 600, rng)
    elif place == "workshop":  # a machine
        whine = np.sin(2 * np.pi * 640 * t + 3 * np.sin(2 * np.pi * 0.4 * t + phase))
        sound = whine + np.sign(np.sin(2 * np.pi * 50 * t)) * 0.6 + 0.5 * _band(num_samples, rate_hz, 1000, 3000, rng)
    elif place == "garden":  # birds

        def chirp() -> np.ndarray:
            s = np.arange(int(0.12 * rate_hz)) / rate_hz
            f = float(rng.uniform(3300, 5200))
            trill = np.sin(2 * np.pi * (f * s + 120 * np.sin(2 * np.pi * 18 * s) / 18))
            return np.asarray(4 * trill * np.hanning(len(s)))

        starts = np.sort(rng.uniform(0, num_samples / rate_hz, int(2 * num_samples / rate_hz) + 1))
        sound = _place(num_samples, rate_hz, starts, chirp) + 0.4 * _band(num_samples, rate_hz, 150, 900, rng)
    elif place == "garage":  # traffic outside
        sound = _band(num_samples, rate_hz, 30, 160, rng) * (1 + 0.5 * np.sin(2 * np.pi * 0.11 * t + phase))
    else:  # waves on the beach
        sound = _band(num_samples, rate_hz, 400, 4500, rng) * (0.15 + np.sin(np.pi * t / 6 + phase) ** 4)
    return np.asarray(sound / (np.sqrt(np.mean(sound**2)) + 1e-9))
