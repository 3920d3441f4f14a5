"""Processes of the extractor: threads, hangs, crashes, kills, Ctrl-C, several processes with one store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import forked
from extract_helpers import SMALL, ids_of, ledger, many, quick_processes, run
from process_helpers import FORKSERVER
from trichord.errors import TrichordError
from trichord.extraction import work
from trichord.extraction.choice import EncoderChoice, load
from trichord.extraction.sources import Source
from trichord.extraction.task import Task
from trichord.extraction.work import run_task
from trichord.store import Store
from trichord.store.inspect import verify
from trichord.store.spool import FOLDER, spooled

pytestmark = pytest.mark.usefixtures("encoders_once")


def test_rows_do_not_depend_on_threads(folder: Path, tmp_path: Path) -> None:
    encoders = load(EncoderChoice(visual_2d=SMALL))
    items = []
    for threads in (1, 3):
        task = Task(Source("a", "a", video=folder / "egg/a.mp4"), "train", "0" * 40 + f":{threads}", "c", tmp_path)
        outcome = run_task(task, encoders, threads)
        assert outcome.kind == "" and outcome.decode_s > 0 and outcome.encode_s > 0
    for path in spooled(tmp_path):
        items.append(sorted((p.name, p.read_bytes()) for p in path.glob("*.rows")))
    assert len(items) == 2 and items[0] == items[1]


def stuck(*arguments: object, **options: object) -> Iterator[tuple[int, np.ndarray]]:
    yield 0, np.zeros((64, 96, 3), np.uint8)
    time.sleep(60)


def hang(video: Path, store: Path, errors: Path) -> None:
    """Run in a process: extract a video with a decoder that stops after one picture."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    work.pictures = stuck  # type: ignore[assignment]
    task = Task(Source("a", "a", video=video), "train", "0" * 40 + ":0", "c", store, stall_s=0.5)
    run_task(task, load(EncoderChoice(visual_2d=SMALL)), 1)


def test_a_decoder_that_hangs_ends_its_process(folder: Path, tmp_path: Path) -> None:
    process = FORKSERVER.Process(target=hang, args=(folder / "egg/a.mp4", tmp_path, tmp_path / "errors"))
    process.start()
    process.join(60)
    assert process.exitcode == 1 and (tmp_path / "errors").read_bytes() == b"" and spooled(tmp_path) == []


def test_wrong_weights_end_the_run_without_blaming_a_video(folder: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "wrong.pth")
    with (
        quick_processes(),
        pytest.raises(TrichordError, match=r"wrong\.pth: these are not the weights of efficientnet-lite0"),
    ):
        run(folder, tmp_path / "s", workers=1, weights_2d=tmp_path / "wrong.pth")
    assert ledger(tmp_path / "s") == {}


COMMAND = [sys.executable, "-m", "trichord", "extract"]


@pytest.mark.slow
def test_two_processes_on_one_store_do_no_duplicate_work(tmp_path: Path) -> None:
    videos, store = many(tmp_path / "v", 40), tmp_path / "s"
    command = [*COMMAND, str(videos), "--store", str(store), "--visual_2d", SMALL, "--workers", "1"]
    both = [forked.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    extracted = [sum(" captions, " in line for line in text.splitlines()) for text in said]
    assert sum(extracted) == 40 and min(extracted) > 0
    assert sorted(ids_of(store)) == [f"v{i:02d}" for i in range(40)] and verify(store) == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "start"), [(signal.SIGINT, subprocess.Popen), (signal.SIGTERM, forked.Popen)])
def test_ctrl_c_and_sigterm_stop_soon_and_cleanly(tmp_path: Path, number: signal.Signals, start: Any) -> None:
    """One of the two commands is a new interpreter that spawns its workers, as for a user."""
    videos, store = many(tmp_path / "v", 60), tmp_path / "s"
    command = [*COMMAND, str(videos), "--store", str(store), "--visual_2d", SMALL, "--workers", "2"]
    process = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(number)
    began = time.monotonic()
    out, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number and time.monotonic() - began < 10, out + error
    assert "interrupted; finished items are stored" in out and "Traceback" not in error
    num_stored = len(Store(store))
    assert 5 <= num_stored < 60 and verify(store) == [] and not list((store / FOLDER).iterdir())
    assert set(ledger(store).values()) == {"interrupted"}
    again = run(videos, store)
    assert again.num_present == num_stored and again.num_added == 60 - num_stored and ledger(store) == {}


def test_the_split_of_a_folder_follows_the_names(folder: Path) -> None:
    assert zlib.crc32(b"tea/c") < zlib.crc32(b"egg/a")


@pytest.mark.slow
def test_three_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    videos, store = many(tmp_path / "v", 30), tmp_path / "s"
    command = [*COMMAND, str(videos), "--store", str(store), "--visual_2d", SMALL, "--workers", "2"]
    output_lines: list[str] = []
    for lines_before_kill in (3, 9, 7):
        with forked.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            assert process.stdout is not None
            output_lines += [process.stdout.readline() for _ in range(lines_before_kill)]
            os.killpg(process.pid, signal.SIGKILL)
    done = forked.run(command, capture_output=True, text=True, timeout=120)
    output_lines += done.stdout.splitlines()
    names = [
        line.split(" ")[1] for line in output_lines if " captions, train | " in line or " captions, test | " in line
    ]
    # an item may finish just before a kill, without being printed
    assert len(names) == len(set(names)) and 19 <= len(names) <= 30
    assert done.returncode == 0 and verify(store) == []
    run(videos, tmp_path / "whole")
    whole, parts = Store(tmp_path / "whole"), Store(store)
    order = {parts.video_id(i): i for i in range(len(parts))}
    assert len(parts) == len(order) == 30
    for i in range(30):
        k = order[whole.video_id(i)]
        assert all(np.array_equal(parts.rows(name, k), whole.rows(name, i)) for name in whole.streams)
        assert parts.duration_s(k) == whole.duration_s(i) and parts.split(k) == whole.split(i)
