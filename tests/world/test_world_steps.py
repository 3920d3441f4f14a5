"""The true steps of a world next to its videos, and a model trained on the world finds them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract_helpers import quick_processes
from release_helpers import WORDS, refused
from tiny import tiny_item
from trichord.errors import TrichordError
from trichord.releases import import_world_steps
from trichord.store import Store, StoreWriter
from trichord.store.annotations import read_annotations, step_items
from trichord.store.words import word_vectors_for
from trichord.tasks.protocol import Options, Row
from trichord.tasks.registry import find_protocol
from trichord.tasks.subject import Subject
from trichord.world.profiles import profile_named, record_of
from trichord.world.script import write_script
from trichord.world.truth import truth_of


def write_truth(root: Path) -> dict[str, Any]:
    """Write world.json for two test videos of four steps of 5 s."""
    counts = {"num_train": 1, "num_test": 2, "steps_per_video": 4}
    profile = profile_named("balanced")
    videos = write_script(**counts, step_s=5.0, seed=3, profile=profile)
    parameters = {**counts, "step_s": 5.0, "seed": 3, "profile": record_of(profile)}
    truth = truth_of(parameters, videos, {})
    root.mkdir(parents=True)
    (root / "world.json").write_text(json.dumps(truth))
    return json.loads(json.dumps(truth))


def write_store(path: Path, collection: str = "world") -> Path:
    """Write the two test videos as extraction names them; the training video is missing."""
    with StoreWriter(path, word_vectors_for(["add the salt"], WORDS)) as writer:
        for i in range(2):
            item = tiny_item(i, "test", audio=False, captions=False)
            writer.add(replace(item, video_id=f"test/test-{i:04d}", collection=collection, duration_s=20.0))
    return path


def test_true_steps_join_the_videos(tmp_path: Path) -> None:
    truth, store = write_truth(tmp_path / "w"), write_store(tmp_path / "s")
    summary = import_world_steps(tmp_path / "w", store, WORDS)
    opened = Store(store)
    assert opened.collections() == {("world", "test"): 2, ("world", "steps"): 2} and summary.num_added == 2
    (video,) = (v for v in truth["videos"] if v["video_id"] == "test-0001")
    name = "test/test-0001"
    spans = read_annotations(opened, "world")[name, name]
    assert [(s.start_s, s.end_s) for s in spans] == [(s["start_s"], s["end_s"]) for s in video["steps"]]
    texts = [opened.caption_text(step_items(opened, "world")[name], k) for k in range(4)]
    assert texts == [span.text for span in spans]
    for text, step in zip(texts, video["steps"], strict=True):
        assert step["object"] in text and step["tool"] in text
    again = import_world_steps(tmp_path / "w", store, WORDS)
    assert (again.num_added, again.num_present) == (0, 2)


def test_a_folder_that_is_not_the_world_of_the_store_is_refused(tmp_path: Path) -> None:
    write_truth(tmp_path / "w")
    store = write_store(tmp_path / "s", "films")
    message = refused(import_world_steps, tmp_path / "w", store)
    assert (
        "contains no video of" in message
        and "in collection world (its collections are films)" in message
        and "--collection" in message
    )
    import_world_steps(tmp_path / "w", store, WORDS, collection="films")
    (tmp_path / "w" / "world.json").write_text('{"videos": [{"split": "test"}]}')
    assert "does not describe a world" in refused(import_world_steps, tmp_path / "w", store)
    with pytest.raises(TrichordError, match="does not exist"):
        import_world_steps(tmp_path / "w", tmp_path / "none", WORDS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_trained_model_finds_the_steps_and_an_untrained_one_does_not(tmp_path: Path) -> None:
    """Limits are far below what is observed; 25 is more than four standard deviations above random embeddings on 8 videos."""
    import torch

    from trichord.extraction.extract import extract
    from trichord.nn import MCN
    from trichord.recipes import load_recipe
    from trichord.study.loading import load_for_scoring
    from trichord.study.run import run_study
    from trichord.world import write_world

    small = {"width": 160, "height": 90, "frame_rate_hz": 4.0}
    with quick_processes():
        write_world(tmp_path / "w", num_train=22, num_test=8, seed=0, **small)  # type: ignore[arg-type]
        extract(tmp_path / "w", tmp_path / "s", collection="world", visual_2d="efficientnet-lite0-96")
    import_world_steps(tmp_path / "w", tmp_path / "s")
    run_study(tmp_path / "s", tmp_path / "study", ["vt"], [0], load_recipe("demo"))
    store, trained, _, settings = load_for_scoring(tmp_path / "study", tmp_path / "s")
    protocol = find_protocol("world-steps")

    def score(model: MCN) -> list[Row]:
        subject = Subject.of_model("model", model, store, settings, ("video", "text"))
        return protocol.run(subject, Options(directions=("t2v",), on="world")).rows

    torch.manual_seed(0)
    aligned, best, seconds = score(trained.model)
    assert aligned.chance is not None and best.chance is not None and seconds.chance is not None
    assert aligned.value > aligned.chance + 25
    assert best.value > 3 * best.chance and seconds.value > 3 * seconds.chance
    for parameter in trained.model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    by_chance = score(trained.model)[0]
    assert np.abs(by_chance.value - aligned.chance) < 25
