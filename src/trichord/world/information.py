"""What each modality knows of the content, in bits: counted over the scripted steps, and exact from the profile.

The content of a step is its object, tool, action, place and number (order). What a modality shows is a symbol for each
factor: the value that is seen, heard or read, or nothing. Video shows the picture's symbols; audio the sounds' and the
speech's; text those of the captions, mishearings included. Shifts in time are left aside: a symbol counts for the step
that it belongs to. So is the material that
colours the sounds in `balanced` and in no other profile: below 3.6 bits of the object, blurred by 6 % in pitch.

Counting: I = H(content) + H(shown) - H(content, shown) with plug-in entropies, each with Miller and Madow's
correction (m - 1) / 2N nats for m values seen in N steps (Miller 1955), kept within 0 and the content's entropy. All
factors together have more values than a world has steps, so that they cannot be counted; `all` is exact alone.
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
from trichord.world.vocabulary import ACTIONS, OBJECTS, ORDINALS, PLACES, TOOLS, told_in

_VALUES = {"object": tuple(OBJECTS), "tool": tuple(TOOLS), "action": tuple(ACTIONS), "place": tuple(PLACES)}


@dataclass(frozen=True)
class Information:
    """Bits by factor, rounded to four places.

    Attributes:
        split: the split whose steps were counted.
        num_steps: how many.
        entropy_bits: factor -> entropy of the content, counted: the bound. `all` is exact.
        counted_bits: modality -> factor -> counted mutual information.
        exact_bits: modality -> factor (and `all`) -> mutual information of the profile's channels. For text a word is
            lost with the word error rate and never becomes another word of the world, which happens a little.
    """

    split: str
    num_steps: int
    entropy_bits: dict[str, float]
    counted_bits: dict[str, dict[str, float]]
    exact_bits: dict[str, dict[str, float]]

    def record(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        columns = (*FACTORS, "all")
        rows = {"content": self.entropy_bits}
        for name in MODALITIES:
            rows |= {name: self.counted_bits.get(name, {}), f"{name} exact": self.exact_bits[name]}
        lines = [
            f"bits that each modality tells of a step: counted over {self.num_steps} steps of {self.split}, and exact"
        ]
        lines.append(" " * 12 + "".join(f"{name:>8}" for name in columns))
        for name, row in rows.items():
            lines.append(f"{name:<12}" + "".join(f"{row[c]:>8.2f}" if c in row else f"{'-':>8}" for c in columns))
        return "\n".join(lines)


# ---- symbols ----


def shown_by(video: VideoScript) -> list[dict[str, dict[str, tuple[str | None, ...]]]]:
    """For each step of `video`: modality -> factor -> what the modality shows of it.

    A tuple of one symbol, of two (sound, speech) for the action and the place in audio. None stands for nothing.
    """
    steps: list[dict[str, dict[str, tuple[str | None, ...]]]] = []
    for index, step in enumerate(video.steps):
        seen = step.as_seen()
        spoken, written = (
            told_in(" ".join(line.text for line in lines if line.step == index))
            for lines in (video.narration, video.captions)
        )
        picture: dict[str, str | None] = {
            "object": seen.object if step.object_shown else None,
            "tool": seen.tool if step.tool_shown else None,
            "action": seen.action if step.action_shown else None,
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
    """Plug-in entropy in bits with Miller and Madow's correction."""
    return float(plug_in_entropy(symbols) + (len(set(symbols)) - 1) / (2 * len(symbols) * np.log(2)))


def counted_information(content: Sequence[Hashable], shown: Sequence[Hashable]) -> float:
    """Mutual information in bits of two sequences of symbols of equal length, within 0 and the entropy of `content`.

    The bound is the plug-in entropy, as it is printed beside it.
    """
    if len(content) != len(shown):
        raise ValueError("content and shown must have the same length")
    both = list(zip(content, shown, strict=True))
    bits = counted_entropy(content) + counted_entropy(shown) - counted_entropy(both)
    return min(max(bits, 0.0), plug_in_entropy(content))


def plug_in_entropy(symbols: Sequence[Hashable]) -> float:
    return _bits(np.array(list(Counter(symbols).values()), float) / len(symbols))


# ---- exact ----


def channel_matrix(fidelity: Fidelity, num_values: int, *, lost: float = 0.0) -> np.ndarray:
    """P(shown | content): float64 (num_values, num_values + 1), the last column for nothing; `lost` goes to it too."""
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
    """Mutual information in bits of a channel: content p (V,), P(shown | content) (V, S)."""
    given = sum(share * _bits(row) for share, row in zip(p, matrix, strict=True))
    return max(0.0, _bits(p @ matrix) - float(given))


@dataclass(frozen=True)
class _Source:
    """Channels of one source, factor -> matrix; all of them show nothing at once with probability `silent`."""

    matrices: dict[str, np.ndarray]
    silent: float = 0.0

    def alone(self, factor: str) -> np.ndarray:
        """The factor's channel by itself."""
        matrix = (1 - self.silent) * self.matrices[factor]
        matrix[:, -1] += self.silent
        return matrix


def _sources(profile: Profile, num_numbers: int, chatter_rate: float) -> dict[str, list[_Source]]:
    """The sources of each modality. The order's values are the steps' numbers, of which those past the last ordinal
    are never told."""

    def matrices(lost: float = 0.0, **fidelities: Fidelity) -> dict[str, np.ndarray]:
        sizes = {**{f: len(v) for f, v in _VALUES.items()}, "order": min(num_numbers, len(ORDINALS))}
        found = {f: channel_matrix(fidelity, sizes[f], lost=lost) for f, fidelity in fidelities.items()}
        if "order" in found and num_numbers > len(ORDINALS):
            untold = np.zeros((num_numbers - len(ORDINALS), found["order"].shape[1]))
            untold[:, -1] = 1
            found["order"] = np.concatenate([found["order"], untold])
        return found

    pictured = {f: getattr(profile, f"{f}_shown") for f in FACTORS}
    told = profile.text or profile.said
    return {
        "video": [_Source(matrices(**pictured))],
        "audio": [
            _Source(matrices(**{f: getattr(profile.said, f) for f in FACTORS}), chatter_rate),
            _Source(matrices(action=profile.action_heard, place=profile.place_heard)),
        ],
        "text": [
            _Source(
                matrices(profile.word_error_rate, **{f: getattr(told, f) for f in FACTORS}),
                0.0 if profile.text else chatter_rate,
            )
        ],
    }


def _outer(*rows: np.ndarray) -> np.ndarray:
    """Row by row, all combinations: (V, S1), (V, S2) -> (V, S1 * S2)."""
    joint = rows[0]
    for more in rows[1:]:
        joint = (joint[:, :, None] * more[:, None, :]).reshape(len(joint), -1)
    return joint


def _all_information(combinations: np.ndarray, num_numbers: int, sources: list[_Source]) -> float:
    """All factors together: H(shown) - H(shown | content).

    Given that the speech is on topic (or not), the factors are shown independently of one another, and place and number
    are independent of the combination. The joint table is the mixture of both cases; nothing is sampled.

    Args:
        combinations: P(object, tool, action), (16, 10, 8).
        num_numbers: steps in a video.
        sources: of one modality, at most one of them at times silent.
    """
    silent = max(source.silent for source in sources)
    shares = (combinations, np.full(len(PLACES), 1 / len(PLACES)), np.full(num_numbers, 1 / num_numbers))
    given, cases = 0.0, []
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
    for number in range(num_numbers):  # the same for all values of a factor, but for numbers that are never told
        at = [0, 0, 0, 0, number]
        table = sum(
            weight * _product(*(parts[f][i] for f, i in zip(FACTORS, at, strict=True))) for weight, parts in cases
        )
        given += _bits(np.asarray(table)) / num_numbers
    return max(0.0, shown - given)


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
    """`Information` of the profile alone: content as the script draws it in the long run; `counted_bits` is empty."""
    bits, entropy = _exact(profile, seed, split, steps_per_video)
    return Information(split, 0, _rounded(entropy), {}, {m: _rounded(row) for m, row in bits.items()})


def _rounded(bits: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) + 0.0 for name, value in bits.items()}


def script_information(videos: Sequence[VideoScript], profile: Profile, *, split: str = "train") -> Information:
    """What each modality tells of the content of the steps of `split`, counted and exact.

    Args:
        videos: from `write_script`, all of the same seed and number of steps, at least one of `split`.
        profile: that they were written with.
        split: `train` or `test`.
    """
    chosen = [video for video in videos if video.split == split]
    if not chosen:
        raise ValueError(f"no videos of {split}")
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
