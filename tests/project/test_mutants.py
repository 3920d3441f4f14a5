"""The hand-made mutants of `mutant_table.py` match the current source. `make mutants` runs them."""

from __future__ import annotations

from collections import Counter

import pytest

from architecture import SOURCE
from mutant_table import MUTANTS, Mutant
from paths import TESTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place_and_names_tests_that_exist(mutant: Mutant) -> None:
    assert (SOURCE / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new
    assert mutant.tests
    for test in mutant.tests:
        file, *names = test.split("::")
        text = (TESTS / file).read_text()
        assert all(f"def {name.partition('[')[0]}" in text for name in names)  # also the beginning of a name


def test_mutants_have_names_of_their_own() -> None:
    assert not [name for name, count in Counter(mutant.name for mutant in MUTANTS).items() if count > 1]
