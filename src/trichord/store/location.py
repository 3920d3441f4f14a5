"""The location of a store: a folder, or a URL that fsspec supports (`s3://bucket/store`, `gs://`, `az://`, `https://`, ...).

A URL that was converted to `Path` has lost a slash and is recognized by its scheme. `file://` denotes a folder.

A location that the user gives may be a URL with one of the schemes in `SCHEMES`. fsspec supports more, some of which open other
URLs (`zip::s3://...`, `simplecache::`, `dir`), and `reference://`, whose files name further URLs and contain templates that some
versions of fsspec execute as code. A location that a file gives, such as the store in a study's `run.yaml`, may only be a
folder; see `recorded_folder`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from trichord.errors import TrichordError, one_line

Location = Path | str
FOLDER_SCHEMES = ("file", "local")
_CONTAINERS = ("az", "abfs", "abfss", "adl")  # their addresses have the form CONTAINER@ACCOUNT
SCHEMES = (*_CONTAINERS, "gs", "gcs", "hdfs", "hf", "http", "https", "memory", "oci", "s3", "s3a", "webhdfs")
_QUERIED = ("http", "https", *_CONTAINERS)  # a question mark starts a query, which often contains a signature
_COLLAPSED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,3}([^/?#]*)(.*)", re.DOTALL)


def location(store: Location) -> Location:
    """Return a folder as a Path, and a URL as text without a trailing slash.

    Raises:
        TrichordError: A URL contains a password, which messages and study folders would repeat; it is a chain of URLs
            (`a::b`); or it has an unsupported scheme.
    """
    text = str(store)
    if isinstance(store, Path) and (match := _COLLAPSED.match(text)) and match[1] in (*FOLDER_SCHEMES, *SCHEMES):
        text = f"{match[1]}://{text[match.end() - (match[1] in FOLDER_SCHEMES) :]}"
    check_no_password(text)
    if "://" not in text:
        return Path(store)
    scheme, _, rest = text.partition("://")
    if scheme in FOLDER_SCHEMES:
        return Path(rest)
    if "::" in text:
        raise TrichordError(
            f"{shown_url(text)}: chains of URLs are not supported; copy the store out of the archive or cache, "
            "then pass its folder"
        )
    if scheme not in SCHEMES:
        raise TrichordError(
            f"{shown_url(text)}: stores cannot be read from {one_line(scheme)[:40]}://; copy the store to a folder, or to one "
            f"of {', '.join(f'{name}://' for name in SCHEMES if name != 'memory')}"
        )
    return text.rstrip("/")


def recorded_folder(store: str, source: Path) -> Path:
    """Return the folder of a store whose location a file records.

    URLs are refused, because the author of the file could otherwise choose the hosts that this machine connects to.

    Args:
        store: The location as the file records it.
        source: The file, for the error message.

    Raises:
        TrichordError: The location is a URL, or not a folder on this machine.
    """
    is_url = "::" in store or _AUTHORITY.match(store)
    if is_url and not any(store.startswith(f"{scheme}://") for scheme in FOLDER_SCHEMES):
        raise TrichordError(
            f"{source}: records the store {shown_url(store)}, but URLs that files record are not opened; if you trust "
            "it, pass it yourself with --store"
        )
    folder = location(store)
    assert isinstance(folder, Path)
    if not folder.is_dir():
        raise TrichordError(
            f"{source}: records the store {one_line(str(folder))[:200]}, which is not a folder on this machine; "
            "pass the store with --store"
        )
    return folder


def check_no_password(text: str) -> None:
    """Check that no URL in a text contains a password or a query.

    Raises:
        TrichordError: A URL contains one. The message repeats nothing after the scheme.
    """
    for part in (text, *text.split("::")):
        match = _AUTHORITY.match(part)
        if match is None:
            continue
        scheme, authority, rest = match[1], match[2], match[3]
        if _holds_password(scheme, authority, rest):
            raise TrichordError(
                f"{scheme}://...: contains a password or a user name; pass them in the environment, as the file system documents"
            )
        if scheme in _QUERIED and "?" in rest:
            raise TrichordError(
                f"{scheme}://...: contains a query (?...), with which the files of a store cannot be addressed; "
                "pass the URL without it, and signatures in the environment, as the file system documents"
            )


def shown_url(url: str) -> str:
    """Return a URL for an error message. Only the scheme of a URL that may contain a secret is returned."""
    return one_line(url)[:200] if not set(url) & {"@", "?"} else f"{one_line(url).partition(':')[0][:40]}://..."


def local_folder(store: Location) -> Path:
    """Return the folder to write a store to.

    Raises:
        TrichordError: The location is a URL.
    """
    place = location(store)
    if isinstance(place, str):
        raise TrichordError(
            f"{place}: stores can be read from URLs but only written to local folders; write the store to a folder, "
            "then copy it (e.g. `aws s3 sync FOLDER s3://BUCKET/STORE`)"
        )
    return place


def cache_folder() -> Path:
    """Return the folder for copies of remote stores: TRICHORD_CACHE, or `trichord` in the user's cache folder."""
    if folder := os.environ.get("TRICHORD_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "trichord"


def _holds_password(scheme: str, authority: str, rest: str) -> bool:
    """Return whether a URL has a user before the host. A password may contain a slash and thus end after the authority."""
    user, separator, _ = authority.rpartition("@")
    if separator:
        return ":" in user or "%3a" in user.lower() or scheme not in _CONTAINERS
    _, colon, port = authority.rpartition(":")
    return bool(colon) and not port.isdigit() and "@" in rest
