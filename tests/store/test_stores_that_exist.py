"""A store of an earlier version is read with the same figures, and extended by `extract` (see tests/fixtures/store-9eaa247)."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extract_helpers import load_once, run
from paths import FIXTURES
from trichord.extraction import pool
from trichord.logs import passing_messages
from trichord.modality import Order
from trichord.recipes import load_recipe
from trichord.store import Store
from trichord.store.inspect import store_info, verify
from trichord.store.rules import outdated
from trichord.study.factories import check_data
from trichord.study.plan import plan_order

DATA = FIXTURES / "store-9eaa247"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.set_num_threads(1)
    monkeypatch.setattr(pool, "load", load_once)
    return shutil.copytree(DATA, tmp_path / "earlier")


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def read(store: Store, i: int) -> dict[str, Any]:
    start_s, end_s = store.caption_spans(i)
    return {
        "video_id": store.video_id(i),
        "collection": store.collection(i),
        "split": store.split(i),
        "source": store.source(i),
        "duration_s": store.duration_s(i),
        "streams": {
            name: [store.num_rows(name, i), store.rate_hz(name, i), digest(store.rows(name, i))]
            for name in store.streams
            if store.num_rows(name, i)
        },
        "captions": [
            [start_s[c], end_s[c], store.caption_text(i, c), [store.words[word] for word in store.word_ids(i, c)]]
            for c in range(store.num_captions(i))
        ],
    }


def test_it_is_read_with_the_same_figures(root: Path) -> None:
    figures = json.loads((root / "figures.json").read_text())
    store = Store(root / "store")
    assert [read(store, i) for i in range(len(store))] == figures["items"]
    assert (store.fingerprint, digest(store.word_vectors)) == (figures["fingerprint"], figures["word_vectors"])
    assert set(figures["info"]) <= set(str(store_info(root / "store")).splitlines())
    assert verify(root / "store") == [] and len(outdated(store)) == 3


def test_a_study_reports_items_of_older_rules_in_one_line(root: Path) -> None:
    store, message = (
        Store(root / "store"),
        "3 of 3 videos were extracted by older rules for times or captions; run the same `trichord",
    )
    stages = [stage.stage for stage in plan_order(Order.parse("vt"), 0, load_recipe("debug"), store.fingerprint).stages]
    assert [line for line in check_data(load_recipe("debug"), store, stages) if line.startswith(message)]
    run(root / "videos", root / "store")
    assert check_data(load_recipe("debug"), Store(root / "store"), stages) == []


def test_extract_recomputes_only_changed_results(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Store(root / "store").fingerprint
    monkeypatch.setattr("trichord.extraction.work.pictures", None)
    lines: list[str] = []
    with passing_messages(lines.append):
        summary = run(root / "videos", root / "store")
    assert (summary.num_present, summary.num_renewed, summary.num_skipped, summary.notes) == (3, 0, 0, [])
    assert lines[-1].startswith("3/3 ")
    assert Store(root / "store").fingerprint == before and len(outdated(Store(root / "store"))) == 0


def test_captions_are_taken_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = json.loads((root / "figures.json").read_text())
    monkeypatch.setattr("trichord.extraction.work.pictures", None)
    captions = "WEBVTT\n\n00:00.000 --> 00:00.500\npour the honey\n"
    (root / "videos" / "train" / "mute.vtt").write_text(captions)  # added
    (root / "videos" / "test" / "egg.vtt").write_text(captions)  # corrected
    summary = run(root / "videos", root / "store")
    assert (summary.num_present, summary.num_renewed, summary.num_skipped) == (1, 2, 0)
    store = Store(root / "store")
    assert [store.caption_text(i, 0) for i in (0, 1)] == ["pour the honey"] * 2
    for i in range(3):
        now, then = read(store, i), figures["items"][i]
        assert (now["split"], now["streams"], now["duration_s"]) == (then["split"], then["streams"], then["duration_s"])
    assert verify(root / "store") == []
