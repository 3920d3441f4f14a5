"""What happens in the world: videos, their steps, what is said and what a recogniser writes. Data only, no rendering.

A step is an object, a tool and an action in the video's place. The combinations (object, tool, action) are parted
once into trained and held-out ones by a Latin design: any two of the three factors meet in both parts, all three
together in one part only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from trichord.errors import TrichordError
from trichord.world.vocabulary import ACTIONS, OBJECTS, PLACES, TOOLS, chatter, mishear, sentence, title

Combination = tuple[str, str, str]  # object, tool, action
_PARTS, _HELD_OUT_PARTS = 5, 2  # two fifths of all combinations are held out
_GAP_S = 0.1  # silence between two sentences
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Profile:
    """How much each modality knows of the content: probabilities per step, unless another unit is named.

    Attributes:
        name: what `profile_named` finds it by.
        object_shown, tool_shown, action_shown: the picture shows it; else a covered thing, a bare hand, no movement.
        place_shown: per video; else a plain wall.
        action_heard: the action's sound is in the audio track.
        place_heard: per video; the place's ambience is.
        object_said, tool_said, action_said, place_said: the sentence (speech, and so the caption) names it.
        word_error_rate: share of the caption's words that are replaced or dropped.
        filler_rate: fillers per word of the caption.
        shift_s: the narration starts up to this many seconds off its step.
        early_rate: share of narrations that start before their step instead of after its beginning.
        split_rate: share of training captions that are cut in two.
        chatter_rate: share of training sentences that have nothing to do with their step.
        snr_db: speech against the sounds of action and place; each video lies within 3 dB of it.
    """

    name: str
    object_shown: float = 0.97
    tool_shown: float = 0.95
    action_shown: float = 0.97
    place_shown: float = 1.0
    action_heard: float = 0.97
    place_heard: float = 1.0
    object_said: float = 0.95
    tool_said: float = 0.8
    action_said: float = 0.95
    place_said: float = 0.15
    word_error_rate: float = 0.1
    filler_rate: float = 0.04
    shift_s: float = 1.5
    early_rate: float = 0.25
    split_rate: float = 0.1
    chatter_rate: float = 0.08
    snr_db: float = 6.0


PROFILES = {"balanced": Profile("balanced")}


def profile_named(name: str) -> Profile:
    """The built-in profile `name`. Raises TrichordError that lists the known ones."""
    if name not in PROFILES:
        raise TrichordError(f"no world profile '{name}'; known are {', '.join(PROFILES)}")
    return PROFILES[name]


@dataclass(frozen=True)
class Voice:
    """A speaker: espeak-ng's voice name, words per minute, pitch (0 to 99)."""

    name: str
    rate_wpm: int
    pitch: int


@dataclass(frozen=True)
class Step:
    """One step, [start_s, end_s) of its video, and what of it can be seen and heard."""

    start_s: float
    end_s: float
    object: str
    tool: str
    action: str
    object_shown: bool
    tool_shown: bool
    action_shown: bool
    action_heard: bool


@dataclass(frozen=True)
class Line:
    """Words within [start_s, end_s); `step` is the index of the step that they tell of, None for chatter."""

    start_s: float
    end_s: float
    text: str
    step: int | None


@dataclass(frozen=True)
class VideoScript:
    """One narrated how-to video. `narration` is what is said, `captions` what the recogniser wrote of it."""

    video_id: str
    split: str
    title: str
    place: str
    place_shown: bool
    place_heard: bool
    voice: Voice
    snr_db: float
    steps: tuple[Step, ...]
    narration: tuple[Line, ...]
    captions: tuple[Line, ...]
    seed: tuple[int, int, int]

    @property
    def duration_s(self) -> float:
        return self.steps[-1].end_s


_VOICES = ("en-us", "en-us+f2", "en-us+m3", "en-us+f4", "en", "en-gb-x-rp+m7")


def split_combinations(seed: int) -> dict[str, list[Combination]]:
    """All (object, tool, action), parted into `train` and `test` (held out): disjoint, together complete.

    Each value, and each pair of values of two factors, occurs in both parts.
    """
    rng = np.random.default_rng([seed, 17])
    ranks = [dict(zip(names, rng.permutation(len(names)).tolist(), strict=True)) for names in (OBJECTS, TOOLS, ACTIONS)]
    parts: dict[str, list[Combination]] = {split: [] for split in _SPLITS}
    for combination in product(OBJECTS, TOOLS, ACTIONS):
        part = sum(rank[name] for rank, name in zip(ranks, combination, strict=True)) % _PARTS
        parts["test" if part < _HELD_OUT_PARTS else "train"].append(combination)
    return parts


def _endless(combinations: list[Combination], rng: np.random.Generator) -> Iterator[Combination]:
    """Every combination once in random order, then all again in another order, without end."""
    while True:
        for i in rng.permutation(len(combinations)):
            yield combinations[int(i)]


def write_script(
    *, num_train: int, num_test: int, steps_per_video: int, step_s: float, seed: int, profile: Profile
) -> list[VideoScript]:
    """The whole world as data: `num_train` videos of trained combinations, then `num_test` of held-out ones.

    A video's script depends on the seed, its split and its number only, not on how many videos there are.
    In the held-out split each step has exactly one caption that tells of it: no chatter, no caption cut in two.
    """
    parts = split_combinations(seed)
    videos = []
    for code, (split, num_videos) in enumerate(zip(_SPLITS, (num_train, num_test), strict=True)):
        draw = _endless(parts[split], np.random.default_rng([seed, code, 29]))
        for index in range(num_videos):
            combinations = [next(draw) for _ in range(steps_per_video)]
            videos.append(_write_video(split, (seed, code, index), combinations, step_s, profile))
    return videos


def _write_video(
    split: str, seed: tuple[int, int, int], combinations: list[Combination], step_s: float, profile: Profile
) -> VideoScript:
    rng = np.random.default_rng(seed)
    index = seed[2]
    rounds, at = divmod(index, len(PLACES))  # each place once in every round, in random order
    place = list(PLACES)[int(np.random.default_rng([*seed[:2], rounds, 31]).permutation(len(PLACES))[at])]
    voice = Voice(_VOICES[index % len(_VOICES)], int(rng.integers(145, 186)), int(rng.integers(35, 66)))
    known = (profile.object_shown, profile.tool_shown, profile.action_shown, profile.action_heard)
    steps = tuple(
        Step(round(i * step_s, 3), round((i + 1) * step_s, 3), *combination, *_chances(rng, *known))
        for i, combination in enumerate(combinations)
    )
    narration = _narrate(rng, steps, place, voice, profile, chatty=split == "train")
    captions = _recognise(rng, narration, profile, cutting=split == "train")
    objects = list(dict.fromkeys(step.object for step in steps))
    return VideoScript(
        video_id=f"{split}-{index:04d}",
        split=split,
        title=title(rng, objects, steps[0].action, place),
        place=place,
        place_shown=bool(rng.random() < profile.place_shown),
        place_heard=bool(rng.random() < profile.place_heard),
        voice=voice,
        snr_db=round(profile.snr_db + float(rng.uniform(-3, 3)), 2),
        steps=steps,
        narration=narration,
        captions=captions,
        seed=seed,
    )


def _chances(rng: np.random.Generator, *probabilities: float) -> tuple[bool, ...]:
    return tuple(bool(rng.random() < p) for p in probabilities)


def _narrate(
    rng: np.random.Generator, steps: tuple[Step, ...], place: str, voice: Voice, profile: Profile, *, chatty: bool
) -> tuple[Line, ...]:
    """One sentence per step, one after the other, each near its step and within the video."""
    lines: list[Line] = []
    free_s = 0.0  # when the speaker has finished the sentence before
    for i, step in enumerate(steps):
        objects, tools, actions, places = _chances(
            rng, profile.object_said, profile.tool_said, profile.action_said, profile.place_said
        )
        text = sentence(
            rng,
            object_=step.object if objects else None,
            tool=step.tool if tools else None,
            action=step.action if actions else None,
            place=place if places else None,
        )
        off_s = float(rng.uniform(0, profile.shift_s)) * (-1 if rng.random() < profile.early_rate else 1)
        off_topic = chatty and rng.random() < profile.chatter_rate
        text = chatter(rng) if off_topic else text
        seconds = len(text) * 8.5 / voice.rate_wpm + 0.2  # measured: 40 letters take 2 s at 170 words per minute
        latest_s = step.end_s if i == len(steps) - 1 else step.end_s + profile.shift_s
        start_s = max(free_s, min(step.start_s + off_s, latest_s - seconds))
        end_s = min(start_s + seconds, latest_s)
        lines.append(Line(round(start_s, 3), round(end_s, 3), text, None if off_topic else i))
        free_s = end_s + _GAP_S
    return tuple(lines)


def _recognise(
    rng: np.random.Generator, narration: tuple[Line, ...], profile: Profile, *, cutting: bool
) -> tuple[Line, ...]:
    """The captions: misheard words, some lines cut in two at a word."""
    captions: list[Line] = []
    for line in narration:
        text = mishear(rng, line.text, word_error_rate=profile.word_error_rate, filler_rate=profile.filler_rate)
        words = text.split()
        if cutting and len(words) >= 4 and rng.random() < profile.split_rate:
            at = int(rng.integers(2, len(words) - 1))
            middle_s = round(line.start_s + (line.end_s - line.start_s) * at / len(words), 3)
            captions.append(Line(line.start_s, middle_s, " ".join(words[:at]), line.step))
            captions.append(Line(middle_s, line.end_s, " ".join(words[at:]), line.step))
        else:
            captions.append(Line(line.start_s, line.end_s, text, line.step))
    return tuple(captions)


def vtt_text(captions: tuple[Line, ...]) -> str:
    """The captions as a WebVTT file."""

    def stamp(seconds: float) -> str:
        milliseconds = round(seconds * 1000)
        minutes, rest = divmod(milliseconds, 60_000)
        return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"

    cues = [f"{stamp(line.start_s)} --> {stamp(line.end_s)}\n{line.text}\n" for line in captions]
    return "\n".join(["WEBVTT\n", *cues])
