"""Several processes compute what one does: terms, gradients, statistics, queue and centroids, however the rows are split."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from split_training import Case, Found, largest_difference, run_processes, train, train_all

F32 = torch.float32
TWO = {
    "avt": Case(),
    "avt, plain paths": Case(fast=False),
    "avt, no padding": Case(padded=False),
    "avt, float32": Case(dtype=F32),
    "avt, a part of one row": Case(sizes=(1, 6)),
    "avt, a part of none": Case(sizes=(7, 0)),
    "avt, the first part of none": Case(sizes=(0, 7), fast=False),
    "avt, targets with gradient": Case(detach=False),
    "avt, fused clusters": Case(cluster_on="fused", sizes=(2, 5)),
    "avt, several positives": Case(contrast="mil_nce", sizes=(5, 2)),
    "av>t": Case("av>t"),
    "vt>a": Case("vt>a", sizes=(6, 1)),
    "vt>a, several positives, float32": Case("vt>a", contrast="mil_nce", dtype=F32),
    "av>t, chunks": Case("av>t", chunk=2),
    "at>v, chunks, a part of none": Case("at>v", chunk=2, sizes=(0, 7)),
}
FOUR = {
    "avt": Case(),
    "avt, float32": Case(dtype=F32),
    "avt, parts of none": Case(sizes=(3, 0, 0, 4)),
    "avt, all in one": Case(sizes=(0, 0, 7, 0)),
    "vt>a, parts of one": Case("vt>a", sizes=(1, 1, 1, 4)),
    "av>t, several positives": Case("av>t", contrast="mil_nce", sizes=(1, 4, 2, 0)),
}


def tolerance(case: Case) -> float:
    return 1e-5 if case.dtype == F32 else 1e-12


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Found]]:
    found = run_processes(2, train_all, tmp_path_factory.mktemp("two"), 2, list(TWO.values()))
    return {name: [rank[index] for rank in found] for index, name in enumerate(TWO)}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Found]]:
    found = run_processes(4, train_all, tmp_path_factory.mktemp("four"), 4, list(FOUR.values()))
    return {name: [rank[index] for rank in found] for index, name in enumerate(FOUR)}


def check(case: Case, ranks: list[Found]) -> None:
    """The one-process run with chunks is that of the whole batch where nothing but the chunks' size depends on them."""
    whole = train(Case(**{**vars(case), "chunk": 0}))
    assert any(name.startswith("gradient") for name in whole.tensors)
    for found in ranks:
        difference, where = largest_difference(found, whole)
        assert difference < tolerance(case), where
        assert found.terms == ranks[0].terms  # every process knows the loss of the whole batch
        for name, tensor in ranks[0].memory.items():
            assert torch.equal(found.memory[name], tensor), name
    assert int(whole.memory["counters"][2]) > 0  # k-means has fitted
    assert torch.allclose(ranks[0].memory["centroids"], whole.memory["centroids"], atol=1e-5)


@pytest.mark.parametrize("name", TWO)
def test_two_processes_are_one(name: str, two: dict[str, list[Found]]) -> None:
    check(TWO[name], two[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUR)
def test_four_processes_are_one(name: str, four: dict[str, list[Found]]) -> None:
    check(FOUR[name], four[name])
