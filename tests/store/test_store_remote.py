"""Stores in object storage: equal results, faults of servers, caches."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import forked
from s3_server import BUCKET, S3Server, upload
from store_helpers import build, item, word_vectors
from trichord.cli import main
from trichord.data.batches import TrainingClips
from trichord.errors import TrichordError
from trichord.recipes import load_recipe
from trichord.store import Store, StoreWriter, remote
from trichord.store import cache as caches
from trichord.store.inspect import store_info, verify
from trichord.store.location import SCHEMES, local_folder, location
from trichord.study.run import run_study

NUM_ITEMS = 20


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server()
    with pytest.MonkeyPatch.context() as monkeypatch:
        server.use(monkeypatch)
        fsspec.filesystem("s3").mkdir(BUCKET)
        fsspec.filesystem("s3").clear_instance_cache()
    yield server
    server.close()


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    server.use(monkeypatch)
    monkeypatch.setattr(remote, "PAUSES_S", (0.01, 0.01, 0.01))
    server.asked.clear()
    yield server
    server.fail = lambda method, path: 0
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for this test; the memory file system starts empty."""
    monkeypatch.setenv("TRICHORD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TRICHORD_CACHE_GB", raising=False)
    MemoryFileSystem.store.clear()
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local store of ten parts with two items each."""
    items = [item(f"v{i:02d}", 5 + i, texts=[f"salt {'now ' * (i % 3)}stir", "crème"]) for i in range(NUM_ITEMS)]
    return build(tmp_path_factory.mktemp("local") / "store", items)


def shards(cache: Path) -> int:
    return sum(path.stat().st_size for path in (cache / "shards").glob("*.safetensors"))


def same(a: Store, b: Store) -> None:
    """Compare every row, caption and word."""
    assert (len(a), a.fingerprint, a.streams, a.words) == (len(b), b.fingerprint, b.streams, b.words)
    assert np.array_equal(a.word_vectors, b.word_vectors)
    for i in range(len(a)):
        assert (a.video_id(i), a.split(i), a.source(i)) == (b.video_id(i), b.split(i), b.source(i))
        for name in a.streams:
            assert np.array_equal(a.rows(name, i), b.rows(name, i)) and np.array_equal(
                a.rows(name, i, 2, 4), b.rows(name, i, 2, 4)
            )
        assert np.array_equal(a.caption_spans(i), b.caption_spans(i))
        for c in range(a.num_captions(i)):
            assert a.caption_text(i, c) == b.caption_text(i, c) and np.array_equal(a.word_ids(i, c), b.word_ids(i, c))


# ---- reading


@pytest.mark.parametrize("url", [f"s3://{BUCKET}/deep/store", "memory://store", "memory://deep/store/"])
def test_a_remote_store_equals_the_local_one(local: Path, s3: S3Server, url: str) -> None:
    upload(local, url)
    opened = Store(url)
    same(Store(local), opened)
    same(Store(local), pickle.loads(pickle.dumps(opened)))
    assert opened.path == url.rstrip("/") and verify(url) == []


def test_a_file_url_is_the_folder_itself(local: Path, cache: Path) -> None:
    opened = Store(f"file://{local}")
    same(Store(local), opened)
    assert opened.path == local and opened.remote is None and not cache.exists()
    with StoreWriter(f"file://{local}", word_vectors()):
        pass


def test_a_url_that_lost_a_slash_in_path_is_known_again(local: Path) -> None:
    upload(local, "memory://store")
    assert Store(Path("memory://store")).path == "memory://store"
    assert location(Path("s3://bucket/a")) == "s3://bucket/a" and location("s3:/bucket") == Path("s3:/bucket")
    assert location(Path("file:///a/b")) == location("file:///a/b") == Path("/a/b")
    assert location(Path("a:/b")) == Path("a:/b") and location("my_store") == Path("my_store")


def test_each_part_is_fetched_once(local: Path, s3: S3Server) -> None:
    url = upload(local, f"s3://{BUCKET}/once")
    for _ in range(2):
        opened = Store(url)
        for i in (3, 2, 3, 19, 18):
            opened.rows("visual_2d", i)
    asked = [name for name in s3.asked if name.endswith(".safetensors")]
    assert sorted(asked) == ["once/parts/00001.safetensors", "once/parts/00009.safetensors"]
    assert len([name for name in s3.asked if name.endswith(".parquet")]) == 10


def test_words_do_not_cost_a_copy_of_the_store(local: Path, cache: Path) -> None:
    url = upload(local, "memory://store")
    opened = Store(url)
    assert opened.words == Store(local).words and shards(cache) == 0
    MemoryFileSystem.store.clear()
    assert shards(cache) == 0 and opened.remote is not None
    assert len(list((opened.folder / "words").glob("*"))) >= 1


def test_many_items_are_brought_at_once(local: Path, s3: S3Server) -> None:
    opened = Store(upload(local, f"s3://{BUCKET}/many"))
    opened.bring(np.array([0, 1, 5, 13]))
    assert opened.remote is not None and opened.remote.cache.num_bytes() == sum(
        (local / "parts" / f"{part:05d}.safetensors").stat().st_size for part in (0, 2, 6)
    )
    s3.fail = lambda method, path: 500
    assert len(opened.rows("visual_2d", 13)) == 18


def test_parts_that_are_read_in_turn_are_fetched_ahead(local: Path, s3: S3Server) -> None:
    opened = Store(upload(local, f"s3://{BUCKET}/turn"))
    opened.rows("visual_2d", 0)
    assert opened.remote is not None
    opened.remote._shards.shutdown(wait=True)
    assert any("00001.safetensors" in name for name in s3.asked)


def test_the_bound_holds_under_random_access(local: Path) -> None:
    url, plain = upload(local, "memory://store"), Store(local)
    sizes = [path.stat().st_size for path in (local / "parts").glob("*.safetensors")]
    room = 3 * max(sizes)
    opened, rng = Store(url, cache_gb=room / 1e9), np.random.default_rng(0)
    assert opened.remote is not None
    held = []
    for i in rng.integers(0, NUM_ITEMS, 200).tolist():
        rows = opened.rows("visual_2d", i)
        held.append((i, rows))
        assert np.array_equal(rows, plain.rows("visual_2d", i))
        assert opened.remote.cache.num_bytes() <= room
    mapped = sum(shard is not None for shard in opened._shards._shards)  # type: ignore[union-attr]
    assert mapped <= room // min(sizes), "what was deleted is let go of, so that the disk gets it back"
    for i, rows in held[:50]:
        assert np.array_equal(rows, plain.rows("visual_2d", i)), "a view outlives the file"


def test_a_batch_fetches_a_part_once_however_small_the_cache(local: Path, s3: S3Server) -> None:
    url = upload(local, f"s3://{BUCKET}/small")
    largest = max(path.stat().st_size for path in (local / "parts").glob("*.safetensors"))
    sources = [
        TrainingClips(store, store.select(), seed=0, videos_per_batch=NUM_ITEMS, clips_per_video=1, min_clip_s=1.0)
        for store in (Store(url, cache_gb=largest / 1e9), Store(local))
    ]
    s3.asked.clear()
    drawn, expected = (source.draw(0, 0) for source in sources)
    assert np.array_equal(drawn.item, expected.item) and np.array_equal(drawn.start_s, expected.start_s)
    assert len(s3.asked) == len(set(s3.asked)) == 10


def test_a_store_that_grew_or_lost_a_part_is_seen_by_the_next_one(local: Path, tmp_path: Path) -> None:
    grown = build(tmp_path / "store", [item("a"), item("b")])
    url = upload(grown, "memory://store")
    before = Store(url)
    build(grown, [item("c"), item("d")])
    upload(grown, url)
    after = Store(url)
    same(Store(grown), after)
    assert len(before) == 2 and np.array_equal(before.rows("visual_2d", 1), after.rows("visual_2d", 1))
    for suffix in ("parquet", "safetensors"):
        MemoryFileSystem.store.pop(f"/store/parts/00001.{suffix}")
    assert len(Store(url)) == 2


@pytest.mark.slow
def test_two_processes_share_one_cache(local: Path, s3: S3Server, cache: Path) -> None:
    url = upload(local, f"s3://{BUCKET}/two")
    reading = f"""
from trichord.store import Store
store = Store({url!r})
print(sum(float(store.rows('visual_2d', i).sum()) for i in range(len(store))))
"""
    running = [forked.Popen([sys.executable, "-c", reading], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {process.communicate(timeout=60)[0] for process in running}
    plain = Store(local)
    assert outputs == {f"{sum(float(plain.rows('visual_2d', i).sum()) for i in range(NUM_ITEMS))}\n"}
    asked = [name for name in s3.asked if name.endswith(".safetensors")]
    assert len(asked) == len(set(asked)) == 10


# ---- what goes wrong


def test_an_object_that_changed_under_the_run_is_refused(local: Path, s3: S3Server, cache: Path) -> None:
    opened = Store(upload(local, f"s3://{BUCKET}/changed"))
    name = "parts/00004.safetensors"
    data = bytearray((local / name).read_bytes())
    data[-1] ^= 1
    fsspec.filesystem("s3").pipe_file(f"{BUCKET}/changed/{name}", bytes(data))
    with pytest.raises(TrichordError) as caught:
        opened.rows("visual_2d", 8)
    message = str(caught.value)
    assert (
        message.startswith(f"s3://{BUCKET}/changed/{name}: its content does not match its checksum")
        and "copy" in message
    )
    assert shards(cache) == 0 and "\n" not in message
    assert verify(f"s3://{BUCKET}/changed") == [message]


@pytest.mark.parametrize("cut", [0, 100])
def test_a_torn_object_is_refused_when_opened_and_when_read(local: Path, s3: S3Server, cut: int) -> None:
    url, name = upload(local, f"s3://{BUCKET}/torn{cut}"), "parts/00004.safetensors"
    opened = Store(url)
    fsspec.filesystem("s3").pipe_file(f"{BUCKET}/torn{cut}/{name}", (local / name).read_bytes()[:cut])
    with pytest.raises(TrichordError, match=f"^{url}/{name}: cannot be read"):
        opened.rows("visual_2d", 8)
    with pytest.raises(TrichordError, match=f"^{url}/{name}: has {cut} bytes, but .* were written"):
        Store(url)
    assert any(name in problem for problem in verify(url))


def test_damage_is_reported_with_its_url(local: Path) -> None:
    url = upload(local, "memory://store")
    MemoryFileSystem.store.pop("/store/parts/00003.safetensors")
    with pytest.raises(TrichordError, match=f"^{url}/parts/00003.safetensors: is missing"):
        Store(url)
    fsspec.filesystem("memory").pipe_file("/store/parts/00002.parquet", b"PAR1 no")
    with pytest.raises(TrichordError, match=f"^{url}/parts/00002.parquet: cannot be read .*verify {url}`,") as caught:
        Store(url)
    assert "cache" not in str(caught.value)


def test_a_cached_copy_that_the_disk_damaged_is_fetched_again(local: Path, cache: Path) -> None:
    opened = Store(upload(local, "memory://store"))
    assert opened.remote is not None
    path = opened.remote.shard(opened._infos[0])
    path.write_bytes(bytes(path.stat().st_size))
    assert np.array_equal(opened.rows("visual_2d", 0), Store(local).rows("visual_2d", 0))


def test_copies_whose_bytes_changed_are_fetched_again_by_the_next_process(local: Path, cache: Path) -> None:
    url = upload(local, "memory://store")
    opened = Store(url)
    assert opened.remote is not None and len(opened.words)
    opened.rows("visual_2d", 0)
    copies = [
        *cache.glob("shards/*.safetensors"),
        *cache.glob("stores/*/words/*"),
        *cache.glob("stores/*/parts/*.parquet"),
    ]
    assert len(copies) >= 3
    for path in copies:
        data = bytearray(path.read_bytes())
        data[-20] ^= 1  # in the data, so that header and size are unchanged
        path.write_bytes(data)
    caches._CACHES.clear()  # forget what this process has verified
    again = Store(url)
    assert np.array_equal(again.rows("visual_2d", 0), Store(local).rows("visual_2d", 0))
    assert again.words == Store(local).words and np.array_equal(again.word_vectors, Store(local).word_vectors)
    assert verify(url) == []


class SilentServer:
    """Accepts connections and never answers, or answers single bytes forever."""

    def __init__(self, drips: bool) -> None:
        self.accepted: list[socket.socket] = []
        self._drips, self._ended = drips, threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def _accept(self) -> None:
        self._server.settimeout(0.02)
        while not self._ended.is_set():
            with suppress(TimeoutError):
                connection, _ = self._server.accept()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" if self._drips else b"")
                self.accepted.append(connection)
            for connection in self.accepted if self._drips else ():
                with suppress(OSError):
                    connection.sendall(b" ")

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        for connection in [*self.accepted, self._server]:
            connection.close()


@pytest.mark.parametrize("drips", [False, True])
def test_a_server_that_never_answers_is_reported(
    drips: bool, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(remote, "PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(remote, "READ_S", 0.1)
    monkeypatch.setattr(remote, "REQUEST_S", 1.0 if drips else 60.0)
    server = SilentServer(drips)
    try:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(TrichordError, match=f"s3://{BUCKET}/silent-{drips}: cannot be read"):
            Store(f"s3://{BUCKET}/silent-{drips}")
        assert len(server.accepted) <= (2 if drips else 4)
        assert ("no complete response within 1 s" if drips else "Timeout") in caplog.text
        assert f"s3://{BUCKET}/silent-{drips}" in caplog.text and "trying again (attempt 2 of 4)" in caplog.text
    finally:
        server.close()
        fsspec.filesystem("s3").clear_instance_cache()


@pytest.mark.slow
def test_a_server_that_fails_twice_is_asked_again(tmp_path: Path, s3: S3Server) -> None:
    small = build(tmp_path / "store", [item("a"), item("b")])
    url = upload(small, f"s3://{BUCKET}/twice")
    failed: dict[str, int] = {}

    def fail(method: str, path: str) -> int:
        failed[path] = failed.get(path, 0) + 1
        return 500 if failed[path] <= 2 else 0

    s3.fail = fail
    same(Store(small), Store(url))
    assert sorted(path for path, count in failed.items() if count > 2) == [
        f"/{BUCKET}", f"/{BUCKET}/twice/parts/00000.parquet", f"/{BUCKET}/twice/parts/00000.safetensors",
    ]  # fmt: skip


class Failing(MemoryFileSystem):
    """Loses the connection a given number of times."""

    protocol = "failing"
    left: int = 0

    def cat_file(self, *args: object, **options: object) -> bytes:
        if Failing.left > 0:
            Failing.left -= 1
            raise ConnectionResetError(104, "reset by peer")
        return super().cat_file(*args, **options)


def test_attempts_are_bounded_and_the_last_cause_is_reported(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES_S", (0.0, 0.0, 0.0))
    fsspec.register_implementation("failing", Failing, clobber=True)
    monkeypatch.setattr("trichord.store.location.SCHEMES", (*SCHEMES, "failing"))
    upload(local, "failing://store")
    monkeypatch.setattr(Failing, "left", 3)
    opened = Store("failing://store")
    monkeypatch.setattr(Failing, "left", 1000)
    with pytest.raises(TrichordError) as caught:
        opened.rows("visual_2d", 0)
    assert "parts/00000.safetensors: cannot be read (ConnectionResetError: " in str(caught.value)
    assert Failing.left == 1000 - 4 and "check the network" in str(caught.value)


def test_missing_servers_rights_and_buckets_are_errors_of_one_line(
    local: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def error_line(url: str) -> str:
        fsspec.filesystem("s3").clear_instance_cache()
        assert main(["store", "info", url]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith(f"trichord: error: {url}")
        return error

    assert "contains no store; check the bucket" in error_line("s3://nowhere/store")
    assert "contains no store; check the bucket" in error_line(f"s3://{BUCKET}/nowhere")
    s3.fail = lambda method, path: 403
    assert "access is denied" in error_line(f"s3://{BUCKET}/store")
    monkeypatch.setattr(remote, "PAUSES_S", ())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "check the network" in error_line(f"s3://{BUCKET}/store")
    assert "cannot be read from nosuch://" in error_line("nosuch://store")


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(TrichordError, match="^ftp://...: contains a password") as caught:
        Store("ftp://me:secret@host/store")
    assert "secret" not in str(caught.value)


def test_names_on_the_server_cannot_leave_the_cache(local: Path, cache: Path, tmp_path: Path) -> None:
    upload(local, "memory://store")
    for name in ("..\\1.parquet", "1.parquet\n", "x.parquet", "-1.parquet", "..parquet"):
        MemoryFileSystem().pipe_file(f"/store/parts/{name}", b"x")
    opened = Store("memory://store")
    same(Store(local), opened)
    assert len(list((opened.folder / "parts").iterdir())) == 10


def test_a_small_file_of_absurd_size_is_refused(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trichord.store.mirror.MAX_SMALL_BYTES", 1000)
    with pytest.raises(TrichordError, match=r"^memory://store/parts/0000\d.parquet: refused: has [\d,]+ bytes"):
        Store(upload(local, "memory://store"))


# ---- writing, commands, studies


def test_writing_to_a_url_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("s3://bucket/store", Path("s3://bucket/store")):
        with pytest.raises(
            TrichordError,
            match="^s3://bucket/store: stores can be read from URLs but only written to local folders.*aws s3 sync",
        ):
            StoreWriter(url, word_vectors())
    (tmp_path / "videos").mkdir()
    assert main(["extract", str(tmp_path / "videos"), "--store", "s3://bucket/store"]) == 2
    assert (
        "s3://bucket/store: stores can be read from URLs but only written to local folders" in capsys.readouterr().err
    )
    assert local_folder("a/b") == Path("a/b") and not Path("s3:").exists()


def test_a_cache_bound_on_a_local_store_is_refused(local: Path) -> None:
    with pytest.raises(TrichordError, match="cache_gb=3.0 has no effect on a local store"):
        Store(local, cache_gb=3.0)


def test_info_shows_the_cache_and_whether_it_is_too_small(
    local: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = upload(local, "memory://store")
    here, there = store_info(local), store_info(url)
    assert (here.num_bytes, here.num_words, here.streams) == (there.num_bytes, there.num_words, there.streams)
    assert main(["store", "info", url]) == 0
    shown = capsys.readouterr().out
    assert f"store        {url}" in shown and f"copies       in {cache}/stores/" in shown and "less than" not in shown
    monkeypatch.setenv("TRICHORD_CACHE_GB", "0.00002")  # enough for the largest part, but not for the store
    assert main(["store", "info", url]) == 0
    assert "less than the size of the store, so each epoch downloads parts again" in capsys.readouterr().out
    assert main(["store", "verify", url]) == 0


@pytest.mark.slow
def test_a_study_from_s3_has_the_same_table(tiny_store: Path, s3: S3Server, tmp_path: Path) -> None:
    url = upload(tiny_store, f"s3://{BUCKET}/tiny")
    recipe = {"training": {"tensorboard": False, "max_steps": 8, "device": "cpu"}}
    tables = []
    for place, bound in ((tiny_store, 0.0), (url, 0.02)):
        out = tmp_path / str(len(tables))
        settings = load_recipe("debug", **recipe, data={"cache_gb": bound})
        run_study(place, out, ["av>t", "avt"], [0], settings)
        tables.append((out / "table.csv").read_text())
    assert tables[0] == tables[1]
    assert json.loads((tmp_path / "1" / "study.json").read_text())["store"]["path"] == url
    assert list((Store(url).folder / "frozen").glob("*-*")), "what frozen encoders give is kept on this machine"
