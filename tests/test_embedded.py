"""Embeddings as files: round trips, defaults, and one line for what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded

PARTS = ("text_clip", "ids", "videos", "start_s", "end_s", "captions")


def same(a: Embedded, b: Embedded) -> bool:
    parts = [(a.embeddings[m], b.embeddings[m]) for m in a.embeddings] + [(a.valid[m], b.valid[m]) for m in a.valid]
    parts += [(getattr(a, name), getattr(b, name)) for name in PARTS] + [(a.labels[n], b.labels[n]) for n in a.labels]
    keys = list(a.embeddings) == list(b.embeddings) and list(a.labels) == list(b.labels)
    return keys and all((x is None and y is None) or np.array_equal(x, y) for x, y in parts)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("captions", [True, False])
def test_files_give_back_what_was_saved(suffix: str, captions: bool, tmp_path: Path) -> None:
    e = whole(captions)
    path = tmp_path / f"e{suffix}"
    e.save(path)
    found = Embedded.load(path)
    assert same(e, found) and found.source == str(path) and sorted(p.name for p in tmp_path.iterdir()) == [path.name]
    assert e.valid["video"].tolist() == [False, True, True, True, True] and not e.embeddings["video"][0].any()
    e.save(path)  # in place of the old one
    assert same(e, Embedded.load(path))


def whole(captions: bool = True) -> Embedded:
    rng = np.random.default_rng(1)
    video = rng.normal(size=(5, 3))
    video[0] = np.nan
    return Embedded.of(
        {"video": video, "text": rng.normal(size=(8, 3))},
        text_clip=[0, 1, 2, 3, 4, 4, 0, 4],
        ids=[f"clip {i} é" for i in range(5)],
        videos=list("ababa"),
        start_s=np.arange(5) / 3,
        end_s=np.arange(5) + 1.0,
        captions=[f"word {i} 鍋" for i in range(8)] if captions else None,
        labels={"class": ["cook", "eat", "cook", "cook", "eat"]},
    )


def test_what_is_not_told_has_defaults() -> None:
    e = Embedded.of({"video": np.ones((3, 2)), "text": np.ones((3, 2))})
    assert e.ids.tolist() == e.videos.tolist() == ["0", "1", "2"] and e.one_text_each and e.captions is None
    assert (e.num_clips, e.num_texts, e.end_s.tolist()) == (3, 3, [0, 0, 0]) and e.valid["text"].all()
    assert Embedded.of({"audio": np.ones((2, 4))}).num_texts == 2
    alone = Embedded.of({"text": np.ones((3, 2))}, text_clip=[0, 4, 1])
    assert (alone.num_clips, alone.one_text_each) == (5, False)


def test_others_files_need_little(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", video=np.ones((2, 3), np.float16), text=np.ones((2, 3)), captions=np.array(["x", "y"]))
    assert Embedded.load(tmp_path / "a.npz").captions.tolist() == ["x", "y"]  # type: ignore[union-attr]
    save_file({"video": torch.ones(2, 3, dtype=torch.bfloat16), "text": torch.ones(2, 3)}, tmp_path / "b.safetensors")
    assert Embedded.load(tmp_path / "b.safetensors").embeddings["video"].dtype == np.float32
    extra = {"format": "pt", "captions": '["x", "y"]'}
    save_file({"text": torch.ones(2, 3)}, tmp_path / "c.safetensors", metadata=extra)
    assert Embedded.load(tmp_path / "c.safetensors").captions.tolist() == ["x", "y"]  # type: ignore[union-attr]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_taken_clips_keep_their_texts(seed: int, count: int) -> None:
    rng, e = np.random.default_rng(seed), whole()
    clips = rng.permutation(5)[:count]
    found = e.take(clips)
    assert (
        found.ids.tolist() == e.ids[clips].tolist()
        and found.labels["class"].tolist() == e.labels["class"][clips].tolist()
    )
    pairs = {(str(e.ids[c]), t) for c, t in zip(e.text_clip, e.captions, strict=True) if c in clips}  # type: ignore[arg-type]
    assert {(str(found.ids[c]), t) for c, t in zip(found.text_clip, found.captions, strict=True)} == pairs  # type: ignore[arg-type]
    rows = {str(t): v.tolist() for t, v in zip(e.captions, e.embeddings["text"], strict=True)}  # type: ignore[arg-type]
    assert all(rows[str(t)] == v.tolist() for t, v in zip(found.captions, found.embeddings["text"], strict=True))  # type: ignore[arg-type]
    assert np.array_equal(found.embeddings["video"], e.embeddings["video"][clips])


V = np.ones((3, 2))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (({},), "holds no embeddings; it needs one of video, audio, text"),
        (({"smell": V},), "'smell' is no modality"),
        (({"video": np.ones(3)},), "video must be a matrix of numbers"),
        (({"video": np.ones((0, 3))},), "video must be a matrix of numbers"),
        (({"video": np.array([["a"]])},), "video must be a matrix of numbers"),
        (({"video": V, "text": np.ones((3, 4))},), "one width, not video 2, text 4"),
        (({"video": V, "audio": V[:2]},), "has 3 of video and 2 of audio; there is one row for each clip"),
        (({"video": V, "text": V[:2]},), "has 2 texts for 3 clips; say in text_clip whose each is"),
        (({"video": V, "text": V}, {"text_clip": [0, 1, 3]}), "for each of 3 texts, a clip below 3"),
        (({"video": V, "text": V}, {"text_clip": [0.0, 1.0, 2.0]}), "for each of 3 texts, a clip below 3"),
        (({"video": V}, {"ids": ["a", "b", "a"]}), "two clips are called 'a'; ids name each clip once"),
        (({"video": V}, {"valid": {"video": [True]}}), "video_valid must hold true or false for each of 3 rows"),
        (({"video": V * np.nan}, {"valid": {"video": [1, 0, 0]}}), "is true in row 0, whose embedding is not finite"),
        (({"video": V}, {"start_s": [0.0]}), "start_s must be seconds of each of 3 clips"),
        (({"video": V}, {"labels": {"class": ["a"]}}), "labels/class has 1 entries for 3"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments: tuple[dict[str, object], ...], told: str) -> None:
    given, *rest = arguments
    with pytest.raises(TrichordError) as caught:
        Embedded.of(given, **(rest[0] if rest else {}))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    for suffix in (".npz", ".safetensors"):
        path = tmp_path / f"x{suffix}"
        with pytest.raises(TrichordError, match="cannot be read .No such file"):
            Embedded.load(path)
        whole().save(path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(TrichordError, match="cannot be read .damaged, or of another kind.; write it again"):
            Embedded.load(path)
    with pytest.raises(TrichordError, match="kept as .safetensors or .npz"):
        Embedded.load(tmp_path / "x.pkl")
    np.savez(tmp_path / "y.npz", video=V, name=V)
    with pytest.raises(TrichordError, match="'name' is nothing that is read here"):
        Embedded.load(tmp_path / "y.npz")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    ids = np.array([{"a": 1}, "b", "c"], dtype=object)
    np.savez(tmp_path / "x.npz", video=V, ids=ids)
    with pytest.raises(TrichordError, match="cannot be read"):
        Embedded.load(tmp_path / "x.npz")
