"""Study folders as `trichord study` writes them, with artificial figures, for tests and the benchmark of the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from trichord.evaluation.embedded import Embedded
from trichord.evaluation.geometry import Geometry, measure_geometry
from trichord.evaluation.ranks import RankCounts, chance_recall, metrics_from_counts
from trichord.files.reading import file_sha256
from trichord.files.writing import write_json
from trichord.modality import Direction, Order
from trichord.recipes import Recipe, load_recipe
from trichord.report.analysis import Target, analyse_study, targets_of
from trichord.report.reading import Run, Study, read_study
from trichord.study.earlier_runs import queries_path
from trichord.study.evaluation import Evaluated, write_results
from trichord.study.evaluation_files import PER_QUERY, RESULTS
from trichord.study.files import write_arrays
from trichord.study.plan import plan_study
from trichord.study.protocols import study_protocol
from trichord.tasks.benchmarks import Benchmark
from trichord.tasks.protocol import Options
from trichord.tasks.retrieval.measure import QueryRanks, RetrievalResult
from trichord.tasks.retrieval.protocols import outcome_of
from trichord.training.seals import sealed


def targets(folder: Path | Study, direction: str = "t2v", **how: Any) -> list[Target]:
    """Return the analysis of one direction of a study, with one target per benchmark."""
    study = folder if isinstance(folder, Study) else read_study(folder)
    parsed = Direction.parse(direction)
    return targets_of(analyse_study(study, parsed, **how), parsed)


def result_of(run: Run, benchmark: str, direction: str) -> dict[str, Any]:
    """Return the row of a run."""
    (row,) = [r for r in run.results if (r["benchmark"], r["direction"]) == (benchmark, direction)]
    return row


def captions_in(study: Study, benchmark: str) -> list[str]:
    """Return the captions of a benchmark in the first run that was scored on it."""
    arrays = next(study.scores(run).arrays for run in study.done if f"{benchmark}/id" in study.scores(run).arrays)
    return arrays[f"{benchmark}/caption"].tolist()


TERMS = {"VA": "contrast_VA", "VT": "contrast_VT", "AT": "contrast_AT"}
ORDERS = ("av>t", "at>v", "vt>a", "avt")
HOSTILE_CAPTION = '<script>alert("{n}")</script> | cut & "mix"'
SKILL = {"av>t": 0.5, "at>v": 1.0, "vt>a": 1.6, "avt": 1.5, "vt": 1.6, "at": 1.0, "av": 0.4}


def write_study_folder(
    folder: Path,
    *,
    orders: Sequence[str] = ORDERS,
    seeds: Sequence[int] = (0, 1, 2),
    benchmarks: Mapping[str, int] | None = None,
    skill: Mapping[str, float] = SKILL,
    recipe: Recipe | None = None,
    directions: Sequence[str] = ("t2v", "v2a"),
    fingerprint: str = "f" * 64,
    num_steps: int = 40,
    num_missing: int = 0,
    caption: str = "cut the {n} onions",
    geometry_width: int = 32,
    earlier: bool = False,
) -> Path:
    """Write a finished study. The correct item scores `skill` above the others, plus noise of the query and the run.

    Its files have no checksums, so that tests can change them. With `earlier`, the runs have the format of earlier versions.
    """
    recipe = recipe or load_recipe("debug")
    recipe.evaluation.directions = list(directions)
    sizes = dict(benchmarks or {"tiny": 60})
    plan = plan_study([Order.parse(o) for o in orders], list(seeds), recipe, fingerprint)
    described = [_benchmark(name, num_missing) for name in sizes]
    for planned in plan:
        done: list[Evaluated] = []
        for benchmark in described:
            size = sizes[benchmark.name]
            rng = np.random.default_rng([1, len(benchmark.name), size])
            difficulty = rng.normal(size=size)
            own = np.random.default_rng([2, planned.seed, list(SKILL).index(planned.order.code)])
            results = _results(benchmark, size, num_missing, difficulty, own, planned, skill, directions)
            outcome = outcome_of(benchmark.name, _clips(size, caption), results)
            geometry = _geometry(planned.order, min(size, 300), geometry_width)
            outcome.arrays |= geometry.to_arrays(f"{benchmark.name}/geometry")
            outcome.details["labels"] = "video"
            done.append(Evaluated(benchmark.name, study_protocol(benchmark), Options(), outcome))
        identity = {"stage": planned.stages[-1].key, "evaluation": recipe.to_dict()["evaluation"], "contents": 2}
        content = {
            "subject": f"{planned.order} seed {planned.seed}",
            "store": {"path": "my_store", "fingerprint": fingerprint},
            "notes": [],
            "benchmarks": [one.entry(f"{one.name}/test") for one in done],
            "identity": identity,
        }
        run = folder / "orders" / planned.order.slug / f"seed-{planned.seed}"
        write_results(run, content, {k: array for one in done for k, array in one.outcome.kept().items()})
        if earlier:
            as_earlier(run)
        for stage in planned.stages:
            _stage(folder / "stages" / stage.folder, stage.stage, stage.seed, num_steps)
    content = {
        "versions": {"python": "3.11.0", "trichord": "0.1.0", "torch": "2.13.0"},
        "store": {"path": "my_store", "fingerprint": fingerprint},
        "recipe": recipe.to_dict(),
        "benchmarks": [vars(b) for b in described],
        "orders": [
            {
                "order": p.order.code,
                "seed": p.seed,
                "stages": [
                    {"folder": s.folder, "key": s.key, "chain": s.stage.chain, "seed": s.seed} for s in p.stages
                ],
            }
            for p in plan
        ],
        "results": [],
    }
    write_json(folder / "study.json", content)
    return folder


def _benchmark(name: str, num_missing: int) -> Benchmark:
    missing = "miss" if num_missing else "drop"
    return Benchmark(name, name, "test", missing, 0, name.capitalize(), f"Clips of {name}, made up.")


def _clips(size: int, caption: str) -> Embedded:
    """Return clips without embeddings."""
    nothing = np.zeros((size, 1))
    return Embedded.of(
        {"video": nothing, "text": nothing},
        ids=[f"v{n}" for n in range(size)],
        start_s=np.zeros(size),
        end_s=np.full(size, 5.0),
        captions=[caption.format(n=n) for n in range(size)],
    )


def _results(
    benchmark: Benchmark,
    size: int,
    num_missing: int,
    difficulty: np.ndarray,
    own: np.random.Generator,
    planned: Any,
    skill: Mapping[str, float],
    directions: Sequence[str],
) -> list[RetrievalResult]:
    results = []
    for code in directions:
        direction = Direction.parse(code)
        if not set(direction.modalities) <= set(planned.order.modalities):
            continue
        clip = np.arange(size - num_missing)
        truth = skill[planned.order.code] - difficulty[: len(clip)] + own.normal(scale=0.7, size=len(clip))
        share = 1 / (1 + np.exp(2 * truth))  # of the gallery that scores higher
        greater = np.minimum((share**2 * len(clip)).astype(np.int64), len(clip) - 1)
        counts = RankCounts(greater, np.ones_like(greater), len(clip))
        ranks = QueryRanks(clip, counts.greater, counts.equal, len(clip))
        metrics = metrics_from_counts(counts, num_missing=num_missing)
        found_share = len(clip) / size
        chance = [chance_recall(k, len(clip)) * found_share for k in (1, 5, 10)]
        results.append(RetrievalResult(
            benchmark.name, code, metrics.r1, metrics.r5, metrics.r10, metrics.medr, metrics.meanr, size, len(clip),
            num_missing, benchmark.missing, *chance, ranks=ranks,
        ))  # fmt: skip
    return results


def as_earlier(run: Path) -> None:
    """Replace the folder of a run by the files that earlier versions wrote, with the same figures."""
    content = json.loads((run / RESULTS).read_text())
    order, _, seed = content["subject"].partition(" seed ")
    head = {"order": order.lower().replace("→", ">"), "seed": int(seed)}
    with np.load(run / PER_QUERY) as saved:
        kept, arrays = dict(saved), {}
    for entry in content["benchmarks"]:
        name = entry["name"]
        clip_of_text = np.array([kept[f"{name}/id"].tolist().index(clip) for clip in kept[f"{name}/text_id"]])
        for part in ("video_id", "start_s", "end_s"):
            arrays[f"{name}/{part}"] = kept[f"{name}/{part}"][clip_of_text]
        first = np.unique(clip_of_text, return_index=True)[1]
        for row in entry["results"]:
            own = f"{name}/{row['direction']}"
            texts = kept.get(f"{own}/text")
            arrays |= {key: array for key, array in kept.items() if key.startswith(f"{own}/") and key != f"{own}/text"}
            arrays[f"{own}/clip"] = (first[kept[f"{own}/clip"]] if texts is None else texts).astype(np.int32)
        arrays |= {key: array for key, array in kept.items() if key.startswith(f"{name}/geometry/")}
        queries = [
            {"video": str(video), "start_s": float(start), "end_s": float(end), "caption": str(caption)}
            for video, start, end, caption in zip(
                *(arrays[f"{name}/{part}"] for part in ("video_id", "start_s", "end_s")), kept[f"{name}/caption"],
                strict=True,
            )
        ]  # fmt: skip
        path = queries_path(run.parents[2], name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, queries)
    shutil.rmtree(run)
    write_arrays(run.with_suffix(".npz"), arrays)
    names = [entry["name"] for entry in content["benchmarks"]]
    figures = {
        "identity": {**content["identity"], "benchmarks": names},
        "results": [{**head, **row} for entry in content["benchmarks"] for row in entry["results"]],
        "labels": {entry["name"]: entry["labels"] for entry in content["benchmarks"]},
    }
    if "arrays_sha256" in content:
        figures = sealed({**figures, "arrays_sha256": file_sha256(run.with_suffix(".npz"))})
    write_json(run.with_suffix(".json"), figures)


@cache
def _geometry(order: Order, size: int, width: int) -> Geometry:
    """Return the geometry of artificial embeddings, which is the same for all seeds."""
    rng = np.random.default_rng([3, list(SKILL).index(order.code)])
    content = rng.normal(size=(size, width))
    embeddings = {m: content + rng.normal(size=(size, width)) + i for i, m in enumerate(order.modalities)}
    labels = [f"v{n // 4}" for n in range(size)]
    valid = {m: np.ones(size, bool) for m in embeddings}
    geometry = measure_geometry(embeddings, valid, labels=labels, num_clusters=8)
    assert geometry is not None
    return geometry


def _stage(folder: Path, stage: Any, seed: int, num_steps: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    lines = []
    for step in range(num_steps):
        terms = {
            "contrast_" + a[0].upper() + b[0].upper(): 7 * np.exp(-step / 20) + rng.random() for a, b in stage.pairs
        }
        values = {"loss": sum(terms.values()), **terms, "grad_norm": 1.0, "learning_rate": 1e-3}
        lines.append(json.dumps({"step": step, "epoch": 0, "clips": 32, "seconds": 0.1 * (step + 1), **values}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    trained = 1_000_000 * len(stage.train)
    described = {
        "stage": stage.chain, "seed": seed, "parent": None,
        "parameters": {"trained": trained, "frozen": 1_000_000 * len(stage.frozen)},
    }  # fmt: skip
    write_json(folder / "model.json", described)
