"""Conversion of the runs of earlier studies to entries and arrays of an evaluation folder.

Earlier versions saved a run as `orders/ORDER/seed-N.json` and `seed-N.npz`, and the captions of each benchmark as
`queries/BENCHMARK.json`. The ranks number the rows of a benchmark, which has a row for each text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from trichord.evaluation.embedded import Embedded
from trichord.files.arrays import shortened
from trichord.modality import Direction
from trichord.study.evaluation import Evaluated
from trichord.study.files import RUN_AGAIN, damaged, is_there, read_json
from trichord.study.protocols import study_protocol
from trichord.study.ranks import FIGURES, fault_of_rows, ranks_from_arrays
from trichord.study.scores import target_of
from trichord.tasks.benchmarks import Benchmark
from trichord.tasks.protocol import Options
from trichord.tasks.retrieval.measure import QueryRanks, RetrievalResult
from trichord.tasks.retrieval.protocols import outcome_of
from trichord.tasks.subject import names_of_clips

CLIP_PARTS = ("video_id", "start_s", "end_s")


def converted(
    path: Path,
    content: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    about: Mapping[str, Any],
    *,
    intervals: bool,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the entry of a benchmark in `results.json` and its arrays in `queries.npz`.

    Args:
        path: File of the figures, `orders/ORDER/seed-N.json`.
        content: Content of this file.
        arrays: Arrays of the file next to it.
        about: Benchmark as described in `study.json`.
        intervals: Whether to compute the interval of each row, which earlier versions did not save.

    Raises:
        TrichordError: The figures, the ranks or the captions are damaged.
    """
    name, file = about["name"], path.with_suffix(".npz")
    rows, labels = content.get("results"), content.get("labels", {})
    if why := fault_of_rows(rows) or ("" if isinstance(labels, dict) else "its labels are not an object"):
        raise damaged(path, why, RUN_AGAIN)
    rows = [row for row in rows or [] if row["benchmark"] == name]
    if why := fault_of_clips(arrays, name):
        raise damaged(file, why, RUN_AGAIN)
    videos, start_s, end_s = (arrays[f"{name}/{part}"] for part in CLIP_PARTS)
    ranks = [ranks_from_arrays(arrays, f"{name}/{row['direction']}", file, RUN_AGAIN) for row in rows]
    for row, own in zip(rows, ranks, strict=True):
        if len(own.clip) and not 0 <= own.clip.min() <= own.clip.max() < len(videos):
            head = f"{name}/{row['direction']}"
            raise damaged(file, f"{head}/clip contains numbers of clips that do not exist", RUN_AGAIN)
    text_clip = _clips_of_rows(videos, start_s, end_s, rows, ranks)
    first = np.unique(text_clip, return_index=True)[1]
    spans = videos[first], start_s[first], end_s[first]
    embedded = Embedded.of(
        {"text": np.zeros((len(videos), 1)), "video": np.zeros((len(first), 1))},
        text_clip=text_clip,
        ids=names_of_clips(spans[0].tolist(), *spans[1:]),
        videos=spans[0],
        start_s=spans[1],
        end_s=spans[2],
        captions=read_queries(path.parents[2], name, len(videos)),
        source=str(file),
    )
    results = [_result(path, row, own, embedded) for row, own in zip(rows, ranks, strict=True)]
    outcome = outcome_of(name, embedded, results, intervals=intervals)
    head = f"{name}/geometry/"
    outcome.arrays |= {key: array for key, array in arrays.items() if key.startswith(head)}
    outcome.details["labels"] = str(labels.get(name, ""))
    words = {part: str(about.get(part, "")) for part in ("collection", "split", "missing", "protocol")}
    benchmark = Benchmark(name, **words, audio_frames=0, title=str(about.get("title", name)))
    done = Evaluated(name, study_protocol(benchmark), Options(), outcome)
    return done.entry(f"{benchmark.collection}/{benchmark.split}".strip("/")), outcome.kept()


def _clips_of_rows(
    videos: np.ndarray,
    start_s: np.ndarray,
    end_s: np.ndarray,
    results: list[dict[str, Any]],
    ranks: list[QueryRanks],
) -> np.ndarray:
    """Return the index (M,) of the clip of each row.

    Neighbouring rows with the same video and times are texts of one clip if the benchmark has clips with several texts, i.e. if
    a direction has different numbers of queries and gallery items. Clips that are queries themselves are separate.
    """
    if all(len(own.clip) == own.num_gallery for own in ranks):
        return np.arange(len(videos))
    is_new = np.ones(len(videos), bool)
    is_new[1:] = (videos[1:] != videos[:-1]) | (start_s[1:] != start_s[:-1]) | (end_s[1:] != end_s[:-1])
    for result, own in zip(results, ranks, strict=True):
        if not _asks_texts(result):
            is_new[own.clip] = True
    return np.cumsum(is_new) - 1


def _asks_texts(result: Mapping[str, Any]) -> bool:
    return "text" in Direction.parse(result["direction"]).query


def _result(path: Path, row: Mapping[str, Any], ranks: QueryRanks, embedded: Embedded) -> RetrievalResult:
    """Return the result of a direction with its ranks."""
    head = f"{row['benchmark']}/{row['direction']}"
    result = RetrievalResult(**{name: row[name] for name in FIGURES if name in row})
    if target_of("retrieval", result.of) != result.direction:
        raise damaged(path, f"the fusion rule of {head} is invalid", RUN_AGAIN)
    num_errors = result.num_missing if result.missing == "miss" else 0
    if len(ranks.clip) + num_errors != result.num_queries:
        raise damaged(
            path.with_suffix(".npz"), f"the ranks and the figures of {head} differ in the number of queries", RUN_AGAIN
        )
    text = None if embedded.one_text_each or not _asks_texts(row) else ranks.clip
    return replace(result, ranks=replace(ranks, clip=embedded.text_clip[ranks.clip], text=text))


def fault_of_clips(arrays: Mapping[str, np.ndarray], benchmark: str) -> str:
    """Return what is wrong with the ids and times of the clips of a benchmark, or ''."""
    lengths = set()
    for part, kinds in zip(CLIP_PARTS, ("U", "f", "f"), strict=True):
        array = arrays.get(f"{benchmark}/{part}")
        if array is None or array.dtype.kind not in kinds or array.ndim != 1:
            return f"{benchmark}/{part} is missing or has another type"
        lengths.add(len(array))
    return "" if len(lengths) == 1 else f"the arrays of the clips of {benchmark} differ in length"


def queries_path(out: Path, benchmark: str) -> Path:
    """Return the path of the captions of a benchmark, which is unique: `a/b` has the file `a%2Fb.json`."""
    return out / "queries" / f"{quote(benchmark, safe='')}.json"


def read_queries(out: Path, benchmark: str, num_clips: int) -> list[str] | None:
    """Read the captions of the clips of a benchmark.

    Args:
        out: Study folder.
        benchmark: Name of the benchmark.
        num_clips: Expected number of clips.

    Returns:
        The captions in the order of the rows. None if they were not saved.

    Raises:
        TrichordError: The file cannot be read, or has another number of clips.
    """
    path, mend = queries_path(out, benchmark), f"run the study again on {benchmark}, which trains nothing twice"
    if not is_there(path):
        return None
    queries = read_json(path, list, mend=mend)
    captions = [q["caption"] for q in queries if isinstance(q, dict) and isinstance(q.get("caption"), str)]
    if not len(queries) == len(captions) == num_clips:
        raise damaged(path, f"it has {len(captions)} captions for {num_clips} clips", mend)
    return shortened(captions)
