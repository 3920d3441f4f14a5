"""Damaged, edited and foreign checkpoints are set aside with a message, and the previous one is used."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoint_helpers import digest, load, save, small_state, train
from trichord.training.checkpoint import checkpoints_of
from trichord.training.checkpoint_folder import MANIFEST, Damaged, read_tensors, seal

FILES = ["model.safetensors", "optimizer.safetensors", "clusters.safetensors", "random-0.safetensors", "state.json"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A stage with the checkpoints of steps 4 and 6, and their content."""
    stage = tmp_path_factory.mktemp("two") / "stage"
    state, digests = small_state(), []
    for steps in (4, 2):
        train(state, steps)
        save(state, stage / "checkpoints", 4 if not digests else 6)
        digests.append(digest(state))
    return stage, digests[0], digests[1]


def copied(stage: Path, into: Path) -> Path:
    """Copy a stage under the same name, which its checkpoints record."""
    return Path(shutil.copytree(stage, into / stage.name)) / "checkpoints"


def load_digest(folder: Path) -> tuple[int, str, list[str]]:
    """Return the step, what was loaded, and the messages."""
    state, messages = small_state(seed=5), []
    position = load(state, folder, messages)
    return position.step if position else -1, digest(state), messages


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.sampled_from([*FILES, MANIFEST]),
    cut=st.booleans(),
    at=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_a_cut_or_flipped_file_anywhere(file: str, cut: bool, at: float, bit: int, two: tuple[Path, str, str]) -> None:
    stage, earlier, later = two
    with tempfile.TemporaryDirectory() as name:
        folder = copied(stage, Path(name))
        path = folder / "step-00000006" / file
        content = bytearray(path.read_bytes())
        offset = int(at * len(content))
        if cut:
            content = content[:offset]
        else:
            content[offset] ^= 1 << bit
        path.write_bytes(content)
        step, loaded, messages = load_digest(folder)
        if file == MANIFEST and step == 6:  # replacing white space by other white space changes nothing
            assert loaded == later and not messages
            return
        assert (step, loaded) == (4, earlier)
        assert (
            len(messages) == 2
            and "step-00000006: the checkpoint cannot be used (" in messages[0]
            and "\n" not in messages[0]
        )
        assert messages[0].endswith("it was renamed to unused-step-00000006")
        assert "step-00000004: training continues from this checkpoint" in messages[1]
        assert [p.name for p in checkpoints_of(folder)] == ["step-00000004"]
        assert load_digest(folder)[2] == [], "it is said once"


@pytest.mark.parametrize("file", [*FILES, MANIFEST])
@pytest.mark.parametrize("become", ["nothing", "a folder", "a link", "a pipe", "longer"])
def test_files_of_another_kind(file: str, become: str, two: tuple[Path, str, str], tmp_path: Path) -> None:
    folder = copied(two[0], tmp_path)
    path = folder / "step-00000006" / file
    if become == "longer":
        path.write_bytes(path.read_bytes() + b"x")
    else:
        path.unlink()
        if become == "a folder":
            path.mkdir()
        elif become == "a link":
            path.symlink_to("/dev/zero")
        elif become == "a pipe":
            os.mkfifo(path)
    step, loaded, messages = load_digest(folder)
    assert (step, loaded) == (4, two[1]) and len(messages) == 2


def test_without_an_intact_checkpoint_the_stage_starts_again(two: tuple[Path, str, str], tmp_path: Path) -> None:
    folder = copied(two[0], tmp_path)
    for path in checkpoints_of(folder):
        (path / "model.safetensors").write_bytes(b"torn")
    untouched = digest(small_state(seed=5))
    step, loaded, messages = load_digest(folder)
    assert step == -1 and loaded == untouched
    assert len(messages) == 3 and messages[2].endswith("no checkpoint can be used; the stage starts from the beginning")


def edited(path: Path, change: Any) -> None:
    """Change a checkpoint and seal it again, like somebody who knows the format."""
    manifest = json.loads((path / MANIFEST).read_text())
    change(path, manifest)
    seal(path, {key: value for key, value in manifest.items() if key not in ("format", "files", "sha256")})


def edit_state(change: Any) -> Any:
    def edit(path: Path, manifest: dict[str, Any]) -> None:
        content = json.loads((path / "state.json").read_text())
        change(content)
        (path / "state.json").write_text(json.dumps(content))

    return edit


def edit_tensors(file: str, change: Any) -> Any:
    def edit(path: Path, manifest: dict[str, Any]) -> None:
        from safetensors.torch import save_file

        tensors = {k: t.clone() for k, t in read_tensors(path / file).items()}
        change(tensors)
        save_file(tensors, path / file)

    return edit


def huge_header(path: Path, manifest: dict[str, Any]) -> None:
    (path / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")


def huge_shape(path: Path, manifest: dict[str, Any]) -> None:
    header = json.dumps({"0.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))


FOREIGN: dict[str, tuple[Any, str]] = {
    "a header larger than the file": (huge_header, "model.safetensors cannot be read"),
    "a shape larger than the file": (huge_shape, "model.safetensors cannot be read"),
    "of another stage": (lambda p, m: m.update(stage="vt.seed1.x"), "it belongs to stage vt.seed1.x"),
    "of another step": (lambda p, m: m.update(step=5), "belongs to stage stage, step 5"),
    "no processes": (lambda p, m: m.update(processes=0), "no valid list of parts"),
    "more processes than files": (lambda p, m: m.update(processes=2), "checkpoint.json does not list random-1.safetensors"),
    "no parts": (lambda p, m: m.update(parts=[]), "it contains nothing instead of clusters, model, optimizer"),
    "another part": (lambda p, m: m.update(parts=["../model"]), "does not list ../model"),
    "a negative step": (edit_state(lambda c: c["position"].update(epoch=-1)), "its position is"),
    "a step of words": (edit_state(lambda c: c["position"].update(step="6")), "its position is invalid"),
    "no position": (edit_state(lambda c: c.pop("position")), "its position is invalid"),
    "another group": (edit_state(lambda c: c["groups"].pop()), "its settings.groups have another length"),
    "other parameters": (edit_state(lambda c: c["groups"][0]["params"].reverse()), "params have other values"),
    "an option more": (edit_state(lambda c: c["groups"][0].update(step=3)), "settings.groups have other keys"),
    "a rate of words": (edit_state(lambda c: c["groups"][0].update(lr="1")), "its settings.groups.lr have another type"),
    "a schedule of methods": (edit_state(lambda c: c["schedule"].update(get_lr=1)), "settings.schedule have other keys"),
    "another model": (edit_tensors("model.safetensors", lambda t: t.pop("0.weight")), "only one of them has 0.weight"),
    "other widths": (
        edit_tensors("model.safetensors", lambda t: t.update({"0.weight": torch.zeros(5, 7)})), r"0.weight has shape \(5, 7\)",
    ),
    "other kinds": (
        edit_tensors("model.safetensors", lambda t: t.update({"0.weight": torch.zeros(5, 6).half()})), "torch.float16",
    ),
    "an optimizer without a part": (
        edit_tensors("optimizer.safetensors", lambda t: t.pop("0.weight/step")), "the state of its optimizer is incomplete",
    ),
    "an optimizer of others": (
        edit_tensors("optimizer.safetensors", lambda t: t.update({"7.weight/step": torch.zeros(())})), "belongs to no parameter",
    ),
    "no centroids": (edit_tensors("clusters.safetensors", lambda t: t.pop("centroids")), "it is of another clustering"),
    "more centroids": (
        edit_tensors("clusters.safetensors", lambda t: t.update(centroids=torch.zeros(4, 4))), "4 clusters instead of 3",
    ),
    "random states too short": (
        edit_tensors("random-0.safetensors", lambda t: t.update(python=t["python"][:9].clone())), "a random state",
    ),
    "random states out of bounds": (
        edit_tensors("random-0.safetensors", lambda t: t.update(torch=t["torch"][:9].clone())), "a random state",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_an_intact_checkpoint_of_another_training(name: str, two: tuple[Path, str, str], tmp_path: Path) -> None:
    change, reason = FOREIGN[name]
    folder = copied(two[0], tmp_path)
    edited(folder / "step-00000006", change)
    step, loaded, messages = load_digest(folder)
    assert (step, loaded) == (4, two[1])
    assert re.search(reason, messages[0]), messages[0]


def test_the_list_is_bounded_and_names_plain_files(two: tuple[Path, str, str], tmp_path: Path) -> None:
    folder = copied(two[0], tmp_path)
    path = folder / "step-00000006"
    manifest = json.loads((path / MANIFEST).read_text())
    manifest.pop("sha256")
    manifest["files"]["../../secret"] = {"bytes": 1, "sha256": ""}
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (path / MANIFEST).write_text(json.dumps(manifest))
    step, _, messages = load_digest(folder)
    assert step == 4 and "has an invalid entry '../../secret'" in messages[0]
    with (folder / "step-00000004" / MANIFEST).open("ab") as file:
        file.truncate(1 << 40)  # a hole: no byte of it is read
    step, _, messages = load_digest(folder)
    assert step == -1 and "checkpoint.json has 1099511627776 bytes" in messages[0]


def test_checkpoints_of_earlier_versions_are_never_unpickled(two: tuple[Path, str, str], tmp_path: Path) -> None:
    folder = copied(two[0], tmp_path)
    old = folder / "step-00000008"
    old.mkdir()
    (old / "progress.json").write_text('{"step": 8, "epoch": 0, "epoch_step": 8}')
    (old / "optimizer.bin").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    step, loaded, messages = load_digest(folder)
    assert (step, loaded) == (6, two[2]) and not (tmp_path / "ran").exists()
    assert "an early version of trichord wrote it as pickle files, which are not read" in messages[0]


def test_an_empty_folder_gives_no_message(tmp_path: Path) -> None:
    assert load_digest(tmp_path / "checkpoints")[::2] == (-1, [])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_for_tensors(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x.safetensors"
        path.write_bytes(content)
        try:
            assert isinstance(read_tensors(path), dict)
        except Damaged as error:
            assert str(error).startswith("x.safetensors cannot be read")
