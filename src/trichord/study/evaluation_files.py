"""The files that an evaluation leaves, recognised by what they hold."""

from __future__ import annotations

from pathlib import Path

from trichord.files.reading import read_json_value
from trichord.files.writing import refuse_foreign
from trichord.study.files import array_names

RESULTS, PER_QUERY = "results.json", "queries.npz"


def check_target(out: Path) -> None:
    """Refuse to write an evaluation over files of others, `study.json` for instance. Raises TrichordError naming the file."""
    paths = [out] if out.suffix == ".json" else [out / RESULTS, out / PER_QUERY]
    refuse_foreign(paths, _is_evaluation, "a file of an evaluation")


def _is_evaluation(path: Path) -> bool:
    if path.name == PER_QUERY:
        return all("/" in name for name in array_names(path))
    content = read_json_value(path)
    if isinstance(content, dict):
        return content.keys() >= {"subject", "benchmarks"} or content.keys() >= {"study", "models"}
    return isinstance(content, list) and all(isinstance(row, dict) and "benchmark" in row for row in content)
