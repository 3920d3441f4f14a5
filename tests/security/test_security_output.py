"""Untrusted names and texts in pages, tables and terminals are displayed and never executed."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from export_helpers import write_store
from report_helpers import captions_in, write_study_folder
from table_helpers import table_of_rows
from trichord.captions import Captions
from trichord.cli import main
from trichord.errors import TrichordError, printable
from trichord.report.contents import build_study
from trichord.report.document import Cell, Column, Document, Section, Table
from trichord.report.exports import latex, to_csv
from trichord.report.html import to_html
from trichord.report.markdown import to_markdown
from trichord.report.reading import read_study
from trichord.store import Item
from trichord.study.table import StudyTable, inert, to_latex, to_rich
from trichord.study.table import to_csv as study_csv
from trichord.study.table import to_markdown as study_markdown

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% for x in y %}",
    "=cmd|'/c calc'!A0",
    "\t=1+1",
    "\\input{/etc/passwd}",
    "\\write18{touch x}",
    "\x1b]0;owned\x07\x1b[2J",
    "a\nb\r\nc",
    "a|b",
    "\u202etxt.exe",
    "[/red][link=x]",
    "\0",
    "\ud800",
]


def row(benchmark: str) -> dict[str, object]:
    figures = dict.fromkeys(("r1", "r5", "r10", "medr", "meanr", "chance_r1", "chance_r5", "chance_r10"), 1.0)
    counts = {"num_queries": 3, "num_gallery": 3, "num_missing": 0, "missing": "drop"}
    return {"order": "vt", "seed": 0, "benchmark": benchmark, "direction": "t2v", **figures, **counts}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_table_of_a_study(name: str) -> None:
    table = table_of_rows([row(name)], [name], [name])
    (cells,) = csv.DictReader(io.StringIO(study_csv(table), newline=""))
    assert not re.match(r"\s*[=@]", cells["benchmark"])
    text = re.sub("(?m)^%.*", "%", to_latex(table))  # one line of comment
    assert "\\input" not in text and "\\write" not in text
    assert len(text.splitlines()) == len(to_latex(plain()).splitlines())
    page = study_markdown(table)
    assert "<script" not in page and "<img" not in page and "\x1b" not in page
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")} == {5}
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=300, color_system=None).print(to_rich(table))
    assert not set("\x1b\x07\0\r") & set(re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()))


def plain() -> StudyTable:
    return table_of_rows([row("a")], ["a"], ["a"])


@pytest.mark.parametrize("name", HOSTILE)
def test_the_forms_of_a_report(name: str) -> None:
    table = Table("t", name, (Column(name),), ((Cell(name),),), caption=name)
    document = Document(name, name, (Section(name, (table,), name),), (name,))
    page = to_html(document)
    assert "<script" not in page and "<img" not in page and not set("\x1b\x07\0\u202e") & set(page)
    assert "7 * 7" in page if "7 * 7" in name else "49" not in page.partition("<body")[2]
    assert not re.search(r"(?<!\\)<(script|img)", to_markdown(document))
    assert "\\input" not in latex(name) and "\\write" not in latex(name)
    assert all(not re.match(r"\s*[=@]", cell) for line in csv.reader(io.StringIO(to_csv(table))) for cell in line)


@given(st.text())
def test_formulas_are_texts(text: str) -> None:
    assert inert(text) in (text, f"'{text}") and not inert(text).startswith(("=", "@"))


@pytest.mark.parametrize("text", ["-1.5", "+3", "-0.2e", "a=b", "", "5"])
def test_numbers_stay_numbers(text: str) -> None:
    assert inert(text) == text or re.search("[A-Za-z]", text)


@given(st.text(st.characters()))
def test_messages_are_printable(text: str) -> None:
    message = str(TrichordError(text))
    assert message.isprintable() and len(message) >= len(text)
    assert printable(message) == message


def test_names_reach_a_terminal_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids, collections and captions with escape codes are passed to commands that print them."""
    monkeypatch.setattr("trichord.store.items.check_collection", lambda name: None)  # as earlier versions stored them
    name = "\x1b]0;owned\x07\x1b[2J\x9b31m"
    write_store(tmp_path / "s", [Item(name, name, name, 1.0, {}, {}, Captions.empty())])
    assert main(["store", "info", str(tmp_path / "s")]) == 0
    assert main(["store", "verify", str(tmp_path / "s")]) == 0
    (shard,) = (tmp_path / "s" / "parts").glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    main(["store", "verify", str(tmp_path / "s")])
    main(["evaluate", str(tmp_path / name), "--store", str(tmp_path / "s")])
    output = capsys.readouterr()
    assert "\\x1b]0;owned\\x07" in output.out and not set("\x1b\x07\x9b") & set(output.out + output.err)


@pytest.mark.slow
def test_captions_reach_the_page_as_text(tmp_path: Path) -> None:
    hostile = '<script>alert("{n}")</script>'
    folder = write_study_folder(tmp_path / "s", orders=["av>t", "vt>a"], seeds=[0, 1], caption=hostile)
    assert captions_in(read_study(folder), "tiny")[3] == hostile.format(n=3)
    page = to_html(build_study(read_study(folder)))
    assert "&lt;script&gt;alert(&#34;" in page and "<script" not in page
