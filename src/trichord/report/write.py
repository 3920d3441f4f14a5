"""The command `trichord report`, which writes a report as a page that opens offline, and in other formats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trichord.errors import TrichordError
from trichord.files.folders import folder_in
from trichord.files.paths import accepts_text_paths
from trichord.modality import Direction
from trichord.report.analysis import check_comparable
from trichord.report.compare import compare_studies
from trichord.report.document import Document, slug
from trichord.report.exports import check_target, write_document
from trichord.report.reading import read_study
from trichord.report.systems import kind_of, read_systems


@dataclass(frozen=True)
class ReportSummary:
    """The path of the page, and the sentences of its summary."""

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
    direction: str | Direction = "",
    level: float = 0.95,
) -> ReportSummary:
    """Write the report of a study, of the comparison of two studies, or of evaluations.

    Args:
        folders: A study folder, two study folders with `compare`, or one or more folders of `trichord evaluate`.
        out: Folder of the report. None uses the default of `write_report`, `write_comparison` or `write_evaluations`.
        compare: Whether to compare two studies. Evaluations are always compared.
        direction: Direction, as in these functions.
        level: Level of all intervals.

    Returns:
        The path of the page and its summary.

    Raises:
        TrichordError: The folders are of different kinds, or one of these functions raises it.
    """
    if not folders:
        raise TrichordError("give a study folder, or folders of evaluations; see trichord report --help")
    kinds = [kind_of(Path(folder)) for folder in folders]
    if len(set(kinds)) > 1:
        listed = ", ".join(f"{folder} ({kind})" for folder, kind in zip(folders, kinds, strict=True))
        raise TrichordError(
            f"studies and evaluations cannot be reported together: {listed}; give folders of the same kind"
        )
    if kinds[0] == "evaluation":
        return write_evaluations(folders, out, direction=direction, level=level)
    if compare and len(folders) == 2:
        return write_comparison(Path(folders[0]), Path(folders[1]), out, direction=direction, level=level)
    if len(folders) > 1:
        raise TrichordError("a report covers one study; compare two with trichord report --compare A B")
    return write_report(Path(folders[0]), out, direction=direction, level=level)


@accepts_text_paths
def write_evaluations(
    folders: Sequence[Path], out: Path | None = None, *, direction: str | Direction = "", level: float = 0.95
) -> ReportSummary:
    """Write the report of evaluations: figures with intervals, and the differences between systems.

    The same folders give byte-identical files. The page also shows systems that cannot be compared, with the reason.

    Args:
        folders: Folders of `trichord evaluate --out FOLDER`, of a single model or of all orders of a study.
        out: Folder of the report. None uses `report` in the first folder.
        direction: Direction that is shown first, such as t2v. If empty, the sequence of the files is kept.
        level: Level of all intervals.

    Returns:
        The path of the page and its summary.

    Raises:
        TrichordError: A folder cannot be read, or its parts do not match.
    """
    from trichord.evaluation.statistics import check_level
    from trichord.report.contents import build_evaluations

    check_level(level)
    systems = read_systems(folders)
    folder = _target(out, Path(folders[0]), "report", "report")
    return _written(build_evaluations(systems, direction=_parsed(direction), level=level), folder, "report")


@accepts_text_paths
def write_report(
    study: Path, out: Path | None = None, *, direction: str | Direction = "", level: float = 0.95
) -> ReportSummary:
    """Write the report of a study. The same runs give byte-identical files.

    Args:
        study: Folder of a `trichord study`.
        out: Folder of the report. None uses `STUDY/report`.
        direction: Direction of the main table, such as t2v. If empty, the first one of the recipe is used.
        level: Level of all intervals.

    Returns:
        The path of the page and its summary.

    Raises:
        TrichordError: No run is finished, or runs were scored on different clips or with different policies. The message names
            the difference.
    """
    from trichord.report.contents import build_study
    from trichord.report.contents_repeat import recipe_text

    read = read_study(study)
    check_comparable(read)
    recipe = {"recipe.yaml": recipe_text(read)}
    folder = _target(out, Path(study), "report", "report", recipe)
    return _written(build_study(read, direction=_parsed(direction), level=level), folder, "report", recipe)


@accepts_text_paths
def write_comparison(
    a: Path, b: Path, out: Path | None = None, *, direction: str | Direction = "", level: float = 0.95
) -> ReportSummary:
    """Write the report on the changes from study A to study B.

    Args:
        a: Folder of study A.
        b: Folder of study B.
        out: Folder of the report. None uses `B/compared-with-A`.
        direction: Direction. If empty, the first one in which both were scored is used.
        level: Level of all intervals.

    Returns:
        The path of the page and its summary.

    Raises:
        TrichordError: A study has no finished run, or no figures of the two can be compared.
    """
    one, two = read_study(a), read_study(b)
    for study in (one, two):
        check_comparable(study)
    folder = _target(out, two.path, f"compared-with-{slug(one.name)}", "comparison")
    return _written(compare_studies(one, two, direction=_parsed(direction), level=level), folder, "comparison")


def _target(out: Path | None, owner: Path, default: str, name: str, extra: Iterable[str] = ()) -> Path:
    """Return the folder of a report, after checking that the report can be written there.

    Args:
        out: Folder that the user gave, or None for the folder `default` in `owner`.
        owner: Folder of a study or an evaluation.
        default: Name of the folder of the report in `owner`.
        name: Name of the files of the report.
        extra: Names of further files.

    Raises:
        TrichordError: See `check_target`, and for a default folder that is a link.
    """
    folder = out or folder_in(owner, default)
    check_target(folder, name, extra)
    return folder


def _written(document: Document, folder: Path, name: str, extra: Mapping[str, str] | None = None) -> ReportSummary:
    write_document(document, folder, name, extra=extra)
    return ReportSummary(folder / f"{name}.html", document.summary)


def _parsed(direction: str | Direction) -> Direction | None:
    return Direction.parse(direction) if direction else None
