"""Every benchmark can be imported and has a help, which measures nothing."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from paths import ROOT

FOLDER, HELPERS = ROOT / "benchmarks", ROOT / "tests" / "helpers"


@pytest.mark.parametrize("script", sorted(FOLDER.glob("bench_*.py")), ids=lambda path: path.stem)
def test_help(script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, module in list(sys.modules.items()):  # a script finds the helpers of tests by itself
        if Path(getattr(module, "__file__", None) or "").parent == HELPERS:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(FOLDER), *(path for path in sys.path if Path(path) != HELPERS)])
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    before = (FOLDER / "RESULTS.md").read_bytes()
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0 and f"usage: {script.name}" in capsys.readouterr().out
    assert (FOLDER / "RESULTS.md").read_bytes() == before
