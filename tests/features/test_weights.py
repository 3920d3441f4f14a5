"""Sources of weights: caches first, then a hub, otherwise an error of one line; no code in a file is executed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from trichord.errors import TrichordError
from trichord.features import weights
from trichord.features.model_files import find_model


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The caches of this library, torch and Hugging Face, all empty."""
    from huggingface_hub import constants

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("TORCH_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    return tmp_path / "cache"


def saved_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "vit"}')
    save_file({"a": torch.ones(2)}, folder / "model.safetensors")
    return folder


def cached_model(cache: Path, repo: str, commit: str = "0" * 40) -> Path:
    root = cache / "hub" / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    return saved_model(root / "snapshots" / commit)


# ---- torch's cache


def test_torchs_folder_is_where_torch_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert weights.torch_hub_folder() == Path(torch.hub.get_dir()) / "checkpoints"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "elsewhere"))
    assert (
        weights.torch_hub_folder()
        == Path(torch.hub.get_dir()) / "checkpoints"
        == tmp_path / "elsewhere/hub/checkpoints"
    )


def test_a_file_of_torchs_hub_that_cannot_be_had(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    url, path = "https://example.org/net-0123abcd.pth", caches / "torch" / "hub" / "checkpoints" / "net-0123abcd.pth"
    with pytest.raises(TrichordError) as caught:
        weights.torch_hub_file(url, "net", "--weights_3d")
    message = str(caught.value)
    assert (
        message.startswith(f"{path}: the weights of net are missing and the download failed (") and "\n" not in message
    )
    assert message.endswith(f"; put {url} there, or pass a copy with --weights_3d")
    with pytest.raises(TrichordError, match="the weights of net are missing; put"):
        weights.torch_hub_file(url, "net", "--w", download=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: pytest.fail("offline"))
    with pytest.raises(TrichordError, match="HF_HUB_OFFLINE forbids downloading it; put"):
        weights.torch_hub_file(url, "net", "--w")
    path.write_bytes(b"here")
    assert weights.torch_hub_file(url, "net", "--w") == path


def test_a_download_is_checked_against_its_name(tmp_path: Path) -> None:
    (tmp_path / "net").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()[:8]
    for name, good in ((f"net-{digest}.pth", True), ("net-00000000.pth", False)):
        (tmp_path / name).write_bytes(b"weights")
        url = (tmp_path / name).as_uri()
        if good:
            assert weights.torch_hub_file(url, "net", "--w").read_bytes() == b"weights"
        else:
            with pytest.raises(TrichordError, match="invalid hash value"):
                weights.torch_hub_file(url, "net", "--w")
            assert not (weights.torch_hub_folder() / name).exists()


# ---- Hugging Face


def test_the_cache_is_used_without_asking_the_network(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setattr(HfApi, "model_info", lambda *a, **k: pytest.fail("asked the network"))
    folder = cached_model(caches, "org/name")
    assert find_model("org/name", extra="hf") == folder
    assert find_model(f"org/name@{'0' * 40}", extra="hf") == folder
    path = weights.hugging_face_file("org/name", ("gone.bin", "model.safetensors"), "m", "--w")
    assert path == folder / "model.safetensors"


def test_a_model_that_is_not_there_offline(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    def no_network(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Name or service\nnot known")

    monkeypatch.setattr(HfApi, "model_info", no_network)
    for setting, reason in (
        ("0", r"they cannot be downloaded \(Name or service not known\)"),
        ("1", "HF_HUB_OFFLINE forbids"),
    ):
        monkeypatch.setenv("HF_HUB_OFFLINE", setting)
        expected = rf"^{caches}/hub: the weights of timm:x are missing and {reason}.+or pass a copy with --w$"
        with pytest.raises(TrichordError, match=expected) as caught:
            weights.hugging_face_file("timm/x", ("model.safetensors",), "timm:x", "--w")
        assert "run `hf download timm/x model.safetensors` on a machine" in str(caught.value) and "\n" not in str(
            caught.value
        )
        with pytest.raises(TrichordError, match=r"models--org--name: the model is missing and .+`hf download org/name"):
            find_model("org/name", extra="hf")


FILES = {
    "config.json": b'{"model_type": "vit"}',
    "model.safetensors": (2).to_bytes(8, "little") + b"{}",
    "pytorch_model.bin": b"the same again, as a pickle",
    "README.md": b"not wanted",
}


class Hub(BaseHTTPRequestHandler):
    """The part of the hub that a download uses."""

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/org/tiny/tree/"):
            tree = [{"type": "file", "path": n, "size": len(c), "oid": "2" * 40} for n, c in FILES.items()]
            return self.answer(json.dumps(tree).encode())
        if self.path.startswith("/api/models/org/tiny"):
            siblings = [{"rfilename": name} for name in FILES]
            return self.answer(json.dumps({"id": "org/tiny", "sha": "1" * 40, "siblings": siblings}).encode())
        if "/resolve/" in self.path:
            return self.answer(FILES.get(self.path.rpartition("/")[2], b""))
        self.send_error(404)

    do_HEAD = do_GET

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run_with_hub(endpoint: str, home: Path, code: str) -> subprocess.CompletedProcess[str]:
    values = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    values.update(HF_ENDPOINT=endpoint, HF_HOME=str(home), HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_XET="1")
    head = "import sys\nfrom trichord.features import model_files, weights\nfrom trichord.errors import TrichordError\n"
    return subprocess.run([sys.executable, "-c", head + code], env=values, capture_output=True, text=True, timeout=120)


def test_a_download_from_a_hub_takes_configuration_and_one_kind_of_weights(hub: str, tmp_path: Path) -> None:
    code = "print(model_files.find_model('org/tiny', extra='hf')); assert 'torch' not in sys.modules"
    first = run_with_hub(hub, tmp_path, code)
    assert first.returncode == 0, first.stderr
    folder = Path(first.stdout.strip())
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        n: FILES[n] for n in ("config.json", "model.safetensors")
    }
    assert run_with_hub("http://127.0.0.1:9", tmp_path, code).stdout == first.stdout  # from the cache
    lacking = run_with_hub(hub, tmp_path, "weights.hugging_face_file('org/none', ['model.safetensors'], 'm', '--w')")
    assert "the weights of m are missing and they cannot be downloaded (" in lacking.stderr.splitlines()[-1]
    one = run_with_hub(
        hub, tmp_path, "print(weights.hugging_face_file('org/tiny', ['no', 'pytorch_model.bin'], 'm', '-'))"
    )
    assert Path(one.stdout.strip()).read_bytes() == FILES["pytorch_model.bin"]
    none = run_with_hub(hub, tmp_path, "weights.hugging_face_file('org/tiny', ['no'], 'm', '-')")
    assert "the weights of m are missing and the hub has no no for it; run" in none.stderr.splitlines()[-1]


def test_a_hub_that_does_not_answer(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        code = "weights._CONNECT_S = 0.2; weights.hugging_face_file('a/b', ['x'], 'm', '-')"
        began = time.monotonic()
        done = run_with_hub(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path, code)
    assert time.monotonic() - began < 30  # a download by the client itself tries six times
    assert "the weights of m are missing and they cannot be downloaded (timed out)" in done.stderr.splitlines()[-1]


# ---- content


def test_digests_are_kept_and_follow_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"one")
    b.write_bytes(b"two")
    digest = hashlib.sha256(b"one").hexdigest()
    assert weights.weights_sha256([a]) == digest
    both = weights.weights_sha256([a, b])
    assert both not in (digest, weights.weights_sha256([b]), weights.weights_sha256([b, a]))
    weights._hashes.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *args: pytest.fail("read again"))
        assert weights.weights_sha256([a, b]) == both
    a.write_bytes(b"three")
    assert weights.weights_sha256([a]) == hashlib.sha256(b"three").hexdigest()
    with pytest.raises(TrichordError, match=rf"^{tmp_path}/gone: cannot be read \(No such file"):
        weights.weights_sha256([tmp_path / "gone"])


def test_digests_where_the_cache_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"a file in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert weights.weights_sha256([tmp_path / "file"]) == hashlib.sha256(b"a file in the way").hexdigest()


def test_state_dicts_wrapped_and_bare(tmp_path: Path) -> None:
    state = {"a.weight": torch.randn(3).half(), "count": torch.tensor(3)}
    torch.save(state, tmp_path / "bare.pth")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "wrapped.pth")
    save_file(state, tmp_path / "bare.safetensors")
    for name in ("bare.pth", "wrapped.pth", "bare.safetensors"):
        read = weights.read_state(tmp_path / name)
        assert (
            set(read) == set(state) and read["a.weight"].dtype == torch.float32 and read["count"].dtype == torch.int64
        )
        assert torch.equal(read["a.weight"], state["a.weight"].float())


def test_files_that_are_not_weights(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",)

    torch.save({"_fc.weight": Evil()}, tmp_path / "evil.pth")
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
    for name in ("a.pth", "a.safetensors", "evil.pth", "gone.pth"):
        with pytest.raises(TrichordError, match=rf"{name}: is not a readable weights file \(.+\); replace it"):
            weights.read_state(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    for value in ({"epoch": 3}, {}, [torch.ones(1)], {"state_dict": {"a": 1}}):
        torch.save(value, tmp_path / "c.pth")
        with pytest.raises(TrichordError, match=r"c\.pth: contains no plain state dict; save the state_dict\(\)"):
            weights.read_state(tmp_path / "c.pth")
    with pytest.raises(TrichordError, match=r"^/nowhere/w\.pth: does not exist; check --weights_3d or leave it out$"):
        weights.named_file(Path("/nowhere/w.pth"), "--weights_3d")
