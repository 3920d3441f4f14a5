"""Files of others are never lost: every command keeps folders and files that trichord did not create, and no link is
followed.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from report_helpers import write_study_folder
from store_helpers import build, item, word_vectors
from tiny import tiny_item
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.extraction.extract import extract
from trichord.recipes import load_recipe
from trichord.releases.export import export_store
from trichord.store import Store, StoreWriter
from trichord.store.inspect import verify
from trichord.store.spool import FOLDER, SpoolWriter, begun, remove_spooled, spool_name, spooled
from trichord.study.run import run_study, train_order
from trichord.training import divergence
from trichord.world import write_world


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its content, and every folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder of the user, including names that trichord uses; it must be unchanged after the test."""
    folder = tmp_path / "home"
    for name in (".ssh/id", "thesis/chapter1.tex", "report.html", "tables/a.csv", "checkpoints/step-00000001/state.json",
                 "model.json", "values.npy", "0.rows", "item.json"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    before = tree(folder)
    yield folder
    assert tree(folder) == before


def quick() -> dict[str, object]:
    return {"tensorboard": False, "device": "cpu", "max_steps": 1}


# ---- the spool


def test_a_spool_that_is_a_link_is_refused_by_everybody(home: Path, tmp_path: Path) -> None:
    store = build(tmp_path / "s", [item("a")])
    (store / FOLDER).symlink_to(home)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"no video")
    uses: tuple[Callable[[], object], ...] = (
        lambda: spooled(store),
        lambda: begun(store),
        lambda: SpoolWriter(store, "a" * 64 + ":b", "c"),
        lambda: extract(tmp_path / "videos", store, collection="other", workers=0),
    )
    for use in uses:
        with pytest.raises(
            TrichordError, match="spool: is a link to .*home; trichord does not write or delete through links"
        ):
            use()


def test_foreign_folders_in_a_spool_are_kept(home: Path, tmp_path: Path) -> None:
    name = spool_name("a" * 64 + ":b", "c")
    spool = tmp_path / "s" / FOLDER
    for other in ("my_backup", ".hidden", f".{name}.1.tmp", f"{name}.tar", f".{name}.1-00000000.tmp.bak"):
        (spool / other).mkdir(parents=True)
        (spool / other / "item.json").write_text("{}")
    assert spooled(tmp_path / "s") == [] and begun(tmp_path / "s") == []
    (spool / f".{name}.1-00000000.tmp").symlink_to(home)
    (spool / f".{name}.2-00000000.tmp").mkdir()
    (spool / f".{name}.2-00000000.tmp" / "notes.txt").write_text("mine")
    (spool / f".{name}.3-00000000.tmp").mkdir()
    (spool / f".{name}.3-00000000.tmp" / "0.rows").write_text("begun")
    for folder, _ in begun(tmp_path / "s"):
        remove_spooled(folder)
    assert (spool / f".{name}.1-00000000.tmp").is_symlink() and (
        spool / f".{name}.2-00000000.tmp" / "notes.txt"
    ).exists()
    assert not (spool / f".{name}.3-00000000.tmp").exists() and (spool / "my_backup" / "item.json").exists()


@pytest.mark.parametrize("kind", ["link", "files"])
def test_a_foreign_folder_with_the_name_of_an_item_is_reported(kind: str, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s" / FOLDER / spool_name("a" * 64 + ":b", "c")
    folder.parent.mkdir(parents=True)
    if kind == "link":
        folder.symlink_to(home)
    else:
        folder.mkdir()
        (folder / "thesis.tex").write_text("mine")
    with pytest.raises(
        TrichordError, match="is a link, or contains files that trichord does not write there; move it away"
    ):
        spooled(tmp_path / "s")
    remove_spooled(folder)
    assert folder.is_symlink() or (folder / "thesis.tex").exists()


# ---- the store


@pytest.mark.parametrize(
    ("has_locks", "message"),
    [
        (True, "lock file was removed while this process held it"),
        (False, "another process has written part 00000 in the meantime, which is kept"),
    ],
)
def test_a_committed_part_is_never_replaced(
    has_locks: bool, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock file of a writer is deleted as "stale", and another writer commits the same part."""
    from trichord.files.locks import FileLock

    if not has_locks:
        monkeypatch.setattr(FileLock, "check", lambda self: None)
    store = tmp_path / "s"
    first = StoreWriter(store, word_vectors())
    first.add(item("a"))
    (store / "lock").unlink()
    with StoreWriter(store, word_vectors()) as second:
        second.add(item("b"))
    with pytest.raises(TrichordError, match=message):
        first.flush()
    assert [Store(store).video_id(i) for i in range(len(Store(store)))] == ["b"] and verify(store) == []


def test_foreign_files_among_the_parts_are_kept(tmp_path: Path) -> None:
    store = build(tmp_path / "s", [item("a")])
    others = ["model.safetensors", "12.safetensors", ".notes.tmp", ".0.safetensors.bak", ".00001.txt.tmp"]
    for name in others:
        (store / "parts" / name).write_text("mine")
    (store / "parts" / "00007.safetensors").write_text("an orphan")
    with StoreWriter(store, word_vectors()) as writer:
        writer.add(item("b"))
    assert all((store / "parts" / name).read_text() == "mine" for name in others)
    assert not (store / "parts" / "00007.safetensors").exists() and len(Store(store)) == 2


# ---- output folders


@pytest.mark.parametrize("link", ["stages", "stages/avt.x", "stages/avt.x/checkpoints", "orders", "queries", "report"])
def test_a_study_with_a_folder_link_inside_is_refused(link: str, home: Path, tmp_path: Path, tiny_store: Path) -> None:
    out = tmp_path / "out"
    (out / link).parent.mkdir(parents=True)
    (out / link).symlink_to(home)
    recipe = load_recipe("debug", training=quick())
    for run in (
        lambda: run_study(tiny_store, out, ["vt"], [0], recipe),
        lambda: train_order(tiny_store, out, "vt", 0, recipe, resume=True),
    ):
        with pytest.raises(TrichordError, match=f"{link}: is a link to"):
            run()


@pytest.mark.usefixtures("undrawn")
def test_a_report_folder_that_is_a_link_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study_folder(tmp_path / "study", orders=("vt", "at"), seeds=(0, 1), benchmarks={"tiny": 20})
    (study / "report").symlink_to(home)
    assert main(["report", str(study)]) == 2 and "report: is a link to" in capsys.readouterr().err
    (study / "report").unlink()
    (study / "report").mkdir()
    (study / "report" / "tables").symlink_to(home / "tables")
    assert main(["report", str(study)]) == 2 and "tables: is a link to" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_the_output_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    study = write_study_folder(tmp_path / "study", orders=("vt", "at"), seeds=(0, 1), benchmarks={"tiny": 20})
    (tmp_path / "disk").mkdir()
    (tmp_path / "page").symlink_to(tmp_path / "disk")
    assert main(["report", str(study), "--out", str(tmp_path / "page")]) == 0
    assert (tmp_path / "disk" / "report.html").is_file() and (tmp_path / "page").is_symlink()


def test_worlds_and_exports_do_not_follow_links(home: Path, tmp_path: Path) -> None:
    store = build(tmp_path / "s", [item("a")])
    for name in ("world", "export"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train").symlink_to(home)
    with pytest.raises(TrichordError, match="train: is a link to"):
        write_world(tmp_path / "world", num_train=1, num_test=1)
    with pytest.raises(TrichordError, match="train: is a link to"):
        export_store(store, tmp_path / "export", layout="npy")


def test_a_divergence_folder_of_others_is_kept(tmp_path: Path) -> None:
    from trichord.files.folders import remove_folder

    folder = tmp_path / divergence.FOLDER
    folder.mkdir()
    (folder / "model.safetensors").write_text("ours")
    (folder / "notes.txt").write_text("mine")
    assert not remove_folder(folder, divergence.FILES) and (folder / "model.safetensors").exists()


# ---- exported models


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    with StoreWriter(folder / "store", tiny_words()) as writer:
        for n in range(6):
            writer.add(tiny_item(n, "test" if n > 3 else "train"))
    before = os.umask(0o022)
    try:
        recipe = load_recipe("debug", training={**quick(), "keep_best": 1, "checkpoint_every_steps": 1})
        run_study(folder / "store", folder / "out", ["vt", "at"], [0], recipe)
    finally:
        os.umask(before)
    return folder


def tiny_words() -> object:
    from tiny import word_vectors as words

    return words()


def stage(study: Path, chain: str) -> Path:
    return next(path for path in (study / "out" / "stages").iterdir() if path.name.startswith(f"{chain}."))


def test_an_export_into_a_trained_stage_is_refused(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(study / "out")
    for source in (study / "out", stage(study, "vt")):
        for target in (stage(study, "at"), stage(study, "vt"), study / "out", study / "store", study):
            words = ["export-model", str(source), "--store", str(study / "store"), "--out", str(target)]
            assert main(words) == 2
            assert "give a new or empty folder" in capsys.readouterr().err
    assert tree(study / "out") == before


def test_an_export_replaces_only_an_earlier_export(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    words = ["export-model", str(stage(study, "vt")), "--store", str(study / "store"), "--out", str(out)]
    (out / ".git").mkdir(parents=True)
    (out / "README.md").write_text("---\nlicense: mit\n---\na card")  # a new repository
    assert main(words) == 0
    (out / "notes.txt").write_text("mine")
    assert main(words) == 0 and (out / "notes.txt").read_text() == "mine"
    copied = tmp_path / "copied"
    shutil.copytree(stage(study, "vt"), copied)
    (copied / "config.yaml").unlink()  # only the model of a stage
    assert main([*words[:-1], str(copied)]) == 2
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    assert main([*words[:-1], str(other)]) == 2 and (other / "config.json").read_text() == '{"model_type": "bert"}'


def test_an_interrupted_export_is_reported_and_repeated(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trichord.embedder import folder as module

    def killed(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "model"
    words = ["export-model", str(stage(study, "vt")), "--store", str(study / "store"), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_words", killed)
        assert main(words) == 130
    with pytest.raises(TrichordError, match="the export was interrupted before it was complete"):
        module.read_folder(out)
    assert main(words) == 0
    module.read_folder(out)


# ---- modes


def test_files_can_be_read_by_those_whom_the_umask_lets(study: Path, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        out = tmp_path / "model"
        assert main(["export-model", str(stage(study, "vt")), "--store", str(study / "store"), "--out", str(out)]) == 0
    finally:
        os.umask(before)
    files = [path for folder in (out, study / "out") for path in folder.rglob("*") if path.is_file()]
    assert {"model.safetensors", "centroids.safetensors", "words.safetensors", "optimizer.safetensors"} <= {
        path.name for path in files
    }
    assert {path for path in files if stat.S_IMODE(path.stat().st_mode) != 0o644} == set()
