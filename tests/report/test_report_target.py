"""A report that cannot be written is refused before anything is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evaluation_report_helpers import planted, write_folder
from privileges import plain_user
from report_helpers import write_study_folder
from trichord.errors import TrichordError
from trichord.report import contents, write
from trichord.report.write import write_reports


@dataclass(frozen=True)
class Kind:
    """A kind of report of a folder `subject`: its default folder and the name of its files."""

    source: str
    folder: str = "report"
    name: str = "report"
    compare: bool = False


KINDS = [Kind("study"), Kind("study", "compared-with-subject", "comparison", compare=True), Kind("evaluation")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    write_study_folder(root / "study" / "subject", orders=["avt"], seeds=[0], benchmarks={"tiny": 20})
    write_folder(root / "evaluation" / "subject", planted(0.5), names=["retrieval"])
    return root


@pytest.fixture
def report(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Kind, Path | None], None]:
    """Write a report of a kind to a folder. The test fails if its document is built."""

    def build(*_: object, **__: object) -> None:
        pytest.fail("the report was built before the folder was checked")

    for module, name in ((contents, "build_study"), (contents, "build_evaluations"), (write, "compare_studies")):
        monkeypatch.setattr(module, name, build)

    def run(kind: Kind, out: Path | None) -> None:
        write_reports([root / kind.source / "subject"] * (1 + kind.compare), out, compare=kind.compare)

    return run


each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name + " of " + kind.source)


@each_kind
def test_a_default_folder_that_is_a_link(report: Any, kind: Kind, root: Path, tmp_path: Path) -> None:
    default = root / kind.source / "subject" / kind.folder
    default.symlink_to(tmp_path)
    try:
        with pytest.raises(TrichordError, match="is a link to"):
            report(kind, None)
    finally:
        default.unlink()


@each_kind
def test_a_link_inside_the_folder(report: Any, kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tables").symlink_to(tmp_path)
    with pytest.raises(TrichordError, match="tables: is a link to"):
        report(kind, tmp_path / "out")


@each_kind
def test_a_file_of_the_user(report: Any, kind: Kind, tmp_path: Path) -> None:
    (tmp_path / f"{kind.name}.md").write_text("a text")
    with pytest.raises(TrichordError, match="is not a file of a report"):
        report(kind, tmp_path)


@each_kind
@pytest.mark.parametrize("below", ["", "more/folders"])
def test_a_path_without_a_folder(report: Any, kind: Kind, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "dangling"):
        with pytest.raises(TrichordError, match=rf"cannot be written \(.*{name} is not a folder"):
            report(kind, tmp_path / name / below)


@each_kind
def test_a_folder_without_permission(report: Any, kind: Kind, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with plain_user(), pytest.raises(TrichordError, match="is not writable"):
        report(kind, tmp_path / "out")
    assert not (tmp_path / "out").exists()
