"""Mutual information of each modality and the content in bits, estimated over the scripted steps and computed from the profile.

The content of a step is its object, tool, action, place and number (order). A modality shows one symbol for each factor: the
value that is seen, heard or read, or nothing. Video shows the symbols of the picture, audio those of sounds and speech, and text
those of the captions, including recognition errors. Shifts in time are ignored: a symbol counts for the step to which it belongs.
The material that changes the sounds in the profile `balanced`, and in no other, is ignored as well: it reveals less than 3.6 bits
of the object, blurred by a pitch variation of 6 %.

The estimate is I = H(content) + H(shown) - H(content, shown) with plug-in entropies. Each has the correction of Miller and Madow of
(m - 1) / 2N nats for m values in N steps (Miller 1955), and the result is limited to the range from 0 to the entropy of the
content. All factors together have more values than a world has steps, so their information cannot be estimated, and `all` is only
computed exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from trichord.modality import MODALITIES
from trichord.world.profiles import FACTORS, Fidelity, Profile, as_channel
from trichord.world.script import VideoScript, split_combinations
from trichord.world.vocabulary import ACTIONS, OBJECTS, ORDINALS, PLACES, TOOLS, values_named_in

_VALUES = {"object": tuple(OBJECTS), "tool": tuple(TOOLS), "action": tuple(ACTIONS), "place": tuple(PLACES)}


@dataclass(frozen=True)
class Information:
    """The mutual information of each modality and the content in bits, rounded to four decimal places.

    Attributes:
        split: Split whose steps were counted.
        num_steps: Number of steps.
        entropy_bits: Estimated entropy of the content by factor, which is an upper bound. `all` is exact.
        counted_bits: Estimated mutual information by modality and factor.
        exact_bits: Mutual information of the channels of the profile by modality and factor, including `all`. For text, it
            assumes that a word is lost with the word error rate and never becomes another word of the world, although this
            happens occasionally.
    """

    split: str
    num_steps: int
    entropy_bits: dict[str, float]
    counted_bits: dict[str, dict[str, float]]
    exact_bits: dict[str, dict[str, float]]

    def record(self) -> dict[str, Any]:
        """Return the attributes as a dictionary for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        columns = (*FACTORS, "all")
        rows = {"content": self.entropy_bits}
        for name in MODALITIES:
            rows |= {name: self.counted_bits.get(name, {}), f"{name} exact": self.exact_bits[name]}
        lines = [
            f"information of each modality about a step in bits: estimated over {self.num_steps} steps of {self.split}, and exact"
        ]
        lines.append(" " * 12 + "".join(f"{name:>8}" for name in columns))
        for name, row in rows.items():
            lines.append(f"{name:<12}" + "".join(f"{row[c]:>8.2f}" if c in row else f"{'-':>8}" for c in columns))
        return "\n".join(lines)


# ---- symbols ----


def shown_by(video: VideoScript) -> list[dict[str, dict[str, tuple[str | None, ...]]]]:
    """Return the symbols that each modality shows of the steps of a video.

    Args:
        video: Script of the video.

    Returns:
        For each step, a tuple of symbols by modality and factor. It has one symbol, or two (sound, speech) for the action and the
        place in audio. None means that nothing is shown.
    """
    steps: list[dict[str, dict[str, tuple[str | None, ...]]]] = []
    for index, step in enumerate(video.steps):
        pictured = step.as_seen()
        spoken, written = (
            values_named_in(" ".join(line.text for line in lines if line.step == index))
            for lines in (video.narration, video.captions)
        )
        picture: dict[str, str | None] = {
            "object": pictured.object if step.object_shown else None,
            "tool": pictured.tool if step.tool_shown else None,
            "action": pictured.action if step.action_shown else None,
            "place": video.place_in("place_shown"),
            "order": str(step.order_shown) if step.order_shown else None,
        }
        sound: dict[str, str | None] = {"action": step.action_in_sound(), "place": video.place_in("place_heard")}
        steps.append(
            {
                "video": {factor: (picture[factor],) for factor in FACTORS},
                "audio": {f: (sound[f], spoken[f]) if f in sound else (spoken[f],) for f in FACTORS},
                "text": {factor: (written[factor],) for factor in FACTORS},
            }
        )
    return steps


def _content(video: VideoScript) -> list[dict[str, str]]:
    return [
        {"object": s.object, "tool": s.tool, "action": s.action, "place": video.place, "order": str(number)}
        for number, s in enumerate(video.steps, 1)
    ]


# ---- counting ----


def counted_entropy(symbols: Sequence[Hashable]) -> float:
    """Estimate the entropy of symbols in bits, with the correction of Miller and Madow.

    Args:
        symbols: Observed symbols.

    Returns:
        The entropy in bits.
    """
    return float(plug_in_entropy(symbols) + (len(set(symbols)) - 1) / (2 * len(symbols) * np.log(2)))


def counted_information(content: Sequence[Hashable], shown: Sequence[Hashable]) -> float:
    """Estimate the mutual information of two sequences of symbols in bits.

    Args:
        content: Symbols of the content.
        shown: Symbols that are shown, of the same length.

    Returns:
        The mutual information in bits, limited to the range from 0 to the plug-in entropy of `content`.

    Raises:
        ValueError: If the lengths differ.
    """
    if len(content) != len(shown):
        raise ValueError(
            f"content and shown must have the same length, but the lengths are {len(content)} and {len(shown)}"
        )
    both = list(zip(content, shown, strict=True))
    bits = counted_entropy(content) + counted_entropy(shown) - counted_entropy(both)
    return min(max(bits, 0.0), plug_in_entropy(content))


def plug_in_entropy(symbols: Sequence[Hashable]) -> float:
    """Return the entropy of the relative frequencies of symbols in bits, without a correction.

    Args:
        symbols: Observed symbols.

    Returns:
        The entropy in bits.

    Example:
        >>> from trichord.world.information import plug_in_entropy
        >>> plug_in_entropy(["pot", "pan"])
        1.0
    """
    return _bits(np.array(list(Counter(symbols).values()), float) / len(symbols))


# ---- exact ----


def channel_matrix(fidelity: Fidelity, num_values: int, *, lost: float = 0.0) -> np.ndarray:
    """Return the matrix P(shown | content) of a channel.

    Args:
        fidelity: Channel.
        num_values: Number of values of the factor.
        lost: Probability that a symbol is lost afterwards.

    Returns:
        Matrix of shape (num_values, num_values + 1), float64. The last column is the probability that nothing is shown.
    """
    channel = as_channel(fidelity)
    true, other = channel.true * (1 - lost), channel.other * (1 - lost)
    if num_values == 1:
        other = 0.0
    matrix = np.full((num_values, num_values + 1), other / max(1, num_values - 1))
    np.fill_diagonal(matrix, true)
    matrix[:, -1] = 1 - true - other
    return matrix


def _bits(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def channel_information(p: np.ndarray, matrix: np.ndarray) -> float:
    """Return the mutual information of a channel in bits.

    Args:
        p: Probabilities of the content, of shape (V,).
        matrix: Matrix P(shown | content), of shape (V, S).

    Returns:
        The mutual information in bits.
    """
    conditional_bits = sum(share * _bits(row) for share, row in zip(p, matrix, strict=True))
    return max(0.0, _bits(p @ matrix) - float(conditional_bits))


@dataclass(frozen=True)
class _Source:
    """The channels of one source.

    Attributes:
        matrices: Matrix of the channel of each factor.
        silent: Probability that none of the channels shows anything.
    """

    matrices: dict[str, np.ndarray]
    silent: float = 0.0

    def alone(self, factor: str) -> np.ndarray:
        """Return the matrix of the channel of one factor by itself."""
        matrix = (1 - self.silent) * self.matrices[factor]
        matrix[:, -1] += self.silent
        return matrix


def _sources(profile: Profile, num_numbers: int, chatter_rate: float) -> dict[str, list[_Source]]:
    """Return the sources of each modality.

    The values of the factor `order` are the numbers of the steps. Numbers beyond the last ordinal are never shown.
    """

    def matrices(lost: float = 0.0, **fidelities: Fidelity) -> dict[str, np.ndarray]:
        sizes = {**{f: len(v) for f, v in _VALUES.items()}, "order": min(num_numbers, len(ORDINALS))}
        by_factor = {f: channel_matrix(fidelity, sizes[f], lost=lost) for f, fidelity in fidelities.items()}
        if "order" in by_factor and num_numbers > len(ORDINALS):
            never_shown = np.zeros((num_numbers - len(ORDINALS), by_factor["order"].shape[1]))
            never_shown[:, -1] = 1
            by_factor["order"] = np.concatenate([by_factor["order"], never_shown])
        return by_factor

    in_picture = {f: getattr(profile, f"{f}_shown") for f in FACTORS}
    in_captions = profile.text or profile.said
    return {
        "video": [_Source(matrices(**in_picture))],
        "audio": [
            _Source(matrices(**{f: getattr(profile.said, f) for f in FACTORS}), chatter_rate),
            _Source(matrices(action=profile.action_heard, place=profile.place_heard)),
        ],
        "text": [
            _Source(
                matrices(profile.word_error_rate, **{f: getattr(in_captions, f) for f in FACTORS}),
                0.0 if profile.text else chatter_rate,
            )
        ],
    }


def _outer(*rows: np.ndarray) -> np.ndarray:
    """Return the joint distribution of independent symbols for each row: (V, S1) and (V, S2) become (V, S1 * S2)."""
    joint = rows[0]
    for more in rows[1:]:
        joint = (joint[:, :, None] * more[:, None, :]).reshape(len(joint), -1)
    return joint


def _all_information(combinations: np.ndarray, num_numbers: int, sources: list[_Source]) -> float:
    """Return the information about all factors together, H(shown) - H(shown | content).

    Given that the speech is on topic (or not), the factors are shown independently of each other, and place and number are
    independent of the combination. The joint table is the mixture of both cases and is computed exactly.

    Args:
        combinations: Probabilities P(object, tool, action), of shape (16, 10, 8).
        num_numbers: Number of steps in a video.
        sources: Sources of one modality, of which at most one is silent at times.
    """
    silent = max(source.silent for source in sources)
    shares = (combinations, np.full(len(PLACES), 1 / len(PLACES)), np.full(num_numbers, 1 / num_numbers))
    conditional_bits, cases = 0.0, []
    for off_topic, weight in ((False, 1 - silent), (True, silent)):
        if weight == 0:
            continue
        parts = {}
        for factor in FACTORS:
            rows = []
            for source in (s for s in sources if factor in s.matrices):
                mute = np.zeros_like(source.matrices[factor])
                mute[:, -1] = 1
                rows.append(mute if off_topic and source.silent else source.matrices[factor])
            parts[factor] = _outer(*rows)
        cases.append((weight, parts))
    marginal = sum(weight * _shown_table(shares, parts) for weight, parts in cases)
    shown = _bits(np.asarray(marginal))
    for number in range(num_numbers):  # equal for all values of a factor, except for numbers that are never shown
        at = [0, 0, 0, 0, number]
        table = sum(
            weight * _product(*(parts[f][i] for f, i in zip(FACTORS, at, strict=True))) for weight, parts in cases
        )
        conditional_bits += _bits(np.asarray(table)) / num_numbers
    return max(0.0, shown - conditional_bits)


def _shown_table(shares: tuple[np.ndarray, ...], parts: dict[str, np.ndarray]) -> np.ndarray:
    combined = np.einsum("ota,ox,ty,az->xyz", shares[0], parts["object"], parts["tool"], parts["action"], optimize=True)
    return _product(combined.ravel(), shares[1] @ parts["place"], shares[2] @ parts["order"])


def _product(*rows: np.ndarray) -> np.ndarray:
    joint = rows[0]
    for more in rows[1:]:
        joint = np.outer(joint, more).ravel()
    return joint


@lru_cache(maxsize=32)
def _exact(
    profile: Profile, seed: int, split: str, num_numbers: int
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    table = np.zeros([len(_VALUES[f]) for f in ("object", "tool", "action")])
    for combination in split_combinations(seed)[split]:
        table[tuple(_VALUES[f].index(v) for f, v in zip(("object", "tool", "action"), combination, strict=True))] = 1
    table /= table.sum()
    chatter_rate = profile.chatter_rate if split == "train" or profile.text else 0.0
    p = {f: table.sum(tuple(a for a in range(3) if a != axis)) for axis, f in enumerate(("object", "tool", "action"))}
    p.update(place=np.full(len(PLACES), 1 / len(PLACES)), order=np.full(num_numbers, 1 / num_numbers))
    bits: dict[str, dict[str, float]] = {}
    for modality, sources in _sources(profile, num_numbers, chatter_rate).items():
        bits[modality] = {
            f: channel_information(p[f], _outer(*(s.alone(f) for s in sources if f in s.matrices))) for f in FACTORS
        }
        bits[modality]["all"] = _all_information(table, num_numbers, sources)
    entropy = {**{f: _bits(p[f]) for f in FACTORS}, "all": _bits(table) + _bits(p["place"]) + _bits(p["order"])}
    return bits, entropy


def exact_information(profile: Profile, *, seed: int, steps_per_video: int, split: str = "train") -> Information:
    """Return the exact information of a profile, for the distribution of content in infinitely many videos.

    Args:
        profile: Profile.
        seed: Seed of the world.
        steps_per_video: Number of steps in a video.
        split: "train" or "test".

    Returns:
        The information, with empty `counted_bits`.
    """
    bits, entropy = _exact(profile, seed, split, steps_per_video)
    return Information(split, 0, _rounded(entropy), {}, {m: _rounded(row) for m, row in bits.items()})


def _rounded(bits: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) + 0.0 for name, value in bits.items()}


def script_information(videos: Sequence[VideoScript], profile: Profile, *, split: str = "train") -> Information:
    """Return the information of each modality about the content of the steps of a split, estimated and exact.

    Args:
        videos: Scripts of videos from `write_script`, with the same seed and number of steps.
        profile: Profile with which they were written.
        split: "train" or "test".

    Returns:
        The information.

    Raises:
        ValueError: If there is no video of the split.
    """
    chosen = [video for video in videos if video.split == split]
    if not chosen:
        raise ValueError(f"there is no video of the split {split}; write a script with at least one")
    exact = exact_information(profile, seed=chosen[0].seed[0], steps_per_video=len(chosen[0].steps), split=split)
    content = [step for video in chosen for step in _content(video)]
    shown = [step for video in chosen for step in shown_by(video)]
    by_factor = {f: [step[f] for step in content] for f in FACTORS}
    counted = {
        m: _rounded({f: counted_information(by_factor[f], [step[m][f] for step in shown]) for f in FACTORS})
        for m in MODALITIES
    }
    entropy = _rounded({f: plug_in_entropy(by_factor[f]) for f in FACTORS})
    return Information(split, len(content), {**entropy, "all": exact.entropy_bits["all"]}, counted, exact.exact_bits)
