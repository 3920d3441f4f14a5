"""Ids with file extensions, lists that do not match, and clips that are listed twice, in every importer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from release_helpers import WORDS, refused
from steps_helpers import STEPS, write_crosstask, write_crosstask_original, write_mining, write_mining_original
from trichord.errors import TrichordError
from trichord.files.suffixes import SOUND_SUFFIXES, VIDEO_SUFFIXES
from trichord.ids import IdIndex, file_without_media_suffix, match_ids, without_media_suffix
from trichord.releases import import_crosstask, import_howto100m, import_mining_youtube
from trichord.store import Store
from trichord.store.annotations import read_annotations


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("video7010.mp4", "video7010"), ("video7010.MP4.webm", "video7010"), ("a.b", "a.b"), ("a.b.avi", "a.b"),
        (".mp4", ".mp4"), ("x/.mp4", "x/.mp4"), ("a.mp4@0.00-3.00#2", "a@0.00-3.00#2"), ("a.mp4#2", "a#2"),
        ("1.25-2.5", "1.25-2.5"), ("mp4", "mp4"), ("", ""),
    ],
)  # fmt: skip
def test_only_known_media_suffixes_are_removed(name: str, bare: str) -> None:
    assert without_media_suffix(name) == bare


def test_hostile_names_take_linear_time() -> None:
    suffixes = ".mp4" * 300_000  # the timeout of the tests would end a quadratic pattern
    assert without_media_suffix(f"a{suffixes}x") == f"a{suffixes}x"
    assert without_media_suffix(f"a{suffixes}#1") == "a#1"
    assert file_without_media_suffix(f"a{suffixes}x") == "a.mp4x"


def test_suffixes_inside_the_names_of_files() -> None:
    names = ("a.mp4_2d.npy", "111_a.webm.csv", "a.mp4.npz", "tasks_primary.txt", "a.tsx.npy")
    assert [file_without_media_suffix(name) for name in names] == [
        "a_2d.npy", "111_a.csv", "a.npz", "tasks_primary.txt", "a.tsx.npy",
    ]  # fmt: skip


def match(wanted: list[str], names: list[str], allow_missing: bool = False) -> dict[str, str]:
    return match_ids(wanted, IdIndex(names, "there"), source="here", allow_missing=allow_missing, option="--x")


def test_exact_names_come_first_and_then_those_without_suffixes() -> None:
    assert match(["a", "a.mp4", "b.avi", "c"], ["a.mp4", "a", "b", "c.MKV"]) == {
        "a": "a", "a.mp4": "a.mp4", "b.avi": "b", "c": "c.MKV"
    }  # fmt: skip
    with pytest.raises(TrichordError, match=r"there: 'a' may refer to 'a.mp4' or 'a.avi'"):
        match(["a"], ["a.mp4", "a.avi"])
    with pytest.raises(TrichordError, match=r"here: 'a' and 'a.mp4' both refer to the clip 'a' of there; keep one"):
        match(["a", "a.mp4"], ["a"])


def test_lists_that_do_not_match_are_refused_with_ids_of_both_sides() -> None:
    names = [f"v{i}" for i in range(9)]
    # exactly half of the ids do not match, which is allowed
    assert match(["v0", "v1", "x0", "x1"], names) == {"v0": "v0", "v1": "v1"}
    wanted = ["v0", *(f"x{i}" for i in range(5))]
    with pytest.raises(TrichordError) as caught:
        match(wanted, names)
    message = str(caught.value)
    assert "here: 5 of its 6 ids are not in there" in message and "with --x" in message and "\n" not in message
    assert "names in here: 'x0', 'x1', 'x2'; names in there: 'v1', 'v2', 'v3'" in message
    assert match(wanted, names, allow_missing=True) == {"v0": "v0"}
    for allowed in (False, True):
        with pytest.raises(TrichordError, match="here: none of its 1 ids occurs in there; .* 'y'; .* 'v0', 'v1', 'v2'"):
            match(["y"], names, allowed)


# ---- HowTo100M


def howto(root: Path, listed: str = "{}", captioned: str = "{}", stored: str = "{}", num: int = 3) -> Path:
    names = [f"vid{i}" for i in range(num)]
    for seed, name in enumerate(names):
        name = stored.format(name)
        folder = root / "features" / "cooking" / name
        folder.mkdir(parents=True)
        np.savez(folder / f"{name}_2d.npz", features=np.random.default_rng(seed).random((20, 6)).astype(np.float32))
    captions = {"start": [0.0], "end": [9.0], "text": ["add pepper"]}
    (root / "paths.txt").write_text("path\n" + "".join(f"cooking/{listed.format(name)}\n" for name in names))
    (root / "caption.json").write_text(json.dumps({captioned.format(name): captions for name in names}))
    return root


@pytest.mark.parametrize(
    "spelt", [("{}.mp4", "{}", "{}"), ("{}", "{}.webm", "{}"), ("{}", "{}", "{}.mp4"), ("{}.mp4", "{}.mkv", "{}.webm")]
)
def test_howto100m_lists_captions_and_files_with_other_suffixes(spelt: tuple[str, str, str], tmp_path: Path) -> None:
    summary = import_howto100m(howto(tmp_path / "r", *spelt), tmp_path / "s", WORDS)
    assert (summary.num_added, summary.num_skipped, summary.num_captions) == (3, 0, 3)


def test_howto100m_captions_in_a_folder_with_other_suffixes(tmp_path: Path) -> None:
    root = howto(tmp_path / "r", "{}.mp4")
    (root / "caption.json").unlink()
    (root / "captions").mkdir()
    for i in range(3):
        (root / "captions" / f"vid{i}.csv").write_text("start,end,text\n0,9,add pepper\n")
    assert import_howto100m(root, tmp_path / "s", WORDS).num_captions == 3


def test_howto100m_lists_that_do_not_fit_or_name_a_video_twice(tmp_path: Path) -> None:
    root = howto(tmp_path / "r")
    paths = root / "paths.txt"
    paths.write_text("path\ncooking/vid0\nother/vid0\n")
    assert "lists the video 'vid0' at two paths (cooking/vid0, other/vid0)" in refused(import_howto100m, root, tmp_path)
    paths.write_text("path\ncooking/vid0\ncooking/vid0.mp4\n")
    assert "'vid0' and 'vid0.mp4' both refer to the clip 'vid0'" in refused(import_howto100m, root, tmp_path)
    paths.write_text("path\ncooking/vid0\ncooking/x1\ncooking/x2\n")
    assert "2 of its 3 ids are not in" in refused(import_howto100m, root, tmp_path)
    assert import_howto100m(root, tmp_path / "s", WORDS, allow_missing=True).num_added == 1
    captions = '{"start": [0.0], "end": [9.0], "text": ["%s"]}'
    (root / "caption.json").write_text(f'{{"vid0": {captions % "stir"}, "vid0": {captions % "bake"}}}')
    assert "has the key 'vid0' twice" in refused(import_howto100m, root, tmp_path)


# ---- annotated steps


def renamed(root: Path, video: str, new: str) -> None:
    """Give every file of a video another spelling of its id."""
    for folder, _, names in os.walk(root):
        for name in names:
            if video in name:
                (Path(folder) / name).rename(Path(folder) / name.replace(video, new))


def spans(store: Path, collection: str) -> int:
    return len(read_annotations(Store(store), collection))


@pytest.mark.parametrize("table", [False, True])
def test_crosstask_with_other_suffixes(table: bool, tmp_path: Path) -> None:
    import_crosstask(write_crosstask(tmp_path / "plain"), tmp_path / "p", WORDS)
    root = write_crosstask(tmp_path / "r")
    if table:
        path = root / "cvpr19_test.csv"
        path.write_text(path.read_text().replace(",v1,", ",v1.mp4,"))
    else:
        renamed(root, "v1", "v1.mp4")
    summary = import_crosstask(root, tmp_path / "s", WORDS)
    assert summary.num_skipped == 0 and summary.streams["spectrogram"] == 2
    assert spans(tmp_path / "s", "crosstask") == spans(tmp_path / "p", "crosstask")


def test_crosstask_original_with_other_suffixes(tmp_path: Path) -> None:
    import_crosstask(write_crosstask_original(tmp_path / "plain"), tmp_path / "p", WORDS)
    root = write_crosstask_original(tmp_path / "r")
    path = root / "videos_val.csv"
    path.write_text(path.read_text().replace(",v", ",v").replace(",http", ".mp4,http"))
    summary = import_crosstask(root, tmp_path / "s", WORDS)
    assert summary.num_skipped == 0 and Store(tmp_path / "s").collections() == Store(tmp_path / "p").collections()


def test_steps_that_are_listed_twice_or_for_other_tasks(tmp_path: Path) -> None:
    root = write_crosstask(tmp_path / "r")
    (root / "step.json").write_text(json.dumps({f"x{task}": steps for task, steps in STEPS.items()}))
    assert "none of its 2 ids occurs in" in refused(import_crosstask, root, tmp_path / "s")
    (root / "step.json").write_text('{"111": ["a"], "111": ["b"]}')
    assert "has the key '111' twice" in refused(import_crosstask, root, tmp_path / "s")
    root = write_crosstask_original(tmp_path / "o")
    tasks = (root / "tasks_primary.txt").read_text()
    (root / "tasks_primary.txt").write_text(tasks + "23521\nAgain\nhttp://x\n1\nboil\n\n")
    assert "has two lists of steps for task '23521'" in refused(import_crosstask, root, tmp_path / "s")


def test_files_of_one_video_under_two_spellings(tmp_path: Path) -> None:
    root = write_crosstask(tmp_path / "r")
    renamed(root, "v1", "v1.mp4")
    path = next(root.rglob("v1.mp4_2d.npy"))
    path.with_name("v1.avi_2d.npy").write_bytes(path.read_bytes())
    summary = import_crosstask(root, tmp_path / "s", WORDS)
    assert summary.num_skipped == 1
    (reason,) = [entry["reason"] for entry in Store(tmp_path / "s").skipped()]
    assert "v1_2d.npy: may refer to v1.avi_2d.npy or v1.mp4_2d.npy" in reason


@pytest.mark.parametrize("original", [False, True])
def test_mining_youtube_with_other_suffixes(original: bool, tmp_path: Path) -> None:
    write = write_mining_original if original else write_mining
    plain = import_mining_youtube(write(tmp_path / "plain"), tmp_path / "p", WORDS)
    root = write(tmp_path / "r")
    listed = root / "videos_test.txt" if original else next(root.glob("*.csv"))
    lines = listed.read_text().splitlines()
    body = lines if original else lines[1:]
    body = [line.replace(line.split(",")[0], f"{line.split(',')[0]}.mp4", 1) for line in body]
    listed.write_text("\n".join([*lines[: len(lines) - len(body)], *body]) + "\n")
    summary = import_mining_youtube(root, tmp_path / "s", WORDS)
    assert (summary.num_added, summary.num_skipped) == (plain.num_added, plain.num_skipped)
    assert Store(tmp_path / "s").collections() == Store(tmp_path / "p").collections()


def test_suffixes_of_all_extracted_files_are_known() -> None:
    for suffix in (*VIDEO_SUFFIXES, *SOUND_SUFFIXES):
        expected = None if suffix[1:].isdigit() else "clip.1"
        assert IdIndex(["clip.1"], "here").find(f"clip.1{suffix.upper()}") == expected
    assert IdIndex(["clip.265"], "here").find("clip.264") is None
