"""Profiles of a world, which specify how much each modality reveals of the content.

For each factor (object, tool, action, place, order of the steps) and each source (picture, sound, speech, text), a profile
specifies how often the source shows the true value, how often it shows another value, and how often it shows nothing. The
resulting information in bits is computed by `trichord.world.information`.
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
    """The probabilities with which a source shows a factor. With the remaining probability, it shows nothing.

    Attributes:
        true: Probability of the true value.
        other: Probability of another value, drawn uniformly.

    Raises:
        ValueError: If a probability is not in [0, 1], or if their sum exceeds 1.
    """

    true: float
    other: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.true <= 1 and self.other >= 0 and self.true + self.other <= 1 + 1e-9):
            raise ValueError(f"{self}: probabilities must be in [0, 1], and their sum must not exceed 1")


T = TypeVar("T")
Fidelity = float | Channel  # a number is the probability of the true value, and nothing is shown otherwise


def as_channel(fidelity: Fidelity) -> Channel:
    """Return a fidelity as a `Channel`."""
    return fidelity if isinstance(fidelity, Channel) else Channel(float(fidelity))


def through(rng: np.random.Generator, fidelity: Fidelity, truth: T, values: Sequence[T]) -> T | None:
    """Draw the value that a channel shows. This draws one random number, and a second one for another value.

    Args:
        rng: Random generator.
        fidelity: Channel.
        truth: True value.
        values: All values of the factor.

    Returns:
        The value, or None if nothing is shown.
    """
    channel = as_channel(fidelity)
    at = rng.random()
    if at < channel.true:
        return truth
    others = [value for value in values if value != truth]
    if at >= channel.true + channel.other or not others:
        return None
    return others[int(rng.integers(len(others)))]


@dataclass(frozen=True)
class SentenceFidelity:
    """The fidelities with which sentences name the factors of their step.

    The place is named by an additional phrase, and the order by words such as "third step" at the beginning.
    """

    object: Fidelity
    tool: Fidelity
    action: Fidelity
    place: Fidelity
    order: Fidelity = 0.0


@dataclass(frozen=True)
class Profile:
    """A specification of how much each modality reveals of the content.

    Fidelities are probabilities per step, unless stated otherwise.

    Attributes:
        name: Name of the profile.
        object_shown: Fidelity of the object in the picture. If nothing is shown, the object is covered.
        tool_shown: Fidelity of the tool in the picture. If nothing is shown, there is a bare hand.
        action_shown: Fidelity of the action in the picture. If nothing is shown, nothing moves.
        place_shown: Fidelity of the place in the pictures of a video. If nothing is shown, there is a plain wall.
        action_heard: Fidelity of the sound of the action.
        place_heard: Fidelity of the ambience of the place in the sound of a video.
        object_said: Fidelity of the object in the sentence.
        tool_said: Fidelity of the tool in the sentence.
        action_said: Fidelity of the action in the sentence.
        place_said: Fidelity of the place in the sentence.
        word_error_rate: Fraction of the words of captions that are replaced or dropped.
        filler_rate: Number of fillers per word of the captions.
        shift_s: Maximum distance of the start of a narration from the start of its step in seconds.
        early_rate: Fraction of the narrations that start before their step instead of after its beginning.
        split_rate: Fraction of the training captions that are divided into two.
        chatter_rate: Fraction of the sentences that are unrelated to their step. It applies only to training videos, unless the
            captions have their own `text`.
        snr_db: Level of the speech relative to the sounds of action and place. That of each video is within 3 dB of it.
        order_shown: Fidelity of the number of the step in the picture, which shows one dot at its left edge per step begun.
        order_said: Fidelity of the number of the step in the sentence, which begins with words such as "third step".
        text: Fidelities of captions that are written separately from the script. None derives the captions from the speech, with
            the errors of a recognizer.
        text_shift_s: The same as `shift_s` for captions with their own `text`.
        picture_shift_s: Maximum shift of the pictures in seconds, in either direction. It is constant within a video.
        sound_shift_s: Maximum shift of the sounds of actions in seconds, in either direction. It is constant within a video.
        material_heard: Whether the sound of an action depends on the material of the object.
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
    text: SentenceFidelity | None = None
    text_shift_s: float = 1.5
    picture_shift_s: float = 0.0
    sound_shift_s: float = 0.0
    material_heard: bool = True

    @property
    def said(self) -> SentenceFidelity:
        """Fidelities of the spoken sentences."""
        return SentenceFidelity(self.object_said, self.tool_said, self.action_said, self.place_said, self.order_said)


_LATER = ("order_shown", "order_said", "text", "text_shift_s", "picture_shift_s", "sound_shift_s", "material_heard")

PROFILES = {
    profile.name: profile
    for profile in (
        Profile("balanced"),
        Profile(  # speech and text reveal the steps, and the picture shows the place and moving hands
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
        Profile(  # the picture reveals the steps, the speech is about other things, and the captions reveal half of the content
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
            text=SentenceFidelity(object=0.6, tool=0.3, action=0.5, place=0.3),
            material_heard=False,
        ),
        Profile(  # sounds and speech are often wrong, late and noisy; picture and captions are as in `balanced`
            "noisy-audio",
            action_heard=Channel(0.4, 0.4),
            place_heard=Channel(0.4, 0.4),
            object_said=Channel(0.4, 0.4),
            tool_said=Channel(0.3, 0.3),
            action_said=Channel(0.4, 0.4),
            shift_s=3.0,
            snr_db=0.0,
            chatter_rate=0.2,
            text=SentenceFidelity(object=0.95, tool=0.8, action=0.95, place=0.15),
            sound_shift_s=1.5,
            material_heard=False,
        ),
    )
}


def profile_named(name: str) -> Profile:
    """Return a built-in profile.

    Args:
        name: Name of the profile.

    Returns:
        The profile.

    Raises:
        TrichordError: If the name is unknown. The message lists the known names.
    """
    if name not in PROFILES:
        raise TrichordError(f"unknown world profile '{name}'; expected one of {', '.join(PROFILES)}")
    return PROFILES[name]


def record_of(profile: Profile) -> dict[str, Any]:
    """Return a profile as a dictionary for `world.json`.

    Fields that were added in later versions are included only if they are set, so that the records of earlier worlds do not change.

    Args:
        profile: Profile.

    Returns:
        The fields of the profile.
    """
    defaults = {field.name: field.default for field in fields(Profile)}
    return {k: v for k, v in asdict(profile).items() if k not in _LATER or v != defaults[k]}


def profile_of(record: Mapping[str, Any]) -> Profile:
    """Return the profile of a dictionary that `record_of` returned.

    Args:
        record: Fields of the profile.

    Returns:
        The profile.

    Raises:
        TypeError: If a field is unknown.
    """
    values: dict[str, Any] = {k: Channel(**v) if isinstance(v, dict) and k != "text" else v for k, v in record.items()}
    if record.get("text") is not None:
        fidelities = {k: Channel(**v) if isinstance(v, dict) else v for k, v in record["text"].items()}
        values["text"] = SentenceFidelity(**fidelities)
    return Profile(**values)
