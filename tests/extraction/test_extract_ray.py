"""Extraction on a Ray cluster gives the store of a local run bit for bit, whatever happens to workers and nodes."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import forked
from extract_helpers import SMALL, ids_of, ledger, load_once, many, odd_folder, run
from ray_cluster import TwoNodes, two_nodes
from trichord.cluster import RayOptions
from trichord.errors import TrichordError
from trichord.extraction import driver, extract, pool, ray_engine
from trichord.extraction.choice import EncoderChoice, describe
from trichord.extraction.ray_engine import MOST_ATTEMPTS, Extractor, RayEngine, attempts
from trichord.extraction.sources import Source
from trichord.extraction.task import Outcome, Task
from trichord.store import Store
from trichord.store.inspect import verify
from trichord.store.spool import FOLDER, begun, spool_name, spooled

CHOICE = EncoderChoice(visual_2d=SMALL, decoder="pyav")


@pytest.fixture(autouse=True)
def one_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "load", load_once)


def contents(store: Path) -> dict[str, object]:
    """Return everything in a store; the lines of files that are appended to are sorted."""
    files: dict[str, object] = {}
    for path in sorted(p for p in store.rglob("*") if p.is_file()):
        lines = path.suffix == ".jsonl"
        files[str(path.relative_to(store))] = sorted(path.read_text().splitlines()) if lines else path.read_bytes()
    return files


def command(videos: Path, store: Path, address: str, *more: str) -> list[str]:
    options = ["--store", str(store), "--visual_2d", SMALL, "--engine", "ray", "--ray_address", address]
    return [sys.executable, "-m", "trichord", "extract", str(videos), *options, *more]


# ---- without a cluster


def test_options_without_effect_and_a_missing_ray_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = many(tmp_path / "v", 1)
    for options, text in (
        ({"ray_address": "auto"}, "--ray_address auto has no effect without --engine ray"),
        ({"worker_gpus": 0.5}, "--worker_gpus 0.5 has no effect without --engine ray"),
        (
            {"engine": "ray", "workers": 0},
            "workers is 0, which works in this process; with --engine ray it must be at least 1",
        ),
        (
            {"engine": "ray", "worker_cpus": 0, "workers": None},
            "a worker cannot have 0 cores and 0 GPUs; give at least 1 core",
        ),
    ):
        with pytest.raises(TrichordError, match=text):
            run(videos, tmp_path / "s", **options)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TrichordError, match=r"--engine ray needs Ray \(.*\); run: pip install 'trichord\[ray\]'"):
        run(videos, tmp_path / "s", engine="ray", workers=1)
    assert not (tmp_path / "s").exists()


def task(store: Path, number: int = 0) -> Task:
    return Task(Source(f"v{number}", f"v{number}.mp4"), "train", f"{number:040d}:0", "c", store)


def test_a_node_that_cannot_work_is_reported(tmp_path: Path) -> None:
    row, cwd = {"task": pickle.dumps(task(tmp_path))}, str(tmp_path)
    digest = describe(CHOICE).digest
    actor = Extractor(cwd, CHOICE, "cpu", 1, digest, tmp_path, 30.0)
    assert actor(row)["failure"].endswith(
        f"does not see {tmp_path}; put store and videos on a file system that all nodes share"
    )
    (tmp_path / FOLDER).mkdir()
    actor = Extractor(cwd, CHOICE, "cpu", 1, "0" * 16, tmp_path, 30.0)
    assert "has other encoders than the driver; install the same release and weights" in actor(row)["failure"]


def test_a_task_that_ends_every_worker_is_given_up(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    for folder in attempts(task(tmp_path)):  # left behind by lost workers
        folder.mkdir()
    actor = Extractor(str(tmp_path), CHOICE, "cpu", 1, describe(CHOICE).digest, tmp_path, 30.0)
    done = actor({"task": pickle.dumps(task(tmp_path))})
    outcome = pickle.loads(done["outcome"])
    assert (done["failure"], outcome.kind) == ("", "system") and f"was lost {MOST_ATTEMPTS} times" in outcome.reason
    assert [name for _, name in begun(tmp_path)] == [spool_name(task(tmp_path).key, "c")] * MOST_ATTEMPTS


@pytest.mark.slow
def test_a_file_that_hangs_its_decoder_costs_a_process_and_not_the_actor(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    video = many(tmp_path / "v", 1) / "v00.mp4"
    actor = Extractor(str(tmp_path), CHOICE, "cpu", 1, describe(CHOICE).digest, tmp_path, 1e-4)
    try:
        for stall_s, kind in ((1e-4, "hung"), (30.0, "")):
            source = Source("v00", "v00.mp4", video=video)
            row = actor({"task": pickle.dumps(replace(task(tmp_path), source=source, stall_s=stall_s))})
            outcome = pickle.loads(row["outcome"])
            assert (row["failure"], outcome.kind) == ("", kind), outcome
        assert [path.name for path in spooled(tmp_path)] == [spool_name(task(tmp_path).key, "c")]
    finally:
        actor._workers.close(now=True)


class Reversed:
    """A substitute for the cluster that returns rows in reverse order, except for those in `lost`."""

    def __init__(self, lost: frozenset[str] = frozenset()) -> None:
        self.waves: list[int] = []
        self.lost = lost

    def room(self) -> int:
        return 2

    def mapped(self, actor: type, arguments: object, rows: list[dict[str, bytes]], count: int) -> Iterator[object]:
        self.waves.append(len(rows))
        for row in reversed(rows):
            if (key := pickle.loads(row["task"]).key) not in self.lost:
                yield {"key": key, "failure": "", "outcome": pickle.dumps(Outcome())}


def on(cluster: Reversed, store: Path, monkeypatch: pytest.MonkeyPatch) -> RayEngine:
    monkeypatch.setattr(ray_engine, "Cluster", lambda options, device: cluster)
    return RayEngine(RayOptions(), CHOICE, "cpu", store, workers=None, most=9, stall_s=30.0)


def test_waves_take_every_task_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "MOST_WAVE", 200)
    monkeypatch.setattr(ray_engine, "FIRST_WAVE", 60)
    engine = on(cluster := Reversed(), tmp_path, monkeypatch)
    keys = [key for key, _ in engine.outcomes(task(tmp_path, i) for i in range(700))]
    assert sorted(keys) == [f"{i:040d}:0" for i in range(700)] and cluster.waves == [60, 120, 200, 200, 120]
    assert list(on(Reversed(), tmp_path, monkeypatch).outcomes(iter(()))) == []
    lost = on(Reversed(frozenset({f"{3:040d}:0"})), tmp_path, monkeypatch)
    with pytest.raises(TrichordError, match="the Ray cluster lost 1 tasks; run the same command again"):
        list(lost.outcomes(task(tmp_path, i) for i in range(9)))


def test_parts_follow_the_plan_in_any_order_of_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos, local = many(tmp_path / "v", 5), extract.LocalEngine
    monkeypatch.setattr(driver, "SHARD_BYTES", 30_000)  # the size of two videos
    run(videos, tmp_path / "a")

    class Backwards(local):  # type: ignore[misc, valid-type]
        """Returns the outcomes in reverse order."""

        def outcomes(self, tasks: Iterator[Task]) -> Iterator[tuple[str, Outcome]]:
            yield from reversed(list(super().outcomes(tasks)))

    monkeypatch.setattr(extract, "LocalEngine", Backwards)
    run(videos, tmp_path / "b")
    assert len(list((tmp_path / "a" / "parts").glob("*.parquet"))) == 3
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


# ---- on a cluster


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many(odd_folder(tmp_path_factory.mktemp("videos")), 24)


@pytest.fixture(scope="module")
def expected(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The store that a local run creates, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "load", load_once)
        store = tmp_path_factory.mktemp("local") / "s"
        run(videos, store)
    return contents(store)


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    with two_nodes() as started:
        yield started


@pytest.mark.slow
def test_two_nodes_give_the_store_of_one_machine(
    videos: Path, expected: dict[str, object], cluster: TwoNodes, tmp_path: Path
) -> None:
    done = forked.run(command(videos, tmp_path / "s", cluster.address), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and "rror" not in done.stderr and "arning" not in done.stderr, done
    assert contents(tmp_path / "s") == expected and verify(tmp_path / "s") == []
    assert "29 videos" in done.stdout and "reasons for skipping (1 captions, 1 unreadable)" in done.stdout
    again = forked.run(command(videos, tmp_path / "s", cluster.address), capture_output=True, text=True, timeout=99)
    assert "29 already existed, 2 were skipped" in again.stdout and contents(tmp_path / "s") == expected
    dry = [*command(videos, tmp_path / "t", cluster.address), "--dry-run"]
    said = forked.run(dry, capture_output=True, text=True, timeout=99).stdout
    assert (
        "31 of 31 items to extract into " in said and "with 2 workers on cpu" in said and not (tmp_path / "t").exists()
    )


@pytest.mark.slow
def test_ctrl_c_keeps_finished_items(videos: Path, cluster: TwoNodes, tmp_path: Path) -> None:
    store = tmp_path / "s"
    process = forked.Popen(
        command(videos, store, cluster.address), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(8):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - began < 20, out + error
    assert "interrupted; finished items are stored" in out and "Traceback" not in error, error
    num_stored = len(Store(store))
    assert 5 <= num_stored < 29 and verify(store) == [] and not list((store / FOLDER).iterdir())
    reasons = set(ledger(store).values())  # unfinished items, if any, are listed as interrupted
    assert {"captions", "unreadable"} <= reasons <= {"interrupted", "captions", "unreadable"}
    again = run(videos, store)
    assert (again.num_added, again.num_present) == (29 - num_stored, num_stored) and len(set(ids_of(store))) == 29
    assert set(ledger(store).values()) == {"captions", "unreadable"} and verify(store) == []


@pytest.mark.slow
def test_a_lost_worker_and_a_lost_node_lose_nothing(
    videos: Path, expected: dict[str, object], cluster: TwoNodes, tmp_path: Path
) -> None:
    """The last test of the cluster, which has one node afterwards."""
    store = tmp_path / "s"
    process = forked.Popen(
        command(videos, store, cluster.address), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process:
        output_lines = [process.stdout.readline() for _ in range(4)]
        assert cluster.do("kill").startswith("killed ")
        output_lines += [process.stdout.readline() for _ in range(4)]
        assert cluster.do("remove") == "removed"
        output_lines += process.communicate(timeout=240)[0].splitlines()
    assert process.returncode == 0, output_lines
    names = [line.split(" ")[1] for line in output_lines if " | " in line]
    assert len(names) == len(set(names)) == 31  # each is printed once
    assert contents(store) == expected and not list((store / FOLDER).iterdir())
