"""The benchmark of docs/add-a-benchmark.md is listed, explained and scored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paths import ROOT
from trichord.cli import main
from trichord.tasks import registry

PAGE = ROOT / "docs" / "add-a-benchmark.md"


@pytest.fixture(autouse=True)
def _alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "alignment"}
    exec(compile(code, str(PAGE), "exec"), names)
    monkeypatch.setattr(registry, "GROUPS", (*registry.GROUPS, names["PROTOCOLS"]))


def test_it_is_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--list"]) == 0
    assert "alignment" in capsys.readouterr().out
    assert main(["evaluate", "--explain", "alignment"]) == 0
    assert "mean squared distance" in capsys.readouterr().out


def test_it_is_scored(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    video, text = random.standard_normal((2, 5, 3)).astype(np.float32)
    video[4] = np.nan  # a clip without video
    np.savez(tmp_path / "embeddings.npz", video=video, text=text)
    words = ["evaluate", "--embeddings", str(tmp_path / "embeddings.npz"), "--benchmark", "alignment"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    (benchmark,) = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]
    (row,) = benchmark["rows"]
    cosines = [float(v @ t / np.linalg.norm(v) / np.linalg.norm(t)) for v, t in zip(video[:4], text[:4], strict=True)]
    assert row["num"] == 4 and row["value"] == pytest.approx(np.mean([2 - 2 * cosine for cosine in cosines]), rel=1e-5)
