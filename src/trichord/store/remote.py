"""Files behind a URL: list them, read spans of them; what fails for a moment is tried again, the rest is told in one line."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from trichord.errors import TrichordError, one_line

PAUSES_S = (0.5, 1.0, 2.0)  # between attempts
CONNECT_S, READ_S = 10, 60
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
            times = {"connect_timeout": CONNECT_S, "read_timeout": READ_S, "retries": {"max_attempts": 2}}
            options["config_kwargs"] = times  # its own bounds, times those of s3fs, would be hours
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, **options)
        except ImportError as error:
            mend = "pip install 'trichord[s3]'" if protocol in ("s3", "s3a") else one_line(error)
            raise TrichordError(f"{url}: its file system is not installed; {mend}") from None
        except Exception as error:
            raise TrichordError(f"{url}: cannot be opened ({_cause(error)}); correct the URL") from None

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

        return self._attempt(f"{self.url}/{name}", look)

    def _size(self, path: str) -> int:
        return int(self._attempt(path, lambda: self._fs.size(path)) or 0)

    def _attempt(self, where: str, action: Callable[[], Result]) -> Result:
        for pause_s in (*PAUSES_S, None):
            try:
                return action()
            except Exception as error:  # file systems raise their libraries' own errors
                if pause_s is None or not _passes(error):
                    raise _failed(where, error) from None
                time.sleep(pause_s)
        raise AssertionError


def _token(entry: dict[str, Any]) -> str:
    told = [f"{name}={entry[name]}" for name in _TOKENS if entry.get(name)]
    return f"{entry.get('size')} {' '.join(told)}" if told else ""


def _cause(error: BaseException) -> str:
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
