"""Matching of clip names between two files, such as lists, labels, captions, features and embeddings.

Releases spell an id either plainly (`video7010`) or as the name of a media file (`video7010.mp4`). A name first matches the
identical name. If there is none, it matches a name that is equal once known media suffixes are removed on both sides.
Nothing else is removed: `a.b` and `a` are different ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from trichord.errors import TrichordError, one_line
from trichord.files.suffixes import SOUND_SUFFIXES, VIDEO_SUFFIXES

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".svg")
MEDIA_SUFFIXES = tuple(
    suffix  # without .264, because a number at the end of an id counts clips
    for suffix in (*VIDEO_SUFFIXES, *SOUND_SUFFIXES, *PICTURE_SUFFIXES)
    if not suffix[1:].isdigit()
)
_SUFFIX = "|".join(re.escape(suffix) for suffix in MEDIA_SUFFIXES)
_PLACE = re.compile(r"(?:@[\d.]++-[\d.]++)?+(?:#\d++)?+\Z")
_LAST = re.compile(rf"(?<=[^/\\])(?:{_SUFFIX})\Z", re.IGNORECASE)
_LONGEST_SUFFIX = max(map(len, MEDIA_SUFFIXES))
_INSIDE = re.compile(rf"(?<=[^/\\])(?:{_SUFFIX})+(?=[._]|$)", re.IGNORECASE)
_NUM_EXAMPLES = 3


def without_media_suffix(name: str) -> str:
    """Return a name without its media suffixes; other names are returned unchanged.

    `video7010.mp4` and `video7010.MP4.webm` give `video7010`, and `a.mp4@0.00-3.00` gives `a@0.00-3.00`.
    """
    place = _PLACE.search(name)
    begin = end = len(name) if place is None else place.start()
    while suffix := _LAST.search(name, max(0, begin - _LONGEST_SUFFIX), begin):
        begin = suffix.start()
    return name[:begin] + name[end:]


def file_without_media_suffix(name: str) -> str:
    """Return a file name of the form ID plus ending without the media suffix of the id: `a_2d.npy` for `a.mp4_2d.npy`."""
    return _INSIDE.sub("", name)


class IdIndex:
    """An index of the names in one file, in which the names of another file are looked up.

    Args:
        names: All names in the file; repeats are allowed.
        source: Where the names come from, for error messages.
    """

    def __init__(self, names: Iterable[str], source: str) -> None:
        self.source = source
        self.names = dict.fromkeys(names)
        self._bare: dict[str, list[str]] | None = None  # built when a name has no exact match

    def find(self, name: str) -> str | None:
        """Return the name in the index that `name` refers to, or None if there is none.

        Raises:
            TrichordError: Two names in the index match equally well.
        """
        if name in self.names:
            return name
        if self._bare is None:
            self._bare = {}
            for indexed_name in self.names:
                self._bare.setdefault(without_media_suffix(indexed_name), []).append(indexed_name)
        candidates = self._bare.get(without_media_suffix(name), [])
        if len(candidates) > 1:
            raise TrichordError(
                f"{self.source}: '{one_line(name)}' may refer to '{one_line(candidates[0])}' or '{one_line(candidates[1])}'; "
                "give the clip the same name on both sides"
            )
        return candidates[0] if candidates else None


def match_ids(
    wanted: Iterable[str], index: IdIndex, *, source: str, allow_missing: bool, option: str
) -> dict[str, str]:
    """Match the names of a list with those of an index. Names that the index lacks are left out.

    Args:
        wanted: The names of the list.
        index: The names to match them with.
        source: Where the list comes from, for error messages.
        allow_missing: Whether more than half of the names may be missing from the index.
        option: The option with which the user allows that, for error messages.

    Returns:
        For each matched name of the list, the name in the index.

    Raises:
        TrichordError: No name matches, more than half do not match although `allow_missing` is false, one name matches two
            clips, or two names match the same clip.
    """
    names = list(dict.fromkeys(wanted))
    matches: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in names:
        if (match := index.find(name)) is None:
            continue
        if match in first:
            raise TrichordError(
                f"{source}: '{one_line(first[match])}' and '{one_line(name)}' both refer to the clip '{one_line(match)}' of "
                f"{index.source}; keep one of them"
            )
        matches[name], first[match] = match, name
    check_matched(names, matches, index, source=source, allow_missing=allow_missing, option=option)
    return matches


def check_matched(
    names: Sequence[str], matches: Mapping[str, str], index: IdIndex, *, source: str, allow_missing: bool, option: str
) -> None:
    """Check that enough names of a list were matched.

    Args:
        names: All different names of the list.
        matches: For each matched name of the list, the name in the index.
        index: The names that the list was matched with.
        source: Where the list comes from, for error messages.
        allow_missing: Whether more than half of the names may be missing from the index.
        option: The option with which the user allows that, for error messages.

    Raises:
        TrichordError: No name was matched, or more than half were not although `allow_missing` is false.
    """
    missing = [name for name in names if name not in matches]
    if not missing or (matches and (allow_missing or 2 * len(missing) <= len(names))):
        return
    used = set(matches.values())
    others = [name for name in index.names if name not in used] or list(index.names)
    sides = f"names in {source}: {_examples(missing)}; names in {index.source}: {_examples(others)}"
    if not matches:
        raise TrichordError(
            f"{source}: none of its {len(names):,} ids occurs in {index.source}; {sides}; check that the two belong together "
            "and spell ids alike"
        )
    raise TrichordError(
        f"{source}: {len(missing):,} of its {len(names):,} ids are not in {index.source}; {sides}; check that the two "
        f"belong together, or allow missing clips with {option}"
    )


def _examples(names: Sequence[str]) -> str:
    return ", ".join(f"'{one_line(name)[:80]}'" for name in names[:_NUM_EXAMPLES]) or "none"
