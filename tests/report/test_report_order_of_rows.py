"""Reports pair the units of two evaluations by their names, whatever the order of the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation_report_helpers import planted, write_folder
from report_helpers import SKILL, write_study_folder
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.report.analysis import Bench, analyse
from trichord.report.compare import compare_studies
from trichord.report.queries import clearest_duel
from trichord.report.reading import read_study
from trichord.report.systems import read_systems
from trichord.study.earlier_runs import CLIP_PARTS, queries_path
from trichord.study.pairing import places_of

NAMES = ("retrieval", "zero-shot-classification")


def shuffled(embedded: Embedded, seed: int = 5, **changes: Any) -> Embedded:
    """Return the same clips in another order, with their texts in yet another order."""
    rng = np.random.default_rng(seed)
    moved = embedded.take(rng.permutation(embedded.num_clips))
    texts = rng.permutation(moved.num_texts)
    return moved.but(
        embeddings=moved.embeddings | {"text": moved.embeddings["text"][texts]},
        valid=moved.valid | {"text": moved.valid["text"][texts]},
        text_clip=moved.text_clip[texts],
        captions=None if moved.captions is None else moved.captions[texts],
        **changes,
    )


def benches(tmp_path: Path, one: Embedded, two: Embedded, names: tuple[str, ...] = NAMES) -> list[Bench]:
    directions = ("t2v", "v2a") if "retrieval" in names else ()
    folders = [
        write_folder(tmp_path / name, embedded, names, directions) for name, embedded in (("one", one), ("two", two))
    ]
    return analyse(read_systems(folders))


def pairs(some_benches: list[Bench]) -> list[tuple[float, float, float]]:
    return [
        (d.estimate, d.p, d.low)
        for bench in some_benches
        for t in bench.targets
        for c in t.comparisons
        for d in c.differences
    ]


@pytest.mark.parametrize("ids", ["clip{}", "-clip_0%&#{}", "clip{}.mp4"])
def test_rows_in_another_order(ids: str, tmp_path: Path) -> None:
    one, two = planted(0.6, ids=ids), planted(1.8, 1, ids=ids)
    plain = benches(tmp_path / "plain", one, two)
    moved = benches(tmp_path / "moved", one, shuffled(two))
    assert len(pairs(plain)) > 2 and not any(bench.apart for bench in moved)
    np.testing.assert_allclose(pairs(moved), pairs(plain), rtol=1e-9)
    duels = clearest_duel(plain[0]), clearest_duel(moved[0])
    assert duels[0] is not None and duels[1] is not None
    for part in ("names", "captions", "value_a", "value_b"):
        assert getattr(duels[0], part).tolist() == getattr(duels[1], part).tolist()


def test_ids_with_and_without_a_suffix(tmp_path: Path) -> None:
    plain = benches(tmp_path / "plain", planted(0.6), planted(1.8, 1))
    spelt = benches(tmp_path / "spelt", planted(0.6), shuffled(planted(1.8, 1, ids="clip{}.mp4")))
    assert not any(bench.apart for bench in spelt)
    np.testing.assert_allclose(pairs(spelt), pairs(plain), rtol=1e-9)


def test_several_texts_of_a_clip_are_paired_by_their_captions(tmp_path: Path) -> None:
    def several(noise: float, seed: int) -> Embedded:
        embedded = planted(noise, seed)
        return embedded.but(text_clip=np.arange(60) // 2, captions=[f"text {i}" for i in range(60)])

    plain = benches(tmp_path / "plain", several(0.6, 0), several(1.8, 1), ("retrieval",))
    moved = benches(tmp_path / "moved", several(0.6, 0), shuffled(several(1.8, 1)), ("retrieval",))
    assert not moved[0].apart
    np.testing.assert_allclose(pairs(moved), pairs(plain), rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"class": ["stir", "fry"] * 30}}, "labels of"),
        ({"captions": ["other"] + [f"text {i}" for i in range(59)]}, "captions differ: "),
    ],
)
def test_another_truth_in_another_order_is_not_compared(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    name = "zero-shot-classification" if "labels" in change else "retrieval"
    one = planted(0.6).but(captions=[f"text {i}" for i in range(60)]) if "captions" in change else planted(0.6)
    two = shuffled(planted(1.8, 1).but(**change) if "captions" in change else planted(1.8, 1))
    two = two.but(**change) if "labels" in change else two
    (bench,) = benches(tmp_path, one, two, (name,))
    assert any(message in sentence and "is only in one" in sentence for sentence in bench.apart), bench.apart
    assert not bench.targets[0].comparisons


def test_rows_without_ids_are_paired_by_number_with_a_note(tmp_path: Path) -> None:
    one, two = (planted(noise, seed, captions=False, ids="{}") for noise, seed in ((0.6, 0), (1.8, 1)))
    compared = benches(tmp_path, one, two, ("retrieval",))
    assert pairs(compared)
    assert compared[0].apart == [
        "one.npz, two.npz have no ids, so rows were matched by number; give ids to ensure that they match"
    ]


def shuffle_study(folder: Path, suffix: str = "") -> None:
    """Reorder the clips of a study's benchmark and its queries; `suffix` is added to the ids of videos."""
    queries = json.loads(queries_path(folder, "tiny").read_text())
    rng = np.random.default_rng(3)
    clips = rng.permutation(len(queries))
    queries_path(folder, "tiny").write_text(json.dumps([queries[at] for at in clips]))
    for path in folder.glob("orders/*/*.npz"):
        arrays = dict(np.load(path))
        for part in CLIP_PARTS:
            arrays[f"tiny/{part}"] = arrays[f"tiny/{part}"][clips]
        arrays["tiny/video_id"] = np.char.add(arrays["tiny/video_id"], suffix)
        for direction in ("t2v", "v2a"):
            order = np.random.default_rng(4).permutation(len(arrays[f"tiny/{direction}/clip"]))
            head = f"tiny/{direction}"
            arrays[f"{head}/clip"] = np.argsort(clips)[arrays[f"{head}/clip"]][order].astype(np.int32)
            for part in ("greater", "equal"):
                arrays[f"{head}/{part}"] = arrays[f"{head}/{part}"][order]
        np.savez_compressed(path, **arrays)


@pytest.mark.parametrize("suffix", ["", ".mp4"])
@pytest.mark.parametrize("num_missing", [0, 4])
def test_two_studies_whose_clips_are_in_another_order(suffix: str, num_missing: int, tmp_path: Path) -> None:
    orders, better = ["av>t", "avt"], {order: skill + 1.5 for order, skill in SKILL.items()}
    a = write_study_folder(tmp_path / "a", orders=orders, seeds=[0, 1], num_missing=num_missing)
    b = write_study_folder(
        tmp_path / "b", orders=orders, seeds=[0, 1], num_missing=num_missing, skill=better, earlier=True
    )
    plain = compare_studies(read_study(a), read_study(b))
    shuffle_study(b, suffix)
    moved = compare_studies(read_study(a), read_study(b))
    shown = [[[cell.text for cell in row] for row in document.tables()[-1].rows] for document in (plain, moved)]
    assert moved.summary == plain.summary and shown[0] == shown[1] and len(shown[0]) > 4


def test_studies_of_other_clips_in_another_order_are_refused(tmp_path: Path) -> None:
    a = write_study_folder(tmp_path / "a", orders=["avt"], seeds=[0])
    b = write_study_folder(tmp_path / "b", orders=["avt"], seeds=[0], caption="stir {n} eggs", earlier=True)
    shuffle_study(b)
    with pytest.raises(TrichordError, match=r"captions differ: 'v0: cut the 0 onions' is only in A"):
        compare_studies(read_study(a), read_study(b))
    for path in b.glob("orders/*/*.npz"):
        arrays = dict(np.load(path))
        arrays["tiny/video_id"] = np.where(arrays["tiny/video_id"] == "v7", "x", arrays["tiny/video_id"])
        np.savez_compressed(path, **arrays)
    with pytest.raises(TrichordError, match=r"units differ: 'v7' is only in A"):
        compare_studies(read_study(a), read_study(b))


def test_studies_of_other_times_in_another_order_are_refused(tmp_path: Path) -> None:
    a, b = (write_study_folder(tmp_path / name, orders=["avt"], seeds=[0], earlier=name == "b") for name in "ab")
    shuffle_study(b)
    for path in b.glob("orders/*/*.npz"):
        arrays = dict(np.load(path))
        arrays["tiny/end_s"][arrays["tiny/video_id"] == "v7"] = 6.0
        np.savez_compressed(path, **arrays)
    with pytest.raises(TrichordError, match=r"the ends of the clips differ: 'v7: 5\.0' is only in A"):
        compare_studies(read_study(a), read_study(b))


def test_texts_of_a_clip_are_paired_by_caption_or_position() -> None:
    assert places_of([("a", "x"), ("a", "y")], [("a", "y"), ("a", "x")]).tolist() == [1, 0]  # type: ignore[union-attr]
    assert places_of(["a", "a", "b"], ["b", "a", "a"]).tolist() == [1, 2, 0]  # type: ignore[union-attr]
    assert places_of(["a", "a", "b"], ["b", "b", "a"]) is None and places_of(["a"], []) is None
