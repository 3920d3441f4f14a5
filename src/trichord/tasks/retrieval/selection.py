"""Selection of the clips and directions that a retrieval protocol scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.ids import IdIndex, match_ids
from trichord.modality import Direction
from trichord.tasks.protocol import Options, Protocol
from trichord.tasks.retrieval.measure import all_directions
from trichord.tasks.subject import ClipSet, Subject


@dataclass(frozen=True)
class Selection:
    """The clips that a retrieval protocol scores.

    Attributes:
        clips: Clips of a store. None if the user chooses them.
        missing: Default policy for clips that lack a modality: `drop` or `miss`.
        keep: Function that returns the indices of the clips that count. None means all clips.
        needs_gallery: Whether the user must give a list of clips.
    """

    clips: ClipSet | None
    missing: str = "drop"
    keep: Callable[[Embedded], np.ndarray] | None = None
    needs_gallery: bool = False

    @property
    def address(self) -> str:
        """Clips as COLLECTION/SPLIT, or '' if the user chooses them."""
        return self.clips.address if self.clips else ""

    def embedded(
        self, protocol: Protocol, head: str, subject: Subject, options: Options, directions: list[Direction]
    ) -> tuple[Embedded, list[str]]:
        """Return the clips that count, and notes.

        Args:
            protocol: Protocol.
            head: Name of the rows, with which notes begin.
            subject: Model or embeddings.
            options: Options of the user.
            directions: Directions, which define the modalities to embed.

        Raises:
            TrichordError: No clip counts, or a required list of clips is missing.
        """
        name = protocol.name
        protocol.refuse_clips(options.on)
        if self.needs_gallery and options.gallery is None:
            raise TrichordError(
                f"benchmark {name} needs a list of clips; give --gallery FILE with one clip id per line"
            )
        clip_set = self.clips or subject.clip_set(options.on)
        modalities = tuple(m for direction in directions for m in direction.modalities)
        embedded, notes = subject.embedded(clip_set, modalities, options.windows), []
        if self.keep is not None:
            kept = self.keep(embedded)
            if not len(kept):
                raise TrichordError(
                    f"{embedded.source}: none of {embedded.num_clips} clips belongs to benchmark {name}"
                )
            if (lost := embedded.num_clips - len(kept)) and options.missing == "miss":
                notes.append(
                    f"{head}: {lost:,} of {embedded.num_clips:,} clips do not belong to it and count as errors"
                )
                embedded = _without_others(embedded, kept)
            elif lost:
                notes.append(f"{head}: {lost:,} clips do not belong to it")
                embedded = embedded.take(kept)
        if options.windows is not None:
            notes.append(f"{head}: {options.windows.note}")
        if options.gallery is not None:
            embedded, more = _chosen(embedded, options.gallery, head, options.missing)
            notes += more
        return embedded, notes


def _without_others(embedded: Embedded, kept: np.ndarray) -> Embedded:
    """Return all clips. Those that are not kept lack all modalities, so that they count as missing."""
    there = np.zeros(embedded.num_clips, bool)
    there[kept] = True
    valid = {m: mask & (there[embedded.text_clip] if m == "text" else there) for m, mask in embedded.valid.items()}
    return embedded.but(valid=valid)


def possible_directions(
    embedded: Embedded, directions: list[Direction], name: str
) -> tuple[list[Direction], list[str]]:
    """Return the directions for which a clip has all modalities, and a note on the others.

    If there is no such direction, all directions are returned.

    Args:
        embedded: Clips.
        directions: Directions.
        name: Name of the benchmark, for the note.
    """
    possible, lost = [], []
    for direction in directions:
        has = np.logical_and.reduce([embedded.valid[m] for m in direction.modalities if m != "text"])
        if "text" in direction.modalities:
            has = embedded.valid["text"] & has[embedded.text_clip]
        if has.any():
            possible.append(direction)
        else:
            lost.append(direction)
    if not lost or not possible:
        return directions, []
    codes = ", ".join(direction.code for direction in lost)
    return possible, [
        f"{name}: {codes} left out, since no clip has all {'its' if len(lost) == 1 else 'their'} modalities"
    ]


def _chosen(embedded: Embedded, gallery: tuple[str, ...], name: str, missing: str) -> tuple[Embedded, list[str]]:
    """Return the clips of a gallery, and notes.

    `missing` is the policy that the user chose. Unless it is `auto`, most clips of the gallery may be missing.
    """
    wanted = list(dict.fromkeys(gallery))
    places = {clip: i for i, clip in enumerate(embedded.ids.tolist())}
    matched = match_ids(
        wanted,
        IdIndex(places, embedded.source),
        source="the gallery",
        allow_missing=missing != "auto",
        option="--missing drop or --missing miss",
    )
    kept = np.array([places[clip] for clip in matched.values()], np.int64)
    lacking = len(wanted) - len(kept)
    notes = [f"{name}: {lacking:,} of {len(wanted):,} clips of the gallery are missing"] if lacking else []
    return embedded.take(kept), notes


def directions_of(subject: Subject, options: Options, why: str) -> list[Direction]:
    """Return the directions that the user chose, or the usual ones, or all directions that the subject supports.

    Args:
        subject: Model or embeddings.
        options: Options of the user.
        why: Name of the benchmark, for messages.

    Raises:
        TrichordError: The subject does not support a direction.
    """
    asked = list(options.directions or options.usual or all_directions(subject.modalities))
    if not asked:
        raise TrichordError(
            f"{subject.name}: retrieval needs two modalities, but there is only {', '.join(subject.modalities)}; "
            "give embeddings of a second modality, or choose a benchmark of labels, such as linear-probe"
        )
    for direction in asked:
        subject.needed(direction.modalities, f"{why} in direction {direction.code}")
    return asked
