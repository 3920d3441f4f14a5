"""Where a store lies: a folder, or a URL that fsspec knows (`s3://bucket/store`, `gs://`, `az://`, `https://`, ...).

A URL that went through `Path` has lost a slash; it is known again by its scheme. `file://` is a folder.

A location that the user gives may be a URL of the schemes in `SCHEMES`. fsspec knows more: among them are some that open
other URLs (`zip::s3://...`, `simplecache::`, `dir`), and `reference://`, whose files name further URLs and hold templates
that some versions of fsspec run as code. A location that a file gives, such as the store in a study's `run.yaml`, may be
a folder only: see `recorded_folder`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from trichord.errors import TrichordError, one_line

Location = Path | str
FOLDER_SCHEMES = ("file", "local")
_CONTAINERS = ("az", "abfs", "abfss", "adl")  # CONTAINER@ACCOUNT is an address there
SCHEMES = (*_CONTAINERS, "gs", "gcs", "hdfs", "hf", "http", "https", "memory", "oci", "s3", "s3a", "webhdfs")
_QUERIED = ("http", "https", *_CONTAINERS)  # a question mark starts a query there, which often holds a signature
_COLLAPSED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,3}([^/?#]*)(.*)", re.DOTALL)


def location(store: Location) -> Location:
    """Return a folder as a Path, a URL as text without a slash at its end.

    Raises:
        TrichordError: A URL holds a password, which messages and study folders would repeat; is a chain of URLs (`a::b`);
            or has a scheme that stores are not read from.
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
            f"{shown_url(text)}: is a chain of URLs, which is not opened; copy the store out of the archive or cache, "
            "then give its folder"
        )
    if scheme not in SCHEMES:
        raise TrichordError(
            f"{shown_url(text)}: stores are not read from {one_line(scheme)[:40]}://; copy it to a folder, or to one "
            f"of {', '.join(f'{name}://' for name in SCHEMES if name != 'memory')}"
        )
    return text.rstrip("/")


def recorded_folder(store: str, source: Path) -> Path:
    """Return the folder of a store that a file names.

    Whoever wrote the file would otherwise choose which hosts this machine connects to.

    Args:
        store: The location as it stands in the file.
        source: The file, for the message.

    Raises:
        TrichordError: It is a URL, or no folder on this machine.
    """
    is_url = "::" in store or _AUTHORITY.match(store)
    if is_url and not any(store.startswith(f"{scheme}://") for scheme in FOLDER_SCHEMES):
        raise TrichordError(
            f"{source}: says that the store is {shown_url(store)}; a URL that a file names is not opened: if you trust "
            "it, pass it yourself with --store"
        )
    folder = location(store)
    assert isinstance(folder, Path)
    if not folder.is_dir():
        raise TrichordError(
            f"{source}: says that the store is {one_line(str(folder))[:200]}, which is no folder on this machine; "
            "pass the store with --store"
        )
    return folder


def check_no_password(text: str) -> None:
    """Raise TrichordError, which repeats nothing behind the scheme, when a URL anywhere in `text` holds a password or a query."""
    for part in (text, *text.split("::")):
        match = _AUTHORITY.match(part)
        if match is None:
            continue
        scheme, authority, rest = match[1], match[2], match[3]
        if _holds_password(scheme, authority, rest):
            raise TrichordError(
                f"{scheme}://...: holds a password or a user name; give them in the environment, as its file system documents"
            )
        if scheme in _QUERIED and "?" in rest:
            raise TrichordError(
                f"{scheme}://...: holds a query (?...), and the files of a store cannot be found behind one; "
                "give the URL without it, and signatures in the environment, as its file system documents"
            )


def shown_url(url: str) -> str:
    """Return a URL as a message may repeat it: where it may hold a secret, its scheme alone."""
    return one_line(url)[:200] if not set(url) & {"@", "?"} else f"{one_line(url).partition(':')[0][:40]}://..."


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


def _holds_password(scheme: str, authority: str, rest: str) -> bool:
    """Whether there is a user before the host. A password may hold a slash, and then ends behind the authority."""
    user, at, _ = authority.rpartition("@")
    if at:
        return ":" in user or "%3a" in user.lower() or scheme not in _CONTAINERS
    _, colon, port = authority.rpartition(":")
    return bool(colon) and not port.isdigit() and "@" in rest
