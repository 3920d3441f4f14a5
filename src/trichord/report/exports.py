"""The report as CSV, LaTeX and JSON, and the writing of all its files."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import numbers
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError
from trichord.files.folders import check_no_links, make_folder
from trichord.files.reading import open_regular, read_text
from trichord.files.writing import refuse_foreign, replacing
from trichord.report.document import SLUG, Cell, Commands, Document, Figure, Table, Text, clean, folded
from trichord.report.html import CONTENT_POLICY, to_html
from trichord.report.markdown import to_markdown
from trichord.study.table import inert

TABLES, FIGURES = "tables", "figures"
WIDE_LATEX = 8  # number of columns from which a table is set in a smaller font
_HEAD_BYTES = 4096  # the beginning of a page, which contains its content policy
LONG_LATEX = 36  # number of characters above which a column of texts breaks its lines

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\char34{}", "\ufffd": "?", "`": r"\textasciigrave{}",
    "[": "{[}", "]": "{]}", "*": "{*}", "\u00a0": "~", "\u202f": r"\,", "\u2009": r"\,", "\u2007": "~",
    "\u2010": "-", "\u2011": "{-}", "–": "{--}", "—": "{---}", "‘": "{`}", "’": "{'}", "“": "{``}", "”": "{''}",
    "…": r"\ldots{}", "•": r"\textbullet{}", "§": r"\S{}", "¶": r"\P{}", "©": r"\copyright{}", "°": r"\textdegree{}",
    "†": r"\dag{}", "‡": r"\ddag{}", "¿": "{?`}", "¡": "{!`}", "€": r"\texteuro{}", "£": r"\pounds{}",
}  # fmt: skip
_LATEX_MATH = {
    "→": r"\rightarrow", "←": r"\leftarrow", "↔": r"\leftrightarrow", "⇒": r"\Rightarrow", "↑": r"\uparrow",
    "↓": r"\downarrow", "±": r"\pm", "∓": r"\mp", "−": "-", "×": r"\times", "÷": r"\div", "·": r"\cdot", "≤": r"\leq",
    "≥": r"\geq", "≠": r"\neq", "≈": r"\approx", "∼": r"\sim", "≪": r"\ll", "≫": r"\gg", "∞": r"\infty", "√": r"\surd",
    "∑": r"\sum", "∏": r"\prod", "∈": r"\in", "∅": r"\emptyset", "∩": r"\cap", "∪": r"\cup", "∝": r"\propto",
    "∂": r"\partial", "∆": r"\Delta", "µ": r"\mu", "‖": r"\Vert", "✓": r"\surd", "✗": r"\times", "′": r"\prime",
    "∙": r"\cdot", "⋅": r"\cdot", "¬": r"\neg", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}",
}  # fmt: skip
_GREEK_SMALL = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lamda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega"
)
_GREEK_CAPITAL = "gamma|delta|theta|lamda|xi|pi|sigma|upsilon|phi|psi|omega"
_GREEK = re.compile(f"greek (?:small letter ({_GREEK_SMALL})|capital letter ({_GREEK_CAPITAL}))")
_PREAMBLE = r"""% Compile with xelatex or lualatex if names or captions contain scripts other than Latin (Arabic, Japanese, ...).
% pdflatex does not support these and reports "Unicode character ... not set up for use with LaTeX".
% Each table can be copied on its own. It needs the package booktabs.
\documentclass{article}
\usepackage[a4paper, margin=2cm]{geometry}
\usepackage{iftex}
\ifPDFTeX
  \usepackage[T1]{fontenc}
  \usepackage[utf8]{inputenc}
  \usepackage{textcomp}
\else
  \usepackage{fontspec}
\fi
\usepackage{booktabs}
"""


# ---- CSV


def to_csv(table: Table) -> str:
    """Return a table as CSV: a line of headings ("YouCook2 R@1"), and a line for each row.

    A cell contains its value with full precision, or its text if it has no value. Further values of cells have separate columns
    ("YouCook2 R@1 low"), which are empty for cells without them. Lines end with a line feed. An apostrophe precedes a text that a
    spreadsheet would run as a formula.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = table.spread()
    writer.writerow([inert(heading) for heading, _, _ in columns])
    for row in table.rows:
        values = [_value(row[at], name) for _, at, name in columns]
        writer.writerow([inert(v) if isinstance(v, str) else "" if v is None else repr(v) for v in values])
    return out.getvalue()


def _value(cell: Cell, name: str | None = None) -> str | int | float | bool | None:
    """Return the value of a cell as a built-in type, or its text in one line.

    With a name, return the further value of this name, or None without one.
    """
    value = cell.value if name is None else dict(cell.values).get(name)
    if value is None:
        return folded(cell.text) if name is None else None
    if isinstance(value, str):
        return folded(value)
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


# ---- JSON


def to_json_dict(document: Document) -> dict[str, Any]:
    """Return the report as plain values.

    `tables` contains the rows of each table by its name, and `sections` contains the texts and the positions of the tables. Numbers
    that are not finite become None, so that `json.dumps(..., allow_nan=False)` accepts them.
    """
    return {
        "title": folded(document.title),
        "subtitle": folded(document.subtitle),
        "summary": [folded(sentence) for sentence in document.summary],
        "sections": [
            {
                "title": folded(section.title),
                "intro": folded(section.intro),
                "blocks": [_json_block(block) for block in section.blocks],
            }
            for section in document.sections
        ],
        "tables": {table.name: _json_rows(table) for table in document.tables()},
    }


def _json_rows(table: Table) -> list[dict[str, Any]]:
    def finite(value: str | int | float | bool | None) -> str | int | float | bool | None:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    columns = table.spread()
    return [{key: finite(_value(row[at], name)) for key, at, name in columns} for row in table.rows]


def _json_block(block: Table | Figure | Text | Commands) -> dict[str, Any]:
    if isinstance(block, Table):
        notes = [
            {"row": number, "column": key, "note": folded(cell.note)}
            for number, row in enumerate(block.rows)
            for key, cell in zip(block.headings(), row, strict=True)
            if folded(cell.note)
        ]
        head = {"type": "table", "name": block.name, "title": folded(block.title), "caption": folded(block.caption)}
        return {**head, "notes": notes}
    if isinstance(block, Figure):
        texts = {"title": folded(block.title), "caption": folded(block.caption), "alt": folded(block.alt)}
        return {"type": "figure", "name": block.name, **texts, "file": f"{FIGURES}/{block.name}.svg"}
    if isinstance(block, Text):
        return {"type": "text", "kind": block.kind, "paragraphs": [folded(paragraph) for paragraph in block.paragraphs]}
    return {"type": "commands", "title": folded(block.title), "lines": [clean(line) for line in block.lines]}


# ---- LaTeX


def to_latex(document: Document) -> str:
    """Return a LaTeX document of all tables, under the titles of their sections. It needs the package booktabs.

    pdfLaTeX prints Latin letters with accents. Other scripts need LuaLaTeX or XeLaTeX and a font that contains them.
    """
    parts = [
        _PREAMBLE,
        f"\\title{{{latex(document.title)}}}\n\\date{{}}\n\\author{{}}\n\\begin{{document}}\n\\maketitle\n",
    ]
    for section in document.sections:
        tables = [block for block in section.blocks if isinstance(block, Table)]
        if tables:
            parts.append(f"\\section*{{{latex(section.title)}}}\n")
            parts.extend(latex_table(table) for table in tables)
            parts.append("\\clearpage\n")
    return "\n".join([*parts, "\\end{document}\n"])


def latex(text: str) -> str:
    """Return `text` in one line for LaTeX. Letters are unchanged. Symbols become commands, or code points without a command."""
    parts: list[str] = []
    previous = ""
    for letter in unicodedata.normalize("NFC", folded(text)):
        ligature = letter == previous and letter in "-',"  # "--" stays two hyphens and does not become a dash
        parts.append("{}" + letter if ligature else _latex_letter(letter))
        previous = letter
    return "".join(parts)


def _latex_letter(letter: str) -> str:
    if letter in _LATEX:
        return _LATEX[letter]
    if letter in _LATEX_MATH:
        return rf"\ensuremath{{{_LATEX_MATH[letter]}}}"
    if " " <= letter <= "~":
        return letter
    if greek := _GREEK.fullmatch(unicodedata.name(letter, "").lower()):
        name = (greek[1] or greek[2].capitalize()).replace("amda", "ambda")
        return rf"\ensuremath{{\{name}}}"
    category = unicodedata.category(letter)
    if category[0] in "ZC":  # other spaces; joiners and soft hyphens
        return " " if category[0] == "Z" else ""
    if category[0] in "LM":
        return letter
    simple = unicodedata.normalize("NFKD", letter)
    if "<super>" in unicodedata.decomposition(letter) and simple.isascii():
        return rf"\ensuremath{{^{{{latex(simple)}}}}}"
    if "<sub>" in unicodedata.decomposition(letter) and simple.isascii():
        return rf"\ensuremath{{_{{{latex(simple)}}}}}"
    return latex(simple) if simple.isascii() else rf"\texttt{{U+{ord(letter):04X}}}"


def latex_table(table: Table) -> str:
    """Return a `table` environment with caption, label `tab:NAME` and the notes below. It needs the package booktabs."""
    notes = {note: number for number, note in enumerate(table.notes(), start=1)}
    size, gap = ("\\scriptsize", "3pt") if len(table.columns) >= WIDE_LATEX else ("\\small", "4pt")
    caption = " ".join(part for part in (_sentence(table.title), latex(table.caption)) if part)
    lines = [f"\\begin{{table}}[htbp]\n\\centering{size}", f"\\setlength{{\\tabcolsep}}{{{gap}}}"]
    lines += [f"\\caption{{{caption}}}\\label{{tab:{table.name}}}"]
    lines += [f"\\begin{{tabular}}{{@{{}}{_latex_columns(table)}@{{}}}}", "\\toprule", *_latex_head(table), "\\midrule"]
    for number, row in enumerate(table.rows):
        if number and number in table.separators:
            lines.append("\\midrule")
        lines.append(" & ".join(_latex_cell(cell, notes) for cell in row) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    lines += [f"\\par\\smallskip\\textsuperscript{{{number}}}~{latex(note)}" for note, number in notes.items()]
    return "\n".join([*lines, "\\end{table}\n"])


def _sentence(text: str) -> str:
    printed = latex(text)
    return printed if not printed or folded(text).endswith((".", "?", "!", ":")) else f"{printed}."


def _latex_columns(table: Table) -> str:
    widths = [max((len(folded(row[at].text)) for row in table.rows), default=0) for at in range(len(table.columns))]
    long = max(1, sum(not c.numeric and width > LONG_LATEX for c, width in zip(table.columns, widths, strict=True)))
    broken = f"p{{{max(0.12, 0.5 / long):.2f}\\textwidth}}"
    return "".join(
        "r" if column.numeric else broken if width > LONG_LATEX else "l"
        for column, width in zip(table.columns, widths, strict=True)
    )


def _latex_head(table: Table) -> list[str]:
    labels = " & ".join(latex(column.label) for column in table.columns) + r" \\"
    if not any(column.group for column in table.columns):
        return [labels]
    tops, rules, column = [], [], 1
    for group, width in table.groups():
        if group:
            tops.append(f"\\multicolumn{{{width}}}{{c}}{{{latex(group)}}}")
            rules.append(f"\\cmidrule(lr){{{column}-{column + width - 1}}}")
        else:
            tops.append("")
        column += width
    return [" & ".join(tops) + r" \\", "".join(rules), labels]


def _latex_cell(cell: Cell, notes: dict[str, int]) -> str:
    text = latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.strong and text else text
    note = folded(cell.note)
    return rf"{text}\textsuperscript{{{notes[note]}}}" if note else text


# ---- files


def write_document(
    document: Document, folder: Path, name: str = "report", *, extra: Mapping[str, str] | None = None
) -> list[Path]:
    """Write NAME.html, NAME.md, NAME.tex, tables/TABLE.csv, figures/FIGURE.svg, `extra` and NAME.json.

    All texts are created before the first file is changed, and each file is replaced as a whole. Tables and figures that the
    NAME.json of an earlier report lists and that this report does not contain are removed.

    Args:
        document: Report.
        folder: Folder of the files. It is created if it does not exist.
        name: Name of the files, which must be a slug.
        extra: Texts of further files by file name.

    Returns:
        The paths of the files.

    Raises:
        TrichordError: The folder or a file cannot be written.
        ValueError: A name is invalid.
    """
    if not SLUG.fullmatch(name):
        raise ValueError(f"the name of the report, {name!r}, is not a slug")
    record = Path(f"{name}.json")  # replaced last: until then, the earlier one lists the files to remove
    texts = {Path(f"{name}.html"): to_html(document), Path(f"{name}.md"): to_markdown(document, FIGURES)}
    texts[Path(f"{name}.tex")] = to_latex(document)
    texts |= {Path(TABLES, f"{table.name}.csv"): to_csv(table) for table in document.tables()}
    texts |= {Path(FIGURES, f"{figure.name}.svg"): clean(figure.svg) for figure in document.figures()}
    for own, text in (extra or {}).items():
        if not (Path(own).name == own and Path(own) not in {*texts, record}):
            raise ValueError(f"the further file {own!r} of the report is not a free file name")
        texts[Path(own)] = text
    texts[record] = json.dumps(to_json_dict(document), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    check_target(folder, name, texts)
    try:
        stale = _parts_of(folder / record) - set(texts)
        _replace_all(folder, texts, stale)
    except OSError as error:
        raise _not_written(folder, error.strerror or str(error)) from error
    return [folder / path for path in texts]


def check_target(folder: Path, name: str, paths: Iterable[str | Path] = ()) -> None:
    """Check that a report can be written to a folder. This is cheap and changes nothing, so it can precede the drawing.

    Args:
        folder: Folder of the report, which may be missing.
        name: Name of the page, the Markdown, LaTeX and JSON files.
        paths: Further files of the report, relative to `folder`.

    Raises:
        TrichordError: The folder contains a link to a folder, or a file that no report contains, under the name of a file of
            the report; or the folder cannot be created or written to.
    """
    check_no_links(folder)
    is_report = _is_record(folder / f"{name}.json") or _is_page(folder / f"{name}.html")
    names = (*(f"{name}.{suffix}" for suffix in ("html", "md", "tex", "json")), *paths)
    refuse_foreign([folder / path for path in names], lambda _: is_report, "a file of a report")
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise _not_written(folder, f"{existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        is_read_only = bool(os.statvfs(existing).f_flag & os.ST_RDONLY)
        raise _not_written(folder, os.strerror(errno.EROFS) if is_read_only else f"{existing} is not writable")


def _not_written(folder: Path, reason: str) -> TrichordError:
    return TrichordError(
        f"{folder}: the report cannot be written ({reason}); "
        "free space or change the permissions there, or choose another folder"
    )


def _replace_all(folder: Path, texts: dict[Path, str], stale: set[Path]) -> None:
    """Write all texts to temporary files, move these into place in order, and remove stale files before the last move."""

    def remove_stale(kind: type[BaseException] | None, *_: object) -> None:
        for path in stale if kind is None else ():
            (folder / path).unlink(missing_ok=True)

    paths = list(texts)
    with ExitStack() as placing:  # the file entered last is moved first
        for path in reversed(paths):
            make_folder(folder, *path.parent.parts)
            partial = placing.enter_context(replacing(folder / path, shared=True))
            partial.write_text(texts[path], encoding="utf-8", newline="\n")
            if path == paths[-1]:
                placing.push(remove_stale)


def _is_record(path: Path) -> bool:
    try:
        return bool(json.loads(read_text(path)).keys() >= {"title", "sections", "tables"})
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _is_page(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return CONTENT_POLICY.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False


def _parts_of(record: Path) -> set[Path]:
    """Return the files of tables and figures that the JSON of a report lists, if this file exists."""
    try:
        sections = json.loads(read_text(record))["sections"]
        blocks = [(str(block["type"]), str(block.get("name"))) for section in sections for block in section["blocks"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
    kinds = {"table": (TABLES, ".csv"), "figure": (FIGURES, ".svg")}
    return {Path(kinds[t][0], name + kinds[t][1]) for t, name in blocks if t in kinds and SLUG.fullmatch(name)}
