"""Evaluations that differ in more than the model are shown but not compared, and the report gives the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation_report_helpers import copy, edit, edit_arrays, evaluation_text, planted, write_folder
from trichord.report.analysis import analyse
from trichord.report.contents import build_evaluations
from trichord.report.systems import read_systems


@pytest.mark.usefixtures("undrawn")
def test_another_fusion_rule_is_shown_and_not_compared(weak: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", planted(0.7, 2, silent=6), fusion="mean_normalized")
    systems = read_systems([weak, other])
    bench = analyse(systems)[0]
    assert set(bench.targets[0].figures) == {"weak.npz", "other.npz"} and not bench.targets[0].comparisons
    reason = "weak.npz is not compared with other.npz: the fusion rule is sum in one and mean_normalized in the other"
    assert bench.apart == [reason]
    text = evaluation_text([weak, other])
    assert reason in text and "mean_normalized" in text
    assert f"Retrieval on any clips: {reason}." in " ".join(build_evaluations(systems).summary)


def options(name: str, value: object, at: int) -> Any:
    return lambda content: content["benchmarks"][at]["options"].__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "at", "message"),
    [
        (options("windows", {"count": 10, "length_s": 5.0, "pool": "mean"}, 0), 0, "the windows is none in one and count 10"),
        (options("templates", ["a video of {}"], 1), 1, r"the templates is none in one and a video of {} in the other"),
        (options("missing", "miss", 1), 1, "the policy for missing clips is drop in one and miss in the other"),
        (lambda c: [r.update(missing="miss") for r in c["benchmarks"][0]["results"]], 0, "the policy for missing clips"),
        (lambda c: [r.update(num_gallery=61) for r in c["benchmarks"][0]["results"]], 0, "the gallery's size is 60 in one"),
        (lambda c: [r.update(ties="best") for r in c["benchmarks"][0]["results"]], 0, "the tie policy is expected in one"),
        (lambda c: c["benchmarks"][1].update(fusion="mean_normalized"), 1, "the fusion rule is sum in one"),
    ],
)  # fmt: skip
def test_other_choices_are_not_compared(
    weak: Path, strong: Path, tmp_path: Path, change: Any, at: int, message: str
) -> None:
    other = edit(copy(strong, tmp_path / "other"), change)
    benches = analyse(read_systems([weak, other]))
    assert any(message in sentence for sentence in benches[at].apart), benches[at].apart
    assert not benches[at].targets[0].comparisons and len(benches[at].targets[0].figures) == 2
    assert benches[1 - at].targets[0].comparisons, "the other benchmark is"


@pytest.mark.parametrize(
    ("embedded", "message"),
    [
        (planted(0.7, 2, silent=6, ids="item{}"), "units differ: 'clip0' is only in one"),
        (planted(0.7, 2, silent=6, num=57), "the gallery's size is 60 in one and 57 in the other"),
    ],
)
def test_other_clips_are_not_compared(weak: Path, tmp_path: Path, embedded: Any, message: str) -> None:
    other = write_folder(tmp_path / "other", embedded)
    bench = analyse(read_systems([weak, other]))[0]
    assert any(message in sentence for sentence in bench.apart) and not any(t.comparisons for t in bench.targets)


def test_other_clips_that_count_are_not_compared(weak: Path, strong: Path, tmp_path: Path) -> None:
    def swap(arrays: dict[str, np.ndarray]) -> None:
        each = arrays["zero-shot-classification/audio, class/top-1/each"]
        each[[0, -1]] = each[[-1, 0]]

    benches = analyse(read_systems([weak, edit_arrays(copy(strong, tmp_path / "other"), swap)]))
    message = "audio, class: weak.npz is not compared with strong.npz: unit 'clip0' counts only in one"
    assert benches[1].apart == [message]
    assert benches[1].targets[0].comparisons, "video is compared"


@pytest.mark.parametrize(
    ("name", "at", "message"),
    [
        ("zero-shot-classification/video, class/truth", 1, "labels of video, class differ"),
        ("zero-shot-classification/video, class/classes", 1, "classes of video, class differ"),
        ("retrieval/caption", 0, "captions differ: number 5 is 'fry the soup, number 5' in one and"),
        ("retrieval/text_id", 0, "units differ: 'clip5' is only in one"),
        ("retrieval/t2v/clip", 0, "the queries' clips differ: number 5 is '5' in one"),
    ],
)
def test_another_truth_is_not_compared(
    weak: Path, strong: Path, tmp_path: Path, name: str, at: int, message: str
) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        values = arrays[name]
        place = min(5, len(values) - 1)
        values[place] = "other" if values.dtype.kind == "U" else 0

    benches = analyse(read_systems([weak, edit_arrays(copy(strong, tmp_path / "other"), change)]))
    assert any(message in sentence for sentence in benches[at].apart), benches[at].apart
    assert not benches[at].targets[0].comparisons


def test_systems_fall_into_groups(weak: Path, strong: Path, tmp_path: Path) -> None:
    """Two systems use the sum and two the mean: each two are compared, in one family."""
    others = [
        write_folder(tmp_path / n, planted(x, 3, silent=6), fusion="mean_normalized")
        for n, x in (("c", 0.7), ("d", 1.5))
    ]
    bench = analyse(read_systems([weak, strong, *others]))[0]
    assert [set(c.recalls) for c in bench.targets[0].comparisons] == [{"weak.npz", "strong.npz"}, {"c.npz", "d.npz"}]
    assert bench.targets[0].winner is None
