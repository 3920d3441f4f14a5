"""Training on embeddings of other networks instead of spectrograms and words, and on still pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from scoring_helpers import retrieval_results
from tiny import CLIP_S, CLIPS, VIDEO_DIM, tiny_item, word_vectors, write_tiny_store
from trichord.captions import Captions
from trichord.data.batches import TrainingClips, evaluation_clips
from trichord.data.reader import ClipReader, Clips, require_modalities
from trichord.errors import TrichordError
from trichord.modalities.audio import audio_input_of
from trichord.modalities.base import ReadingSettings
from trichord.modalities.text import text_input_of
from trichord.nn import MCN
from trichord.recipes import Recipe, load_recipe
from trichord.recipes.identity import training_settings
from trichord.store import Item, Store, StoreWriter, WordVectors
from trichord.store.items import PER_CAPTION
from trichord.study import factories, run
from trichord.training.models import load_model

AUDIO_DIM, TEXT_DIM, RATE_HZ = 6, 9, 2.0
NO_WORDS = WordVectors([], np.zeros((0, 5), np.float32), "none", False)


def embedding_item(index: int, split: str, *, audio: bool = True, text: bool = True, **kept: bool) -> Item:
    item = tiny_item(index, split, **kept)
    rng = np.random.default_rng([5, index])
    if audio:
        item.streams["audio"] = rng.standard_normal((int(CLIPS * CLIP_S * RATE_HZ), AUDIO_DIM)).astype(np.float16)
        item.rates_hz["audio"] = RATE_HZ
    if text:
        item.streams["text"] = rng.standard_normal((CLIPS, TEXT_DIM)).astype(np.float16)
        item.rates_hz["text"] = PER_CAPTION
    return item


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of visual rows, audio and text embeddings, without spectrograms or known words. Video 15 lacks both."""
    path = tmp_path_factory.mktemp("embeddings") / "store"
    with StoreWriter(path, NO_WORDS) as writer:
        for index in range(16):
            item = embedding_item(index, "train" if index < 12 else "test", audio=index < 15, text=index < 15)
            item.streams.pop("spectrogram")
            writer.add(item)
    return path


@pytest.fixture(scope="module")
def store(store_path: Path) -> Store:
    return Store(store_path)


EMBEDDINGS = ReadingSettings(audio="embeddings", text="embeddings")


def reader_of(store: Store, **changes: object) -> ClipReader:
    options: dict[str, object] = {"visual_streams": ("visual_2d",), "audio": "embeddings", "text": "embeddings"}
    return ClipReader(store, ("video", "audio", "text"), ReadingSettings(**{**options, **changes}))  # type: ignore[arg-type]


def clips(*rows: tuple[int, float, float, list[int]]) -> Clips:
    item, start_s, end_s, captions = zip(*rows, strict=True)
    return Clips(np.array(item), np.array(start_s), np.array(end_s), [np.array(c) for c in captions])


def test_contents_of_a_batch(store: Store) -> None:
    batch = reader_of(store, max_words=2).read(
        clips((0, 5.0, 9.9, [1]), (1, 10.0, 24.9, [2, 3, 4]), (15, 0.0, 4.9, [0]))
    )
    assert batch.inputs.keys() == {"video", "audio_pooled", "text", "text_mask"}
    for row, (item, begin, end) in enumerate([(0, 10, 20), (1, 20, 50)]):  # int(9.9 * 2) = 19 is included
        mean = store.rows("audio", item, begin, end).astype(np.float64).mean(0)
        np.testing.assert_allclose(batch.inputs["audio_pooled"][row], mean / np.linalg.norm(mean), rtol=1e-5)
    assert batch.inputs["text_mask"].tolist() == [[True, False], [True, True], [False, False]]
    assert (
        np.array_equal(batch.inputs["text"][0, 0], store.rows("text", 0)[1]) and (batch.inputs["text"][0, 1] == 0).all()
    )
    assert np.array_equal(batch.inputs["text"][1], store.rows("text", 1)[[2, 3]])  # cut to max_words captions
    assert (batch.inputs["audio_pooled"][2] == 0).all() and (batch.inputs["text"][2] == 0).all()
    valid = {name: mask.tolist() for name, mask in batch.valid.items()}
    assert valid == {"video": [True] * 3, "audio": [True, True, False], "text": [True, True, False]}
    moved = batch.to(torch.device("cpu")).model_inputs(torch.zeros(0, 5))
    assert set(moved) == {"video", "audio_pooled", "text", "text_mask"}


def test_no_clip_of_a_video_lacks_sound_at_its_end(store: Store) -> None:
    all_clips = evaluation_clips(store, np.arange(15), 4.0)
    assert reader_of(store).read(all_clips).valid["audio"].all()


def test_embeddings_do_not_depend_on_the_clips_beside_them(store: Store) -> None:
    model = factories.build_model(load_recipe("debug"), store, 0).eval()
    pair = clips((0, 5.0, 9.9, [1]), (1, 10.0, 34.9, [2, 3, 4, 5, 6]))
    table = torch.zeros(0, 5)
    both = model.embed(**reader_of(store).read(pair).model_inputs(table))
    alone = model.embed(**reader_of(store).read(pair.take(np.array([0]))).model_inputs(table))
    for modality in ("video", "audio", "text"):
        torch.testing.assert_close(both[modality][:1], alone[modality], rtol=1e-5, atol=1e-6)


def test_a_network_of_audio_embeddings() -> None:
    model = MCN(video_dim=7, embed_dim=8, word_dim=5, reconstruction_dim=4, audio_channels=(4, 4, 4, 4), audio_dim=6)
    assert not any("davenet" in name for name in model.state_dict())
    x = torch.randn(3, 6)
    encoded = model(audio_pooled=x)["audio"]
    gated = model.encoders["audio"].gated
    z = x @ gated.fc.weight.T + gated.fc.bias
    expected = z * torch.sigmoid(z @ gated.gate.weight.T + gated.gate.bias)
    torch.testing.assert_close(encoded.embedding, expected)
    assert torch.equal(encoded.target, x)
    assert encoded.reconstruction is not None and (encoded.reconstruction < 0).any(), "both signs: no relu at the end"
    with pytest.raises(TrichordError, match="reads audio embeddings, not spectrograms; give audio_pooled"):
        model(audio=torch.zeros(1, 40, 16))
    with pytest.raises(TrichordError, match="audio_pooled has the shape"):
        model(audio_pooled=torch.zeros(1, 4))
    with pytest.raises(TrichordError, match="no published checkpoint format"):
        model.to_published()


def test_inputs_selected_by_auto(store: Store, tmp_path: Path) -> None:
    assert (audio_input_of(store), text_input_of(store)) == ("embeddings", "embeddings")
    with StoreWriter(tmp_path / "both", word_vectors()) as writer:
        writer.add(embedding_item(0, "train"))
    both = Store(tmp_path / "both")
    assert (audio_input_of(both), text_input_of(both)) == ("spectrogram", "words")
    assert (audio_input_of(both, "embeddings"), text_input_of(both, "embeddings")) == ("embeddings", "embeddings")
    plain = Store(write_tiny_store(tmp_path / "plain", num_train=1, num_test=0))
    assert (audio_input_of(plain), text_input_of(plain)) == ("spectrogram", "words")
    with pytest.raises(
        TrichordError, match="model.audio is embeddings, but the store has no audio embeddings; extract"
    ):
        audio_input_of(plain, "embeddings")
    with pytest.raises(TrichordError, match="model.text is embeddings, but the store has no text embeddings; extract"):
        text_input_of(plain, "embeddings")
    with pytest.raises(TrichordError, match="order av>t needs audio and text, which the store lacks; it has video"):
        require_modalities(store, ("video", "audio", "text"), "order av>t")
    require_modalities(store, ("video", "audio", "text"), "order av>t", EMBEDDINGS)


def test_published_padding_is_refused_for_text_embeddings(store: Store) -> None:
    with pytest.raises(TrichordError, match="model.mask_padding false .* set it to true for text embeddings"):
        factories.build_model(load_recipe("debug", model={"mask_padding": False}), store, 0)


def test_auto_changes_no_key_of_earlier_studies() -> None:
    def settings(**model: object) -> set[str]:
        return set(training_settings(load_recipe("debug", model=model))["model"])

    assert not settings() & {"audio", "text"}
    assert settings(audio="embeddings", text="words") >= {"audio", "text"}


def quick() -> Recipe:
    return load_recipe(
        "debug",
        training={"tensorboard": False, "max_steps": 3, "device": "cpu"},
        evaluation={"directions": ["t2v", "a2v", "t2va"]},
    )


@pytest.mark.usefixtures("without_chart")
def test_a_study_of_all_orders(store_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    run.run_study(store_path, out, ["av>t", "at>v", "vt>a", "avt"], [0], quick())
    results = json.loads((out / "study.json").read_text())["results"]
    assert len(results) == 4 * 3 and all(0 <= r["r10"] <= 100 for r in results)
    # the test videos give 8 clips each; those of video 15 have neither sound nor text
    assert {(r["direction"], r["num_queries"], r["num_missing"]) for r in results} == {
        ("t2v", 24, 8), ("a2v", 24, 8), ("t2va", 24, 8),
    }  # fmt: skip
    for folder in (out / "stages").iterdir():
        trained = load_model(folder)
        assert (trained.audio, trained.text) == ("embeddings", "embeddings")
        assert (trained.model.arguments["audio_dim"], trained.model.arguments["word_dim"]) == (AUDIO_DIM, TEXT_DIM)
    (last,) = (out / "stages").glob("avt*")
    again = retrieval_results(last, store_path, directions=["t2v"])
    (kept,) = [r for r in results if r["order"] == "avt" and r["direction"] == "t2v"]
    assert again[0].r10 == kept["r10"]


@pytest.mark.usefixtures("without_chart")
def test_a_model_refuses_embeddings_of_another_width(store_path: Path, tmp_path: Path) -> None:
    run.run_study(store_path, tmp_path / "study", ["avt"], [0], quick())
    with StoreWriter(tmp_path / "other", NO_WORDS) as writer:
        item = embedding_item(0, "test")
        item.streams["audio"] = item.streams["audio"][:, :4]
        writer.add(item)
    with pytest.raises(
        TrichordError, match=f"needs audio features of size {AUDIO_DIM}, .* have size 4 .audio.; use the store"
    ):
        retrieval_results(tmp_path / "study", tmp_path / "other")


@pytest.mark.usefixtures("without_chart")
def test_embeddings_learn(tmp_path: Path) -> None:
    """Audio and text embeddings are a linear map of the video: the network finds it, far above chance."""
    rng = np.random.default_rng(0)
    audio_map, text_map = rng.standard_normal((VIDEO_DIM, 8)), rng.standard_normal((VIDEO_DIM, 8))
    with StoreWriter(tmp_path / "s", NO_WORDS) as writer:
        for index in range(64):
            looks = np.abs(rng.standard_normal((1, VIDEO_DIM)))
            streams = {"visual_2d": looks, "audio": looks @ audio_map, "text": looks @ text_map}
            streams = {name: array.astype(np.float16) for name, array in streams.items()}
            rates = {"visual_2d": 0.0, "audio": 0.0, "text": PER_CAPTION}
            captions = Captions(np.zeros(1), np.ones(1), ("zzqq",))
            split = "train" if index < 48 else "test"
            writer.add(Item(f"i{index:02d}", "c", split, 1.0, streams, rates, captions))
    recipe = load_recipe(
        "debug",
        data={"videos_per_batch": 48, "clips_per_video": 1, "min_clip_s": 0.0},
        loss={"contrast": "info_nce", "cosine": True, "temperature": 0.1, "cluster_weight": 0.0, "reconstruction_weight": 0.0},
        training={"tensorboard": False, "epochs": 40, "max_steps": 40, "learning_rate": 1e-2, "device": "cpu"},
        evaluation={"directions": ["t2v", "a2v", "t2a"]},
    )  # fmt: skip
    run.run_study(tmp_path / "s", tmp_path / "out", ["avt"], [0], recipe)
    results = json.loads((tmp_path / "out" / "study.json").read_text())["results"]
    assert {r["direction"]: r["r5"] >= 60 for r in results} == {"t2v": True, "a2v": True, "t2a": True}, results


def test_stills_with_one_caption_are_clips(tmp_path: Path) -> None:
    """Stamps have one pooled picture, speech, and a caption that spans the item."""
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        for index, seconds in enumerate((0.85, 6.0)):
            frames = int(seconds * 100) + 1
            streams = {
                "visual_2d": np.full((1, 4), index + 1, np.float16),
                "spectrogram": np.arange(frames * 40, dtype=np.float32).reshape(frames, 40) / 1000,
            }
            captions = Captions(np.zeros(1), np.array([seconds]), ("worda wordb",))
            rates = {"visual_2d": 0.0, "spectrogram": 100.0}
            writer.add(Item(f"i{index}", "stamps", "train", seconds, streams, rates, captions))
    store = Store(tmp_path / "s")
    options = {"seed": 0, "videos_per_batch": 2, "clips_per_video": 1, "min_clip_s": 0.0}
    drawn = TrainingClips(store, np.arange(2), **options).draw(0, 0)  # type: ignore[arg-type]
    for batch_clips in (drawn.take(np.argsort(drawn.item)), evaluation_clips(store, np.arange(2), 0.0)):
        assert (batch_clips.start_s.tolist(), batch_clips.end_s.tolist()) == ([0, 0], [0.85, 6.0])
        assert [c.tolist() for c in batch_clips.captions] == [[0], [0]]
        batch = reader_of(store, audio="spectrogram", text="words", audio_frames=400).read(batch_clips)
        assert batch.inputs["audio_frames"].tolist() == [86, 400] and batch.inputs["video"].tolist() == [[0.5] * 4] * 2
        assert np.array_equal(batch.inputs["audio"][0, :, :86], store.rows("spectrogram", 0).T)
        assert (batch.inputs["audio"][0, :, 86:] == -80).all() and all(m.all() for m in batch.valid.values())
