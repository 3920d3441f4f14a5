"""Parts of the extractor: leases between processes, the spool, the ledger, hashes, shards, the plan, progress."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from process_helpers import FORKSERVER
from trichord.captions import Captions
from trichord.errors import TrichordError
from trichord.extraction.choice import Described
from trichord.extraction.folder import content_files
from trichord.extraction.plan import Job, Known, Shard, first_names, jobs
from trichord.extraction.pool import outcome_of
from trichord.extraction.progress import Meter, clock
from trichord.extraction.renewal import content_hash
from trichord.extraction.sources import Source
from trichord.features.encoders import Fingerprint
from trichord.features.hashes import FileHashes
from trichord.logs import passing_messages
from trichord.store.leases import Leases
from trichord.store.ledger import RESOLVED, note, read_ledger
from trichord.store.rules import CURRENT_RULES
from trichord.store.spool import SpoolWriter, begun, read_spooled, remove_spooled, spool_name, spooled

HOLD = """
import sys, time
from pathlib import Path
from trichord.store.leases import Leases
leases = Leases(Path(sys.argv[1]))
print(leases.acquire("a"), leases.acquire("b"), flush=True)
time.sleep(60)
"""


def content_of(source: Source, hashes: FileHashes) -> str:
    """Return the hash of the content of a source, as a plan computes it."""
    digests = {name: hashes.sha256(path) for name, path in content_files(source).items()}
    return content_hash(digests, source.text, source.start_s, source.end_s)


def test_a_lease_belongs_to_one_process(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "True True\n"
    with Leases(tmp_path) as leases:
        assert not leases.acquire("a") and not leases.acquire("b") and leases.acquire("c")
        other.kill()
        other.communicate()
        assert leases.acquire("a")
        leases.release("a")
        leases.release("never held")
    with pytest.raises(TrichordError, match="gone: cannot be written to"):
        Leases(tmp_path / "gone")


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.integers(1, 5), max_size=4),
    texts=st.lists(st.text(), max_size=3),
    duration=st.floats(0, 1e6),
)
def test_the_spool_returns_its_items(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], texts: list[str], duration: float
) -> None:
    store = tmp_path_factory.mktemp("spool")
    source = "ab" * 32 + ":0123456789abcdef"
    writer = SpoolWriter(store, source, "c")
    rng = np.random.default_rng(len(rows))
    blocks = [rng.standard_normal((n, 3)).astype(np.float16) for n in rows]
    for block in blocks:
        writer.append("visual_2d", block)
        writer.append("wide", block.astype(np.float32).repeat(2, 1))
    assert writer.num_rows("visual_2d") == sum(rows) and writer.num_rows("other") == 0
    assert spooled(store) == [] and begun(store) == [(writer.folder, spool_name(source, "c"))]
    times = np.sort(rng.uniform(0, 9, (2, len(texts))), 0)
    captions = Captions(times[0], times[1], tuple(texts))
    rates_hz = {"visual_2d": 1.0, "wide": 1.5} if rows else {}
    writer.commit(video_id="v/ü", split="", duration_s=duration, rates_hz=rates_hz, captions=captions)
    writer.discard()
    (folder,) = spooled(store)
    item = read_spooled(folder)
    assert item is not None and (item.video_id, item.split, item.source) == ("v/ü", "", source)
    assert item.duration_s == duration and item.rates_hz == rates_hz and item.captions.text == tuple(texts)
    assert np.array_equal(item.captions.start_s, times[0]) and np.array_equal(item.captions.end_s, times[1])
    assert set(item.streams) == ({"visual_2d", "wide"} if rows else set())
    if rows:
        assert np.array_equal(item.streams["visual_2d"], np.concatenate(blocks))
        assert item.streams["wide"].dtype == np.float32
    again = SpoolWriter(store, source, "c")  # the same work by another process: the first stays
    again.commit(video_id="w", split="", duration_s=0, rates_hz={}, captions=captions)
    assert read_spooled(folder).video_id == "v/ü"  # type: ignore[union-attr]
    remove_spooled(folder)
    remove_spooled(folder)
    assert spooled(store) == [] and list((store / "spool").iterdir()) == []


def test_half_written_items_are_not_taken(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, "a" * 64 + ":b", "c")
    writer.append("visual_2d", np.ones((2, 3), np.float16))
    writer.commit(video_id="v", split="", duration_s=1, rates_hz={"visual_2d": 1}, captions=Captions.empty())
    (folder,) = spooled(tmp_path)
    (folder / "0.rows").write_bytes(b"\0")
    assert read_spooled(folder) is None
    for text in ("", "[]", "{}", '{"streams": 1}'):
        (folder / "item.json").write_text(text)
        assert read_spooled(folder) is None
    (folder / "item.json").unlink()
    (folder / "item.json").mkdir()
    with pytest.raises(OSError, match="directory"):  # not its fault: nobody may take it for torn and remove it
        read_spooled(folder)


def test_many_items_are_open_without_a_descriptor_each(tmp_path: Path) -> None:
    import resource

    for number in range(60):
        writer = SpoolWriter(tmp_path, f"{number:040d}:b", "c")
        writer.append("visual_2d", np.full((2, 3), number, np.float16))
        rates_hz = {"visual_2d": 1.0}
        writer.commit(video_id=f"{number}", split="", duration_s=1, rates_hz=rates_hz, captions=Captions.empty())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
    try:
        items = [read_spooled(folder) for folder in spooled(tmp_path)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [int(item.streams["visual_2d"][0, 0]) for item in items if item is not None] == list(range(60))


def test_the_ledger_keeps_the_last_word_on_each_piece_of_work(tmp_path: Path) -> None:
    note(tmp_path, "a.mp4", "cannot be\nopened", "unreadable", "k1")
    note(tmp_path, "b.mp4", "no sound", "no-audio", "k2")
    note(tmp_path, "c.npz", "is short")
    with (tmp_path / "skipped.jsonl").open("a") as file:
        file.write('{"source": "torn')
    note(tmp_path, "a.mp4", "hung", "hung", "k1")
    note(tmp_path, "b.mp4", "is in the store now", RESOLVED, "k2")
    assert read_ledger(tmp_path) == [
        {"source": "c.npz", "reason": "is short"},
        {"source": "a.mp4", "reason": "hung", "class": "hung", "key": "k1"},
    ]
    assert read_ledger(tmp_path / "gone") == []


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    path = tmp_path / "v.mp4"
    path.write_bytes(b"one")
    digest = hashlib.sha256(b"one").hexdigest()
    assert FileHashes(tmp_path).sha256(path) == digest
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *_: 1 / 0)
        assert FileHashes(tmp_path).sha256(path) == digest
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert FileHashes(tmp_path).sha256(path) == hashlib.sha256(b"two").hexdigest()
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # within one tick of the clock
        path.write_bytes(b"six")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` and `tar -x` leave another file
    assert FileHashes(tmp_path).sha256(path) == hashlib.sha256(b"six").hexdigest()
    line = [str(path), before.st_size, before.st_mtime_ns, "of an earlier version"]
    (tmp_path / "hashes.jsonl").write_text(json.dumps(line) + "\n")
    assert FileHashes(tmp_path).sha256(path) == "of an earlier version"
    path.write_bytes(b"two")
    (tmp_path / "hashes.jsonl").write_text("torn\n[1]\n")
    assert FileHashes(tmp_path).sha256(path) == hashlib.sha256(b"two").hexdigest()
    with pytest.raises(FileNotFoundError):
        FileHashes(tmp_path).sha256(tmp_path / "gone")


@given(
    st.integers(1, 9),
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1), unique=True),
)
def test_every_source_is_in_one_shard(count: int, names: list[str]) -> None:
    sources = [Source(name, name, video=Path("folder", name, "video.mp4"), file_name=name) for name in names]
    for source in sources:
        clip = Source("clip", "clip", video=source.video, start_s=5, file_name=source.file_name)
        parts = [k for k in range(1, count + 1) if Shard(k, count).has(source)]
        assert len(parts) == 1 and Shard(parts[0], count).has(clip)


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/2/3", "-1/2"])
def test_wrong_shards(text: str) -> None:
    with pytest.raises(TrichordError, match="it must be the part and the number of parts, such as 2/8"):
        Shard.parse(text)


def described(name: str = "e") -> Described:
    return Described({"visual_2d": Fingerprint(name, "1", {"side": 64}, "ff")}, {"captions": "auto"})


def test_fingerprints_differ_for_all_differences() -> None:
    prints = [
        Fingerprint("e", "1", {"side": 64}, "ff"),
        Fingerprint("e", "2", {"side": 64}, "ff"),
        Fingerprint("e", "1", {"side": 65}, "ff"),
        Fingerprint("e", "1", {"side": 64}, "fe"),
        Fingerprint("f", "1", {"side": 64}, "ff"),
    ]
    assert len({p.digest for p in prints}) == 5 and len({described(n).digest for n in "ef"}) == 2
    assert Fingerprint("e", "1", {"a": 1, "b": 2}).digest == Fingerprint("e", "1", {"b": 2, "a": 1}).digest
    assert json.loads(json.dumps(prints[0].to_dict()))["digest"] == prints[0].digest


def test_the_content_key_covers_all_inputs_of_an_item(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"video")
    hashes = FileHashes(tmp_path / "s")
    a = Source("a", "a", video=tmp_path / "a.mp4")
    contents = [content_of(a, hashes), content_of(Source("x", "x", video=tmp_path / "b.mp4"), hashes)]
    assert contents[0] == contents[1]  # names do not count
    (tmp_path / "a.vtt").write_text("WEBVTT\n")
    contents.append(content_of(a, hashes))
    contents.append(content_of(Source("a", "a", video=tmp_path / "a.mp4", text=("x",)), hashes))
    contents.append(content_of(Source("a", "a", video=tmp_path / "a.mp4", start_s=1.0), hashes))
    contents.append(content_of(Source("a", "a", audio=tmp_path / "b.mp4"), hashes))
    assert len(set(contents)) == 5


def test_the_plan_lists_the_work_and_reasons_for_skipping(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.mp4").write_bytes(bytes([number]))
    (tmp_path / "copy.mp4").write_bytes(bytes([1]))
    files = [Source(p.stem, p.name, video=p) for p in sorted(tmp_path.glob("*.mp4"))]
    sources = [*files, Source("0", "again.mkv", video=tmp_path / "2.mp4"), Source("g", "g", video=tmp_path / "g.mp4")]
    hashes, encoders = FileHashes(tmp_path / "s"), described()
    keys = [f"{content_of(source, hashes)}:{encoders.digest}" for source in files]
    known = Known(tmp_path / "s", "c", sources={keys[0]: "0", keys[2]: "elsewhere"}, ids={"0", "3", "elsewhere", "old"})
    known.rules = {"0": CURRENT_RULES}
    known.recorded = {"0": keys[0], "elsewhere": keys[2], "3": "other:print"}
    known.failed = {keys[4]: {"class": "hung", "source": "4.mp4", "reason": "stuck", "key": keys[4]}}
    names = first_names(sources)

    def plan(described: Described = encoders, **options: object) -> dict[str, Job]:
        planned = jobs(sources, described, known, FileHashes(tmp_path / "s"), names=names, **options)  # type: ignore[arg-type]
        return {job.source.name: job for job in planned}

    got = plan()
    assert {name: job.status for name, job in got.items()} == {
        "0.mp4": "present",
        "1.mp4": "todo",
        "2.mp4": "duplicate",
        "3.mp4": "changed",
        "4.mp4": "failed",
        "5.mp4": "todo",
        "copy.mp4": "duplicate",
        "again.mkv": "name",
        "g": "missing",
    }
    assert got["copy.mp4"].reason == "has the same content as 1.mp4; remove one of them"
    assert "with other content" in got["3.mp4"].reason
    assert plan(retry=frozenset({"hung"}))["4.mp4"].status == "todo"
    other = plan(described("f"))  # another encoder: other work
    assert other["4.mp4"].status == "todo" and other["0.mp4"].status == "changed"
    assert "computed by other encoders or settings" in other["0.mp4"].reason
    for kind, required, status in (
        ("no-audio", ("audio",), "failed"),
        ("no-audio", (), "todo"),
        ("no-captions", ("audio", "text"), "failed"),
        ("no-captions", ("audio",), "todo"),
        ("missing", (), "todo"),
        ("unreadable", (), "failed"),
    ):
        known.failed[keys[4]]["class"] = kind
        assert plan(require=required)["4.mp4"].status == status
    first = jobs(files[1:2], encoders, Known(tmp_path / "s", "c"), hashes, names={"1": "1.avi"})
    assert next(first).status == "name"  # the other file of that name is in another shard


def test_a_dry_run_on_an_empty_store_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v.mp4").write_bytes(b"x")
    monkeypatch.setattr(FileHashes, "sha256", lambda *_: 1 / 0)
    source = Source("v", "v.mp4", video=tmp_path / "v.mp4")
    known = Known(tmp_path / "s", "c")
    planned = jobs([source], described(), known, FileHashes(tmp_path / "s"), names={"v": "v.mp4"}, trust_names=True)
    assert [job.status for job in planned] == ["todo"]


def _kill(number: int) -> None:
    time.sleep(0.5)  # the pool has heard by then who has the task
    os.kill(os.getpid(), number)
    time.sleep(30)


def _exit(code: int) -> None:
    time.sleep(0.5)
    os._exit(code)


def test_a_worker_that_dies_takes_only_its_task_with_it() -> None:
    from pebble import ProcessPool

    with ProcessPool(1, context=FORKSERVER) as pool:
        doomed = [pool.schedule(_kill, args=(n,)) for n in (signal.SIGKILL, signal.SIGSEGV)]
        ended, good = pool.schedule(_exit, args=(1,)), pool.schedule(divmod, args=(7, 2))
        kinds = [outcome_of(future, 5.0).kind for future in (*doomed, ended)]
        assert kinds == ["out-of-memory", "crashed", "hung"] and good.result(timeout=30) == (3, 1)
        assert "SIGSEGV" in outcome_of(doomed[1], 5.0).reason and "for 5 s" in outcome_of(ended, 5.0).reason


def test_progress_reports_rates_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines: list[str] = []
    meter = Meter(num_sources=4, num_bytes=400, every_s=30.0)
    with passing_messages(lines.append):
        meter.passed(100)
        now[0] += 10
        meter.done("a", "60 s", 100, 60.0, failed=False)
        assert lines == []
        meter.done("b", "skipped: why", 100, 0.0, failed=True)
        assert lines == ["3/4 b: skipped: why | 0.2 videos/s, 6 h of video per h, 0:00:05 left"]
        now[0] += 10
        meter.done("c", "60 s", 100, 60.0, failed=False)
        assert lines[1] == "4/4 c: 60 s | 0.15 videos/s, 6 h of video per h"
    assert clock(3725) == "1:02:05"
