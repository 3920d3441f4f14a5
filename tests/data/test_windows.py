"""Windows of long clips compared with loops: their positions, and the pooling of their embeddings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trichord.data.reader import Clips
from trichord.tasks.windows import Windows, pooled, window_clips


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=5),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from(["mean", "max"]),
    st.integers(0, 2**16),
)
@example([0, 3, 0, 1], 2, 0.5, "max", 0)  # the first and a middle clip have no window
@example([1], 1, 0.0, "mean", 0)  # no window is valid
@settings(max_examples=150, deadline=None)
def test_pooling_against_loops(counts: list[int], width: int, share: float, pool: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clip_of = np.repeat(np.arange(len(counts)), counts)
    vectors = {m: rng.integers(-3, 3, (len(clip_of), width)).astype(np.float32) for m in ("video", "audio")}
    valid = {m: rng.random(len(clip_of)) < share for m in vectors}
    pooled_vectors, there = pooled(vectors, valid, clip_of, len(counts), Windows(3, 1.0, pool))
    for modality, rows in vectors.items():
        for clip in range(len(counts)):
            rows_of_clip = [rows[w].tolist() for w in range(len(rows)) if clip_of[w] == clip and valid[modality][w]]
            assert there[modality][clip] == bool(rows_of_clip)
            columns = list(zip(*rows_of_clip, strict=True)) if rows_of_clip else [(0.0,)] * width
            expected = [max(c) if pool == "max" else sum(c) / len(c) for c in columns]
            np.testing.assert_allclose(pooled_vectors[modality][clip], expected, rtol=1e-6, atol=1e-6)
        assert pooled_vectors[modality].shape == (len(counts), width)


def test_equal_windows_pool_to_themselves() -> None:
    rows = np.repeat(np.array([[0.1, -7.0]], np.float32), 10, axis=0)
    for pool in ("mean", "max"):
        pooled_vectors, _ = pooled(
            {"video": rows}, {"video": np.ones(10, bool)}, np.zeros(10, int), 1, Windows(10, 1.0, pool)
        )
        np.testing.assert_allclose(pooled_vectors["video"], rows[:1], rtol=1e-6)


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 40)), min_size=1, max_size=5),
    st.integers(1, 6),
    st.floats(0.5, 20),
)
@settings(max_examples=150, deadline=None)
def test_windows_are_evenly_spaced_in_their_clip(spans: list[tuple[float, float]], count: int, length_s: float) -> None:
    starts = np.array([start for start, _ in spans])
    ends = np.array([start + length for start, length in spans])
    clips = Clips(np.arange(len(spans)) + 7, starts, ends, [np.array([i]) for i in range(len(spans))])
    cut, clip_of = window_clips(clips, Windows(count, length_s))
    at = 0
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if end - start <= length_s:
            expected = [(start, end)]
        else:
            gap = (end - length_s - start) / max(count - 1, 1)
            expected = [(start + w * gap, start + w * gap + length_s) for w in range(count)]
        for begin, stop in expected:
            assert clip_of[at] == i and cut.item[at] == i + 7 and cut.captions[at].tolist() == [i]
            assert (cut.start_s[at], cut.end_s[at]) == (pytest.approx(begin), pytest.approx(stop))
            assert cut.end_s[at] <= end + 1e-9
            at += 1
    assert at == len(clip_of) == len(cut)
