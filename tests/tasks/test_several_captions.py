"""Several captions of a held-out clip: without times of their own they are texts of one clip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export_helpers import write_store
from release_helpers import WORDS
from scoring_helpers import evaluate_retrieval, read_ranks
from tiny import VIDEO_DIM, WORD_DIM, word_vectors
from trichord.captions import Captions
from trichord.data.batches import clips_of_texts, evaluation_clips
from trichord.errors import TrichordError
from trichord.files import arrays
from trichord.modality import Direction
from trichord.nn import MCN
from trichord.releases import export_store, import_npy
from trichord.store import Item, Store, StoreWriter
from trichord.study.files import write_arrays
from trichord.study.protocols import study_protocol
from trichord.tasks.benchmarks import ScoringSettings, find_benchmark
from trichord.tasks.protocol import Options
from trichord.tasks.registry import find_protocol
from trichord.tasks.subject import ClipSet, Subject, clip_ids

SETTINGS = ScoringSettings(audio_frames=300, max_words=8, min_clip_s=4.0)
TEXTS = ["worda", "wordb", "wordc", "wordd", "worde", "wordf"]


def write(path: Path, captions: list[Captions], duration_s: float = 9.0, collection: str = "mine") -> Store:
    with StoreWriter(path, word_vectors()) as writer:
        for index, said in enumerate(captions):
            rows = np.random.default_rng([3, index]).random((9, VIDEO_DIM)).astype(np.float32)
            writer.add(Item(f"v{index}", collection, "test", duration_s, {"visual_2d": rows}, {"visual_2d": 1.0}, said))
    return Store(path)


def whole(*texts: str, end: float = 9.0) -> Captions:
    return Captions(np.zeros(len(texts)), np.full(len(texts), end), texts)


def network() -> MCN:
    torch.manual_seed(0)
    return MCN(
        modalities=("video", "text"), video_dim=VIDEO_DIM, embed_dim=8, word_dim=WORD_DIM, reconstruction_dim=None
    ).eval()


def sizes(store: Store) -> tuple[int, int]:
    """Return the numbers of clips and texts that are scored."""
    made = Subject.of_model("net", network(), store, SETTINGS, ("video", "text"))
    embedded = made.embedded(made.clip_set("mine/test"), ("video", "text"))
    outcome = find_protocol("retrieval").run(made, Options(on="mine/test", directions=("t2v", "v2t")))
    rows = {row["direction"]: (row["num_queries"], row["num_gallery"]) for row in outcome.details["results"]}
    assert rows == {"t2v": (embedded.num_texts, embedded.num_clips), "v2t": (embedded.num_clips, embedded.num_texts)}
    plain = evaluate_retrieval(
        network(), store, find_benchmark(store, "mine"), [Direction.parse("t2v"), Direction.parse("v2t")], SETTINGS
    )
    for ours, row in zip(plain, outcome.details["results"], strict=True):
        assert {**ours.to_dict(), "benchmark": ""} == {**row, "benchmark": ""}
    return embedded.num_clips, embedded.num_texts


def test_captions_of_whole_clips_are_texts_of_one_clip(tmp_path: Path) -> None:
    assert sizes(write(tmp_path / "s", [whole(*TEXTS[:3]), whole("worde"), whole("wordf", "worda")])) == (3, 6)


@pytest.mark.parametrize(
    "said",
    [
        Captions(np.array([0.0, 0.05]), np.array([8.97, 9.0]), ("worda", "wordb")),  # rounded
        Captions(np.zeros(2), np.zeros(2), ("worda", "wordb")),  # without times
        Captions(np.zeros(2), np.full(2, 9.4), ("worda", "wordb")),  # of a container that claims more
    ],
)
def test_captions_that_span_the_clip_up_to_rounding(said: Captions, tmp_path: Path) -> None:
    for min_clip_s in (4.0, 20.0):
        store = write(tmp_path / f"s{min_clip_s}", [said, whole("wordc")])
        texts = evaluation_clips(store, store.select("mine"), min_clip_s)
        assert [c.tolist() for c in texts.captions] == [[0], [1], [0]]
        text_clip, first = clips_of_texts(store, texts)
        assert text_clip.tolist() == [0, 0, 1] and first.tolist() == [0, 2]
    assert sizes(store) == (2, 3)


@pytest.mark.parametrize(
    ("start", "end", "clips"),
    [
        ([0.0, 4.5], [4.5, 9.0], 2),  # one after the other
        ([2.0, 2.0], [7.0, 7.0], 2),  # at the same time, but not of the whole
        ([0.0, 0.0, 5.0], [9.0, 4.5, 9.0], 2),  # a title over the whole and timed captions
    ],
)
def test_timed_captions_stay_clips_of_their_own(
    start: list[float], end: list[float], clips: int, tmp_path: Path
) -> None:
    said = Captions(np.array(start), np.array(end), tuple(TEXTS[: len(start)]))
    store = write(tmp_path / "s", [said])
    texts = evaluation_clips(store, store.select("mine"), 4.0)
    text_clip, first = clips_of_texts(store, texts)
    assert len(first) == len(texts) >= clips and text_clip.tolist() == list(range(len(texts)))


def test_a_study_keeps_the_ranks_of_every_text(tmp_path: Path) -> None:
    store = write(tmp_path / "s", [whole("worda", "wordb"), whole("wordc"), whole("wordd", "worde", "wordf")])
    protocol = study_protocol(find_benchmark(store, "mine"), num_clusters=2)
    subject = Subject.of_model("model", network(), store, SETTINGS, ("video", "text"))
    outcome = protocol.run(subject, Options(directions=("t2v", "v2t")))
    kept_arrays = outcome.kept()
    assert kept_arrays["mine/video_id"].tolist() == ["v0", "v1", "v2"]
    assert kept_arrays["mine/text_id"].tolist() == ["v0", "v0", "v1", "v2", "v2", "v2"]
    assert kept_arrays["mine/t2v/text"].tolist() == [0, 1, 2, 3, 4, 5] and kept_arrays["mine/v2t/clip"].tolist() == [
        0,
        1,
        2,
    ]
    write_arrays(tmp_path / "ranks.npz", kept_arrays)
    for result in outcome.details["results"]:
        kept = read_ranks(tmp_path / "ranks.npz", "mine", result["direction"])
        assert 100 * kept.hits(1).mean() == pytest.approx(result["r1"])


def test_rows_of_texts_hold_each_clip_as_an_evaluation_does(tmp_path: Path) -> None:
    store = write(tmp_path / "s", [whole("worda", "wordb"), whole("wordc"), whole("wordd", "worde", "wordf")])
    subject = Subject.of_model("model", network(), store, SETTINGS)
    clip_set = ClipSet.of_benchmark(find_benchmark(store, "mine"))
    embedded, rows = subject.embedded(clip_set, ("video", "text")), subject.text_rows(clip_set, ("video", "text"))
    assert rows.embedded.text_clip.tolist() == embedded.text_clip.tolist() == [0, 0, 1, 2, 2, 2]
    assert rows.embedded.ids.tolist() == embedded.ids.tolist() == ["v0", "v1", "v2"]
    for modality, made in rows.embedded.embeddings.items():
        np.testing.assert_allclose(made, embedded.embeddings[modality], rtol=1e-5)
        assert rows.embedded.valid[modality].tolist() == embedded.valid[modality].tolist()


def test_a_caption_far_longer_than_the_others_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write(tmp_path / "s", [whole("worda"), whole("wordb " * 5000), whole("wordc")])
    monkeypatch.setattr(arrays, "FREE_BYTES", 100)
    monkeypatch.setattr(arrays, "LARGEST_RATIO", 1)
    with pytest.raises(TrichordError, match="has 29,999 characters, so an array of all texts would take 359,988 bytes"):
        arrays.text_array(["worda", ("wordb " * 5000).strip(), "wordc"], "captions")
    subject = Subject.of_model("model", network(), store, SETTINGS)
    for embedded in (
        subject.embedded(ClipSet("mine", "test"), ("text",)),
        subject.text_rows(ClipSet("mine", "test"), ("text",)).embedded,
    ):
        assert embedded.captions is not None
        assert embedded.captions.tolist() == ["worda", "wordb wo", "wordc"]
    assert arrays.shortened([]) == [] and arrays.shortened(["", "x" * 30]) == ["", "x" * 12]


def test_clips_without_captions_are_an_error_that_names_them(tmp_path: Path) -> None:
    store = write(tmp_path / "s", [Captions.empty(), Captions.empty()])
    subject = Subject.of_model("model", network(), store, SETTINGS)
    for embed in (subject.embedded, subject.text_rows):
        with pytest.raises(
            TrichordError, match="no video of mine/test has captions, from which its clips would be made"
        ):
            embed(ClipSet("mine", "test"), ("video",))


def test_ids_of_clips_differ_where_a_video_is_called_like_a_numbered_one(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        for name, split in (("v", "test"), ("v@0.00-5.00#2", "test")):
            spans = np.array([0.0, 0.001]) if name == "v" else np.array([0.0])
            said = Captions(spans, spans + 5.0, tuple(TEXTS[: len(spans)]))
            rows = np.ones((9, VIDEO_DIM), np.float32)
            writer.add(Item(name, "mine", split, 9.0, {"visual_2d": rows}, {"visual_2d": 1.0}, said))
    store = Store(tmp_path / "s")
    names = clip_ids(store, evaluation_clips(store, store.select("mine"), 4.0))
    assert len(set(names)) == len(names) == 3 and names[:2] == ["v@0.00-5.00", "v@0.00-5.00#2"]


def test_npy_captions_without_times_are_of_the_whole_clip(tmp_path: Path) -> None:
    items = [
        Item(
            f"v{i}",
            "mine",
            "test",
            2.0,
            {"visual_2d": np.ones((2, 6), np.float32)},
            {"visual_2d": 1.0},
            whole("a", end=2.0),
        )
        for i in range(3)
    ]
    write_store(tmp_path / "store", items)
    export_store(tmp_path / "store", tmp_path / "npy", layout="npy")
    for path in tmp_path.glob("npy/captions/**/v1.json"):
        path.write_text(json.dumps({"text": ["stir milk", "stir"]}))
    import_npy(tmp_path / "npy", tmp_path / "back", WORDS)
    store = Store(tmp_path / "back")
    i = next(i for i in range(3) if store.video_id(i) == "v1")
    assert [times.tolist() for times in store.caption_spans(i)] == [[0.0, 0.0], [2.0, 2.0]]
    texts = evaluation_clips(store, store.select("mine"), 4.0)
    assert len(texts) == 4 and len(clips_of_texts(store, texts)[1]) == 3
