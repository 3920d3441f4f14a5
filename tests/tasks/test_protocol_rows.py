"""Every figure with saved contributions of units is their mean or median, and its interval contains it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.evaluation.embedded import Embedded
from trichord.tasks.protocol import MEDIAN_RANK, Options, Outcome, Row
from trichord.tasks.registry import find_protocol
from trichord.tasks.retrieval.measure import all_directions
from trichord.tasks.steps.protocols import _Steps, localization_outcome
from trichord.tasks.steps.scores import StepVideo
from trichord.tasks.subject import Subject


def check(outcome: Outcome, whole: bool = True) -> None:
    kept = outcome.kept()
    for row in outcome.rows:
        if row.each is None:
            assert not whole, row
            continue
        assert kept[row.key] is row.each
        assert len(row.each) == len(outcome.arrays[row.each_of])
        counted = row.each[~np.isnan(row.each)]
        if row.measure == MEDIAN_RANK:
            assert np.median(counted) == pytest.approx(row.value)
        else:
            assert counted.mean() * (100 if row.unit == "%" else 1) == pytest.approx(row.value)
        if row.low is not None:
            assert row.high is not None and row.low - 1e-9 <= row.value <= row.high + 1e-9
    assert len(kept) == len(outcome.arrays) + sum(row.each is not None for row in outcome.rows)


@st.composite
def clips_and_texts(draw: st.DrawFn) -> Embedded:
    """Few values, so that scores tie; clips and texts may be missing, and clips may have none, one or several texts."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    num, several = draw(st.integers(3, 9)), draw(st.booleans())
    text_clip = rng.integers(0, num, draw(st.integers(num, 3 * num))) if several else np.arange(num)
    rows = {"video": num, "audio": num, "text": len(text_clip)}
    embeddings = {m: rng.integers(-1, 2, (n, 3)).astype(np.float32) for m, n in rows.items()}
    valid = {m: rng.random(n) < draw(st.sampled_from([0.6, 1.0])) for m, n in rows.items()}
    for mask in valid.values():
        mask[text_clip[0] if len(mask) == num else 0] = True
    valid["text"][0] = True
    return Embedded.of(
        embeddings,
        valid=valid,
        text_clip=text_clip,
        videos=[f"v{i // 2}" for i in range(num)],
        captions=[f"say {i}" for i in range(len(text_clip))],
        labels={"kind": [("a", "b", "c")[i % 3] for i in range(num)]},
    )


@given(clips_and_texts(), st.sampled_from(["drop", "miss"]), st.sampled_from(["sum", "mean_normalized"]))
@settings(max_examples=25, deadline=None)
def test_retrieval(embedded: Embedded, missing: str, fusion: str) -> None:
    subject = Subject.of_embeddings(embedded)
    options = Options(directions=all_directions(), missing=missing, fusion=fusion)
    check(find_protocol("retrieval").run(subject, options))
    check(find_protocol("full-video").run(subject, Options(directions=("t2v", "t2va"), missing=missing)))


@given(clips_and_texts(), st.sampled_from(["drop", "miss"]))
@settings(max_examples=30, deadline=None)
def test_labels(embedded: Embedded, missing: str) -> None:
    clips = Embedded.of(
        {**embedded.embeddings, "text": np.eye(3, dtype=np.float32)},
        valid={m: embedded.valid[m] for m in ("video", "audio")},
        text_clip=[0, 0, 1],
        captions=["a", "b", "c"],
        labels=embedded.labels,
    )
    outcome = find_protocol("zero-shot-classification").run(Subject.of_embeddings(clips), Options(missing=missing))
    check(outcome)
    assert all(row.each_of.endswith("/id") for row in outcome.rows)


@pytest.mark.parametrize("missing", ["drop", "miss"])
def test_localization(missing: str) -> None:
    rng = np.random.default_rng(7)
    videos = []
    for i in range(14):
        truth = np.zeros((12, 3), bool)
        for step in range(3):
            truth[4 * step + 1 : 4 * step + 3, step] = i % 5 or step < 2
        if i == 3:
            truth[:] = False
        scores = {"t2v": rng.integers(0, 3, truth.shape).astype(np.float64)} | (
            {"t2a": rng.random(truth.shape)} if i % 4 else {}
        )
        videos.append(StepVideo(f"v{i}", f"task {i % 4}" if i != 9 else "task alone", scores, truth))
    every = _Steps(precision=True, segments=True, seconds=True)
    outcome = localization_outcome("steps", videos, ["t2v", "t2a"], "sum", missing, every)
    check(outcome)
    assert {row.each_of for row in outcome.rows} == {"steps/video", "steps/tasks"}


def test_one_unit_has_no_interval() -> None:
    row = Row("p", "t2v", "R@1", 100.0, 1).over(np.array([1.0, np.nan]), "p/id")
    assert (row.low, row.high) == (None, None)
    assert row.to_dict()["each"] == "p/t2v/R@1/each"
