"""Captions that were added or corrected after extraction, and items that were extracted by older rules."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from extract_helpers import SMALL, VTT, ledger, pictures, run, sound
from store_helpers import build, item
from store_helpers import captions as spoken
from trichord import media
from trichord.captions import Captions
from trichord.extraction import driver, plan, renewal, work
from trichord.extraction.extract import extract
from trichord.extraction.summary import ExtractSummary
from trichord.logs import passing_messages
from trichord.media import write_video
from trichord.store import Store, StoreWriter
from trichord.store.inspect import store_info, verify
from trichord.store.items import PER_CAPTION, Item
from trichord.store.manifest import part_paths
from trichord.store.names import SETTLED
from trichord.store.rules import CLOCK_RULES, CURRENT_RULES, outdated
from trichord.store.spool import SpooledItem, spooled

pytestmark = pytest.mark.usefixtures("encoders_once")

SAID = "WEBVTT\n\n00:00.000 --> 00:01.000\npour the honey\n"


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `videos` with a captioned video, one without captions, and one with a text file, extracted to `s`."""
    root = tmp_path_factory.mktemp("extracted")
    for i, name in enumerate(("test/egg", "train/mute", "train/tea")):
        write_video(root / "videos" / f"{name}.mp4", pictures(20, i), 10, sound(2.0))
    (root / "videos" / "train" / "tea.vtt").write_text(VTT)
    (root / "videos" / "test" / "egg.vtt").write_text(VTT)
    run(root / "videos", root / "s")
    return root


@pytest.fixture
def root(extracted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(extracted, tmp_path / "extracted")


def captions(store: Store) -> dict[str, list[str]]:
    return {
        store.video_id(i): [store.caption_text(i, c) for c in range(store.num_captions(i))] for i in range(len(store))
    }


def features(store: Store) -> dict[tuple[str, str], np.ndarray]:
    items = range(len(store))
    return {(store.video_id(i), name): store.rows(name, i) for i in items for name in ("visual_2d", "spectrogram")}


def unextracted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail from now on if pictures or sound are decoded."""
    monkeypatch.setattr("trichord.extraction.work.pictures", None)
    monkeypatch.setattr("trichord.extraction.work.sound", None)


def as_an_earlier_version_wrote_it(store: Path) -> None:
    """Return the same items without hashes of media and without rules."""
    with Given(store) as items:
        for item in items:
            item.media = item.rules = ""


class Given:
    """The items of a store, which are written back after changes."""

    def __init__(self, store: Path) -> None:
        self.store = store

    def __enter__(self) -> list[Item]:
        opened = Store(self.store)
        self.words = opened
        self.items = [
            Item(
                opened.video_id(i), opened.collection(i), opened.split(i), opened.duration_s(i),
                {name: np.array(opened.rows(name, i)) for name in opened.streams if opened.num_rows(name, i)},
                {name: opened.rate_hz(name, i) for name in opened.streams}, renewal.stored_captions(opened, i),
                opened.source(i), opened.media(i), opened.rules(i),
            )
            for i in range(len(opened))
        ]  # fmt: skip
        return self.items

    def __exit__(self, *_: object) -> None:
        from trichord.store.words import word_vectors_for

        texts = [text for item in self.items for text in item.captions.text]
        vectors = word_vectors_for(texts, None, self.words.word_splitting)
        shutil.rmtree(self.store / "parts")
        with StoreWriter(self.store, vectors) as writer:
            for item in self.items:
                writer.add(item)


def test_captions_added_and_corrected_are_taken_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Store(root / "s")
    unextracted(monkeypatch)
    (root / "videos" / "train" / "mute.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nstir the tea\n")
    (root / "videos" / "test" / "egg.vtt").write_text(SAID)
    text = extract(root / "videos", root / "s", visual_2d=SMALL, dry_run=True)
    assert isinstance(text, str) and "2 are in the store and will be checked again" in text
    lines: list[str] = []
    with passing_messages(lines.append):
        summary = run(root / "videos", root / "s")
    assert (summary.num_renewed, summary.num_present, summary.num_added, summary.num_skipped) == (2, 1, 0, 0)
    assert "2 more were updated because of new captions" in str(summary) and any(
        "1 captions, test" in line for line in lines
    )
    store = Store(root / "s")
    assert captions(store) == {
        "test/egg": ["pour the honey"],
        "train/mute": ["stir the tea"],
        "train/tea": ["Crack the egg", "stir it zzqqxx"],
    }
    assert store.collections() == before.collections() and store.fingerprint != before.fingerprint
    new, old = features(store), features(before)
    assert all(np.array_equal(new[key], old[key]) and new[key].dtype == old[key].dtype for key in old)
    assert verify(root / "s") == [] and not spooled(root / "s") and not ledger(root / "s")
    again = run(root / "videos", root / "s")
    assert (again.num_renewed, again.num_present) == (0, 3) and Store(root / "s").fingerprint == store.fingerprint


def test_a_video_keeps_its_split(root: Path) -> None:
    (root / "videos" / "test").rename(root / "videos" / "egg")
    (root / "videos" / "egg" / "egg.mp4").rename(root / "videos" / "egg.mp4")
    (root / "videos" / "egg" / "egg.vtt").rename(root / "videos" / "egg.vtt")
    store = root / "t"
    run(root / "videos", store, test_fraction=1.0)
    assert Store(store).split(0) == "test" and Store(store).video_id(0) == "egg"
    (root / "videos" / "egg.vtt").write_text(SAID)
    assert run(root / "videos", store, test_fraction=0.0).num_renewed == 1
    assert Store(store).split(0) == "test" and captions(Store(store))["egg"] == ["pour the honey"]


def test_an_invalid_correction_changes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Store(root / "s").fingerprint
    unextracted(monkeypatch)
    (root / "videos" / "train" / "tea.vtt").write_text(VTT + "\n")  # the same captions in another file
    (root / "videos" / "test" / "egg.vtt").unlink()
    (root / "videos" / "train" / "mute.vtt").write_text("WEBVTT\n")  # still no captions
    summary = run(root / "videos", root / "s")
    assert (summary.num_renewed, summary.num_present, summary.num_skipped) == (0, 3, 0)
    assert "test/egg.mp4: its captions no longer exist; the store keeps the stored ones" in summary.notes
    settled = (root / "s" / SETTLED).read_text()
    run(root / "videos", root / "s")
    assert (root / "s" / SETTLED).read_text() == settled and Store(root / "s").fingerprint == before


@pytest.mark.parametrize("text", ["WEBVTT\n", "WEBVTT\n\n00:01.000 --> soon\nhi\n"], ids=["empty", "broken"])
def test_captions_that_cannot_be_used_leave_those_of_the_store(root: Path, text: str) -> None:
    (root / "videos" / "train" / "tea.vtt").write_text(text)
    before = Store(root / "s")
    for _ in range(2):
        summary = run(root / "videos", root / "s")
        assert (summary.num_renewed, summary.num_skipped) == (0, 1)
        assert ledger(root / "s") == {"train/tea.mp4": "captions"}
    assert Store(root / "s").fingerprint == before.fingerprint
    (root / "videos" / "train" / "tea.vtt").write_text(SAID)
    assert run(root / "videos", root / "s").num_renewed == 1 and not ledger(root / "s")


def test_another_video_of_the_same_name_is_refused(root: Path) -> None:
    write_video(root / "videos" / "train" / "tea.mp4", pictures(20, 9), 10, sound(2.0))
    summary = run(root / "videos", root / "s")
    assert (summary.num_renewed, summary.num_skipped) == (0, 1) and ledger(root / "s") == {"train/tea.mp4": "changed"}
    assert any("with other content; rename it, or use another collection" in note for note in summary.notes)


def test_items_renewed_by_a_killed_run_are_committed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "videos" / "train" / "tea.vtt").write_text(SAID)

    def killed(*_: object, **__: object) -> None:
        raise OSError("as if the process ended here")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="as if"):
        patch.setattr(driver, "StoreWriter", killed)
        run(root / "videos", root / "s")
    assert len(spooled(root / "s")) == 1
    with monkeypatch.context() as patch, pytest.raises(OSError, match="as if"):
        patch.setattr(driver.spool, "remove_spooled", killed)  # committed but not removed
        run(root / "videos", root / "s")
    assert len(part_paths(root / "s")) == 2 and len(spooled(root / "s")) == 1
    summary = run(root / "videos", root / "s")
    assert (summary.num_added, summary.num_present) == (0, 3)
    assert len(part_paths(root / "s")) == 2 and captions(Store(root / "s"))["train/tea"] == ["pour the honey"]
    assert verify(root / "s") == [] and not spooled(root / "s")


def test_clips_and_texts_of_a_table(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = root / "videos" / "t.csv"
    rows = ["id,video,text,start,end,split", "a,train/tea.mp4,a red egg,0,1,test", "b,train/tea.mp4,,1,2,train"]
    table.write_text("\n".join(rows) + "\n")
    run(table, root / "t")
    unextracted(monkeypatch)
    table.write_text("\n".join(rows).replace("a red egg", "a green egg") + "\n")
    (root / "videos" / "train" / "tea.vtt").write_text(VTT.replace("stir", "beat"))
    summary = run(table, root / "t")
    assert summary.num_renewed == 2 and summary.num_skipped == 0
    assert captions(Store(root / "t")) == {"a": ["a green egg"], "b": ["Crack the egg", "beat it zzqqxx"]}


# ---- stores of earlier versions


@pytest.mark.parametrize("kind", ["added", "corrected", "unknown", "another video"])
def test_captions_of_an_item_that_an_earlier_version_extracted(root: Path, kind: str) -> None:
    as_an_earlier_version_wrote_it(root / "s")
    assert Store(root / "s").media(0) == "" and len(outdated(Store(root / "s"))) == 3
    folder = root / "videos" / "train"
    if kind == "added":
        (folder / "mute.vtt").write_text(SAID)
    else:
        (folder / "tea.vtt").write_text(SAID)
    if kind == "another video":
        write_video(folder / "tea.mp4", pictures(20, 9), 10, sound(2.0))
    if kind == "unknown":
        (root / "s" / "hashes.jsonl").unlink()  # the digests of the earlier files
    summary = run(root / "videos", root / "s")
    name = "train/mute" if kind == "added" else "train/tea"
    if kind in ("added", "corrected"):
        assert (summary.num_renewed, summary.num_skipped) == (1, 0)
        assert captions(Store(root / "s"))[name] == ["pour the honey"]
    else:
        assert (summary.num_renewed, ledger(root / "s")) == (0, {"train/tea.mp4": "changed"})
        assert any("restore the earlier caption file, run this command" in note for note in summary.notes)
    if kind == "unknown":  # the advice of the message works
        (folder / "tea.vtt").write_text(VTT)
        run(root / "videos", root / "s")
        (folder / "tea.vtt").write_text(SAID)
        assert run(root / "videos", root / "s").num_renewed == 1
        assert captions(Store(root / "s"))[name] == ["pour the honey"] and not ledger(root / "s")


def test_only_items_whose_result_can_differ_are_extracted_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_an_earlier_version_wrote_it(root / "s")
    with Given(root / "s") as items:  # as if extracted by older rules
        items[0].streams["visual_2d"] = items[0].streams["visual_2d"] + np.float16(1)
        items[2].captions = replace(items[2].captions, text=("Crack the egg Crack", "stir it zzqqxx"))
    wanted = features(Store(root / "s"))
    asked: list[str] = []

    def can_differ(path: Path) -> bool:
        asked.append(path.name)
        return path.name in ("egg.mp4", "mute.mp4")

    monkeypatch.setattr(work, "clock_can_differ", can_differ)
    assert "older rules  3 items extracted by older rules" in str(store_info(root / "s"))
    summary = run(root / "videos", root / "s")
    assert isinstance(summary, ExtractSummary)
    assert (summary.num_renewed, summary.num_added, summary.video_s) == (2, 0, 0.0)
    assert sorted(asked) == ["egg.mp4", "mute.mp4", "tea.mp4"]
    store = Store(root / "s")
    assert [store.rules(i) for i in range(3)] == [CURRENT_RULES, "", CURRENT_RULES]
    assert captions(store)["train/tea"] == ["Crack the egg", "stir it zzqqxx"]
    new = features(store)
    assert np.array_equal(new["test/egg", "visual_2d"] + np.float16(1), wanted["test/egg", "visual_2d"])
    assert store.split(0) == "test" and len(outdated(store)) == 0 and verify(root / "s") == []
    assert "older rules" not in str(store_info(root / "s")), "what came out the same counts no longer"
    unextracted(monkeypatch)
    again = run(root / "videos", root / "s")
    assert (again.num_renewed, again.num_present, len(asked)) == (0, 3, 3), "and is not tried again"


def test_lines_of_settled_work_that_cannot_be_used_are_passed_over(root: Path) -> None:
    as_an_earlier_version_wrote_it(root / "s")
    run(root / "videos", root / "s")
    whole = (root / "s" / SETTLED).read_text()
    lines = [json.loads(line) for line in whole.splitlines()]
    assert len(lines) == 3 and {line["rules"] for line in lines} == {CURRENT_RULES}
    assert len(outdated(Store(root / "s"))) == 0
    old = json.dumps(lines[0] | {"rules": "clock 1, captions 2"})
    (root / "s" / SETTLED).write_text("\n".join(["torn", "[1]", "{}", old]) + "\n")
    assert len(outdated(Store(root / "s"))) == 3


def test_the_plan_ignores_other_collections(root: Path) -> None:
    run(root / "videos", root / "s", collection="other")
    known = plan.Known(root / "s", "other")
    known.renew()
    assert known.has_test and known.split_of == {"test/egg": "test", "train/mute": "train", "train/tea": "train"}
    (root / "videos" / "train" / "tea.vtt").write_text(SAID)
    assert run(root / "videos", root / "s", collection="other").num_renewed == 1
    store = Store(root / "s")
    collections_and_texts = [
        (store.collection(i), store.caption_text(i, 0)) for i in range(6) if store.video_id(i) == "train/tea"
    ]
    assert collections_and_texts == [("videos", "Crack the egg"), ("other", "pour the honey")]


def test_embeddings_of_captions_are_recomputed(tmp_path: Path) -> None:
    one = item("v", split="test", texts=("add", "the"))
    one.streams["text"], one.rates_hz["text"] = np.ones((2, 3), np.float32), PER_CAPTION
    store = Store(build(tmp_path / "s", [one]))
    read = SpooledItem(
        "v", "howto", "train", 9.0, {"text": np.zeros((1, 3), np.float32)}, {"text": PER_CAPTION}, spoken("salt"),
        renews=renewal.CAPTIONS,
    )  # fmt: skip
    new = renewal.merged(read, store, 0)
    assert (new.split, new.duration_s, new.captions.text) == ("test", 6.0, ("salt",))
    assert new.streams["text"].tolist() == [[0, 0, 0]] and new.rates_hz["text"] == PER_CAPTION
    assert np.array_equal(new.streams["visual_2d"], one.streams["visual_2d"]) and new.rates_hz["spectrogram"] == 3.0
    assert renewal.merged(
        replace(read, captions=Captions.empty(), streams={}, rates_hz={}), store, 0
    ).streams.keys() == {
        "visual_2d",
        "spectrogram",
    }


def test_the_clock_is_that_of_the_media() -> None:
    assert getattr(media, "CLOCK_RULES", CLOCK_RULES) == CLOCK_RULES
