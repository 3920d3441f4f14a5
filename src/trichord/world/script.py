"""The script of a world: its videos, their steps, the narration, and the captions. The script is data and is not rendered here.

A step consists of an object, a tool and an action in the place of the video. The combinations (object, tool, action) are divided
into training and held-out combinations by a Latin design: every pair of values of two factors occurs in both parts, but every
combination of all three factors occurs in only one part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from trichord.world.profiles import PROFILES, Fidelity, Profile, SentenceFidelity, profile_named, through
from trichord.world.vocabulary import ACTIONS, OBJECTS, ORDINALS, PLACES, TOOLS, chatter, mishear, sentence, title

__all__ = ["PROFILES", "Line", "Profile", "Step", "VideoScript", "Voice", "profile_named", "split_combinations"]
__all__ += ["vtt_text", "write_script"]

Combination = tuple[str, str, str]  # object, tool, action
_PARTS, _HELD_OUT_PARTS = 5, 2  # two fifths of all combinations are held out
_GAP_S = 0.1  # duration of the silence between two sentences
_SPLITS = ("train", "test", "val")


@dataclass(frozen=True)
class Voice:
    """A speaker.

    Attributes:
        name: Name of the voice in espeak-ng.
        rate_wpm: Speed in words per minute.
        pitch: Pitch from 0 to 99.
    """

    name: str
    rate_wpm: int
    pitch: int


@dataclass(frozen=True)
class Step:
    """A step of a video, and the parts of it that can be seen and heard.

    Attributes:
        start_s: Start in seconds from the start of the video.
        end_s: End in seconds.
        object: Object.
        tool: Tool.
        action: Action.
        object_shown: Whether the picture shows an object.
        tool_shown: Whether the picture shows a tool.
        action_shown: Whether the picture shows an action.
        action_heard: Whether the sound of an action is heard.
        mistaken: Wrong values that are shown or heard instead of the true ones, by the name of the flag (`object_shown`: "fish").
        order_shown: Number of dots in the picture, or None.
    """

    start_s: float
    end_s: float
    object: str
    tool: str
    action: str
    object_shown: bool
    tool_shown: bool
    action_shown: bool
    action_heard: bool
    mistaken: Mapping[str, str] = field(default_factory=dict)
    order_shown: int | None = None

    def as_seen(self) -> Step:
        """Return the step as the picture shows it, with wrong values instead of the true ones."""
        values = {
            name: self.mistaken.get(f"{name}_shown", getattr(self, name)) for name in ("object", "tool", "action")
        }
        return replace(self, **values)

    def action_in_sound(self) -> str | None:
        """Return the action whose sound is in the audio track, or None."""
        return self.mistaken.get("action_heard", self.action) if self.action_heard else None


@dataclass(frozen=True)
class Line:
    """A sentence or caption in [start_s, end_s). `step` is the index of the step that it describes, or None for chatter."""

    start_s: float
    end_s: float
    text: str
    step: int | None


@dataclass(frozen=True)
class VideoScript:
    """The script of one narrated how-to video.

    `narration` holds the spoken sentences. `captions` holds the output of a recognizer for them, or for separate sentences in a
    profile with `text`. `picture_off_s` and `sound_off_s` are the delays of the pictures and of the sounds of actions in seconds,
    which are negative if they are early.
    """

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
    mistaken: Mapping[str, str] = field(default_factory=dict)
    picture_off_s: float = 0.0
    sound_off_s: float = 0.0
    material_heard: bool = True

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.steps[-1].end_s

    def place_in(self, flag: str) -> str | None:
        """Return the place that is seen (flag `place_shown`) or heard (flag `place_heard`), or None."""
        return self.mistaken.get(flag, self.place) if getattr(self, flag) else None


_VOICES = ("en-us", "en-us+f2", "en-us+m3", "en-us+f4", "en", "en-gb-x-rp+m7")


def split_combinations(seed: int) -> dict[str, list[Combination]]:
    """Divide all combinations (object, tool, action) into training and held-out ones.

    Every value, and every pair of values of two factors, occurs in both parts.

    Args:
        seed: Seed of the world.

    Returns:
        The combinations of the splits "train" and "test". The splits are disjoint and together complete.
    """
    rng = np.random.default_rng([seed, 17])
    ranks = [dict(zip(names, rng.permutation(len(names)).tolist(), strict=True)) for names in (OBJECTS, TOOLS, ACTIONS)]
    parts: dict[str, list[Combination]] = {"train": [], "test": []}
    for combination in product(OBJECTS, TOOLS, ACTIONS):
        part = sum(rank[name] for rank, name in zip(ranks, combination, strict=True)) % _PARTS
        parts["test" if part < _HELD_OUT_PARTS else "train"].append(combination)
    return parts


def _endless(combinations: list[Combination], rng: np.random.Generator) -> Iterator[Combination]:
    """Iterate over the combinations in random order without end. Each pass has another order."""
    while True:
        for i in rng.permutation(len(combinations)):
            yield combinations[int(i)]


def write_script(
    *,
    num_train: int,
    num_test: int,
    num_val: int = 0,
    steps_per_video: int,
    step_s: float,
    seed: int,
    profile: Profile,
) -> list[VideoScript]:
    """Write the scripts of all videos of a world.

    The script of a video depends only on the seed, its split and its index, and not on the number of videos. In the held-out
    splits "test" and "val", each step has exactly one caption that describes it: there is no chatter, and no caption is divided.
    The speech contains chatter in these splits, too, if the captions of the profile have their own `text`.

    Args:
        num_train: Number of videos of training combinations.
        num_test: Number of videos of held-out combinations.
        num_val: Number of further videos of held-out combinations, for validation.
        steps_per_video: Number of steps in each video.
        step_s: Duration of a step in seconds.
        seed: Seed of the world.
        profile: Profile of how much each modality reveals.

    Returns:
        The scripts of the training, test and validation videos, in this order.
    """
    parts = split_combinations(seed)
    videos = []
    for code, (split, num_videos) in enumerate(zip(_SPLITS, (num_train, num_test, num_val), strict=True)):
        draw = _endless(parts["train" if split == "train" else "test"], np.random.default_rng([seed, code, 29]))
        for index in range(num_videos):
            combinations = [next(draw) for _ in range(steps_per_video)]
            videos.append(_write_video(split, (seed, code, index), combinations, step_s, profile))
    return videos


def _write_video(
    split: str, seed: tuple[int, int, int], combinations: list[Combination], step_s: float, profile: Profile
) -> VideoScript:
    rng = np.random.default_rng(seed)
    index = seed[2]
    rounds, at = divmod(index, len(PLACES))  # every round contains each place once, in random order
    place = list(PLACES)[int(np.random.default_rng([*seed[:2], rounds, 31]).permutation(len(PLACES))[at])]
    voice = Voice(_VOICES[index % len(_VOICES)], int(rng.integers(145, 186)), int(rng.integers(35, 66)))
    steps = tuple(
        _write_step(rng, round(i * step_s, 3), round((i + 1) * step_s, 3), combination, profile)
        for i, combination in enumerate(combinations)
    )
    chatty = split == "train" or profile.text is not None
    narration = _narrate(
        rng,
        steps,
        place,
        voice,
        profile.said,
        profile,
        shift_s=profile.shift_s,
        chatter_rate=profile.chatter_rate * chatty,
    )
    captions = _recognize(rng, narration, profile, cutting=split == "train")
    objects = list(dict.fromkeys(step.object for step in steps))
    video = VideoScript(
        video_id=f"{split}-{index:04d}",
        split=split,
        title=title(rng, objects, steps[0].action, place),
        place=place,
        **_place_known(rng, place, profile),
        voice=voice,
        snr_db=round(profile.snr_db + float(rng.uniform(-3, 3)), 2),
        steps=steps,
        narration=narration,
        captions=captions,
        seed=seed,
        material_heard=profile.material_heard,
    )
    return _add_later(video, profile)


def _write_step(
    rng: np.random.Generator, start_s: float, end_s: float, combination: Combination, profile: Profile
) -> Step:
    object_, tool, action = combination
    true_values: dict[str, tuple[Fidelity, str, Collection[str]]] = {
        "object_shown": (profile.object_shown, object_, OBJECTS),
        "tool_shown": (profile.tool_shown, tool, TOOLS),
        "action_shown": (profile.action_shown, action, ACTIONS),
        "action_heard": (profile.action_heard, action, ACTIONS),
    }
    shown = {
        flag: through(rng, fidelity, truth, tuple(names)) for flag, (fidelity, truth, names) in true_values.items()
    }
    mistaken = {flag: value for flag, value in shown.items() if value is not None and value != true_values[flag][1]}
    flags = {flag: value is not None for flag, value in shown.items()}
    return Step(start_s, end_s, object_, tool, action, **flags, mistaken=mistaken)


def _place_known(rng: np.random.Generator, place: str, profile: Profile) -> dict[str, Any]:
    shown = {
        flag: through(rng, getattr(profile, flag), place, tuple(PLACES)) for flag in ("place_shown", "place_heard")
    }
    mistaken = {flag: value for flag, value in shown.items() if value is not None and value != place}
    return {**{flag: value is not None for flag, value in shown.items()}, "mistaken": mistaken}


def _add_later(video: VideoScript, profile: Profile) -> VideoScript:
    """Add separate captions, dots and shifts. They have their own generator, so that profiles without them do not change."""
    rng = np.random.default_rng([*video.seed, 37])
    if profile.text is not None:
        lines = _narrate(
            rng,
            video.steps,
            video.place,
            video.voice,
            profile.text,
            profile,
            shift_s=profile.text_shift_s,
            chatter_rate=0,
        )
        video = replace(video, captions=_recognize(rng, lines, profile, cutting=video.split == "train"))
    numbers = range(1, 1 + min(len(video.steps), len(ORDINALS)))
    steps = tuple(
        replace(step, order_shown=through(rng, profile.order_shown, i, numbers) if i in numbers else None)
        for i, step in enumerate(video.steps, 1)
    )
    return replace(
        video,
        steps=steps,
        picture_off_s=round(float(rng.uniform(-1, 1)) * profile.picture_shift_s, 3),
        sound_off_s=round(float(rng.uniform(-1, 1)) * profile.sound_shift_s, 3),
    )


def _narrate(
    rng: np.random.Generator,
    steps: tuple[Step, ...],
    place: str,
    voice: Voice,
    fidelity: SentenceFidelity,
    profile: Profile,
    *,
    shift_s: float,
    chatter_rate: float,
) -> tuple[Line, ...]:
    """Return one sentence per step, without overlaps, each near its step and within the video.

    The shift is limited to three quarters of a step or 1.5 s, whichever is longer, so that there is room for the last sentence.
    """
    shift_s = min(shift_s, max(1.5, 0.75 * (steps[0].end_s - steps[0].start_s)))
    lines: list[Line] = []
    free_s = 0.0  # time at which the speaker has finished the previous sentence
    numbers = range(1, 1 + min(len(steps), len(ORDINALS)))
    for i, step in enumerate(steps):
        object_ = through(rng, fidelity.object, step.object, tuple(OBJECTS))
        tool = through(rng, fidelity.tool, step.tool, tuple(TOOLS))
        action = through(rng, fidelity.action, step.action, tuple(ACTIONS))
        said_place = through(rng, fidelity.place, place, tuple(PLACES))
        text = sentence(rng, object_=object_, tool=tool, action=action, place=said_place)
        if fidelity.order != 0 and i + 1 in numbers:
            number = through(rng, fidelity.order, i + 1, numbers)
            text = f"{ORDINALS[number - 1]} step {text}" if number else text
        off_s = float(rng.uniform(0, shift_s)) * (-1 if rng.random() < profile.early_rate else 1)
        off_topic = chatter_rate > 0 and rng.random() < chatter_rate
        text = chatter(rng) if off_topic else text
        seconds = len(text) * 8.5 / voice.rate_wpm + 0.2  # as measured, 40 letters take 2 s at 170 words per minute
        latest_s = step.end_s if i == len(steps) - 1 else step.end_s + shift_s
        start_s = max(free_s, min(step.start_s + off_s, latest_s - seconds))
        end_s = min(start_s + seconds, latest_s)
        lines.append(Line(round(start_s, 3), round(end_s, 3), text, None if off_topic else i))
        free_s = end_s + _GAP_S
    return tuple(lines)


def _recognize(
    rng: np.random.Generator, narration: tuple[Line, ...], profile: Profile, *, cutting: bool
) -> tuple[Line, ...]:
    """Return the captions, with misheard words and some lines divided into two between words."""
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
    """Return captions as the text of a WebVTT file.

    Args:
        captions: Captions of a video.

    Returns:
        The text.
    """

    def stamp(seconds: float) -> str:
        milliseconds = round(seconds * 1000)
        minutes, rest = divmod(milliseconds, 60_000)
        return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"

    cues = [f"{stamp(line.start_s)} --> {stamp(line.end_s)}\n{line.text}\n" for line in captions]
    return "\n".join(["WEBVTT\n", *cues])
