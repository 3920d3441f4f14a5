"""The geometry of a joint space compared with planted data and loops: gap, clusters, purity, projection, sampling."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.evaluation.geometry import Geometry, cluster_points, measure_geometry, principal_plane, unit_rows
from trichord.study.files import write_arrays

ALL = ("video", "audio", "text")
PAIRS = {"VA": ("video", "audio"), "VT": ("video", "text"), "AT": ("audio", "text")}


def measure(embeddings: dict[str, Any], **options: Any) -> Geometry:
    valid = {m: np.ones(len(rows), bool) for m, rows in embeddings.items()}
    geometry = measure_geometry(embeddings, valid, **options)
    assert geometry is not None
    return geometry


def same(a: Geometry, b: Geometry) -> bool:
    """Compare bit for bit, including types."""
    first, second = a.to_arrays("g"), b.to_arrays("g")
    return list(first) == list(second) and all(
        x.dtype == second[k].dtype and x.shape == second[k].shape and x.tobytes() == second[k].tobytes()
        for k, x in first.items()
    )


def random_world(n: int, dim: int, seed: int, noise: float = 0.5, shift: float = 0.5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    content = rng.standard_normal((n, dim))
    return {m: content + noise * rng.standard_normal((n, dim)) + shift * rng.standard_normal(dim) for m in ALL}


def blobs(num_blobs: int, each: int, dim: int = 40, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Return points (num_blobs * each, dim) around orthogonal centres, and the blob of each."""
    kind = np.tile(np.arange(num_blobs), each)
    rows = np.eye(dim)[kind] + noise * np.random.default_rng(0).standard_normal((len(kind), dim))
    return rows, kind


# planted worlds


def test_a_planted_gap_is_found() -> None:
    rng = np.random.default_rng(0)
    n, dim = 60, 12
    content = rng.standard_normal((n, dim))
    content[:, 0] = 0
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    axis, angle = np.eye(dim)[0], {"video": 0.9, "audio": math.pi - 0.9, "text": 0.4}
    length = rng.uniform(0.1, 50, (n, 1))
    geometry = measure({m: length * (math.cos(a) * axis + math.sin(a) * content) for m, a in angle.items()})
    assert geometry.gap["VA"] == pytest.approx(2 * math.cos(0.9), abs=1e-6)
    for pair, (a, b) in PAIRS.items():
        along = math.cos(angle[a]) - math.cos(angle[b])
        across = (math.sin(angle[a]) - math.sin(angle[b])) * np.linalg.norm(content.mean(0))
        assert geometry.gap[pair] == pytest.approx(math.hypot(along, across), abs=1e-6)
        assert geometry.cosine_true[pair] == pytest.approx(math.cos(angle[a] - angle[b]), abs=1e-6)


def test_perfect_alignment() -> None:
    rows = np.random.default_rng(1).standard_normal((80, 16))
    geometry = measure({"video": rows, "audio": 3 * rows, "text": rows * np.arange(1, 81)[:, None]})
    for pair in PAIRS:
        assert geometry.agreement[pair] == 1 and geometry.cosine_true[pair] == pytest.approx(1, abs=1e-6)
        assert geometry.gap[pair] == pytest.approx(0, abs=1e-6)
        assert geometry.agreement_chance[pair] < 0.2
    assert geometry.modality_purity == pytest.approx(1 / 3) and geometry.num_clusters == 32


def test_separated_modalities() -> None:
    rng = np.random.default_rng(2)
    rows = {m: 20 * np.eye(16)[i] + rng.standard_normal((50, 16)) for i, m in enumerate(ALL)}
    geometry = measure(rows)
    assert geometry.modality_purity == 1
    for pair in PAIRS:
        assert geometry.agreement[pair] == geometry.agreement_chance[pair] == 0
        assert geometry.gap[pair] == pytest.approx(math.sqrt(2), abs=0.1)


def test_planted_clusters_and_labels_are_found() -> None:
    rows, kind = blobs(6, 10)
    words = np.array(["wash", "cut", "fry", "boil", "mix", "serve"])[kind]
    geometry = measure({m: rows for m in ALL}, labels=words.tolist(), num_clusters=6)
    assert geometry.num_clusters == geometry.num_labels == 6
    assert geometry.label_purity == geometry.label_nmi == pytest.approx(1)
    assert geometry.label_purity_chance is not None and 1 / 6 < geometry.label_purity_chance < 0.6
    coarse = measure({m: rows for m in ALL}, labels=kind % 2, num_clusters=6)
    assert coarse.label_purity == 1 and coarse.label_nmi == pytest.approx(2 * math.log(2) / (math.log(2) + math.log(6)))


def test_clusters_are_numbered_by_size() -> None:
    rows = np.repeat(np.eye(5)[[3, 1, 0]], [4, 20, 9], axis=0)
    clusters = cluster_points(rows.astype(np.float32) - rows.mean(0).astype(np.float32), 32)
    assert clusters.tolist() == [2] * 4 + [0] * 20 + [1] * 9


# against loops


def slow_measures(geometry: Geometry, rows: dict[str, np.ndarray], labels: list[int]) -> dict[str, Any]:
    """Compute each measure from its definition, with the clusters that were found."""
    unit = {m: [[x / math.sqrt(sum(y * y for y in r)) for x in r] for r in rows[m].tolist()] for m in rows}
    n, out = len(labels), {}
    for pair, (a, b) in PAIRS.items():
        cosine = [[sum(x * y for x, y in zip(u, w, strict=True)) for w in unit[b]] for u in unit[a]]
        other = [cosine[i][j] for i in range(n) for j in range(n) if i != j]
        means = [[sum(u[d] for u in unit[m]) / n for d in range(len(unit[m][0]))] for m in (a, b)]
        first, second = geometry.cluster[a].tolist(), geometry.cluster[b].tolist()
        orders = list(itertools.permutations(range(n)))
        out[pair] = (
            math.dist(*means),
            sum(cosine[i][i] for i in range(n)) / n,
            sum(other) / len(other),
            sum(x == y for x, y in zip(first, second, strict=True)) / n,
            sum(first[i] == second[order[i]] for order in orders for i in range(n)) / (n * len(orders)),
        )
        out["similarity", pair] = cosine
    points = [(c, m, labels[i]) for m in rows for i, c in enumerate(geometry.cluster[m].tolist())]
    for name, column in (("modality", 1), ("label", 2)):
        kinds = {c: Counter(p[column] for p in points if p[0] == c) for c in {p[0] for p in points}}
        out[name] = sum(max(k.values()) for k in kinds.values()) / len(points)
    entropy = [-sum(v / len(points) * math.log(v / len(points)) for v in Counter(x).values()) for x in (
        [p[0] for p in points], [p[2] for p in points], [(p[0], p[2]) for p in points])]  # fmt: skip
    mean = (entropy[0] + entropy[1]) / 2
    out["nmi"] = (entropy[0] + entropy[1] - entropy[2]) / mean if mean > 0 else 1.0
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_against_loops(n: int, dim: int, num_labels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = {m: rng.standard_normal((n, dim)) + rng.standard_normal(dim) for m in ALL}
    labels = rng.integers(num_labels, size=n).tolist()
    geometry = measure(rows, labels=labels)
    slow = slow_measures(geometry, rows, labels)
    for pair in PAIRS:
        fast = tuple(getattr(geometry, x)[pair] for x in ("gap", "cosine_true", "cosine_other", "agreement"))
        assert (*fast, geometry.agreement_chance[pair]) == pytest.approx(slow[pair], abs=1e-5)
        assert geometry.similarity[pair] == pytest.approx(np.array(slow["similarity", pair]), abs=1e-3)
    assert geometry.modality_purity == pytest.approx(slow["modality"])
    assert geometry.label_purity == pytest.approx(slow["label"]) and geometry.num_labels == len(set(labels))
    assert geometry.label_nmi == pytest.approx(slow["nmi"], abs=1e-9)
    assert 1 <= geometry.num_clusters <= max(2, 3 * n // 4)
    assert {c for m in ALL for c in geometry.cluster[m].tolist()} == set(range(geometry.num_clusters))


def test_label_purity_by_chance_is_that_of_many_permutations() -> None:
    rng = np.random.default_rng(5)
    labels = rng.choice(4, 120, p=[0.5, 0.3, 0.1, 0.1])
    geometry = measure(random_world(120, 10, 5), labels=labels, num_clusters=8)
    cluster = np.concatenate([geometry.cluster[m] for m in ALL]).tolist()
    tries = []
    for _ in range(200):
        kinds: dict[int, Counter[int]] = {}
        for c, label in zip(cluster, rng.permutation(labels).tolist() * 3, strict=True):
            kinds.setdefault(c, Counter())[label] += 1
        tries.append(sum(max(k.values()) for k in kinds.values()) / len(cluster))
    error = np.std(tries) / math.sqrt(20)
    assert geometry.label_purity_chance == pytest.approx(np.mean(tries), abs=4 * error)
    assert geometry.label_purity_chance > 0.5  # never below the share of the most frequent label


@pytest.mark.parametrize(("n", "dim"), [(3, 2), (40, 1), (200, 5), (30, 300), (300, 40)])
def test_the_plane_is_that_of_an_exact_decomposition(n: int, dim: int) -> None:
    rows = np.random.default_rng(n).standard_normal((n, dim)) * np.linspace(3, 0.3, dim) ** 2
    centred = rows - rows.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    coordinates, explained = principal_plane(centred.astype(np.float32))
    kept = min(2, dim)
    assert explained[:kept] == pytest.approx((s**2 / (s**2).sum())[:kept], rel=1e-5)
    for axis in range(kept):
        exact = u[:, axis] * s[axis]
        exact *= np.sign(exact[np.abs(exact).argmax()])
        assert coordinates[:, axis] == pytest.approx(exact, abs=2e-3 * s[0])
    assert (coordinates[:, kept:] == 0).all() and (explained[kept:] == 0).all()


# invariants


@pytest.mark.parametrize("dim", [8, 400])
def test_rotating_the_space_changes_no_measure(dim: int) -> None:
    rows = random_world(90, dim, 3)
    turn = np.linalg.qr(np.random.default_rng(4).standard_normal((dim, dim)))[0]
    labels = np.arange(90) % 7
    a, b = measure(rows, labels=labels), measure({m: x @ turn for m, x in rows.items()}, labels=labels)
    for name in ("gap", "cosine_true", "cosine_other", "agreement", "agreement_chance"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-5)
    for name in ("modality_purity", "label_purity", "label_purity_chance", "label_nmi"):
        assert getattr(a, name) == pytest.approx(getattr(b, name))
    assert a.explained == pytest.approx(b.explained, rel=1e-3)
    for m in ALL:
        assert (a.cluster[m] == b.cluster[m]).all()
        assert np.abs(a.coordinates[m]) == pytest.approx(
            np.abs(b.coordinates[m]), abs=2e-2
        )  # axes that are nearly level
    for pair in PAIRS:
        assert a.similarity[pair] == pytest.approx(b.similarity[pair], abs=2e-3)


def test_results_are_bit_equal_for_any_threads_and_order_of_modalities() -> None:
    rows = {m: torch.from_numpy(x).float().requires_grad_() for m, x in random_world(300, 64, 6).items()}
    labels = [f"step {i % 9}" for i in range(300)]
    first, threads = measure(rows, labels=labels), torch.get_num_threads()
    assert same(first, measure(rows, labels=labels))
    assert same(first, measure(dict(reversed(rows.items())), labels=labels))
    torch.set_num_threads(2)
    try:
        assert same(first, measure(rows, labels=labels)) and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    other = measure(rows, labels=labels, seed=1)
    assert first.gap == other.gap and first.label_purity_chance != other.label_purity_chance


def test_two_modalities_and_one() -> None:
    rows = random_world(50, 6, 7)
    two = measure({m: rows[m] for m in ("text", "video")})
    assert list(two.coordinates) == list(two.cluster) == ["video", "text"]
    for name in ("gap", "cosine_true", "cosine_other", "agreement", "agreement_chance", "similarity"):
        assert list(getattr(two, name)) == ["VT"]
    assert two.gap["VT"] == measure(rows).gap["VT"] and 0.5 <= two.modality_purity <= 1
    one = measure({"audio": rows["audio"]})
    assert one.gap == {} and one.modality_purity == 1 and list(one.cluster) == ["audio"]


# what is kept


@pytest.mark.parametrize("labels", [None, [i % 3 for i in range(70)]])
def test_round_trip_through_a_file(tmp_path: Path, labels: list[int] | None) -> None:
    geometry = measure(random_world(70, 9, 8), labels=labels)
    path = tmp_path / "seed-0.npz"
    write_arrays(path, {**geometry.to_arrays("world/geometry"), "world/t2v/clip": np.arange(3)})
    with np.load(path, allow_pickle=False) as arrays:
        again = Geometry.from_arrays(arrays, "world/geometry")
        assert Geometry.from_arrays(arrays, "world") is None and Geometry.from_arrays(arrays, "other/geometry") is None
        broken = {name: arrays[name] for name in arrays if not name.endswith("num_clusters")}
    assert again is not None and same(geometry, again)
    for f in fields(Geometry):
        a, b = getattr(geometry, f.name), getattr(again, f.name)
        assert type(a) is type(b), f.name
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, f.name
    assert (again.label_purity is None) == (labels is None) == (again.num_labels == 0)
    assert again.clip.dtype == again.matrix_clip.dtype == np.int64
    assert again.cluster["video"].dtype == np.int16 and again.similarity["VT"].dtype == np.float16
    with pytest.raises(
        TrichordError, match="world/geometry: the array 'num_clusters' of the geometry is missing; evaluate"
    ):
        Geometry.from_arrays(broken, "world/geometry")


def test_the_file_stays_small(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", measure(random_world(1500, 8, 9)).to_arrays("world/geometry"))
    assert (tmp_path / "a.npz").stat().st_size < 64_000


def test_the_sample_is_evenly_spaced_over_complete_clips() -> None:
    rows = random_world(101, 5, 10)
    valid = {m: np.ones(101, bool) for m in ALL}
    valid["audio"][::2] = False
    geometry = measure_geometry(rows, valid, max_clips=10, matrix_clips=5)
    assert geometry is not None and geometry.clip.tolist() == list(range(1, 101, 10))
    assert geometry.matrix_clip.tolist() == list(range(1, 101, 20)) and geometry.similarity["AT"].shape == (5, 5)
    unit = {m: rows[m] / np.linalg.norm(rows[m], axis=1, keepdims=True) for m in ALL}
    exact = unit["audio"][geometry.matrix_clip] @ unit["text"][geometry.matrix_clip].T
    assert geometry.similarity["AT"] == pytest.approx(exact, abs=1e-3)
    assert geometry.num_clusters == 7 and all(len(geometry.cluster[m]) == 10 for m in ALL)  # a quarter of 30 points
    none = measure(rows, max_clips=20, matrix_clips=0)
    assert none.similarity["VT"].shape == (0, 0) and len(none.clip) == 20 and len(none.matrix_clip) == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60))
def test_the_sample_is_even_for_every_size(n: int, most: int) -> None:
    clip = measure({m: np.eye(n, 3) for m in ("video", "text")}, max_clips=most, num_clusters=2).clip
    steps = np.diff(clip)
    assert len(clip) == min(n, most) and clip[0] == 0 and steps.min() >= 1 and steps.max() - steps.min() <= 1


# odd input; warnings are errors here


def test_rows_that_are_not_finite_count_as_missing() -> None:
    rows = {m: torch.from_numpy(x).float() for m, x in random_world(40, 6, 11).items()}
    rows["video"][3, 2], rows["text"][7, 0], rows["audio"][8] = math.nan, math.inf, -math.inf
    valid = {m: torch.ones(40, dtype=torch.bool) for m in ALL}
    valid["text"][20] = False
    geometry = measure_geometry(rows, valid, labels=np.arange(40) % 4)
    kept = np.setdiff1d(np.arange(40), [3, 7, 8, 20])
    assert geometry is not None and (geometry.clip == kept).all()
    alone = measure({m: x[kept] for m, x in rows.items()}, labels=kept % 4).to_arrays("g")
    for name, array in geometry.to_arrays("g").items():
        assert name in ("g/clip", "g/matrix_clip") or (array == alone[name]).all()


@pytest.mark.parametrize("kind", ["zeros", "ones", "nearly one", "huge", "tiny"])
def test_a_collapsed_space(kind: str) -> None:
    rng = np.random.default_rng(12)
    row = {"zeros": np.zeros(30), "huge": np.full(30, 3e38), "tiny": np.full(30, 1e-42)}.get(kind, rng.random(30))
    rows = {m: np.tile(row, (50, 1)).astype(np.float32) for m in ALL}
    if kind == "nearly one":  # lengths differ, directions by rounding alone
        rows = {m: (x * rng.uniform(0.01, 100, (50, 1))).astype(np.float32) for m, x in rows.items()}
    geometry = measure(rows, labels=np.arange(50) % 2)
    length = 0 if kind == "zeros" else 1
    assert geometry.num_clusters == 1 and geometry.modality_purity == pytest.approx(1 / 3)
    assert (geometry.label_purity, geometry.label_nmi) == (0.5, 0)
    assert (geometry.explained == 0).all()
    for pair in PAIRS:
        assert geometry.gap[pair] == pytest.approx(0, abs=1e-6)
        assert geometry.cosine_true[pair] == pytest.approx(length, abs=1e-3 if kind == "tiny" else 1e-6)
        assert geometry.cosine_other[pair] == pytest.approx(geometry.cosine_true[pair], abs=1e-6)
        assert geometry.agreement[pair] == geometry.agreement_chance[pair] == 1


def test_few_different_points() -> None:
    """Each modality is collapsed to one point, and three points are shared by all: fewer points than clusters."""
    apart = measure({m: np.tile(np.eye(4)[i], (60, 1)) for i, m in enumerate(ALL)})
    assert apart.num_clusters == 3 and apart.modality_purity == 1 and apart.agreement["VT"] == 0
    assert apart.explained.sum() == pytest.approx(1)
    shared = measure({m: np.eye(4)[np.arange(60) % 3] for m in ALL})
    assert shared.num_clusters == 3 and shared.agreement["VT"] == 1
    assert shared.agreement_chance["VT"] == pytest.approx(1 / 3)
    noise = np.random.default_rng(0).standard_normal((60, 4)) * 1e-7
    assert measure({m: np.eye(4)[np.arange(60) % 3] + noise for m in ALL}).agreement["VT"] == 1


def test_zero_vectors_stay_zero() -> None:
    rows = random_world(30, 5, 13)
    rows["text"][4] = 0
    geometry = measure(rows)
    assert (geometry.similarity["VT"][:, 4] == 0).all() and len(geometry.clip) == 30
    assert (unit_rows(np.zeros((2, 3), np.float32)) == 0).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1.0, 1e30, 1e300])
def test_lengths_do_not_matter(scale: float) -> None:
    rows = np.random.default_rng(14).standard_normal((20, 7))
    exact = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert unit_rows(rows * scale) == pytest.approx(exact, abs=1e-7)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_number_types(kind: torch.dtype) -> None:
    rows = {m: torch.from_numpy((x * 100).round()).to(kind) for m, x in random_world(30, 5, 15).items()}
    geometry, exact = measure(rows), measure({m: x.double().numpy() for m, x in rows.items()})
    assert geometry.gap == pytest.approx(exact.gap, abs=1e-6) and geometry.coordinates["text"].dtype == np.float32


def test_fewer_than_two_clips() -> None:
    rows = {m: np.ones((5, 3)) for m in ALL}
    valid = {m: np.ones(5, bool) for m in ALL}
    valid["audio"][1:] = False
    assert measure_geometry(rows, valid) is None
    assert measure_geometry({m: x[:0] for m, x in rows.items()}, {m: v[:0] for m, v in valid.items()}) is None


def test_mistakes_are_reported() -> None:
    rows, valid = {m: np.ones((5, 3)) for m in ALL}, {m: np.ones(5, bool) for m in ALL}
    with pytest.raises(TrichordError, match=r"the shapes are video \(5, 3\), audio \(5, 3\), text \(4, 3\)"):
        measure_geometry({**rows, "text": np.ones((4, 3))}, valid)
    with pytest.raises(TrichordError, match=r"valid\['audio'\] must have one Boolean per clip, 5 in all"):
        measure_geometry(rows, {m: v for m, v in valid.items() if m != "audio"})
    with pytest.raises(
        TrichordError, match=r"labels have the shape \(3,\), but there are 5 clips; give one label per clip"
    ):
        measure_geometry(rows, valid, labels=[1, 2, 3])
    with pytest.raises(TrichordError, match="no embeddings to measure; give embeddings of at least two"):
        measure_geometry({}, {})
    for wrong in ({"num_clusters": 1}, {"num_clusters": 40_000}, {"max_clips": 1}, {"matrix_clips": -1}):
        with pytest.raises(TrichordError, match="give 2 to 32,767 clusters"):
            measure_geometry(rows, valid, **wrong)
