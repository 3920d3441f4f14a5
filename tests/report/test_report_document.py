"""The document of the report and its formats: each is read by another program and compared with the input."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from report_sample import ANY_TEXT, HOSTILE, hostile_document, one_table, order_table, sample_document
from trichord.report.document import (
    Cell,
    Column,
    Commands,
    Document,
    Figure,
    Section,
    Table,
    Text,
    clean,
    distinct_slugs,
    folded,
    slug,
)
from trichord.report.html import to_html
from trichord.report.markdown import plain, to_markdown

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36pt">{}</svg>'


class Page(HTMLParser):
    """All elements of a page with their attributes, and the text of each cell, heading and paragraph."""

    VOID = frozenset({"meta", "br", "img"})

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


# ---- the document


def test_the_document_refuses_unprintable_values() -> None:
    with pytest.raises(ValueError, match="not a slug"):
        Table("../t", "", (Column("a"),), ())
    with pytest.raises(ValueError, match="not a slug"):
        Figure("A b", "", "", "", "")
    with pytest.raises(ValueError, match="ragged"):
        Table("t", "", (Column("a"),), ((Cell("1"), Cell("2")),))
    with pytest.raises(ValueError, match="same name"):
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


@given(st.lists(ANY_TEXT | st.sampled_from(["a_b", "a-b", "a b", "a-b-2", "日本", "中国", "unnamed"]), max_size=8))
def test_slugs_of_several_texts_are_distinct(texts: list[str]) -> None:
    slugs = distinct_slugs(texts)
    assert set(slugs) == set(texts) and len(set(slugs.values())) == len(slugs)
    for text, own in slugs.items():
        assert own.startswith(slug(text))
        Table(own, "", (Column("a"),), ())


def test_numbers_of_repeated_slugs() -> None:
    assert distinct_slugs(["a_b", "a-b", "a-b-2", "日本", "中国"]) == {
        "a_b": "a-b", "a-b": "a-b-2", "a-b-2": "a-b-2-2", "日本": "unnamed", "中国": "unnamed-2"
    }  # fmt: skip


def test_columns_of_further_values() -> None:
    cells = (Cell("1 [0, 2]", 1, values=(("low", 0), ("high", 2))), Cell("x"), Cell("y"))
    other = (Cell("-"), Cell("z", values=(("high", 3),)), Cell("y"))
    table = Table("t", "", (Column("a"), Column("a"), Column("a low")), (cells, other))
    assert table.headings() == ("a", "a (2)", "a low")
    assert table.spread() == (
        ("a", 0, None), ("a low (2)", 0, "low"), ("a high", 0, "high"),
        ("a (2)", 1, None), ("a (2) high", 1, "high"), ("a low", 2, None),
    )  # fmt: skip


def test_slugs() -> None:
    assert [slug(t) for t in ("AV→T", "R@1 by order", "Café", "→", "../x")] == [
        "av-t",
        "r-1-by-order",
        "cafe",
        "unnamed",
        "x",
    ]


# ---- HTML


def test_html_is_one_well_formed_file() -> None:
    html = to_html(sample_document())
    page = Page(html)
    tags = page.tags()
    assert html == to_html(sample_document()), "the same document gives the same page"
    assert not {"script", "link", "svg", "iframe", "object", "base", "form"} & set(tags)
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
    pictures = [a for tag, a in page.elements if tag == "img"]
    assert [a["alt"] for a in pictures] == ["Losses fall.", "A matrix with waves."]
    assert all("max-width" in str(a["style"]) and svg_of(a).startswith("<") for a in pictures)


def svg_of(picture: dict[str, str | None]) -> str:
    """Return the text of a picture in the page."""
    kind, _, data = str(picture["src"]).partition(",")
    assert kind == "data:image/svg+xml;base64"
    return base64.b64decode(data).decode()


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
    code = "".join(data for tag, data in page.texts if tag == "code")
    assert code == clean(text)
    assert [data for tag, data in page.texts if tag == "th" and data.strip()][-1:] in (
        [clean(text)],
        [folded(text)],
        [],
    )


def test_hostile_report_keeps_its_shape() -> None:
    html = to_html(hostile_document())
    page = Page(html)
    assert "script" not in page.tags() and page.tags().count("img") == 1 and not page.values("onerror")
    assert (
        html.count(
            folded(HOSTILE).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")
        )
        > 10
    )
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", html)


def test_the_page_makes_no_requests() -> None:
    for document in (sample_document(), hostile_document()):
        html = re.sub("&lt;.*?&gt;", "", to_html(document))
        assert not re.search(r"""(?:src|href|url|import)\s*[=(]?\s*["']?\s*(?:https?:)?//""", html)
        outside = set(re.findall(r'https?://[^\s"<>]+', html))
        assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


# ---- figures in the page


def page_with(svg: str, alt: str = "") -> str:
    return to_html(Document("", "", (Section("s", (Figure("broken", "", svg, "", alt),)),)))


def test_figures_are_pictures_of_the_size_that_they_were_drawn_in() -> None:
    html = page_with(SVG.format("<text>a &lt; b</text>"), 'a "b"')
    ((_, picture),) = [element for element in Page(html).elements if element[0] == "img"]
    assert picture["alt"] == 'a "b"' and picture["style"] == "max-width:72pt;--drawn:72pt"
    assert svg_of(picture) == SVG.format("<text>a &lt; b</text>")
    assert "style" not in dict(Page(page_with("<svg width='9em'/>")).elements)["img"]


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
        "<style>@import 'https://alert(1)';</style>",
        "<style>a{} } body { alert(1)</style>",
        "<style>@font-face{src:url(https://alert(1))}</style>",
        "<iframe src='alert(1)'/>",
        "<!-- \"><script>alert(1)</script> -->",
    ],
)  # fmt: skip
def test_figures_cannot_inject_markup(part: str) -> None:
    """A browser shows an image without running its scripts, following its links or loading its references."""
    html = page_with(SVG.format(part + '<circle r="2"/>'))
    page = Page(html)
    assert "alert" not in html and page.tags().count("img") == 1 and not {"svg", "script", "circle"} & set(page.tags())
    assert "img-src data:;" in html and "default-src 'none'" in html


@pytest.mark.parametrize("svg", ["", "<svg", "<html></html>", '<!DOCTYPE svg [<!ENTITY a "b">]><svg>&a;</svg>'])
def test_invalid_svg_is_reported(svg: str) -> None:
    with pytest.raises(ValueError, match="the figure broken"):
        page_with(svg)


# ---- Markdown


def rendered(markdown: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").render(markdown)


def test_markdown_as_another_program_reads_it() -> None:
    text = to_markdown(sample_document())
    page = Page(rendered(text).replace("<br />", "<br>").replace(" />", ">"))
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


def test_markdown_escapes_github_extensions() -> None:
    text = "$x$ :tada: @you #1 ~~a~~ &amp; _a_ __b__"
    assert plain(text) == r"\$x\$ \:tada: \@you \#1 \~\~a\~\~ \&amp; \_a\_ \_\_b\_\_"
    for readable in ("R@1: 5.2 % (n = 3)", "model_audio & co", "AT→V, {a}!"):
        assert plain(readable) == readable
    for start in ("- a", "+ a", "1. a", "12) a", "= a", "# a", "> a", "* a", "---", "    code"):
        assert rendered(to_markdown(Document("t", "", (Section("s", (Text((start,)),)),)))).count("<p>") == 1
