"""The adapter for `mteb`: its evaluator gives the figures of `trichord evaluate` on tasks of the narrated world."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from doc_examples import python_blocks, run_block, run_examples
from paths import ROOT
from tiny import WORD_DIM, WORDS, word_vectors
from trichord.embedder import Embedder
from trichord.embedder.folder import Parts
from trichord.embedder.mteb import TrichordEncoder
from trichord.embedder.mteb_items import sound_of, video_of
from trichord.embedder.vocabulary import Vocabulary
from trichord.errors import TrichordError
from trichord.evaluation.counts import RankCounts
from trichord.evaluation.ranks import retrieval_ranks
from trichord.modality import Direction
from trichord.nn import MCN
from trichord.store import Store, WordVectors
from trichord.store.encoders import read_encoders
from trichord.tasks.benchmarks import ScoringSettings, find_benchmark
from trichord.tasks.retrieval.measure import QueryRanks, score_direction
from trichord.tasks.subject import ClipSet, Subject
from trichord.training.models import TrainedModel

RATE_HZ = 16000
TASK = SimpleNamespace(name="Tests")  # of mteb's metadata only the name is read


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Disable the network and caches outside the folder of the test; `datasets` keeps the files of a run open until it ends."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb"))
    yield


def network(video_dim: int = 24, word_dim: int = WORD_DIM) -> MCN:
    torch.manual_seed(0)
    return MCN(
        video_dim=video_dim, embed_dim=8, word_dim=word_dim, reconstruction_dim=None, audio_channels=(4, 4, 4, 4)
    ).eval()


def embedder(trained: tuple[str, ...] = ("video", "audio", "text"), cosine: bool = False) -> Embedder:
    settings = ScoringSettings(("visual_2d",), min_clip_s=1.0, audio_frames=120, max_words=6, cosine=cosine)
    return Embedder(Parts(TrainedModel(network(), trained), settings, vocabulary=Vocabulary(word_vectors())))


def sounds(num: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    times = np.arange(RATE_HZ // 2) / RATE_HZ
    return [
        (0.3 * np.sin(2 * np.pi * f * times) * rng.random(len(times))).astype(np.float32)
        for f in rng.uniform(100, 4000, num)
    ]


def centred(model: Embedder, waves: list[np.ndarray]) -> Embedder:
    """Move sounds around the origin, since a network with initial weights maps all of them to one place."""
    mean = model.encode_audio(waves, rate_hz=RATE_HZ).mean(axis=0)
    with torch.no_grad():
        model.model.encoders["audio"].projection.bias.sub_(torch.from_numpy(mean))
    return model


def batches(**columns: list[Any]) -> DataLoader:
    """Return batches as mteb passes them, from a plain list."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return DataLoader(
        rows, batch_size=2, collate_fn=lambda some: {name: [row[name] for row in some] for name in columns}
    )


def ndcg(greater: np.ndarray, k: int) -> float:
    """Return nDCG with one correct item per query and no ties: 1
    log2(rank + 1) up to rank K.
    """
    return float(np.mean([1 / np.log2(g + 2) if g < k else 0.0 for g in greater]))


def check_figures(scores: dict[str, float], ranks: RankCounts | QueryRanks) -> None:
    """Compare figures: mteb rounds to five digits. Without ties, there is only one result."""
    greater = np.asarray(ranks.greater)
    assert (np.asarray(ranks.equal) == 1).all()
    for k in (1, 3, 5, 10):
        assert scores[f"recall_at_{k}"] == pytest.approx(round(float(np.mean(greater < k)), 5), abs=1e-6)
        assert scores[f"ndcg_at_{k}"] == pytest.approx(round(ndcg(greater, k), 5), abs=1e-6)


@pytest.mark.slow  # mteb's evaluator imports transformers
def test_sounds_and_words_through_mteb(tmp_path: Path) -> None:
    from mteb_helpers import retrieval_task, run

    waves = sounds(7)
    texts = [f"word{a} word{b}" for a, b in zip("abcdefg", "tsrqpon", strict=True)]
    clips = {"text": texts, "audio": [{"array": wave, "sampling_rate": RATE_HZ} for wave in waves]}
    model = centred(embedder(), waves)
    encoder = TrichordEncoder(model)
    for category in ("a2t", "t2a"):
        scores = run(encoder, retrieval_task(category, clips), tmp_path)
        sides = {"a": model.encode_audio(waves, rate_hz=RATE_HZ), "t": model.encode_text(texts)}
        ranks = retrieval_ranks(sides[category[0]], sides[category[2]])
        check_figures(scores, ranks)
        assert ranks.greater.any()  # figures that could be wrong


@pytest.mark.slow
def test_several_truths_count_once_as_hit_rate() -> None:
    """With two texts per clip, our R@K needs one of them, like mteb's hit rate; its recall is the share of both."""
    from mteb_helpers import retrieval_task, run

    waves, texts = sounds(4), [f"word{a} word{b}" for a, b in zip("abcdefgh", "hgfedcba", strict=True)]
    texts = [text + f" word{c}" for text, c in zip(texts, "ijklmnop", strict=True)]
    task = retrieval_task(
        "a2t",
        {"audio": [{"array": wave, "sampling_rate": RATE_HZ} for wave in waves], "text": texts},
        truths={str(clip): {str(2 * clip): 1, str(2 * clip + 1): 1} for clip in range(4)},
    )
    model = centred(embedder(), waves)
    scores = run(TrichordEncoder(model), task)
    embeddings = {"audio": model.encode_audio(waves, rate_hz=RATE_HZ), "text": model.encode_text(texts)}
    valid = {"audio": np.ones(4, bool), "text": np.ones(8, bool)}
    direction = Direction.parse("a2t")
    ours = score_direction(embeddings, valid, direction, name="two", text_clip=np.arange(8) // 2)
    assert 100 * scores["hit_rate_at_1"] == pytest.approx(ours.r1, abs=1e-3)
    assert 100 * scores["hit_rate_at_5"] == pytest.approx(ours.r5, abs=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* ill-defined")  # precision of classes that nothing is put into
def test_zero_shot_classes_of_sounds() -> None:
    """The class whose name has the highest score, by mteb's own evaluator."""
    from mteb_helpers import run, zero_shot_task

    waves, labels = sounds(6), WORDS
    model = centred(embedder(), waves)
    scores = model.encode_audio(waves, rate_hz=RATE_HZ) @ model.encode_text(labels).T
    best = scores.argmax(axis=1)
    assert len(set(best.tolist())) > 1
    truth = [*best[:4].tolist(), *(best[4:] + 1) % len(labels)]  # the last two are wrong
    audio = [{"array": wave, "sampling_rate": RATE_HZ} for wave in waves]
    accuracy = run(TrichordEncoder(model), zero_shot_task(audio, truth, labels))
    assert accuracy["accuracy"] == pytest.approx(4 / 6, abs=1e-6)


@pytest.mark.parametrize("fusion", ["sum", "mean_normalized"])
def test_sides_are_joined_by_the_rule(fusion: str) -> None:
    waves, features = sounds(3), [np.abs(np.random.default_rng(i).standard_normal((2, 24))) for i in range(3)]
    model = embedder(cosine=fusion == "mean_normalized")
    encoder = TrichordEncoder(model)
    assert encoder.fusion == fusion
    encoder._videos = model.encode_video  # type: ignore[method-assign]  # features stand for files
    audio = [{"array": wave, "sampling_rate": RATE_HZ} for wave in waves]
    joined = encoder.encode(batches(audio=audio, video=features), task_metadata=TASK)  # type: ignore[arg-type]
    one, two = model.encode_video(features), model.encode_audio(waves, rate_hz=RATE_HZ)
    if fusion == "mean_normalized":
        one, two = (rows / np.linalg.norm(rows, axis=1, keepdims=True) / 2 for rows in (one, two))
    np.testing.assert_allclose(joined, one + two, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(encoder.similarity(joined, joined), joined @ joined.T, rtol=1e-5)
    np.testing.assert_allclose(
        encoder.similarity_pairwise(joined, joined[::-1].copy()), (joined * joined[::-1]).sum(1), rtol=1e-5
    )


def test_modalities_that_were_not_trained_are_not_read() -> None:
    encoder = TrichordEncoder(embedder(("video", "text")))
    assert encoder.mteb_model_meta.modalities == ["video", "text"]
    texts = ["worda", "wordb"]
    embeddings = encoder.encode(batches(text=texts, audio=[None, None]), task_metadata=TASK)  # type: ignore[arg-type]
    np.testing.assert_array_equal(embeddings, encoder.embedder.encode_text(texts))
    with pytest.raises(
        TrichordError, match="^Tests: the inputs are audio, but the model reads video, text; choose another task$"
    ):
        encoder.encode(batches(audio=[None]), task_metadata=TASK)  # type: ignore[arg-type]


def test_items_that_cannot_be_embedded_are_errors_or_counted(caplog: pytest.LogCaptureFixture) -> None:
    texts = ["worda", "xyzzy", "wordb"]
    model = embedder()
    with pytest.raises(
        TrichordError,
        match="^Tests: the model .* does not know any word of .*xyzzy.* pass missing='zero' to count such items as zeros$",
    ):
        TrichordEncoder(model).encode(batches(text=texts), task_metadata=TASK)  # type: ignore[arg-type]
    encoder = TrichordEncoder(model, missing="zero")
    with caplog.at_level(logging.WARNING):
        embeddings = encoder.encode(batches(text=texts), task_metadata=TASK)  # type: ignore[arg-type]
    assert "Tests: 1 of 3 inputs of text are counted as zeros, the first: the model " in caplog.text
    assert encoder.num_missing == {"video": 0, "audio": 0, "text": 1} and not embeddings[1].any()
    np.testing.assert_allclose(embeddings[[0, 2]], model.encode_text(["worda", "wordb"]), rtol=1e-5)
    with pytest.raises(TrichordError, match="^Tests: none of the 2 inputs of text can be embedded: "):
        encoder.encode(batches(text=["xyzzy", ""]), task_metadata=TASK)  # type: ignore[arg-type]


def test_clips_without_sound_keep_the_sum_of_the_rest() -> None:
    model = embedder()
    encoder = TrichordEncoder(model, missing="zero")
    audio = [{"array": sounds(1)[0], "sampling_rate": RATE_HZ}, None]
    embeddings = encoder.encode(batches(text=["worda", "wordb"], audio=audio), task_metadata=TASK)  # type: ignore[arg-type]
    np.testing.assert_allclose(embeddings[1], model.encode_text("wordb")[0], rtol=1e-5)
    assert np.abs(embeddings[0] - model.encode_text("worda")[0]).max() > 1e-3


def test_media_of_every_form(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
    for value in (frames, frames.transpose(0, 3, 1, 2), torch.from_numpy(frames), frames.astype(np.int64).tolist()):
        item = video_of(value, 2.0, tmp_path)
        np.testing.assert_array_equal(item.value, frames)
        assert item.value.dtype == np.uint8 and item.rate_hz == 2.0
    assert video_of({"array": frames, "frame_rate_hz": 5.0}, 2.0, tmp_path).rate_hz == 5.0
    assert video_of({"path": "a.mp4", "bytes": None, "start_s": 1.0}, None, tmp_path).value == Path("a.mp4")
    first, second = (sound_of({"path": "x.wav", "bytes": b"abc"}, tmp_path) for _ in range(2))
    assert first.value != second.value and first.value.read_bytes() == b"abc" and first.value.suffix == ".wav"
    odd = sound_of({"path": "x.a/../b", "bytes": b"abc"}, tmp_path).value
    assert odd.parent == tmp_path and odd.suffix == ""
    decoder = SimpleNamespace(_hf_encoded={"path": "b.mp4", "bytes": None})
    assert video_of(decoder, None, tmp_path).value == Path("b.mp4")
    wave = np.arange(8, dtype=np.float32)
    for array in (wave, np.stack([wave - 1, wave + 1]), np.stack([wave - 1, wave + 1], 1), torch.from_numpy(wave)):
        item = sound_of({"array": array, "sampling_rate": 8000}, tmp_path)
        np.testing.assert_array_equal(item.value, wave)
        assert item.rate_hz == 8000.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "an item has no video; remove the item"),
        (7, r"the frames of a video must be \(T, H, W, 3\) uint8, not int64 of shape \(\); convert them"),
        ({"x": 1}, r"an item of video is a mapping of x; give a path, \{path, bytes\}, or frames"),
        (
            np.zeros((2, 4, 4, 3), np.float32),
            r"the frames of a video must be .*, not float32 of shape \(2, 4, 4, 3\); convert them",
        ),
        (np.full((1, 2, 2, 3), 300), "the frames of a video contain numbers above 255; convert them to uint8"),
    ],
)
def test_invalid_media(value: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match=f"^{message}$"):
        video_of(value, None, tmp_path)


def test_invalid_sound(tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match="^an item of audio is a mapping of array; give a path"):
        sound_of({"array": np.zeros(3)}, tmp_path)


def test_missing_settings_and_models(tmp_path: Path) -> None:
    model = embedder()
    with pytest.raises(TrichordError, match="^unknown fusion rule 'product'; expected auto, sum or mean_normalized$"):
        TrichordEncoder(model, fusion="product")
    with pytest.raises(TrichordError, match="^unknown value 'drop' of missing; expected error or zero$"):
        TrichordEncoder(model, missing="drop")  # type: ignore[arg-type]
    with pytest.raises(TrichordError, match="^words has no effect on a model that is already loaded; omit it$"):
        TrichordEncoder(model, words="table.bin")
    with pytest.raises(TrichordError, match="does not exist"):
        TrichordEncoder(tmp_path / "nothing")


def test_a_saved_model_is_filed_under_its_folder_and_content(tmp_path: Path) -> None:
    embedder().save_pretrained(tmp_path / "net")
    meta = TrichordEncoder(tmp_path / "net").mteb_model_meta
    assert meta.name == "trichord/net" and meta.embed_dim == 8 and meta.max_tokens == 6
    assert meta.experiment_kwargs == {"fusion": "sum", "missing": "error"} and len(meta.revision) == 40
    assert TrichordEncoder(embedder()).mteb_model_meta.revision == meta.revision
    changed = embedder()
    with torch.no_grad():
        next(changed.model.parameters()).add_(1)
    assert TrichordEncoder(changed).mteb_model_meta.revision != meta.revision


def test_without_the_extra_there_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(
        TrichordError, match=r"^the MTEB adapter needs mteb \(.*\); run: pip install 'trichord\[mteb\]'$"
    ):
        TrichordEncoder("my_model")


def test_a_run_folder_is_accepted(tiny_store: Path, tmp_path: Path) -> None:
    from trichord.recipes import load_recipe
    from trichord.study.run import train_order

    recipe = load_recipe("debug", training={"tensorboard": False, "device": "cpu", "max_steps": 1})
    train_order(tiny_store, tmp_path / "run", "vt", 0, recipe)
    encoder = TrichordEncoder(tmp_path / "run")
    assert encoder.mteb_model_meta.name == "trichord/run" and encoder.embedder.modalities == ("video", "text")
    embeddings = encoder.encode(batches(text=["worda", "wordb"]), task_metadata=TASK)  # type: ignore[arg-type]
    np.testing.assert_array_equal(embeddings, Embedder.from_run(tmp_path / "run").encode_text(["worda", "wordb"]))
    with pytest.raises(
        TrichordError, match="run: the model is not on the hub, so revision 'main' has no effect; omit it$"
    ):
        TrichordEncoder(tmp_path / "run", revision="main")


# ---- the narrated world: files


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from trichord.extraction.extract import extract
    from trichord.world import write_world

    root = tmp_path_factory.mktemp("world")
    size = {"steps_per_video": 6, "step_s": 2.0, "width": 96, "height": 64, "frame_rate_hz": 5.0}
    write_world(root / "world", num_train=1, num_test=2, workers=1, **size)  # type: ignore[arg-type]
    extract(root / "world", root / "store", visual_2d="efficientnet-lite0-64", workers=0)
    return root / "world", root / "store"


def world_model(store: Store, cosine: bool = False) -> tuple[MCN, ScoringSettings, Embedder]:
    settings = ScoringSettings(("visual_2d",), min_clip_s=1.0, audio_frames=300, max_words=12, cosine=cosine)
    model = network(store.streams["visual_2d"].dim, store.word_vectors.shape[1])
    words = WordVectors(store.words, store.word_vectors, store.word_source, store.lowercase)
    parts = Parts(
        TrainedModel(model, ("video", "audio", "text")), settings, read_encoders(Path(store.path)), Vocabulary(words)
    )
    return model, settings, Embedder(parts)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["sum", "mean_normalized"])
def test_mteb_and_our_evaluation_agree_on_the_world_in_all_directions(world: tuple[Path, Path], fusion: str) -> None:
    from mteb_helpers import CATEGORIES, retrieval_task, run

    store = Store(world[1])
    model, settings, joint = world_model(store, fusion == "mean_normalized")
    benchmark = find_benchmark(store, "videos")
    subject = Subject.of_model("model", model, store, settings)
    rows = subject.text_rows(ClipSet.of_benchmark(benchmark), ("video", "audio", "text"))
    clips = rows.texts
    parts = [
        {"path": str(world[0] / f"{store.video_id(item)}.mp4"), "start_s": float(start), "end_s": float(end)}
        for item, start, end in zip(clips.item, clips.start_s, clips.end_s, strict=True)
    ]
    texts = [
        " ".join(store.caption_text(item, int(c)) for c in captions)
        for item, captions in zip(clips.item, clips.captions, strict=True)
    ]
    encoder = TrichordEncoder(joint)
    rankings = set()
    for category in CATEGORIES:
        scores = run(encoder, retrieval_task(category, {"video": parts, "audio": parts, "text": texts}))
        ours = score_direction(rows.embeddings, rows.valid, Direction.parse(category), name="world", fusion=fusion)
        assert ours.ranks is not None and ours.num_queries == len(clips) >= 8 and ours.num_missing == 0
        check_figures(scores, ours.ranks)
        assert 100 * scores["recall_at_1"] == pytest.approx(ours.r1, abs=1e-3)
        rankings.add(json.dumps(ours.ranks.greater.tolist()))
    assert len(rankings) > 5  # directions are told apart


@pytest.mark.slow
def test_media_columns_of_datasets_are_read_as_files(world: tuple[Path, Path]) -> None:
    """Whole files as bytes in columns of the types Video and Audio, which `datasets` cannot open here or opens differently."""
    from datasets import Audio, Video

    from mteb_helpers import retrieval_task, run

    _, _, joint = world_model(Store(world[1]))
    paths = sorted(world[0].rglob("*.mp4"))
    media = [{"path": path.name, "bytes": path.read_bytes()} for path in paths]
    texts = ["crack the egg", "stir the pot", "cut the wood"]
    features = {"video": Video(), "audio": Audio()}
    scores = run(
        TrichordEncoder(joint), retrieval_task("t2va", {"video": media, "audio": media, "text": texts}, features)
    )
    gallery = joint.encode_video(paths) + joint.encode_audio(paths)
    check_figures(scores, retrieval_ranks(joint.encode_text(texts), gallery))


def test_the_former_place_still_works() -> None:
    from trichord.evaluation import mteb as former

    with pytest.warns(DeprecationWarning, match="has moved to trichord.embedder.mteb"):
        assert former.TrichordEncoder is TrichordEncoder
    with pytest.raises(AttributeError):
        former.Nothing  # noqa: B018


@pytest.mark.parametrize("name", ["trichord.embedder.mteb", "trichord.embedder.mteb_items"])
def test_examples_run(name: str, example_files: Path) -> None:
    run_examples(name, example_files)


def test_the_block_of_docs_models_md_runs(example_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task, whose videos would be downloaded, is replaced by one on two clips."""
    import mteb

    from mteb_helpers import retrieval_task

    published, evaluate = mteb.get_task, mteb.evaluate
    results: list[Any] = []

    def task_of_two_clips(name: str) -> Any:
        assert published(name).metadata.name == name
        return retrieval_task("t2v", {"text": ["stir the soup", "cut the bread"], "video": ["a.mp4", "b.mp4"]})

    monkeypatch.setattr(mteb, "get_task", task_of_two_clips)
    quiet = partial(evaluate, cache=None, co2_tracker=False, show_progress_bar=False, num_proc=1)
    monkeypatch.setattr(mteb, "evaluate", lambda encoder, task: results.append(quiet(encoder, task)))
    page = ROOT / "docs" / "models.md"
    run_block(python_blocks(page)[1], page, example_files)
    assert 0 < results[0].task_results[0].scores["test"][0]["ndcg_at_10"] <= 1
