"""The report's document and its forms: each is read back by another program's eyes and compared with what went in."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from report_sample import HOSTILE, hostile_document, order_table, plot, sample_document
from trichord.errors import TrichordError
from trichord.report.document import Cell, Column, Commands, Document, Figure, Section, Table, Text, clean, folded, slug
from trichord.report.exports import latex, latex_table, to_csv, to_json_dict, to_latex, write_document
from trichord.report.html import inline_svg, to_html
from trichord.report.markdown import plain, to_markdown

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36pt">{}</svg>'
ANY_TEXT = st.text(st.characters(), max_size=40) | st.text(
    "|\\`*_{}[]<>#$~&:@!'\"-+=1.) \n\t%^→±\x00\u202e", max_size=20
)


class Page(HTMLParser):
    """All elements of a page with their attributes, and the text of each cell, heading and paragraph."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    def values(self, attribute: str) -> list[str]:
        return [str(attributes[attribute]) for _, attributes in self.elements if attribute in attributes]


def one_cell(text: str, **more: object) -> Table:
    return Table(
        "t", text, (Column(text, text, False), Column(text, text)), ((Cell(text, **more), Cell("1", 1)),), text
    )  # type: ignore[arg-type]


def one_table(text: str) -> Document:
    blocks = (one_cell(text, note=text, strong=True), Text((text,), "finding"), Text((text,)), Commands((text,), text))
    return Document(text, text, (Section(text, blocks, text),), (text,))


# ---- the document


def test_the_document_refuses_what_no_form_could_print() -> None:
    with pytest.raises(AssertionError, match="no slug"):
        Table("../t", "", (Column("a"),), ())
    with pytest.raises(AssertionError, match="no slug"):
        Figure("A b", "", "", "", "")
    with pytest.raises(AssertionError, match="ragged"):
        Table("t", "", (Column("a"),), ((Cell("1"), Cell("2")),))
    with pytest.raises(AssertionError, match="same name"):
        Document("", "", (Section("", (order_table(), order_table())),))


def test_headings_groups_and_notes() -> None:
    table = order_table()
    assert table.headings()[:3] == ("order", "YouCook2 R@1", "YouCook2 R@5")
    assert table.groups() == (("", 1), ("YouCook2", 4), ("MSR-VTT", 4))
    assert len(table.notes()) == 3, "the note that two cells share counts once"
    same = Table("t", "", (Column("a"), Column("a"), Column("a (2)"), Column("")), ())
    assert len(set(same.headings())) == 4


@given(ANY_TEXT)
def test_clean_and_slug(text: str) -> None:
    for form in (clean(text), folded(text)):
        form.encode("utf-8")
        assert not any(ord(c) < 32 and c not in "\n\t" for c in form)
        assert clean(form) == form
    assert "\n" not in folded(text)
    Table(slug(text), "", (Column("a"),), ())


def test_slugs() -> None:
    assert [slug(t) for t in ("AV→T", "R@1 by order", "Café", "→", "../x")] == [
        "av-t",
        "r-1-by-order",
        "cafe",
        "unnamed",
        "x",
    ]


# ---- HTML


def test_html_is_one_file_of_sound_structure() -> None:
    html = to_html(sample_document())
    page = Page(html)
    tags = page.tags()
    assert html == to_html(sample_document()), "the same document gives the same page"
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(tags)
    assert "default-src 'none'" in html and page.elements[0] == ("html", {"lang": "en"})
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    references = page.values("href") + page.values("xlink:href")
    inner = {reference[1:] for reference in references if reference.startswith("#")}
    assert inner <= set(ids) and {"report", "section-recall", "note-orders-1"} <= inner
    assert all(r.startswith(("#", "data:image/png;base64,")) for r in references)
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= set(ids)
    assert set(page.values("aria-labelledby")) <= set(ids)
    assert {a.get("scope") for tag, a in page.elements if tag == "th"} == {"col", "colgroup", "row"}
    roots = [a for tag, a in page.elements if tag == "svg"]
    assert [a["aria-label"] for a in roots] == ["Losses fall.", "A matrix with waves."]
    assert all(a["role"] == "img" and "width" not in a and "max-width" in str(a["style"]) for a in roots)


def test_html_tables_group_columns_and_rule_rows() -> None:
    page = Page(to_html(Document("", "", (Section("s", (order_table(),)),))))
    spans = [a.get("colspan") for tag, a in page.elements if a.get("scope") == "colgroup"]
    assert spans == ["4", "4"]
    assert page.tags().count("tbody") == 3 and page.tags().count("tr") == 2 + 6
    texts = [text for tag, text in page.texts if tag == "td"]
    assert texts[:2] == ["1.61\n± 0.31", "5.97\n± 0.31"] and len(texts) >= 6 * 8
    strong = [a for tag, a in page.elements if "strong" in str(a.get("class", "")).split()]
    assert len(strong) == 8
    notes = [text for tag, text in page.texts if tag == "li" and text.strip()]
    assert notes == list(order_table().notes())
    assert set(page.values("title")) == set(order_table().notes())


def test_html_of_little() -> None:
    for sections in (
        (),
        (Section("only a title", ()),),
        (Section("", (Table("t", "", (Column(""),), ()), Text(()), Commands(()))),),
    ):
        Page(to_html(Document("", "", sections)))


@settings(max_examples=40, deadline=None)
@given(ANY_TEXT)
def test_no_text_changes_the_page(text: str) -> None:
    page, harmless = Page(to_html(one_table(text))), Page(to_html(one_table("x")))
    if folded(text):
        assert page.tags() == harmless.tags()
    found = "".join(data for tag, data in page.texts if tag == "code")
    assert found == clean(text)
    assert [data for tag, data in page.texts if tag == "th" and data.strip()][-1:] in (
        [clean(text)],
        [folded(text)],
        [],
    )


def test_hostile_report_keeps_its_shape() -> None:
    html = to_html(hostile_document())
    page = Page(html)
    assert "script" not in page.tags() and "img" not in page.tags() and not page.values("onerror")
    assert (
        html.count(
            folded(HOSTILE).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")
        )
        > 10
    )
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", html)


def test_no_request_leaves_the_page() -> None:
    for document in (sample_document(), hostile_document()):
        html = re.sub("&lt;.*?&gt;", "", to_html(document))
        assert not re.search(r"""(?:src|href|url|import)\s*[=(]?\s*["']?\s*(?:https?:)?//""", html)
        outside = set(re.findall(r'https?://[^\s"<>]+', html))
        assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


# ---- figures in the page


def test_ids_of_figures_do_not_clash() -> None:
    body = (
        '<defs><clipPath id="p"><rect width="1" height="1"/></clipPath><style>*{stroke:red} .a, #p{fill:url(#p)}</style></defs>'
        '<g clip-path="url(#p)" style="fill: url(\'#p\')"><use href="#p"/><use xlink:href="#p"/><text>a &lt; b</text></g>'
    )
    svg = SVG.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"').format(body)
    inlined = inline_svg(f'<?xml version="1.0"?>\n<!DOCTYPE svg PUBLIC "x" "http://x/y.dtd">\n{svg}', "one", 'a "b"')
    assert inlined.startswith("<svg ") and inlined.endswith("</svg>")
    assert inlined.count("#one--p") == 6 and 'id="one--p"' in inlined and not re.search('#p|"p"', inlined)
    assert "#one--figure *{stroke:red}#one--figure .a,#one--figure #one--p{fill:url(#one--p)}" in inlined
    assert 'viewBox="0 0 72 36"' in inlined and "max-width:72pt;--drawn:72pt" in inlined and "a &lt; b" in inlined
    one, two = (set(Page(inline_svg(plot("t"), name, "")).values("id")) for name in ("one", "two"))
    assert len(one) > 20 and not one & two


@pytest.mark.parametrize(
    "part",
    [
        "<script>alert(1)</script>",
        "<foreignObject><b xmlns='http://www.w3.org/1999/xhtml'>alert(1)</b></foreignObject>",
        "<a href='javascript:alert(1)'><text>alert(1)</text></a>",
        "<rect onclick='alert(1)' ONLOAD='alert(1)'/>",
        "<image href='https://alert(1)/x.png'/>",
        "<use href='other.svg#alert(1)'/>",
        "<rect fill='url(https://alert(1)#a)'/>",
        r"<rect style='fill:u\72l(https://alert(1)#a)'/>",
        "<style>@import 'https://alert(1)';</style>",
        "<style>a{} } body { alert(1)</style>",
        "<style>@font-face{src:url(https://alert(1))}</style>",
        "<metadata><p>alert(1)</p></metadata>",
        "<iframe src='alert(1)'/>",
        "<!-- alert(1) --><?run alert(1)?>",
    ],
)  # fmt: skip
def test_nothing_in_a_figure_runs_or_asks_outside(part: str) -> None:
    inlined = inline_svg(SVG.format(part + '<circle r="2"/>'), "f", "")
    assert "alert" not in inlined and '<circle r="2"></circle>' in inlined
    Page(inlined)


@pytest.mark.parametrize("svg", ["", "<svg", "<html></html>", '<!DOCTYPE svg [<!ENTITY a "b">]><svg>&a;</svg>'])
def test_what_is_no_svg_is_named(svg: str) -> None:
    with pytest.raises(AssertionError, match="the figure broken"):
        inline_svg(svg, "broken", "")


# ---- Markdown


def rendered(markdown: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").render(markdown)


def test_markdown_as_another_program_reads_it() -> None:
    text = to_markdown(sample_document())
    page = Page(rendered(text).replace("<br />", "<br>").replace(" />", "></img>"))
    assert [a["src"] for tag, a in page.elements if tag == "img"] == ["figures/curves.svg", "figures/space.svg"]
    assert page.tags().count("table") == 2 and page.tags().count("h2") == 3 and page.tags().count("pre") == 1
    headings = [data for tag, data in page.texts if tag == "th"]
    assert headings[:9] == list(order_table().headings())
    assert "now we're gonna | let it rest" in [data for tag, data in page.texts if tag == "td"]
    assert "other/curves.svg" in to_markdown(sample_document(), "other")


@settings(max_examples=60, deadline=None)
@given(ANY_TEXT)
def test_no_text_changes_the_markdown(text: str) -> None:
    page = Page(rendered(to_markdown(one_table(text))).replace("<br />", "<br>"))
    harmless = Page(rendered(to_markdown(one_table("x"))))
    if folded(text).strip() == folded(text) != "" and "\n" not in clean(text):
        assert page.tags() == harmless.tags()
        assert "".join(data for tag, data in page.texts if tag == "h1") == folded(text)
    assert "".join(data for tag, data in page.texts if tag == "code").removesuffix("\n") == clean(text)


def test_markdown_escapes_what_github_reads_more() -> None:
    text = "$x$ :tada: @you #1 ~~a~~ &amp; _a_ __b__"
    assert plain(text) == r"\$x\$ \:tada: \@you \#1 \~\~a\~\~ \&amp; \_a\_ \_\_b\_\_"
    for readable in ("R@1: 5.2 % (n = 3)", "model_audio & co", "AT→V, {a}!"):
        assert plain(readable) == readable
    for start in ("- a", "+ a", "1. a", "12) a", "= a", "# a", "> a", "* a", "---", "    code"):
        assert rendered(to_markdown(Document("t", "", (Section("s", (Text((start,)),)),)))).count("<p>") == 1


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
    """Braces and environments balance, no bare special sign, and every row of a table has as many cells as columns."""
    depth, math_depth = 0, []
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
    folder.mkdir()
    (folder / "report.json").write_bytes(record.encode("latin-1"))
    write_document(sample_document(), folder)
    assert (tmp_path / "keep.csv").is_file()


def test_a_failed_report_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(TrichordError, match="out: the report could not be written"):
        write_document(sample_document(), tmp_path / "out")
