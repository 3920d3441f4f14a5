"""The report as GitHub Flavored Markdown. Figures are links to the SVG files; rules between rows are left out."""

from __future__ import annotations

import re

from trichord.report.document import Cell, Commands, Document, Figure, Table, Text, clean, folded

BOXES = {"finding": "Finding", "warning": "Warning"}
_MARKUP = re.compile(
    r"[\\`*\[\]<>#|$~]|(?<![^\W_])_|_(?![^\W_])"  # an underscore inside a word is not markup
    r"|&(?=[#\w])|:(?=[\w+-]+:)|(?<!\w)@(?=\w)"  # entities, emoji and people
)
_LIST_OR_RULE = re.compile(r"([-+=])|(\d+)([.)])")


def to_markdown(document: Document, figures_folder: str = "figures") -> str:
    """Return the report in Markdown.

    Grouped columns have names such as "YouCook2 R@1". The note of a cell is a number, and its text is below the table.

    Args:
        document: Report.
        figures_folder: Folder of the files `NAME.svg`, relative to the page.
    """
    parts = [f"# {plain(document.title)}"]
    if document.subtitle:
        parts.append(at_start(document.subtitle))
    parts.append("\n>\n".join(f"> {at_start(sentence)}" for sentence in document.summary))
    numbers = document.numbers()
    for section in document.sections:
        parts.append(f"## {plain(section.title)}")
        if section.intro:
            parts.append(at_start(section.intro))
        for block in section.blocks:
            if isinstance(block, Table):
                parts.extend(_table(block, numbers[id(block)]))
            elif isinstance(block, Figure):
                parts.extend(_figure(block, numbers[id(block)], figures_folder))
            elif isinstance(block, Text):
                parts.extend(_text(block))
            else:
                parts.extend(_commands(block))
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """Return `text` in one line, with everything escaped that Markdown or GitHub would read as markup."""
    return _MARKUP.sub(r"\\\g<0>", folded(text))


def at_start(text: str) -> str:
    """Return the `plain` text for the beginning of a line, where it must not start a list, rule or heading."""
    escaped = plain(text)
    match = _LIST_OR_RULE.match(escaped)
    if not match:
        return escaped
    return rf"\{escaped}" if match[1] else rf"{match[2]}\{match[3]}{escaped[match.end() :]}"


def _table(table: Table, number: int) -> list[str]:
    notes = {note: position for position, note in enumerate(table.notes(), start=1)}
    rules = ["---:" if column.numeric else ":---" for column in table.columns]
    lines = [_row([plain(key) for key in table.headings()]), _row(rules)]
    lines += [_row([_cell(cell, notes) for cell in row]) for row in table.rows]
    remarks = [f"<sup>{position}</sup> {plain(note)}" for note, position in notes.items()]
    return [
        f"**Table {number}. {plain(table.title)}**",
        at_start(table.caption),
        "\n".join(lines),
        "<br>\n".join(remarks),
    ]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(cell: Cell, notes: dict[str, int]) -> str:
    lines = [plain(line) for line in clean(cell.text).split("\n")]
    text = "<br>".join(f"**{line}**" if cell.strong and line else line for line in lines).strip()
    note = folded(cell.note)
    return f"{text}<sup>{notes[note]}</sup>" if note else text


def _figure(figure: Figure, number: int, folder: str) -> list[str]:
    title = f"**Figure {number}. {plain(figure.title)}**"
    return [title, f"![{plain(figure.alt)}]({folder}/{figure.name}.svg)", at_start(figure.caption)]


def _text(block: Text) -> list[str]:
    if block.kind == "plain":
        return [at_start(paragraph) for paragraph in block.paragraphs]
    lines = [f"> **{BOXES[block.kind]}**"]
    for paragraph in block.paragraphs:
        lines += [">", f"> {at_start(paragraph)}"]
    return ["\n".join(lines)]


def _commands(block: Commands) -> list[str]:
    body = "\n".join(clean(line) for line in block.lines)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", body)), default=0))
    title = f"**{plain(block.title)}**" if folded(block.title) else ""
    return [title, f"{fence}sh\n{body}\n{fence}"]
