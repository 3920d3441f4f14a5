"""An S3 server in this process, with a log of requests and failures on demand."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "bucket"


class S3Server:
    """Moto's S3 behind a gate: `asked` lists the objects that were read, and `fail` selects answers to replace by errors."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fail: Callable[[str, str], int] = lambda method, path: 0  # HTTP status in place of the answer, or 0
        self._app = DomainDispatcherApplication(create_backend_app)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, self._gate, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _gate(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if status := self.fail(method, path):
            start_response(f"{status} No", [("Content-Type", "text/plain"), ("Content-Length", "0")])
            return [b""]
        if method == "GET" and path.count("/") > 1:
            self.asked.append(path.removeprefix(f"/{BUCKET}/"))
        return self._app(environ, start_response)

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Direct S3 clients of this test, and of processes that it starts, to this server."""
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in (
            ("AWS_ENDPOINT_URL", self.url),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ):
            monkeypatch.setenv(name, value)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def upload(store: Path, url: str) -> str:
    """Copy a store to a URL, as `aws s3 sync` does."""
    import fsspec

    fs, root = fsspec.core.url_to_fs(url)
    for path in sorted(p for p in store.rglob("*") if p.is_file()):
        fs.pipe_file(f"{root}/{path.relative_to(store).as_posix()}", path.read_bytes())
    fs.invalidate_cache()
    return url
