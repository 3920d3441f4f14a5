"""Frozen passes in parts: several processes, lost processes and interrupted passes give the same values."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frozen_helpers import BLOCK, embeddings_of, encoder, help_out, small_parts, work_on
from process_helpers import FORKSERVER, free_port, join_gloo, start_processes
from tiny import write_tiny_store
from trichord.data import frozen, frozen_parts
from trichord.data.frozen import FrozenRows, frozen_rows
from trichord.data.frozen_parts import FrozenPass, Part, finish, make_parts, parts_done, plan_parts
from trichord.data.listing import Listing, clips_at
from trichord.errors import TrichordError
from trichord.logs import passing_messages
from trichord.modality import Order
from trichord.recipes import load_recipe
from trichord.store import Store
from trichord.store.leases import Leases
from trichord.study import factories
from trichord.training.frozen import FrozenSettings, frozen_inputs
from trichord.training.stage import stages_of


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_tiny_store(tmp_path / "store")


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (frozen_parts, "BLOCK"),
        (frozen_parts, "MOST_PARTS"),
        (frozen, "POLL_S"),
        (frozen, "SAY_EVERY_S"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    small_parts()


def assert_whole(work: FrozenPass) -> None:
    """Compare every clip, and look up drawn clips."""
    rows = FrozenRows.open(work.folder)
    clips = clips_at(work.source, work.listing, 0, work.listing.num_clips)
    assert np.array_equal(rows.values, embeddings_of(clips)) and rows.valid.all()
    drawn = work.source.draw(1, 0)
    assert np.array_equal(rows.read(drawn)[0], embeddings_of(drawn))
    assert {path.name for path in work.folder.parent.iterdir()} == {work.folder.name, "leases"}
    assert not (work.folder / "done").exists()


@given(st.integers(1, 10**7))
def test_parts_are_whole_blocks_and_cover_every_clip_once(num_clips: int) -> None:
    listing = Listing(np.array([0, num_clips]), np.empty(0, np.int64), np.empty(0, np.int64))
    work = FrozenPass(Path(__file__).parent / "x", None, listing, "video", "embedding", 1, {})  # type: ignore[arg-type]
    step = frozen_parts.BLOCK * -(-num_clips // (frozen_parts.BLOCK * frozen_parts.MOST_PARTS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen_parts, "_read", lambda path: {
            "num_clips": num_clips, "width": 1, "part_clips": step, "block": frozen_parts.BLOCK
        })  # fmt: skip
        parts = plan_parts(work, None)  # type: ignore[arg-type]
    assert parts is not None and 0 < len(parts) <= frozen_parts.MOST_PARTS
    assert [part.number for part in parts] == list(range(len(parts)))
    assert parts[0].begin == 0 and parts[-1].end == num_clips
    assert all(a.end == b.begin for a, b in zip(parts, parts[1:], strict=False))
    assert all(part.begin % frozen_parts.BLOCK == 0 and part.end > part.begin for part in parts)


@pytest.mark.usefixtures("_small")
def test_an_interrupted_pass_continues_with_its_unfinished_part(store: Path, tmp_path: Path) -> None:
    work, log = work_on(store), tmp_path / "log"
    count = 0

    def stop() -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt

    work.folder.parent.mkdir()
    with Leases(work.folder.parent) as leases:
        parts = plan_parts(work, leases)
        assert parts is not None
        with pytest.raises(KeyboardInterrupt):
            make_parts(work, parts, encoder(log), leases, stop)
        assert parts_done(work) == {0, 1, 2} and not finish(work, parts, leases) and not work.folder.exists()
        assert not make_parts(work, parts[1:2], encoder(log), leases), "it is whole"
        assert make_parts(work, parts[4:5], encoder(log), leases) == 1 and parts_done(work) == {0, 1, 2, 4}
    frozen_rows(work, encoder(log))
    assert_whole(work)
    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines)) == -(-work.listing.num_clips // BLOCK), "no block is encoded twice"


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("num_processes", [1, 2, 4, 5, 7])
def test_each_process_of_a_launch_begins_with_its_own_share(
    num_processes: int, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fast process that reads ahead does not take the first part of a slow one."""
    work, begun = work_on(store), []
    work.folder.parent.mkdir()

    def first(work: FrozenPass, parts: list[Part], *others: Any) -> int:
        begun.extend(part.number for part in parts)
        raise KeyboardInterrupt

    monkeypatch.setattr(frozen, "make_parts", first)
    for process in range(num_processes):
        with pytest.raises(KeyboardInterrupt):
            frozen_rows(work, encoder(), process=process, num_processes=num_processes)
    assert begun == list(range(6))


@pytest.mark.usefixtures("_small")
def test_a_late_process_does_not_repeat_finished_parts(store: Path) -> None:
    work = work_on(store)
    work.folder.parent.mkdir()
    with Leases(work.folder.parent) as leases:
        parts = plan_parts(work, leases)
        assert parts is not None
    frozen_rows(work, encoder())
    with Leases(work.folder.parent) as leases:
        assert plan_parts(work, leases) == parts
        assert make_parts(work, parts, encoder(die_at=0), leases) == 0 and finish(work, parts, leases)
    assert_whole(work)


@pytest.mark.usefixtures("_small")
def test_remains_of_earlier_versions_and_deletions_are_replaced(store: Path) -> None:
    work = work_on(store)
    work.partial.mkdir(parents=True)
    (work.partial / "progress.json").write_text('{"clips": 40}')
    (work.partial / "values.npy").write_bytes(b"half")
    work.folder.mkdir()
    (work.folder / "values.npy").write_bytes(b"no index")
    frozen_rows(work, encoder())
    assert_whole(work)


def test_a_full_disk_is_reported_and_the_pass_can_continue(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = work_on(store)
    with monkeypatch.context() as patch:
        patch.setattr(frozen_parts._Rows, "sync", _full)
        with pytest.raises(
            TrichordError,
            match="cannot be written .*No space left on device.*free disk space or grant write permission",
        ):
            frozen_rows(work, encoder())
    frozen_rows(work, encoder())
    assert_whole(work)


def _full(self: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.usefixtures("_small")
def test_a_lost_process_loses_only_its_unfinished_part(store: Path, tmp_path: Path) -> None:
    """Of two independent processes, one is killed in its second part, and the other computes that part as well."""
    log = tmp_path / "log"
    start = FORKSERVER.Barrier(2)
    lost = FORKSERVER.Process(target=help_out, args=(store, log, "lost", 0.02, 6, 1, start))
    other = FORKSERVER.Process(target=help_out, args=(store, log, "other", 0.05, -1, 0, start))
    lost.start(), other.start()
    lost.join(), other.join()
    assert lost.exitcode == -9 and other.exitcode == 0
    work = work_on(store)
    assert_whole(work)
    blocks = [tuple(line.split()) for line in log.read_text().splitlines()]
    by_lost, by_other = ({line[1:] for line in blocks if line[0] == word} for word in ("lost", "other"))
    assert len(by_lost) == 6 and len(by_lost | by_other) == 24
    assert len(by_lost & by_other) == 2, "the two blocks of the part that it was at"
    assert len(blocks) == 26


@pytest.mark.usefixtures("_small")
def test_a_pass_continues_with_another_number_of_processes(store: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    start = FORKSERVER.Barrier(2)
    lost = [FORKSERVER.Process(target=help_out, args=(store, log, f"{n}", 0.05, 5, n, start)) for n in range(2)]
    for process in lost:
        process.start()
    for process in lost:
        process.join()
        assert process.exitcode == -9
    work = work_on(store)
    assert parts_done(work) == {0, 3} and not work.finished
    messages: list[str] = []
    with passing_messages(messages.append):
        frozen_rows(work, encoder(log, word="last"))
    assert_whole(work)
    assert sum(line.startswith("last") for line in log.read_text().splitlines()) == 16
    assert messages[-1] == f"frozen video: 96 clips, 0 MB in {work.folder}"  # lines of progress may precede it


@pytest.mark.usefixtures("_small")
def test_a_waiting_process_takes_over_from_a_lost_one(store: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    slow = FORKSERVER.Process(target=help_out, args=(store, log, "slow", 1.0, 1))
    slow.start()
    while not log.exists():
        slow.join(0.02)
    messages: list[str] = []
    with passing_messages(messages.append):
        frozen_rows(work := work_on(store), encoder(log))
    slow.join()
    assert slow.exitcode == -9
    assert any("80 of 96 clips; waiting for other processes that compute the rest" in line for line in messages)
    assert_whole(work)


def frozen_in_launch(rank: int, world: int, port: int, store: str, block: int, out: str) -> None:
    join_gloo(rank, world, port)
    frozen_parts.BLOCK = block
    modalities, messages = _frozen_of(store)
    (Path(out) / f"{rank}.json").write_text(json.dumps(messages))
    assert modalities == ["audio", "video"]


def _frozen_of(store: str) -> tuple[list[str], list[str]]:
    """Return what stage 2 of AV→T freezes, computed with the processes of this launch."""
    from accelerate import Accelerator

    recipe = load_recipe("debug", training={"tensorboard": False, "device": "cpu"})
    stage = stages_of(Order.parse("av>t"))[1]
    source, reader = factories.build_batches(recipe, Store(store), stage, 0)
    messages: list[str] = []
    settings = FrozenSettings(True, 10**12, 10**9, "no")
    model = factories.build_model(recipe, source.store, 0)
    with passing_messages(messages.append):
        rows_by_modality = frozen_inputs(model, stage, source, reader, settings, Accelerator(cpu=True))
    return sorted(rows_by_modality), messages


@pytest.mark.slow
@pytest.mark.parametrize(("world", "block"), [(2, 7), (3, 64)])
def test_a_launch_is_bit_equal_to_one_process(
    world: int, block: int, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 7 give parts of unequal size; blocks of 64 give fewer parts than processes."""
    monkeypatch.setattr(frozen_parts, "BLOCK", block)
    alone = write_tiny_store(tmp_path / "alone")
    _frozen_of(str(alone))
    start_processes(world, frozen_in_launch, world, free_port(), str(store), block, str(tmp_path))
    folders = sorted(path for path in (alone / "frozen").iterdir() if path.is_dir())
    assert len(folders) == 2
    for folder in folders:
        for name in ("values", "valid", "row", "begin"):
            one, several = (root / "frozen" / folder.name / f"{name}.npy" for root in (alone, store))
            assert one.read_bytes() == several.read_bytes()
    messages = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world)]
    assert not any(messages[1:]), "the main process alone says something, unless it comes late"
    assert {line.split(" clips")[0] for line in messages[0]} <= {"frozen audio: 96", "frozen video: 96"}
