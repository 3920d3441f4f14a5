"""Figures that no other test determines: chance with missing clips, pairs of queries, Holm's family, the queue."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trichord import Embedder
from trichord.captions.stamps import stamped_lines
from trichord.evaluation.comparison import compare_orders
from trichord.evaluation.power import predicted_power
from trichord.evaluation.statistics import paired_difference, wilson
from trichord.evaluation.variance import Components
from trichord.losses.clustering import ClusterMemory
from trichord.losses.combined import CombinedLoss
from trichord.media import FrameSpec
from trichord.modality import Direction
from trichord.nn.mcn import Encoded
from trichord.tasks.retrieval.measure import score_direction


@pytest.mark.parametrize(("missing", "queries", "chance"), [("drop", 6, 100 / 6), ("miss", 8, 100 / 6 * 6 / 8)])
def test_chance_counts_missing_queries_as_the_recall_does(missing: str, queries: int, chance: float) -> None:
    """A collapsed model scores chance under both policies: 6 of 8 clips have a picture."""
    rows = {"video": np.ones((8, 3), np.float32), "text": np.ones((8, 3), np.float32)}
    valid = {"video": np.arange(8) < 6, "text": np.ones(8, bool)}
    result = score_direction(rows, valid, Direction.parse("t2v"), name="sample", missing=missing)
    assert (result.num_queries, result.num_gallery) == (queries, 6)
    for k, recall, at_random in zip(
        (1, 5, 10),
        (result.r1, result.r5, result.r10),
        (result.chance_r1, result.chance_r5, result.chance_r10),
        strict=True,
    ):
        assert recall == pytest.approx(at_random) == pytest.approx(min(k, 6) * chance)


def hits_of(num_more: int, num_queries: int = 400) -> np.ndarray:
    """Return (3, N) hits at a recall of one half, and of `num_more` more queries; seeds differ in a few queries."""
    hits = np.zeros((3, num_queries))
    for seed in range(3):
        hits[seed, seed : num_queries // 2 + num_more + seed] = 1.0
    return hits


def test_a_winner_beats_every_other_order_after_holms_correction() -> None:
    """For a single pair, p is below 5 %; for all six pairs of four orders it is not, and there is no winner."""
    ahead, level = hits_of(5), {f"order{number}": hits_of(0) for number in range(3)}
    alone = paired_difference(ahead, level["order0"])
    assert 0.05 / 6 < alone.p < 0.05
    two = compare_orders({"ahead": ahead, "order0": level["order0"]}, explain=False)
    four = compare_orders({"ahead": ahead, **level}, explain=False)
    assert two.winner == "ahead" and four.winner is None
    assert "not distinguishable" in four.verdict
    assert max(pair.p for pair in four.differences if "ahead" in (pair.a, pair.b)) < 0.05


def test_power_is_that_of_each_pair_of_a_family() -> None:
    """The power at level alpha with m pairs equals that of one pair at level alpha
    m.
    """
    parts = Components(seed=0.0001, query=0.2, residual=0.05, num_seeds=3, num_queries=1000)
    for num_seeds in (1, 3):
        family = predicted_power(3.0, num_seeds, 2000, parts, level=0.94, num_pairs=6)
        assert family == pytest.approx(predicted_power(3.0, num_seeds, 2000, parts, level=0.99))
        assert 0.05 < family < predicted_power(3.0, num_seeds, 2000, parts, level=0.94) - 0.05


def test_only_the_clips_that_are_to_be_stored_enter_the_queue() -> None:
    memory = ClusterMemory(num_clusters=2, size=16)
    loss = CombinedLoss(pairs=(), contrast=None, cluster=("video",), memory=memory)  # type: ignore[arg-type]
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    stored = torch.tensor([True, False, True, True, False, False])
    loss({"video": Encoded(rows, rows, None)}, {"video": torch.ones(6, dtype=torch.bool)}, None, stored)
    assert memory.queue is not None and memory.num_rows == 3
    torch.testing.assert_close(memory.queue[:3], torch.nn.functional.normalize(rows[stored], dim=1))


def test_word_stamps_have_hours_and_minutes() -> None:
    lines, pieces = stamped_lines(3599.0, "one<00:59:59.500> two<01:00:02.250> three")
    assert lines == ("one two three",)
    assert [time_s for time_s, _ in pieces[0]] == [3599.0, 3599.5, 3602.25]


@pytest.mark.parametrize("cosine", [False, True])
def test_an_embedder_uses_the_fusion_rule_of_its_model(cosine: bool) -> None:
    model = SimpleNamespace(parts=SimpleNamespace(scoring=SimpleNamespace(cosine=cosine)))
    video, audio = np.array([[3.0, 4.0]], np.float32), np.array([[0.0, 0.5]], np.float32)
    fused = Embedder.fuse(model, video, audio)  # type: ignore[arg-type]
    np.testing.assert_allclose(fused, [[0.3, 0.9]] if cosine else [[3.0, 4.5]], rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1920, 1080), (455, 256)), ((1080, 1920), (256, 455)), ((300, 300), (256, 256)), ((64, 48), (341, 256))],
)
def test_the_shorter_side_of_a_picture_is_brought_to_its_length(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert FrameSpec(short_side=256).size_of(*size) == expected
    assert FrameSpec(width=20, height=30).size_of(*size) == (20, 30)


@pytest.mark.parametrize(("hits", "num"), [(0, 50), (5, 50), (49, 50), (50, 50), (3, 4)])
def test_the_interval_of_one_models_recall_is_wilsons_where_queries_scatter_as_hits_do(hits: int, num: int) -> None:
    """Computed from the definition, with the half width for that number of independent hits."""
    share, z = hits / num, 1.959963984540054
    low, high = wilson(share, z * np.sqrt(share * (1 - share) / num), 0.05, num, 1)
    centre, reach = share + z**2 / (2 * num), z * np.sqrt(share * (1 - share) / num + z**2 / (4 * num**2))
    expected = (centre - reach) / (1 + z**2 / num), (centre + reach) / (1 + z**2 / num)
    assert (float(low), float(high)) == pytest.approx(expected, abs=1e-9)
