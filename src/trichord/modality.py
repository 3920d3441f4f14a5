"""Modalities, the orders in which they are combined, and retrieval directions.

A modality has a name and a letter. Video (V), audio (A) and text (T) are always known. Other modalities are declared by a file of
`trichord.modalities`, by a store that records them, or by a model, a study or an evaluation that used them. Orders and directions
may use a letter before its modality is declared; until then, the letter is used as the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from trichord.errors import TrichordError

NAMES = {"V": "video", "A": "audio", "T": "text"}
MODALITIES = tuple(NAMES.values())
_PRINTED = "AVT"  # order of the letters in printed orders, as in the published study
_NAME = re.compile(r"(?!caption|word)[a-z][a-z0-9_]{1,31}")  # a store uses such names for captions and words
_RESERVED = frozenset({"visual_2d", "visual_3d", "spectrogram"})
_ARRAYS = frozenset({"text_clip", "start_s", "end_s", "ids", "videos", "modalities"})  # arrays in a file of embeddings

Pair = tuple[str, str]  # names of two modalities, in the order of `known`

_declared: dict[str, str] = {}  # letter -> name

# Arguments of a network that are inputs of audio and text, its own parameter `self`, and an attribute that torch sets.
_ARGUMENTS = frozenset({"audio_frames", "audio_pooled", "text_mask", "word_ids", "self", "training"})


def declare(modalities: Mapping[str, str], *, source: object = None) -> None:
    """Declare modalities beyond video, audio and text for this process. Declaring a modality again has no effect.

    Args:
        modalities: Letter of each name, such as `{"depth": "d"}`.
        source: File that records the modalities, for error messages. None if the user named them.

    Raises:
        TrichordError: A name or letter is invalid or belongs to another modality. Nothing is declared in this case.
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
    """Return the lowercase letter of each declared modality by its name, in alphabetical order of the names."""
    return {name: letter.lower() for letter, name in sorted(_declared.items(), key=lambda entry: entry[1])}


def known() -> tuple[str, ...]:
    """Return the names of all modalities: video, audio, text, then the declared ones in alphabetical order."""
    return (*MODALITIES, *declared())


def further_letters(modalities: Iterable[str]) -> dict[str, str]:
    """Return the lowercase letter of each given modality beyond video, audio and text, by its name.

    Files record this mapping so that their readers can declare the modalities.
    """
    return {name: letter_of(name).lower() for name in in_order(modalities) if name not in MODALITIES}


def declare_recorded(modalities: object, source: object) -> None:
    """Declare the modalities that a file records in the form of `further_letters`.

    Args:
        modalities: Content of the record.
        source: The file, for error messages.

    Raises:
        TrichordError: The record has another form, or `declare` refuses it.
    """
    if not isinstance(modalities, dict):
        raise TrichordError(f"{source}: its modalities are not names with letters; write the file again")
    declare(modalities, source=source)


def in_order(modalities: Iterable[str]) -> tuple[str, ...]:
    """Return the given names without repetitions: video, audio, text, then the others in alphabetical order."""
    rank = {name: number for number, name in enumerate(MODALITIES)}
    return tuple(sorted(set(modalities), key=lambda name: (rank.get(name, len(rank)), name)))


def name_of(letter: str) -> str:
    """Return the name of a modality: video for V. For a letter that is not declared, return the lowercase letter."""
    letter = letter.upper()
    return NAMES.get(letter) or _declared.get(letter, letter.lower())


def letter_of(name: str) -> str:
    """Return the letter of a modality: V for video."""
    letters = {known_name: letter for letter, known_name in (NAMES | _declared).items()}
    return letters.get(name, name.upper())


def pairs_of(modalities: Iterable[str]) -> tuple[Pair, ...]:
    """Return all pairs of the given modalities. Each pair and the list itself are ordered as by `in_order`."""
    return tuple(combinations(in_order(modalities), 2))


def letters_of(pair: Pair) -> str:
    """Return the lowercase letters of a pair in alphabetical order, such as `tv`."""
    return "".join(sorted(letter_of(name).lower() for name in pair))


def _printed_key(letter: str) -> tuple[int, str]:
    return (_PRINTED.index(letter) if letter in _PRINTED else len(_PRINTED), letter)


@dataclass(frozen=True)
class Order:
    """Order in which modalities are combined, such as `av>t`: A and V together, then T while A and V are frozen.

    `avt` is joint training in a single stage. Different spellings of an order (`av>t`, `VA>T`, `AV→T`) are equal.

    Attributes:
        stages: Letters of the modalities that each stage adds and trains.

    Example:
        >>> from trichord import Order
        >>> order = Order.parse("va>t")
        >>> str(order), order.code, order.modalities
        ('AV→T', 'av>t', ('audio', 'video', 'text'))
        >>> order.added(1), order.before(1)
        (('text',), ('audio', 'video'))
    """

    stages: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, text: str | Order) -> Order:
        """Parse an order such as `av>t`, `AV→T` or `vt>a>x`. An `Order` is returned unchanged.

        Raises:
            TrichordError: The text is not an order.

        Example:
            >>> Order.parse("AV→T") == Order.parse("va>t")
            True
            >>> Order.parse("av")
            Order(stages=(('A', 'V'),))
        """
        if isinstance(text, Order):
            return text
        example = "a valid order is av>t (A and V together, then T while both are frozen)"
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
        """Names of all modalities of the order, starting with the first stage.

        Example:
            >>> Order.parse("vt>a").modalities
            ('video', 'text', 'audio')
        """
        return tuple(name_of(letter) for stage in self.stages for letter in stage)

    def added(self, stage: int) -> tuple[str, ...]:
        """Return the names of the modalities that a stage adds and trains.

        Example:
            >>> Order.parse("vt>a").added(1)
            ('audio',)
        """
        return tuple(name_of(letter) for letter in self.stages[stage])

    def before(self, stage: int) -> tuple[str, ...]:
        """Return the names of the modalities of earlier stages, which are frozen in this stage.

        Example:
            >>> Order.parse("vt>a").before(0), Order.parse("vt>a").before(1)
            ((), ('video', 'text'))
        """
        return tuple(name_of(letter) for part in self.stages[:stage] for letter in part)

    def up_to(self, stage: int) -> Order:
        """Return the order that ends with a stage: `av` for stage 0 of `av>t`.

        Example:
            >>> str(Order.parse("av>t").up_to(0))
            'AV'
        """
        return Order(self.stages[: stage + 1])

    def followed_by(self, modalities: Iterable[str]) -> Order:
        """Return the order with a further stage that adds the modalities with these names.

        Example:
            >>> Order.parse("av").followed_by(["text"]).code
            'av>t'
        """
        return Order((*self.stages, tuple(sorted(map(letter_of, modalities), key=_printed_key))))

    @property
    def code(self) -> str:
        """The order as written in commands and files: `av>t`.

        Example:
            >>> Order.parse("VA→T").code
            'av>t'
        """
        return ">".join("".join(stage).lower() for stage in self.stages)

    @property
    def slug(self) -> str:
        """The order as written in names of folders: `av-t`.

        Example:
            >>> Order.parse("av>t").slug
            'av-t'
        """
        return self.code.replace(">", "-")

    def __str__(self) -> str:
        return "→".join("".join(stage) for stage in self.stages)


@dataclass(frozen=True)
class Direction:
    """Retrieval direction query2target, such as `t2v`, `t2va` or `ta2v`. Several modalities of a side are fused.

    Attributes:
        query: Names of the modalities of the query.
        target: Names of the modalities of the items that are ranked.

    Example:
        >>> from trichord import Direction
        >>> direction = Direction.parse("t2va")
        >>> str(direction), direction.query, direction.target
        ('T→V+A', ('text',), ('video', 'audio'))
    """

    query: tuple[str, ...]
    target: tuple[str, ...]

    @classmethod
    def parse(cls, text: str | Direction) -> Direction:
        """Parse a direction such as `t2v` or `t2va`. A `Direction` is returned unchanged.

        Raises:
            TrichordError: The text is not a direction, or a modality is not declared.

        Example:
            >>> Direction.parse("t2va")
            Direction(query=('text',), target=('video', 'audio'))
        """
        if isinstance(text, Direction):
            return text
        match = re.fullmatch(r"([a-z]+)2([a-z]+)", str(text).strip().lower())
        example = "valid directions are t2v (from text to video) and t2va (from text to video and audio)"
        if not match:
            raise TrichordError(f"direction '{text}' is not of the form query2target; {example}")
        query, target = (tuple(side.upper()) for side in match.groups())
        letters = query + target
        if len(set(letters)) != len(letters):
            raise TrichordError(f"direction '{text}' names a modality twice; {example}")
        if unknown := [c for c in letters if name_of(c) not in known()]:
            *most, last = [letter_of(name).lower() for name in known()]
            listed = f"{', '.join(most)} and {last}"
            raise TrichordError(
                f"direction '{text}' contains the unknown letter '{unknown[0].lower()}'; expected {listed}; {example}"
            )
        return cls(tuple(name_of(c) for c in query), tuple(name_of(c) for c in target))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities of the query and the target.

        Example:
            >>> Direction.parse("t2va").modalities
            ('text', 'video', 'audio')
        """
        return self.query + self.target

    @property
    def code(self) -> str:
        """The direction as written in commands and files: `t2va`.

        Example:
            >>> Direction(("text",), ("video", "audio")).code
            't2va'
        """
        return (
            "".join(letter_of(m) for m in self.query).lower() + "2" + "".join(letter_of(m) for m in self.target).lower()
        )

    def __str__(self) -> str:
        return "".join(letter_of(m) for m in self.query) + "→" + "+".join(letter_of(m) for m in self.target)
