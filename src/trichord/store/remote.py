"""Files behind a URL: list them and read spans of them. What fails for a moment is tried again, a bounded number of times.

Every request has a deadline, also where a server accepts it and never answers or sends a byte now and then. Trying again is
left to this module alone: the libraries' own attempts would multiply to an hour of silence.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from trichord.errors import TrichordError, one_line
from trichord.threads import NotInTimeError, within

PAUSES_S = (0.5, 1.0, 2.0)  # between attempts
CONNECT_S, READ_S = 10, 30  # without any answer
REQUEST_S, SLOWEST_BYTES_PER_S = 120.0, 50_000  # the longest that a request may take, and the time that its bytes add
logger = logging.getLogger(__name__)
_TOKENS = ("ETag", "etag", "md5", "generation", "LastModified", "last_modified", "mtime", "created")
_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "CredentialRetrievalError",
                "ProfileNotFound", "NoAuthTokenError")  # fmt: skip
Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteFile:
    """Size in bytes, and a token that changes with the content as far as the file system tells; empty where it does not."""

    size: int
    token: str


class RemoteFiles:
    """The files below a URL. Safe to use from several threads.

    Raises TrichordError when no file system for the URL is installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        protocol = url.partition("://")[0]
        options: dict[str, Any] = {}
        if protocol in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get(protocol, {}):
            times = {"connect_timeout": CONNECT_S, "read_timeout": READ_S, "retries": {"total_max_attempts": 1}}
            options["config_kwargs"] = times
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, **options)
        except ImportError as error:
            mend = "pip install 'trichord[s3]'" if protocol in ("s3", "s3a") else one_line(error)
            raise TrichordError(f"{url}: its file system is not installed; {mend}") from None
        except Exception as error:
            raise TrichordError(f"{url}: cannot be opened ({_cause(error)}); correct the URL") from None
        if isinstance(getattr(self._fs, "retries", None), int):
            self._fs.retries = 1  # of s3fs

    def listed(self, folder: str = "") -> dict[str, RemoteFile]:
        """Files directly in `folder` by their names, as they are now; empty when there is no such folder."""
        root = f"{self._root}/{folder}".rstrip("/")

        def look() -> list[dict[str, Any]]:
            self._fs.invalidate_cache(root)
            try:
                return list(self._fs.ls(root, detail=True))
            except (FileNotFoundError, NotADirectoryError):
                return []

        entries = self._attempt(f"{self.url}/{folder}".rstrip("/"), look)
        files = {}
        for entry in entries:
            name = str(entry["name"]).rstrip("/").rpartition("/")[2]
            if entry.get("type") == "file":
                size = entry.get("size")
                files[name] = RemoteFile(self._size(f"{root}/{name}") if size is None else int(size), _token(entry))
        return files

    def read(self, name: str, begin: int, end: int) -> bytes:
        """Bytes [begin, end) of a file. Raises TrichordError when it cannot be read or is shorter."""

        def look() -> bytes:
            data = self._fs.cat_file(f"{self._root}/{name}", start=begin, end=end) if end > begin else b""
            if len(data) != end - begin:
                raise ConnectionError(f"gave {len(data):,} bytes where {end - begin:,} were asked for")
            return data

        return self._attempt(f"{self.url}/{name}", look, num_bytes=end - begin)

    def _size(self, path: str) -> int:
        return int(self._attempt(path, lambda: self._fs.size(path)) or 0)

    def _attempt(self, where: str, action: Callable[[], Result], num_bytes: int = 0) -> Result:
        deadline_s = REQUEST_S + num_bytes / SLOWEST_BYTES_PER_S
        for number, pause_s in enumerate((*PAUSES_S, None), 1):
            try:
                return within(deadline_s, action)
            except Exception as error:  # file systems raise their libraries' own errors
                if pause_s is None or not _passes(error) or (isinstance(error, NotInTimeError) and number > 1):
                    raise _failed(where, error) from None
                logger.warning(
                    "%s: %s; trying again (attempt %d of %d)", where, _cause(error), number + 1, len(PAUSES_S) + 1
                )
                time.sleep(pause_s)
        raise AssertionError


def _token(entry: dict[str, Any]) -> str:
    told = [f"{name}={entry[name]}" for name in _TOKENS if entry.get(name)]
    return f"{entry.get('size')} {' '.join(told)}" if told else ""


def _cause(error: BaseException) -> str:
    if isinstance(error, NotInTimeError):
        return str(error)
    return one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)[:200]


def _lacks_credentials(error: BaseException) -> bool:
    return isinstance(error, PermissionError) or type(error).__name__ in _CREDENTIALS


def _passes(error: BaseException) -> bool:
    """Whether another attempt may succeed: networks and overloaded servers, not what is missing or refused."""
    if _lacks_credentials(error) or isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return False
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or library in ("botocore", "aiobotocore", "aiohttp", "requests", "urllib3")


def _failed(where: str, error: BaseException) -> TrichordError:
    if isinstance(error, FileNotFoundError):
        return TrichordError(f"{where}: is not there; check the bucket and the path")
    if _lacks_credentials(error):
        return TrichordError(
            f"{where}: access is refused ({_cause(error)}); give credentials that may read it, "
            "for S3 as AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return TrichordError(
        f"{where}: cannot be read ({_cause(error)}); check the network and, for S3, AWS_ENDPOINT_URL, then run again"
    )
