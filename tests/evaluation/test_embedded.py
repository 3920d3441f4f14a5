"""Files of embeddings: round trips, defaults, and errors of one line for inconsistent files."""

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
    parts += [(a.classes[n], b.classes[n]) for n in a.classes]
    keys = (
        list(a.embeddings) == list(b.embeddings)
        and list(a.labels) == list(b.labels)
        and list(a.classes) == list(b.classes)
    )
    return keys and all((x is None and y is None) or np.array_equal(x, y) for x, y in parts)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("captions", [True, False])
def test_files_return_what_was_saved(suffix: str, captions: bool, tmp_path: Path) -> None:
    e = whole(captions)
    path = tmp_path / f"e{suffix}"
    e.save(path)
    embedded = Embedded.load(path)
    assert (
        same(e, embedded) and embedded.source == str(path) and sorted(p.name for p in tmp_path.iterdir()) == [path.name]
    )
    assert e.valid["video"].tolist() == [False, True, True, True, True] and not e.embeddings["video"][0].any()
    e.save(path)  # replaces the existing file
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
        classes={"class": ["cook", "eat", "stir"]},
    )


def test_missing_arrays_have_defaults() -> None:
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
    taken = e.take(clips)
    assert (
        taken.ids.tolist() == e.ids[clips].tolist()
        and taken.labels["class"].tolist() == e.labels["class"][clips].tolist()
    )
    pairs = {(str(e.ids[c]), t) for c, t in zip(e.text_clip, e.captions, strict=True) if c in clips}  # type: ignore[arg-type]
    assert {(str(taken.ids[c]), t) for c, t in zip(taken.text_clip, taken.captions, strict=True)} == pairs  # type: ignore[arg-type]
    rows = {str(t): v.tolist() for t, v in zip(e.captions, e.embeddings["text"], strict=True)}  # type: ignore[arg-type]
    assert all(rows[str(t)] == v.tolist() for t, v in zip(taken.captions, taken.embeddings["text"], strict=True))  # type: ignore[arg-type]
    assert np.array_equal(taken.embeddings["video"], e.embeddings["video"][clips])


V = np.ones((3, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({},), "has no embeddings; expected at least one of"),
        (({"smell": V},), "unknown modality 'smell'"),
        (({"video": np.ones(3)},), "video must be a matrix of numbers"),
        (({"video": np.ones((0, 3))},), "video must be a matrix of numbers"),
        (({"video": np.array([["a"]])},), "video must be a matrix of numbers"),
        (({"video": V, "text": np.ones((3, 4))},), "the widths are video 2, text 4"),
        (({"video": V, "audio": V[:2]},), "there are 3 rows of video and 2 rows of audio; give one row per clip"),
        (({"video": V, "text": V[:2]},), "there are 2 texts for 3 clips; give the index of the clip of each text"),
        (
            ({"video": V, "text": V}, {"text_clip": [0, 1, 3]}),
            "a clip index from 0 to 2 for each of 3 texts, not 0 to 3",
        ),
        (
            ({"video": V, "text": V}, {"text_clip": [0.0, 1.0, 2.0]}),
            "from 0 to 2 for each of 3 texts, not float64 of shape (3,)",
        ),
        (
            ({"video": V, "text": V}, {"text_clip": np.array(1)}),
            "from 0 to 2 for each of 3 texts, not int64 of shape ()",
        ),
        (({"text": V}, {"text_clip": [0, 1, 10**12]}), "from 0 to 2999 for each of 3 texts, not 0 to 1000000000000"),
        (({"text": V}, {"text_clip": np.array([])}), "not float64 of shape (0,)"),
        (({"video": V * 1e300},), "video contains numbers that are too large for float32; scale the embeddings"),
        (({"video": V}, {"ids": np.array("abc")}), "ids must be a list of strings, not a single value"),
        (({"video": V}, {"ids": np.array([["a", "b"]] * 3)}), "ids must be a list of strings, not of shape (3, 2)"),
        (({"video": V}, {"captions": "abc"}), "captions must be a list of strings, not a single value"),
        (
            ({"video": V}, {"end_s": [0.0, 1.0, np.nan]}),
            "end_s contains times that are not finite; correct them, or omit end_s",
        ),
        (({"video": V}, {"ids": ["a", "b", "a"]}), "two clips have the id 'a'; give every clip a different id"),
        (({"video": V}, {"valid": {"video": [True]}}), "video_valid must contain true or false for each of 3 rows"),
        (({"video": V * np.nan}, {"valid": {"video": [1, 0, 0]}}), "is true in row 0, but its embedding is not finite"),
        (({"video": V}, {"start_s": [0.0]}), "start_s must contain a time in seconds for each of 3 clips"),
        (({"video": V}, {"labels": {"class": ["a"]}}), "labels/class must have 3 entries, but it has 1"),
    ],
)
def test_inconsistent_arrays_are_errors_of_one_line(arguments: tuple[dict[str, object], ...], message: str) -> None:
    embeddings, *rest = arguments
    with pytest.raises(TrichordError) as caught:
        Embedded.of(embeddings, **(rest[0] if rest else {}))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_unreadable_files_are_errors_of_one_line(tmp_path: Path) -> None:
    for suffix in (".npz", ".safetensors"):
        path = tmp_path / f"x{suffix}"
        with pytest.raises(TrichordError, match="cannot be read .No such file"):
            Embedded.load(path)
        whole().save(path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(
            TrichordError, match=f"the file is damaged or is not a {suffix} file; copy it again, or write it again"
        ):
            Embedded.load(path)
    with pytest.raises(TrichordError, match="a file of embeddings must be .npz or .safetensors"):
        Embedded.load(tmp_path / "x.pkl")
    np.savez(tmp_path / "y.npz", video=V, name=V)
    with pytest.raises(TrichordError, match="unknown array 'name'; expected one of: video, audio, text, text_clip"):
        Embedded.load(tmp_path / "y.npz")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    ids = np.array([{"a": 1}, "b", "c"], dtype=object)
    np.savez(tmp_path / "x.npz", video=V, ids=ids)
    with pytest.raises(
        TrichordError, match="the array 'ids' contains Python objects, which are not unpickled; write it as an array of"
    ):
        Embedded.load(tmp_path / "x.npz")
    torch.save({"video": torch.ones(2, 3)}, tmp_path / "y.npz")
    with pytest.raises(
        TrichordError, match=r"the file was written by torch.save and is not unpickled; write a file with np.savez\("
    ):
        Embedded.load(tmp_path / "y.npz")


def test_common_mistakes_give_advice(tmp_path: Path) -> None:
    def error_of(path: Path) -> str:
        with pytest.raises(TrichordError) as caught:
            Embedded.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        return str(caught.value)

    def written(name: str, **arrays: np.ndarray) -> Path:
        np.savez(tmp_path / name, **arrays)  # type: ignore[arg-type]
        return tmp_path / name

    torch.save({"video": torch.ones(2, 3)}, tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", V)
    for name in ("a.pt", "a.npy"):
        assert "a file of embeddings must be .npz or .safetensors; write a file with np.savez(" in error_of(
            tmp_path / name
        )
    (tmp_path / "npy.npz").write_bytes((tmp_path / "a.npy").read_bytes())
    assert "the file is damaged or is not a .npz file; copy it again, or write it again" in error_of(
        tmp_path / "npy.npz"
    )
    (tmp_path / "folder.npz").mkdir()
    assert "the path is a folder; give the path of the file of embeddings" in error_of(tmp_path / "folder.npz")
    assert "the path is a folder; write a file with np.savez(" in error_of(tmp_path)
    for name in ("empty.npz", "empty.safetensors"):
        (tmp_path / name).touch()
        assert "is empty; write it again" in error_of(tmp_path / name)
    assert "no row of video is finite; remove the array" in error_of(written("nan.npz", video=V * np.nan, text=V))
    assert "expected one of: video, audio, text, text_clip, " in error_of(written("names.npz", txt=V, video=V))
    assert "unknown array 'audio_valid'" in error_of(written("v.npz", video=V, audio_valid=np.ones(3, bool)))
    assert "the file has classes/kind but not labels/kind; add labels/kind" in error_of(
        written("classes.npz", **{"video": V, "classes/kind": np.array(["a"])})
    )
    for captions_text in ("x", "5"):
        save_file({"video": torch.ones(2, 3)}, tmp_path / "c.safetensors", metadata={"captions": captions_text})
        assert "captions" in error_of(tmp_path / "c.safetensors") and "list of strings" in error_of(
            tmp_path / "c.safetensors"
        )


def test_rows_that_count_as_missing_are_reported(tmp_path: Path) -> None:
    from trichord.study.evaluate import evaluate

    video = np.random.default_rng(0).normal(size=(4, 2))
    video[1] = np.nan
    np.savez(tmp_path / "e.npz", video=video, text=np.eye(4, 2))
    notes = evaluate(None, None, embeddings=tmp_path / "e.npz").notes
    assert (
        f"{tmp_path / 'e.npz'}: 1 of 4 rows of video count as missing, since they are marked so or not finite" in notes
    )
