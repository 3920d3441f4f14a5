"""Names of the files that an evaluation writes, and a check that no other file is overwritten."""

from __future__ import annotations

from pathlib import Path

from trichord.files.reading import read_json_value
from trichord.files.writing import refuse_foreign
from trichord.study.files import array_names

RESULTS, PER_QUERY = "results.json", "queries.npz"


def check_target(out: Path) -> None:
    """Check that writing an evaluation to `out` overwrites earlier evaluations only, and not, for example, `study.json`.

    Raises TrichordError, which names the file that would be overwritten.
    """
    paths = [out] if out.suffix == ".json" else [out / RESULTS, out / PER_QUERY]
    refuse_foreign(paths, _is_evaluation, "an evaluation")


def _is_evaluation(path: Path) -> bool:
    if path.name == PER_QUERY:
        return all("/" in name for name in array_names(path))
    content = read_json_value(path)
    if isinstance(content, dict):
        return content.keys() >= {"subject", "benchmarks"} or content.keys() >= {"study", "models"}
    return isinstance(content, list) and all(isinstance(row, dict) and "benchmark" in row for row in content)
