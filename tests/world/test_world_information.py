"""Information of each modality in bits: counts compared with an oracle, exact values with loops, and the profiles."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.world import world_information, write_world
from trichord.world.information import (
    MODALITIES,
    Information,
    channel_information,
    channel_matrix,
    counted_entropy,
    counted_information,
    exact_information,
    plug_in_entropy,
    script_information,
)
from trichord.world.profiles import FACTORS, PROFILES, Channel, Profile, SentenceFidelity
from trichord.world.script import VideoScript, split_combinations, write_script
from trichord.world.vocabulary import ACTIONS, OBJECTS, PLACES, TOOLS

NEW = [name for name in PROFILES if name != "balanced"]


@cache
def script(profile: Profile, num_train: int = 60, num_test: int = 1) -> list[VideoScript]:
    return write_script(num_train=num_train, num_test=num_test, steps_per_video=8, step_s=5.0, seed=0, profile=profile)


@cache
def exact(profile: Profile, steps_per_video: int = 8, split: str = "train") -> Information:
    return exact_information(profile, seed=0, steps_per_video=steps_per_video, split=split)


# ---- counting ----


def plug_in_oracle(xs: list[int], ys: list[int]) -> float:
    """Return the sum of p(x, y) log p(x, y)
    p(x) p(y), by loops.
    """
    n, bits = len(xs), 0.0
    for x, y in set(zip(xs, ys, strict=True)):
        both = sum(a == x and b == y for a, b in zip(xs, ys, strict=True)) / n
        bits += both * math.log2(both / (xs.count(x) / n * (ys.count(y) / n)))
    return bits


@settings(max_examples=50, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=60))
def test_counting_is_the_plug_in_value_and_miller_and_madows_correction(pairs: list[tuple[int, int]]) -> None:
    xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
    correction = (len(set(xs)) + len(set(ys)) - len(set(pairs)) - 1) / (2 * len(pairs) * math.log(2))
    bits = min(max(0.0, plug_in_oracle(xs, ys) + correction), plug_in_entropy(xs))
    assert counted_information(xs, ys) == pytest.approx(bits, abs=1e-9)


@given(symbols=st.lists(st.integers(0, 9), min_size=1, max_size=80))
def test_a_perfect_channel_has_the_information_of_its_source(symbols: list[int]) -> None:
    assert counted_information(symbols, [chr(65 + s) for s in symbols]) == pytest.approx(plug_in_entropy(symbols))
    assert counted_information(symbols, [None] * len(symbols)) == pytest.approx(0, abs=1e-9)
    assert counted_entropy(symbols) >= plug_in_entropy(symbols) >= 0


def test_the_correction_takes_most_of_the_bias() -> None:
    """For independent symbols and 480 steps, as in the default world, the plug-in value is far from 0 and the corrected one is
    close.
    """
    plain, corrected = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        xs, ys = rng.integers(16, size=480).tolist(), rng.integers(10, size=480).tolist()
        plain.append(plug_in_oracle(xs, ys))
        corrected.append(counted_information(xs, ys))
    assert np.mean(plain) > 0.15 and np.mean(corrected) < 0.03


# ---- exact ----


@settings(max_examples=40, deadline=None)
@given(true=st.floats(0, 1), other=st.floats(0, 1), lost=st.floats(0, 1), size=st.integers(1, 16))
def test_a_channels_rows_are_distributions(true: float, other: float, lost: float, size: int) -> None:
    matrix = channel_matrix(Channel(true, other * (1 - true)), size, lost=lost)
    assert matrix.shape == (size, size + 1) and (matrix >= -1e-12).all()
    np.testing.assert_allclose(matrix.sum(1), 1)
    assert channel_information(np.full(size, 1 / size), matrix) <= math.log2(size) + 1e-9


@pytest.mark.parametrize("size", [2, 8, 16])
def test_perfect_erasing_and_guessing_channels_in_closed_form(size: int) -> None:
    p = np.full(size, 1 / size)
    assert channel_information(p, channel_matrix(1.0, size)) == pytest.approx(math.log2(size))
    assert channel_information(p, channel_matrix(0.0, size)) == 0
    assert channel_information(p, channel_matrix(0.3, size)) == pytest.approx(0.3 * math.log2(size))  # erasure channel
    guess = Channel(1 / size, 1 - 1 / size)
    assert channel_information(p, channel_matrix(guess, size)) == pytest.approx(0, abs=1e-12)
    noise = 0.25
    symmetric = math.log2(size) + (1 - noise) * math.log2(1 - noise) + noise * math.log2(noise / (size - 1))
    assert channel_information(p, channel_matrix(Channel(1 - noise, noise), size)) == pytest.approx(symmetric)


@settings(max_examples=40, deadline=None)
@given(a=st.floats(0, 1), b=st.floats(0, 1))
def test_more_fidelity_gives_more_information(a: float, b: float) -> None:
    low, high = sorted((a, b))
    p = np.full(10, 0.1)
    assert channel_information(p, channel_matrix(low, 10)) <= channel_information(p, channel_matrix(high, 10)) + 1e-12
    low, high = 0.1 + 0.9 * low, 0.1 + 0.9 * high  # above chance, where a mistake replaces what is not right
    bits = [channel_information(p, channel_matrix(Channel(f, 1 - f), 10)) for f in (low, high)]
    assert bits[0] <= bits[1] + 1e-12


def test_all_factors_together_against_loops_over_everything() -> None:
    """Computes the information of text about (object, tool, action, place), with chatter, by summing over all contents and
    symbols.
    """
    profile = replace(
        PROFILES["balanced"], object_said=Channel(0.5, 0.2), tool_said=0.4, action_said=0.3, place_said=0.0,
        word_error_rate=0.1, chatter_rate=0.25,
    )  # fmt: skip
    names = [list(OBJECTS), list(TOOLS), list(ACTIONS)]
    contents = [tuple(n.index(v) for n, v in zip(names, c, strict=True)) for c in split_combinations(0)["train"]]
    matrices = []
    for size, true, other in ((16, 0.5, 0.2), (10, 0.4, 0.0), (8, 0.3, 0.0)):
        row = [[0.9 * (true if s == v else other / (size - 1)) for s in range(size)] for v in range(size)]
        matrices.append(np.array([[*r, 1 - sum(r)] for r in row]))
    shown, given_content = np.zeros((17, 11, 9)), 0.0
    for o, t, a in contents:
        joint = 0.75 * np.einsum("i,j,k->ijk", matrices[0][o], matrices[1][t], matrices[2][a])
        joint[-1, -1, -1] += 0.25
        shown += joint / len(contents)
        given_content -= sum(v * math.log2(v) for v in joint.ravel() if v > 0) / len(contents)
    bits = -sum(v * math.log2(v) for v in shown.ravel() if v > 0) - given_content
    assert exact(profile).exact_bits["text"]["all"] == pytest.approx(bits, abs=1e-4)


def test_a_modality_that_shows_everything_has_all_information() -> None:
    everything = Profile("x", 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, order_shown=1, order_said=1, chatter_rate=0)
    information = exact(everything)
    for modality in MODALITIES:
        assert information.exact_bits[modality] == pytest.approx(information.entropy_bits, abs=1e-3)
    nothing = Profile("x", *[0.0] * 10, text=SentenceFidelity(0, 0, 0, 0))
    assert all(v == 0 for row in exact(nothing).exact_bits.values() for v in row.values())


def test_steps_after_the_last_ordinal_are_never_mentioned() -> None:
    profile = Profile("x", order_shown=1, order_said=1, chatter_rate=0.0, word_error_rate=0.0)
    known = exact(profile, 12).exact_bits
    assert known["text"]["order"] == pytest.approx(math.log2(12), abs=1e-3)
    row = exact(profile, 20)
    assert row.entropy_bits["order"] == pytest.approx(math.log2(20), abs=1e-3)
    expected = math.log2(20) - 8 / 20 * math.log2(8)  # which of the last eight it is stays open
    assert row.exact_bits["text"]["order"] == pytest.approx(expected, abs=1e-3)
    assert row.exact_bits["video"]["all"] - row.exact_bits["video"]["order"] == pytest.approx(
        known["video"]["all"] - known["video"]["order"], abs=2e-3
    )


@pytest.mark.parametrize("name", PROFILES)
def test_joint_information_is_between_single_and_total_information(name: str) -> None:
    for split, modality in product(("train", "test"), MODALITIES):
        information = exact(PROFILES[name], split=split)
        row = information.exact_bits[modality]
        assert max(row[f] for f in FACTORS) - 1e-3 <= row["all"] <= information.entropy_bits["all"] + 1e-3
        assert all(row[f] <= information.entropy_bits[f] + 1e-3 for f in FACTORS)


# ---- counted against exact, over real scripts ----


@pytest.mark.parametrize(("num_videos", "tolerance"), [(300, 0.13), pytest.param(1500, 0.06, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", PROFILES)
def test_counted_agrees_with_exact(name: str, num_videos: int, tolerance: float) -> None:
    information = script_information(script(PROFILES[name], num_videos), PROFILES[name])
    assert information.num_steps == 8 * num_videos
    for modality, factor in product(MODALITIES, FACTORS):
        counted, known = information.counted_bits[modality][factor], information.exact_bits[modality][factor]
        assert counted == pytest.approx(known, abs=tolerance), (modality, factor)
    assert all(
        information.entropy_bits[f] == pytest.approx(exact(PROFILES[name]).entropy_bits[f], abs=0.01) for f in FACTORS
    )


@pytest.mark.parametrize("name", PROFILES)
def test_the_default_size_gives_the_same_picture(name: str) -> None:
    """With 480 steps, the count is within half a bit of the truth, and much closer if there are few errors."""
    information = script_information(script(PROFILES[name]), PROFILES[name])
    for modality, factor in product(MODALITIES, FACTORS):
        assert abs(information.counted_bits[modality][factor] - information.exact_bits[modality][factor]) < 0.5


# ---- what the profiles claim ----


def margins(information: Information, bits: str) -> tuple[float, float, float]:
    rows = getattr(information, bits)
    total = {m: rows[m]["all"] if bits == "exact_bits" else sum(rows[m].values()) for m in MODALITIES}
    return total["video"], total["audio"], total["text"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_in_procedure_the_words_know_and_in_scene_the_picture(split: str) -> None:
    for bits in ("exact_bits", "counted_bits"):
        by_profile = {
            n: script_information(script(PROFILES[n], 60, 40), PROFILES[n], split=split)
            for n in ("procedure", "scene", "noisy-audio")
        }
        video, audio, text = margins(by_profile["procedure"], bits)
        assert min(audio, text) > video + 4
        video, audio, text = margins(by_profile["scene"], bits)
        assert video > max(audio, text) + 4
        video, audio, text = margins(by_profile["noisy-audio"], bits)
        assert min(video, text) > audio + 3


def test_the_step_itself_is_known_by_the_right_modality() -> None:
    for factor in ("object", "tool", "action"):
        procedure, scene = (exact(PROFILES[n]).exact_bits for n in ("procedure", "scene"))
        assert min(procedure["audio"][factor], procedure["text"][factor]) > procedure["video"][factor] + 1.5
        assert scene["video"][factor] > max(scene["audio"][factor], scene["text"][factor]) + 1.5


# ---- files ----


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "scene"
    tiny(out, "scene")
    return out


def tiny(out: Path, profile: str) -> str:
    return str(
        write_world(
            out, num_train=2, num_test=1, steps_per_video=2, step_s=2.0, width=96, height=64, frame_rate_hz=2.0,
            workers=1, profile=profile,
        )
    )  # fmt: skip


def test_world_json_matches_counts_from_the_world(world: Path) -> None:
    truth = json.loads((world / "world.json").read_text())
    for split, num_steps in (("train", 4), ("test", 2)):
        information = world_information(world, split=split)
        assert truth["information"][split] == information.record() and information.num_steps == num_steps
    lines = tiny(world, "scene").splitlines()  # kept: the table does not depend on rendering
    assert "3 kept" in lines[0] and len(lines) == 10
    assert lines[1].startswith("information of each modality about a step in bits: estimated over 4 steps of train")
    assert lines[2].split() == [*FACTORS, "all"] and lines[5].split()[:2] == ["video", "exact"]
    assert float(lines[5].split()[-1]) == pytest.approx(
        truth["information"]["train"]["exact_bits"]["video"]["all"], abs=0.006
    )


def test_the_balanced_world_is_counted_without_changing_its_file(tmp_path: Path) -> None:
    assert "video exact" in tiny(tmp_path, "balanced")
    truth = json.loads((tmp_path / "world.json").read_text())
    assert set(truth) == {"format", "parameters", "videos"}
    assert set(truth["videos"][0]["steps"][0]) == {
        "start_s", "end_s", "object", "tool", "action", "place",
        "object_shown", "tool_shown", "action_shown", "action_heard",
    }  # fmt: skip
    assert world_information(tmp_path).num_steps == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(format=0), "made by another version"),
        (lambda t: t["videos"][0].update(place="moon"), "made by another version"),
        (lambda t: t["parameters"]["profile"].update(colour=1), "does not describe a world"),
        (lambda t: t["parameters"]["profile"].update(object_shown={"true": 2.0}), "does not describe a world"),
        (lambda t: t.pop("parameters"), "does not describe a world"),
    ],
)
def test_a_spoiled_world_is_not_counted(tmp_path: Path, world: Path, change, message: str) -> None:
    truth = json.loads((world / "world.json").read_text())
    change(truth)
    (tmp_path / "world.json").write_text(json.dumps(truth))
    with pytest.raises(TrichordError, match=message) as error:
        world_information(tmp_path)
    assert str(tmp_path / "world.json") in str(error.value) and "\n" not in str(error.value)


def test_no_world_and_no_such_split_are_refused(tmp_path: Path, world: Path) -> None:
    with pytest.raises(TrichordError, match=r"world\.json: does not exist; give a folder that"):
        world_information(tmp_path)
    with pytest.raises(TrichordError, match="no split 'val'; give train or test"):
        world_information(world, split="val")


def test_sizes_of_the_content() -> None:
    information = exact(PROFILES["balanced"])
    assert information.entropy_bits["place"] == pytest.approx(math.log2(len(PLACES)), abs=1e-4)
    expected = math.log2(768) + math.log2(5) + math.log2(8)
    assert information.entropy_bits["all"] == pytest.approx(expected, abs=1e-3)
