"""Rendered worlds: valid, complete, reproducible, resumable, never mixed with another world."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trichord.captions import read_captions
from trichord.errors import TrichordError
from trichord.logs import passing_messages
from trichord.world import WorldSummary, world_information, write_world
from trichord.world.draw import StepPainter
from trichord.world.render import SAMPLE_RATE_HZ, _Look, frames, soundtrack
from trichord.world.script import PROFILES, Step, VideoScript, write_script
from trichord.world.sounds import action_sound, ambience
from trichord.world.sprites import sprite
from trichord.world.vocabulary import ACTIONS, OBJECTS, PLACES, TOOLS

TINY = {
    "num_train": 1, "num_test": 1, "steps_per_video": 2, "step_s": 2.0, "width": 96, "height": 64, "frame_rate_hz": 5.0,
}  # fmt: skip


def tiny_world(out: Path, **changes) -> WorldSummary:
    return write_world(out, **{**TINY, "workers": 1, **changes})


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "tiny"
    tiny_world(out)
    return out


@pytest.fixture(scope="module")
def video() -> VideoScript:
    return write_script(num_train=1, num_test=1, steps_per_video=3, step_s=4.0, seed=5, profile=PROFILES["balanced"])[0]


# ---- files ----


def test_the_world_has_videos_captions_and_the_truth(world: Path) -> None:
    names = {"test/test-0000.mp4", "test/test-0000.vtt", "train/train-0000.mp4", "train/train-0000.vtt", "world.json"}
    assert set(files(world)) == names


def test_a_world_with_validation_videos(tmp_path: Path) -> None:
    summary = tiny_world(tmp_path / "w", num_val=1)
    assert "1 training videos and 2 held-out videos, 1 of them for validation" in str(summary) and summary.num_val == 1
    assert {"val/val-0000.mp4", "val/val-0000.vtt"} <= set(files(tmp_path / "w"))
    assert world_information(tmp_path / "w").num_steps == 2
    assert tiny_world(tmp_path / "w", num_val=1).num_kept == 3
    with pytest.raises(TrichordError, match="its num_val is 1 instead of 0"):
        tiny_world(tmp_path / "w")
    with pytest.raises(TrichordError, match="num_val is -1; it must be 0 or a positive integer"):
        tiny_world(tmp_path / "v", num_val=-1)


@pytest.mark.parametrize("name", ["train/train-0000.mp4", "test/test-0000.mp4"])
def test_a_video_has_pictures_and_sound_of_the_right_length(world: Path, name: str) -> None:
    import av

    with av.open(str(world / name)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert (picture.width, picture.height, picture.codec_context.name) == (96, 64, "h264")
        assert (sound.rate, sound.codec_context.name) == (SAMPLE_RATE_HZ, "aac")
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(picture)]
    assert len(shown) == 20
    assert np.mean(np.abs(shown[2].astype(int) - shown[15])) > 5  # two steps
    with av.open(str(world / name)) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert abs(len(samples) / SAMPLE_RATE_HZ - 4.0) < 0.15
    assert 0.01 < np.sqrt(np.mean(samples**2)) < 0.3


def test_captions_are_those_of_the_script(world: Path) -> None:
    videos = write_script(num_train=1, num_test=1, steps_per_video=2, step_s=2.0, seed=0, profile=PROFILES["balanced"])
    for video in videos:
        captions = read_captions(world / video.split / f"{video.video_id}.vtt")
        assert captions.text == tuple(line.text for line in video.captions)
        assert captions.end_s.max() <= 4.0


def test_the_truth_lists_every_step(world: Path) -> None:
    truth = json.loads((world / "world.json").read_text())
    assert truth["parameters"]["seed"] == 0 and truth["parameters"]["profile"]["name"] == "balanced"
    assert [video["video_id"] for video in truth["videos"]] == ["train-0000", "test-0000"]
    for video in truth["videos"]:
        for index, step in enumerate(video["steps"]):
            assert step["object"] in OBJECTS and step["tool"] in TOOLS and step["action"] in ACTIONS
            assert step["place"] in PLACES and step["start_s"] == 2.0 * index
        assert [line["step"] for line in video["narration"]] in ([0, 1], [None, 1], [0, None], [None, None])


# ---- determinism, going on, refusal ----


def test_the_same_arguments_give_the_same_bytes_in_other_processes(world: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    with passing_messages(lines.append):
        summary = tiny_world(tmp_path / "again", workers=2)
    assert files(tmp_path / "again") == files(world)
    assert summary.num_rendered == 2 and "2/2 videos" in lines[-1]


def test_a_finished_world_is_kept(world: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    summary = tiny_world(world)
    assert (summary.num_rendered, summary.num_kept) == (0, 2)
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*")} == before
    assert "1 training videos and 1 held-out videos" in str(summary) and "2 kept" in str(summary)


@pytest.mark.parametrize("lost", ["train-0000.mp4", "train-0000.vtt"])
def test_an_interrupted_world_is_continued(tmp_path: Path, world: Path, lost: str) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(world, copy)
    (copy / "train" / lost).unlink()
    assert tiny_world(copy).num_rendered == 1
    assert files(copy) == files(world)


def test_a_failure_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: Path) -> None:
    from trichord.world import render

    def break_off(video: VideoScript, look: _Look):
        yield np.zeros((64, 96, 3), np.uint8)
        raise KeyboardInterrupt

    monkeypatch.setattr(render, "frames", break_off)
    with pytest.raises(KeyboardInterrupt):
        tiny_world(tmp_path / "w")
    assert set(files(tmp_path / "w")) == {"world.json"}
    monkeypatch.undo()
    tiny_world(tmp_path / "w")
    assert files(tmp_path / "w") == files(world)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, r"different world \(its seed is 0 instead of 1\); give another folder or remove"),
        ({"num_train": 2}, r"different world \(its num_train is 1 instead of 2\)"),
        ({"width": 128}, r"different world \(its width is 96 instead of 128\)"),
    ],
)
def test_a_different_world_is_refused(world: Path, changes: dict, message: str) -> None:
    before = files(world)
    with pytest.raises(TrichordError, match=message) as error:
        tiny_world(world, **changes)
    assert str(world / "world.json") in str(error.value) and "\n" not in str(error.value)
    assert files(world) == before


def test_a_world_of_another_version_is_refused(tmp_path: Path, world: Path) -> None:
    truth = json.loads((world / "world.json").read_text())
    truth["format"] = 0
    (tmp_path / "world.json").write_text(json.dumps(truth))
    with pytest.raises(TrichordError, match="made by another version"):
        tiny_world(tmp_path)


@pytest.mark.parametrize("content", ["", "[1, 2]", "{}", "not json"])
def test_a_spoiled_truth_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "world.json").write_text(content)
    with pytest.raises(TrichordError, match="world.json does not describe a world; remove"):
        tiny_world(tmp_path)


def test_a_folder_of_other_videos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(TrichordError, match="contains train/ but no world.json"):
        tiny_world(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_test": 0}, "num_test is 0; it must be at least 1"),
        ({"step_s": 0.5}, "step_s is 0.5; it must be in the range from 1 to 60 seconds"),
        ({"seed": -1}, "seed is -1"),
        ({"width": 97}, "97x64 cannot be encoded; give an even width and height"),
        ({"frame_rate_hz": 0.0}, "frame_rate_hz is 0.0; it must be in the range from 1 to 60"),
        ({"workers": 0}, "workers is 0; it must be at least 1"),
        ({"profile": "noisy"}, "unknown world profile 'noisy'"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(TrichordError, match=message):
        tiny_world(tmp_path / "w", **changes)
    assert not list(tmp_path.glob("w/t*"))


# ---- pictures ----


def painted(step: Step, times_s: tuple[float, ...], place: str | None = "kitchen") -> list[np.ndarray]:
    painter = StepPainter(step, place, 160, 90, np.random.default_rng(0))
    return [painter.frame(t).astype(int) for t in times_s]


def a_step(**changes) -> Step:
    step = Step(0.0, 5.0, "tomato", "spoon", "cut", True, True, True, True)
    return replace(step, **changes)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_move_and_change_the_picture(action: str) -> None:
    still, early, late = painted(a_step(action=action, action_shown=False), (0.0, 0.05, 4.05))
    assert difference(still, early) == 0 and difference(early, late) == 0
    start, moved, end = painted(a_step(action=action), (0.0, 0.17, 4.8))
    assert difference(start, moved) > 0.5
    assert difference(start, end) > 3 and difference(still, end) > 3


def test_each_action_moves_differently() -> None:
    shown = {action: painted(a_step(action=action), (4.0,))[0] for action in ACTIONS}
    names = list(shown)
    assert all(difference(shown[a], shown[b]) > 4 for i, a in enumerate(names) for b in names[:i])


def test_hidden_values_do_not_affect_the_picture() -> None:
    hidden = [painted(a_step(object=name, object_shown=False), (1.0,))[0] for name in ("tomato", "wheel")]
    assert difference(*hidden) == 0
    bare = [painted(a_step(tool=name, tool_shown=False), (1.0,))[0] for name in ("saw", "jug")]
    assert difference(*bare) == 0
    assert difference(*(painted(a_step(), (1.0,), place)[0] for place in ("garden", None))) > 10


def test_all_objects_and_tools_look_different() -> None:
    looks = {name: np.asarray(sprite(name, 60)).astype(int) for name in (*OBJECTS, *TOOLS, "covered", "hand")}
    for look in looks.values():
        assert 0.05 < (look[..., 3] > 0).mean() < 0.95
    names = list(looks)
    assert all(difference(looks[a], looks[b]) > 8 for i, a in enumerate(names) for b in names[:i])


def test_the_same_step_never_looks_the_same_twice() -> None:
    one, two = (StepPainter(a_step(), "beach", 160, 90, np.random.default_rng(seed)).frame(1.0) for seed in (0, 1))
    assert difference(one.astype(int), two.astype(int)) > 3


@pytest.mark.parametrize("rate_hz", [1.0, 2.5, 12.0])
def test_every_picture_is_of_its_step(video: VideoScript, rate_hz: float) -> None:
    shown = list(frames(video, _Look(64, 64, rate_hz)))
    assert len(shown) == round(12 * rate_hz) and all(f.shape == (64, 64, 3) and f.dtype == np.uint8 for f in shown)


# ---- sounds ----


def bands(sound: np.ndarray) -> np.ndarray:
    """Return the level and the variation of 16 frequency bands."""
    power = np.abs(np.fft.rfft(sound[: len(sound) // 512 * 512].reshape(-1, 512) * np.hanning(512))) ** 2
    levels = np.log(power[:, :256].reshape(len(power), 16, 16).mean(2) + 1e-6)
    return np.concatenate([levels.mean(0), levels.std(0)])


def test_actions_sound_different_for_every_object() -> None:
    def bands_of_actions(seed: int, objects: list[str]) -> dict[str, list[np.ndarray]]:
        rng = np.random.default_rng(seed)
        return {a: [bands(action_sound(a, o, 5 * 16000, 16000, rng)) for o in objects] for a in ACTIONS}

    means = {action: np.mean(sounds, axis=0) for action, sounds in bands_of_actions(0, list(OBJECTS)[::3]).items()}
    right = [
        action == min(means, key=lambda a: float(np.linalg.norm(means[a] - sound)))
        for action, sounds in bands_of_actions(1, list(OBJECTS)[1::3]).items()
        for sound in sounds
    ]
    assert np.mean(right) > 0.95


@pytest.mark.parametrize("num_samples", [1, 700, 32000])
def test_sounds_have_the_asked_length_and_level(num_samples: int) -> None:
    rng = np.random.default_rng(0)
    sounds = [action_sound(action, "bolt", num_samples, 16000, rng) for action in ACTIONS]
    sounds += [ambience(place, num_samples, 16000, rng) for place in PLACES]
    for sound in sounds:
        assert sound.shape == (num_samples,) and np.isfinite(sound).all()
        if num_samples > 10000:
            assert abs(np.sqrt(np.mean(sound**2)) - 1) < 1e-3


def test_speech_exceeds_other_sound_by_the_snr(video: VideoScript) -> None:
    def level_db(sound: np.ndarray) -> float:
        return float(10 * np.log10(np.mean(sound.astype(np.float64) ** 2)))

    quiet = replace(video, steps=tuple(replace(s, action_heard=False) for s in video.steps), place_heard=False)
    silent = replace(video, narration=())
    speech, rest, both = soundtrack(quiet), soundtrack(silent), soundtrack(video)
    np.testing.assert_allclose(speech + rest, both, atol=1e-6)
    for line in video.narration:
        spoken = speech[round(line.start_s * SAMPLE_RATE_HZ) : round(line.end_s * SAMPLE_RATE_HZ)]
        assert abs(level_db(spoken) - level_db(rest) - video.snr_db) < 2
    assert not soundtrack(replace(quiet, narration=())).any()
