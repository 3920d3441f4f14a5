"""`trichord report`: from folders of studies or evaluations to one page that opens offline, and the same in other forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trichord.errors import TrichordError
from trichord.files.folders import folder_in
from trichord.files.paths import accepts_text_paths
from trichord.report.analysis import check_comparable
from trichord.report.compare import compare_studies
from trichord.report.document import slug
from trichord.report.exports import write_document
from trichord.report.reading import read_study
from trichord.report.systems import kind_of, read_systems


@dataclass(frozen=True)
class ReportSummary:
    """What was written, and the first sentences of the page."""

    page: Path
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*self.sentences, f"report: {self.page} (also .md, .tex, .json, tables/*.csv, figures/*.svg)"])


@accepts_text_paths
def write_reports(
    folders: Sequence[Path],
    out: Path | None = None,
    *,
    compare: bool = False,
    direction: str = "",
    level: float = 0.95,
) -> ReportSummary:
    """Write the report of what lies in the folders: of a study, of what changed between two, or of evaluations.

    Args:
        folders: A study folder; with `compare` two of them; or folders of `trichord evaluate`, one or more.
        out: Folder of the report; None takes the one that `write_report`, `write_comparison` or `write_evaluations` names.
        compare: Whether two studies are compared; of evaluations all are compared in any case.
        direction: See these.
        level: Of all intervals.

    Raises TrichordError when folders hold different things, or what these raise.
    """
    if not folders:
        raise TrichordError("give a study folder, or folders of evaluations; see trichord report --help")
    kinds = [kind_of(Path(folder)) for folder in folders]
    if len(set(kinds)) > 1:
        told = ", ".join(f"{folder} ({kind})" for folder, kind in zip(folders, kinds, strict=True))
        raise TrichordError(f"studies and evaluations are not reported together: {told}; give those of one kind")
    if kinds[0] == "evaluation":
        return write_evaluations(folders, out, direction=direction, level=level)
    if compare and len(folders) == 2:
        return write_comparison(Path(folders[0]), Path(folders[1]), out, direction=direction, level=level)
    if len(folders) > 1:
        raise TrichordError("a report is of one study; compare two with trichord report --compare A B")
    return write_report(Path(folders[0]), out, direction=direction, level=level)


@accepts_text_paths
def write_evaluations(
    folders: Sequence[Path], out: Path | None = None, *, direction: str = "", level: float = 0.95
) -> ReportSummary:
    """Write the report of evaluations: figures with intervals, and where there are several systems, which of them differ.

    Args:
        folders: Of `trichord evaluate --out FOLDER`, of one model or of all orders of a study.
        out: Folder of the report; None takes `report` in the first folder.
        direction: Shown first, e.g. t2v; empty takes the order of the files.
        level: Of all intervals.

    The same folders give the same files, byte for byte. Raises TrichordError when a folder cannot be read or its parts do not fit
    together. What cannot be compared is shown, and the page says why it is not compared.
    """
    from trichord.evaluation.statistics import check_level
    from trichord.report.contents import build_evaluations

    check_level(level)
    document = build_evaluations(read_systems(folders), direction=direction, level=level)
    folder = out or folder_in(Path(folders[0]), "report")
    write_document(document, folder, "report")
    return ReportSummary(folder / "report.html", document.summary)


@accepts_text_paths
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
    from trichord.report.contents import build_study
    from trichord.report.contents_repeat import recipe_text

    read = read_study(study)
    check_comparable(read)
    document = build_study(read, direction=direction, level=level)
    folder = out or folder_in(Path(study), "report")
    write_document(document, folder, "report", extra={"recipe.yaml": recipe_text(read)})
    return ReportSummary(folder / "report.html", document.summary)


@accepts_text_paths
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
    folder = out or folder_in(two.path, f"compared-with-{slug(one.name)}")
    write_document(document, folder, "comparison")
    return ReportSummary(folder / "comparison.html", document.summary)
