"""How much each modality knows of the content: data only. What it comes to in bits is counted in `information`.

A profile gives, for each factor (object, tool, action, place, order of the steps) and each source (picture, sound,
speech, text), how often the source shows the truth, how often another value, and, the rest of the time, nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import numpy as np

from trichord.errors import TrichordError

FACTORS = ("object", "tool", "action", "place", "order")


@dataclass(frozen=True)
class Channel:
    """What a source shows of one factor: the truth with probability `true`, with probability `other` one of the other
    values (each as likely as the next), else nothing."""

    true: float
    other: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.true <= 1 and self.other >= 0 and self.true + self.other <= 1 + 1e-9):
            raise ValueError(f"{self}: shares are from 0 to 1, and together no more than 1")


T = TypeVar("T")
Fidelity = float | Channel  # a plain number: the truth with this probability, else nothing


def as_channel(fidelity: Fidelity) -> Channel:
    return fidelity if isinstance(fidelity, Channel) else Channel(float(fidelity))


def through(rng: np.random.Generator, fidelity: Fidelity, truth: T, values: Sequence[T]) -> T | None:
    """What comes out of the channel for `truth`, one of `values`; None for nothing. One draw, a second for a mistake."""
    channel = as_channel(fidelity)
    at = rng.random()
    if at < channel.true:
        return truth
    others = [value for value in values if value != truth]
    if at >= channel.true + channel.other or not others:
        return None
    return others[int(rng.integers(len(others)))]


@dataclass(frozen=True)
class Told:
    """What sentences tell of their step: the place as an added phrase, the order as `third step` in front."""

    object: Fidelity
    tool: Fidelity
    action: Fidelity
    place: Fidelity
    order: Fidelity = 0.0


@dataclass(frozen=True)
class Profile:
    """How much each modality knows of the content: probabilities per step, unless another unit is named.

    Attributes:
        name: what `profile_named` finds it by.
        object_shown, tool_shown, action_shown: the picture shows it; else a covered thing, a bare hand, no movement.
        place_shown: per video; else a plain wall.
        action_heard: the action's sound is in the audio track.
        place_heard: per video; the place's ambience is.
        object_said, tool_said, action_said, place_said: the sentence names it.
        word_error_rate: share of the caption's words that are replaced or dropped.
        filler_rate: fillers per word of the caption.
        shift_s: the narration starts up to this many seconds off its step.
        early_rate: share of narrations that start before their step instead of after its beginning.
        split_rate: share of training captions that are cut in two.
        chatter_rate: share of sentences that have nothing to do with their step; in training videos only, unless the
            captions have their own `text`.
        snr_db: speech against the sounds of action and place; each video lies within 3 dB of it.
        order_shown: the picture counts the steps: as many dots at its left edge as steps have begun.
        order_said: the sentence begins with `third step`.
        text: what the captions tell, written from the script on their own; None: they are what a recogniser wrote of
            the speech.
        text_shift_s: as `shift_s`, of captions with their own `text`.
        picture_shift_s, sound_shift_s: the pictures, the sounds of the actions, are up to this many seconds off (either
            way, the same throughout a video).
        material_heard: the sound of an action is coloured by the object's material.
    """

    name: str
    object_shown: Fidelity = 0.97
    tool_shown: Fidelity = 0.95
    action_shown: Fidelity = 0.97
    place_shown: Fidelity = 1.0
    action_heard: Fidelity = 0.97
    place_heard: Fidelity = 1.0
    object_said: Fidelity = 0.95
    tool_said: Fidelity = 0.8
    action_said: Fidelity = 0.95
    place_said: Fidelity = 0.15
    word_error_rate: float = 0.1
    filler_rate: float = 0.04
    shift_s: float = 1.5
    early_rate: float = 0.25
    split_rate: float = 0.1
    chatter_rate: float = 0.08
    snr_db: float = 6.0
    order_shown: Fidelity = 0.0
    order_said: Fidelity = 0.0
    text: Told | None = None
    text_shift_s: float = 1.5
    picture_shift_s: float = 0.0
    sound_shift_s: float = 0.0
    material_heard: bool = True

    @property
    def said(self) -> Told:
        return Told(self.object_said, self.tool_said, self.action_said, self.place_said, self.order_said)


_LATER = ("order_shown", "order_said", "text", "text_shift_s", "picture_shift_s", "sound_shift_s", "material_heard")

PROFILES = {
    profile.name: profile
    for profile in (
        Profile("balanced"),
        Profile(  # speech and text tell the steps; the picture shows the place and busy hands
            "procedure",
            object_shown=Channel(0.2, 0.2),
            tool_shown=Channel(0.15, 0.15),
            action_shown=Channel(0.2, 0.2),
            action_heard=0.5,
            object_said=0.97,
            tool_said=0.9,
            action_said=0.97,
            place_said=0.3,
            order_said=0.8,
            word_error_rate=0.05,
            shift_s=1.0,
            chatter_rate=0.03,
            material_heard=False,
        ),
        Profile(  # the picture tells; the speech is about other things; the captions say half of it
            "scene",
            object_shown=0.99,
            tool_shown=0.98,
            action_shown=0.99,
            order_shown=0.8,
            action_heard=Channel(0.3, 0.2),
            place_heard=0.8,
            object_said=0.3,
            tool_said=0.2,
            action_said=0.3,
            place_said=0.1,
            chatter_rate=0.8,
            text=Told(object=0.6, tool=0.3, action=0.5, place=0.3),
            material_heard=False,
        ),
        Profile(  # what is heard is often wrong, late and drowned; picture and captions are as in `balanced`
            "noisy-audio",
            action_heard=Channel(0.4, 0.4),
            place_heard=Channel(0.4, 0.4),
            object_said=Channel(0.4, 0.4),
            tool_said=Channel(0.3, 0.3),
            action_said=Channel(0.4, 0.4),
            shift_s=3.0,
            snr_db=0.0,
            chatter_rate=0.2,
            text=Told(object=0.95, tool=0.8, action=0.95, place=0.15),
            sound_shift_s=1.5,
            material_heard=False,
        ),
    )
}


def profile_named(name: str) -> Profile:
    """The built-in profile `name`. Raises TrichordError that lists the known ones."""
    if name not in PROFILES:
        raise TrichordError(f"no world profile '{name}'; known are {', '.join(PROFILES)}")
    return PROFILES[name]


def record_of(profile: Profile) -> dict[str, Any]:
    """The profile as `world.json` keeps it. What came later stands there only where it is set, so that the record of a
    world from before it is still the same."""
    defaults = {field.name: field.default for field in fields(Profile)}
    return {k: v for k, v in asdict(profile).items() if k not in _LATER or v != defaults[k]}


def profile_of(record: Mapping[str, Any]) -> Profile:
    """The profile that `record_of` wrote. Raises TypeError on an unknown field."""
    values: dict[str, Any] = {k: Channel(**v) if isinstance(v, dict) and k != "text" else v for k, v in record.items()}
    if record.get("text") is not None:
        told = {k: Channel(**v) if isinstance(v, dict) else v for k, v in record["text"].items()}
        values["text"] = Told(**told)
    return Profile(**values)
