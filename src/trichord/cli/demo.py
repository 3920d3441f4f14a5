"""The demo: render the built-in world, extract its features, run the order study on it, and write the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trichord.errors import TrichordError
from trichord.files.paths import accepts_text_paths
from trichord.logs import get_logger

if TYPE_CHECKING:
    from trichord.study.table import StudyTable

logger = get_logger(__name__)


@accepts_text_paths
def run_demo(
    out: Path = Path("demo"),
    *,
    recipe: str = "demo",
    num_train: int = 60,
    num_test: int = 40,
    seed: int = 0,
) -> tuple[StudyTable, Path]:
    """Render the built-in world, extract its features, train and compare the orders. A second call continues.

    Args:
        out: Folder for the videos of the world, the store and the study.
        recipe: Recipe of the study: the name of a built-in recipe, or a YAML file.
        num_train: Number of training videos.
        num_test: Number of held-out videos, which show combinations that do not occur in training.
        seed: Random seed of the world and of the study.

    Returns:
        The table, and the folder of the study.

    Raises:
        TrichordError: A part of the world could not be extracted.
    """
    from trichord.extraction.extract import extract
    from trichord.extraction.summary import ExtractSummary
    from trichord.recipes import load_recipe
    from trichord.report.write import write_report
    from trichord.study.run import run_study
    from trichord.world import write_world

    logger.info(f"1/3 the world: {num_train} + {num_test} narrated videos in {out / 'world'}")
    _log_lines(write_world(out / "world", num_train=num_train, num_test=num_test, seed=seed))
    logger.info(f"2/3 features into {out / 'store'}")
    extracted = extract(out / "world", out / "store", collection="world")
    _log_lines(extracted)
    assert isinstance(extracted, ExtractSummary), "only a dry run returns text"
    if extracted.interruption is not None:
        raise extracted.interruption
    if extracted.num_postponed:  # a study of an incomplete world could not be continued on the complete one
        raise TrichordError(f"{out / 'store'}: a part of the world could not be extracted; run the command again")
    logger.info(f"3/3 the study in {out / 'study'}: A and V then T, A and T then V, V and T then A, and all at once")
    table = run_study(out / "store", out / "study", ["av>t", "at>v", "vt>a", "avt"], [seed], load_recipe(recipe))
    _log_lines(write_report(out / "study"))
    return table, out / "study"


def _log_lines(summary: object) -> None:
    for line in str(summary).splitlines():
        logger.info(line)
