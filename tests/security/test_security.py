"""Known attacks as real files: code in pickles, arrays, YAML and model folders; bombs; names that lead outside; links."""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from export_helpers import some_items, write_store
from release_helpers import SAMPLE
from security_helpers import Payload, refusal
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.features.weights import read_state
from trichord.files.arrays import load_npy, load_npz_array
from trichord.files.pickles import load_pickle
from trichord.files.writing import write_json, writing_to
from trichord.nn import MCN
from trichord.recipes import load_recipe
from trichord.releases import IMPORTERS
from trichord.releases.export import export_store
from trichord.store import Store
from trichord.store.inspect import verify
from trichord.store.ledger import note
from trichord.store.spool import read_spooled
from trichord.study.files import read_arrays
from trichord.study.folder import plan_entry
from trichord.training.log import StageLog
from trichord.training.models import load_model


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


# ---- code


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_run_nothing(protocol: int, tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "x.pkl"
    for content in (Payload(marker), [{"id": "a", "2d": Payload(marker)}], {Payload(marker): 1}):
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        assert "no code in it was run" in refusal(lambda: load_pickle(path), marker)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
def test_published_checkpoints_run_nothing(suffix: str, legacy: bool, tmp_path: Path, marker: Path) -> None:
    path = tmp_path / f"e1{suffix}"
    torch.save({"net": {"a": torch.zeros(1)}, "x": Payload(marker)}, path, _use_new_zipfile_serialization=not legacy)
    assert "no code in it was run" in refusal(lambda: MCN.from_published(path), marker)
    assert "no code in it was run" in refusal(lambda: load_model(path), marker)
    assert "is not a readable weights file" in refusal(lambda: read_state(path), marker)
    assert "refused: holds" in refusal(lambda: load_pickle(path), marker)


def test_arrays_of_objects_run_nothing(tmp_path: Path, marker: Path) -> None:
    objects = np.array([Payload(marker), 1], object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "x.npz", features=objects)
    assert "only plain numbers are read" in refusal(lambda: load_npy(tmp_path / "x.npy"), marker)
    assert "only plain numbers are read" in refusal(lambda: load_npz_array(tmp_path / "x.npz", "features"), marker)
    assert "it is damaged, or not an .npz file" in refusal(lambda: read_arrays(tmp_path / "x.npz"), marker)


PICKLED = [("youcook2", "youcook_val.pkl"), ("msrvtt", "msrvtt_test.pkl"), ("howto100m", "caption.pickle")]


@pytest.mark.parametrize("layout, file", PICKLED)
def test_releases_with_code_are_refused(layout: str, file: str, tmp_path: Path, marker: Path) -> None:
    root = Path(shutil.copytree(SAMPLE, tmp_path / "release"))
    (root / file).write_bytes(pickle.dumps([Payload(marker)]))
    message = refusal(lambda: IMPORTERS[layout](root, tmp_path / "store", SAMPLE / "word2vec.bin"), marker)
    assert file in message and "no code in it was run" in message


YAML = {
    "apply": "x: !!python/object/apply:os.mkdir ['{marker}']",
    "apply in a group": "training: !!python/object/apply:os.mkdir ['{marker}']",
    "new": "training: {{epochs: !!python/object/new:os.mkdir ['{marker}']}}",
    "module": "x: !!python/module:antigravity",
    "name": "training: {{epochs: !!python/name:os.mkdir}}",
    "a class to make": "training: {{class_path: os.mkdir, init_args: {{path: '{marker}'}}}}",
    "a file to read": "training: /etc/passwd",
    "another path": "extends: ../../../../etc/passwd",
    "laughs": "a: &a [x, x]\nb: &b [*a, *a, *a]\n" + "".join(f"c{n}: &c{n} [*b, *b]\n" for n in range(9)),
    "itself": "training: &t {{epochs: *t}}",
    "deep": "training: " + "[" * 5000,
    "deeper": "training: " + "{{a: " * 400 + "1" + "}}" * 400,
    "digits": "training: {{epochs: " + "9" * 5000 + "}}",
    "no date": "training: {{epochs: 2020-99-99}}",
    "twice": "training: {{epochs: 1}}\ntraining: {{epochs: 2}}",
    "not a number": "training: {{learning_rate: .nan}}",
    "nothing": "training: {{epochs: null}}",
    "no group": "training: [1]",
    "no key": "1: {{2: 3}}",
    "large": "# " + "x" * (300 << 10),
    "binary": "\x00\x01",
}


@pytest.mark.parametrize("name", YAML)
def test_yaml_runs_nothing(name: str, tmp_path: Path, marker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(YAML[name].format(marker=marker))
    assert len(refusal(lambda: load_recipe(path), marker)) < 1000
    code = main(["train", "--config", str(path), "--store", "no store", "--out", str(tmp_path / "out")])
    message = capsys.readouterr().err
    assert code == 2 and message.count("\n") == 1 and "Traceback" not in message and not marker.exists()


# ---- names that lead out, links


def tar_of(path: Path, *members: tarfile.TarInfo) -> None:
    with tarfile.open(path, "w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)


@pytest.mark.parametrize("name", ["../out.json", "/tmp/out.json", "a/../../out.json"])
def test_shards_are_not_unpacked_to_disk(name: str, tmp_path: Path) -> None:
    root = tmp_path / "shards"
    root.mkdir()
    record = tarfile.TarInfo(name)
    record.size = 3
    tar_of(root / "0.tar", record)
    before = sorted(tmp_path.rglob("*"))
    assert "nothing could be imported" in refusal(lambda: IMPORTERS["webdataset"](root, tmp_path / "store", None))
    new = {path for path in tmp_path.rglob("*") if path not in before}
    assert new and all(path.is_relative_to(tmp_path / "store") for path in new)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_shards_may_only_hold_files(kind: bytes, tmp_path: Path) -> None:
    root = tmp_path / "shards"
    root.mkdir()
    link = tarfile.TarInfo("a.json")
    link.type, link.linkname = kind, "/etc/passwd"
    tar_of(root / "0.tar", link)
    message = refusal(lambda: IMPORTERS["webdataset"](root, tmp_path / "store", None))
    assert "a.json is neither file nor folder" in message


@pytest.mark.parametrize("row", ["../../outside/x,x", "x/../../../outside/x,x", "/{outside}/x,x", "a,../../outside/x"])
def test_path_lists_stay_in_their_folder(row: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "deep" / "release"
    for folder in (outside, root / "a"):
        folder.mkdir(parents=True)
        for name in ("x", "a"):
            np.savez(folder / f"{name}_2d.npz", features=np.ones((3, 4), np.float32))
    np.savez(root / "good_2d.npz", features=np.zeros((3, 4), np.float32))
    (root / "paths.csv").write_text(f"path,video_id\n{row.format(outside=outside)}\ngood,good\n")
    captions = {name: {"start": [0], "end": [2], "text": ["stir"]} for name in ("x", "good", "../../outside/x")}
    (root / "caption.json").write_text(json.dumps(captions))
    summary = IMPORTERS["howto100m"](root, tmp_path / "store", SAMPLE / "word2vec.bin")
    store = Store(tmp_path / "store")
    assert summary.num_added == 1 and store.video_id(0) == "good", "what lies outside is not read"
    assert re.search("leads out of the folder of the features|is missing", store.skipped()[0]["reason"])


def test_caption_folders_stay_in_their_folder(tmp_path: Path) -> None:
    root = Path(shutil.copytree(SAMPLE, tmp_path / "release"))
    (tmp_path / "secret.csv").write_text("start,end,text\n0,1,secret\n")
    captions = root / "captions"
    captions.mkdir()
    (captions / "b.csv").write_text("start,end,text\n0,1,open\n")
    from trichord.releases.captions import CaptionFolder

    source = CaptionFolder(captions)
    assert source.index.find("b") == "b" and list(source.texts("b")) == ["open"]
    for name in ("../../secret", "../secret", str(tmp_path / "secret"), "\0", ""):
        assert source.index.find(name) is None and not list(source.texts(name))


def test_an_index_stays_in_its_folder(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", some_items(3))
    export_store(store.path, tmp_path / "npy", layout="npy")
    path = tmp_path / "npy" / "index.csv"
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    rows[0]["path"] = "../../outside"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    IMPORTERS["npy"](tmp_path / "npy", tmp_path / "back", None)
    assert "which is not in this folder" in Store(tmp_path / "back").skipped()[0]["reason"]


def test_spooled_items_name_files_of_their_folder(tmp_path: Path) -> None:
    (tmp_path / "item").mkdir()
    (tmp_path / "outside.rows").write_bytes(bytes(16))
    entry = {"file": "../outside.rows", "dtype": "float16", "num_rows": 4, "dim": 2}
    (tmp_path / "item" / "item.json").write_text(json.dumps({"streams": {"visual_2d": entry}}))
    assert read_spooled(tmp_path / "item") is None


@pytest.mark.parametrize("folder", ["../../x", "/etc", "..", "", "a/b", "a\0b"])
def test_a_study_names_stages_below_it(folder: str) -> None:
    entry = {"order": "vt", "seed": 0, "stages": [{"folder": "vt.seed0", "key": "k", "seed": 0}]}
    assert plan_entry(entry)
    entry["stages"] = [{"folder": folder, "key": "k", "seed": 0}]
    assert not plan_entry(entry)


def test_links_are_not_followed_when_writing(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder = tmp_path / "run"
    (folder / "parts").mkdir(parents=True)
    for name in ("skipped.jsonl", "metrics.jsonl", "study.json", ".study.json.partial", "run.lock"):
        (folder / name).symlink_to(outside)
    assert "skipped.jsonl" in refusal(lambda: note(folder, "a", "b"))
    write_json(folder / "study.json", {"a": 1})
    assert not (folder / "study.json").is_symlink() and outside.read_text() == "mine"
    log = StageLog(folder, title="t", num_steps=1, tensorboard=False)
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").symlink_to(outside)
    with pytest.raises(TrichordError, match="metrics.jsonl: cannot be written .*it is a link"), writing_to(folder):
        log.step(0, 0, {"loss": 1.0}, 1)
    assert outside.read_text() == "mine"


def test_a_linked_writers_file_is_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "s" / "parts").mkdir(parents=True)
    for name in ("00001.parquet", "00001.safetensors"):
        (tmp_path / "s" / "parts" / f".{name}.partial").symlink_to(outside)
    write_store(tmp_path / "s", some_items(1))
    assert outside.read_text() == "mine" and verify(tmp_path / "s") == []
