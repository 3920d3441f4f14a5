"""`trichord report`: from a study folder to one page that opens offline, and the same content in other forms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trichord.report.analysis import check_comparable
from trichord.report.compare import compare_studies
from trichord.report.document import slug
from trichord.report.exports import write_document
from trichord.report.reading import read_study


@dataclass(frozen=True)
class ReportSummary:
    """What was written, and the first sentences of the page."""

    page: Path
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*self.sentences, f"report: {self.page} (also .md, .tex, .json, tables/*.csv, figures/*.svg)"])


def write_report(study: Path, out: Path | None = None, *, direction: str = "", level: float = 0.95) -> ReportSummary:
    """Write the report of a study.

    Args:
        study: Folder of a `trichord study`.
        out: Folder of the report; None takes `STUDY/report`.
        direction: Of the main table, e.g. t2v; empty takes the first one that the recipe names.
        level: Of all intervals.

    The same runs give the same files, byte for byte. Raises TrichordError when there is no finished run, or when runs were
    scored on different clips or under different policies; the message names the difference.
    """
    from trichord.report.contents import build
    from trichord.report.contents_repeat import recipe_text

    read = read_study(study)
    check_comparable(read)
    document = build(read, direction=direction, level=level)
    folder = out or Path(study) / "report"
    write_document(document, folder, "report", extra={"recipe.yaml": recipe_text(read)})
    return ReportSummary(folder / "report.html", document.summary)


def write_comparison(
    a: Path, b: Path, out: Path | None = None, *, direction: str = "", level: float = 0.95
) -> ReportSummary:
    """Write the page of what changed from study A to study B.

    Args:
        a, b: Study folders.
        out: Folder of the page; None takes `B/compared-with-A`.
        direction: Empty takes the first one that both were scored in.
        level: Of all intervals.

    Raises TrichordError when a folder holds no finished study, or no figure of the two may be compared.
    """
    one, two = read_study(a), read_study(b)
    for study in (one, two):
        check_comparable(study)
    document = compare_studies(one, two, direction=direction, level=level)
    folder = out or two.path / f"compared-with-{slug(one.name)}"
    write_document(document, folder, "comparison")
    return ReportSummary(folder / "comparison.html", document.summary)
