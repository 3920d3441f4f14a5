"""Profiles of worlds: the default is unchanged, planted values are shown, heard and written, and the record is complete."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trichord.world import write_world
from trichord.world.draw import StepPainter
from trichord.world.information import shown_by
from trichord.world.profiles import PROFILES, Channel, Profile, SentenceFidelity, profile_of, record_of, through
from trichord.world.render import SAMPLE_RATE_HZ, _Look, frames, soundtrack
from trichord.world.script import Step, VideoScript, vtt_text, write_script
from trichord.world.sounds import action_sound, ambience
from trichord.world.truth import truth_of
from trichord.world.vocabulary import ACTIONS, OBJECTS, ORDINALS, PLACES, TOOLS, chatter, sentence, values_named_in

NEW = [name for name in PROFILES if name != "balanced"]
MUDDLED = Profile(
    "muddled",
    object_shown=Channel(0.3, 0.6),
    tool_shown=Channel(0.3, 0.6),
    action_shown=Channel(0.3, 0.6),
    place_shown=Channel(0.3, 0.6),
    order_shown=Channel(0.3, 0.6),
    action_heard=Channel(0.3, 0.6),
    place_heard=Channel(0.3, 0.6),
    material_heard=False,
)


def script(profile: Profile, num_train: int = 20, num_test: int = 5, step_s: float = 5.0) -> list[VideoScript]:
    return write_script(
        num_train=num_train, num_test=num_test, steps_per_video=8, step_s=step_s, seed=0, profile=profile
    )


# ---- the old world ----


def test_the_default_world_is_unchanged() -> None:
    videos = script(PROFILES["balanced"], 60, 40)
    truth = {**truth_of({"profile": {"name": "balanced"}}, videos, {}), "parameters": {}}
    captions = "".join(vtt_text(video.captions) for video in videos)
    assert hashlib.sha256(json.dumps(truth).encode()).hexdigest() == (
        "f6a72ced7aa8111601972422a7e39770be0ddd15e23e4a6f0a5e8fadb098e058"
    )
    assert hashlib.sha256(captions.encode()).hexdigest() == (
        "a6510a6a3499dd41bfd28b6eaa60b5374c012b4d9789f5153be7b390c5525fae"
    )


def test_the_default_record_has_no_new_fields() -> None:
    assert list(record_of(PROFILES["balanced"])) == [
        "name", "object_shown", "tool_shown", "action_shown", "place_shown", "action_heard", "place_heard",
        "object_said", "tool_said", "action_said", "place_said", "word_error_rate", "filler_rate", "shift_s",
        "early_rate", "split_rate", "chatter_rate", "snr_db",
    ]  # fmt: skip


@pytest.mark.parametrize("name", PROFILES)
def test_a_record_is_restored(name: str) -> None:
    assert profile_of(json.loads(json.dumps(record_of(PROFILES[name])))) == PROFILES[name]


# ---- channels ----


def test_a_channel_has_its_nominal_frequencies() -> None:
    rng = np.random.default_rng(0)
    out = [through(rng, Channel(0.5, 0.3), "b", ("a", "b", "c", "d")) for _ in range(20000)]
    shares = {value: out.count(value) / len(out) for value in ("a", "b", "c", "d", None)}
    assert shares == pytest.approx({"a": 0.1, "b": 0.5, "c": 0.1, "d": 0.1, None: 0.2}, abs=0.015)


@given(true=st.floats(0, 1), seed=st.integers(0, 1000))
def test_a_plain_number_takes_one_draw(true: float, seed: int) -> None:
    rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
    assert (through(rng, true, "a", ("a", "b")) == "a") == (other.random() < true)
    assert rng.random() == other.random()


def test_shares_that_exceed_one_are_refused() -> None:
    with pytest.raises(ValueError, match="probabilities must be in"):
        Channel(0.7, 0.4)


# ---- words ----


def test_words_identify_the_source_of_the_sentence() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        facts = {
            name: str(rng.choice(list(values))) if rng.random() < 0.8 else None
            for name, values in (("object_", OBJECTS), ("tool", TOOLS), ("action", ACTIONS), ("place", PLACES))
        }
        text, facts_said = sentence(rng, **facts), dict(facts)
        facts_said["object"] = facts_said.pop("object_")
        assert values_named_in(text) == {**facts_said, "order": None}, text
        assert values_named_in(f"third step {text}") == {**facts_said, "order": "3"}
        assert set(values_named_in(chatter(rng)).values()) == {None}


def test_ordinals_are_known_to_a_word_table() -> None:
    from trichord.store.words import default_word_vectors

    words = {*ORDINALS, "step"}
    assert not words - set(default_word_vectors(words).words)


@pytest.mark.parametrize("name", NEW)
def test_speech_and_captions_have_the_frequencies_of_the_profile(name: str) -> None:
    profile = PROFILES[name]
    videos = script(replace(profile, word_error_rate=0.0), 300)
    for lines, message, chatter_rate in (
        ("narration", profile.said, profile.chatter_rate),
        ("captions", profile.text or profile.said, 0 if profile.text else profile.chatter_rate),
    ):
        on_topic, right, wrong = 0, dict.fromkeys(message.__dict__, 0), dict.fromkeys(message.__dict__, 0)
        for video in videos[:300]:
            for index, step in enumerate(video.steps):
                texts = [line.text for line in getattr(video, lines) if line.step == index]
                if texts:
                    on_topic += 1
                    truth = {**step.__dict__, "place": video.place, "order": str(index + 1)}
                    for factor, value in values_named_in(" ".join(texts)).items():
                        right[factor] += value == truth[factor]
                        wrong[factor] += value not in (None, truth[factor])
        assert abs(on_topic / 2400 - (1 - chatter_rate)) < 0.03
        for factor, fidelity in message.__dict__.items():
            channel = fidelity if isinstance(fidelity, Channel) else Channel(fidelity)
            assert abs(right[factor] / on_topic - channel.true) < 0.07, (lines, factor)
            assert abs(wrong[factor] / on_topic - channel.other) < 0.07, (lines, factor)


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("step_s", [2.0, 5.0])
def test_lines_are_in_order_within_the_video_and_each_held_out_step_has_one_caption(name: str, step_s: float) -> None:
    for video in script(PROFILES[name], step_s=step_s):
        for lines in (video.narration, video.captions):
            assert lines[0].start_s >= 0 and lines[-1].end_s <= video.duration_s
            assert all(line.start_s < line.end_s for line in lines)
            assert all(a.end_s <= b.start_s for a, b in zip(lines, lines[1:], strict=False))
        if video.split == "test":
            assert [line.step for line in video.captions] == list(range(8))


def test_captions_of_their_own_are_not_the_speech() -> None:
    profile = replace(
        PROFILES["scene"], word_error_rate=0.0, filler_rate=0.0, chatter_rate=1.0, text=SentenceFidelity(1, 1, 1, 1, 1)
    )
    for video in script(profile):
        assert all(line.step is None and set(values_named_in(line.text).values()) == {None} for line in video.narration)
        written: dict[int | None, str] = {}
        for line in video.captions:
            written[line.step] = f"{written.get(line.step, '')} {line.text}"
        for index, step in enumerate(video.steps):
            assert values_named_in(written[index]) == {
                "object": step.object, "tool": step.tool, "action": step.action, "place": video.place,
                "order": str(index + 1),
            }  # fmt: skip


# ---- pictures and sounds, decoded ----


@pytest.fixture(scope="module")
def muddled() -> VideoScript:
    """A video in which vision and hearing are often wrong."""
    videos = script(MUDDLED, 10, 1, step_s=2.0)
    video = next(v for v in videos if set(v.mistaken) == {"place_shown", "place_heard"})
    marks = [mark for step in video.steps for mark in step.mistaken]
    assert {"object_shown", "tool_shown", "action_shown", "action_heard"} <= set(marks)
    return video


def test_the_picture_shows_the_planted_values(muddled: VideoScript) -> None:
    """Each first picture is compared with those of all objects (tools, actions, places): only the planted one is equal."""
    look = _Look(96, 64, 2.0)
    shown = list(frames(muddled, look))
    for index, planted in enumerate(shown_by(muddled)):
        step, at = muddled.steps[index], 4 * index + 3

        def alike(place: str | None, index: int = index, step: Step = step, **changes: object) -> np.ndarray:
            rng = np.random.default_rng([*muddled.seed, 1, index])
            return StepPainter(replace(step.as_seen(), **changes), place, 96, 64, rng).frame(1.5)

        where, shown_values = planted["video"]["place"][0], planted["video"]
        for factor, values in (("object", OBJECTS), ("tool", TOOLS), ("action", ACTIONS)):
            flag = f"{factor}_shown"
            same = [v for v in values if np.array_equal(alike(where, **{factor: v, flag: True}), shown[at])]
            same += [None] * np.array_equal(alike(where, **{flag: False}), shown[at])
            assert same == [shown_values[factor][0]], (index, factor)
        assert [p for p in (*PLACES, None) if np.array_equal(alike(p), shown[at])] == [where]
        same = [n for n in (None, *range(1, 9)) if np.array_equal(alike(where, order_shown=n), shown[at])]
        assert [n and str(n) for n in same] == [shown_values["order"][0]]


def test_the_sound_carries_planted_values_but_not_the_object(muddled: VideoScript) -> None:
    track = soundtrack(replace(muddled, narration=(), snr_db=20.0)).astype(float)
    num = 2 * SAMPLE_RATE_HZ
    background = np.zeros(8 * num)
    where = muddled.place_in("place_heard")
    if where:
        background = ambience(where, 8 * num, SAMPLE_RATE_HZ, np.random.default_rng([*muddled.seed, 3]))
    level = 0.09 / 10
    rest = track - level * 10**-0.5 * background
    for index, planted in enumerate(shown_by(muddled)):
        played = rest[index * num : (index + 1) * num]
        action = planted["audio"]["action"][0]
        expected = np.zeros(num)
        if action:
            rng = np.random.default_rng([*muddled.seed, 2, index])
            expected = level * action_sound(action, None, num, SAMPLE_RATE_HZ, rng)
        np.testing.assert_allclose(played, expected, atol=1e-6)


def dots(picture: np.ndarray) -> int:
    """Count the dots at the left edge of a decoded picture: runs of pink along the line through their centres."""
    column = picture[:, round(0.04 * picture.shape[1])].astype(int)
    pink = (column[:, 0] > 180) & (column[:, 1] < 110) & (column[:, 2] > 140)
    return int((np.diff(np.concatenate([[0], pink])) == 1).sum())


def test_dots_can_be_counted_in_the_finished_video(tmp_path: Path) -> None:
    import av

    write_world(tmp_path, num_train=1, num_test=1, steps_per_video=6, step_s=2.0, profile="scene", workers=1)
    truth = json.loads((tmp_path / "world.json").read_text())
    for video in truth["videos"]:
        with av.open(str(tmp_path / video["split"] / f"{video['video_id']}.mp4")) as container:
            shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        counted = [dots(shown[20 * i + 10]) for i in range(6)]
        assert counted == [step.get("order_shown", 0) for step in video["steps"]]
        assert max(counted) > 1


# ---- shifts ----


def test_pictures_and_sounds_come_late_by_the_shift(muddled: VideoScript) -> None:
    look = _Look(64, 64, 2.0)
    late = list(frames(replace(muddled, picture_off_s=1.0), look))
    usual = list(frames(muddled, look))
    assert all(np.array_equal(a, b) for a, b in zip(late[2:], usual[:-2], strict=True))
    silent = replace(muddled, narration=(), place_heard=False)
    for off_s in (0.75, -0.75):
        off, moved = soundtrack(replace(silent, sound_off_s=off_s)), round(abs(off_s) * SAMPLE_RATE_HZ)
        early, after = (soundtrack(silent), off) if off_s > 0 else (off, soundtrack(silent))
        np.testing.assert_allclose(after[moved:], early[:-moved], atol=1e-7)


def test_shifts_are_drawn_within_their_bounds() -> None:
    profile = replace(PROFILES["noisy-audio"], picture_shift_s=0.5)
    videos = script(profile, 200)
    for name, most in (("picture_off_s", 0.5), ("sound_off_s", 1.5)):
        offs = [getattr(video, name) for video in videos]
        assert 0.95 * most < max(np.abs(offs)) <= most and abs(np.mean(offs)) < 0.15 * most
    late = [v.narration[i].start_s - s.start_s for v in videos for i, s in enumerate(v.steps)]
    assert 2.5 < max(late) <= 3.05
