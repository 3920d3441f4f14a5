"""Targets of mutations: small intact folders, the commands that read them, and the required results after damage.

| target | commands | after damage |
|---|---|---|
| store | `store verify`, then everything is read | the content is unchanged unless a problem is reported |
| study, resume | reading for a report; `trichord study` again | the same figures; unreadable files are reported or computed again |
| model | `trichord evaluate` of a stage | the same ranks |
| checkpoints | resumed training | the newest checkpoint, or an earlier one with a message, bit for bit |
| recipe | `--recipe FILE` | the values that a YAML reader returns |
| releases | `trichord import`, `store verify` | items of intact files are unchanged; those of a damaged .npz may also be skipped |
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from checkpoint_helpers import digest, load, save, small_state, train
from export_helpers import content_of, some_items, write_store
from tiny import write_tiny_store
from trichord.errors import printable
from trichord.recipes import load_recipe, recipe_dict
from trichord.releases import IMPORTERS
from trichord.releases.export import export_store
from trichord.report.analysis import analyse_study, check_comparable
from trichord.report.reading import read_study
from trichord.store import Store
from trichord.store.inspect import verify
from trichord.study.evaluate import evaluate
from trichord.study.run import run_study

Content = dict[str, str]
RELEASES = ("howto100m", "howto100m export", "youcook2", "youcook2 export", "msrvtt", "webdataset", "npy", "word2vec")


@dataclass(frozen=True)
class Target:
    """A folder to damage.

    Attributes:
        read: Returns the content of a folder by name. Raises TrichordError if it is refused.
        fault: Returns what is wrong with the content, or '': (base, content, changed file, kind of change, folder) -> text.
        only: The files that may be damaged; empty means all.
    """

    name: str
    folder: Path
    read: Callable[[Path], Content]
    fault: Callable[[Content, Content, str, str, Path], str]
    only: tuple[str, ...] = ()

    def files(self, folder: Path) -> list[Path]:
        every = sorted(path for path in folder.rglob("*") if path.is_file())
        return [p for p in every if not self.only or any(p.relative_to(folder).match(pattern) for pattern in self.only)]


def make_targets(root: Path) -> dict[str, Target]:
    """Create all targets in folders below `root`."""
    small = write_store(root / "store", some_items(5))
    store = write_tiny_store(root / "tiny", num_train=4, num_test=2)
    study = _study(root / "study", store)
    targets = [
        Target("store", root / "store", read_store, strictly),
        Target("study", study, partial(read_figures), as_far_as_there),
        Target("resume", study, partial(go_on, store), strictly),
        Target(
            "model", study / "stages" / _last(study), partial(evaluated, store), strictly, ("model.*", "centroids.*")
        ),
        Target("checkpoints", _checkpoints(root / "run"), read_checkpoints, strictly),
        Target("recipe", _recipes(root / "recipes"), read_recipe, as_written),
        *(_release(root, name, small) for name in RELEASES),
    ]
    return {target.name: target for target in targets}


def strictly(base: Content, content: Content, file: str, kind: str, folder: Path) -> str:
    return "" if content == base or kind.startswith("resealed") else f"{_differing(base, content)} differ"


def as_far_as_there(base: Content, content: Content, file: str, kind: str, folder: Path) -> str:
    return strictly({k: v for k, v in base.items() if k in content}, content, file, kind, folder)


def _differing(base: Content, content: Content) -> str:
    return ", ".join(sorted(k for k in base | content if base.get(k) != content.get(k))[:3])


def _hash(value: object) -> str:
    return hashlib.sha256(pickle.dumps(value)).hexdigest()[:16]


def _text_of_item(item: tuple[Any, ...]) -> str:
    """Return everything in an item by value, for any order of streams and any precision of a part."""
    return repr([sorted(map(_values, part.items())) if isinstance(part, dict) else part for part in item])


def _values(stream: tuple[str, Any]) -> tuple[Any, ...]:
    name, (dtype, shape, data, rate_hz) = stream
    return name, shape, _hash(np.frombuffer(data, dtype).astype(np.float64).tobytes()), rate_hz


# ---- a store


def read_store(folder: Path) -> Content:
    problems = verify(folder)
    content = {" ".join(key): _text_of_item(value) for key, value in content_of(Store(folder)).items()}
    return content if not problems else {**content, "problems": "reported"}


def _store_fault(base: Content, content: Content, file: str, kind: str, folder: Path) -> str:
    return "" if "problems" in content else strictly(base, content, file, kind, folder)


# ---- studies, models, checkpoints


def _quick() -> Any:
    training = {"tensorboard": False, "max_steps": 1, "device": "cpu"}
    return load_recipe("debug", training=training, evaluation={"directions": ["t2v"]})


def _study(out: Path, store: Path) -> Path:
    run_study(store, out, ["vt", "vt>a"], [0], _quick())
    return out


def _last(study: Path) -> str:
    return str(json.loads((study / "study.json").read_text())["orders"][-1]["stages"][-1]["folder"])


def go_on(store: Path, folder: Path) -> Content:
    table = run_study(store, folder, ["vt", "vt>a"], [0], _quick())
    return {f"{row['order']} {row['benchmark']} {row['direction']}": _hash(row) for row in table.results}


def read_figures(folder: Path) -> Content:
    study = read_study(folder)
    check_comparable(study)
    content: Content = {}
    for run in study.done:
        for row in run.results:
            arrays = study.scores(run).arrays
            head = f"{row['benchmark']}/{row['direction']}"
            figures = [
                row,
                *(arrays[f"{head}/{part}"].tolist() for part in ("clip", "greater", "equal", "num_gallery")),
            ]
            clips = [arrays[f"{row['benchmark']}/{part}"].tolist() for part in ("id", "start_s", "end_s", "caption")]
            content[f"{run} {row['benchmark']} {row['direction']}"] = _hash([figures, clips])
    for stage in study.stages.values():
        study.curves(stage)
    for direction in study.directions:
        analyse_study(study, direction)
    return content


def evaluated(store: Path, folder: Path) -> Content:
    evaluation = evaluate(folder, store)
    return {"results": _hash(evaluation.results())} | {
        name: _hash(array.tolist()) for name, array in evaluation.arrays().items()
    }


def _checkpoints(folder: Path) -> Path:
    state = small_state()
    for step in (4, 6):
        train(state, 2)
        save(state, folder / "stage" / "checkpoints", step)
    return folder


def read_checkpoints(folder: Path) -> Content:
    state, messages = small_state(seed=5), list[str]()
    position = load(state, folder / "stage" / "checkpoints", messages)
    step = position.step if position else -1
    return {"step": f"{step}", "state": digest(state), "said": f"{bool(messages)}"}


def _checkpoint_fault(
    earlier: dict[str, str], base: Content, content: Content, file: str, kind: str, folder: Path
) -> str:
    if content["said"] == "True" and content["step"] in ("4", "-1"):
        return "" if content["step"] == "-1" or content["state"] == earlier["state"] else "another state"
    return strictly(base, content, file, kind, folder)


# ---- recipes


def _recipes(folder: Path) -> Path:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_dict("small")))
    return folder


def read_recipe(folder: Path) -> Content:
    return {key: repr(value) for key, value in _leaves(load_recipe(folder / "recipe.yaml").to_dict())}


def _leaves(values: Mapping[Any, Any], head: str = "") -> list[tuple[str, Any]]:
    nested = [(f"{head}{key}", value) for key, value in values.items()]
    return [
        leaf
        for key, value in nested
        for leaf in (_leaves(value, f"{key}.") if isinstance(value, dict) and value else [(key, value)])
    ]


def as_written(base: Content, content: Content, file: str, kind: str, folder: Path) -> str:
    """Check that each value in the file is that of the recipe, with an independent YAML reader."""
    written = dict(_leaves(yaml.safe_load((folder / "recipe.yaml").read_text()) or {}))
    written.pop("extends", None)
    for key, value in written.items():
        if value != {} and key not in content:
            return f"{key} was passed over"
        same = (
            content.get(key, "").replace("'", "") == repr(value).replace("'", "")
            or _number(content.get(key)) == _number(repr(value)) is not None
        )
        if value not in ({}, None) and not same and content.get(key) != repr(_plain(value)):
            return f"{key} is {content.get(key)} where {value!r:.80} stands"
    return ""


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").strip("'"))
    except ValueError:
        return None


def _plain(value: Any) -> Any:
    """Convert values to the types of the recipe: `yes` is True, unless a string is expected."""
    return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


# ---- releases


def _release(root: Path, name: str, store: Store) -> Target:
    folder = root / name.replace(" ", "_")
    layout = name.split()[0]
    if layout in ("msrvtt", "word2vec"):
        _msrvtt(folder, root)
        only = ("words.bin",) if layout == "word2vec" else ("*.pkl",)
        return Target(name, folder, partial(imported, "msrvtt", "words.bin"), _any_content, only)
    export_store(store.path, folder, layout=layout)  # type: ignore[arg-type]
    if name in ("howto100m", "youcook2"):  # as published: without what marks an export
        (folder / "trichord.json").unlink()
        shutil.move(folder / "word2vec.bin", folder / "words.bin")
    words = "words.bin" if (folder / "words.bin").exists() else None
    return Target(name, folder, partial(imported, layout, words), _release_fault)


def _msrvtt(folder: Path, root: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    clips = [
        {
            "id": f"video{n}",
            "2d_pooled": rng.random(3, np.float32),
            "3d_pooled": rng.random(2, np.float32),
            "2d": rng.random((2, 3), np.float32),
            "3d": rng.random((3, 2), np.float32),
            "audio": rng.random((40, 20)).astype(np.float16),
            "eval_caption": f"stir the egg {n}",
        }
        for n in range(4)
    ]
    (folder / "msrvtt_jsfusion_test.pkl").write_bytes(pickle.dumps(clips))
    rows = [word.encode() + b" " + rng.random(5, np.float32).tobytes() + b"\n" for word in ("stir", "the", "egg")]
    (folder / "words.bin").write_bytes(b"3 5\n" + b"".join(rows))


def imported(layout: str, words: str | None, folder: Path) -> Content:
    store = _store_of(folder)
    shutil.rmtree(store, ignore_errors=True)
    IMPORTERS[layout](folder, store, words and folder / words)
    content = {" ".join(key): _text_of_item(value) for key, value in content_of(Store(store)).items()}
    problems = [line for line in verify(store) if "skipped.jsonl" not in line]
    assert not problems, f"the store that was made is not sound: {problems[0]}"
    return content


def _store_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-store")


def _any_content(base: Content, content: Content, file: str, kind: str, folder: Path) -> str:
    """Accept files without checksums that hold all data: their content is used."""
    return ""


def _release_fault(base: Content, content: Content, file: str, kind: str, folder: Path) -> str:
    """Check releases with a file per item and stream: other files are unchanged, or listed in the ledger."""
    listed = " ".join(entry["source"] for entry in Store(_store_of(folder)).skipped())
    if lost := [key for key in base if key not in content and printable(key.partition(" ")[2]) not in listed]:
        return "" if Path(file).suffix not in (".npz", ".npy") else f"{lost[0]} is lost without a word"
    if Path(file).suffix not in (".npz", ".npy"):
        return _any_content(base, content, file, kind, folder)
    altered = {key for key in base if key in content and base[key] != content[key]}
    if len(altered) > (2 if kind in ("swapped", "copied") else 1) or set(content) - set(base):
        return f"{_differing(base, content)} differ"
    if Path(file).suffix == ".npz" and altered and kind in ("flip", "head", "cut", "hole", "put in", "noise"):
        return f"{_differing(base, content)} differ"
    return ""


def targets(root: Path) -> dict[str, Target]:
    """Return all targets, with the rules that need the undamaged content."""
    all_targets = make_targets(root)
    all_targets["store"] = Target("store", all_targets["store"].folder, read_store, _store_fault)
    copy = Path(shutil.copytree(all_targets["checkpoints"].folder, root / "earlier"))
    shutil.rmtree(copy / "stage" / "checkpoints" / "step-00000006")
    rule = partial(_checkpoint_fault, read_checkpoints(copy))
    all_targets["checkpoints"] = Target("checkpoints", all_targets["checkpoints"].folder, read_checkpoints, rule)
    return all_targets
