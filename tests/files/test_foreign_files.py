"""Results never replace files of the user, whatever name `--out` has."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from report_sample import sample_document
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.files.writing import refuse_foreign
from trichord.report.exports import write_document
from trichord.study.evaluation import Evaluation, write_evaluation
from trichord.study.evaluation_files import PER_QUERY, RESULTS
from trichord.study.run import _check_new
from trichord.study.table import TABLE_FILES
from trichord.tasks.subject import Subject


@pytest.fixture
def embedded() -> Embedded:
    rows = np.eye(3, dtype=np.float32)
    return Embedded.of({"video": rows, "text": rows})


def _weights(path: Path) -> None:
    save_file({"weight": np.ones(4, dtype=np.float32)}, path, {"format": "pt"})


def _arrays(path: Path) -> None:
    np.savez(path, video=np.eye(3), text=np.eye(3))


def _torn(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 of something else")


@pytest.mark.parametrize(
    "name, write",
    [("model.safetensors", _weights), ("theirs.npz", _arrays), ("torn.npz", _torn), ("torn.safetensors", _torn)],
)
def test_embeddings_replace_only_embeddings(
    embedded: Embedded, tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    path = tmp_path / name
    write(path)
    before = path.read_bytes()
    with pytest.raises(TrichordError, match="is not a file of embeddings that trichord wrote"):
        embedded.save(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_earlier_embeddings_are_replaced(embedded: Embedded, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    path.touch()  # as mktemp leaves it
    embedded.save(path)
    embedded.save(path)
    assert Embedded.load(path).num_clips == 3


@pytest.mark.parametrize("content", ['{"orders": [], "results": []}', '[{"my": 1}]', "mine", "[1]"])
def test_an_evaluation_replaces_only_an_evaluation(embedded: Embedded, tmp_path: Path, content: str) -> None:
    evaluation = Evaluation(Subject("mine", ("video", "text"), given=embedded))
    file, folder, other = tmp_path / "study.json", tmp_path / "results", tmp_path / "queries"
    folder.mkdir()
    other.mkdir()
    file.write_text(content)
    (folder / RESULTS).write_text(content)
    np.savez(other / PER_QUERY, mine=np.arange(3))
    for out in (file, folder, other):
        with pytest.raises(TrichordError, match="is not an evaluation that trichord wrote"):
            write_evaluation(evaluation, out)
    assert file.read_text() == (folder / RESULTS).read_text() == content
    assert os.listdir(other) == [PER_QUERY]


def test_an_earlier_evaluation_is_replaced(embedded: Embedded, tmp_path: Path) -> None:
    evaluation = Evaluation(Subject("mine", ("video", "text"), given=embedded))
    for out in (tmp_path / "rows.json", tmp_path / "results"):
        write_evaluation(evaluation, out)
        write_evaluation(evaluation, out)


def test_a_report_replaces_only_a_report(tmp_path: Path) -> None:
    document = sample_document()
    out = tmp_path / "notes"
    out.mkdir()
    (out / "report.md").write_text("mine")
    with pytest.raises(TrichordError, match=r"report\.md: is not a file of a report that trichord wrote"):
        write_document(document, out, "report")
    assert os.listdir(out) == ["report.md"]
    (out / "report.md").unlink()
    write_document(document, out, "report")
    (out / "report.json").write_text("damaged")
    write_document(document, out, "report")
    (out / "report.html").unlink()
    write_document(document, out, "report")
    assert "title" in json.loads((out / "report.json").read_text())


@pytest.mark.parametrize("name", ["study.json", *TABLE_FILES])
def test_a_study_does_not_start_among_foreign_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(TrichordError, match="is not a file of a study that trichord wrote"):
        _check_new(tmp_path)
    (tmp_path / "run.yaml").write_text("of a run: its settings are compared next")
    _check_new(tmp_path)


def test_a_study_whose_settings_were_deleted_continues(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text('{"recipe": {}, "orders": [], "results": []}')
    (tmp_path / "table.md").write_text("of that study")
    _check_new(tmp_path)


def test_only_files_and_links_are_replaced(tmp_path: Path) -> None:
    fifo, link, target = tmp_path / "fifo", tmp_path / "link", tmp_path / "target"
    os.mkfifo(fifo)
    target.write_text("mine")
    link.symlink_to(target)
    with pytest.raises(TrichordError, match="fifo: is not a table"):
        refuse_foreign([fifo], lambda path: True, "a table")
    refuse_foreign([link, tmp_path / "missing", target / "below"], lambda path: False, "a table")
