"""Files of an evaluation: the list of clips that it reads, and a check of the files that it overwrites."""

from __future__ import annotations

from pathlib import Path

from trichord.errors import TrichordError
from trichord.files.lfs import refuse_lfs_pointer
from trichord.files.reading import read_given_text, read_json_value, unreadable
from trichord.files.writing import refuse_foreign
from trichord.study.files import array_names

RESULTS, PER_QUERY = "results.json", "queries.npz"


def check_target(out: Path) -> None:
    """Check that writing an evaluation overwrites only an earlier evaluation.

    Args:
        out: Folder or file of the evaluation.

    Raises:
        TrichordError: Another file would be overwritten. The message names it.
    """
    paths = [out] if out.suffix == ".json" else [out / RESULTS, out / PER_QUERY]
    refuse_run(paths[0])
    refuse_foreign(paths, _is_evaluation, "an evaluation")


def _is_evaluation(path: Path) -> bool:
    if path.name == PER_QUERY:
        return all("/" in name for name in array_names(path))
    content = read_json_value(path)
    if isinstance(content, dict):
        return content.keys() >= {"subject", "benchmarks"} or content.keys() >= {"study", "models"}
    return isinstance(content, list) and all(isinstance(row, dict) and "benchmark" in row for row in content)


def refuse_run(path: Path) -> None:
    """Check that a file is not the `results.json` of a run of a study. Unreadable files pass.

    Raises:
        TrichordError: It is.
    """
    try:
        content = read_json_value(path)
    except (OSError, ValueError):
        return
    if isinstance(content, dict) and "identity" in content:
        raise TrichordError(f"{path}: belongs to a run of a study and is not replaced; give another --out")


def read_gallery(path: Path) -> tuple[str, ...]:
    """Read a list of clips.

    Args:
        path: Text file with one clip id per line.

    Returns:
        The ids.

    Raises:
        TrichordError: The file cannot be read or contains no id.
    """
    refuse_lfs_pointer(path)
    try:
        lines = [line.strip() for line in read_given_text(path).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error, mend="give a text file with one clip id per line") from None
    ids = tuple(line for line in lines if line)
    if not ids:
        raise TrichordError(f"{path}: contains no clip id; give a text file with one clip id per line")
    return ids
