"""Every fenced Python block of the documentation runs: here, or in the test of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doc_examples import python_blocks, run_block
from paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = {
    (str(page.relative_to(ROOT)), index): code for page in PAGES for index, code in enumerate(python_blocks(page))
}
ELSEWHERE = {  # a block that is a file of the package, needs a changed size, or needs a package that takes seconds to load
    ("README.md", 0): "project/test_readme.py",
    ("docs/add-a-benchmark.md", 0): "tasks/test_add_benchmark.py",
    ("docs/add-a-loss.md", 0): "losses/test_barlow_twins.py",
    ("docs/add-a-modality.md", 0): "modalities/test_add_modality.py",
    ("docs/add-an-importer.md", 0): "releases/test_add_importer.py",
    ("docs/models.md", 1): "embedder/test_mteb.py",
}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block not in ELSEWHERE], ids=lambda block: block[0])
def test_block_runs(block: tuple[str, int], example_files: Path) -> None:
    names = run_block(BLOCKS[block], ROOT / block[0], example_files)
    assert names["scores"].shape == (1, 2), "one text and two videos"


@pytest.mark.parametrize("block", ELSEWHERE, ids=lambda block: block[0])
def test_other_blocks_run_in_the_test_of_their_page(block: tuple[str, int]) -> None:
    page = block[0].rpartition("/")[2]
    assert block in BLOCKS and page in (ROOT / "tests" / ELSEWHERE[block]).read_text()


def test_no_python_is_written_without_a_fence() -> None:
    starts = re.compile(r"^ {4}(?:import |from \S+ import |>>> )", re.MULTILINE)
    unfenced = {
        page.name: re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE) for page in PAGES
    }
    assert [name for name, text in unfenced.items() if starts.search(text)] == []
