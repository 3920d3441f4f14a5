"""Step texts and class names for models that read text embeddings, compared with the encoder of the store; refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import tiny_transformers
from tiny import VIDEO_DIM
from trichord.captions import Captions
from trichord.errors import TrichordError
from trichord.features.text import load_text_encoder
from trichord.modality import Direction
from trichord.nn import MCN
from trichord.releases.steps import Task, task_item
from trichord.store import Item, Store, StoreWriter, WordVectors
from trichord.store.annotations import StepSpan, write_annotations
from trichord.store.items import PER_CAPTION
from trichord.store.names import ENCODERS
from trichord.study.evaluate import evaluate
from trichord.tasks.benchmarks import ScoringSettings
from trichord.tasks.protocol import Options
from trichord.tasks.registry import find_protocol
from trichord.tasks.steps.protocols import PER_VIDEO
from trichord.tasks.steps.scores import embed_seconds, step_directions, step_videos
from trichord.tasks.subject import Subject

NO_WORDS = WordVectors([], np.zeros((0, 5), np.float32), "none", False)
STEPS = ("the red dog barks", "a cat rolls", "the blue ball")
CLASSES = ("RedDog", "BlueCat")
SECONDS = 9


class Films(NamedTuple):
    subject: Subject
    store: Path
    encoder: str  # as given on the command line


def write_store(path: Path, encoder: str, *, step_rows: bool = False, text: bool = True) -> None:
    """Write videos of one task in folders of their class; captions have text embeddings, and steps only if requested."""
    model = load_text_encoder(encoder)
    rng = np.random.default_rng(3)
    with StoreWriter(path, NO_WORDS) as writer:
        for i in range(4):
            streams = {"visual_2d": rng.random((SECONDS, VIDEO_DIM)).astype(np.float32)}
            rates = {"visual_2d": 1.0}
            captions = Captions(np.zeros(1), np.full(1, float(SECONDS)), ("a small tree",))
            if text:
                streams["text"], rates["text"] = model.encode(captions.text), PER_CAPTION
            writer.add(Item(f"{CLASSES[i % 2]}/v{i}", "films", "test", float(SECONDS), streams, rates, captions))
        task = task_item(Task("t", STEPS), "films").item
        if step_rows:
            task = replace(task, streams={"text": model.encode(STEPS)}, rates_hz={"text": PER_CAPTION})
        writer.add(task)
    (path / ENCODERS).write_text(json.dumps({"text": model.fingerprint.to_dict() | {"name": encoder}}))
    for i in range(4):
        spans = [StepSpan(f"{CLASSES[i % 2]}/v{i}", "t", k, STEPS[k], 3.0 * k, 3.0 * k + 2) for k in range(3)]
        write_annotations(path, "films", spans)


def subject_of(store: Path, text: str = "embeddings") -> Subject:
    torch.manual_seed(0)
    model = MCN(
        video_dim=VIDEO_DIM, embed_dim=8, word_dim=16, reconstruction_dim=None, audio_channels=(4, 4, 4, 4)
    ).eval()
    settings = ScoringSettings(audio_frames=300, max_words=8, text=text, min_clip_s=3.0)  # type: ignore[arg-type]
    return Subject.of_model("net", model, Store(store), settings)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Films]:
    """A store that records a model folder by its name, which is found in the working directory."""
    root = tmp_path_factory.mktemp("texts")
    tiny_transformers.bert(root / "bert")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_store(root / "store", "hf:bert")
        yield Films(subject_of(root / "store"), root / "store", "hf:bert")


def joint(films: Films, texts: tuple[str, ...]) -> np.ndarray:
    """Return (P, D) embeddings by hand, one text at a time."""
    assert films.subject.model is not None
    encoder, embedded = load_text_encoder(films.encoder), []
    for text in texts:
        row = torch.from_numpy(encoder.encode([text]).astype(np.float32))[None]
        with torch.no_grad():
            out = films.subject.model.embed(text=row, text_mask=torch.ones(1, 1, dtype=torch.bool))["text"]
        embedded.append(out[0].numpy())
    return np.stack(embedded)


def scores_of(subject: Subject, **options: str) -> list[np.ndarray]:
    directions = step_directions(subject, "films", (Direction.parse("t2v"),), "steps")
    return [v.scores["t2v"] for v in step_videos(subject, "films", "test", directions, "sum", 8.0, **options)]


def test_steps_are_embedded_by_the_encoder_of_the_store(films: Films, tmp_path: Path) -> None:
    texts = joint(films, STEPS)
    # the same videos, with embeddings of the steps in the store
    write_store(tmp_path / "rows", films.encoder, step_rows=True)
    in_store = scores_of(subject_of(tmp_path / "rows"))
    rows_of_steps = scores_of(films.subject)
    assert len(rows_of_steps) == 4 and rows_of_steps[0].shape == (SECONDS, 3)
    for item, (scores, stored) in enumerate(zip(rows_of_steps, in_store, strict=True)):
        np.testing.assert_allclose(scores, stored, atol=1e-5)
        seconds, _ = embed_seconds(films.subject, item, np.arange(SECONDS), SECONDS, "video", 8.0)
        np.testing.assert_allclose(scores, seconds @ texts.T, atol=1e-5)
    outcome = find_protocol("world-steps").run(films.subject, Options(directions=("t2v",), on="films/test"))
    assert [row.measure for row in outcome.rows][0] == PER_VIDEO and outcome.rows[0].num == 4


def test_steps_need_no_text_stream_in_the_store(films: Films, tmp_path: Path) -> None:
    write_store(tmp_path / "store", films.encoder, text=False)
    for scores, expected in zip(scores_of(subject_of(tmp_path / "store")), scores_of(films.subject), strict=True):
        np.testing.assert_array_equal(scores, expected)


def test_class_names_are_embedded_too(films: Films) -> None:
    options = Options(on="films/test", templates=("a {}", "the {} barks"))
    outcome = find_protocol("zero-shot-classification").run(films.subject, options)
    name = "zero-shot-classification:films/test"
    embedded = films.subject.embedded(films.subject.clip_set("films/test", "all"), ("video",))
    names = ("blue cat", "red dog")
    classes = np.stack([joint(films, (f"a {name}", f"the {name} barks")).mean(0) for name in names])
    right = (embedded.embeddings["video"] @ classes.T).argmax(1) == [v.startswith("Red") for v in embedded.videos]
    row = next(row for row in outcome.rows if (row.of, row.measure) == ("video, class", "top-1"))
    assert (row.protocol, row.value, row.num) == (name, pytest.approx(100 * right.mean()), 4)


def test_a_store_that_does_not_record_its_text_encoder(films: Films, tmp_path: Path) -> None:
    write_store(tmp_path / "store", films.encoder)
    (tmp_path / "store" / ENCODERS).unlink()
    subject = subject_of(tmp_path / "store")
    with pytest.raises(
        TrichordError, match=r"does not record the encoder .* needed for step texts; give .* --text_encoder"
    ):
        scores_of(subject)
    for scores, expected in zip(scores_of(subject, text_encoder=films.encoder), scores_of(films.subject), strict=True):
        np.testing.assert_array_equal(scores, expected)
    # the class names must then occur among the captions
    with pytest.raises(TrichordError, match="caption of the clips .'BlueCat' would be 'blue cat'.; add a text"):
        find_protocol("zero-shot-classification").run(subject, Options(on="films/test"))
    with_encoder = Options(on="films/test", text_encoder=films.encoder)
    assert find_protocol("zero-shot-classification").run(subject, with_encoder).rows


def test_encoders_that_do_not_fit_are_refused(films: Films, tmp_path: Path) -> None:
    def error_of(**options: str) -> str:
        with pytest.raises(TrichordError) as caught:
            scores_of(films.subject, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    other = tiny_transformers.bert(tmp_path / "other")
    with (other / "tokenizer_config.json").open("w") as file:
        file.write('{"model_max_length": 8}')
    assert "computes others" in error_of(text_encoder=f"hf:{other}")
    assert "unknown text encoder 'words'" in error_of(text_encoder="words")
    gone = error_of(text_encoder="hf:/nowhere/at-all")
    assert gone.startswith("step texts need the encoder of the text embeddings, hf:/nowhere/at-all, which cannot be")
    assert "does not exist" in gone and "give its location with --text_encoder hf:FOLDER or st:FOLDER" in gone
    write_store(tmp_path / "store", films.encoder)
    (tmp_path / "store" / ENCODERS).unlink()
    wide = f"hf:{tiny_transformers.clip(tmp_path / 'clip')}"
    with pytest.raises(
        TrichordError, match=r"reads text embeddings of size 16, but those of hf:.* have size 24; give the encoder"
    ):
        scores_of(subject_of(tmp_path / "store"), text_encoder=wide)


def test_a_moved_encoder_is_found_where_it_is_named(films: Films, tmp_path: Path) -> None:
    moved = f"hf:{tiny_transformers.bert(tmp_path / 'elsewhere')}"
    for scores, expected in zip(scores_of(films.subject, text_encoder=moved), scores_of(films.subject), strict=True):
        np.testing.assert_array_equal(scores, expected)


def test_an_encoder_without_effect_is_refused(tmp_path: Path) -> None:
    from trichord.evaluation.embedded import Embedded

    Embedded.of({"video": np.eye(3), "text": np.eye(3)}).save(tmp_path / "e.npz")
    with pytest.raises(TrichordError, match="--text_encoder has no effect: .*e.npz does not read text embeddings"):
        evaluate(None, None, embeddings=tmp_path / "e.npz", options=Options(text_encoder="st:x"))
