"""The examples in the docstrings of `trichord.evaluation` and of `Embedder` run and give the results that they show."""

from __future__ import annotations

import doctest
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

import pytest

import trichord.evaluation
from trichord.evaluation import ranks

MODULES = [import_module(f"trichord.evaluation.{m.name}") for m in iter_modules(trichord.evaluation.__path__)]
WITH_EXAMPLES = [m for m in MODULES if any(test.examples for test in doctest.DocTestFinder().find(m))]


@pytest.mark.parametrize("module", WITH_EXAMPLES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_examples_give_the_results_that_they_show(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


def test_the_public_functions_of_evaluation_have_an_example() -> None:
    documented = {test.name.rpartition(".")[2] for test in doctest.DocTestFinder().find(ranks) if test.examples}
    assert {"retrieval_metrics", "retrieval_ranks"} <= documented
