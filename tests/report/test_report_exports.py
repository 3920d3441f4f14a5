"""The report as CSV, JSON, LaTeX and files: read back, and compared with the input."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from report_sample import ANY_TEXT, one_cell, one_table, order_table, sample_document
from trichord.errors import TrichordError
from trichord.report.document import Cell, Column, Document, Section, Table, folded
from trichord.report.exports import latex, latex_table, to_csv, to_json_dict, to_latex, write_document

# ---- CSV and JSON


def test_csv_holds_values_in_full() -> None:
    table = order_table()
    text = to_csv(table)
    assert "\r" not in text and text.endswith("\n")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == list(table.headings()) and rows[1][:2] == ["AV→T", "1.61234567"]
    assert rows[-1][1] == "nan" and rows[-1][4] == "–"


def test_values_of_numpy_are_plain() -> None:
    cells = (
        Cell("0.1", np.float32(0.1)),
        Cell("3", np.int64(3)),
        Cell("2.5", np.float64(2.5)),
        Cell("-inf", -math.inf),
    )
    table = Table("t", "", tuple(Column(c) for c in "abcd"), (cells,))
    assert to_csv(table) == "a,b,c,d\n0.10000000149011612,3,2.5,-inf\n"
    document = Document("", "", (Section("", (table,)),))
    assert to_json_dict(document)["tables"]["t"] == [{"a": 0.10000000149011612, "b": 3, "c": 2.5, "d": None}]


def test_further_values_have_columns_of_their_own() -> None:
    one = (Cell("9 [7, 12]", 9.25, values=(("low", np.float64(7.125)), ("high", 12))), Cell("2", 2))
    two = (Cell("-"), Cell("3, =a", 3, values=(("policy", "=a"), ("level", math.nan))))
    table = Table("t", "", (Column("R@1", "Tiny"), Column("missing")), (one, two))
    assert to_csv(table) == (
        "Tiny R@1,Tiny R@1 low,Tiny R@1 high,missing,missing policy,missing level\n9.25,7.125,12,2,,\n-,,,3,'=a,nan\n"
    )
    rows = to_json_dict(Document("", "", (Section("", (table,)),)))["tables"]["t"]
    assert rows[0] == {
        "Tiny R@1": 9.25, "Tiny R@1 low": 7.125, "Tiny R@1 high": 12, "missing": 2, "missing policy": None,
        "missing level": None,
    }  # fmt: skip
    assert rows[1]["missing policy"] == "=a" and rows[1]["missing level"] is None


@given(ANY_TEXT)
def test_csv_and_json_come_back(text: str) -> None:
    table = one_cell(text)
    (head, row), want = list(csv.reader(io.StringIO(to_csv(table)))), folded(text)
    assert [row[0].removeprefix("'"), row[1]] == [want.removeprefix("'"), "1"] and len(head) == 2
    document = one_table(text)
    back = json.loads(json.dumps(to_json_dict(document), ensure_ascii=False, allow_nan=False).encode("utf-8"))
    assert back == to_json_dict(document) and list(back["tables"]["t"][0].values()) == [want, 1]


def test_formulas_are_not_run_by_spreadsheets() -> None:
    texts = {"=1+1": "'=1+1", "@SUM(A1)": "'@SUM(A1)", "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0"}
    texts |= {text: text for text in ("-0.5", "+0.5 [0.1, 0.9]", "–", "-", "AV→T", "a=b")}
    for text, want in texts.items():
        table = Table("t", "", (Column("a"), Column("b")), ((Cell(text), Cell("x")),))
        assert list(csv.reader(io.StringIO(to_csv(table))))[1][0] == want


# ---- LaTeX


def tokens(text: str) -> list[str]:
    return re.findall(r"\\[A-Za-z]+\*?|\\.|[{}&%$#_^~\n]|[^\\{}&%$#_^~\n]+", text)


def check_latex(text: str) -> None:
    """Check that braces and environments balance, special characters are escaped, and rows of a table have equal numbers of
    cells.
    """
    depth, math_depth = 0, []
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("%"))  # comments
    for at, token in enumerate(all_tokens := tokens(text)):
        if token == "{":
            depth += 1
            if all_tokens[at - 1] == r"\ensuremath":
                math_depth.append(depth)
        elif token == "}":
            if math_depth and math_depth[-1] == depth:
                math_depth.pop()
            depth -= 1
        elif token in ("^", "_"):
            assert math_depth, f"a bare {token}"
        assert depth >= 0 and token not in ("$", "#", "%"), (
            f"{token!r} at {''.join(all_tokens[max(0, at - 8) : at + 3])!r}"
        )
    assert depth == 0
    environments: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            environments.append(name)
        else:
            assert environments.pop() == name
    assert not environments


def row_widths(text: str) -> set[int]:
    rows = [row for row in re.findall(r"^(.*) \\\\$", text, re.MULTILINE) if row]
    return {
        len(re.findall(r"(?<!\\)&", row)) + 1 + sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row))
        for row in rows
    }


def test_latex_tables() -> None:
    text = to_latex(sample_document())
    check_latex(text.replace("% Each", "Each", 1))
    assert text.count(r"\begin{tabular}") == 2 and r"\label{tab:orders}" in text
    orders = latex_table(order_table())
    assert row_widths(orders) == {9} and orders.count(r"\midrule") == 3
    assert r" & \multicolumn{4}{c}{YouCook2} & \multicolumn{4}{c}{MSR-VTT} \\" in orders
    assert r"\cmidrule(lr){2-5}\cmidrule(lr){6-9}" in orders
    assert r"AV\ensuremath{\rightarrow}T & 1.61 \ensuremath{\pm} 0.31 &" in orders
    assert r"\textbf{4.61 \ensuremath{\pm} 0.34}" in orders and r"\textsuperscript{3}~Ranks of" in orders


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (
            "a_b & 5 % #1 {x} $y$ ~ ^ \\",
            r"a\_b \& 5 \% \#1 \{x\} \$y\$ \textasciitilde{} \textasciicircum{} \textbackslash{}",
        ),
        ("[1, 2] * <x>", r"{[}1, 2{]} {*} \textless{}x\textgreater{}"),
        ("−1 ≤ ± ≥ ×", r"\ensuremath{-}1 \ensuremath{\leq} \ensuremath{\pm} \ensuremath{\geq} \ensuremath{\times}"),
        (
            "τ Δ λ µ Λ",
            r"\ensuremath{\tau} \ensuremath{\Delta} \ensuremath{\lambda} \ensuremath{\mu} \ensuremath{\Lambda}",
        ),
        ("--seeds it''s", "-{}-seeds it'{}'s"),
        ("é ß 中 Ж", "é ß 中 Ж"),
        ("e\u0301", "é"),
        ("R² x₁ ½", r"R\ensuremath{^{2}} x\ensuremath{_{1}} \ensuremath{\frac{1}{2}}"),
        ("☃ 1\u00a0000", r"\texttt{U+2603} 1~000"),
        ("a\n\nb\u200bc", "a bc"),
    ],
)
def test_latex_signs(text: str, want: str) -> None:
    assert latex(text) == want


@given(ANY_TEXT)
def test_no_text_breaks_latex(text: str) -> None:
    table = latex_table(one_cell(text, note=text, strong=True))
    check_latex(table.replace(r"\setlength{\tabcolsep}{4pt}", ""))
    assert row_widths(table) <= {2}
    letters = [c for c in latex(text) if ord(c) > 127]
    assert all(unicodedata.category(c)[0] in "LM" for c in letters)


# ---- files


def test_files_of_a_report(tmp_path: Path) -> None:
    document = sample_document()
    paths = write_document(document, tmp_path / "new" / "folder")
    names = {path.relative_to(tmp_path / "new" / "folder").as_posix() for path in paths}
    assert names == {
        "report.html", "report.md", "report.tex", "report.json",
        "tables/orders.csv", "tables/examples.csv", "figures/curves.svg", "figures/space.svg",
    }  # fmt: skip
    assert {p for p in (tmp_path / "new" / "folder").rglob("*") if p.is_file()} == set(paths), "nothing else is left"
    first = {path: path.read_bytes() for path in paths}
    assert all(b"\r" not in data for data in first.values())
    assert json.loads(first[tmp_path / "new" / "folder" / "report.json"])["title"] == document.title
    write_document(document, tmp_path / "new" / "folder")
    assert first == {path: path.read_bytes() for path in paths}


def test_further_files_are_written_as_safely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = sample_document()
    paths = write_document(document, tmp_path, extra={"recipe.yaml": "a: 1\n"})
    assert tmp_path / "recipe.yaml" in paths and paths[-1] == tmp_path / "report.json"
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(TrichordError, match="No space left on device"):
        write_document(document, tmp_path, extra={"recipe.yaml": "b: 2\n"})
    assert (tmp_path / "recipe.yaml").read_text() == "a: 1\n" and not list(tmp_path.glob(".recipe*"))
    for name in ("../recipe.yaml", "report.json", "report.html"):
        with pytest.raises(ValueError, match="is not a free file name"):
            write_document(document, tmp_path, extra={name: ""})


def test_only_an_earlier_reports_own_parts_are_removed(tmp_path: Path) -> None:
    write_document(sample_document(), tmp_path)
    (tmp_path / "figures" / "mine.svg").write_text("drawn by hand")
    (tmp_path / "tables" / "notes.txt").write_text("kept")
    write_document(Document("t", "", (Section("s", (order_table(),)),)), tmp_path)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*") if p.parent != tmp_path}
    assert left == {"tables/orders.csv", "tables/notes.txt", "figures/mine.svg"}


@pytest.mark.parametrize(
    "record",
    ["", "[]", "{}", '{"sections": [{"blocks": [{"type": "table", "name": "../../keep"}, {"type": []}]}]}', "\xff"],
)
def test_a_strange_record_removes_nothing(tmp_path: Path, record: str) -> None:
    (tmp_path / "keep.csv").write_text("kept")
    folder = tmp_path / "a"
    write_document(sample_document(), folder)
    (folder / "report.json").write_bytes(record.encode("latin-1"))
    write_document(sample_document(), folder)
    assert (tmp_path / "keep.csv").is_file()


def test_a_failed_report_keeps_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_document(sample_document(), tmp_path)
    before = {path: path.read_bytes() for path in paths}
    write_text = Path.write_text

    def full(self: Path, *args: object, **more: object) -> int:
        if ".svg." in self.name:
            raise OSError(28, "No space left on device")
        return write_text(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(TrichordError, match="No space left on device.*choose another folder"):
        write_document(Document("other", "", sample_document().sections[:1]), tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.*")}


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(TrichordError, match="out: the report cannot be written"):
        write_document(sample_document(), tmp_path / "out")
