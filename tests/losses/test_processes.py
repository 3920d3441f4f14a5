"""Several processes compute the same as one: terms, gradients, statistics, queue and centroids, for any split of rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from split_training import (
    Case,
    Results,
    difference_of,
    difference_of_terms,
    largest_difference,
    run_processes,
    train,
    train_all,
)
from trichord.losses.registry import pairwise_losses

F32 = torch.float32
TWO = {
    "avt": Case(),
    "avt, plain paths": Case(fast=False),
    "at>v, info_nce, whole": Case("at>v", contrast="info_nce", fast=False),
    "avt, no padding": Case(padded=False),
    "avt, float32": Case(dtype=F32),
    "avt, a part of one row": Case(sizes=(1, 6)),
    "avt, a part of none": Case(sizes=(7, 0)),
    "avt, the first part of none": Case(sizes=(0, 7), fast=False),
    "avt, targets with gradient": Case(detach=False),
    "avt, fused clusters": Case(cluster_on="fused", sizes=(2, 5)),
    "av>t": Case("av>t"),
    "vt>a": Case("vt>a", sizes=(6, 1)),
    "vt>a, several positives, float32": Case("vt>a", contrast="mil_nce", dtype=F32),
    "av>t, chunks": Case("av>t", chunk=2),
    "at>v, chunks, a part of none": Case("at>v", chunk=2, sizes=(0, 7)),
    "avt, learned temperatures": Case(contrast="info_nce", learned=True, sizes=(5, 2)),
    "av>t, learned temperatures, chunks": Case("av>t", contrast="info_nce", chunk=2, learned=True),
    "vt>a, learned temperatures, several positives": Case("vt>a", contrast="mil_nce", learned=True, sizes=(3, 4)),
    "feature arrays, frozen three": Case("avt>d", sizes=(5, 2)),
    "feature arrays, chunks, a part of none": Case("avt>d", chunk=2, sizes=(0, 7)),
}
for loss in pairwise_losses():  # without batch norm, whose communication takes most of the time
    TWO[f"av>t, {loss}, a part of none"] = Case("av>t", contrast=loss, sizes=(7, 0))
    TWO[f"av>t, {loss}"] = Case("av>t", contrast=loss, sizes=(5, 2))
    TWO[f"at>v, {loss}, chunks"] = Case("at>v", contrast=loss, chunk=2)
OTHER = {
    "bfloat16": Case(dtype=F32, bfloat16=True, sizes=(3, 4)),
    "process": Case("vt>a", norm="process", sizes=(4, 3), clusters=False),
    "chunks": Case("vt>a", chunk=2, sizes=(4, 3), clusters=False),
}
FOUR = {
    "avt": Case(),
    "avt, float32": Case(dtype=F32),
    "avt, parts of none": Case(sizes=(3, 0, 0, 4)),
    "avt, all in one": Case(sizes=(0, 0, 7, 0)),
    "vt>a, parts of one": Case("vt>a", sizes=(1, 1, 1, 4)),
    "av>t, several positives": Case("av>t", contrast="mil_nce", sizes=(1, 4, 2, 0)),
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Results]]:
    cases = {**TWO, **OTHER}
    results_by_rank = run_processes(2, train_all, tmp_path_factory.mktemp("two"), 2, list(cases.values()))
    return {name: [rank[index] for rank in results_by_rank] for index, name in enumerate(cases)}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Results]]:
    results_by_rank = run_processes(4, train_all, tmp_path_factory.mktemp("four"), 4, list(FOUR.values()))
    return {name: [rank[index] for rank in results_by_rank] for index, name in enumerate(FOUR)}


def check(case: Case, ranks: list[Results], whole: Results) -> None:
    limit = 1e-5 if case.dtype == F32 else 1e-12
    for results in ranks:
        assert difference_of_terms(results, whole) < limit
        assert difference_of(results, whole, "gradient") < limit
        assert difference_of(results, whole, "") < limit
        difference, name = largest_difference(results, whole)
        # float32 rounding differs between processors, most for gradients that are small differences of large numbers
        assert difference < (30 if case.dtype == F32 else 5) * limit, name
        assert results.terms == ranks[0].terms  # every process knows the loss of the whole batch
        for name, tensor in ranks[0].memory.items():
            assert torch.equal(results.memory[name], tensor), name
    assert int(whole.memory["counters"][2]) > 0  # k-means has been fitted
    assert torch.allclose(ranks[0].memory["centroids"], whole.memory["centroids"], atol=1e-5)


@pytest.mark.parametrize("name", TWO)
def test_two_processes_are_one(name: str, two: dict[str, list[Results]]) -> None:
    check(TWO[name], two[name], train(replace(TWO[name], chunk=0)))


def test_in_bfloat16_they_are_one_to_its_rounding(two: dict[str, list[Results]]) -> None:
    whole = train(OTHER["bfloat16"])
    exact = train(replace(OTHER["bfloat16"], bfloat16=False))
    rounding = difference_of(whole, exact, "gradient")
    assert rounding > 1e-4  # bfloat16 was in use
    for results in two["bfloat16"]:
        assert difference_of(results, whole, "gradient") < rounding
        assert difference_of_terms(results, whole) < 1e-2


def test_batch_norm_by_process_sees_the_rows_of_its_process(two: dict[str, list[Results]]) -> None:
    """One process that encodes the two parts as chunks has the same statistics; the running ones are those of rank 0."""
    whole = train(replace(OTHER["process"], norm="global", chunk=4))
    for results in two["process"]:
        assert difference_of_terms(results, whole) < 1e-12
        assert difference_of(results, whole, "gradient") < 1e-12


def test_batch_norm_over_processes_sees_the_chunks_that_come_together(two: dict[str, list[Results]]) -> None:
    whole = train(replace(OTHER["chunks"], chunk=4, rows=(0, 1, 4, 5, 2, 3, 6)))
    for results in two["chunks"]:
        assert difference_of_terms(results, whole) < 1e-12
        assert difference_of(results, whole, "gradient") < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUR)
def test_four_processes_are_one(name: str, four: dict[str, list[Results]]) -> None:
    check(FOUR[name], four[name], train(FOUR[name]))
