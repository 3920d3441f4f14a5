"""JSON that is hard to parse: deep nesting, numbers of thousands of digits, incomplete characters. The error names the row."""

from __future__ import annotations

from pathlib import Path

import pytest

from trichord.cli import main
from trichord.errors import TrichordError
from trichord.extraction.table import read_table
from trichord.files.reading import parse_json, parse_json_row
from trichord.tasks.labels.tables import read_labels
from trichord.training.log import cut_lines

ROWS = {
    "deep": ('"x": ' + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
    "digits": ('"start": ' + "9" * 5000, "a number in it has too many digits"),
    "half": (r'"id": "\ud800"', "unpaired surrogate"),
    "half in upper case": (r'"id": "a\uDC00"', "unpaired surrogate"),
    "half in a list": (r'"text": ["a", "\udfff b"]', "unpaired surrogate"),
    "half as a column": (r'"\ud800": 1', "unpaired surrogate"),
    "torn": ('"id": "a', "is not JSON"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_table_of_clips_names_the_row(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row, reason = ROWS[name]
    path = tmp_path / "clips.jsonl"
    path.write_text('{"video": "a.mp4"}\n\n{"video": "b.mp4", ' + row + "}\n")
    with pytest.raises(TrichordError, match=reason):
        read_table(path)
    assert main(["extract", str(path), "--store", str(tmp_path / "store"), "--visual_2d", "none"]) == 2
    message = capsys.readouterr().err
    assert (
        message.startswith(f"trichord: error: {path}, row 2: is not JSON (")
        and message.count("\n") == 1
        and len(message) < 300
    )


@pytest.mark.parametrize("name", ROWS)
def test_an_invalid_table_of_labels_gives_the_reason(name: str, tmp_path: Path) -> None:
    row, reason = ROWS[name]
    path = tmp_path / "labels.jsonl"
    path.write_text('{"clip": "b", ' + row + "}\n")
    with pytest.raises(TrichordError, match="cannot be read" if name == "torn" else reason):
        read_labels(path)


def test_whole_pairs_are_characters() -> None:
    assert parse_json_row(r'{"id": "\ud83d\ude00"}') == {"id": "\U0001f600"}
    assert parse_json(b'"\\ud800"') == "\ud800"  # outside tables, it is accepted


def test_metrics_of_any_bytes_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0, "seconds": 2}\n{"step": 1, "seconds": 1' + b"0" * 400 + b"}\n\xff\xfe\n")
    assert cut_lines(path, 9) == 2.0
    assert path.read_bytes().startswith(b'{"step": 0, "seconds": 2}\n')
