"""The simulator of many workers compared with closed forms: it loses no work and gains no time."""

from __future__ import annotations

import sys
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from scaling_model import (
    MOST_AT_ONCE,
    SHARD_BYTES,
    Evaluation,
    Extraction,
    Frozen,
    Network,
    Run,
    Training,
    crossing,
    evaluate,
    extract,
    extract_on_ray,
    frozen_pass,
    train_step,
)

FREE = Extraction()
TIMES = st.lists(st.floats(0.1, 9.0), min_size=1, max_size=120)
WORKERS = st.integers(1, 40)


@pytest.mark.parametrize("engine", [extract, extract_on_ray])
@pytest.mark.parametrize("workers", [1, 2, 8, 64])
def test_work_alone_scales_perfectly(engine, workers: int) -> None:  # type: ignore[no-untyped-def]
    videos = [2.0] * (64 * 63)  # waves of 64 and 4 W, doubled, are whole multiples of W
    one, many = engine(FREE, videos, 1), engine(FREE, videos, workers)
    assert one.seconds == pytest.approx(sum(videos)) and many.efficiency(one) == pytest.approx(1.0, rel=1e-9)
    blocks = [3.0] * 128
    alone, shared = frozen_pass(Frozen(), blocks, 1), frozen_pass(Frozen(), blocks, workers)
    assert shared.efficiency(alone) == pytest.approx(1.0, rel=1e-9)
    step = Training(clip_s=0.1)
    assert train_step(step, workers, 4096).efficiency(train_step(step, 1, 4096)) == pytest.approx(1.0)


@settings(deadline=None, max_examples=40)
@given(TIMES, WORKERS, st.floats(0.0, 0.5), st.floats(1.0, SHARD_BYTES / 3))
def test_every_item_is_committed_once_in_order_and_no_bound_is_beaten(
    videos: list[float], workers: int, own_s: float, item_bytes: float
) -> None:
    times = Extraction(1.0, 2.0, own_s, own_s, 0.0, own_s, own_s, own_s, 0.01, 0.01, item_bytes=item_bytes)
    for engine in (extract, extract_on_ray):
        run = engine(times, videos, workers)
        assert list(run.order) == list(range(len(videos)))
        driver_s = run.parts["leases"] + run.parts["outcomes"] + run.parts["commits"]
        assert run.seconds >= max(sum(videos) / workers, max(videos) + 3.0, driver_s, run.parts["hashing"]) - 1e-9
        assert run.seconds <= 1.0 + len(videos) * 3.0 + sum(videos) + 2 * driver_s + 2 * run.parts["hashing"] + 1e-9
        assert engine(times, videos, 1).seconds >= run.seconds / 1.000001 or engine is extract_on_ray
    blocks = frozen_pass(Frozen(lease_s=0.01), videos, workers)
    assert sorted(blocks.order) == list(range(len(videos)))
    assert blocks.seconds >= max(sum(videos) / workers, max(videos))


def test_greedy_workers_are_those_of_a_slow_loop() -> None:
    videos = np.random.default_rng(0).uniform(0.5, 9, 300).tolist()
    for workers in (1, 3, 7, 50):
        ends = [0.0] * workers
        for seconds in videos:
            first = ends.index(min(ends))
            ends[first] += seconds
        assert extract(FREE, videos, workers).seconds == pytest.approx(max(ends), rel=1e-12)


def test_one_driver_bounds_any_number_of_workers() -> None:
    videos = [1.0] * 2000
    run = extract(Extraction(outcome_s=0.05, lease_s=0.05), videos, 1000)
    assert run.seconds == pytest.approx(2000 * 0.1, rel=0.02)
    hashed = extract(Extraction(hash_s=0.2), videos, 1000)
    assert hashed.seconds == pytest.approx(2000 * 0.2 / 2, rel=0.02)
    slow = extract(Extraction(file_bytes=1e9 / 3, item_bytes=0.0), videos, 1000, Network(files_gb_s=10.0))
    assert slow.seconds == pytest.approx(2000 * 0.1, rel=0.02)


def test_commits_that_read_the_store_again_grow_with_its_square() -> None:
    times = Extraction(reopen_item_s=1e-3, item_bytes=SHARD_BYTES / 10)
    one, two = (extract(times, [0.0] * n, 1).parts["commits"] for n in (1000, 2000))
    assert one == pytest.approx(1e-3 * sum(range(0, 1000, 10)))
    assert two == pytest.approx(1e-3 * sum(range(0, 2000, 10)))
    many = extract(Extraction(commit_s=1.0), [0.0] * (3 * MOST_AT_ONCE + 1), 1)
    assert many.parts["commits"] == pytest.approx(4.0)


def test_waves_pay_a_start_each_and_wait_for_their_slowest() -> None:
    videos = [1.0] * (64 + 128)
    run = extract_on_ray(Extraction(start_s=5.0), videos, 16)
    assert run.seconds == pytest.approx(2 * 5.0 + 192 / 16)
    slow = [1.0] * 192
    slow[63] = 11.0  # the last of the first wave
    assert extract_on_ray(FREE, slow, 16).seconds == pytest.approx(3 + 11 + 8)
    assert extract(FREE, slow, 16).seconds == pytest.approx(3 + 11, abs=1.0)


@given(WORKERS, st.floats(0.001, 1.0), st.floats(0.0, 10.0))
def test_training_and_evaluation_keep_amdahls_law(workers: int, clip_s: float, serial_s: float) -> None:
    batch = 64 * workers
    run, one = (train_step(Training(clip_s, step_s=serial_s), w, batch) for w in (workers, 1))
    share = serial_s / (serial_s + batch * clip_s)
    assert run.efficiency(one) == pytest.approx(1 / (workers * share + 1 - share))
    times = Evaluation(clip_s, pair_s=serial_s / batch**2)
    assert evaluate(times, batch, workers).efficiency(evaluate(times, batch, 1)) == pytest.approx(
        1 / (workers * share + 1 - share)
    )


def test_uneven_parts_slow_processes_and_rings() -> None:
    assert train_step(Training(1.0), 1000, 4096).seconds == pytest.approx(ceil(4096 / 1000))
    jitter = (0.5, 1.5)
    assert train_step(Training(1.0, jitter=jitter), 64, 64).seconds == pytest.approx(1.5, abs=1e-6)
    network = Network(node_gb_s=2.0, latency_s=1e-3)
    assert network.all_reduce_s(4e9, 4) == pytest.approx(2 * 3 * (1e-3 + 1e9 / 2e9))
    assert network.all_gather_s(4e9, 4) == pytest.approx(3 * (1e-3 + 1e9 / 2e9))
    step = Training(0.0, gradient_bytes=4e9, buckets=3)
    assert train_step(step, 4, 4, network).seconds == pytest.approx(
        3.006 + 2 * 0.006 + 0.009
    )  # two more buckets, a gather and its sum
    assert train_step(step, 1, 4, network).seconds == 0.0


def test_a_finished_process_takes_parts_of_others() -> None:
    blocks = [1.0] * 8 + [10.0] * 8  # the second process's share is ten times the work
    run = frozen_pass(Frozen(), blocks, 2)
    assert run.seconds == pytest.approx(44.0, abs=10)
    assert frozen_pass(Frozen(poll_s=1.0, finish_s=0.5), [1.0], 2).seconds == pytest.approx(2.5)
    many = frozen_pass(Frozen(), [1.0] * (MOST_AT_ONCE * 2), 4096)
    assert many.seconds == pytest.approx(2.0)  # two blocks a part


def test_where_efficiency_crosses_a_level() -> None:
    runs = [Run(1, 16.0), Run(4, 4.0), Run(16, 2.0)]  # 1, 1, 0.5
    assert crossing(runs, 0.75) == pytest.approx(8.0)
    assert crossing(runs, 0.4) is None
