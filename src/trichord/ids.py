"""How the names of clips in one file are matched to those in another: lists, labels, captions, features, embeddings.

Releases spell an id as it is (`video7010`) or as the name of a media file (`video7010.mp4`). A name matches the same name
first. Where there is none, it matches a name that is the same without known media suffixes, on either side. Nothing else is
removed: `a.b` and `a` are different ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from trichord.errors import TrichordError, one_line
from trichord.files.suffixes import SOUND_SUFFIXES, VIDEO_SUFFIXES

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".svg")
MEDIA_SUFFIXES = tuple(
    suffix  # not .264: numbers at the end of ids count clips
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
    """`video7010` for `video7010.mp4` and `video7010.MP4.webm`, `a@0.00-3.00` for `a.mp4@0.00-3.00`; other names as they are."""
    place = _PLACE.search(name)
    begin = end = len(name) if place is None else place.start()
    while found := _LAST.search(name, max(0, begin - _LONGEST_SUFFIX), begin):
        begin = found.start()
    return name[:begin] + name[end:]


def file_without_media_suffix(name: str) -> str:
    """The name of a file that is made of an id and an ending, without the id's suffix: `a_2d.npy` for `a.mp4_2d.npy`."""
    return _INSIDE.sub("", name)


class IdIndex:
    """Names of one side, in which those of another side are looked up.

    Args:
        names: All names of this side; repeats are allowed.
        source: Where they are from, for messages.
    """

    def __init__(self, names: Iterable[str], source: str) -> None:
        self.source = source
        self.names = dict.fromkeys(names)
        self._bare: dict[str, list[str]] | None = None  # made when a name is not there as it stands

    def find(self, name: str) -> str | None:
        """The name of this side that `name` means, or None. Raises TrichordError where it may mean two."""
        if name in self.names:
            return name
        if self._bare is None:
            self._bare = {}
            for own in self.names:
                self._bare.setdefault(without_media_suffix(own), []).append(own)
        candidates = self._bare.get(without_media_suffix(name), [])
        if len(candidates) > 1:
            raise TrichordError(
                f"{self.source}: '{one_line(name)}' may mean '{one_line(candidates[0])}' or '{one_line(candidates[1])}'; "
                "give the clip the same name on both sides"
            )
        return candidates[0] if candidates else None


def match_ids(
    wanted: Iterable[str], index: IdIndex, *, source: str, allow_missing: bool, option: str
) -> dict[str, str]:
    """Match the names of a list with those of an index; names that the index does not have are left out.

    Args:
        wanted: Names of the list.
        index: Names of the other side.
        source: What lists the names, for messages.
        allow_missing: Whether more than half of the names may be missing.
        option: How the user allows that, for messages.

    Raises TrichordError when no name matches, more than half do not and that is not allowed, a name may mean two clips, or
    two names mean one.
    """
    names = list(dict.fromkeys(wanted))
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in names:
        if (match := index.find(name)) is None:
            continue
        if match in first:
            raise TrichordError(
                f"{source}: '{one_line(first[match])}' and '{one_line(name)}' both mean the clip '{one_line(match)}' of "
                f"{index.source}; keep one of them"
            )
        found[name], first[match] = match, name
    check_matched(names, found, index, source=source, allow_missing=allow_missing, option=option)
    return found


def check_matched(
    names: Sequence[str], found: Mapping[str, str], index: IdIndex, *, source: str, allow_missing: bool, option: str
) -> None:
    """Raise TrichordError where none of the names was found, or less than half of them and that is not allowed.

    Args:
        names: All different names of the list.
        found: By name the one of the index that it means.
        index, source, allow_missing, option: As of `match_ids`.
    """
    missing = [name for name in names if name not in found]
    if not missing or (found and (allow_missing or 2 * len(missing) <= len(names))):
        return
    used = set(found.values())
    others = [name for name in index.names if name not in used] or list(index.names)
    sides = f"names in {source}: {_examples(missing)}; names in {index.source}: {_examples(others)}"
    if not found:
        raise TrichordError(
            f"{source}: none of its {len(names):,} ids is in {index.source}; {sides}; check that the two belong together and "
            "spell ids alike"
        )
    raise TrichordError(
        f"{source}: {len(missing):,} of its {len(names):,} ids are not in {index.source}; {sides}; check that the two "
        f"belong together, or allow missing clips with {option}"
    )


def _examples(names: Sequence[str]) -> str:
    return ", ".join(f"'{one_line(name)[:80]}'" for name in names[:_NUM_EXAMPLES]) or "none"
