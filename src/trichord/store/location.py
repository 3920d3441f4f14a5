"""Where a store lies: a folder, or a URL that fsspec knows (`s3://bucket/store`, `gs://`, `az://`, `memory://`, ...).

A URL that went through `Path` has lost a slash; it is known again by its scheme. `file://` is a folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from trichord.errors import TrichordError

Location = Path | str
_COLLAPSED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
_WITH_PASSWORD = re.compile(r"[^/]*://[^/@]*:[^/@]*@")


def location(store: Location) -> Location:
    """A folder as Path, a URL as text without a slash at its end.

    Raises TrichordError for a URL with a password in it: it would stand in messages and study folders.
    """
    text = str(store)
    if (found := _COLLAPSED.match(text)) and isinstance(store, Path) and _is_protocol(found[1]):
        text = f"{found[1]}://{text[found.end() - (found[1] in ('file', 'local')) :]}"
    if "://" not in text:
        return Path(store)
    if _WITH_PASSWORD.match(text):
        raise TrichordError(
            f"{text.partition('://')[0]}://...: holds a password; give it in the environment, as its file system documents"
        )
    protocol, _, rest = text.partition("://")
    if protocol in ("file", "local"):
        return Path(rest)
    return text.rstrip("/")


def local_folder(store: Location) -> Path:
    """The folder to write to. Raises TrichordError for a URL: stores are written locally."""
    place = location(store)
    if isinstance(place, str):
        raise TrichordError(
            f"{place}: stores are written to a local folder and read from anywhere; write it to a folder, "
            "then copy that (e.g. `aws s3 sync FOLDER s3://BUCKET/STORE`)"
        )
    return place


def cache_folder() -> Path:
    """Where copies of remote stores are kept: TRICHORD_CACHE, or trichord in the user's cache folder."""
    if given := os.environ.get("TRICHORD_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "trichord"


def _is_protocol(name: str) -> bool:
    from fsspec import available_protocols

    return name in available_protocols()
