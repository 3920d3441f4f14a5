"""Files behind a URL: listing them and reading spans of them. Temporary failures are retried a limited number of times.

Every request has a deadline, even if a server accepts it and never responds or only sends a byte now and then. Only this module
retries, because the libraries' own attempts would multiply to an hour of silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from trichord.errors import TrichordError, one_line
from trichord.logs import get_logger
from trichord.threads import NotInTimeError, within

PAUSES_S = (0.5, 1.0, 2.0)  # between attempts, in seconds
CONNECT_S, READ_S = 10, 30  # longest wait for a connection and for data
REQUEST_S, SLOWEST_BYTES_PER_S = 120.0, 50_000  # a request may take REQUEST_S plus the time for its bytes at this rate
logger = get_logger(__name__)
_TOKENS = ("ETag", "etag", "md5", "generation", "LastModified", "last_modified", "mtime", "created")
_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "CredentialRetrievalError",
                "ProfileNotFound", "NoAuthTokenError")  # fmt: skip
Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteFile:
    """The state of a remote file.

    Attributes:
        size: The size in bytes.
        token: A text that changes with the content, as far as the file system reports changes; '' if it does not.
    """

    size: int
    token: str


class RemoteFiles:
    """The files below a URL. Safe to use from several threads.

    Args:
        url: The URL.

    Raises:
        TrichordError: No file system for the URL is installed, or the URL is not valid.
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
            advice = "pip install 'trichord[s3]'" if protocol in ("s3", "s3a") else one_line(error)
            raise TrichordError(f"{url}: the package for its file system is not installed; {advice}") from None
        except Exception as error:
            raise TrichordError(f"{url}: cannot be opened ({_cause(error)}); correct the URL") from None
        if isinstance(getattr(self._fs, "retries", None), int):
            self._fs.retries = 1  # s3fs has retries of its own

    def listed(self, folder: str = "") -> dict[str, RemoteFile]:
        """Return the files directly in `folder`, by name, as they are now; empty if there is no such folder."""
        root = f"{self._root}/{folder}".rstrip("/")

        def list_folder() -> list[dict[str, Any]]:
            self._fs.invalidate_cache(root)
            try:
                return list(self._fs.ls(root, detail=True))
            except (FileNotFoundError, NotADirectoryError):
                return []

        entries = self._attempt(f"{self.url}/{folder}".rstrip("/"), list_folder)
        files = {}
        for entry in entries:
            name = str(entry["name"]).rstrip("/").rpartition("/")[2]
            if entry.get("type") == "file":
                size = entry.get("size")
                files[name] = RemoteFile(self._size(f"{root}/{name}") if size is None else int(size), _token(entry))
        return files

    def read(self, name: str, begin: int, end: int) -> bytes:
        """Read the bytes [begin, end) of a file.

        Raises:
            TrichordError: The file cannot be read or is shorter than `end`.
        """

        def read_span() -> bytes:
            data = self._fs.cat_file(f"{self._root}/{name}", start=begin, end=end) if end > begin else b""
            if len(data) != end - begin:
                raise ConnectionError(f"returned {len(data):,} of {end - begin:,} requested bytes")
            return data

        return self._attempt(f"{self.url}/{name}", read_span, num_bytes=end - begin)

    def _size(self, path: str) -> int:
        return int(self._attempt(path, lambda: self._fs.size(path)) or 0)

    def _attempt(self, where: str, action: Callable[[], Result], num_bytes: int = 0) -> Result:
        deadline_s = REQUEST_S + num_bytes / SLOWEST_BYTES_PER_S
        for number, pause_s in enumerate((*PAUSES_S, None), 1):
            try:
                return within(deadline_s, action)
            except Exception as error:  # file systems raise their libraries' own errors
                if pause_s is None or not _is_temporary(error) or (isinstance(error, NotInTimeError) and number > 1):
                    raise _failed(where, error) from None
                logger.warning(
                    "%s: %s; trying again (attempt %d of %d)", where, _cause(error), number + 1, len(PAUSES_S) + 1
                )
                time.sleep(pause_s)
        raise AssertionError


def _token(entry: dict[str, Any]) -> str:
    parts = [f"{name}={entry[name]}" for name in _TOKENS if entry.get(name)]
    return f"{entry.get('size')} {' '.join(parts)}" if parts else ""


def _cause(error: BaseException) -> str:
    if isinstance(error, NotInTimeError):
        return str(error)
    return one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)[:200]


def _lacks_credentials(error: BaseException) -> bool:
    return isinstance(error, PermissionError) or type(error).__name__ in _CREDENTIALS


def _is_temporary(error: BaseException) -> bool:
    """Return whether another attempt may succeed: errors of networks and overloaded servers, not missing or forbidden files."""
    if _lacks_credentials(error) or isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return False
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or library in ("botocore", "aiobotocore", "aiohttp", "requests", "urllib3")


def _failed(where: str, error: BaseException) -> TrichordError:
    if isinstance(error, FileNotFoundError):
        return TrichordError(f"{where}: does not exist; check the bucket and the path")
    if _lacks_credentials(error):
        return TrichordError(
            f"{where}: access is denied ({_cause(error)}); provide credentials with read permission, "
            "for S3 in AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return TrichordError(
        f"{where}: cannot be read ({_cause(error)}); check the network and, for S3, AWS_ENDPOINT_URL, then run the command again"
    )
