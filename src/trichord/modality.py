"""The vocabulary: modalities, the orders in which they are combined, and retrieval directions.

A modality has a name and a letter. Video (V), audio (A) and text (T) are always known. Others are declared: by a file of
`trichord.modalities`, by a store that records them, or by a model, a study or an evaluation that used them. Orders and
directions may name a letter before its modality is declared; the letter then stands for the name until it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from trichord.errors import TrichordError

NAMES = {"V": "video", "A": "audio", "T": "text"}
MODALITIES = tuple(NAMES.values())
_PRINTED = "AVT"  # the study's own spelling puts A before V before T
_NAME = re.compile(r"(?!caption|word)[a-z][a-z0-9_]{1,31}")  # a store keeps captions and words under such names
_RESERVED = frozenset({"visual_2d", "visual_3d", "spectrogram"})
_ARRAYS = frozenset({"text_clip", "start_s", "end_s", "ids", "videos", "modalities"})  # of a file of embeddings

Pair = tuple[str, str]  # two modality names, in the order of `known`

_declared: dict[str, str] = {}  # letter -> name

# Tensors of audio and text among the arguments of a network, the network itself there, and an attribute that torch sets.
_ARGUMENTS = frozenset({"audio_frames", "audio_pooled", "text_mask", "word_ids", "self", "training"})


def declare(modalities: Mapping[str, str], *, source: object = None) -> None:
    """Declare modalities beyond video, audio and text, for this process. Declaring one again has no effect.

    Args:
        modalities: Name -> letter, such as `{"depth": "d"}`.
        source: The file that records them, for messages; None where a user names them.

    Raises TrichordError, and declares nothing, for a name or letter of the wrong form, and for one that another modality has.
    """
    new: dict[str, str] = {}
    head = "" if source is None else f"{source}: "
    together = "" if source is None else "files that disagree on this cannot be used together"
    for name, letter in modalities.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or _is_reserved(name):
            raise TrichordError(
                f"{head}{str(name)[:40]!r} cannot be the name of a modality; use 2 to 32 lowercase letters, digits and "
                "underscores, and no name that trichord gives to streams, inputs or arrays itself"
            )
        if not isinstance(letter, str) or not re.fullmatch("[A-Za-z]", letter):
            raise TrichordError(f"{head}modality {name}: {str(letter)[:40]!r} is not a letter from a to z")
        letter = letter.upper()
        taken = {**NAMES, **_declared, **new}
        if taken.get(letter, name) != name:
            what = f"the letter {letter.lower()} already stands for {taken[letter]}"
            raise TrichordError(f"{head}modality {name}: {what}; {together or 'choose another letter'}")
        other = next((known for known, known_name in taken.items() if known_name == name), letter)
        if other != letter:
            what = f"its letter is {other.lower()}, not {letter.lower()}"
            raise TrichordError(f"{head}modality {name}: {what}; {together or f'use {other.lower()}'}")
        if letter not in NAMES:
            new[letter] = name
    _declared.update(new)


def _is_reserved(name: str) -> bool:
    return name in _RESERVED | _ARGUMENTS | _ARRAYS or name.endswith("_valid")


def declared() -> dict[str, str]:
    """Return name -> lowercase letter of the declared modalities, in alphabetical order of their names."""
    return {name: letter.lower() for letter, name in sorted(_declared.items(), key=lambda entry: entry[1])}


def known() -> tuple[str, ...]:
    """Return the names of all modalities: video, audio, text, then the declared ones in alphabetical order."""
    return (*MODALITIES, *declared())


def further_letters(modalities: Iterable[str]) -> dict[str, str]:
    """Return name -> lowercase letter of the given modalities except video, audio and text. Files record this, so that readers can
    declare the modalities."""
    return {name: letter_of(name).lower() for name in in_order(modalities) if name not in MODALITIES}


def declare_recorded(modalities: object, source: object) -> None:
    """Declare the modalities that a file records, as `further_letters` gives them.

    Raises TrichordError, which names the file `source`, if the record has another form, and in the cases of `declare`.
    """
    if not isinstance(modalities, dict):
        raise TrichordError(f"{source}: its modalities are not names with letters; write the file again")
    declare(modalities, source=source)


def in_order(modalities: Iterable[str]) -> tuple[str, ...]:
    """Return the given names without repetitions: video, audio, text, then the others in alphabetical order."""
    rank = {name: number for number, name in enumerate(MODALITIES)}
    return tuple(sorted(set(modalities), key=lambda name: (rank.get(name, len(rank)), name)))


def name_of(letter: str) -> str:
    """'V' -> 'video'; a letter without a modality is its own name in lower case."""
    letter = letter.upper()
    return NAMES.get(letter) or _declared.get(letter, letter.lower())


def letter_of(name: str) -> str:
    """'video' -> 'V'."""
    letters = {known_name: letter for letter, known_name in (NAMES | _declared).items()}
    return letters.get(name, name.upper())


def pairs_of(modalities: Iterable[str]) -> tuple[Pair, ...]:
    """Return all pairs of the given modalities. Each pair and the list itself are ordered as by `in_order`."""
    return tuple(combinations(in_order(modalities), 2))


def _printed_key(letter: str) -> tuple[int, str]:
    return (_PRINTED.index(letter) if letter in _PRINTED else len(_PRINTED), letter)


@dataclass(frozen=True)
class Order:
    """Which modalities are combined when: `stages[i]` are the letters that are added (and trained) in stage i.

    Written `av>t`: A and V together, then T against the frozen two. `avt` is joint training in one stage.
    Two spellings of the same order (`av>t`, `VA>T`, `AV→T`) are equal.
    """

    stages: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, text: str | Order) -> Order:
        """Read an order such as `av>t`, `AV→T` or `vt>a>x`. An `Order` is returned as it is.

        Raises TrichordError, which says what is wrong and shows a right one.
        """
        if isinstance(text, Order):
            return text
        example = "a right one is av>t (A and V together, then T against the frozen two)"
        if not isinstance(text, str) or not text.strip():
            raise TrichordError(f"the order is empty; {example}")
        parts = [part.strip().upper() for part in re.split(r"->|→|>", text.strip())]
        letters = [letter for part in parts for letter in part]
        if any(not part for part in parts):
            raise TrichordError(f"order '{text}' has a stage without a modality; {example}")
        if bad := [c for c in letters if not ("A" <= c <= "Z")]:
            raise TrichordError(
                f"order '{text}' has '{bad[0]}', which is not a modality letter such as V, A or T; {example}"
            )
        if twice := [c for c in letters if letters.count(c) > 1]:
            raise TrichordError(f"order '{text}' names {twice[0]} twice; each modality joins once; {example}")
        if len(parts[0]) < 2:
            raise TrichordError(
                f"order '{text}' starts with {parts[0]} alone; the first stage needs two modalities; {example}"
            )
        return cls(tuple(tuple(sorted(part, key=_printed_key)) for part in parts))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of all modalities of the order, first stage first."""
        return tuple(name_of(letter) for stage in self.stages for letter in stage)

    def added(self, stage: int) -> tuple[str, ...]:
        """Names of the modalities that stage `stage` adds and trains."""
        return tuple(name_of(letter) for letter in self.stages[stage])

    def before(self, stage: int) -> tuple[str, ...]:
        """Names of the modalities that earlier stages trained: frozen in stage `stage`."""
        return tuple(name_of(letter) for part in self.stages[:stage] for letter in part)

    def up_to(self, stage: int) -> Order:
        """Return the order that ends with stage `stage`: `av` for stage 0 of `av>t`."""
        return Order(self.stages[: stage + 1])

    def followed_by(self, modalities: Iterable[str]) -> Order:
        """Return the order with one more stage, which adds the modalities of these names."""
        return Order((*self.stages, tuple(sorted(map(letter_of, modalities), key=_printed_key))))

    @property
    def code(self) -> str:
        """The form for command lines and file names: `av>t`."""
        return ">".join("".join(stage).lower() for stage in self.stages)

    @property
    def slug(self) -> str:
        """The form for folder names: `av-t`."""
        return self.code.replace(">", "-")

    def __str__(self) -> str:
        return "→".join("".join(stage) for stage in self.stages)


@dataclass(frozen=True)
class Direction:
    """A retrieval direction query2target, each side one modality or the sum of several: `t2v`, `t2va`, `ta2v`."""

    query: tuple[str, ...]
    target: tuple[str, ...]

    @classmethod
    def parse(cls, text: str | Direction) -> Direction:
        """Read `t2v`, `a2v`, `t2va`, ... A `Direction` is returned as it is. Raises TrichordError for anything else."""
        if isinstance(text, Direction):
            return text
        match = re.fullmatch(r"([a-z]+)2([a-z]+)", str(text).strip().lower())
        example = "a right one is t2v (text finds video) or t2va (text finds video and audio together)"
        if not match:
            raise TrichordError(f"direction '{text}' is not of the form query2target; {example}")
        query, target = (tuple(side.upper()) for side in match.groups())
        letters = query + target
        if len(set(letters)) != len(letters):
            raise TrichordError(f"direction '{text}' names a modality twice; {example}")
        if unknown := [c for c in letters if name_of(c) not in known()]:
            *most, last = [letter_of(name).lower() for name in known()]
            listed = f"{', '.join(most)} and {last}"
            raise TrichordError(f"direction '{text}' names '{unknown[0].lower()}'; known are {listed}; {example}")
        return cls(tuple(name_of(c) for c in query), tuple(name_of(c) for c in target))

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.query + self.target

    @property
    def code(self) -> str:
        """`t2va`."""
        return (
            "".join(letter_of(m) for m in self.query).lower() + "2" + "".join(letter_of(m) for m in self.target).lower()
        )

    def __str__(self) -> str:
        return "".join(letter_of(m) for m in self.query) + "→" + "+".join(letter_of(m) for m in self.target)
