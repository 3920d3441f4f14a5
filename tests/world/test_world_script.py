"""The script of a world: splits, factors, sentences, captions, without rendering."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.captions import read_captions
from trichord.errors import TrichordError
from trichord.world.script import (
    PROFILES,
    Line,
    Profile,
    VideoScript,
    profile_named,
    split_combinations,
    vtt_text,
    write_script,
)
from trichord.world.vocabulary import (
    ACTIONS,
    CONFUSIONS,
    OBJECTS,
    PERIOD_S,
    PLACES,
    TOOLS,
    chatter,
    mishear,
    sentence,
    title,
)

BALANCED = PROFILES["balanced"]


def script(num_train: int = 60, num_test: int = 40, seed: int = 0, profile: Profile = BALANCED) -> list[VideoScript]:
    return write_script(
        num_train=num_train, num_test=num_test, steps_per_video=8, step_s=5.0, seed=seed, profile=profile
    )


@pytest.fixture(scope="module")
def default() -> list[VideoScript]:
    return script()


@pytest.fixture(scope="module")
def large() -> list[VideoScript]:
    return script(num_train=400, num_test=100, seed=3)


def triples(videos: list[VideoScript], split: str) -> list[tuple[str, str, str]]:
    return [(s.object, s.tool, s.action) for v in videos if v.split == split for s in v.steps]


# ---- splits ----


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_two_parts_are_disjoint_and_complete_and_share_all_pairs(seed: int) -> None:
    parts = split_combinations(seed)
    train, test = set(parts["train"]), set(parts["test"])
    assert not train & test
    assert train | test == set(product(OBJECTS, TOOLS, ACTIONS))
    for pair in combinations(range(3), 2):
        pairs = {tuple(c[i] for i in pair) for c in train}
        assert pairs == {tuple(c[i] for i in pair) for c in test}
        assert len(pairs) == np.prod([len((OBJECTS, TOOLS, ACTIONS)[i]) for i in pair])


def test_held_out_combinations_are_never_trained_on(default: list[VideoScript], large: list[VideoScript]) -> None:
    for videos in (default, large):
        assert not set(triples(videos, "train")) & set(triples(videos, "test"))


def test_every_single_value_is_trained_on_many_times(default: list[VideoScript]) -> None:
    train = triples(default, "train")
    assert len(train) == 480
    for values, fewest in ((OBJECTS, 15), (TOOLS, 30), (ACTIONS, 40)):
        counts = Counter(value for triple in train for value in triple if value in values)
        assert set(counts) == set(values) and min(counts.values()) >= fewest, counts
    assert Counter(v.place for v in default) == dict.fromkeys(PLACES, 20)


def test_the_held_out_gallery_is_rich(default: list[VideoScript]) -> None:
    test = triples(default, "test")
    captions = [line.text for v in default if v.split == "test" for line in v.captions]
    assert len(set(test)) == len(test) == 320
    assert len(captions) == 320 and len(set(captions)) >= 0.97 * 320


def test_sizes_of_the_vocabulary() -> None:
    assert len(OBJECTS) >= 12 and len(TOOLS) >= 8 and len(ACTIONS) >= 6 and len(PLACES) >= 3
    assert set(PERIOD_S) == set(ACTIONS)


# ---- the same for the same arguments ----


def test_the_same_seed_gives_the_same_script() -> None:
    assert script(3, 2) == script(3, 2)
    assert script(3, 2) != script(3, 2, seed=1)


def test_more_videos_do_not_change_the_first_ones(default: list[VideoScript]) -> None:
    few = script(3, 2)
    assert few[:3] == default[:3] and few[3:] == default[60:62]


# ---- what is shown and said ----


def test_shown_values_follow_the_profile(large: list[VideoScript]) -> None:
    steps = [step for v in large for step in v.steps]
    for name in ("object_shown", "tool_shown", "action_shown", "action_heard"):
        share = np.mean([getattr(step, name) for step in steps])
        assert abs(share - getattr(BALANCED, name)) < 0.012, name


def test_spoken_values_follow_the_profile(large: list[VideoScript]) -> None:
    mentioned: dict[str, list[bool]] = {"object": [], "tool": [], "action": []}
    for video in large:
        for line in video.narration:
            if line.step is not None:
                step = video.steps[line.step]
                words = f" {line.text} "
                forms = [form for pair in ACTIONS[step.action] for form in pair]
                mentioned["object"].append(any(f" {w} " in words for w in (step.object, *OBJECTS[step.object])))
                mentioned["tool"].append(any(f" {w} " in words for w in (step.tool, *TOOLS[step.tool])))
                mentioned["action"].append(any(f" {form} " in words for form in forms))
    for name, expected in (
        ("object", BALANCED.object_said),
        ("tool", BALANCED.tool_said),
        ("action", BALANCED.action_said),
    ):
        assert abs(np.mean(mentioned[name]) - expected) < 0.02, name


def test_values_that_are_not_said_have_no_words() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        vague = sentence(rng, object_=None, tool=None, action=None, place=None)
        assert " it" in vague and not {*OBJECTS, *TOOLS, *ACTIONS} & set(vague.split())
        full = sentence(rng, object_="fern", tool="scissors", action="wash", place="beach")
        assert full.endswith("down at the beach") and " a scissors" not in full and " a shears" not in full


def test_sentences_vary() -> None:
    rng = np.random.default_rng(0)
    same_facts = {sentence(rng, object_="bread", tool="saw", action="cut", place=None) for _ in range(200)}
    assert len(same_facts) > 80


def test_titles_name_action_object_and_place(default: list[VideoScript]) -> None:
    for video in default[:10]:
        assert video.place in video.title and video.steps[0].object in video.title
    rng = np.random.default_rng(0)
    assert title(rng, ["bread", "fern"], "cut", "garage").endswith("cut bread and a fern in my garage")


# ---- time ----


@pytest.mark.parametrize("step_s", [2.0, 5.0, 8.0])
def test_narration_is_near_its_step_in_order_and_within_the_video(step_s: float) -> None:
    videos = write_script(num_train=30, num_test=5, steps_per_video=6, step_s=step_s, seed=1, profile=BALANCED)
    offsets = []
    for video in videos:
        assert video.duration_s == 6 * step_s
        for lines in (video.narration, video.captions):
            assert lines[0].start_s >= 0 and lines[-1].end_s <= video.duration_s
            for line, following in zip(lines, lines[1:], strict=False):
                assert line.start_s < line.end_s <= following.start_s
        for i, line in enumerate(video.narration):
            assert line.end_s <= video.steps[i].end_s + BALANCED.shift_s + 1e-3
            offsets.append(line.start_s - video.steps[i].start_s)
    if step_s >= 5:
        assert max(np.abs(offsets)) <= BALANCED.shift_s + 0.05
        assert 0.1 < np.mean(np.array(offsets) < 0) < 0.35


def test_training_captions_follow_the_profile(large: list[VideoScript]) -> None:
    narration = [line for v in large if v.split == "train" for line in v.narration]
    captions = [line for v in large if v.split == "train" for line in v.captions]
    assert abs(np.mean([line.step is None for line in narration]) - BALANCED.chatter_rate) < 0.02
    assert abs(len(captions) / len(narration) - 1 - BALANCED.split_rate) < 0.03


def test_each_held_out_step_has_one_caption(large: list[VideoScript]) -> None:
    for video in large:
        if video.split == "test":
            assert [line.step for line in video.captions] == list(range(8))


# ---- recogniser's errors ----


def edits(spoken: list[str], recognized: list[str]) -> int:
    """Return the Levenshtein distance in words, by the plain recurrence."""
    row = list(range(len(recognized) + 1))
    for i, a in enumerate(spoken, 1):
        above, row = row, [i]
        for j, b in enumerate(recognized, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b)))
    return row[-1]


@pytest.mark.parametrize(("rate", "fillers"), [(0.0, 0.0), (0.1, 0.04), (0.3, 0.0), (0.0, 0.2)])
def test_word_errors_come_at_the_given_rate(rate: float, fillers: float) -> None:
    profile = replace(BALANCED, word_error_rate=rate, filler_rate=fillers, split_rate=0.0)
    wrong = total = 0
    for video in script(num_train=60, num_test=20, profile=profile):
        for line, caption in zip(video.narration, video.captions, strict=True):
            wrong += edits(line.text.split(), caption.text.split())
            total += len(line.text.split())
    assert abs(wrong / total - (rate + fillers)) < 0.02


def test_recognition_errors_sound_similar_and_keep_a_word() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        recognized = mishear(rng, "slice the tomato", word_error_rate=1.0, filler_rate=0.0).split()
        assert recognized and all(
            any(word in CONFUSIONS.get(w, ()) or word == w for w in ("slice", "the", "tomato")) for word in recognized
        )
    assert mishear(rng, "slice the tomato", word_error_rate=0.0, filler_rate=0.0) == "slice the tomato"
    assert mishear(rng, "hmm", word_error_rate=1.0, filler_rate=0.0) == "hmm"


def test_captions_are_plain_words_that_a_word_table_knows(large: list[VideoScript]) -> None:
    from trichord.store.words import default_word_vectors

    texts = [line.text for v in large for line in (*v.captions, *v.narration)] + [v.title for v in large]
    texts += [chatter(np.random.default_rng(i)) for i in range(100)]
    texts += [other for others in CONFUSIONS.values() for other in others]
    words = {word for text in texts for word in text.split()}
    assert all(word.isalpha() and word == word.lower() for word in words)
    assert not words - set(default_word_vectors(words).words)
    assert all(word not in others for word, others in CONFUSIONS.items())


# ---- files and errors ----


def test_vtt_is_read_back_by_the_caption_reader(default: list[VideoScript], tmp_path) -> None:
    for video in default[:5]:
        path = tmp_path / f"{video.video_id}.vtt"
        path.write_text(vtt_text(video.captions))
        captions = read_captions(path)
        assert captions.text == tuple(line.text for line in video.captions)
        np.testing.assert_allclose(captions.start_s, [line.start_s for line in video.captions], atol=5e-4)
        np.testing.assert_allclose(captions.end_s, [line.end_s for line in video.captions], atol=5e-4)


def test_vtt_counts_minutes_and_hours() -> None:
    text = vtt_text((Line(59.9996, 3661.5, "now", 0),))
    assert text == "WEBVTT\n\n00:01:00.000 --> 01:01:01.500\nnow\n"


def test_an_unknown_profile_is_refused() -> None:
    assert profile_named("balanced") is BALANCED
    with pytest.raises(TrichordError, match="unknown world profile 'noisy'; expected one of balanced"):
        profile_named("noisy")


def test_validation_videos_are_further_videos_of_held_out_combinations() -> None:
    counts = {"num_train": 5, "num_test": 5, "steps_per_video": 8, "step_s": 5.0, "seed": 3, "profile": BALANCED}
    plain, videos = write_script(**counts), write_script(**counts, num_val=7)
    assert videos[:10] == plain, "the other videos do not depend on them"
    assert [video.video_id for video in videos[10:]] == [f"val-{i:04d}" for i in range(7)]
    assert set(triples(videos, "val")) <= set(split_combinations(3)["test"])
    assert triples(videos, "val")[:40] != triples(videos, "test")
    assert all(video.title for video in videos) and all(len(video.captions) == 8 for video in videos[5:])
